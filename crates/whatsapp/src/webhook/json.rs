//! Reading JSON of which nothing is certain: a field may be missing, a number may be a string, and the other way round.

use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber};
use connector_domain::time::Timestamp;
use serde_json::Value;

/// A non-empty string, or a number as its digits.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number, also when it comes as a string.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Whole seconds since 1970, as a string (messages, statuses) or a number (everything else).
pub(super) fn timestamp(value: &Value) -> Option<Timestamp> {
    int(value).filter(|secs| *secs >= 0).map(Timestamp::from_secs)
}

/// An address out of the fields that may carry one. What stands in a phone field and is no phone number is a BSUID: Meta
/// announced that BSUIDs may appear there.
pub(super) fn address(phone_fields: [&Value; 2], bsuid_fields: [&Value; 2]) -> Address {
    let mut address = Address::default();
    for id in bsuid_fields.into_iter().filter_map(text) {
        address.learn(&Address { phone: None, bsuid: Some(Bsuid(id)) });
    }
    for id in phone_fields.into_iter().filter_map(text) {
        address.learn(&match PhoneNumber::parse(&id) {
            Ok(phone) => Address { phone: Some(phone), bsuid: None },
            Err(_) => Address { phone: None, bsuid: Some(Bsuid(id)) },
        });
    }
    address
}

/// Stands in for the address of a group. Groups have a conversation of their own, so that a message to many never opens the
/// window of the one who wrote it.
pub(super) fn group(id: String) -> Address {
    Address { phone: None, bsuid: Some(Bsuid(format!("group:{id}"))) }
}

/// Whom a message is from: the group when it was written in one, else its sender.
pub(super) fn message_address(message: &Value, contact: &Value) -> Address {
    text(&message["group_id"]).map_or_else(|| sender(message, contact), group)
}

/// Who wrote a message.
pub(super) fn sender(message: &Value, contact: &Value) -> Address {
    address([&message["from"], &contact["wa_id"]], [&message["from_user_id"], &contact["user_id"]])
}

/// Whom a status is about: the group when the message went to one, else its recipient.
pub(super) fn status_address(status: &Value, contact: &Value) -> Address {
    if status["recipient_type"] == "group"
        && let Some(id) = text(&status["recipient_id"])
    {
        return group(id);
    }
    address([&status["recipient_id"], &contact["wa_id"]], [&status["recipient_user_id"], &contact["user_id"]])
}
