//! Bytes from anywhere: an error, never a panic and never memory without bound.

use connector_contracts::{ContractError, decode, decode_event};
use connector_domain::command::{Dispatch, SendMessage};
use proptest::prelude::*;

use crate::samples::{Style, current, from_record, sample, to_record};

fn records() -> Vec<(&'static str, Vec<u8>)> {
    current()
        .map(|file| (file.subject, to_record(file.subject, &sample(&file.schema, Style::Full(1))).expect("encodes")))
        .collect()
}

#[test]
fn a_record_cut_off_anywhere_is_an_error() {
    for (subject, record) in records() {
        for length in 0..record.len() {
            let expected = if length < 10 { "not_framed" } else { "malformed" };
            let error = from_record(subject, &record[..length]).expect_err("it is cut off");
            assert_eq!(error.reason(), expected, "{subject} after {length} bytes");
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for (subject, mut record) in records() {
        record.extend_from_slice(&[0, 0]);
        let error = from_record(subject, &record).expect_err("it is too long");
        assert!(matches!(error, ContractError::TrailingBytes { count: 2, .. }), "{subject}: {error}");
    }
}

#[test]
fn a_fingerprint_nobody_knows_is_named() {
    for (subject, mut record) in records() {
        record[2..10].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
        let error = from_record(subject, &record).expect_err("it is unknown");
        assert_eq!(error.to_string(), "record was written with the unknown schema 0123456789abcdef");
    }
}

#[test]
fn a_record_in_the_wrong_topic_is_recognised() {
    for (subject, record) in records() {
        if subject != "commands/SendMessage" {
            assert_eq!(decode::<SendMessage>(&record).expect_err("another contract").reason(), "wrong_contract");
        }
        if !subject.starts_with("events/") {
            assert_eq!(decode_event(&record).expect_err("no event").reason(), "wrong_contract");
        }
    }
}

#[test]
fn a_length_that_is_only_claimed_allocates_nothing_of_that_size() {
    let (_, mut record) = records().into_iter().find(|(s, _)| *s == "dispatch/Dispatch").expect("there is one");
    // The first field is a string; its length becomes 2^62.
    record.truncate(10);
    record.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    assert_eq!(decode::<Dispatch>(&record).expect_err("nothing follows").reason(), "malformed");
}

#[test]
fn an_error_does_not_repeat_what_the_record_says() {
    let (_, record) = records().into_iter().find(|(s, _)| *s == "events/MessageReceived").expect("there is one");
    let secret = "profile_name";
    let mut broken = record.clone();
    let at = broken.windows(secret.len()).position(|w| w == secret.as_bytes()).expect("the sample's text");
    broken[at + secret.len()] = 0xFF;
    let error = decode_event(&broken).expect_err("no UTF-8 any more");
    assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_records_and_noise_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in any::<Vec<u8>>()) {
        for (subject, mut record) in records() {
            let prefix = record[..10].to_vec();
            let at = at.index(record.len());
            record[at] = byte;
            let _ = from_record(subject, &record);
            let _ = from_record(subject, &[prefix, noise.clone()].concat());
            let _ = from_record(subject, &noise);
        }
    }
}
