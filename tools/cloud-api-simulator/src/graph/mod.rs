//! The Graph API: routes below `/{version}`, authorization, and the answers.

pub(crate) mod errors;
mod messages;
mod profile;
pub(crate) mod request;
mod templates;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, header},
    response::Response,
    routing::{get, post},
};
use serde_json::Value;

use self::errors::{GraphError, json_response};
use crate::App;

/// All routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/{version}/{id}/messages", post(messages::send))
        .route("/{version}/{id}/message_templates", get(templates::list))
        .route("/{version}/{id}/phone_numbers", get(profile::phone_numbers))
        .route("/{version}/{id}", get(profile::node))
        .route("/{version}/{id}/whatsapp_business_profile", get(profile::profile).post(profile::change_profile))
        .route(
            "/{version}/{id}/official_business_account",
            get(profile::official_account).post(profile::request_official_account),
        )
        .route("/{version}/{id}/subscribed_apps", get(profile::subscribed_apps).post(profile::subscribe))
        .route("/{version}/{id}/register", post(profile::register))
}

/// Checks the version segment and the bearer token.
fn authorize(app: &App, version: &str, headers: &HeaderMap) -> Result<(), GraphError> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match token.and_then(|value| value.strip_prefix("Bearer ")) {
        None => {
            return Err(GraphError::new(190).message("An access token is required to request this resource."));
        }
        Some(token) if token != app.config.token.expose() => {
            return Err(GraphError::new(190).message("Invalid OAuth access token - Cannot parse access token"));
        }
        Some(_) => {}
    }
    let number = version.strip_prefix('v').and_then(|number| number.split_once('.'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if number.is_some_and(|(major, minor)| digits(major) && digits(minor)) {
        return Ok(());
    }
    Err(GraphError::new(2500).message("Unknown path components"))
}

/// A JSON answer, or the error's.
fn answer(app: &App, result: Result<Value, GraphError>) -> Response {
    match result {
        Ok(value) => json_response(200, &value),
        Err(error) => error.response(&app.ids.fbtrace_id()),
    }
}
