//! Graph API errors: the JSON body, and the table of codes with the HTTP status and title each comes with.
//!
//! Meta's page gives no HTTP status for most codes; the values are the best known ones (older documentation text, OpenAPI
//! examples, field reports). Clients must classify by `code`. Source: `support/error-codes`, September 2026.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

/// Titles and HTTP statuses by code.
const CODES: &[(u32, u16, &str)] = &[
    (0, 401, "AuthException"),
    (1, 400, "API Unknown"),
    (2, 503, "Service temporarily unavailable"),
    (3, 500, "API Method"),
    (4, 400, "Application request limit reached"),
    (10, 403, "Application does not have permission for this action"),
    (17, 400, "User request limit reached"),
    (32, 400, "Page request limit reached"),
    (33, 400, "Parameter value is not valid"),
    (100, 400, "Invalid parameter"),
    (104, 401, "Access token required"),
    (190, 401, "Error validating access token: The access token could not be decrypted"),
    (200, 403, "Permissions error"),
    (368, 403, "Temporarily blocked for policies violations"),
    (613, 400, "Calls to this api have exceeded the rate limit"),
    (803, 404, "Some of the aliases you requested do not exist"),
    (80007, 429, "Rate limit issues"),
    (80008, 400, "There have been too many calls to this WhatsApp Business account"),
    (130_403, 403, "Business has blocked this user"),
    (130_429, 400, "Rate limit hit"),
    (130_472, 400, "User's number is part of an experiment"),
    (130_497, 403, "Business account is restricted from messaging users in this country"),
    (131_000, 500, "Something went wrong"),
    (131_005, 403, "Access denied"),
    (131_008, 400, "Required parameter is missing"),
    (131_009, 400, "Parameter value is not valid"),
    (131_016, 500, "Service unavailable"),
    (131_021, 400, "Recipient cannot be sender"),
    (131_026, 400, "Message undeliverable"),
    (131_030, 400, "Recipient phone number not in allowed list"),
    (131_031, 403, "Account has been locked"),
    (131_037, 400, "WhatsApp provided number needs display name approval before message can be sent"),
    (131_042, 400, "Business eligibility payment issue"),
    (131_043, 400, "Message expired"),
    (131_044, 400, "Business eligibility payment issue"),
    (131_045, 500, "Incorrect certificate"),
    (131_047, 400, "Re-engagement message"),
    (131_048, 400, "Spam rate limit hit"),
    (131_049, 400, "This message was not delivered to maintain healthy ecosystem engagement."),
    (131_050, 400, "User has stopped marketing messages from this business"),
    (131_051, 400, "Unsupported message type"),
    (131_052, 400, "Media download error"),
    (131_053, 400, "Media upload error"),
    (131_055, 400, "Method not allowed"),
    (131_056, 400, "(Business Account, Consumer Account) pair rate limit hit"),
    (131_057, 500, "Account in maintenance mode"),
    (131_059, 400, "Invalid paging cursor"),
    (131_060, 400, "Message unavailable"),
    (131_061, 400, "Template with a maximum price must be sent by the marketing messages endpoint"),
    (131_062, 400, "Business-scoped user id is not supported for this message"),
    (131_063, 400, "Marketing templates are disabled on Cloud API for this account"),
    (131_064, 400, "Messaging limit reached because of template misclassification"),
    (131_065, 400, "Template with a maximum price is not available in this country"),
    (131_070, 400, "Another responder owns the thread"),
    (132_000, 400, "Number of parameters does not match the expected number of params"),
    (132_001, 404, "Template name does not exist in the translation"),
    (132_005, 400, "Translated text too long"),
    (132_007, 400, "Template format character policy violated"),
    (132_008, 400, "Parameter value is not valid"),
    (132_012, 400, "Parameter format does not match format in the created template"),
    (132_015, 400, "Template is paused"),
    (132_016, 400, "Template is disabled"),
    (132_018, 400, "There is an issue with the parameters in your template"),
    (132_068, 400, "Flow is blocked"),
    (132_069, 400, "Flow is throttled"),
    (133_000, 500, "Incomplete deregistration"),
    (133_004, 503, "Server temporarily unavailable"),
    (133_005, 400, "Two step verification PIN mismatch"),
    (133_006, 400, "Phone number re-verification needed"),
    (133_008, 400, "Too many two step verification PIN guesses"),
    (133_009, 400, "Two step verification PIN guessed too fast"),
    (133_010, 400, "Phone number not registered"),
    (133_015, 400, "Please wait a few minutes before attempting to register this phone number"),
    (133_016, 400, "Too many registrations of this phone number"),
    (134_011, 400, "Payments terms of service have not been accepted"),
    (134_100, 400, "Only marketing messages are supported"),
    (134_101, 400, "Template is syncing"),
    (134_102, 500, "Marketing messages are not available"),
    (135_000, 400, "Generic user error"),
    (137_000, 400, "Recipient identity key hash mismatch"),
];

