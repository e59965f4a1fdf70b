//! Reading JSON of which nothing is certain: a field may be missing, a number may be a string, and the other way round.

use std::borrow::Cow;
use std::fmt;

use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber};
use connector_domain::time::Timestamp;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
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

/// The fields of a message, status, call, contact or preference that say whom it is about, each a non-empty string or a number as its
/// digits. Everything else, the person's words included, is not decoded for this.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Who<'a> {
    #[serde(borrow)]
    from: Id<'a>,
    #[serde(borrow)]
    from_user_id: Id<'a>,
    #[serde(borrow)]
    group_id: Id<'a>,
    #[serde(borrow)]
    recipient_id: Id<'a>,
    #[serde(borrow)]
    recipient_user_id: Id<'a>,
    #[serde(borrow)]
    recipient_type: Id<'a>,
    #[serde(borrow)]
    wa_id: Id<'a>,
    #[serde(borrow)]
    user_id: Id<'a>,
    #[serde(borrow)]
    direction: Id<'a>,
}

/// A field that may carry an id, as text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Id<'a>(Option<Cow<'a, str>>);

impl Who<'_> {
    /// What a value that was read already says.
    pub(super) fn of(value: &Value) -> Self {
        let id = |name: &str| Id(text(&value[name]).map(Cow::Owned));
        Self {
            from: id("from"),
            from_user_id: id("from_user_id"),
            group_id: id("group_id"),
            recipient_id: id("recipient_id"),
            recipient_user_id: id("recipient_user_id"),
            recipient_type: id("recipient_type"),
            wa_id: id("wa_id"),
            user_id: id("user_id"),
            direction: id("direction"),
        }
    }

    /// As the element of `contacts[]` or `user_preferences[]` that it is.
    pub(super) fn contact(&self) -> Address {
        address([&self.wa_id, &NOBODY], [&self.user_id, &NOBODY])
    }

    /// Whom a message is from: the group when it was written in one, else its sender.
    pub(super) fn message(&self, contact: &Self) -> Address {
        self.group_id.0.as_deref().map_or_else(|| self.sender(contact), group)
    }

    /// Who wrote a message.
    pub(super) fn sender(&self, contact: &Self) -> Address {
        address([&self.from, &contact.wa_id], [&self.from_user_id, &contact.user_id])
    }

    /// Who called the business; nobody when it is not said that a person did: a call that the business makes is not theirs.
    pub(super) fn caller(&self, contact: &Self) -> Address {
        if self.direction.0.as_deref() == Some(BY_PERSON) { self.sender(contact) } else { Address::default() }
    }

    /// Whom a status is about: the group when the message went to one, else its recipient.
    pub(super) fn status(&self, contact: &Self) -> Address {
        if self.recipient_type.0.as_deref() == Some("group")
            && let Some(id) = self.recipient_id.0.as_deref()
        {
            return group(id);
        }
        address([&self.recipient_id, &contact.wa_id], [&self.recipient_user_id, &contact.user_id])
    }
}

/// The `direction` of a call that a person made.
pub(super) const BY_PERSON: &str = "USER_INITIATED";

const NOBODY: Id<'_> = Id(None);

/// An address out of the fields that may carry one; the first of a kind counts. What stands in a phone field and is no phone number
/// is a BSUID: Meta announced that BSUIDs may appear there.
fn address(phone_fields: [&Id<'_>; 2], bsuid_fields: [&Id<'_>; 2]) -> Address {
    let mut bsuid = bsuid_fields.into_iter().find_map(|id| id.0.as_deref());
    let mut phone = None;
    for id in phone_fields.into_iter().filter_map(|id| id.0.as_deref()) {
        match (&phone, PhoneNumber::parse(id)) {
            (None, Ok(parsed)) => phone = Some(parsed),
            (Some(_), Ok(_)) => {}
            (_, Err(_)) => bsuid = bsuid.or(Some(id)),
        }
    }
    Address { phone, bsuid: bsuid.map(|id| Bsuid(id.to_owned())) }
}

/// The new address that a system message tells.
pub(super) fn moved_to(system: &Value) -> Address {
    let id = |name: &str| Id(text(&system[name]).map(Cow::Owned));
    // `new_wa_id` is how older versions spelled it.
    address([&id("wa_id"), &id("new_wa_id")], [&id("user_id"), &NOBODY])
}

/// Stands in for the address of a group. Groups have a conversation of their own, so that a message to many never opens the
/// window of the one who wrote it.
fn group(id: &str) -> Address {
    Address { phone: None, bsuid: Some(Bsuid(format!("group:{id}"))) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

/// Takes anything. A structure in the place of an id is skipped.
struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = Id<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Id<'de>, E> {
        Ok(Id((!value.trim().is_empty()).then_some(Cow::Borrowed(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Id<'de>, E> {
        Ok(Id((!value.trim().is_empty()).then(|| Cow::Owned(value.to_owned()))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Id<'de>, E> {
        Ok(Id(Some(Cow::Owned(value.to_string()))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Id<'de>, E> {
        Ok(Id(Some(Cow::Owned(value.to_string()))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Id<'de>, E> {
        Ok(Id(text(&Value::from(value)).map(Cow::Owned)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Id<'de>, E> {
        Ok(NOBODY)
    }

    fn visit_unit<E>(self) -> Result<Id<'de>, E> {
        Ok(NOBODY)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Id<'de>, A::Error> {
        IgnoredAny.visit_seq(sequence).map(|_| NOBODY)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Id<'de>, A::Error> {
        IgnoredAny.visit_map(map).map(|_| NOBODY)
    }
}
