//! What is answered when something is wrong: `application/problem+json` (RFC 9457), with the fields at fault.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connector_domain::ids::CommandId;
use connector_ports::Retry;
use connector_ports::log::LogError;
use connector_ports::whatsapp::WhatsAppError;
use connector_runtime::failure::Failure;
use serde::Serialize;

use crate::model::ModelError;

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// Path into the request body or the name of a query parameter.
    pub(crate) field: String,
    /// What is wrong with it. Never repeats its value.
    pub(crate) detail: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// The body of an error.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The command that may or may not have been taken: to be repeated with this id, or asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<CommandId>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { title, status: status.as_u16(), detail: detail.into(), errors: Vec::new(), command_id: None }
    }

    /// Names the command it is about.
    pub(crate) const fn with_command(mut self, command: CommandId) -> Self {
        self.command_id = Some(command);
        self
    }

    pub(crate) fn bad(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the request cannot be read", detail)
    }

    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "the method does not fit the address", "")
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "a valid bearer token is needed", "")
    }

    /// The token is valid, and this is not what it is for.
    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "this token may not do this", detail)
    }

    /// It cannot be done as things are.
    pub(crate) fn conflict(detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "this cannot be done as things are", detail)
    }

    /// It does not exist, or it is somebody else's: the answer is the same (P4).
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", format!("this organization has no such {what}"))
    }

    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the request has fields at fault", "");
        problem.errors = errors;
        problem
    }

    pub(crate) fn field(field: &str, detail: &str) -> Self {
        Self::invalid(vec![FieldError::new(field, detail)])
    }

    pub(crate) fn not_json(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the body is not a JSON object", detail)
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not possible right now", detail)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here", "")
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        tracing::warn!(%error, "a write was not acknowledged");
        match (&error, error.retry()) {
            (LogError::TooLarge { .. }, _) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than the log takes", "")
            }
            (_, Retry::Reinitialise) => {
                Self::unavailable("it may or may not have been written; repeat it with the same command_id")
            }
            (LogError::UnknownTopic { .. }, _) => {
                Self::unavailable("the topic does not exist yet; nothing was written")
            }
            (_, Retry::Later | Retry::Fenced) => Self::unavailable("the log is not available; nothing was written"),
            (_, Retry::Never) => Self::internal(),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        tracing::warn!(%failure, "a request could not be answered");
        match failure {
            Failure::Later(_) | Failure::Reinitialise(_) => Self::unavailable("what this depends on is behind or away"),
            Failure::Fenced(_) | Failure::Fatal(_) => Self::internal(),
        }
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        tracing::error!(%error, "the read model does not answer");
        Self::internal()
    }
}

impl From<WhatsAppError> for Problem {
    fn from(error: WhatsAppError) -> Self {
        tracing::warn!(%error, "WhatsApp did not answer a request for a profile");
        match error {
            WhatsAppError::Unavailable { .. } => Self::unavailable("WhatsApp does not answer"),
            WhatsAppError::Refused { code } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "WhatsApp refused it", format!("Graph error code {code}"))
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        if let Some(command) = self.command_id
            && let Ok(location) = HeaderValue::from_str(&format!("/v1/commands/{command}"))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body was not read: there is no next request on this connection.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
