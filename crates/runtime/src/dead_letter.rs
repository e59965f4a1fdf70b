//! The dead letter topic: key, value and headers untouched, same partition, the circumstances in further headers.

use bytes::Bytes;
use connector_contracts::headers::{dlq, rfc3339};
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Record};

use crate::handler::Reason;

/// The dead letter of a record.
#[must_use]
pub fn dead_letter(record: &Record, reason: &Reason, service: &str, group: &str, now: Timestamp) -> Append {
    let mut headers = record.headers.clone();
    let mut add = |name: &'static str, value: String| headers.push((name.into(), Some(Bytes::from(value))));
    add(dlq::ORIGINAL_TOPIC, record.source.topic.to_string());
    add(dlq::ORIGINAL_PARTITION, record.source.partition.to_string());
    add(dlq::ORIGINAL_OFFSET, record.offset.0.to_string());
    add(dlq::ORIGINAL_TIMESTAMP, record.timestamp.as_millis().to_string());
    add(dlq::ORIGINAL_GROUP, group.to_owned());
    add(dlq::REASON, reason.word.to_owned());
    add(dlq::DETAIL, reason.detail.clone());
    add(dlq::SERVICE, service.to_owned());
    add(dlq::FAILED_AT, rfc3339(now));
    Append {
        topic: format!("{}.dlq", record.source.topic).into(),
        partition: Some(record.source.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}
