//! Holds views against the log they project: a second fold, beside the owner's, of a sample of conversations.
//!
//! **The same position.** A view never stands still for whoever looks at it. So it is read first, a piece at a time, with the position it
//! has at that moment; the second fold is led on to exactly this position and compared then. A healthy system shows no difference, however
//! busy it is.
//!
//! **Bounded.** One look reads a bounded number of records and goes on where the one before has left off; a fold that has arrived only reads
//! what is new. What is kept in memory is bounded by a slice: as soon as there is too much of it half of the streams are let go, by their
//! hash. A pass over another slice follows then, until all had their turn.

mod rounds;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::Topic;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Timer, View};
use connector_ports::log::{Isolation, Offset, Record, Start, TopicName, TopicPartition};
use connector_ports::{Gate, Log};

use crate::entry;
use crate::failure::Failure;
use crate::platform::Platform;
use tail::Tail;

pub use rounds::start;

/// Keys asked for at once: a millisecond of the gate.
const ASKED: usize = 500;

/// Halvings of a sample at most. What is left may be a single user with a very long contact list.
const HALVINGS: u32 = 24;

/// The partitions that a worker has at the moment. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Owned(Arc<Mutex<BTreeSet<u32>>>);

impl Owned {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<u32>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, partition: u32) {
        self.with(|held| held.insert(partition));
    }

    pub(crate) fn remove(&self, partition: u32) {
        self.with(|held| held.remove(&partition));
    }

    /// The next one after `last`, in a circle, and how many there are.
    fn after(&self, last: Option<u32>) -> Option<(u32, usize)> {
        self.with(|held| {
            let next = held.iter().find(|partition| last.is_none_or(|last| **partition > last)).or(held.first())?;
            Some((*next, held.len()))
        })
    }
}

/// What is asked of a view about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The stream.
    pub stream: String,
    /// The key in the view.
    pub key: String,
}

/// Questions about values and about timers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// About values.
    pub values: Vec<Question>,
    /// About timers.
    pub timers: Vec<Question>,
}

/// The second fold of one partition.
#[async_trait]
pub trait Shadow: Send + 'static {
    /// Folds records of streams that are in the sample, in the order of the log. What its owner would put to the dead letters is
    /// passed over.
    ///
    /// # Errors
    /// `Fatal` for a mistake of ours.
    fn fold(&mut self, records: &[Record]) -> Result<(), Failure>;

    /// Entries in memory, of a few hundred bytes each.
    fn size(&self) -> usize;

    /// Lets go of the streams that `keep` refuses.
    fn retain(&mut self, keep: &dyn Fn(&str) -> bool);

    /// Reads what it needs to put its questions. Everything below `position` is folded.
    ///
    /// # Errors
    /// When the gate is away, `Later` when the view is not there any more or was built under other settings.
    async fn prepare(&mut self, gate: &dyn Gate, view: &View, position: Offset) -> Result<(), Failure> {
        let _ = (gate, view, position);
        Ok(())
    }

    /// Every key of the view about which it knows what has to be there.
    fn questions(&self) -> Questions;

    /// Whether a value is the one that it knows. Absent and empty may be the same.
    fn value_agrees(&self, question: &Question, value: Option<&Bytes>) -> bool;

    /// Whether a timer is the one that it knows.
    fn timer_agrees(&self, question: &Question, timer: Option<Timer>) -> bool;
}

/// What a look brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The second fold is not where the view is yet: the next look goes on.
    Behind,
    /// The view is being built, or went back: its owner is on it.
    Elsewhere,
    /// Compared.
    Compared {
        /// How many streams.
        checked: usize,
        /// The streams about which view and log disagree.
        drifted: Vec<String>,
    },
}

/// The streams of a sample: those whose hash ends in the lowest `bits` bits of `turn`.
#[derive(Clone, Copy, Debug)]
struct Slice {
    bits: u32,
    turn: u64,
}

impl Slice {
    fn holds(self, stream: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        stream.hash(&mut hasher);
        let mask = (1_u64 << self.bits) - 1;
        hasher.finish() & mask == self.turn & mask
    }
}

/// The pass over one partition.
struct Course<S> {
    shadow: S,
    slice: Slice,
    start: Start,
    /// Everything below is folded; `None` before the first look.
    position: Option<Offset>,
}

