//! What proves that a dispatch record is one that the log accepted: admission seals it, in the transaction of its `MessageAccepted`.
//!
//! The seal covers the whole value and a position that the record's own is not below. Whoever reads a record therefore knows from where on
//! to look for the first copy of it.

use bytes::Bytes;
use connector_contracts::headers;
use connector_domain::identity::StreamKeys;
use connector_ports::log::{Offset, Record};

const PURPOSE: &str = "dispatch";

/// The seal of a record with this value that will stand at `behind` or later.
pub(crate) fn seal(keys: &StreamKeys, value: &[u8], behind: Offset) -> Bytes {
    let position = behind.0.to_be_bytes();
    let tag = keys.seal(PURPOSE, &[&position, value]);
    [position.as_slice(), &tag].concat().into()
}

/// The position that a record's seal names; `None`: it was not sealed with this secret, or is not what was sealed.
pub(crate) fn opened(keys: &StreamKeys, record: &Record) -> Option<Offset> {
    let (position, tag) = record.header(headers::SEAL)?.split_first_chunk::<8>()?;
    let expected = keys.seal(PURPOSE, &[position, record.value.as_deref()?]);
    // A byte that differs early must not be told from one that differs late.
    let same = expected.len() == tag.len() && expected.iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b)) == 0;
    let behind = Offset(i64::from_be_bytes(*position));
    (same && behind <= record.offset).then_some(behind)
}

#[cfg(test)]
mod tests {
    use connector_domain::time::Timestamp;
    use connector_ports::log::TopicPartition;

    use super::*;

    #[test]
    fn a_seal_opens_for_what_was_sealed_with_the_same_secret_and_not_before_its_position() {
        let keys = StreamKeys::new("k1", b"secret");
        let record = |value: &'static [u8], seal: Bytes, offset| Record {
            source: TopicPartition::new("dispatch", 0),
            offset: Offset(offset),
            key: None,
            value: Some(Bytes::from_static(value)),
            headers: vec![(headers::SEAL.into(), Some(seal))],
            timestamp: Timestamp::EPOCH,
        };
        let sealed = seal(&keys, b"a message", Offset(7));
        assert_eq!(opened(&keys, &record(b"a message", sealed.clone(), 9)), Some(Offset(7)));
        assert_eq!(opened(&keys, &record(b"a message", sealed.clone(), 6)), None);
        assert_eq!(opened(&keys, &record(b"another message", sealed.clone(), 9)), None);
        assert_eq!(opened(&StreamKeys::new("k1", b"other"), &record(b"a message", sealed.clone(), 9)), None);
        assert_eq!(opened(&keys, &record(b"a message", sealed.slice(..20), 9)), None);
        let moved = [9_i64.to_be_bytes().as_slice(), &sealed[8..]].concat();
        assert_eq!(opened(&keys, &record(b"a message", moved.into(), 9)), None);
    }
}
