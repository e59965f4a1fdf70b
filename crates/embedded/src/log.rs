//! A log of one process over any [`Store`]: groups, transactions and readers, which are the same wherever the records are.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use connector_ports::log::{
    Append, Appended, Consumed, Identity, Isolation, LogError, MAX_RECORD_BYTES, MIN_TOPIC_BYTES, Offset, Position,
    Start, Subscription, TopicFacts, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::partition::partition_for;
use connector_ports::{Appender, Log, Reader, Transactor};

use crate::group::{Groups, Ticket};
use crate::hold::Holds;
use crate::reader::{Proof, StoreReader};
use crate::store::{Answer, Outcome, Placed, Positions, Session, Store};

/// A log over a store. Cheap to clone; clones are the same log.
pub struct StoreLog<S: Store> {
    shared: Arc<Shared<S>>,
}

impl<S: Store> Clone for StoreLog<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(crate) struct Shared<S> {
    pub(crate) store: S,
    pub(crate) groups: Groups,
    holds: Holds,
}

impl<S: Store> Shared<S> {
    /// Partitions of a topic; 0 when there is no such topic.
    pub(crate) fn count(&self, topic: &TopicName) -> u32 {
        self.store.partitions(topic).unwrap_or(0)
    }

    /// The largest record that a topic takes, by its setting as on Kafka. Nothing here needs it; who works on one log works on the other.
    fn largest(&self, topic: &TopicName) -> usize {
        let told = self.store.settings(topic).get("max.message.bytes").and_then(|most| most.parse().ok());
        told.unwrap_or(MAX_RECORD_BYTES).min(MAX_RECORD_BYTES)
    }

    fn place(&self, record: Append) -> Result<Placed, LogError> {
        let bytes = record.size();
        let Append { topic, partition, key, value, headers } = record;
        // Most records fit into any topic.
        if bytes > MIN_TOPIC_BYTES && bytes > self.largest(&topic) {
            return Err(LogError::TooLarge { topic, bytes });
        }
        let partitions = self.count(&topic);
        let partition = partition.unwrap_or_else(|| partition_for(key.as_deref().unwrap_or_default(), partitions));
        if partition >= partitions {
            return Err(LogError::UnknownTopic { topic });
        }
        Ok(Placed { target: TopicPartition { topic, partition }, key, value, headers })
    }

    /// Appends with the call that takes its place in the order of the store's calls.
    async fn append(
        &self,
        records: Vec<Append>,
        call: impl FnOnce(Vec<Placed>) -> Result<Answer<Vec<Offset>>, LogError>,
    ) -> Result<Vec<Appended>, LogError> {
        let placed = records.into_iter().map(|record| self.place(record)).collect::<Result<Vec<_>, _>>()?;
        let targets: Vec<_> = placed.iter().map(|record| record.target.clone()).collect();
        let offsets = call(placed)?.await?;
        Ok(targets.into_iter().zip(offsets).map(|(target, offset)| Appended { target, offset }).collect())
    }
}

impl<S: Store> StoreLog<S> {
    /// A log over this store, with no group members yet.
    pub fn new(store: S) -> Self {
        Self { shared: Arc::new(Shared { store, groups: Groups::default(), holds: Holds::default() }) }
    }

    /// Where the records are.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// Takes every partition from its group member without asking, as when sessions end (see [`Groups::evict`]).
    pub fn evict_members(&self) {
        self.shared.groups.evict(&|topic| self.shared.count(topic));
    }

    /// Forgets every group member, as when all their processes died.
    pub fn forget_members(&self) {
        self.shared.groups.clear();
    }
}

#[async_trait]
impl<S: Store> Log for StoreLog<S> {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        let Subscription { group, topics, member, start } = subscription;
        for topic in &topics {
            if self.shared.store.partitions(topic).is_none() {
                return Err(LogError::UnknownTopic { topic: topic.clone() });
            }
        }
        let place = self.shared.groups.join(&group, member, topics, &|topic| self.shared.count(topic));
        Ok(Box::new(StoreReader::member(self.shared.clone(), group, place, start)))
    }

    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(StoreReader::assigned(self.shared.clone(), partitions, isolation).await?))
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(StoreAppender { shared: self.shared.clone() }))
    }

    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        let session = self.shared.store.take_over(id).await?;
        Ok(Box::new(StoreTransactor { shared: self.shared.clone(), session, open: false, held: None }))
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        let missing = || LogError::UnknownTopic { topic: partition.topic.clone() };
        self.shared.store.end(partition, isolation).ok_or_else(missing)
    }

    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        let missing = || LogError::UnknownTopic { topic: partition.topic.clone() };
        self.shared.store.begin(partition).ok_or_else(missing)
    }

    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError> {
        let missing = || LogError::UnknownTopic { topic: partition.topic.clone() };
        self.shared.store.identity(partition).ok_or_else(missing)
    }

    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        for id in self.shared.holds.stale(&self.shared.groups, group, partitions) {
            // Whoever holds them lost them: fenced, and what it left open is aborted.
            self.shared.store.take_over(&id).await?;
        }
        self.shared.store.positions(group, partitions).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        Ok(self.shared.store.partitions(name).map(|partitions| TopicFacts { partitions }))
    }

    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError> {
        match self.shared.store.partitions(name) {
            Some(_) => Ok(self.shared.store.settings(name)),
            None => Err(LogError::UnknownTopic { topic: name.clone() }),
        }
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.shared.store.create_topic(spec).await
    }
}

