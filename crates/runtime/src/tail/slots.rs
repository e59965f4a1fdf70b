//! Where the last event of each stream stands that can change a decision about it, in bounded memory.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use connector_contracts::{event_type, glimpse};
use connector_domain::bearing::bears_on_decisions;
use connector_ports::log::{Offset, Record};

/// Places where streams are remembered, per partition: 128 KiB.
const SLOTS: usize = 1 << 14;

/// Where the last event of each stream stands, in bounded memory: streams share slots, so that an answer may be too high, never too low.
#[derive(Default)]
pub(super) struct Slots {
    /// Empty before the first event.
    slots: Vec<i64>,
    /// Of the last record of which it is not known whose it is.
    anybodys: i64,
}

/// Each stream has two slots; the lower one counts.
fn places(hash: u64) -> [usize; 2] {
    let place = |bits: u64| usize::try_from(bits % SLOTS as u64).unwrap_or_default();
    [place(hash), place(hash >> 32)]
}

impl Slots {
    fn note(&mut self, hash: u64, offset: Offset) {
        if self.slots.is_empty() {
            self.slots = vec![0; SLOTS];
        }
        for place in places(hash) {
            self.slots[place] = self.slots[place].max(offset.next().0);
        }
    }

    fn note_anybodys(&mut self, offset: Offset) {
        self.anybodys = self.anybodys.max(offset.next().0);
    }

    /// Everything of this stream stands below.
    pub(super) fn behind_last(&self, hash: u64) -> Offset {
        let own = if self.slots.is_empty() {
            0
        } else {
            places(hash).map(|place| self.slots[place]).into_iter().min().unwrap_or_default()
        };
        Offset(own.max(self.anybodys))
    }
}

/// Another key in every process: under one that is known, ids could be looked for that share the slots of somebody else's, and hold them up.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn hash_of(what: &impl Hash) -> u64 {
    KEY.hash_one(what)
}

pub(super) fn stream_hash(stream: &str) -> u64 {
    hash_of(&stream)
}

pub(super) fn user_hash(organization: &str, user: &str) -> u64 {
    hash_of(&(organization, user))
}

/// What a record of the log leaves. Its bytes count, as for whoever folds it, not its headers.
pub(super) fn note_event(slots: &mut Slots, record: &Record) {
    // Nobody folds a tombstone.
    let Some(value) = record.value.as_deref() else { return };
    let Some(known) = event_type(value) else {
        return note_unknown(slots, record);
    };
    // Most are passed over by their type alone.
    if !bears_on_decisions(known, Some(0)) {
        return;
    }
    match glimpse(value) {
        Ok(seen) if bears_on_decisions(known, seen.error_code) => {
            slots.note(stream_hash(seen.stream_id), record.offset);
        }
        Ok(_) => {}
        Err(_) => note_unknown(slots, record),
    }
}

/// This build cannot tell what it is; one that can finds it in the stream of its key.
fn note_unknown(slots: &mut Slots, record: &Record) {
    match record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) {
        Some(stream) => slots.note(stream_hash(stream), record.offset),
        None => slots.note_anybodys(record.offset),
    }
}

