//! The dead letter topic: key, value and headers untouched, same partition, the circumstances in further headers.

use bytes::Bytes;
use connector_contracts::headers::{dlq, rfc3339};
use connector_contracts::topic::DLQ_SUFFIX;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Header, Record, TopicName};

use crate::handler::Reason;

/// The longest detail: with everything else it stays far below what a dead letter has room for.
const LONGEST_DETAIL: usize = 4096;
/// The longest key that is kept where the value is not.
const LONGEST_KEY: usize = 1024;

/// Where the dead letters of a topic go.
#[must_use]
pub fn dead_letters_of(topic: &TopicName) -> TopicName {
    format!("{topic}{DLQ_SUFFIX}").into()
}

/// The dead letter of a record, for a topic that takes records of this size at most. One that does not fit as a whole (what was compressed on
/// its way here may have any size) tells where its record stands and why it is one, and no more: its value is empty, which is no tombstone.
#[must_use]
pub fn dead_letter(
    record: &Record,
    reason: &Reason,
    service: &str,
    group: &str,
    now: Timestamp,
    most: usize,
) -> Append {
    let circumstances = circumstances(record, reason, service, group, now);
    let whole = Append {
        topic: dead_letters_of(&record.source.topic),
        partition: Some(record.source.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().cloned().chain(circumstances.iter().cloned()).collect(),
    };
    if whole.size() <= most {
        return whole;
    }
    let omitted = (dlq::OMITTED.into(), Some(Bytes::from(record.size().to_string())));
    let key = whole.key.filter(|key| key.len() <= LONGEST_KEY);
    let headers = circumstances.into_iter().chain([omitted]).collect();
    Append { key, value: Some(Bytes::new()), headers, ..whole }
}

fn circumstances(record: &Record, reason: &Reason, service: &str, group: &str, now: Timestamp) -> Vec<Header> {
    let detail = &reason.detail[..reason.detail.floor_char_boundary(LONGEST_DETAIL)];
    [
        (dlq::ORIGINAL_TOPIC, record.source.topic.to_string()),
        (dlq::ORIGINAL_PARTITION, record.source.partition.to_string()),
        (dlq::ORIGINAL_OFFSET, record.offset.0.to_string()),
        (dlq::ORIGINAL_TIMESTAMP, record.timestamp.as_millis().to_string()),
        (dlq::ORIGINAL_GROUP, group.to_owned()),
        (dlq::REASON, reason.word.to_owned()),
        (dlq::DETAIL, detail.to_owned()),
        (dlq::SERVICE, service.to_owned()),
        (dlq::FAILED_AT, rfc3339(now)),
    ]
    .map(|(name, value)| (name.into(), Some(Bytes::from(value))))
    .into()
}
