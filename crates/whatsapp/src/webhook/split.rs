//! Takes a delivery apart. One POST may carry up to 1,000 updates of several accounts, numbers and people; each becomes one
//! item that keeps its JSON byte for byte.
//!
//! Nothing is lost: what does not look as documented becomes a `Change` item with everything in it.

use connector_domain::command::{WebhookItem, WebhookKind};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{PhoneNumberId, Text, WabaId};
use connector_domain::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json;

/// Why a delivery cannot be taken apart. The same bytes never can: no retry.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SplitError {
    /// The body is not JSON.
    #[error("the delivery is not JSON")]
    NotJson,
    /// The body is JSON, yet not an object.
    #[error("the delivery is not a JSON object")]
    NotAnObject,
}

/// One item of a delivery and whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The item as it goes to the log.
    pub item: WebhookItem,
    /// The contact (or group) concerned. Empty for account changes and for what cannot be understood.
    pub address: Address,
}

impl Split {
    /// The key under which the item is written: the conversation, else the number, else the account. Items of one
    /// conversation therefore stay in order.
    #[must_use]
    pub fn key(&self, keys: &StreamKeys) -> String {
        match &self.item.phone_number_id {
            Some(number) => keys.conversation(number, &self.address).unwrap_or_else(|| keys.number(number)).0,
            None => format!("waba/{}", self.item.waba_id),
        }
    }
}

#[derive(Deserialize, Default)]
struct Envelope<'a> {
    #[serde(borrow)]
    entry: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ChangeOf<'a> {
    #[serde(borrow)]
    field: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Metadata<'a> {
    #[serde(borrow)]
    phone_number_id: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ValueOf<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    statuses: Option<&'a RawValue>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
    #[serde(borrow)]
    user_preferences: Option<&'a RawValue>,
}

/// The few fields of a message, status, contact or preference that say whom it is about. Everything else, the person's
/// words included, is not even decoded here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Who<'a> {
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    from_user_id: Option<&'a RawValue>,
    group_id: Option<&'a RawValue>,
    recipient_id: Option<&'a RawValue>,
    recipient_user_id: Option<&'a RawValue>,
    recipient_type: Option<&'a RawValue>,
    wa_id: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
}

impl Who<'_> {
    fn of(raw: &RawValue) -> Value {
        let who: Who<'_> = object(raw);
        let fields = [
            ("from", who.from),
            ("from_user_id", who.from_user_id),
            ("group_id", who.group_id),
            ("recipient_id", who.recipient_id),
            ("recipient_user_id", who.recipient_user_id),
            ("recipient_type", who.recipient_type),
            ("wa_id", who.wa_id),
            ("user_id", who.user_id),
        ];
        let known = fields.into_iter().filter_map(|(name, raw)| Some((name.to_owned(), scalar(raw?)?.into())));
        Value::Object(known.collect())
    }
}

/// The fields of an object, or none of them. The check for the brace is needed: serde would read an array as the fields in
/// their order.
fn object<'a, T: Deserialize<'a> + Default>(raw: &'a RawValue) -> T {
    let object = raw.get().starts_with('{');
    if object { serde_json::from_str(raw.get()).unwrap_or_default() } else { T::default() }
}

/// A string or number, as text. Ids are strings today and were numbers in some places.
fn scalar(raw: &RawValue) -> Option<String> {
    // Only these two forms are parsed: a large structure in the place of an id costs nothing.
    let scalar = raw.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    if scalar { json::text(&serde_json::from_str(raw.get()).ok()?) } else { None }
}

fn array(raw: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    raw.map_or_else(|| Some(Vec::new()), |raw| serde_json::from_str(raw.get()).ok())
}

/// Takes a delivery apart; the items are in the order of the delivery. `delivery_id` is one id per POST.
///
/// # Errors
/// When the body is not a JSON object.
pub fn split(body: &[u8], received_at: Timestamp, delivery_id: &str) -> Result<Vec<Split>, SplitError> {
    let text = std::str::from_utf8(body).map_err(|_| SplitError::NotJson)?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|_| SplitError::NotJson)?;
    if !whole.get().starts_with('{') {
        return Err(SplitError::NotAnObject);
    }
    let mut splitter = Splitter { received_at, delivery_id, found: Vec::new() };
    let entries = object::<Envelope<'_>>(whole).entry.and_then(|entries| array(Some(entries)));
    match entries {
        Some(entries) => entries.into_iter().for_each(|entry| splitter.entry(entry)),
        None => splitter.change(&Place::default(), whole, Address::default()),
    }
    Ok(splitter.found)
}

/// Where in a delivery an item stands.
#[derive(Default, Clone)]
struct Place {
    waba: String,
    field: String,
    number: Option<String>,
}