struct StoreAppender<S: Store> {
    shared: Arc<Shared<S>>,
}

#[async_trait]
impl<S: Store> Appender for StoreAppender<S> {
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.shared.append(records, |placed| Ok(self.shared.store.append(placed, None))).await
    }
}

struct StoreTransactor<S: Store> {
    shared: Arc<Shared<S>>,
    session: Session,
    open: bool,
    held: Option<Held>,
}

/// What a transaction has consumed, with the proof that it may.
struct Held {
    ticket: Ticket,
    positions: Positions,
}

impl Held {
    fn new(consumed: Consumed) -> Result<Self, LogError> {
        let Consumed { group, membership, positions } = consumed;
        match membership.0.downcast_ref::<Proof>().filter(|proof| proof.group == group) {
            Some(proof) => Ok(Self { ticket: proof.ticket.clone(), positions: Positions { group, positions } }),
            None => Err(LogError::Fatal { reason: format!("the membership is not one of group {group}") }),
        }
    }

    /// Makes the call in a moment in which the partitions are known to be owned.
    fn call<T>(&self, groups: &Groups, call: impl FnOnce() -> T) -> Result<T, LogError> {
        groups.fenced_call(&self.ticket, self.positions.positions.iter().map(|(partition, _)| partition), call)
    }
}

impl<S: Store> StoreTransactor<S> {
    fn release(&mut self) {
        self.open = false;
        if let Some(held) = self.held.take() {
            self.shared.holds.end(&self.session, &held.positions);
        }
    }

    /// Positions that are held, overtaken by those that are consumed.
    fn positions(&self, consumed: Option<&Held>) -> Option<Positions> {
        let Some(held) = &self.held else { return consumed.map(|consumed| consumed.positions.clone()) };
        let mut all: BTreeMap<_, _> = held.positions.positions.iter().cloned().collect();
        all.extend(consumed.into_iter().flat_map(|consumed| consumed.positions.positions.iter().cloned()));
        Some(Positions { group: held.positions.group.clone(), positions: all.into_iter().collect() })
    }
}

#[async_trait]
impl<S: Store> Transactor for StoreTransactor<S> {
    async fn hold(&mut self, consumed: Consumed) -> Result<(), LogError> {
        let held = Held::new(consumed)?;
        let positions = self.positions(Some(&held)).unwrap_or_else(|| held.positions.clone());
        let held = Held { ticket: held.ticket, positions };
        held.call(&self.shared.groups, || self.shared.holds.begin(&self.session, &held.ticket, &held.positions))?;
        self.open = true;
        self.held = Some(held);
        Ok(())
    }

    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.open = true;
        let append = |placed| {
            let call = || self.shared.store.append(placed, Some(&self.session));
            match &self.held {
                Some(held) => held.call(&self.shared.groups, call),
                None => Ok(call()),
            }
        };
        self.shared.append(records, append).await
    }

    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        let consumed = consumed.filter(|consumed| !consumed.positions.is_empty()).map(Held::new).transpose()?;
        if !self.open && consumed.is_none() {
            return Ok(());
        }
        let positions = self.positions(consumed.as_ref());
        let finish = || self.shared.store.finish(&self.session, Outcome::Commit(positions));
        let groups = &self.shared.groups;
        let answer = match (&self.held, &consumed) {
            (_, Some(newest)) => {
                if let Some(held) = &self.held {
                    held.call(groups, || ())?;
                }
                newest.call(groups, finish)?
            }
            (Some(held), None) => held.call(groups, finish)?,
            (None, None) => finish(),
        };
        answer.await?;
        self.release();
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), LogError> {
        if self.open {
            self.shared.store.finish(&self.session, Outcome::Abort).await?;
            self.release();
        }
        Ok(())
    }
}

impl<S: Store> Drop for StoreTransactor<S> {
    fn drop(&mut self) {
        if self.open {
            self.shared.store.abandon(&self.session);
            self.release();
        }
    }
}
