//! Names of record headers. Nothing needs them to understand a record; they are for routing, tracing and dead letters.
//!
//! Events carry the CloudEvents attributes of the Kafka binding's binary mode, so that stock tools recognise them:
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>

use std::borrow::Cow;

use bytes::Bytes;
use connector_domain::event::Recorded;
use connector_domain::time::Timestamp;

/// CloudEvents `id`: the event id.
pub const CE_ID: &str = "ce_id";
/// CloudEvents `type`: [`CE_TYPE_PREFIX`] and the name of the event type.
pub const CE_TYPE: &str = "ce_type";
/// CloudEvents `source`: the producing service.
pub const CE_SOURCE: &str = "ce_source";
/// CloudEvents `specversion`.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// CloudEvents `time`: when it happened, RFC 3339.
pub const CE_TIME: &str = "ce_time";
/// Media type of the value.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context of the cause.
pub const TRACEPARENT: &str = "traceparent";

/// The fingerprint of the secret behind the stream ids, on every event: whoever has another one does not belong to this log.
pub const STREAM_KEY: &str = "stream-key";

/// The business number (`phone_number_id`) that a dispatched message leaves from: numbers are served in turn.
pub const NUMBER: &str = "number";

/// Proves that a dispatch record was written by admission: a position that its own is not below (8 bytes, big endian), and a keyed hash
/// over that and the value.
pub const SEAL: &str = "seal";
/// The offset of the dispatch record that a journal record is about, decimal.
pub const DISPATCH_OFFSET: &str = "dispatch-offset";
/// Marks a record of the journal, without a value, as an operator's word: the unreadable record at this offset (decimal) counts as an
/// attempt without a conclusion.
pub const JOURNAL_ACCEPTS: &str = "journal-accepts";

/// What stands in front of the event type in [`CE_TYPE`]: the namespace of the schema.
pub const CE_TYPE_PREFIX: &str = "com.multiline.whatsapp.events.v1.";
/// Media type of every record: Avro in single-object encoding.
pub const AVRO: &str = "application/avro";

/// Headers of dead letters. Key, value and the other headers of the original are kept byte for byte.
pub mod dlq {
    /// Topic the record came from.
    pub const ORIGINAL_TOPIC: &str = "dlq.original-topic";
    /// Its partition, decimal.
    pub const ORIGINAL_PARTITION: &str = "dlq.original-partition";
    /// Its offset, decimal.
    pub const ORIGINAL_OFFSET: &str = "dlq.original-offset";
    /// Its timestamp, milliseconds since 1970, decimal.
    pub const ORIGINAL_TIMESTAMP: &str = "dlq.original-timestamp";
    /// The consumer group that gave up on it.
    pub const ORIGINAL_GROUP: &str = "dlq.original-group";
    /// Why, in a word ([`crate::ContractError::reason`] and the words of the services).
    pub const REASON: &str = "dlq.reason";
    /// Why, in a sentence without any content of the record.
    pub const DETAIL: &str = "dlq.detail";
    /// The service that gave up on it.
    pub const SERVICE: &str = "dlq.service";
    /// When, RFC 3339.
    pub const FAILED_AT: &str = "dlq.failed-at";
    /// The size of the record, in bytes, when it does not fit here: then its value, its headers and a long key are left out, and the original has
    /// to be read where it stands.
    pub const OMITTED: &str = "dlq.omitted";
}

/// The headers of an event's record.
#[must_use]
pub fn event_headers(recorded: &Recorded) -> Vec<(Cow<'static, str>, Option<Bytes>)> {
    let envelope = &recorded.envelope;
    let mut headers = vec![
        header(CE_ID, envelope.event_id.to_string()),
        header(CE_TYPE, format!("{CE_TYPE_PREFIX}{}", recorded.event.type_name())),
        header(CE_SOURCE, format!("/{}", envelope.producer)),
        (CE_SPECVERSION.into(), Some(Bytes::from_static(b"1.0"))),
        header(CE_TIME, rfc3339(envelope.occurred_at)),
        (CONTENT_TYPE.into(), Some(Bytes::from_static(AVRO.as_bytes()))),
    ];
    if let Some(traceparent) = &envelope.traceparent {
        headers.push(header(TRACEPARENT, traceparent.clone()));
    }
    headers
}

fn header(name: &'static str, value: String) -> (Cow<'static, str>, Option<Bytes>) {
    (name.into(), Some(Bytes::from(value)))
}

/// A moment as RFC 3339 in UTC with milliseconds, `1970-01-01T00:00:00.000Z`.
///
/// RFC 3339 has years of four digits; a moment outside 0000 to 9999 is moved to the nearer end.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_printed_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_772_323_199_123, "2026-02-28T23:59:59.123Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(millis)), text);
        }
    }
}
