//! Records between our form and librdkafka's, and checks before anything is handed over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use bytes::BytesMut;
use connector_domain::time::Timestamp;
use connector_ports::log::{
    Append, HeaderName, Landmark, LogError, MAX_RECORD_BYTES, Offset, Position, Record, Start, TopicName,
    TopicPartition,
};
use rdkafka::Message;
use rdkafka::TopicPartitionList;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::topic_partition_list::TopicPartitionListElem;

/// Refuses what cannot be written, before the first record of a call is handed over.
pub(crate) fn check(records: &[Append]) -> Result<(), LogError> {
    for record in records {
        check_topic(&record.topic)?;
        let bytes = record.size();
        if bytes > MAX_RECORD_BYTES {
            return Err(LogError::TooLarge { topic: record.topic.clone(), bytes });
        }
    }
    Ok(())
}

/// The record that a broker refused as too large, when it refused all of these: they may have stood in one batch.
pub(crate) fn too_large<'a>(refused: impl Iterator<Item = &'a Append>) -> Option<LogError> {
    let largest = refused.max_by_key(|record| record.size())?;
    Some(LogError::TooLarge { topic: largest.topic.clone(), bytes: largest.size() })
}

/// Kafka's own rule for names: up to 249 letters, digits, dots, dashes and underscores, and not just dots.
pub(crate) fn check_topic(topic: &TopicName) -> Result<(), LogError> {
    let name = topic.as_str();
    let legal = !name.is_empty()
        && name.len() <= 249
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if legal { Ok(()) } else { Err(LogError::Fatal { reason: format!("{name:?} is not a legal name for a topic") }) }
}

/// Headers in librdkafka's form.
pub(crate) fn headers(record: &Append) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    Some(
        record
            .headers
            .iter()
            .fold(empty, |headers, (name, value)| headers.insert(Header { key: name, value: value.as_deref() })),
    )
}

/// Names of headers that were read: kept once and for ever, so that no record asks for memory for them. They are few; what goes beyond that
/// comes from elsewhere and is not kept.
static NAMES: [OnceLock<&'static str>; 64] = [const { OnceLock::new() }; 64];

/// Longer names are not kept.
const LONGEST_NAME: usize = 64;

fn header_name(name: &str) -> HeaderName {
    if name.len() <= LONGEST_NAME {
        for kept in &NAMES {
            let kept = kept.get_or_init(|| name.to_owned().leak());
            if *kept == name {
                return HeaderName::Borrowed(kept);
            }
        }
    }
    HeaderName::Owned(name.to_owned())
}

/// The headers that can be read. rdkafka takes names for UTF-8 and panics at one that is not: what a stranger wrote ends no reader. It has no
/// other way to such a header, so that one is passed over, and the rest of its record is read.
fn readable<H: Headers>(headers: &H) -> Vec<Header<'_, &[u8]>> {
    let header = |at| catch_unwind(AssertUnwindSafe(|| headers.try_get(at)));
    (0..headers.count())
        .filter_map(|at| {
            header(at).unwrap_or_else(|_| {
                tracing::debug!(at, "the name of a header is no UTF-8; passed over");
                None
            })
        })
        .collect()
}

/// A record as read. All of it lies in one piece of memory, which its parts share: with a few dozen small ones a reader that catches up
/// would do little else than ask for memory.
pub(crate) fn record(message: &BorrowedMessage<'_>, source: TopicPartition) -> Record {
    let (key, value) = (message.key(), message.payload());
    let headers: Vec<_> = message.headers().map_or_else(Vec::new, readable);
    let values = || headers.iter().filter_map(|header| header.value);
    let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + values().map(<[u8]>::len).sum::<usize>();
    let mut whole = BytesMut::with_capacity(size);
    for part in key.into_iter().chain(value).chain(values()) {
        whole.extend_from_slice(part);
    }
    let mut whole = whole.freeze();
    let mut part = |bytes: &[u8]| whole.split_to(bytes.len());
    Record {
        source,
        offset: Offset(message.offset()),
        key: key.map(&mut part),
        value: value.map(&mut part),
        headers: headers.iter().map(|header| (header_name(header.key), header.value.map(&mut part))).collect(),
        timestamp: Timestamp(message.timestamp().to_millis().unwrap_or(0)),
    }
}

