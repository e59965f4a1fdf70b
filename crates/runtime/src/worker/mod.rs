//! The consume loop.
//!
//! One task owns everything by value: reader, transactors, partitions, handler. It goes round in turns. In each turn it takes what
//! happened (shutdown first, then results of effects, then records: what ends work goes before what brings work, so that neither
//! a flood of records nor a slow effect can starve a drain), asks the handler what it leads to, writes that down in one transaction
//! per shard together with the contiguous frontier of finished work, and tells the handler that it stands.
//!
//! What goes wrong ends in one of four ways, named by [`Failure`]: the same again later; read the state again and go on from the
//! committed offset (R7); leave the group and join anew, because somebody newer owns the work (R4); end the process with the reason.

mod gone;
mod meters;
mod partitions;
mod reread;
mod sizes;
mod slots;
mod transaction;
mod turn;
mod writer;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{LogError, Membership, Polled, Reader, Start, Subscription, TopicName, TopicPartition};
use connector_ports::{Clock, Log};
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::handler::{Handler, Order};
use crate::lanes::{LaneKey, Work};
use crate::platform::Platform;
use crate::status::Status;
use connector_telemetry::metrics::Rebalance;
use gone::Watch;
use meters::Meters;
use partitions::Partitions;
use reread::Rereading;
use writer::Writer;

/// The fixed facts of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Its name in logs and metrics, e.g. `inbound-processor`.
    pub name: &'static str,
    /// Its consumer group.
    pub group: String,
    /// What it reads.
    pub topics: Vec<TopicName>,
    /// The name of this instance: static membership and transactional id. Another instance has another one.
    pub instance: String,
    /// Most records in one call of the handler.
    pub batch: usize,
    /// Most partitions whose records share one call of a handler without lanes; the others come next. A transaction takes its time per
    /// partition, and all it brings becomes readable at once: few partitions make short turns and small bursts for whoever reads on.
    pub together: usize,
    /// Records in memory per partition above which it is paused; it goes on below half of it. With lanes it is not paused: what is
    /// more is put aside and read again when its lane could run.
    pub buffer: usize,
    /// Most records that are aside or at work, over all partitions; about 140 bytes each. A partition with its share of them is
    /// paused.
    pub aside: usize,
    /// Over how many records at most a partition is read on behind one that cannot be finished, over all partitions. The next owner
    /// reads them again.
    pub span: usize,
    /// Longest time for which a transaction stays open that effects and their results go on joining.
    pub commit_every: Duration,
    /// How long a drain may take before what is unfinished is left to the next owner.
    pub drain: Duration,
}

impl WorkerSpec {
    /// A worker with the usual bounds.
    #[must_use]
    pub fn new(name: &'static str, group: String, topics: Vec<TopicName>, instance: String) -> Self {
        let drain = Duration::from_secs(15);
        let commit_every = Duration::from_millis(200);
        let (batch, buffer, aside, span) = (500, 4000, 250_000, 1_000_000);
        let together = usize::MAX;
        Self { name, group, topics, instance, batch, together, buffer, aside, span, commit_every, drain }
    }
}

/// Why a worker ended without being asked to.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Nothing to wait for.
    #[error("{worker} cannot go on: {reason}")]
    Fatal {
        /// The worker.
        worker: &'static str,
        /// Why.
        reason: String,
    },
}

/// The result of an effect, with where it belongs.
pub(crate) struct Finished<F> {
    partition: TopicPartition,
    incarnation: u64,
    lane: LaneKey,
    work: Work,
    fact: F,
}

/// A handler in its loop.
pub struct Worker<H: Handler> {
    spec: WorkerSpec,
    handler: H,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    status: Status,
    partitions: Partitions,
    writer: Writer,
    /// Partitions whose work the handler has not been told to be committed.
    touched: BTreeSet<TopicPartition>,
    membership: Option<Membership>,
    effects: JoinSet<Finished<H::Fact>>,
    results: Vec<Finished<H::Fact>>,
    rereading: Rereading,
    watch: Watch,
    /// Since when nothing is under way.
    quiet_since: Option<Timestamp>,
    /// Whose work was taken last; those behind it come first next time.
    served: Option<TopicPartition>,
    backoff: Backoff,
    metrics: Meters,
}

