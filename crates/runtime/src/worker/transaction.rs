//! The worker's transaction: hold, append, effects, commit, told to the handler.
//!
//! A handler without effects has one transaction per turn. With effects a transaction spans turns, up to
//! [`WorkerSpec::commit_every`](super::WorkerSpec): the journal of an effect has to be durable and its worker the owner, both of which
//! an open transaction is enough for; a commit costs more than all the rest and is shared. What no effect waits for, as what the results of
//! others led to, is appended when the transaction ends, or sooner with a journal in the same topic. That keeps other topics out of the
//! way of the journal (a broker takes the partitions of one producer one after the other), and their readers, who see nothing behind an
//! open transaction, wait for the length of a commit and not for that of the transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Appended, Offset, TopicPartition};
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::writer::Positions;
use super::{Finished, Worker};
use crate::failure::Failure;
use crate::handler::{Handler, Order};
use crate::lanes::{LaneKey, Work};

/// For how long nothing must be under way before a transaction ends early: what comes in the meantime joins it.
pub(super) const QUIET: Duration = Duration::from_millis(10);

/// An effect that starts when its journal is durable.
pub(super) struct Effect<F> {
    pub(super) journal: Vec<Append>,
    pub(super) partition: TopicPartition,
    pub(super) incarnation: u64,
    pub(super) lane: LaneKey,
    pub(super) work: Work,
    pub(super) run: BoxFuture<'static, F>,
}

/// What a turn has to write.
pub(super) struct Outgoing<F> {
    pub(super) appends: Vec<Append>,
    pub(super) effects: Vec<Effect<F>>,
    /// Partitions whose handler is told.
    pub(super) touched: BTreeSet<TopicPartition>,
    /// A record led to what its topic does not take: nothing of its lane stands.
    pub(super) unfit: Option<String>,
}

impl<F> Default for Outgoing<F> {
    fn default() -> Self {
        Self { appends: Vec::new(), effects: Vec::new(), touched: BTreeSet::new(), unfit: None }
    }
}

fn spawn<F: Send + 'static>(running: &mut JoinSet<Finished<F>>, effect: Effect<F>) {
    let Effect { partition, incarnation, lane, work, run, .. } = effect;
    running.spawn(async move { Finished { partition, incarnation, lane, work, fact: run.await } });
}

pub(super) fn no_membership() -> Failure {
    Failure::Reinitialise("no membership yet".to_owned())
}

impl<H: Handler> Worker<H> {
    /// Writes what a turn led to, and starts its effects.
    pub(super) async fn write(&mut self, outgoing: Outgoing<H::Fact>) -> Result<(), Failure> {
        let (status, clock) = (self.status.clone(), self.clock.clone());
        status.waiting(clock.as_ref(), self.write_down(outgoing)).await
    }

    async fn write_down(&mut self, outgoing: Outgoing<H::Fact>) -> Result<(), Failure> {
        let Outgoing { appends, effects, touched, unfit: _ } = outgoing;
        self.touched.extend(touched);
        let positions = self.pending();
        let ours = self.writer.is_open() && effects.iter().all(|effect| self.writer.holds(&effect.partition));
        if !ours && (!appends.is_empty() || !effects.is_empty() || !positions.is_empty()) {
            self.hold(positions).await?;
        }
        self.writer.defer(appends);
        self.start(effects).await?;
        self.commit_if_due().await
    }

    /// Writes the journals of effects, and starts each effect as soon as its own is durable.
    async fn start(&mut self, effects: Vec<Effect<H::Fact>>) -> Result<(), Failure> {
        let (mut journal, mut whose, mut waiting) = (Vec::new(), Vec::new(), Vec::with_capacity(effects.len()));
        for mut effect in effects {
            let own = std::mem::take(&mut effect.journal);
            if own.is_empty() {
                spawn(&mut self.effects, effect);
            } else {
                whose.extend(std::iter::repeat_n(waiting.len(), own.len()));
                waiting.push((own.len(), Some(effect)));
                journal.extend(own);
            }
        }
        let running = &mut self.effects;
        let mut durable = |place: usize| {
            let Some((missing, effect)) = whose.get(place).and_then(|whose| waiting.get_mut(*whose)) else { return };
            *missing -= 1;
            if *missing == 0
                && let Some(effect) = effect.take()
            {
                spawn(running, effect);
            }
        };
        self.writer.journal(journal, &mut durable).await
    }

    /// Begins a transaction as the owner of the partitions, or makes an open one cover those that are new.
    async fn hold(&mut self, pending: Positions) -> Result<(), Failure> {
        let known = |(name, partition): (&TopicPartition, &super::partitions::Partition)| {
            Some((name.clone(), partition.ledger.position()?))
        };
        // Whoever has effects will have them everywhere; a batch is over at once.
        let positions = match self.handler.order() {
            Order::Batch if !pending.is_empty() => pending,
            _ => self.partitions.iter().filter_map(known).collect(),
        };
        let membership = self.membership.as_ref().ok_or_else(no_membership)?;
        self.writer.hold(positions, &self.partitions, membership, self.clock.now()).await
    }

