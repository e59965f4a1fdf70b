//! `GET /{version}/{waba_id}/message_templates`: filters and cursors.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{answer, authorize, errors::GraphError};
use crate::{App, template::Template};

/// Templates on a page if the request does not say (Graph: 25).
const PAGE: usize = 25;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    fields: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    before: Option<String>,
    name: Option<String>,
    status: Option<String>,
    language: Option<String>,
    category: Option<String>,
    summary: Option<String>,
}

/// Templates an account may have (Graph: 250 until the business is verified, then 6,000).
const LIMIT: usize = 6_000;

/// A cursor names the template it stands at, so a changed list does not shift pages.
fn cursor(template: &Template) -> String {
    hex::encode(template.id.to_be_bytes())
}

/// Handler.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Path((version, waba_id)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| page(&app, &version, &waba_id, &query));
    answer(&app, result)
}

fn page(app: &App, version: &str, waba_id: &str, query: &ListQuery) -> Result<Value, GraphError> {
    let world = app.world();
    let account = world.account(waba_id).ok_or_else(|| GraphError::no_such_object("get", waba_id))?;
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(value));
    let wanted = |t: &&Template| {
        // Graph's name filter finds parts of names.
        query.name.as_ref().is_none_or(|name| t.name.contains(name.as_str()))
            && is(&query.status, &t.status)
            && is(&query.language, &t.language)
            && is(&query.category, &t.category)
    };
    let all: Vec<&Template> = account.templates.iter().filter(wanted).collect();
    let find = |at: &String| {
        let bad = || GraphError::new(131_059).details("The cursor does not belong to this list");
        all.iter().position(|t| cursor(t) == *at).ok_or_else(bad)
    };
    let limit = query.limit.unwrap_or(PAGE).max(1);
    let (start, end) = match (&query.after, &query.before) {
        (Some(after), _) => {
            let start = find(after)? + 1;
            (start, start.saturating_add(limit).min(all.len()))
        }
        (None, Some(before)) => {
            let end = find(before)?;
            (end.saturating_sub(limit), end)
        }
        (None, None) => (0, limit.min(all.len())),
    };
    let shown = all.get(start..end).unwrap_or_default();
    let data: Vec<Value> = shown.iter().map(|t| select(t.json(), query.fields.as_deref())).collect();
    let mut answer = json!({ "data": data });
    if let Some(fields) = &query.summary {
        let summary = json!({
            "total_count": all.len(),
            "message_template_count": account.templates.len(),
            "message_template_limit": LIMIT,
            "are_translations_complete": true,
        });
        let wanted: Vec<&str> = fields.split(',').map(str::trim).collect();
        let kept = summary.as_object().into_iter().flatten().filter(|(name, _)| wanted.contains(&name.as_str()));
        answer["summary"] = Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
    }
    if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
        answer["paging"] = json!({"cursors": {"before": cursor(first), "after": cursor(last)}});
        if end < all.len() {
            let next =
                format!("https://graph.facebook.com/{version}/{waba_id}/message_templates?after={}", cursor(last));
            answer["paging"]["next"] = json!(next);
        }
    }
    Ok(answer)
}

/// Keeps the fields asked for, and the id.
pub(super) fn select(value: Value, fields: Option<&str>) -> Value {
    let (Some(fields), Value::Object(all)) = (fields, &value) else { return value };
    let names: Vec<&str> = fields.split(',').map(str::trim).chain(["id"]).collect();
    let kept = all.iter().filter(|(key, _)| names.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
}
