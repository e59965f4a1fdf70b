//! Values for every schema, made from the schema itself, and the way between them and records.
//!
//! A value is JSON with the names of the schema's fields. Read into the domain's type and written back it must not change:
//! that is what "the schema and the Rust type are equal" means here.

use apache_avro::Schema;
use connector_contracts::schema::{self, SchemaFile, expand};
use connector_contracts::{ContractError, decode, decode_event, encode, encode_event};
use connector_domain::command::{ConsentCommand, DirectoryRecord, Dispatch, JournalEntry, SendMessage, WebhookItem};
use connector_domain::event::{self, Envelope, Event, Recorded};
use connector_domain::template::Template;
use connector_domain::with_event_types;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The fields whose strings are UUIDs.
const UUID_FIELDS: &[&str] = &["command_id", "attempt_id", "event_id", "source", "message_id"];

/// A text that tells which field it stands in, so that no two of them can be swapped unnoticed.
pub(crate) fn text_for(field: &str) -> String {
    match UUID_FIELDS.iter().position(|name| *name == field) {
        Some(at) => format!("6d756c74-696c-5e65-8d77-68617473617{at}"),
        None => format!("{field} is \u{e4}\u{20ac}\u{1f600}"),
    }
}

pub(crate) fn current() -> impl Iterator<Item = &'static SchemaFile> {
    schema::all().expect("schemas parse").iter().filter(|file| file.current)
}

/// How a sample chooses where the schema leaves a choice.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    /// Everything present; the enum symbol with this number (the last one if there are fewer).
    Full(usize),
    /// Nulls, empty arrays, empty strings where no UUID is needed, smallest numbers.
    Minimal,
}

/// A value of a schema.
pub(crate) fn sample(schema: &Schema, style: Style) -> Value {
    build(&expand(schema), "", style)
}

fn build(schema: &Schema, field: &str, style: Style) -> Value {
    match (schema, style) {
        (Schema::Record(record), _) => {
            Value::Object(record.fields.iter().map(|f| (f.name.clone(), build(&f.schema, &f.name, style))).collect())
        }
        (Schema::Enum(schema), Style::Full(symbol)) => json!(schema.symbols[symbol.min(schema.symbols.len() - 1)]),
        (Schema::Enum(schema), Style::Minimal) => json!(schema.symbols[0]),
        (Schema::Union(union), Style::Full(_)) => build(&union.variants()[1], field, style),
        (Schema::Union(_), Style::Minimal) => Value::Null,
        (Schema::Array(array), Style::Full(_)) => {
            json!([build(&array.items, field, style), build(&array.items, field, style)])
        }
        (Schema::Array(_), Style::Minimal) => json!([]),
        (Schema::String, Style::Minimal) if !UUID_FIELDS.contains(&field) => json!(""),
        (Schema::String, _) => json!(text_for(field)),
        (Schema::Boolean, style) => json!(matches!(style, Style::Full(_))),
        (Schema::Int, Style::Full(_)) => json!(7),
        (Schema::Int, Style::Minimal) => json!(i32::MIN),
        (Schema::Long, Style::Full(_)) => json!(131_047),
        (Schema::TimestampMillis, Style::Full(_)) => json!(1_772_323_199_123_i64),
        (Schema::Long | Schema::TimestampMillis, Style::Minimal) => json!(i64::MIN),
        (other, _) => panic!("no samples of {other:?}: the contracts do not use it"),
    }
}

/// Any value of a schema.
pub(crate) fn any_value(schema: &Schema) -> BoxedStrategy<Value> {
    any_of(&expand(schema), "")
}

fn any_of(schema: &Schema, field: &str) -> BoxedStrategy<Value> {
    match schema {
        Schema::Record(record) => {
            let fields: Vec<_> = record.fields.iter().map(|f| any_of(&f.schema, &f.name)).collect();
            let names: Vec<_> = record.fields.iter().map(|f| f.name.clone()).collect();
            fields.prop_map(move |values| Value::Object(names.iter().cloned().zip(values).collect())).boxed()
        }
        Schema::Enum(schema) => proptest::sample::select(schema.symbols.clone()).prop_map(Value::from).boxed(),
        Schema::Union(union) => prop_oneof![Just(Value::Null), any_of(&union.variants()[1], field)].boxed(),
        Schema::Array(array) => {
            proptest::collection::vec(any_of(&array.items, field), 0..4).prop_map(Value::Array).boxed()
        }
        Schema::String if UUID_FIELDS.contains(&field) => any::<u128>().prop_map(|n| json!(uuid_text(n))).boxed(),
        Schema::String => any::<String>().prop_map(Value::from).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Schema::Int => any::<i32>().prop_map(Value::from).boxed(),
        Schema::Long | Schema::TimestampMillis => any::<i64>().prop_map(Value::from).boxed(),
        other => panic!("no values of {other:?}: the contracts do not use it"),
    }
}

fn uuid_text(n: u128) -> String {
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

macro_rules! contract_tables {
    ($($subject:literal => $contract:ty),* $(,)?) => {
        /// The record of a JSON value, through the domain's type. Fails like the codec, and panics if serde refuses.
        pub(crate) fn to_record(subject: &str, value: &Value) -> Result<Vec<u8>, ContractError> {
            match subject {
                $($subject => encode(&serde_json::from_value::<$contract>(value.clone()).expect("serde reads the sample")),)*
                _ => encode_event(&recorded_from(subject, value)),
            }
        }

        /// The JSON value of a record, through the domain's type.
        pub(crate) fn from_record(subject: &str, record: &[u8]) -> Result<Value, ContractError> {
            match subject {
                $($subject => decode::<$contract>(record).map(|v| serde_json::to_value(v).expect("serde writes it")),)*
                _ => decode_event(record).map(|recorded| recorded_to(&recorded)),
            }
        }

        /// The JSON value after a journey through the domain's type and serde alone.
        pub(crate) fn through_serde(subject: &str, value: &Value) -> Value {
            match subject {
                $($subject => serde_json::to_value(
                    serde_json::from_value::<$contract>(value.clone()).expect("serde reads the sample")
                ).expect("serde writes it"),)*
                _ => recorded_to(&recorded_from(subject, value)),
            }
        }
    };
}

contract_tables! {
    "commands/SendMessage" => SendMessage,
    "commands/ConsentCommand" => ConsentCommand,
    "dispatch/Dispatch" => Dispatch,
    "dispatch/JournalEntry" => JournalEntry,
    "directory/DirectoryRecord" => DirectoryRecord,
    "templates/Template" => Template,
    "webhooks/WebhookItem" => WebhookItem,
}

macro_rules! event_tables {
    ($($name:ident)*) => {
        fn event_from(name: &str, data: Value) -> Event {
            match name {
                $(stringify!($name) => serde_json::from_value::<event::$name>(data).expect("serde reads the sample").into(),)*
                _ => panic!("{name} is no event type"),
            }
        }

        fn data_of(event: &Event) -> Value {
            match event {
                $(Event::$name(data) => serde_json::to_value(data).expect("serde writes it"),)*
            }
        }
    };
}
with_event_types!(event_tables);

fn recorded_from(subject: &str, value: &Value) -> Recorded {
    let name = subject.strip_prefix("events/").expect("everything else is a contract");
    let envelope: Envelope = serde_json::from_value(value["envelope"].clone()).expect("serde reads the sample");
    Recorded { envelope, event: event_from(name, value["data"].clone()) }
}

fn recorded_to(recorded: &Recorded) -> Value {
    json!({
        "envelope": serde_json::to_value(&recorded.envelope).expect("serde writes it"),
        "data": data_of(&recorded.event),
    })
}
