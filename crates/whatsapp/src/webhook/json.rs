//! Reading JSON of which nothing is certain: a field may be missing, a number may be a string, and the other way round.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber};
use connector_domain::time::Timestamp;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// An id is a part of what is derived from it, over and over; one of megabytes is none.
pub(super) const LONGEST_ID: usize = 1024;

/// What lies deeper in an item than this is of no interest to anybody, and is not read.
const DEPTH: usize = 16;

/// JSON as a strict reader takes it: half of a surrogate pair (an emoji that was cut) becomes U+FFFD. The JSON that is kept stays as it is.
pub(super) fn whole(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(escape) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += escape;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push_str(&json[copied..at]);
                out.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// A body as a JSON reader takes it: bytes that are no UTF-8 become U+FFFD, and control characters that stand in a text unescaped are
/// escaped.
pub(super) fn legible(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut out = String::with_capacity(text.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            '\0'..='\x1f' if in_text => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            _ => {}
        }
    }
    out
}

/// Reads JSON as far as it can be read: a key that stands there twice counts as it stands there last, halves of surrogate pairs become
/// U+FFFD, numbers that are too large for a number keep their digits, and what is nested without need is left out.
pub(super) fn read(json: &str) -> Option<Value> {
    let rounded = |value: &Value| value.as_object().is_some_and(|fields| fields.values().any(Value::is_f64));
    if let Some(value) = serde_json::from_str(json).ok().filter(|value| !rounded(value)) {
        return Some(value);
    }
    let json = whole(json);
    Some(patient(serde_json::from_str(&json).ok()?, DEPTH))
}

fn patient(raw: &RawValue, depth: usize) -> Value {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'{' | b'[') if depth == 0 => Value::Null,
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
            fields.into_iter().map(|(name, value)| (name, patient(value, depth - 1))).collect()
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            elements.into_iter().map(|value| patient(value, depth - 1)).collect()
        }
        Some(b'-' | b'0'..=b'9') => number(json),
        _ => serde_json::from_str(json).unwrap_or_default(),
    }
}

fn number(json: &str) -> Value {
    let exact = |number: &Number| !number.is_f64() || json.contains(['.', 'e', 'E']);
    match serde_json::from_str::<Number>(json).ok().filter(exact) {
        Some(number) => Value::Number(number),
        None => Value::String(json.to_owned()),
    }
}

/// A non-empty string, or a number as its digits.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number, also when it comes as a string or with a point. One that is too large is the largest.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(rounded)),
        Value::String(text) => {
            let text = text.trim();
            let number =
                || text.parse::<f64>().ok().filter(|_| text.ends_with(|c: char| c.is_ascii_digit())).map(rounded);
            text.parse().ok().or_else(number)
        }
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "out of range it is the largest or the least, which is what is wanted"
)]
const fn rounded(number: f64) -> i64 {
    number.trunc() as i64
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
    #[serde(borrow, rename = "type")]
    kind: Id<'a>,
    #[serde(borrow)]
    system: System<'a>,
}

/// What WhatsApp says in its own name about somebody who is addressed otherwise from now on.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct System<'a> {
    #[serde(borrow)]
    previous_user_id: Id<'a>,
    #[serde(borrow)]
    user_id: Id<'a>,
    #[serde(borrow)]
    wa_id: Id<'a>,
    /// How older versions spelled it.
    #[serde(borrow)]
    new_wa_id: Id<'a>,
}

impl System<'_> {
    fn of(value: &Value) -> Self {
        let id = |name: &str| Id(text(&value[name]).map(Cow::Owned));
        Self {
            previous_user_id: id("previous_user_id"),
            user_id: id("user_id"),
            wa_id: id("wa_id"),
            new_wa_id: id("new_wa_id"),
        }
    }

    fn moved_to(&self) -> Address {
        address([&self.wa_id, &self.new_wa_id], [&self.user_id, &NOBODY])
    }
}

/// A field that may carry an id, as text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Id<'a>(Option<Cow<'a, str>>);

impl Id<'_> {
    fn get(&self) -> Option<&str> {
        self.0.as_deref().filter(|id| id.len() <= LONGEST_ID)
    }
}

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
            kind: id("type"),
            system: System::of(&value["system"]),
        }
    }

    /// As the element of `contacts[]` or `user_preferences[]` that it is.
    pub(super) fn contact(&self) -> Address {
        address([&self.wa_id, &NOBODY], [&self.user_id, &NOBODY])
    }

    /// Whom a message is from: the group when it was written in one, else its sender.
    pub(super) fn message(&self, contact: &Self) -> Address {
        if let Some(id) = self.group_id.get() {
            return group(id);
        }
        if self.kind.get() == Some("system") {
            return self.former(contact);
        }
        self.sender(contact)
    }

    /// Whom WhatsApp itself speaks about: as they were addressed until now, whichever of the two user ids stands as the sender. When it does
    /// not say that, as they are from now on.
    fn former(&self, contact: &Self) -> Address {
        let sender = self.sender(contact);
        match self.system.previous_user_id.get() {
            Some(previous) => Address { phone: sender.phone, bsuid: Some(Bsuid(previous.to_owned())) },
            None if sender.is_empty() => self.system.moved_to(),
            None => sender,
        }
    }

    /// Who wrote a message.
    pub(super) fn sender(&self, contact: &Self) -> Address {
        address([&self.from, &contact.wa_id], [&self.from_user_id, &contact.user_id])
    }

    /// Who called the business; nobody when it is not said that a person did: a call that the business makes is not theirs.
    pub(super) fn caller(&self, contact: &Self) -> Address {
        if self.direction.get() == Some(BY_PERSON) { self.sender(contact) } else { Address::default() }
    }

    /// Whom a status is about: the group when the message went to one, else its recipient.
    pub(super) fn status(&self, contact: &Self) -> Address {
        if self.recipient_type.get() == Some("group")
            && let Some(id) = self.recipient_id.get()
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
    let mut bsuid = bsuid_fields.into_iter().find_map(|id| id.get());
    let mut phone = None;
    for id in phone_fields.into_iter().filter_map(|id| id.get()) {
        match (&phone, PhoneNumber::from_whatsapp(id)) {
            (None, Ok(parsed)) => phone = Some(parsed),
            (Some(_), Ok(_)) => {}
            (_, Err(_)) => bsuid = bsuid.or(Some(id)),
        }
    }
    Address { phone, bsuid: bsuid.map(|id| Bsuid(id.to_owned())) }
}

/// The new address that a system message tells.
pub(super) fn moved_to(system: &Value) -> Address {
    System::of(system).moved_to()
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

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Id<'de>, E> {
        // Perhaps one whose digits do not fit: [`read`] knows them.
        Err(E::custom("a number that may have been rounded"))
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
