//! The task that keeps the read model in step with the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connector_contracts::Topic;
use connector_ports::log::{Identity, Isolation, LogId, Offset, Polled, Record, Start, TopicPartition};
use connector_runtime::backoff::Backoff;
use connector_runtime::entry;
use connector_runtime::failure::Failure;
use connector_runtime::platform::Platform;
use connector_runtime::renewed::Renewed;
use connector_runtime::standing::lacks_nothing;
use connector_runtime::status::Status;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::{Change, ModelError, ReadModel};
use crate::pending::{self, Pending};

/// Most records in one transaction of the model.
const BATCH: usize = 1000;

impl From<ModelError> for Failure {
    /// A full disk goes away, and what is wrong for good says so again and again.
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Database(error) => Self::Later(format!("the read model's database refused: {error}")),
            error => Self::Fatal(error.to_string()),
        }
    }
}

/// Follows the log into a model.
pub struct Follower {
    platform: Platform,
    model: Arc<dyn ReadModel>,
    /// Counts up whenever the model has changed, for those who wait for that.
    changed: watch::Sender<u64>,
    skipped: Arc<AtomicU64>,
    pending: Pending,
}

impl Follower {
    /// A follower that has not started, and a receiver that is told of every change.
    #[must_use]
    pub fn new(platform: Platform, model: Arc<dyn ReadModel>) -> (Self, watch::Receiver<u64>) {
        let (changed, changes) = watch::channel(0);
        (Self { platform, model, changed, skipped: Arc::default(), pending: Pending::default() }, changes)
    }

    /// Commands that wait for an answer: what is followed answers them.
    pub(crate) fn pending(&self) -> Pending {
        self.pending.clone()
    }

    /// How many records could not be decoded.
    #[must_use]
    pub fn skipped(&self) -> Arc<AtomicU64> {
        self.skipped.clone()
    }

    /// Follows until `shutdown` is cancelled. Waits with bounded backoff while the log is away.
    pub async fn run(self, status: Status, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let clock = self.platform.clock.clone();
        while !shutdown.is_cancelled() {
            let failure = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                result = self.follow(&status, &mut backoff) => result,
            };
            if let Err(failure) = failure {
                tracing::warn!(%failure, "the read model waits");
            }
            let wait = backoff.grow();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = status.waiting(clock.as_ref(), clock.sleep(wait)) => {}
            }
        }
        status.set_draining();
    }

    async fn follow(&self, status: &Status, backoff: &mut Backoff) -> Result<(), Failure> {
        let (topic, clock) = (self.platform.topic(Topic::ConversationEvents), self.platform.clock.as_ref());
        let facts = status.waiting(clock, self.platform.log.topic(&topic)).await?;
        let Some(facts) = facts else { return Err(Failure::Later(format!("topic {topic} does not exist yet"))) };
        let partitions: Vec<_> = (0..facts.partitions).map(|p| TopicPartition::new(topic.clone(), p)).collect();
        let (positions, mut names) = status.waiting(clock, self.start(&partitions)).await?;
        let renewed: Vec<_> = partitions.iter().map(|source| (source.clone(), Renewed::default())).collect();
        let starts = partitions.into_iter().map(|source| {
            let next = positions.next(source.partition);
            (source, if next.0 == 0 { Start::Beginning } else { Start::At(next) })
        });
        let assigned = self.platform.log.assign(starts.collect(), Isolation::Committed);
        let mut reader = status.waiting(clock, assigned).await?;
        let mut behind: BTreeSet<u32> = (0..facts.partitions).collect();
        loop {
            if self.model.is_damaged() {
                return Err(Failure::Later("the read model is damaged and is built anew".to_owned()));
            }
            for (source, renewed) in &renewed {
                let known = names.get(&source.partition);
                let another = match renewed.answer(&self.platform.log, source) {
                    Some(Identity::Known(log)) => known.is_some_and(|known| *known != log),
                    Some(Identity::Unwritten) => known.is_some(),
                    Some(Identity::BeginningLost { .. }) | None => false,
                };
                if another {
                    return Err(Failure::Later(format!("{source} was made anew under the read model")));
                }
            }
            match status.waiting(clock, reader.poll(Duration::from_secs(1), BATCH)).await? {
                Polled::Records(records) => {
                    backoff.reset();
                    let partitions: BTreeSet<u32> = records.iter().map(|record| record.source.partition).collect();
                    for partition in partitions.into_iter().filter(|one| !names.contains_key(one)).collect::<Vec<_>>() {
                        let source = TopicPartition::new(topic.clone(), partition);
                        if let Identity::Known(log) = status.waiting(clock, self.platform.log.identity(&source)).await?
                        {
                            self.model.keep_log(partition, &log).await?;
                            names.insert(partition, log);
                        }
                    }
                    let changes: Vec<_> = records.iter().map(|record| self.change(record, facts.partitions)).collect();
                    let answered = pending::answers(changes.iter().filter_map(|change| change.recorded.as_ref()));
                    self.model.apply(changes).await?;
                    self.pending.answered(&answered);
                    self.changed.send_modify(|count| *count += 1);
                }
                Polled::CaughtUp(source, _) => {
                    behind.remove(&source.partition);
                    if behind.is_empty() {
                        status.set_ready();
                    }
                }
                _ => {}
            }
        }
    }

    /// Where to go on, and the names that the partitions have by now. A model of another log, or a damaged one, is built anew.
    async fn start(&self, partitions: &[TopicPartition]) -> Result<(Cursor, BTreeMap<u32, LogId>), Failure> {
        if self.model.is_damaged() {
            tracing::warn!("the read model is damaged and is built anew");
            self.model.reset().await?;
        }
        let log = self.platform.log.as_ref();
        let (mut positions, kept) = (self.model.positions().await?, self.model.logs().await?);
        let (mut names, mut another) = (BTreeMap::new(), None);
        for source in partitions {
            let (partition, next) = (source.partition, positions.next(source.partition));
            let begun = next > Offset(0);
            match log.identity(source).await? {
                Identity::Known(log) => {
                    another = another.or((begun && kept.get(&partition) != Some(&log)).then_some(source));
                    names.insert(partition, log);
                }
                Identity::Unwritten => another = another.or(begun.then_some(source)),
                // What the model has is more than what is left of the log.
                Identity::BeginningLost { .. } => {}
            }
            if next > log.end_offset(source, Isolation::Committed).await? {
                another = another.or(Some(source));
            }
        }
        if let Some(source) = another {
            tracing::warn!(%source, "the read model is of another log and is built anew");
            self.model.reset().await?;
            positions = Cursor::default();
        }
        for source in partitions {
            lacks_nothing(log, source, "the read model", Some(positions.next(source.partition))).await?;
        }
        // Before anything of them is applied.
        for (partition, log) in &names {
            self.model.keep_log(*partition, log).await?;
        }
        Ok((positions, names))
    }

    fn change(&self, record: &Record, partitions: u32) -> Change {
        let recorded = entry::event(record, partitions).inspect_err(|reason| {
            let (word, detail) = (reason.word, &reason.detail);
            tracing::warn!(source = %record.source, offset = record.offset.0, reason = word, detail, "skipped");
            self.skipped.fetch_add(1, Ordering::Relaxed);
        });
        let recorded = recorded.ok();
        Change { partition: record.source.partition, offset: record.offset, recorded }
    }
}
