//! Takes a delivery apart. One POST may carry up to 1,000 updates of several accounts, numbers and people; each becomes one
//! item that keeps its JSON byte for byte.
//!
//! Nothing is lost: what does not look as documented becomes a `Change` item with everything in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use connector_domain::command::{WebhookItem, WebhookItemRef, WebhookKind};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::PhoneNumberId;
use connector_domain::time::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::contacts::{Contact, Contacts};
use super::json::{self, LONGEST_ID, Who, text, timestamp};
use super::parse::STANDBY;

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

/// One item where it lies in the body of its delivery, and whom it is about. Not `Debug`: it shows what people wrote.
#[derive(Clone)]
pub struct Piece<'a> {
    kind: WebhookKind,
    place: Arc<Place>,
    raw: Cow<'a, str>,
    contact: Option<Cow<'a, str>>,
    /// The contact (or group) concerned. Empty for account changes and for what cannot be understood.
    pub address: Address,
}

impl Piece<'_> {
    /// What the item is.
    #[must_use]
    pub const fn kind(&self) -> WebhookKind {
        self.kind
    }

    /// The item as it goes to the log, with the facts of its delivery.
    #[must_use]
    pub fn item<'b>(&'b self, received_at: Timestamp, delivery_id: &'b str) -> WebhookItemRef<'b> {
        WebhookItemRef {
            kind: self.kind,
            field: &self.place.field,
            waba_id: &self.place.waba,
            phone_number_id: self.place.number.as_ref(),
            raw: &self.raw,
            contact: self.contact.as_deref(),
            entry_time: self.place.time,
            received_at,
            delivery_id,
        }
    }

    fn into_owned(self) -> Piece<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let Self { kind, place, raw, contact, address } = self;
        Piece { kind, place, raw: own(raw), contact: contact.map(own), address }
    }

    fn alone(self, received_at: Timestamp, delivery_id: &str) -> Split {
        Split { item: self.item(received_at, delivery_id).into(), address: self.address }
    }

    /// The key under which the item is written: the conversation, else the number, else the account. Items of one
    /// conversation therefore stay in order.
    #[must_use]
    pub fn key(&self, keys: &StreamKeys) -> String {
        key(self.place.number.as_ref(), &self.place.waba, &self.address, keys)
    }
}

/// One item of a delivery and whom it is about, for those who keep it longer than the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The item as it goes to the log.
    pub item: WebhookItem,
    /// As [`Piece::address`].
    pub address: Address,
}

impl Split {
    /// As [`Piece::key`].
    #[must_use]
    pub fn key(&self, keys: &StreamKeys) -> String {
        key(self.item.phone_number_id.as_ref(), self.item.waba_id.as_str(), &self.address, keys)
    }
}

fn key(number: Option<&PhoneNumberId>, waba: &str, address: &Address, keys: &StreamKeys) -> String {
    match number {
        Some(number) => keys.conversation(number, address).unwrap_or_else(|| keys.number(number)).0,
        None => format!("waba/{waba}"),
    }
}

/// A delivery of the documented shape, read in one pass down to its values `V`: to the items when all of it is messages and statuses,
/// else to values as they are. Anything else is read level by level, so that what is odd is kept exactly at the level where it is odd.
#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct Usual<'a, V> {
    #[serde(borrow)]
    entry: Vec<Object<UsualEntry<'a, V>>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct UsualEntry<'a, V> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    changes: Vec<Object<UsualChange<'a, V>>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct UsualChange<'a, V> {
    #[serde(borrow)]
    field: Option<&'a RawValue>,
    value: V,
}

impl<'a, V> Usual<'a, V> {
    fn all(&self, holds: impl Fn(&UsualChange<'a, V>) -> bool) -> bool {
        self.entry.iter().flat_map(|Object(entry)| &entry.changes).all(|Object(change)| holds(change))
    }
}

impl UsualChange<'_, &RawValue> {
    fn has_value(&self) -> bool {
        self.value.get() != "null"
    }
}

impl UsualChange<'_, Object<UsualValue<'_>>> {
    fn is_items(&self) -> bool {
        let Object(value) = &self.value;
        let some = |items: &Option<Vec<&RawValue>>| items.as_ref().is_some_and(|items| !items.is_empty());
        self.field.is_some_and(|field| field.get() == "\"messages\"")
            && (some(&value.messages) || some(&value.statuses))
    }
}

/// A value of the documented shape. One that says more is read as [`Fields`], so that nothing of it gets lost.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct UsualValue<'a> {
    #[serde(rename = "messaging_product")]
    _product: IgnoredAny,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    contacts: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    statuses: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    errors: Option<&'a RawValue>,
}

