//! Who writes: one transactor for the worker, or one for each partition.

use std::collections::BTreeMap;

use connector_ports::Log;
use connector_ports::log::{Append, Appended, Consumed, TopicPartition, Transactor};

use super::Fencing;
use crate::failure::Failure;

/// `None` is the shard of the whole worker.
pub(crate) type ShardKey = Option<TopicPartition>;

/// The transactors of a worker.
pub(crate) struct Shards {
    fencing: Fencing,
    group: String,
    instance: String,
    transactors: BTreeMap<ShardKey, Box<dyn Transactor>>,
}

impl Shards {
    pub(crate) fn new(fencing: Fencing, group: &str, instance: &str) -> Self {
        Self { fencing, group: group.to_owned(), instance: instance.to_owned(), transactors: BTreeMap::new() }
    }

    /// The shard that writes for a partition.
    pub(crate) fn of(&self, partition: &TopicPartition) -> ShardKey {
        match self.fencing {
            Fencing::Worker => None,
            Fencing::Partition => Some(partition.clone()),
        }
    }

    /// The shard that writes what no partition asked for.
    pub(crate) fn any(&self) -> Option<ShardKey> {
        self.transactors.keys().next().cloned()
    }

    /// Opens the worker's own transactor, when it has one.
    pub(crate) async fn prepare(&mut self, log: &dyn Log) -> Result<(), Failure> {
        self.transactors.clear();
        if self.fencing == Fencing::Worker {
            let transactor = log.transactor(&format!("{}.{}", self.group, self.instance)).await?;
            self.transactors.insert(None, transactor);
        }
        Ok(())
    }

    /// Fences every earlier owner of the partition, when partitions have owners of their own.
    pub(crate) async fn take_over(&mut self, partition: &TopicPartition, log: &dyn Log) -> Result<(), Failure> {
        if self.fencing == Fencing::Partition {
            self.transactors.remove(&Some(partition.clone()));
            let id = format!("{}.{}.{}", self.group, partition.topic, partition.partition);
            let transactor = log.transactor(&id).await?;
            self.transactors.insert(Some(partition.clone()), transactor);
        }
        Ok(())
    }

    pub(crate) fn drop_partition(&mut self, partition: &TopicPartition) {
        self.transactors.remove(&Some(partition.clone()));
    }

    pub(crate) fn clear(&mut self) {
        self.transactors.clear();
    }

    pub(crate) async fn append(&mut self, shard: &ShardKey, records: Vec<Append>) -> Result<Vec<Appended>, Failure> {
        self.transactor(shard)?.append(records).await.map_err(unwritten)
    }

    pub(crate) async fn commit(&mut self, shard: &ShardKey, consumed: Option<Consumed>) -> Result<(), Failure> {
        self.transactor(shard)?.commit(consumed).await.map_err(unwritten)
    }

    fn transactor(&mut self, shard: &ShardKey) -> Result<&mut Box<dyn Transactor>, Failure> {
        let missing = || Failure::Reinitialise("the transactor is gone".to_owned());
        self.transactors.get_mut(shard).ok_or_else(missing)
    }
}

/// An absent broker in the middle of a transaction leaves it in doubt: a new transactor settles it.
fn unwritten(error: connector_ports::log::LogError) -> Failure {
    match Failure::from(error) {
        Failure::Later(reason) => Failure::Reinitialise(reason),
        other => other,
    }
}
