//! Views of the gate, from both sides: their owner applies the log to them, everybody else asks them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use connector_domain::event::Recorded;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Change, Epoch, Snapshot, Timer, View};
use connector_ports::log::{Appended, Identity, Isolation, LogError, LogId, Offset, Start, TopicName, TopicPartition};
use connector_ports::{Gate, Log};
use futures::future::try_join_all;
use tokio_util::task::AbortOnDropHandle;

use crate::entry;
use crate::failure::Failure;
use crate::renewed::Renewed;
use crate::replay::replay;
use crate::standing::lacks_nothing;

/// A view as its owner holds it.
pub struct OwnedView {
    gate: Arc<dyn Gate>,
    view: View,
    epoch: Epoch,
    applied: Option<Offset>,
    projects: Projects,
    renewed: Renewed,
}

/// The log that a view projects.
#[derive(Clone)]
struct Projects {
    log: Arc<dyn Log>,
    source: TopicPartition,
    /// What stands in the view about it.
    told: Option<LogId>,
}

impl Projects {
    /// What a change of the view has to say about it: nothing once it was said, or as long as there is no log to speak of.
    async fn tell(&self, next: Offset) -> Result<Option<LogId>, LogError> {
        if self.told.is_some() || next <= Offset(0) {
            return Ok(None);
        }
        match self.log.identity(&self.source).await? {
            Identity::Known(log) => Ok(Some(log)),
            Identity::Unwritten | Identity::BeginningLost { .. } => Ok(None),
        }
    }

    /// Whether a position belongs to the log as it is.
    async fn is_log_of(&self, applied: Option<Offset>) -> Result<bool, LogError> {
        if applied.unwrap_or_default() <= Offset(0) {
            return Ok(true);
        }
        match self.log.identity(&self.source).await? {
            Identity::Known(log) => Ok(self.told.as_ref() == Some(&log)),
            Identity::Unwritten => Ok(false),
            // What the view has is more than what is left of the log.
            Identity::BeginningLost { .. } => Ok(true),
        }
    }
}

impl OwnedView {
    /// Takes over the view called `name` of this partition of the log: earlier owners are fenced. A view of another log counts as empty.
    ///
    /// # Errors
    /// When gate or log are away.
    pub async fn acquire(
        gate: Arc<dyn Gate>,
        log: Arc<dyn Log>,
        source: TopicPartition,
        name: &'static str,
    ) -> Result<Self, Failure> {
        let view = View::new(name, source.partition);
        let mut ownership = gate.acquire(&view).await?;
        let mut projects = Projects { log, source, told: ownership.log.take() };
        if !projects.is_log_of(ownership.applied).await? {
            tracing::warn!(%view, "this view is of another log; it is built again");
            gate.discard(&view).await?;
            ownership = gate.acquire(&view).await?;
            projects.told = ownership.log.take();
        }
        let Projects { log, source, .. } = &projects;
        lacks_nothing(log.as_ref(), source, &view.to_string(), ownership.applied).await?;
        Ok(Self {
            gate,
            view,
            epoch: ownership.epoch,
            applied: ownership.applied,
            projects,
            renewed: Renewed::default(),
        })
    }

    /// The position up to which the log has been applied; `None` when the view is empty.
    #[must_use]
    pub const fn applied(&self) -> Option<Offset> {
        self.applied
    }