/// The fields of an object by their names; of two with one name the last.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// A value, whatever its shape.
#[derive(Default)]
struct Parts<'a> {
    metadata: Option<&'a RawValue>,
    contacts: Vec<&'a RawValue>,
    /// Messages and statuses; `None` when one of the two is there and no list.
    items: Option<(Vec<&'a RawValue>, Vec<&'a RawValue>)>,
    /// Everything else that says something.
    rest: Fields<'a>,
}

impl<'a> From<UsualValue<'a>> for Parts<'a> {
    fn from(value: UsualValue<'a>) -> Self {
        Self {
            metadata: value.metadata,
            contacts: value.contacts.unwrap_or_default(),
            items: Some((value.messages.unwrap_or_default(), value.statuses.unwrap_or_default())),
            rest: value.errors.map(|errors| ("errors".to_owned(), errors)).into_iter().collect(),
        }
    }
}

impl<'a> From<Fields<'a>> for Parts<'a> {
    fn from(mut fields: Fields<'a>) -> Self {
        let mut take = |name| fields.remove(name).filter(|value| value.get() != "null");
        let (metadata, contacts) = (take("metadata"), take("contacts"));
        let items = array(take("messages")).zip(array(take("statuses")));
        take("messaging_product");
        fields.retain(|_, value| value.get() != "null");
        Self { metadata, contacts: array(contacts).unwrap_or_default(), items, rest: fields }
    }
}

impl<'a> Parts<'a> {
    fn number(&self) -> Option<PhoneNumberId> {
        // Handovers name the business number as the one who got the message.
        let of = |raw: &'a RawValue| fields(raw).get("phone_number_id").and_then(|raw| id(raw));
        let recipient = || self.rest.get("recipient").copied().and_then(of);
        self.metadata.and_then(of).or_else(recipient).map(PhoneNumberId)
    }

    fn has_items(&self) -> bool {
        self.items.as_ref().is_some_and(|(messages, statuses)| !messages.is_empty() || !statuses.is_empty())
    }
}

fn parts(raw: &RawValue) -> Parts<'_> {
    match serde_json::from_str::<Object<UsualValue<'_>>>(raw.get()) {
        Ok(Object(value)) => value.into(),
        Err(_) => fields(raw).into(),
    }
}

/// What stands in braces. Without this serde would read an array as the fields in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Braces<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Braces<T> {
            type Value = Object<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Braces(PhantomData))
    }
}

/// The fields of an object, or none of them.
fn fields(raw: &RawValue) -> Fields<'_> {
    let object = raw.get().starts_with('{');
    if object { serde_json::from_str(raw.get()).unwrap_or_default() } else { Fields::new() }
}

/// Whom an item is about, as far as it can be read. The check for the brace is needed: serde would read an array as the fields in their
/// order.
pub(super) fn who(raw: &RawValue) -> Who<'_> {
    if !raw.get().starts_with('{') {
        return Who::default();
    }
    serde_json::from_str(raw.get())
        .ok()
        .or_else(|| json::read(raw.get()).map(|value| Who::of(&value)))
        .unwrap_or_default()
}

/// A string or number, as text. Ids are strings today and were numbers in some places.
fn scalar(raw: &RawValue) -> Option<String> {
    // Only these two forms are parsed: a large structure in the place of an id costs nothing.
    let scalar = raw.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    if scalar { text(&json::read(raw.get())?) } else { None }
}

/// An id of which every item of a change has a copy.
fn id(raw: &RawValue) -> Option<String> {
    scalar(raw).filter(|id| id.len() <= LONGEST_ID)
}

fn array(raw: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    raw.map_or_else(|| Some(Vec::new()), |raw| serde_json::from_str(raw.get()).ok())
}

/// What may stand before the first brace.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Takes a delivery apart; the items are in the order of the delivery. What a strict reader refuses is read as far as it can be: a body that
/// is not UTF-8, control characters in a text, half of a surrogate pair, a field that stands there twice. Time and memory are linear in the
/// size of the body: what an item repeats of its surroundings is short.
///
/// # Errors
/// When the body is not a JSON object.
pub fn pieces(body: &[u8]) -> Result<Vec<Piece<'_>>, SplitError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let read = std::str::from_utf8(body).map_err(|_| SplitError::NotJson).and_then(taken_apart);
    match read {
        Err(SplitError::NotJson) => {
            let body = json::legible(body);
            Ok(taken_apart(&body)?.into_iter().map(Piece::into_owned).collect())
        }
        read => read,
    }
}

