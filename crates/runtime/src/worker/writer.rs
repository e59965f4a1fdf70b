//! The worker's transactor and what its open transaction holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Log;
use connector_ports::log::{
    Append, Appended, Consumed, LogError, Membership, Offset, Position, TopicName, TopicPartition, Transactor,
};

use super::partitions::Partitions;
use super::sizes::Sizes;
use crate::failure::Failure;

/// Positions, by partition.
pub(crate) type Positions = BTreeMap<TopicPartition, Offset>;

/// One transactional id for the worker. Every transaction begins by holding positions of the worker's partitions, so that what is
/// appended in it is appended by their owner (see [`Transactor::hold`]).
pub(crate) struct Writer {
    id: String,
    group: String,
    transactor: Option<Box<dyn Transactor>>,
    open: Option<Open>,
    /// What is appended when the transaction ends, or sooner, with a journal in the same topic.
    deferred: Vec<Append>,
    pub(super) sizes: Sizes,
}

struct Open {
    since: Timestamp,
    held: Positions,
    appended: Vec<Appended>,
}

impl Writer {
    pub(crate) fn new(group: &str, instance: &str) -> Self {
        Self {
            id: format!("{group}.{instance}"),
            group: group.to_owned(),
            transactor: None,
            open: None,
            deferred: Vec::new(),
            sizes: Sizes::default(),
        }
    }

    /// Takes over the transactional id: what a former self left open is aborted.
    pub(crate) async fn prepare(&mut self, log: &dyn Log) -> Result<(), Failure> {
        self.clear();
        self.transactor = Some(log.transactor(&self.id).await?);
        Ok(())
    }

    /// Drops the transactor and with it what is not committed.
    pub(crate) fn clear(&mut self) {
        self.open = None;
        self.deferred.clear();
        self.transactor = None;
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the open transaction has lasted this long.
    pub(crate) fn open_for(&self, long: Duration) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.since + long)
    }

    pub(crate) fn holds(&self, partition: &TopicPartition) -> bool {
        self.open.as_ref().is_some_and(|open| open.held.contains_key(partition))
    }

    /// The partitions that the open transaction holds.
    pub(crate) fn held(&self) -> impl Iterator<Item = &TopicPartition> {
        self.open.iter().flat_map(|open| open.held.keys())
    }

    /// Holds these positions, in a new transaction when none is open.
    pub(crate) async fn hold(
        &mut self,
        positions: Positions,
        of: &Partitions,
        membership: &Membership,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let consumed = self.consumed(&positions, of, membership);
        let held = self.transactor()?.hold(consumed).await;
        held.map_err(|error| self.unwritten(error))?;
        let fresh = Open { since: now, held: Positions::new(), appended: Vec::new() };
        self.open.get_or_insert(fresh).held.extend(positions);
        Ok(())
    }

    /// Appends in the open transaction, at the latest with its commit.
    pub(crate) fn defer(&mut self, records: Vec<Append>) {
        self.deferred.extend(records);
    }

    /// Appends what effects wait for, and returns when it is durable; `durable` is told of each record before, by its place. What was
    /// deferred for the same topics goes along.
    pub(crate) async fn journal(
        &mut self,
        records: Vec<Append>,
        durable: &mut (dyn FnMut(usize) + Send),
    ) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let topics: BTreeSet<&TopicName> = records.iter().map(|record| &record.topic).collect();
        let along = self.deferred.extract_if(.., |record| topics.contains(&record.topic));
        let mut all: Vec<Append> = along.collect();
        let before = all.len();
        all.extend(records);
        let mut of_journal = |place: usize| place.checked_sub(before).into_iter().for_each(&mut *durable);
        let appended = self.transactor()?.append_each(all, &mut of_journal).await;
        let appended = appended.map_err(|error| self.unwritten(error))?;
        self.appended(appended);
        Ok(())
    }

    async fn append(&mut self, records: Vec<Append>) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let appended = self.transactor()?.append(records).await;
        let appended = appended.map_err(|error| self.unwritten(error))?;
        self.appended(appended);
        Ok(())
    }

    fn appended(&mut self, appended: Vec<Appended>) {
        if let Some(open) = &mut self.open {
            open.appended.extend(appended);
        }
    }

    /// Commits with these positions, as far as they are not held as they are. What was appended.
    pub(crate) async fn commit(
        &mut self,
        mut positions: Positions,
        of: &Partitions,
        membership: Option<&Membership>,
    ) -> Result<Vec<Appended>, Failure> {
        let deferred = std::mem::take(&mut self.deferred);
        self.append(deferred).await?;
        let Some(open) = &self.open else { return Ok(Vec::new()) };
        positions.retain(|partition, position| open.held.get(partition) != Some(position));
        let consumed = match (membership, positions.is_empty()) {
            (_, true) => None,
            (Some(membership), false) => Some(self.consumed(&positions, of, membership)),
            (None, false) => return Err(Failure::Reinitialise("no membership".to_owned())),
        };
        let committed = self.transactor()?.commit(consumed).await;
        committed.map_err(|error| self.unwritten(error))?;
        Ok(self.open.take().map(|open| open.appended).unwrap_or_default())
    }

    fn consumed(&self, positions: &Positions, of: &Partitions, membership: &Membership) -> Consumed {
        let position = |(partition, next): (&TopicPartition, &Offset)| {
            let landmark = of.get(partition).and_then(|known| known.landmark);
            (partition.clone(), Position { next: *next, landmark })
        };
        let positions = positions.iter().map(position).collect();
        Consumed { group: self.group.clone(), membership: membership.clone(), positions }
    }

    fn transactor(&mut self) -> Result<&mut Box<dyn Transactor>, Failure> {
        self.transactor.as_mut().ok_or_else(|| Failure::Reinitialise("the transactor is gone".to_owned()))
    }

    /// An absent broker in the middle of a transaction leaves it in doubt: a new transactor settles it. A topic that does not take a record is
    /// not offered such a one again.
    fn unwritten(&mut self, error: LogError) -> Failure {
        if self.sizes.learn(&error) {
            return Failure::Reinitialise(error.to_string());
        }
        match Failure::from(error) {
            Failure::Later(reason) => Failure::Reinitialise(reason),
            other => other,
        }
    }
}