/// Where the errors of webhooks link to.
const HREF: &str = "https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes/";

/// One error as the Graph API reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GraphError {
    pub(crate) code: u32,
    pub(crate) status: u16,
    message: String,
    details: Option<String>,
    subcode: Option<u32>,
    kind: &'static str,
}

/// HTTP status and title of a code; unknown codes are 400.
fn entry(code: u32) -> (u16, &'static str) {
    CODES
        .iter()
        .find(|(known, ..)| *known == code)
        .map_or((400, "Unknown error"), |(_, status, title)| (*status, *title))
}

impl GraphError {
    /// The error with its usual status and title.
    pub(crate) fn new(code: u32) -> Self {
        let (status, title) = entry(code);
        // Token errors are printed without the "(#code)" prefix, all others with it.
        let message = if matches!(code, 0 | 190 | 803) { title.to_owned() } else { format!("(#{code}) {title}") };
        let kind = if code == 803 { "GraphMethodException" } else { "OAuthException" };
        Self { code, status, message, details: None, subcode: None, kind }
    }

    /// `(#100) <message>`, as for a missing or misspelt parameter.
    pub(crate) fn param(message: impl AsRef<str>) -> Self {
        Self { message: format!("(#100) {}", message.as_ref()), ..Self::new(100) }
    }

    /// The answer for an id that does not exist or that the token does not see.
    pub(crate) fn no_such_object(method: &str, id: &str) -> Self {
        let message = format!(
            "Unsupported {method} request. Object with ID '{id}' does not exist, cannot be loaded due to missing \
             permissions, or does not support this operation"
        );
        Self { message, subcode: Some(33), kind: "GraphMethodException", ..Self::new(100) }
    }

    /// Adds `error_data.details`.
    pub(crate) fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Replaces the HTTP status.
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds `error_subcode`.
    pub(crate) fn subcode(mut self, subcode: u32) -> Self {
        self.subcode = Some(subcode);
        self
    }

    /// Replaces the message.
    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The response body.
    pub(crate) fn body(&self, fbtrace_id: &str) -> Value {
        let mut error = json!({"message": self.message, "type": self.kind, "code": self.code});
        if let Some(details) = &self.details {
            error["error_data"] = json!({"messaging_product": "whatsapp", "details": details});
        }
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        error["fbtrace_id"] = json!(fbtrace_id);
        json!({ "error": error })
    }

    /// The HTTP response.
    pub(crate) fn response(&self, fbtrace_id: &str) -> Response {
        json_response(self.status, &self.body(fbtrace_id))
    }

    /// The entry of `errors[]` in a failed status.
    pub(crate) fn webhook(&self) -> Value {
        let (_, title) = entry(self.code);
        let details = self.details.as_deref().unwrap_or(title);
        json!({"code": self.code, "title": title, "message": title, "error_data": {"details": details}, "href": HREF})
    }
}

/// A JSON response with the content type Graph uses.
pub(crate) fn json_response(status: u16, body: &Value) -> Response {
    raw_response(status, "application/json; charset=UTF-8", Body::from(body.to_string()))
}

/// Any response.
pub(crate) fn raw_response(status: u16, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_documented_shape() {
        let error =
            GraphError::new(130_429).details("Cloud API message throughput has been reached.").subcode(2_494_055);
        assert_eq!(
            error.body("Az8or2yhqkZfEZ-_4Qn_Bam"),
            json!({"error": {
                "message": "(#130429) Rate limit hit", "type": "OAuthException", "code": 130_429,
                "error_data": {"messaging_product": "whatsapp",
                    "details": "Cloud API message throughput has been reached."},
                "error_subcode": 2_494_055, "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam"}})
        );
    }

    #[test]
    fn each_code_is_listed_once_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_unknown_code_is_still_a_graph_error() {
        assert_eq!(GraphError::new(999_999).status, 400);
    }
}