struct Splitter<'a> {
    received_at: Timestamp,
    delivery_id: &'a str,
    found: Vec<Split>,
}

impl Splitter<'_> {
    fn entry(&mut self, raw: &RawValue) {
        let entry: Entry<'_> = object(raw);
        let mut place = Place { waba: entry.id.and_then(scalar).unwrap_or_default(), ..Place::default() };
        let Some(changes) = entry.changes.and_then(|changes| array(Some(changes))) else {
            return self.change(&place, raw, Address::default());
        };
        for raw in changes {
            let change: ChangeOf<'_> = object(raw);
            place.field = change.field.and_then(scalar).unwrap_or_default();
            place.number = None;
            match change.value {
                Some(value) => self.value(&mut place, value),
                None => self.change(&place, raw, Address::default()),
            }
        }
    }

    fn value(&mut self, place: &mut Place, raw: &RawValue) {
        let value: ValueOf<'_> = object(raw);
        let metadata: Metadata<'_> = value.metadata.map(object).unwrap_or_default();
        place.number = metadata.phone_number_id.and_then(scalar);

        if place.field != "messages" && !place.field.is_empty() {
            let address = value.user_preferences.and_then(only_person).unwrap_or_default();
            return self.change(place, raw, address);
        }
        let (Some(messages), Some(statuses)) = (array(value.messages), array(value.statuses)) else {
            return self.change(place, raw, Address::default());
        };
        if messages.is_empty() && statuses.is_empty() {
            return self.change(place, raw, Address::default());
        }
        let contacts: Vec<_> = array(value.contacts).unwrap_or_default().into_iter().map(|c| (c, Who::of(c))).collect();
        let alone = messages.len() + statuses.len() == 1;
        for message in messages {
            let who = Who::of(message);
            let contact = belonging(&contacts, &json::sender(&who, &Value::Null), alone);
            let address = json::message_address(&who, contact.map_or(&Value::Null, |(_, who)| who));
            self.item(place, WebhookKind::Message, message.get(), contact.map(|(raw, _)| *raw), address);
        }
        for status in statuses {
            let who = Who::of(status);
            let contact = belonging(&contacts, &json::status_address(&who, &Value::Null), alone);
            let address = json::status_address(&who, contact.map_or(&Value::Null, |(_, who)| who));
            self.item(place, WebhookKind::Status, status.get(), contact.map(|(raw, _)| *raw), address);
        }
        // Beside messages, only the errors: the messages must not be recorded twice.
        if let Some(errors) = value.errors {
            let errors = format!("{{\"errors\":{}}}", errors.get());
            self.item(place, WebhookKind::Change, &errors, None, Address::default());
        }
    }

    fn change(&mut self, place: &Place, raw: &RawValue, address: Address) {
        self.item(place, WebhookKind::Change, raw.get(), None, address);
    }

    fn item(&mut self, place: &Place, kind: WebhookKind, raw: &str, contact: Option<&RawValue>, address: Address) {
        self.found.push(Split {
            item: WebhookItem {
                kind,
                field: place.field.clone(),
                waba_id: WabaId(place.waba.clone()),
                phone_number_id: place.number.clone().map(PhoneNumberId),
                raw: Text::from(raw),
                contact: contact.map(|contact| Text::from(contact.get())),
                received_at: self.received_at,
                delivery_id: self.delivery_id.to_owned(),
            },
            address,
        });
    }
}

/// The element of `contacts[]` that speaks of this person. One that shares no kind of id with the item is taken only when
/// both are alone in their delivery; one that contradicts it never is.
fn belonging<'a, 'c>(
    contacts: &'a [(&'c RawValue, Value)],
    person: &Address,
    alone: bool,
) -> Option<&'a (&'c RawValue, Value)> {
    let relation = |contact: &Value| {
        let known = json::address([&contact["wa_id"], &Value::Null], [&contact["user_id"], &Value::Null]);
        let phone = person.phone.as_ref().zip(known.phone.as_ref()).map(|(a, b)| a == b);
        let bsuid = person.bsuid.as_ref().zip(known.bsuid.as_ref()).map(|(a, b)| a == b);
        phone.or(bsuid)
    };
    let found = contacts.iter().find(|(_, contact)| relation(contact) == Some(true));
    found.or_else(|| match contacts {
        [only] if alone && relation(&only.1).is_none() => Some(only),
        _ => None,
    })
}

/// The person of `user_preferences[]` when there is exactly one.
fn only_person(raw: &RawValue) -> Option<Address> {
    match array(Some(raw))?.as_slice() {
        [only] => {
            let who = Who::of(only);
            Some(json::address([&who["wa_id"], &Value::Null], [&who["user_id"], &Value::Null]))
        }
        _ => None,
    }
}
