//! What is too large (R15). One record must never end a fleet: whoever took its partition over would end as the first one did.
//!
//! A record that is larger than what is worked on is not even shown to the handler. One that leads to something which does not fit is given up:
//! what the handler has in memory of it was never written, so the state is read again and the record goes to the dead letters instead. And what
//! a topic does not take although it was declared to (somebody made it smaller) is learned from its refusal.

use std::collections::{BTreeMap, BTreeSet};

use connector_contracts::topic::DLQ_SUFFIX;
use connector_ports::log::{
    Append, LogError, MAX_RECORD_BYTES, MAX_TAKEN_BYTES, MAX_TOPIC_BYTES, MIN_TOPIC_BYTES, Offset, Record, TopicName,
    TopicPartition,
};

use crate::handler::{Reason, Step};
use crate::lanes::Work;

/// Sizes as a worker knows them.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Topics that take less than they should. Known for as long as the worker lives.
    learned: BTreeMap<TopicName, usize>,
    /// Records whose outcome did not fit, as long as they are not committed.
    given_up: BTreeMap<TopicPartition, BTreeSet<Offset>>,
}

impl Sizes {
    /// Why a record is not to be handled, if so.
    pub(super) fn refusal(&self, record: &Record) -> Option<Reason> {
        let bytes = record.size();
        if bytes > MAX_TAKEN_BYTES {
            return Some(Reason::new("too_large", format!("the record has {bytes} bytes")));
        }
        let given_up = self.given_up.get(&record.source).is_some_and(|offsets| offsets.contains(&record.offset));
        given_up.then(|| Reason::new("too_large", "what it leads to does not fit into its topic"))
    }

    /// What may be written about a record. What is new must be small enough to be worked on; what is sent on in the same topic is told to be
    /// too large where it arrives.
    fn most(&self, record: &Record, topic: &TopicName) -> usize {
        let declared = if topic.as_str().ends_with(DLQ_SUFFIX) {
            MAX_RECORD_BYTES
        } else if *topic == record.source.topic {
            MAX_TOPIC_BYTES
        } else {
            MAX_TAKEN_BYTES
        };
        self.learned.get(topic).map_or(declared, |learned| declared.min(*learned))
    }

    /// The largest dead letter of a record.
    pub(super) fn most_of_letter(&self, topic: &TopicName) -> usize {
        self.learned.get(topic).map_or(MAX_RECORD_BYTES, |learned| MAX_RECORD_BYTES.min(*learned))
    }

    /// Records of a lane that lead to what does not fit will not be handled any more: if there are any, what is told of them.
    pub(super) fn give_up<F>(&mut self, work: &[Work], steps: &[Step<F>]) -> Option<String> {
        let mut told = None;
        for (work, step) in work.iter().zip(steps) {
            let record = &work.record;
            if !work.replay
                && let Some(unfit) = self.unfit(record, step)
            {
                let (source, offset, topic, bytes) = (&record.source, record.offset.0, &unfit.topic, unfit.size());
                told = Some(format!("record {offset} of {source} leads to {bytes} bytes for {topic}: too large"));
                self.given_up.entry(source.clone()).or_default().insert(record.offset);
            }
            if matches!(step, Step::Effect { .. } | Step::Wait { .. }) {
                break;
            }
        }
        told
    }

    /// What a step has to write and its topic does not take.
    fn unfit<'a, F>(&self, record: &Record, step: &'a Step<F>) -> Option<&'a Append> {
        let appends = match step {
            Step::Done(appends) | Step::Wait { appends, .. } => appends,
            Step::Effect { journal, .. } => journal,
            Step::DeadLetter(_) => return None,
        };
        appends.iter().find(|append| append.size() > self.most(record, &append.topic))
    }

    /// Everything below this position is finished.
    pub(super) fn committed(&mut self, partition: &TopicPartition, position: Offset) {
        if let Some(offsets) = self.given_up.get_mut(partition) {
            *offsets = offsets.split_off(&position);
            if offsets.is_empty() {
                self.given_up.remove(partition);
            }
        }
    }

    /// Takes note of what a topic refused. False: it refuses what every topic must take, and nothing can be done about that here.
    pub(super) fn learn(&mut self, error: &LogError) -> bool {
        let LogError::TooLarge { topic, bytes } = error else { return false };
        if *bytes <= MIN_TOPIC_BYTES {
            return false;
        }
        tracing::error!(%topic, bytes, "a topic takes less than was declared: see connectorctl topics check");
        let most = self.learned.entry(topic.clone()).or_insert(usize::MAX);
        *most = (*most).min(bytes - 1);
        true
    }
}
