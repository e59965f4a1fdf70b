//! What dispatch takes for a message: only what the log accepted, in its own partition, and each message once (R13).
//!
//! A record that is no message of ours, or another copy of one, goes to the dead letters. Which of two copies is the first, the topic itself
//! says: the seal names a position that the first one is not below. What was handled since this owner came is remembered; what may stand
//! before that is looked up in the topic, which is needed for the first messages of a partition and for copies.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use connector_contracts::decode;
use connector_domain::command::Dispatch;
use connector_ports::log::{Isolation, Offset, Record, Start, TopicPartition};
use connector_runtime::failure::Failure;
use connector_runtime::handler::Reason as Letter;
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::replay::replay_to;
use connector_runtime::situation::partition_of;

use super::journal::{Name, name};
use crate::seal::opened;

/// So many finished messages of a partition are remembered, and up to twice as many: 60 bytes each.
const REMEMBERED: usize = 8_192;
/// Control records and what was aborted lie between the position that a seal names and the record. When the oldest records were deleted, a
/// record that names a position so little before them is still taken for the first of its kind.
const DRIFT: i64 = 64;

/// The messages of one partition.
#[derive(Debug, Default)]
struct Known {
    /// Every message that stands at or behind this position and before what was handled is among `firsts`.
    from: Offset,
    /// Everything below is finished.
    frontier: Offset,
    firsts: HashMap<Name, Offset>,
    places: BTreeMap<Offset, Name>,
}

/// The messages of the partitions held.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    partitions: HashMap<u32, Known>,
}

/// A record that is a message as far as it shows by itself.
struct Candidate {
    dispatch: Arc<Dispatch>,
    name: Name,
    /// The position its seal names; `None`: this very record was looked at before.
    behind: Option<Offset>,
}

pub(super) type Judged = Result<Arc<Dispatch>, Letter>;

fn read(platform: &Platform, record: &Record) -> Judged {
    let dispatch = match record.value.as_deref().map(decode::<Dispatch>) {
        Some(Ok(dispatch)) => Arc::new(dispatch),
        Some(Err(error)) => return Err(Letter::new(error.reason(), error)),
        None => return Err(Letter::new("tombstone", "an accepted message cannot be taken back")),
    };
    if record.key.as_deref() != Some(dispatch.conversation_id.as_str().as_bytes()) {
        return Err(Letter::new("key_mismatch", "the key is not the conversation of the message"));
    }
    if partition_of(&dispatch.conversation_id, platform.partitions) != record.source.partition {
        return Err(Letter::new("misplaced", "the conversation belongs to another partition"));
    }
    Ok(dispatch)
}

impl Known {
    fn add(&mut self, name: Name, offset: Offset) {
        if let Some(later) = self.firsts.get(&name).copied().filter(|known| *known > offset) {
            self.places.remove(&later);
            self.firsts.remove(&name);
        }
        if let Entry::Vacant(first) = self.firsts.entry(name) {
            first.insert(offset);
            self.places.insert(offset, name);
        }
    }

    /// Forgets the oldest of those that are finished, when there are many.
    fn prune(&mut self) {
        while self.places.len() > 2 * REMEMBERED {
            let cut = self.places.keys().nth_back(REMEMBERED).copied().unwrap_or_default().min(self.frontier);
            let kept = self.places.split_off(&cut);
            let forgotten = std::mem::replace(&mut self.places, kept);
            if forgotten.is_empty() {
                return;
            }
            self.firsts.retain(|_, offset| *offset >= cut);
            self.from = self.from.max(cut);
        }
    }
}

impl Accepted {
    /// A partition is ours, from this position on.
    pub(super) fn took_over(&mut self, partition: u32, from: Offset) {
        self.partitions.insert(partition, Known { from, frontier: from, ..Known::default() });
    }