    /// Ends the transaction when it is time, or when for a while nothing has been under way that could join it.
    pub(super) async fn commit_if_due(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        if matches!(self.handler.order(), Order::Lanes { .. }) {
            let busy = !self.effects.is_empty() || !self.results.is_empty() || self.partitions.has_ready();
            self.quiet_since = if busy { None } else { self.quiet_since.or(Some(now)) };
        }
        if self.commit_due().is_none_or(|due| due <= now) { self.commit().await } else { Ok(()) }
    }

    /// When the open transaction should end; `None`: none is open, or it is not to last.
    pub(super) fn commit_due(&self) -> Option<Timestamp> {
        let latest = match self.handler.order() {
            Order::Batch => return None,
            Order::Lanes { .. } => self.writer.open_for(self.spec.commit_every)?,
        };
        Some(self.quiet_since.map_or(latest, |since| latest.min(since + QUIET)))
    }

    /// Commits with the frontiers that moved, and tells the handler.
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let (status, clock) = (self.status.clone(), self.clock.clone());
        status.waiting(clock.as_ref(), self.commit_and_tell()).await
    }

    async fn commit_and_tell(&mut self) -> Result<(), Failure> {
        let mut appended = Vec::new();
        if self.writer.is_open() {
            let positions = self.to_commit()?;
            let started = self.clock.now();
            let committed = self.writer.commit(positions.clone(), &self.partitions, self.membership.as_ref()).await;
            let (result, written) = match committed {
                Ok(written) => (Ok(()), written),
                Err(failure) => (Err(failure), Vec::new()),
            };
            self.metrics.transaction(&result, self.clock.now().since(started));
            result?;
            for (partition, position) in &positions {
                tracing::debug!(worker = self.spec.name, %partition, position = position.0, "committed");
            }
            appended = written;
            for (name, position) in positions {
                self.writer.sizes.committed(&name, position);
                if let Some(partition) = self.partitions.get_mut(&name) {
                    partition.ledger.committed(position);
                }
            }
        }
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() && appended.is_empty() {
            return Ok(());
        }
        let frontier = |name: &TopicPartition| self.partitions.get(name)?.ledger.frontier();
        let positions: Vec<(TopicPartition, Offset)> =
            touched.into_iter().filter_map(|name| frontier(&name).map(|position| (name, position))).collect();
        self.tell(&appended, &positions).await
    }

    /// The transaction stands, so the handler is told until it has taken it.
    async fn tell(&mut self, appended: &[Appended], positions: &[(TopicPartition, Offset)]) -> Result<(), Failure> {
        loop {
            match self.handler.committed(appended, positions).await {
                Err(Failure::Later(reason)) => {
                    tracing::warn!(worker = self.spec.name, reason, "waiting after a commit");
                    let wait = self.backoff.grow();
                    self.clock.sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    /// What a batch will have finished, told before it is handled: the broker's answer is waited for together with the handler's.
    pub(super) fn foreseen(&self, work: &[Work]) -> Positions {
        if self.writer.is_open() || !matches!(self.handler.order(), Order::Batch) {
            return Positions::new();
        }
        let mut last: BTreeMap<&TopicPartition, Offset> = BTreeMap::new();
        for Work { record, .. } in work {
            let last = last.entry(&record.source).or_insert(record.offset);
            *last = record.offset.max(*last);
        }
        let moved = |(name, last): (&TopicPartition, Offset)| {
            Some((name.clone(), self.partitions.get(name)?.ledger.pending_after(last)?))
        };
        last.into_iter().filter_map(moved).collect()
    }

    /// The frontiers that moved, and those of what is held: that may have been foreseen and not have come.
    fn to_commit(&self) -> Result<Positions, Failure> {
        let mut positions = self.pending();
        for name in self.writer.held() {
            match self.partitions.get(name).map(|partition| partition.ledger.position()) {
                Some(Some(position)) => drop(positions.insert(name.clone(), position)),
                _ if matches!(self.handler.order(), Order::Batch) => {
                    return Err(Failure::Reinitialise("a partition went with its transaction".to_owned()));
                }
                _ => {}
            }
        }
        Ok(positions)
    }

    /// The frontiers that moved.
    fn pending(&self) -> Positions {
        let moved = |(name, partition): (&TopicPartition, &super::partitions::Partition)| {
            Some((name.clone(), partition.ledger.pending()?))
        };
        self.partitions.iter().filter_map(moved).collect()
    }

    /// What time brings. It needs a position to be held by: without one nothing of the partitions is known yet.
    pub(super) async fn tick(&mut self) -> Result<(), Failure> {
        let appends = self.handler.tick().await?;
        if appends.is_empty() {
            return Ok(());
        }
        self.hold(Positions::new()).await?;
        self.writer.defer(appends);
        self.commit().await
    }
}