/// How long a worker whose transaction was refused waits to hear that it was thrown out of its group.
const NEWS: Duration = Duration::from_millis(300);
/// How long the result of an effect waits for others.
const TOGETHER: Duration = Duration::from_millis(5);
/// How long a poll waits when there is nothing else to do.
const IDLE: Duration = Duration::from_millis(100);

impl<H: Handler> Worker<H> {
    /// A worker that has not started.
    #[must_use]
    pub fn new(mut spec: WorkerSpec, handler: H, platform: &Platform, status: Status) -> Self {
        spec.group = platform.group(&spec.group);
        let partitions = match handler.order() {
            Order::Batch => Partitions::default(),
            Order::Lanes { .. } => Partitions::with_room_for(spec.buffer),
        };
        Self {
            partitions,
            rereading: Rereading::default(),
            watch: Watch::default(),
            writer: Writer::new(&spec.group, &spec.instance),
            touched: BTreeSet::new(),
            membership: None,
            effects: JoinSet::new(),
            results: Vec::new(),
            quiet_since: None,
            served: None,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
            metrics: Meters::new(platform.metrics.consumer.worker(spec.group.as_str())),
            spec,
            handler,
            log: platform.log.clone(),
            clock: platform.clock.clone(),
            status,
        }
    }

    /// Works until `shutdown` is cancelled, then drains and leaves the group. Dropping the future is like a crash: nothing
    /// committed is lost, nothing uncommitted stays.
    ///
    /// # Errors
    /// When there is nothing to wait for; waiting for an absent broker or gate is not an error.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let (status, clock) = (self.status.clone(), self.clock.clone());
        loop {
            let joined = status.waiting(clock.as_ref(), self.join(&shutdown)).await?;
            let Some(mut reader) = joined else { return Ok(()) };
            let end = self.rounds(reader.as_mut(), &shutdown).await;
            self.forget_everything();
            status.waiting(clock.as_ref(), reader.close()).await;
            match end {
                End::Drained => return Ok(()),
                End::Rejoin(reason) => {
                    tracing::warn!(worker = self.spec.name, reason, "leaving the group to join anew");
                    self.pause_after_failure(&shutdown).await;
                }
                End::Fatal(reason) => return Err(WorkerError::Fatal { worker: self.spec.name, reason }),
            }
        }
    }

    /// Joins the group, waiting for the broker as long as it takes.
    async fn join(&mut self, shutdown: &CancellationToken) -> Result<Option<Box<dyn Reader>>, WorkerError> {
        while !shutdown.is_cancelled() {
            let subscription = Subscription {
                group: self.spec.group.clone(),
                topics: self.spec.topics.clone(),
                member: Some(self.spec.instance.clone()),
                start: Start::Beginning,
            };
            let joined = match self.writer.prepare(self.log.as_ref()).await {
                Ok(()) => self.log.subscribe(subscription).await.map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            match joined {
                Ok(reader) => return Ok(Some(reader)),
                Err(Failure::Fatal(reason)) => return Err(WorkerError::Fatal { worker: self.spec.name, reason }),
                Err(failure) => {
                    tracing::warn!(worker = self.spec.name, %failure, "cannot join the group yet");
                    self.pause_after_failure(shutdown).await;
                }
            }
        }
        Ok(None)
    }

    async fn rounds(&mut self, reader: &mut dyn Reader, shutdown: &CancellationToken) -> End {
        let mut next_tick = self.handler.tick_every().map(|every| self.clock.now() + every);
        let mut drain_until = None;
        loop {
            let now = self.clock.now();
            self.status.alive(now);
            if shutdown.is_cancelled() && drain_until.is_none() {
                self.status.set_draining();
                self.partitions.revoke_all();
                drain_until = Some(now + self.spec.drain);
            }
            if let Some(until) = drain_until
                && (self.partitions.running() == 0 || now >= until)
            {
                if let Err(failure) = self.commit().await {
                    tracing::warn!(worker = self.spec.name, %failure, "the next owner does the last work again");
                }
                return End::Drained;
            }

            let outcome = self.round(reader, shutdown, drain_until.is_some(), &mut next_tick).await;
            let failure = match outcome {
                Ok(()) => {
                    self.backoff.reset();
                    continue;
                }
                // Nobody waits for this transaction while we wait for something else.
                Err(Failure::Later(reason)) => match self.commit().await {
                    Ok(()) => Failure::Later(reason),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            match failure {
                Failure::Fatal(reason) => return End::Fatal(reason),
                Failure::Fenced(reason) => {
                    tracing::warn!(worker = self.spec.name, reason, "refused as a former owner");
                    return self.after_refusal(reason, reader, shutdown).await;
                }
                Failure::Later(reason) => {
                    tracing::warn!(worker = self.spec.name, reason, "waiting");
                    self.pause_after_failure(shutdown).await;
                }
                Failure::Reinitialise(reason) => {
                    tracing::warn!(worker = self.spec.name, reason, "reading the state again");
                    return self.start_over(reason, reader).await;
                }
            }
        }
    }

    /// A transaction that meets a rebalance is refused like one of a member that was thrown out. Only the reader knows which it was, and
    /// a moment later: leaving the group in the middle of a rebalance would leave partitions without an owner.
    async fn after_refusal(&mut self, reason: String, reader: &mut dyn Reader, shutdown: &CancellationToken) -> End {
        let until = self.clock.now() + NEWS;
        while self.clock.now() < until && !shutdown.is_cancelled() {
            self.status.alive(self.clock.now());
            let polled = reader.poll(IDLE, self.spec.batch).await;
            match self.take_polled(polled, reader, shutdown).await {
                Ok(()) => {}
                Err(Failure::Fatal(reason)) => return End::Fatal(reason),
                Err(Failure::Fenced(reason)) => return End::Rejoin(reason),
                Err(failure) => {
                    tracing::debug!(worker = self.spec.name, %failure, "read again in a moment");
                    break;
                }
            }
        }
        self.start_over(reason, reader).await
    }

    /// Starts from what is committed, with a new reader: one that goes back in the middle of a partition may skip records when its
    /// broker was away a moment ago. What the group wants back has nothing in hand any more, and goes.
    async fn start_over(&mut self, reason: String, reader: &mut dyn Reader) -> End {
        let (status, clock) = (self.status.clone(), self.clock.clone());
        if let Err(end) = status.waiting(clock.as_ref(), self.let_effects_end()).await {
            return end;
        }
        let wanted_back = self.partitions.wanted_back();
        for partition in &wanted_back {
            self.drop_partition(partition);
        }
        if !wanted_back.is_empty()
            && let Err(error) = status.waiting(clock.as_ref(), reader.release(&wanted_back)).await
        {
            tracing::warn!(worker = self.spec.name, %error, "partitions could not be handed back");
        }
        End::Rejoin(reason)
    }

    /// Takes what happened, then makes one turn.
    async fn round(
        &mut self,
        reader: &mut dyn Reader,
        shutdown: &CancellationToken,
        draining: bool,
        next_tick: &mut Option<Timestamp>,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        self.partitions.wake(now);
        // One that cannot come now is not waited for: a member without partitions, or in a drain, would go round without a pause.
        let tick = next_tick.filter(|_| self.ticks(draining));
        let wait = if self.has_work() || !self.results.is_empty() {
            Duration::ZERO
        } else {
            let due = [self.partitions.next_wake(), tick, self.commit_due()].into_iter().flatten().min();
            due.map_or(IDLE, |due| due.since(now).min(IDLE))
        };
        // The membership is asked for before the poll: when partitions were taken away before that, the poll says so in this very
        // round, and when they are taken away later, this membership is stale and fences the commit.
        let membership = reader.membership().await;
        let happened = self.happens(reader, wait, shutdown, draining).await?;
        let mut polled = match happened {
            Happened::Shutdown => return Ok(()),
            Happened::Polled(polled) => polled,
            // A stream of results must not keep records, or the loss of a partition, from being heard.
            Happened::Inside => reader.poll(Duration::ZERO, self.spec.batch).await,
        };
        self.membership = membership.ok();
        // A turn costs a transaction, however little it does: it takes all that is here, up to a batch. Ends of partitions come between
        // the records of a quiet topic and must not cut it into single ones.
        let mut room = self.spec.batch;
        loop {
            let goes_on = match &polled {
                Ok(Polled::Records(records)) => {
                    room = room.saturating_sub(records.len());
                    room > 0
                }
                Ok(Polled::CaughtUp(..)) => true,
                _ => false,
            };
            self.take_polled(polled, reader, shutdown).await?;
            if !goes_on {
                break;
            }
            polled = reader.poll(Duration::ZERO, room).await;
        }
        while let Some(joined) = self.effects.try_join_next() {
            self.take_result(joined)?;
        }
        self.turn().await?;
        self.report_caught_up().await?;
        self.hand_back(reader).await?;
        self.balance(reader).await?;
        self.read_again();
        self.look_for_what_is_gone(now).await?;
        self.metrics.backlog(&self.partitions, now);
        if let (Some(at), Some(every)) = (*next_tick, self.handler.tick_every())
            && self.clock.now() >= at
            && self.ticks(draining)
        {
            self.tick().await?;
            *next_tick = Some(self.clock.now() + every);
        }
        Ok(())
    }

    /// Waits for something to happen. The result of an effect waits a moment for others: a round has its price.
    async fn happens(
        &mut self,
        reader: &mut dyn Reader,
        wait: Duration,
        shutdown: &CancellationToken,
        draining: bool,
    ) -> Result<Happened, Failure> {
        let clock = self.clock.clone();
        let mut gathered: BoxFuture<'_, ()> = Box::pin(pending());
        let mut polling = reader.poll(wait, self.spec.batch);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !draining => return Ok(Happened::Shutdown),
                () = &mut gathered => return Ok(Happened::Inside),
                Some(joined) = self.effects.join_next() => {
                    self.take_result(joined)?;
                    if self.effects.is_empty() || self.results.len() >= self.spec.batch {
                        return Ok(Happened::Inside);
                    }
                    if self.results.len() == 1 {
                        gathered = clock.sleep(TOGETHER);
                    }
                }
                answer = self.rereading.answer() => {
                    self.take_answer(answer)?;
                    return Ok(Happened::Inside);
                }
                polled = &mut polling => return Ok(Happened::Polled(polled)),
            }
        }
    }

    /// Whether the handler is told of time: what it writes then needs a position to be held by.
    fn ticks(&self, draining: bool) -> bool {
        !draining && self.partitions.known()
    }

    async fn take_polled(
        &mut self,
        polled: Result<Polled, LogError>,
        reader: &mut dyn Reader,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        match polled? {
            Polled::Records(records) => {
                self.metrics.polled(&records);
                for record in records {
                    let lane = self.lane(&record);
                    self.partitions.push(record, lane);
                }
            }
            Polled::Assigned(partitions) => {
                // They are ours whatever becomes of the transaction that ends now, and are told only once.
                for partition in &partitions {
                    self.partitions.insert(partition.clone(), None);
                }
                self.take_over(partitions, reader, shutdown).await?;
            }
            Polled::Revoked(partitions) => {
                self.metrics.rebalanced(Rebalance::Revoked, self.partitions.names().len());
                tracing::info!(worker = self.spec.name, count = partitions.len(), "partitions are wanted back");
                self.partitions.revoke(&partitions, self.clock.now() + self.spec.drain);
            }
            Polled::Lost(partitions) => {
                self.metrics.rebalanced(Rebalance::Lost, self.partitions.names().len());
                tracing::warn!(worker = self.spec.name, count = partitions.len(), "partitions are lost");
                for partition in &partitions {
                    self.drop_partition(partition);
                }
            }
            Polled::CaughtUp(partition, position) => self.partitions.caught_up(&partition, position),
            Polled::Idle => {}
        }
        Ok(())
    }

    async fn pause_after_failure(&mut self, shutdown: &CancellationToken) {
        let wait = self.backoff.grow();
        self.status.alive(self.clock.now());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.clock.sleep(wait) => {}
        }
    }
}

/// What a round begins with.
enum Happened {
    Shutdown,
    /// Something came from the log, or did not come in time.
    Polled(Result<Polled, LogError>),
    /// Results of effects, or records that were read again.
    Inside,
}

/// Why the rounds ended.
pub(crate) enum End {
    Drained,
    Rejoin(String),
    Fatal(String),
}
