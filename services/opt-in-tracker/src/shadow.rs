//! The second fold of conversations, enablements and contacts, for the audit: what the log says, without the gate. The fates of attempts
//! are not part of it: they are forgotten after some days.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::decode_event;
use connector_domain::event::Recorded;
use connector_domain::identity::StreamKeys;
use connector_domain::ids::StreamId;
use connector_ports::gate::{Change, Timer};
use connector_ports::log::Record;
use connector_runtime::audit::{Question, Questions, Shadow};
use connector_runtime::failure::Failure;
use connector_runtime::situation::conversation_key;

use crate::fold::{Fold, same};

/// Everything that the view has to hold about one stream.
#[derive(Default)]
struct Entry {
    /// `None`: there must not be one.
    values: BTreeMap<String, Option<Bytes>>,
    timer: Option<Timer>,
}

/// The streams of one partition.
#[derive(Default)]
pub struct Conversations {
    streams: HashMap<StreamId, Entry>,
    size: usize,
}

impl Conversations {
    fn stream(&mut self, stream: &StreamId, events: &[Recorded]) -> Result<(), Failure> {
        // They only name the streams of events that follow, and nothing is written here.
        let keys = StreamKeys::new("audit", b"");
        let mut fold = Fold::over(&keys, events.iter());
        let entry = self.streams.entry(stream.clone()).or_default();
        loop {
            let missing = fold.missing();
            if missing.is_empty() {
                break;
            }
            let values = missing.iter().map(|key| entry.values.get(key).cloned().flatten()).collect();
            fold.load(missing, values)?;
        }
        for recorded in events {
            fold.evolve(recorded);
        }
        let before = entry.values.len();
        for change in fold.changes()? {
            match change {
                Change::Put { key, value } => drop(entry.values.insert(key, Some(value))),
                Change::Delete { key } => drop(entry.values.insert(key, None)),
                Change::Schedule { at, tag, .. } => entry.timer = Some(Timer { at, tag }),
                Change::Unschedule { .. } => entry.timer = None,
                Change::Mark { .. } | Change::Projects { .. } => {}
            }
        }
        self.size += entry.values.len() - before;
        Ok(())
    }
}

#[async_trait]
impl Shadow for Conversations {
    fn fold(&mut self, records: &[Record]) -> Result<(), Failure> {
        let mut streams: HashMap<StreamId, Vec<Recorded>> = HashMap::new();
        for recorded in records.iter().filter_map(|record| decode_event(record.value.as_deref()?).ok()) {
            streams.entry(recorded.envelope.stream_id.clone()).or_default().push(recorded);
        }
        streams.iter().try_for_each(|(stream, events)| self.stream(stream, events))
    }

    fn size(&self) -> usize {
        self.size
    }

    fn retain(&mut self, keep: &dyn Fn(&str) -> bool) {
        self.streams.retain(|stream, _| keep(stream.as_str()));
        self.size = self.streams.values().map(|entry| entry.values.len()).sum();
    }

    fn questions(&self) -> Questions {
        let question = |stream: &StreamId, key: String| Question { stream: stream.to_string(), key };
        let mut questions = Questions::default();
        for (stream, Entry { values, .. }) in &self.streams {
            // A bucket of users is about other streams, too.
            let own = values.keys().filter(|key| !key.starts_with("d:"));
            questions.values.extend(own.map(|key| question(stream, key.clone())));
            let key = conversation_key(stream);
            if values.contains_key(&key) {
                questions.timers.push(question(stream, key));
            }
        }
        questions
    }

    fn value_agrees(&self, question: &Question, value: Option<&Bytes>) -> bool {
        let entry = self.streams.get(&StreamId(question.stream.clone()));
        entry.is_some_and(|entry| same(&question.key, entry.values.get(&question.key).and_then(Option::as_ref), value))
    }

    fn timer_agrees(&self, question: &Question, timer: Option<Timer>) -> bool {
        self.streams.get(&StreamId(question.stream.clone())).is_some_and(|entry| entry.timer == timer)
    }
}