/// Makes a second fold. It is read from this moment of the log on; `None`: from its beginning.
pub type Make<S> = Box<dyn Fn(Option<Timestamp>) -> S + Send>;

/// Compares the views of one name.
pub struct Auditor<S> {
    gate: Arc<dyn Gate>,
    log: Arc<dyn Log>,
    name: &'static str,
    source: TopicName,
    make: Make<S>,
    courses: BTreeMap<u32, Course<S>>,
    /// Which part comes first, where a sample is divided.
    turn: u64,
}

/// How much one look may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where a new pass begins to read; `None`: at the beginning of the log.
    pub since: Option<Timestamp>,
    /// Records read until the view's position is reached.
    pub records: usize,
    /// Entries of the sample that are kept.
    pub sample: usize,
}

impl<S: Shadow> Auditor<S> {
    /// Of the views called `name`, by folds that `make` makes.
    #[must_use]
    pub fn new(platform: &Platform, name: &'static str, make: Make<S>) -> Self {
        let (gate, log) = (platform.gate.clone(), platform.log.clone());
        Self::over(gate, log, name, platform.topic(Topic::ConversationEvents), make)
    }

    /// Of the views called `name`, which project the topic `source`.
    #[must_use]
    pub fn over(gate: Arc<dyn Gate>, log: Arc<dyn Log>, name: &'static str, source: TopicName, make: Make<S>) -> Self {
        Self { gate, log, name, source, make, courses: BTreeMap::new(), turn: 0 }
    }

    /// Begins with another part, where a sample has to be divided.
    #[must_use]
    pub fn from_turn(mut self, turn: u64) -> Self {
        self.turn = turn;
        self
    }

    /// Looks at the view of a partition. After a failure the next look goes on.
    ///
    /// # Errors
    /// When gate or log are away.
    pub async fn look(&mut self, partition: u32, bounds: Bounds) -> Result<Look, Failure> {
        let view = View::new(self.name, partition);
        let source = TopicPartition { topic: self.source.clone(), partition };
        let Some(applied) = self.gate.read(&view, &[]).await?.applied else { return Ok(Look::Elsewhere) };
        let turn = self.courses.get(&partition).map_or(self.turn, |course| course.slice.turn);
        let course = self.courses.entry(partition).or_insert_with(|| Course::begin(&self.make, bounds, turn));
        if course.position > Some(applied) {
            if course.position > Some(self.log.end_offset(&source, Isolation::Uncommitted).await?) {
                // The log itself went back: it is not the one that was read.
                *course = Course::begin(&self.make, bounds, turn);
            }
            return Ok(Look::Elsewhere);
        }
        let missing = || Failure::Later(format!("topic {} does not exist yet", self.source));
        let partitions = self.log.topic(&self.source).await?.ok_or_else(missing)?.partitions;
        let mut tail = Tail::of(self.log.clone(), source, partitions);
        let look = course.compare(self.gate.as_ref(), &view, applied, bounds, &mut tail).await;
        tail.close().await;
        // What was left out has its turn now.
        if matches!(look, Ok(Look::Compared { .. })) && course.slice.bits > 0 {
            *course = Course::begin(&self.make, bounds, turn.wrapping_add(1));
        }
        look
    }

    /// Forgets the partitions that are somebody else's now.
    fn keep(&mut self, owned: &Owned) {
        owned.with(|owned| self.courses.retain(|partition, _| owned.contains(partition)));
    }
}

impl<S: Shadow> Course<S> {
    fn begin(make: &Make<S>, bounds: Bounds, turn: u64) -> Self {
        let start = bounds.since.map_or(Start::Beginning, Start::Since);
        Self { shadow: make(bounds.since), slice: Slice { bits: 0, turn }, start, position: None }
    }