fn taken_apart(body: &str) -> Result<Vec<Piece<'_>>, SplitError> {
    let mut splitter = Splitter::default();
    if let Ok(Object(usual)) = serde_json::from_str::<Object<Usual<'_, Object<UsualValue<'_>>>>>(body)
        && usual.all(UsualChange::<Object<_>>::is_items)
    {
        splitter.usual(usual, |splitter, place, Object(value)| splitter.items(place, value.into()));
        return Ok(splitter.found);
    }
    match serde_json::from_str::<Object<Usual<'_, &RawValue>>>(body) {
        Ok(Object(usual)) if usual.all(UsualChange::<&RawValue>::has_value) => {
            splitter.usual(usual, Splitter::value);
        }
        _ => splitter.unusual(body)?,
    }
    Ok(splitter.found)
}

/// As [`pieces`], each item by itself. `delivery_id` is one id per POST.
///
/// # Errors
/// As [`pieces`].
pub fn split(body: &[u8], received_at: Timestamp, delivery_id: &str) -> Result<Vec<Split>, SplitError> {
    Ok(pieces(body)?.into_iter().map(|piece| piece.alone(received_at, delivery_id)).collect())
}

/// Where in a delivery an item stands.
#[derive(Default, Clone)]
struct Place {
    waba: String,
    time: Option<Timestamp>,
    field: String,
    number: Option<PhoneNumberId>,
}

impl Place {
    fn new(id: Option<&RawValue>, time: Option<&RawValue>) -> Self {
        let time = time.and_then(scalar).and_then(|time| timestamp(&time.into()));
        Self { waba: id.and_then(self::id).unwrap_or_default(), time, ..Self::default() }
    }

    /// The place of a change of this entry. Each of its items repeats it, so a name that goes on for ever ends.
    fn of(&self, field: Option<&RawValue>) -> Self {
        let mut field = field.and_then(scalar).unwrap_or_default();
        field.truncate(field.floor_char_boundary(LONGEST_ID));
        Self { field, ..self.clone() }
    }
}

#[derive(Default)]
struct Splitter<'a> {
    found: Vec<Piece<'a>>,
}

impl<'a> Splitter<'a> {
    fn usual<V>(&mut self, usual: Usual<'a, V>, each: impl Fn(&mut Self, Place, V)) {
        for Object(entry) in usual.entry {
            let place = Place::new(entry.id, entry.time);
            for Object(change) in entry.changes {
                each(self, place.of(change.field), change.value);
            }
        }
    }

    fn unusual(&mut self, body: &'a str) -> Result<(), SplitError> {
        let whole: &RawValue = serde_json::from_str(body).map_err(|_| SplitError::NotJson)?;
        if !whole.get().starts_with('{') {
            return Err(SplitError::NotAnObject);
        }
        let entries = fields(whole).remove("entry").and_then(|entries| array(Some(entries)));
        match entries {
            Some(entries) => entries.into_iter().for_each(|entry| self.entry(entry)),
            None => self.change(Place::default(), whole, Address::default()),
        }
        Ok(())
    }

    fn entry(&mut self, raw: &'a RawValue) {
        let mut entry = fields(raw);
        let place = Place::new(entry.remove("id"), entry.remove("time"));
        let Some(changes) = entry.remove("changes").and_then(|changes| array(Some(changes))) else {
            return self.change(place, raw, Address::default());
        };
        for raw in changes {
            let mut change = fields(raw);
            let place = place.of(change.remove("field"));
            match change.remove("value") {
                Some(value) => self.value(place, value),
                None => self.change(place, raw, Address::default()),
            }
        }
    }

    fn value(&mut self, mut place: Place, raw: &'a RawValue) {
        let mut value = parts(raw);
        place.number = value.number();
        if place.field == "calls"
            && let Some(calls) = array(value.rest.get("calls").copied()).filter(|calls| !calls.is_empty())
            && value.items.as_ref().is_some_and(|(messages, statuses)| messages.is_empty() && statuses.is_empty())
        {
            return self.calls(place, &calls, &value);
        }
        if !matches!(place.field.as_str(), "messages" | "standby" | "") {
            let address = value.rest.get("user_preferences").copied().and_then(only_person).unwrap_or_default();
            return self.change(place, raw, address);
        }
        // What happens while another one answers for the number stands one level deeper.
        let standby: Option<Parts<'_>> = value.rest.get("standby").map(|inner| fields(inner).into());
        if let Some(mut inner) = standby.filter(Parts::has_items) {
            value.rest.remove("standby");
            inner.metadata = value.metadata;
            inner.contacts.extend(&value.contacts);
            self.items(Place { field: STANDBY.to_owned(), ..place.clone() }, inner);
            if !value.has_items() {
                return self.rest(Arc::new(place), &value.rest);
            }
        }
        if !value.has_items() {
            return self.change(place, raw, Address::default());
        }
        self.items(place, value);
    }

