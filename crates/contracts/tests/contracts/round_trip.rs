//! Schema and Rust type are equal, and a value survives the wire.

use std::collections::BTreeSet;

use apache_avro::Schema;
use connector_contracts::codec::CONTRACTS;
use connector_contracts::schema::{SchemaFile, expand};
use connector_contracts::{Contract, decode, encode_webhook_item, event_headers};
use connector_domain::command::WebhookItem;
use connector_domain::event::EVENT_TYPES;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::samples::{Style, any_value, current, from_record, sample, text_for, through_serde, to_record};

fn styles() -> impl Iterator<Item = Style> {
    // No enum of the contracts has more symbols than this.
    (0..12).map(Style::Full).chain([Style::Minimal])
}

#[test]
fn there_is_one_schema_for_every_type_and_none_besides() {
    let schemas: BTreeSet<String> = current().map(|file| file.subject.to_owned()).collect();
    let types =
        EVENT_TYPES.iter().map(|name| format!("events/{name}")).chain(CONTRACTS.iter().map(|s| (*s).to_owned()));
    assert_eq!(schemas, types.collect());
}

#[test]
fn every_schema_has_exactly_the_fields_and_symbols_of_its_rust_type() {
    for file in current() {
        for style in styles() {
            let value = sample(&file.schema, style);
            assert_eq!(through_serde(file.subject, &value), value, "{}", file.subject);
        }
    }
}

#[test]
fn every_schema_is_named_like_its_subject_and_explains_every_field() {
    for file in current() {
        let (folder, name) = file.subject.split_once('/').expect("a folder and a name");
        let full_name = file.schema.name().map(ToString::to_string);
        assert_eq!(full_name, Some(format!("com.multiline.whatsapp.{folder}.v1.{name}")));
        visit(&file.schema, &mut |schema| match schema {
            Schema::Record(record) => {
                assert!(record.doc.is_some(), "{}: record {} has no doc", file.subject, record.name);
                for field in &record.fields {
                    assert!(field.doc.is_some(), "{}: field {} has no doc", file.subject, field.name);
                }
            }
            Schema::Enum(schema) => {
                assert!(schema.default.is_some(), "{}: enum {} has no default symbol", file.subject, schema.name);
            }
            Schema::Union(union) => {
                assert!(matches!(union.variants(), [Schema::Null, _]), "{}: a union is [null, T]", file.subject);
            }
            _ => {}
        });
    }
}

fn visit(schema: &Schema, on: &mut impl FnMut(&Schema)) {
    on(schema);
    match schema {
        Schema::Record(record) => record.fields.iter().for_each(|field| visit(&field.schema, on)),
        Schema::Union(union) => union.variants().iter().for_each(|variant| visit(variant, on)),
        Schema::Array(array) => visit(&array.items, on),
        _ => {}
    }
}

#[test]
fn every_enum_symbol_and_every_extreme_survives_the_wire() {
    for file in current() {
        for style in styles() {
            assert_survives(file, &sample(&file.schema, style));
        }
    }
}

#[test]
fn any_value_survives_the_wire() {
    for file in current() {
        let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
        runner
            .run(&any_value(&file.schema), |value| {
                assert_survives(file, &value);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{}: {e}", file.subject));
    }
}

fn assert_survives(file: &SchemaFile, value: &Value) {
    let record = to_record(file.subject, value).expect("encodes");
    assert_eq!(&from_record(file.subject, &record).expect("decodes"), value, "{}", file.subject);
    if file.subject == WebhookItem::SCHEMA {
        let item: WebhookItem = decode(&record).expect("decodes");
        let mut by_hand = Vec::new();
        encode_webhook_item(&(&item).into(), &mut by_hand).expect("encodes");
        assert_eq!(by_hand, record, "what is written by hand is what the library writes");
    }
}

/// A sample without a field that the schema gives a default: serde must fill in the same.
#[test]
fn serde_has_the_same_defaults_as_the_schemas() {
    let mut defaults = 0;
    for file in current() {
        let full = sample(&file.schema, Style::Full(0));
        for path in default_paths(&expand(&file.schema), &full) {
            let mut short = full.clone();
            let parent = short.pointer_mut(&path.parent).and_then(Value::as_object_mut).expect("the sample has it");
            parent.remove(&path.field);
            let filled = through_serde(file.subject, &short);
            let parent = filled.pointer(&path.parent).expect("still there");
            assert_eq!(parent[&path.field], path.default, "{} {}/{}", file.subject, path.parent, path.field);
            defaults += 1;
        }
    }
    assert!(defaults > 100, "only {defaults} defaults found: the search is broken");
}

struct DefaultAt {
    parent: String,
    field: String,
    default: Value,
}

fn default_paths(schema: &Schema, value: &Value) -> Vec<DefaultAt> {
    fn walk(schema: &Schema, value: &Value, at: &str, found: &mut Vec<DefaultAt>) {
        match (schema, value) {
            (Schema::Record(record), _) => {
                for field in &record.fields {
                    if let Some(default) = &field.default {
                        let default = default.clone();
                        found.push(DefaultAt { parent: at.to_owned(), field: field.name.clone(), default });
                    }
                    walk(&field.schema, &value[&field.name], &format!("{at}/{}", field.name), found);
                }
            }
            (Schema::Union(union), _) => walk(&union.variants()[1], value, at, found),
            (Schema::Array(array), Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    walk(&array.items, item, &format!("{at}/{i}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(schema, value, "", &mut found);
    found
}

#[test]
fn an_event_carries_the_headers_of_a_cloud_event() {
    let file = current().find(|file| file.subject == "events/WindowExpired").expect("there is such an event");
    let record = to_record(file.subject, &sample(&file.schema, Style::Full(0))).expect("encodes");
    let recorded = connector_contracts::decode_event(&record).expect("decodes");
    let headers = event_headers(&recorded);
    let of = |name: &str| headers.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.as_deref());
    assert_eq!(of("ce_type"), Some(b"com.multiline.whatsapp.events.v1.WindowExpired".as_slice()));
    assert_eq!(of("ce_time"), Some(b"2026-02-28T23:59:59.123Z".as_slice()));
    assert_eq!(of("ce_id"), Some(text_for("event_id").as_bytes()));
    assert_eq!(of("content-type"), Some(b"application/avro".as_slice()));
    assert_eq!(of("traceparent"), Some(text_for("traceparent").as_bytes()));
}
