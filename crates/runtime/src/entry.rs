//! What every reader of the log takes for an event: a record that can be read, under the key of its stream, in the partition of its stream.
//! Screen and gate would disagree about anything else, since each of them reads partitions on its own.

use connector_contracts::{decode_event, glimpse};
use connector_domain::event::Recorded;
use connector_ports::log::Record;
use connector_ports::partition::partition_for;

use crate::handler::Reason;

/// The event of a record of a log with so many partitions.
///
/// # Errors
/// Why it is none: for the dead letters, or to be passed over.
pub fn event(record: &Record, partitions: u32) -> Result<Recorded, Reason> {
    let Some(value) = record.value.as_deref() else { return Err(tombstone()) };
    let recorded = decode_event(value).map_err(|error| Reason::new(error.reason(), error))?;
    in_place(record, recorded.envelope.stream_id.as_str(), partitions)?;
    Ok(recorded)
}

/// Why a record without a value is no event.
#[must_use]
pub fn tombstone() -> Reason {
    Reason::new("tombstone", "the log takes nothing back")
}

/// Whether an event of this stream stands where it belongs.
///
/// # Errors
/// Why it does not.
pub fn in_place(record: &Record, stream: &str, partitions: u32) -> Result<(), Reason> {
    if record.key.as_deref() != Some(stream.as_bytes()) {
        return Err(Reason::new("key_mismatch", "the key is not the stream of the event"));
    }
    if partition_for(stream.as_bytes(), partitions) != record.source.partition {
        return Err(Reason::new("misplaced", "the stream belongs to another partition"));
    }
    Ok(())
}

/// Whether a reader that needs little of an event, and does not look at all of it, may take it for one.
#[must_use]
pub fn is_event(record: &Record, partitions: u32) -> bool {
    let seen = record.value.as_deref().map(glimpse);
    matches!(seen, Some(Ok(seen)) if in_place(record, seen.stream_id, partitions).is_ok())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use connector_contracts::encode_event;
    use connector_domain::event::{Envelope, TimeSource, WhatsAppDisabled};
    use connector_domain::ids::EventId;
    use connector_domain::time::Timestamp;
    use connector_ports::log::{Offset, TopicPartition};

    use super::*;

    #[test]
    fn an_event_stands_under_its_stream_in_the_partition_of_its_stream() {
        let event = WhatsAppDisabled { user_id: "ada".into() };
        let envelope = Envelope {
            event_id: EventId::derived("1"),
            event_type: "WhatsAppDisabled".to_owned(),
            schema_version: 1,
            organization_id: "acme".into(),
            stream_id: "k1-00000000000000000000000000000000".into(),
            cause_id: "test".to_owned(),
            command_id: None,
            occurred_at: Timestamp::EPOCH,
            time_source: TimeSource::Connector,
            recorded_at: Timestamp::EPOCH,
            producer: "test".to_owned(),
            traceparent: None,
        };
        let stream = Bytes::from(envelope.stream_id.to_string());
        let value = encode_event(&Recorded { envelope, event: event.into() }).expect("it fits its schema");
        let home = partition_for(&stream, 6);
        let record = |partition, key: &Bytes, value: &[u8]| Record {
            source: TopicPartition::new("log", partition),
            offset: Offset(0),
            key: Some(key.clone()),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
            timestamp: Timestamp::EPOCH,
        };
        let word = |record: &Record| {
            let read = super::event(record, 6).map_err(|reason| reason.word);
            assert_eq!(is_event(record, 6), read.is_ok());
            read.map(drop)
        };
        assert_eq!(word(&record(home, &stream, &value)), Ok(()));
        assert_eq!(word(&record((home + 1) % 6, &stream, &value)), Err("misplaced"));
        assert_eq!(word(&record(home, &Bytes::from_static(b"other"), &value)), Err("key_mismatch"));
        assert_eq!(word(&record(home, &stream, b"nonsense")), Err("not_framed"));
        assert_eq!(word(&Record { value: None, ..record(home, &stream, b"") }), Err("tombstone"));
    }
}
