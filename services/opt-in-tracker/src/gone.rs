//! What the directory does not have any more although nobody has read its tombstone: compaction takes a tombstone away some time after it was
//! written (`delete.retention.ms`), and a worker that was down for longer never sees it.
//!
//! At take-over the positions that were not read yet are counted. When some of them hold no record, compaction was there, and before the rest is
//! handled the users and contacts that the views know are held against the keys of the partition: who is not there is taken away. After a
//! crash on the way the next owner finds the same gap.
//! The time is linear in the views and the partition, the memory eight bytes for each key.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use connector_domain::directory::{ContactEntry, Enablement, decide_contact_removed, decide_user_removed};
use connector_domain::event::Event;
use connector_domain::ids::{ContactId, StreamId};
use connector_ports::Log;
use connector_ports::log::{Isolation, Offset, Start, TopicPartition};
use connector_ports::partition::partition_for;
use connector_runtime::failure::Failure;
use connector_runtime::replay::replay;
use connector_runtime::situation::{BUCKETS, Person, contact_key, contact_list_key, enablement_key, load, users_key};

use crate::settling::Settling;

/// Buckets of users that are looked at in one step.
const STEP: usize = 32;

fn hashed(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Whether compaction has taken records away that were not read.
///
/// # Errors
/// When the log is away.
pub(crate) async fn compacted(
    log: &dyn Log,
    partition: &TopicPartition,
    committed: Option<Offset>,
) -> Result<bool, Failure> {
    let from = committed.unwrap_or_default();
    let end = log.end_offset(partition, Isolation::Committed).await?;
    let mut records = 0;
    replay(log, partition, Start::At(from), Isolation::Committed, |record| {
        records += i64::from(record.offset >= from && record.offset < end);
        Ok(())
    })
    .await?;
    Ok(records < end.0 - from.0)
}

/// Somebody who is gone: the key that is not there, and what follows.
pub(crate) struct Gone {
    pub(crate) key: String,
    pub(crate) person: Person,
    pub(crate) stream: StreamId,
    pub(crate) events: Vec<Event>,
}

/// The comparison of one partition of the directory with the views.
pub(crate) struct Comparison {
    partition: u32,
    partitions: u32,
    /// Hashes of the keys that are there.
    live: HashSet<u64>,
    /// Everything of the partition below this position was looked at.
    pub(crate) end: Offset,
    /// What is left: partitions of the views, with their buckets.
    rest: VecDeque<(u32, u8)>,
}

impl Comparison {
    /// Reads the keys of a partition of the directory. `None`: there never was anything in it, which is no reason to take everybody away.
    ///
    /// # Errors
    /// When the log is away.
    pub(crate) async fn begin(
        log: &dyn Log,
        partition: &TopicPartition,
        (directory, views): (u32, u32),
    ) -> Result<Option<Self>, Failure> {
        let mut live = HashSet::new();
        let end = replay(log, partition, Start::Beginning, Isolation::Committed, |record| {
            if let Some(key) = record.key.as_deref() {
                if record.value.is_some() {
                    live.insert(hashed(key));
                } else {
                    live.remove(&hashed(key));
                }
            }
            Ok(())
        })
        .await?;
        let rest = (0..views).flat_map(|view| (0..BUCKETS).map(move |bucket| (view, bucket))).collect();
        let begun = Self { partition: partition.partition, partitions: directory, live, end, rest };
        Ok((end > Offset(0)).then_some(begun))
    }

    /// Whether everybody was looked at.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    fn is_gone(&self, key: &str) -> bool {
        partition_for(key.as_bytes(), self.partitions) == self.partition && !self.live.contains(&hashed(key.as_bytes()))
    }

    /// Looks at some more. After a failure the same are looked at again.
    ///
    /// # Errors
    /// `Later` when a view does not catch up in time.
    pub(crate) async fn step(&mut self, settling: &mut Settling) -> Result<Vec<Gone>, Failure> {
        let Some((view, _)) = self.rest.front().copied() else { return Ok(Vec::new()) };
        let buckets: Vec<u8> =
            self.rest.iter().take(STEP).filter(|(at, _)| *at == view).map(|(_, bucket)| *bucket).collect();
        let keys = buckets.iter().map(|bucket| users_key(*bucket)).collect();
        let stored = settling.read(&BTreeMap::from([(view, keys)])).await?;
        let mut people: BTreeMap<StreamId, Person> = BTreeMap::new();
        for users in stored.values() {
            people.extend(load::<BTreeMap<StreamId, Person>>(users.as_ref())?);
        }
        let mut gone = Vec::new();
        if !people.is_empty() {
            let lists = people.keys().flat_map(|user| [contact_list_key(user), enablement_key(user)]).collect();
            let values = settling.read(&BTreeMap::from([(view, lists)])).await?;
            let value = |key: &str| values.get(key).and_then(Option::as_ref);
            let mut missing = Vec::new();
            for (user, person) in &people {
                let Person { organization_id, user_id } = person;
                let key = format!("user/{organization_id}/{user_id}");
                let enablement: Enablement = load(value(&enablement_key(user)))?;
                let events = if self.is_gone(&key) { decide_user_removed(&enablement, user_id) } else { Vec::new() };
                if !events.is_empty() {
                    gone.push(Gone { key, person: person.clone(), stream: user.clone(), events });
                }
                for contact in load::<BTreeSet<ContactId>>(value(&contact_list_key(user)))? {
                    let key = format!("contact/{organization_id}/{user_id}/{contact}");
                    if self.is_gone(&key) {
                        missing.push((key, user.clone(), person.clone(), contact));
                    }
                }
            }
            if !missing.is_empty() {
                let keys = missing.iter().map(|(_, user, _, contact)| contact_key(user, contact)).collect();
                let values = settling.read(&BTreeMap::from([(view, keys)])).await?;
                for (key, stream, person, contact) in missing {
                    let entry: ContactEntry =
                        load(values.get(&contact_key(&stream, &contact)).and_then(Option::as_ref))?;
                    let events = decide_contact_removed(&entry, &person.user_id, &contact);
                    gone.push(Gone { key, person, stream, events });
                }
            }
        }
        self.rest.drain(..buckets.len());
        Ok(gone)
    }
}
