//! What a request brings, with a problem for whatever cannot be read: no answer of this API is plain text.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::Problem;

/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);

/// The longest address, and the most that the headers of a request may have.
const LONGEST_ADDRESS: usize = 8 * 1024;
const MOST_HEADERS: usize = 24 * 1024;

/// Parameters of the query. Each is a text for the handler to read, so that it can name the one at fault.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(query)| Self(query)).map_err(|rejection: QueryRejection| {
            // Only the name of a parameter of ours: the rest may repeat what was asked.
            let said = rejection.body_text();
            let name = said.split('`').nth(1).filter(|name| said.contains("duplicate field") && name.len() < 32);
            match name {
                Some(name) => Problem::field(name, "stands there twice"),
                None => Problem::bad("the query cannot be read"),
            }
        })
    }
}

/// Parts of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(path)| Self(path))
            .map_err(|_: PathRejection| Problem::bad("the path cannot be read: it is no UTF-8"))
    }
}

/// At most so many of something: a number, within the bounds of this API.
pub(crate) fn parse_limit(text: Option<&str>) -> Result<usize, Problem> {
    const MOST: usize = 1000;
    const USUAL: usize = 200;
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(USUAL) };
    let limit: usize = text.parse().map_err(|_| Problem::field("limit", "expected a number from 1 to 1000"))?;
    Ok(limit.clamp(1, MOST))
}

/// What is too large in the head of a request.
pub(crate) fn too_large(request: &Request) -> Option<Problem> {
    let address = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    if address > LONGEST_ADDRESS {
        return Some(Problem::new(StatusCode::URI_TOO_LONG, "the address is longer than 8 KiB", ""));
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (headers > MOST_HEADERS)
        .then(|| Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are larger than 24 KiB", ""))
}

/// Whether a body of this type may be JSON. What names no type, or the one that form tools (curl) put there unasked, is taken for JSON.
fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(named) = headers.get(CONTENT_TYPE) else { return true };
    let named = named.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/json", "application/x-www-form-urlencoded", ""].contains(&named.as_str()) || named.ends_with("+json")
}

/// The JSON object of a body.
pub(crate) async fn object<S: Send + Sync>(request: Request, state: &S) -> Result<Map<String, Value>, Problem> {
    if !may_be_json(request.headers()) {
        let title = "the body is not JSON";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, title, "expected content-type: application/json"));
    }
    let read = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await;
    let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time", ""))?;
    let bytes = read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB", "")
        }
        _ => Problem::not_json("the body could not be read"),
    })?;
    match serde_json::from_slice(&bytes) {
        Ok(Once(Value::Object(object))) => Ok(object),
        Ok(Once(_)) => Err(Problem::not_json("it is JSON, but not an object")),
        // The parser's message may repeat a piece of the text; its place is enough.
        Err(error) => {
            let what = if error.is_data() { "a name stands twice in one object: " } else { "" };
            Err(Problem::not_json(&format!("{what}line {}, column {}", error.line(), error.column())))
        }
    }
}

/// JSON in which no name stands twice in one object: two readers might take different ones.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Once(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let (mut values, mut seen) = (Map::new(), HashSet::new());
        while let Some(name) = object.next_key::<String>()? {
            let Once(value) = object.next_value()?;
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom("twice"));
            }
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_no_json_of_ours_at_any_depth() {
        let read = |text: &str| serde_json::from_str::<Once>(text).map(|Once(value)| value);
        for good in [r#"{"a":1,"b":[{"a":null},{"a":-1.5}]}"#, "[]", "true", r#""x""#] {
            assert_eq!(read(good).unwrap(), serde_json::from_str::<Value>(good).unwrap(), "{good}");
        }
        for bad in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"c":2,"a":3}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(read(bad).is_err_and(|error| error.is_data()), "{bad}");
        }
        assert!(read(&"[".repeat(100_000)).is_err(), "deep nesting ends in an error");
    }
}