    async fn compare(
        &mut self,
        gate: &dyn Gate,
        view: &View,
        applied: Offset,
        bounds: Bounds,
        tail: &mut Tail,
    ) -> Result<Look, Failure> {
        if !self.advance(tail, applied, bounds.records, bounds.sample).await? {
            return Ok(Look::Behind);
        }
        self.shadow.prepare(gate, view, applied).await?;
        let Questions { values, timers } = self.shadow.questions();
        let (mut checked, mut drifted) = (BTreeSet::new(), BTreeSet::new());
        for asked in values.chunks(ASKED) {
            let keys: Vec<_> = asked.iter().map(|question| question.key.clone()).collect();
            let found = gate.read(view, &keys).await?;
            if !self.follow(tail, found.applied).await? {
                return Ok(Look::Elsewhere);
            }
            for (question, value) in asked.iter().zip(&found.answers) {
                checked.insert(&question.stream);
                if !self.shadow.value_agrees(question, value.as_ref()) {
                    drifted.insert(question.stream.clone());
                }
            }
        }
        for asked in timers.chunks(ASKED) {
            let keys: Vec<_> = asked.iter().map(|question| question.key.clone()).collect();
            let found = gate.timers(view, &keys).await?;
            if !self.follow(tail, found.applied).await? {
                return Ok(Look::Elsewhere);
            }
            for (question, timer) in asked.iter().zip(found.answers) {
                checked.insert(&question.stream);
                if !self.shadow.timer_agrees(question, timer) {
                    drifted.insert(question.stream.clone());
                }
            }
        }
        Ok(Look::Compared { checked: checked.len(), drifted: drifted.into_iter().collect() })
    }

    /// Goes on to where a view was when it was read. `false`: it went back.
    async fn follow(&mut self, tail: &mut Tail, applied: Option<Offset>) -> Result<bool, Failure> {
        match applied {
            // The sample is halved between two looks, not now: questions are open.
            Some(applied) if Some(applied) >= self.position => {
                self.advance(tail, applied, usize::MAX, usize::MAX).await
            }
            _ => Ok(false),
        }
    }

    /// Folds the log up to exactly this position. `false`: so many records were not enough.
    async fn advance(
        &mut self,
        tail: &mut Tail,
        to: Offset,
        mut records: usize,
        sample: usize,
    ) -> Result<bool, Failure> {
        while self.position.is_none_or(|position| position < to) {
            if records == 0 {
                return Ok(false);
            }
            let from = self.position.map_or(self.start, Start::At);
            let (mut read, position) = tail.read(from, to).await?;
            records = records.saturating_sub(read.len());
            let slice = self.slice;
            read.retain(|record| {
                record.key.as_deref().is_none_or(|key| slice.holds(key)) && entry::is_event(record, tail.partitions())
            });
            // Nothing is waited for between these: a look that is broken off leaves both as they were, or as they will be.
            self.shadow.fold(&read)?;
            self.position = position.or(self.position);
            while self.shadow.size() > sample && self.slice.bits < HALVINGS {
                self.slice.bits += 1;
                let slice = self.slice;
                self.shadow.retain(&|stream| slice.holds(stream.as_bytes()));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_halving_keeps_a_part_of_what_was_held_and_every_stream_has_its_turn() {
        let streams: Vec<String> = (0..1000).map(|n| format!("k1-{n:032x}")).collect();
        let held = |bits, turn| {
            let slice = Slice { bits, turn };
            streams.iter().filter(|stream| slice.holds(stream.as_bytes())).cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(held(0, 5).len(), 1000);
        for turn in 0..8 {
            for bits in 1..4 {
                assert!(held(bits, turn).is_subset(&held(bits - 1, turn)));
            }
        }
        let turns: Vec<_> = (0..8).map(|turn| held(3, turn)).collect();
        assert_eq!(turns.iter().map(BTreeSet::len).sum::<usize>(), 1000, "nobody comes twice");
        assert_eq!(turns.iter().flatten().collect::<BTreeSet<_>>().len(), 1000);
    }

    #[test]
    fn partitions_have_their_turn_in_a_circle() {
        let owned = Owned::default();
        assert_eq!(owned.after(None), None);
        for partition in [7, 1, 4] {
            owned.add(partition);
        }
        assert_eq!(
            [None, Some(1), Some(2), Some(4), Some(7)].map(|last| owned.after(last)),
            [1, 4, 4, 7, 1].map(|next| Some((next, 3)))
        );
        owned.remove(1);
        assert_eq!(owned.after(Some(7)), Some((4, 2)));
    }
}