    /// The owner's epoch, for timers.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Which view this is.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// The values of keys, exactly at [`OwnedView::applied`].
    ///
    /// # Errors
    /// `Reinitialise` when the view stands elsewhere: it was wiped or rolled back (R1).
    pub async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        let snapshot = self.gate.read(&self.view, keys).await?;
        self.same_position(snapshot)
    }

    /// The timers of keys, exactly at [`OwnedView::applied`].
    ///
    /// # Errors
    /// As [`OwnedView::read`].
    pub async fn timers(&self, keys: &[String]) -> Result<Vec<Option<Timer>>, Failure> {
        let snapshot = self.gate.timers(&self.view, keys).await?;
        self.same_position(snapshot)
    }

    /// The digests of remembered ids, exactly at [`OwnedView::applied`].
    ///
    /// # Errors
    /// As [`OwnedView::read`].
    pub async fn recall(&self, ids: &[Bytes]) -> Result<Vec<Option<u64>>, Failure> {
        let snapshot = self.gate.recall(&self.view, ids).await?;
        self.same_position(snapshot)
    }

    /// That the log is still the one that this view is of, as far as that was told.
    fn is_of_this_log(&self) -> Result<(), Failure> {
        let Projects { log, source, told } = &self.projects;
        let begun = self.applied.unwrap_or_default() > Offset(0);
        let same = match self.renewed.answer(log, source) {
            Some(Identity::Known(log)) => told.as_ref().is_none_or(|told| *told == log),
            Some(Identity::Unwritten) => !begun,
            Some(Identity::BeginningLost { .. }) | None => true,
        };
        if same {
            Ok(())
        } else {
            Err(Failure::Reinitialise(format!("{source} was made anew under view {}", self.view)))
        }
    }

    fn same_position<T>(&self, snapshot: Snapshot<T>) -> Result<Vec<Option<T>>, Failure> {
        self.is_of_this_log()?;
        if snapshot.applied == self.applied {
            Ok(snapshot.answers)
        } else {
            Err(Failure::Reinitialise(format!("view {} was changed behind its owner's back", self.view)))
        }
    }

    /// Applies changes and moves to `next`. Does nothing when there are none and the view stands there already.
    ///
    /// # Errors
    /// `Reinitialise` on a conflict, `Fenced` when a newer owner exists.
    pub async fn apply(&mut self, next: Offset, changes: Vec<Change>) -> Result<(), Failure> {
        if changes.is_empty() && self.applied >= Some(next) {
            return Ok(());
        }
        self.is_of_this_log()?;
        let told = self.projects.tell(next).await?;
        let changes = with(changes, told.as_ref());
        self.gate.apply(&self.view, self.epoch, self.applied, next, changes).await?;
        self.applied = Some(next);
        self.projects.told = told.or(self.projects.told.take());
        Ok(())
    }
}

/// Changes, and which log they are of where that has to be said.
fn with(mut changes: Vec<Change>, log: Option<&LogId>) -> Vec<Change> {
    changes.extend(log.map(|log| Change::Projects { log: log.clone() }));
    changes
}

impl OwnedView {
    /// Begins to apply changes; [`OwnedView::stepped`] waits for it. One at a time: the view does not move before that.
    pub(crate) fn step(&self, next: Offset, changes: Vec<Change>) -> Step {
        let (gate, view, epoch, expected) = (self.gate.clone(), self.view.clone(), self.epoch, self.applied);
        let projects = self.projects.clone();
        let apply = async move {
            let told = projects.tell(next).await?;
            gate.apply(&view, epoch, expected, next, with(changes, told.as_ref())).await?;
            Ok(told)
        };
        Step(AbortOnDropHandle::new(tokio::spawn(apply)))
    }

    /// Waits for a step to `next`.
    ///
    /// # Errors
    /// As [`OwnedView::apply`]; `Later` when the gate is away.
    pub(crate) async fn stepped(&mut self, next: Offset, step: Step) -> Result<(), Failure> {
        let told = step
            .0
            .await
            .map_err(|error| Failure::Reinitialise(format!("a step of {} broke off: {error}", self.view)))??;
        self.applied = Some(next);
        self.projects.told = told.or(self.projects.told.take());
        self.is_of_this_log()
    }
}

/// Changes on their way to a view.
pub(crate) struct Step(AbortOnDropHandle<Result<Option<LogId>, Failure>>);

/// Asks a view that somebody else owns. Each answer comes with the position at which it was true: what stands in the log behind that, and
/// whether it matters, tells [`Tail`](crate::tail::Tail). A view of another log than this one is answered as an empty one.
#[derive(Clone)]
pub struct Reading {
    gate: Arc<dyn Gate>,
    log: Arc<dyn Log>,
    name: &'static str,
    source: TopicName,
    /// The logs that the partitions are, as far as that was asked.
    logs: Arc<Mutex<HashMap<u32, Known>>>,
}

