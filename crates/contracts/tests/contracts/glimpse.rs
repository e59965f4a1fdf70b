//! A quick look at an event shows what decoding it does.

use connector_contracts::schema::all;
use connector_contracts::{decode_event, event_type, glimpse};
use connector_domain::event::{Event, Recorded};
use connector_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::golden;
use crate::samples::{Style, any_value, current, sample, to_record};

fn deadline(event: &Event) -> Option<Timestamp> {
    match event {
        Event::MessageReceived(message) => message.window_deadline,
        Event::CallReceived(call) => Some(call.window_deadline),
        Event::WindowOpened(opened) => Some(opened.deadline),
        Event::WindowClosingSoon(soon) => Some(soon.deadline),
        Event::WindowExpired(expired) => Some(expired.deadline),
        _ => None,
    }
}

fn assert_same(record: &[u8]) {
    let Recorded { envelope, event } = decode_event(record).expect("decodes");
    let seen = glimpse(record).expect("can be looked at");
    assert_eq!(seen.event_type, event.type_name());
    assert_eq!(event_type(record), Some(event.type_name()));
    assert_eq!(seen.organization_id, envelope.organization_id.as_str());
    assert_eq!(seen.stream_id, envelope.stream_id.as_str());
    assert_eq!((seen.occurred_at, seen.recorded_at), (envelope.occurred_at, envelope.recorded_at));
    assert_eq!(seen.deadline, deadline(&event), "{}", seen.event_type);
    let code = if let Event::MessageStatusChanged(status) = &event { status.error_code } else { None };
    assert_eq!(seen.error_code, code, "{}", seen.event_type);
}

fn events() -> impl Iterator<Item = &'static connector_contracts::schema::SchemaFile> {
    current().filter(|file| file.subject.starts_with("events/"))
}

#[test]
fn a_quick_look_at_any_event_shows_what_decoding_it_does() {
    for file in events() {
        for style in [Style::Full(0), Style::Full(1), Style::Minimal] {
            assert_same(&to_record(file.subject, &sample(&file.schema, style)).expect("encodes"));
        }
        let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
        let outcome = runner.run(&any_value(&file.schema), |value| {
            assert_same(&to_record(file.subject, &value).expect("encodes"));
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{}: {e}", file.subject));
    }
}

#[test]
fn events_of_every_released_schema_can_be_looked_at() {
    let mut seen = 0;
    for ((subject, _), record) in golden::load() {
        if subject.starts_with("events/") {
            assert_same(&record);
            seen += 1;
        } else {
            assert_eq!(glimpse(&record).expect_err("no event").reason(), "wrong_contract", "{subject}");
            assert_eq!(event_type(&record), None, "{subject}");
        }
    }
    let released = all().expect("schemas").iter().filter(|file| file.subject.starts_with("events/")).count();
    assert!(seen >= released, "{seen} of {released}");
}

#[test]
fn a_record_that_is_none_is_an_error() {
    for file in events() {
        let record = to_record(file.subject, &sample(&file.schema, Style::Full(1))).expect("encodes");
        for length in 0..record.len() {
            let expected = if length < 10 { "not_framed" } else { "malformed" };
            let error = glimpse(&record[..length]).expect_err("it is cut off");
            assert_eq!(error.reason(), expected, "{} after {length} bytes", file.subject);
        }
        let error = glimpse(&[&record[..], &[0]].concat()).expect_err("it is too long");
        assert_eq!(error.reason(), "trailing_bytes", "{}", file.subject);
        let mut unknown = record;
        unknown[2..10].fill(7);
        assert_eq!(glimpse(&unknown).expect_err("unknown").reason(), "unknown_schema");
        assert_eq!(event_type(&unknown), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn looking_at_damaged_records_and_noise_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in any::<Vec<u8>>()) {
        for file in events() {
            let mut record = to_record(file.subject, &sample(&file.schema, Style::Full(1))).expect("encodes");
            let prefix = record[..10].to_vec();
            let at = at.index(record.len());
            record[at] = byte;
            let _ = glimpse(&record);
            let _ = glimpse(&[prefix, noise.clone()].concat());
            let _ = glimpse(&noise);
        }
    }
}