    pub(super) fn lost(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Everything below `frontier` is finished and committed.
    pub(super) fn passed(&mut self, partition: u32, frontier: Offset) {
        if let Some(known) = self.partitions.get_mut(&partition) {
            known.frontier = frontier.max(known.frontier);
            known.prune();
        }
    }

    /// The messages among these records, in their order; for anything else why it is none.
    ///
    /// # Errors
    /// When the log is away.
    pub(super) async fn judge(&mut self, platform: &Platform, work: &[Work]) -> Result<Vec<Judged>, Failure> {
        let mut candidates = Vec::with_capacity(work.len());
        let mut missing: HashMap<&TopicPartition, Offset> = HashMap::new();
        for Work { record, .. } in work {
            let candidate = self.candidate(platform, record);
            if let Ok(Candidate { behind: Some(behind), name, .. }) = &candidate {
                let known = self.partitions.entry(record.source.partition).or_default();
                if *behind < known.from && !known.firsts.contains_key(name) {
                    let from = missing.entry(&record.source).or_insert(*behind);
                    *from = (*from).min(*behind);
                }
            }
            candidates.push(candidate);
        }
        let mut begins = HashMap::new();
        for (source, from) in missing {
            begins.insert(source.partition, platform.log.begin_offset(source).await?);
            self.look_back(platform, source, from).await?;
        }
        let judged = candidates.into_iter().zip(work).map(|(candidate, Work { record, .. })| {
            let Candidate { dispatch, name, behind } = candidate?;
            let known = self.partitions.entry(record.source.partition).or_default();
            match (known.firsts.get(&name), behind) {
                (Some(first), _) if *first == record.offset => return Ok(dispatch),
                (Some(first), _) => {
                    let detail = format!("the same message stands at offset {}", first.0);
                    return Err(Letter::new("duplicate", detail));
                }
                (None, None) => {}
                (None, Some(behind)) => {
                    let begin = begins.get(&record.source.partition).copied().unwrap_or_default();
                    if behind.0.saturating_add(DRIFT) < begin.0 {
                        let detail = "it was accepted so long ago that its first copy may have been deleted";
                        return Err(Letter::new("duplicate", detail));
                    }
                }
            }
            known.add(name, record.offset);
            Ok(dispatch)
        });
        Ok(judged.collect())
    }

    fn candidate(&mut self, platform: &Platform, record: &Record) -> Result<Candidate, Letter> {
        let dispatch = read(platform, record)?;
        let name = name(dispatch.command_id, &dispatch.conversation_id);
        let known = self.partitions.entry(record.source.partition).or_default();
        if known.firsts.get(&name) == Some(&record.offset) {
            return Ok(Candidate { dispatch, name, behind: None });
        }
        match opened(&platform.keys, record) {
            Some(behind) => Ok(Candidate { dispatch, name, behind: Some(behind) }),
            None => Err(Letter::new("not_accepted", "admission has not sealed this record")),
        }
    }

    /// Reads the messages between `from` and what is known.
    async fn look_back(&mut self, platform: &Platform, source: &TopicPartition, from: Offset) -> Result<(), Failure> {
        let known = self.partitions.entry(source.partition).or_default();
        let to = known.from;
        if from >= to {
            return Ok(());
        }
        let mut found = Vec::new();
        let each = |record: Record| {
            if record.offset < to
                && let Ok(dispatch) = read(platform, &record)
                && opened(&platform.keys, &record).is_some()
            {
                found.push((name(dispatch.command_id, &dispatch.conversation_id), record.offset));
            }
            Ok(())
        };
        replay_to(platform.log.as_ref(), source, Start::At(from), to, Isolation::Committed, each).await?;
        found.into_iter().for_each(|(name, offset)| known.add(name, offset));
        known.from = from;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use connector_domain::ids::CommandId;

    use super::*;

    #[test]
    fn what_is_finished_and_old_is_forgotten_and_looked_up_from_there_on() {
        let mut known = Known { from: Offset(0), ..Known::default() };
        for at in 0..3 * i64::try_from(REMEMBERED).expect("small") {
            known.add((CommandId::derived(&at.to_string()), 0), Offset(at));
        }
        known.prune();
        assert_eq!((known.from, known.places.len()), (Offset(0), 3 * REMEMBERED), "nothing is finished");
        known.frontier = Offset(100);
        known.prune();
        assert_eq!((known.from, known.places.len()), (Offset(100), 3 * REMEMBERED - 100));
        known.frontier = Offset(i64::MAX);
        known.prune();
        assert_eq!(known.places.len(), known.firsts.len());
        assert!(known.places.len() <= REMEMBERED + 1);
        assert_eq!(known.places.keys().next(), Some(&known.from));
    }
}