/// Kafka counts partitions in 31 bits.
pub(crate) fn partition_number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A list of partitions in librdkafka's form.
pub(crate) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(partition.topic.as_str(), partition_number(partition.partition));
    }
    list
}

/// Positions in librdkafka's form.
pub(crate) fn positions(positions: &[(TopicPartition, Position)]) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for (partition, Position { next, landmark }) in positions {
        let (topic, number) = (partition.topic.as_str(), partition_number(partition.partition));
        list.add_partition_offset(topic, number, rdkafka::Offset::Offset(next.0))
            .map_err(|error| LogError::Fatal { reason: format!("position {} of {partition}: {error}", next.0) })?;
        if let (Some(landmark), Some(mut element)) = (landmark, list.find_partition(topic, number)) {
            element.set_metadata(metadata(*landmark));
        }
    }
    Ok(list)
}

/// A landmark in the free text that a group keeps beside a position.
fn metadata(landmark: Landmark) -> String {
    format!("{LANDMARK}{}@{}", landmark.offset.0, landmark.written.as_millis())
}

/// What the text beside a position begins with when it is ours.
const LANDMARK: &str = "landmark:";

/// The landmark beside a position. What somebody else wrote there, as the tools of a broker may that set positions, is none: rdkafka takes
/// it for UTF-8 and panics where it is not.
pub(crate) fn landmark_of(element: &TopicPartitionListElem<'_>) -> Option<Landmark> {
    catch_unwind(AssertUnwindSafe(|| landmark(element.metadata()))).ok().flatten()
}

fn landmark(metadata: &str) -> Option<Landmark> {
    let (offset, written) = metadata.strip_prefix(LANDMARK)?.split_once('@')?;
    Some(Landmark { offset: Offset(offset.parse().ok()?), written: Timestamp(written.parse().ok()?) })
}

/// The partitions of a list.
pub(crate) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition::new(element.topic(), u32::try_from(element.partition()).unwrap_or(0)))
        .collect()
}

/// A start that needs no question to the broker. `None` for a moment in time.
pub(crate) fn plain_start(start: Start) -> Option<rdkafka::Offset> {
    match start {
        Start::Beginning => Some(rdkafka::Offset::Beginning),
        Start::End => Some(rdkafka::Offset::End),
        Start::At(offset) => Some(rdkafka::Offset::Offset(offset.0)),
        Start::Since(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn append(topic: &str, bytes: usize) -> Append {
        Append {
            topic: topic.into(),
            partition: None,
            key: None,
            value: Some(vec![0; bytes].into()),
            headers: vec![("name".into(), Some(Bytes::from_static(b"value")))],
        }
    }

    #[test]
    fn a_record_that_is_too_large_is_refused_before_it_leaves() {
        let empty = append("t", 0).size();
        let largest = MAX_RECORD_BYTES - empty;
        assert!(check(&[append("t", largest)]).is_ok());
        let refused = check(&[append("t", 5), append("t", largest + 1)]);
        assert!(matches!(refused, Err(LogError::TooLarge { bytes, .. }) if bytes == MAX_RECORD_BYTES + 1));
    }

    #[test]
    fn names_of_headers_are_kept_up_to_a_bound_and_read_alike_beyond_it() {
        let names: Vec<String> = (0..100).map(|n| format!("name-{n}")).chain(["long".repeat(20)]).collect();
        for name in &names {
            assert_eq!(header_name(name), *name);
        }
        let kept = names.iter().filter(|name| matches!(header_name(name), HeaderName::Borrowed(_))).count();
        assert!(kept > 0 && kept <= 64, "{kept}");
    }

    #[test]
    fn the_text_beside_a_position_is_read_as_it_was_written_and_nothing_else_is() {
        let landmark = Landmark { offset: Offset(7), written: Timestamp(1_700_000_000_123) };
        assert_eq!(super::landmark(&metadata(landmark)), Some(landmark));
        for other in ["", "landmark:", "landmark:7", "landmark:7@", "landmark:x@1", "7@1", "anything"] {
            assert_eq!(super::landmark(other), None, "{other}");
        }
    }

    #[test]
    fn an_illegal_topic_name_is_refused() {
        for name in ["", ".", "..", "a/b", "ä", "a b"] {
            assert!(matches!(check_topic(&name.into()), Err(LogError::Fatal { .. })), "{name:?}");
        }
        assert!(check_topic(&"whatsapp.conversation.events.v1".into()).is_ok());
    }
}