/// What a record of the directory leaves: whose it is stands in its key (`user/…/…`, `contact/…/…/…`).
pub(super) fn note_entry(slots: &mut Slots, record: &Record) {
    let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
    let parts: Vec<&str> = key.split('/').collect();
    if let ["user", organization, user] | ["contact", organization, user, _] = parts.as_slice() {
        slots.note(user_hash(organization, user), record.offset);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use bytes::Bytes;
    use connector_contracts::{Topics, encode_event};
    use connector_domain::event::{Event, MessageStatusChanged, TimeSource};
    use connector_domain::status::DeliveryStatus;
    use connector_domain::time::Timestamp;
    use connector_ports::log::TopicPartition;
    use connector_simulated::SimWorld;
    use connector_testkit::event::text_received;
    use proptest::prelude::*;

    use super::*;
    use crate::emit::{Cause, Emitter};

    proptest! {
        /// Streams share slots: what is told of one may be too high, never too low.
        #[test]
        fn no_stream_is_told_of_less_than_it_has(noted in prop::collection::vec((0_u64..50_000, 0_i64..1_000_000), 0..500)) {
            let mut slots = Slots::default();
            noted.iter().for_each(|(stream, offset)| slots.note(hash_of(stream), Offset(*offset)));
            for (stream, offset) in &noted {
                prop_assert!(slots.behind_last(hash_of(stream)) > Offset(*offset));
            }
        }
    }

    #[test]
    fn nobody_can_find_out_beforehand_who_shares_a_slot() {
        // As anybody can compute it.
        let known = |what: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            what(&mut hasher);
            hasher.finish()
        };
        assert_ne!(stream_hash("k1-c"), known(&|hasher| "k1-c".hash(hasher)));
        assert_ne!(user_hash("acme", "ada"), known(&|hasher| ("acme", "ada").hash(hasher)));
        assert_eq!(stream_hash("k1-c"), stream_hash("k1-c"));
    }

    #[test]
    fn few_streams_of_a_thousand_others_hit_both_slots() {
        let mut slots = Slots::default();
        (0..1_000_u64).for_each(|stream| slots.note(hash_of(&stream), Offset(7)));
        let hit = (1_000..11_000_u64).filter(|stream| slots.behind_last(hash_of(stream)) > Offset(0)).count();
        assert!(hit < 250, "{hit} of 10,000");
    }

    fn record(key: Option<&'static str>, value: Option<Bytes>, offset: i64) -> Record {
        Record {
            source: TopicPartition::new("t", 0),
            offset: Offset(offset),
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            value,
            headers: Vec::new(),
            timestamp: Timestamp(0),
        }
    }

    fn event(stream: &str, event: impl Into<Event>) -> Option<Bytes> {
        let emitter = Emitter::new(Topics::new(""), "test", SimWorld::new(1).clock());
        let cause = Cause {
            organization_id: "acme".into(),
            stream_id: stream.into(),
            cause_id: "cause".to_owned(),
            command_id: None,
            occurred_at: Timestamp(0),
            time_source: TimeSource::Whatsapp,
            traceparent: None,
        };
        let recorded = emitter.recorded(event.into(), &cause);
        Some(Bytes::from(encode_event(&recorded).expect("it fits its schema")))
    }

    fn status(error_code: Option<i64>) -> MessageStatusChanged {
        MessageStatusChanged {
            phone_number_id: "number".into(),
            wamid: "wamid".into(),
            status: if error_code.is_some() { DeliveryStatus::Failed } else { DeliveryStatus::Read },
            attempt_id: None,
            address: connector_domain::identity::Address::default(),
            error_code,
            raw: "{}".into(),
        }
    }

    #[test]
    fn what_a_record_says_counts_for_the_stream_it_names_and_what_cannot_be_read_for_that_of_its_key() {
        let last = |slots: &Slots, stream: &str| slots.behind_last(stream_hash(stream)).0;
        let mut slots = Slots::default();
        note_event(&mut slots, &record(Some("key"), event("own", text_received(Timestamp(0))), 4));
        assert_eq!((last(&slots, "own"), last(&slots, "key")), (5, 0));
        note_event(&mut slots, &record(Some("own"), event("own", status(None)), 5));
        note_event(&mut slots, &record(Some("own"), None, 6));
        assert_eq!(last(&slots, "own"), 5, "what does not matter is passed over");
        note_event(&mut slots, &record(Some("own"), event("own", status(Some(131_050))), 7));
        assert_eq!(last(&slots, "own"), 8);
        note_event(&mut slots, &record(Some("key"), Some(Bytes::from_static(b"of a later build")), 8));
        assert_eq!((last(&slots, "own"), last(&slots, "key")), (8, 9));
        note_event(&mut slots, &record(None, Some(Bytes::from_static(b"of anybody")), 9));
        assert_eq!((last(&slots, "own"), last(&slots, "another")), (10, 10));
    }

    #[test]
    fn records_of_a_user_and_of_their_contacts_count_for_the_user() {
        let mut slots = Slots::default();
        let told = |slots: &Slots, user| slots.behind_last(user_hash("acme", user)).0;
        note_entry(&mut slots, &record(Some("number/1"), None, 0));
        note_entry(&mut slots, &record(Some("user/acme/ada"), None, 1));
        note_entry(&mut slots, &record(Some("contact/acme/bob/7"), None, 2));
        assert_eq!((told(&slots, "ada"), told(&slots, "bob"), told(&slots, "eve")), (2, 3, 0));
    }
}
