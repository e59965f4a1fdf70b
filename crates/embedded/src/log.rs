//! A log of one process over any [`Store`]: groups, transactions and readers, which are the same wherever the records are.

use std::sync::Arc;

use async_trait::async_trait;
use connector_ports::log::{
    Append, Appended, Consumed, Isolation, LogError, Offset, Start, Subscription, TopicFacts, TopicName,
    TopicPartition, TopicSpec,
};
use connector_ports::partition::partition_for;
use connector_ports::{Appender, Log, Reader, Transactor};

use crate::group::Groups;
use crate::reader::{Proof, StoreReader};
use crate::store::{Answer, Outcome, Placed, Positions, Session, Store};

/// Largest record that is taken, key and value together: what a Kafka broker takes by default (`message.max.bytes`).
pub const MAX_RECORD_BYTES: usize = 1_048_576;

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
}

impl<S: Store> Shared<S> {
    /// Partitions of a topic; 0 when there is no such topic.
    pub(crate) fn count(&self, topic: &TopicName) -> u32 {
        self.store.partitions(topic).unwrap_or(0)
    }

    fn place(&self, record: Append) -> Result<Placed, LogError> {
        let Append { topic, partition, key, value, headers } = record;
        let bytes = key.as_ref().map_or(0, |key| key.len()) + value.as_ref().map_or(0, |value| value.len());
        if bytes > MAX_RECORD_BYTES {
            return Err(LogError::TooLarge { topic, bytes });
        }
        let partitions = self.count(&topic);
        let partition = partition.unwrap_or_else(|| partition_for(key.as_deref().unwrap_or_default(), partitions));
        if partition >= partitions {
            return Err(LogError::UnknownTopic { topic });
        }
        Ok(Placed { target: TopicPartition { topic, partition }, key, value, headers })
    }

    async fn append(&self, records: Vec<Append>, session: Option<&Session>) -> Result<Vec<Appended>, LogError> {
        let placed = records.into_iter().map(|record| self.place(record)).collect::<Result<Vec<_>, _>>()?;
        let targets: Vec<_> = placed.iter().map(|record| record.target.clone()).collect();
        let offsets = self.store.append(placed, session).await?;
        Ok(targets.into_iter().zip(offsets).map(|(target, offset)| Appended { target, offset }).collect())
    }
}

impl<S: Store> StoreLog<S> {
    /// A log over this store, with no group members yet.
    pub fn new(store: S) -> Self {
        Self { shared: Arc::new(Shared { store, groups: Groups::default() }) }
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
        Ok(Box::new(StoreTransactor { shared: self.shared.clone(), session, open: false }))
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        let missing = || LogError::UnknownTopic { topic: partition.topic.clone() };
        self.shared.store.end(partition, isolation).ok_or_else(missing)
    }

    async fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Offset>>, LogError> {
        self.shared.store.positions(group, partitions).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        Ok(self.shared.store.partitions(name).map(|partitions| TopicFacts { partitions }))
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.shared.store.create_topic(&spec.name, spec.partitions).await
    }
}

struct StoreAppender<S: Store> {
    shared: Arc<Shared<S>>,
}

#[async_trait]
impl<S: Store> Appender for StoreAppender<S> {
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.shared.append(records, None).await
    }
}

struct StoreTransactor<S: Store> {
    shared: Arc<Shared<S>>,
    session: Session,
    open: bool,
}

impl<S: Store> StoreTransactor<S> {
    /// Makes the commit; with positions, in the moment in which the membership is known to be good.
    fn start_commit(&self, consumed: Option<Consumed>) -> Result<Answer<()>, LogError> {
        let store = &self.shared.store;
        let Some(Consumed { group, membership, positions }) = consumed else {
            return Ok(store.finish(&self.session, Outcome::Commit(None)));
        };
        let Some(proof) = membership.0.downcast_ref::<Proof>().filter(|proof| proof.group == group) else {
            return Err(LogError::Fatal { reason: format!("the membership is not one of group {group}") });
        };
        let owned = positions.clone();
        let call = || store.finish(&self.session, Outcome::Commit(Some(Positions { group, positions })));
        self.shared.groups.fenced_call(&proof.ticket, owned.iter().map(|(partition, _)| partition), call)
    }
}

#[async_trait]
impl<S: Store> Transactor for StoreTransactor<S> {
    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.open = true;
        self.shared.append(records, Some(&self.session)).await
    }

    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        if !self.open && consumed.as_ref().is_none_or(|consumed| consumed.positions.is_empty()) {
            return Ok(());
        }
        self.start_commit(consumed)?.await?;
        self.open = false;
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), LogError> {
        if self.open {
            self.shared.store.finish(&self.session, Outcome::Abort).await?;
            self.open = false;
        }
        Ok(())
    }
}

impl<S: Store> Drop for StoreTransactor<S> {
    fn drop(&mut self) {
        if self.open {
            self.shared.store.abandon(&self.session);
        }
    }
}