    /// Messages and statuses.
    fn items(&mut self, mut place: Place, value: Parts<'a>) {
        place.number = value.number();
        let place = Arc::new(place);
        let (messages, statuses) = value.items.unwrap_or_default();
        let contacts = Contacts::read(&value.contacts);
        let alone = messages.len() + statuses.len() == 1;
        let nobody = Who::default();
        self.found.reserve(messages.len() + statuses.len());
        for (at, message) in messages.into_iter().enumerate() {
            // What the business itself said through another one.
            if place.field == STANDBY && !fields(message).contains_key("id") {
                self.item(&place, WebhookKind::Change, message, None, Address::default());
                continue;
            }
            let who = who(message);
            let contact = contacts.belonging(at, &who.sender(&nobody), alone);
            let address = who.message(contact.map_or(&nobody, |contact| &contact.who));
            self.item(&place, WebhookKind::Message, message, contact, address);
        }
        for (at, status) in statuses.into_iter().enumerate() {
            let who = who(status);
            let contact = contacts.belonging(at, &who.status(&nobody), alone);
            let address = who.status(contact.map_or(&nobody, |contact| &contact.who));
            self.item(&place, WebhookKind::Status, status, contact, address);
        }
        self.rest(place, &value.rest);
    }

    /// Calls are changes with an item each. Those of a person go where the person's messages go, so that they stay in order with them.
    fn calls(&mut self, place: Place, calls: &[&'a RawValue], value: &Parts<'a>) {
        let place = Arc::new(place);
        let contacts = Contacts::read(&value.contacts);
        let nobody = Who::default();
        for (at, call) in calls.iter().enumerate() {
            let who = who(call);
            let contact = contacts.belonging(at, &who.caller(&nobody), calls.len() == 1);
            let address = who.caller(contact.map_or(&nobody, |contact| &contact.who));
            self.item(&place, WebhookKind::Change, call, contact, address);
        }
        self.rest(place, &value.rest);
    }

    /// What stands beside items (errors, or what Meta invents next): the items must not be recorded twice.
    fn rest(&mut self, place: Arc<Place>, rest: &Fields<'a>) {
        let fields: Vec<_> = rest
            .iter()
            .filter(|(name, _)| place.field != "calls" || *name != "calls")
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
            .collect();
        if !fields.is_empty() {
            let raw = format!("{{{}}}", fields.join(",")).into();
            let address = Address::default();
            self.found.push(Piece { kind: WebhookKind::Change, place, raw, contact: None, address });
        }
    }

    fn change(&mut self, place: Place, raw: &'a RawValue, address: Address) {
        self.item(&Arc::new(place), WebhookKind::Change, raw, None, address);
    }

    fn item(
        &mut self,
        place: &Arc<Place>,
        kind: WebhookKind,
        raw: &'a RawValue,
        contact: Option<&Contact<'a>>,
        address: Address,
    ) {
        let (place, raw) = (Arc::clone(place), raw.get().into());
        let contact = contact.map(|contact| contact.raw.get().into());
        self.found.push(Piece { kind, place, raw, contact, address });
    }
}

/// The person of `user_preferences[]` when there is exactly one.
fn only_person(raw: &RawValue) -> Option<Address> {
    match array(Some(raw))?.as_slice() {
        [only] => Some(who(only).contact()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(body: &str) -> (Vec<Split>, Vec<Split>) {
        let mut level_by_level = Splitter::default();
        level_by_level.unusual(body).unwrap();
        let level_by_level = level_by_level.found.into_iter().map(|piece| piece.alone(Timestamp(0), "d")).collect();
        (split(body.as_bytes(), Timestamp(0), "d").unwrap(), level_by_level)
    }

    #[test]
    fn the_way_for_usual_deliveries_and_the_one_for_odd_ones_find_the_same() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
        for file in std::fs::read_dir(folder).unwrap() {
            let body = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let (one_pass, level_by_level) = both_ways(&body);
            assert_eq!(one_pass, level_by_level, "{body}");
        }
        for odd in [
            r#"{"entry":[["1",[]]]}"#,
            r#"{"entry":[{"id":1,"changes":[["messages",{"messages":[{}]}]]}]}"#,
            r#"{"entry":[{"id":"1","id":"2","changes":[]}]}"#,
            r#"{"entry":[{"changes":[{"field":"messages","value":["a"]}]},{"changes":[{"value":null}]}]}"#,
        ] {
            let (one_pass, level_by_level) = both_ways(odd);
            assert_eq!(one_pass, level_by_level, "{odd}");
        }
    }
}
