//! Reads what the Graph API answers. A gateway in between may answer anything, so nothing is taken for granted.

use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber, Wamid};
use connector_domain::outcome::{Answer, GraphError};
use serde_json::Value;

/// The answer to a send.
pub(super) fn read_answer(status: u16, body: &[u8]) -> Answer {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        return unreadable(status);
    };
    let message = &json["messages"][0];
    Answer::Http {
        status,
        wamid: message["id"].as_str().filter(|id| !id.is_empty()).map(Wamid::from),
        held: message["message_status"] == "held_for_quality_assessment" || message["message_status"] == "paused",
        person: person(&json["contacts"][0]),
        error: graph_error(&json),
        readable: true,
    }
}

/// Whom WhatsApp addressed.
fn person(contact: &Value) -> Address {
    let id = |name: &str| contact[name].as_str().filter(|id| !id.is_empty());
    Address {
        phone: id("wa_id").and_then(|id| PhoneNumber::from_whatsapp(id).ok()),
        bsuid: id("user_id").map(|id| Bsuid(id.to_owned())),
    }
}

/// What an answer says about the person when it says nothing.
pub(super) const NOBODY: Address = Address { phone: None, bsuid: None };

/// An HTTP answer whose body says nothing.
pub(super) const fn unreadable(status: u16) -> Answer {
    Answer::Http { status, wamid: None, held: false, person: NOBODY, error: None, readable: false }
}

/// Graph's error object. Its message and details may quote the request, so only numbers are taken.
pub(super) fn graph_error(json: &Value) -> Option<GraphError> {
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    let error = &json["error"];
    Some(GraphError { code: number(&error["code"])?, subcode: number(&error["error_subcode"]) })
}

/// True for what a management call may ask again: throttles and failures on Meta's side.
pub(super) fn is_transient(http: u16, json: &Value, error: GraphError) -> bool {
    json["error"]["is_transient"] == true
        || http == 429
        || http >= 500
        || matches!(error.code, 1 | 2 | 4 | 17 | 32 | 613 | 80007..=80014 | 130_429 | 131_000 | 131_016)
}