/// The log that a partition is.
struct Known {
    id: LogId,
    renewed: Renewed,
}

impl Reading {
    /// Reads the views called `name`, which project the topic `source`.
    #[must_use]
    pub fn new(gate: Arc<dyn Gate>, log: Arc<dyn Log>, name: &'static str, source: TopicName) -> Self {
        Self { gate, log, name, source, logs: Arc::default() }
    }

    /// The values as the view has them, whatever it stands at.
    ///
    /// # Errors
    /// When gate or log are away.
    pub async fn glance(&self, partition: u32, keys: &[String]) -> Result<Snapshot<Bytes>, Failure> {
        let snapshot = self.gate.read(&View::new(self.name, partition), keys).await?;
        self.of_this_log(partition, snapshot).await
    }

    /// The digests of remembered ids as the view has them, whatever it stands at.
    ///
    /// # Errors
    /// When gate or log are away.
    pub async fn recall(&self, partition: u32, ids: &[Bytes]) -> Result<Snapshot<u64>, Failure> {
        let snapshot = self.gate.recall(&View::new(self.name, partition), ids).await?;
        self.of_this_log(partition, snapshot).await
    }

    /// What was read, if it is of the log as it is and not of one that stood there before; nothing otherwise. Asked once, again beside the
    /// work once in a while, and as long as a view says something else.
    async fn of_this_log<T>(&self, partition: u32, snapshot: Snapshot<T>) -> Result<Snapshot<T>, Failure> {
        if snapshot.applied.unwrap_or_default() <= Offset(0) {
            return Ok(snapshot);
        }
        let source = TopicPartition { topic: self.source.clone(), partition };
        let known = self.known(&source);
        if known.is_some() && snapshot.log == known {
            return Ok(snapshot);
        }
        let same = match self.log.identity(&source).await? {
            Identity::Known(log) => {
                let same = snapshot.log.as_ref() == Some(&log);
                self.logs().insert(partition, Known { id: log, renewed: Renewed::default() });
                same
            }
            Identity::Unwritten => false,
            // There is nothing to hold it against. Whoever owns the view knows more than the log is left to tell.
            Identity::BeginningLost { .. } => true,
        };
        if same {
            return Ok(snapshot);
        }
        let answers = snapshot.answers.iter().map(|_| None).collect();
        Ok(Snapshot { applied: None, log: None, answers })
    }

    /// Which log this partition is, unless it may be another one by now.
    fn known(&self, source: &TopicPartition) -> Option<LogId> {
        let mut logs = self.logs();
        let known = logs.get_mut(&source.partition)?;
        match known.renewed.answer(&self.log, source) {
            Some(Identity::Known(id)) => known.id = id,
            Some(Identity::Unwritten) => {
                logs.remove(&source.partition);
                return None;
            }
            Some(Identity::BeginningLost { .. }) | None => {}
        }
        Some(known.id.clone())
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the log in this partition: a view that has applied it is caught up as of this call.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn end(&self, partition: u32) -> Result<Offset, Failure> {
        let source = TopicPartition { topic: self.source.clone(), partition };
        Ok(self.log.end_offset(&source, Isolation::Committed).await?)
    }
}

/// What a service remembers of what it wrote: ids of a partition of the log, in a view of its own.
///
/// Only the owner of an input partition writes these events into the log partition of the same number, so the memory is exact:
/// at take-over the log behind the view is read once, afterwards each commit is added.
pub struct Memory {
    gate: Arc<dyn Gate>,
    log: Arc<dyn Log>,
    name: &'static str,
    source: TopicName,
    mark: fn(&Recorded) -> Option<Mark>,
    views: HashMap<u32, OwnedView>,
}

/// One remembered id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The id, up to 32 bytes.
    pub id: Bytes,
    /// What it stood for.
    pub digest: u64,
    /// Kept at least until then.
    pub until: Timestamp,
}

impl From<Mark> for Change {
    fn from(mark: Mark) -> Self {
        Self::Mark { id: mark.id, digest: mark.digest, until: mark.until }
    }
}

/// Marks applied in one step.
const CHUNK: usize = 2000;

impl Memory {
    /// A memory called `name` over the topic `source`. `mark` says what an event of the log leaves in it.
    #[must_use]
    pub fn new(
        gate: Arc<dyn Gate>,
        log: Arc<dyn Log>,
        name: &'static str,
        source: TopicName,
        mark: fn(&Recorded) -> Option<Mark>,
    ) -> Self {
        Self { gate, log, name, source, mark, views: HashMap::new() }
    }

    /// Takes a partition over and reads what the log has and the view has not.
    ///
    /// # Errors
    /// When log or gate are away.
    pub async fn take_over(&mut self, partition: u32) -> Result<(), Failure> {
        let source = TopicPartition { topic: self.source.clone(), partition };
        let mut view = OwnedView::acquire(self.gate.clone(), self.log.clone(), source.clone(), self.name).await?;
        let from = view.applied().map_or(Start::Beginning, Start::At);
        let mut marks: Vec<(Offset, Change)> = Vec::new();
        let mark = self.mark;
        let missing = || Failure::Later(format!("topic {} does not exist yet", self.source));
        let partitions = self.log.topic(&self.source).await?.ok_or_else(missing)?.partitions;
        let end = replay(self.log.as_ref(), &source, from, Isolation::Committed, |record| {
            // What is no event was not written by this service.
            let recorded = entry::event(&record, partitions).ok();
            if let Some(mark) = recorded.as_ref().and_then(mark) {
                marks.push((record.offset.next(), mark.into()));
            }
            Ok(())
        })
        .await?;
        while !marks.is_empty() {
            let rest = marks.split_off(marks.len().min(CHUNK));
            let next = marks.last().map_or(end, |(offset, _)| *offset);
            view.apply(next, marks.into_iter().map(|(_, change)| change).collect()).await?;
            marks = rest;
        }
        view.apply(end, Vec::new()).await?;
        self.views.insert(partition, view);
        Ok(())
    }

    /// Forgets a partition that is not ours any more.
    pub fn forget(&mut self, partition: u32) {
        self.views.remove(&partition);
    }

    /// The digests of ids, `None` for new ones.
    ///
    /// # Errors
    /// `Reinitialise` when the partition is not held or the view was changed behind our back.
    pub async fn recall(&self, partition: u32, ids: &[Bytes]) -> Result<Vec<Option<u64>>, Failure> {
        self.view(partition)?.recall(ids).await
    }

    fn view(&self, partition: u32) -> Result<&OwnedView, Failure> {
        let missing = || Failure::Reinitialise(format!("memory {}/{partition} is not held", self.name));
        self.views.get(&partition).ok_or_else(missing)
    }

    /// Adds what a committed transaction wrote, to all partitions at the same time. `marks` per partition, `appended` as the log reported it.
    /// After a failure the whole may be repeated: what stands is applied again, to the same end.
    ///
    /// # Errors
    /// As [`OwnedView::apply`].
    pub async fn remember(&mut self, marks: &BTreeMap<u32, Vec<Mark>>, appended: &[Appended]) -> Result<(), Failure> {
        if let Some(partition) = marks.keys().find(|partition| !self.views.contains_key(partition)) {
            return Err(Failure::Reinitialise(format!("memory {}/{partition} is not held", self.name)));
        }
        let mut ends: BTreeMap<u32, Offset> = BTreeMap::new();
        for one in appended.iter().filter(|one| one.target.topic == self.source) {
            let end = ends.entry(one.target.partition).or_default();
            *end = one.offset.next().max(*end);
        }
        let views = self.views.iter_mut().filter_map(|(partition, view)| {
            let (next, marks) = (*ends.get(partition)?, marks.get(partition)?);
            Some(async move { view.apply(next, marks.iter().cloned().map(Change::from).collect()).await })
        });
        try_join_all(views).await.map(drop)
    }
}
