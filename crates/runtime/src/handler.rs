//! What a service tells the loop: how to read its state, what a record leads to, what an effect meant.

use std::time::Duration;

use async_trait::async_trait;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use futures::future::BoxFuture;

use crate::failure::Failure;
use crate::lanes::{LaneKey, QueueKey, Work};

/// What a record leads to.
pub enum Step<F> {
    /// It is finished. The appends and its offset are committed together.
    Done(Vec<Append>),
    /// It cannot be understood: its bytes go untouched to the dead letter topic, with this reason.
    DeadLetter(Reason),
    /// Something outside happens. `journal` is durable before `run` is first polled (R4); what `run` returns reaches
    /// [`Handler::conclude`]. Only for handlers with lanes.
    Effect {
        /// Appended and acknowledged first.
        journal: Vec<Append>,
        /// The effect. It must end by itself within a bound.
        run: BoxFuture<'static, F>,
    },
    /// Not now. `appends` are committed; the record stays at the head of its lane (with [`Order::Batch`]: of its partition, unless the
    /// handler names lanes) and is handled again, together with what is behind it, whose steps of the same call are dropped.
    Wait {
        /// When.
        until: Timestamp,
        /// What is written down already.
        appends: Vec<Append>,
    },
}

/// Why a record goes to the dead letter topic. Both texts are free of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One word of a closed set, for metrics.
    pub word: &'static str,
    /// For people.
    pub detail: String,
}

impl Reason {
    /// A reason.
    #[must_use]
    pub fn new(word: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { word, detail: detail.to_string() }
    }
}

/// How records run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Many records in one call, those of one lane in order, no effects. All records of a partition are one lane unless
    /// [`Handler::lane`] says otherwise; lanes matter only for what [`Step::Wait`] holds up. What is finished behind a record that waits is
    /// handled again after a crash, so a handler with lanes remembers what it answered.
    Batch,
    /// Each lane in order, one record at a time, many lanes at once.
    Lanes {
        /// Lanes at work at the same time, over all partitions.
        at_once: usize,
    },
}

/// Where a handler takes up a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeUp {
    /// At the group's committed offset.
    Committed,
    /// At this position, which a projection has applied (R1). Records below the group's offset come as replays.
    At(Offset),
    /// At the first record there is; records below the group's offset come as replays.
    Beginning,
}

/// A service's part of the loop.
#[async_trait]
pub trait Handler: Send {
    /// What an effect returns.
    type Fact: Send + 'static;

    /// Batch or lanes.
    fn order(&self) -> Order {
        Order::Batch
    }

    /// The lane of a record.
    fn lane(&self, record: &Record) -> LaneKey {
        let _ = record;
        0
    }

    /// What the lane of a record shares with others. Each has the same right to be served, however many lanes and records it has.
    /// Not asked for [`Order::Batch`].
    fn queue(&self, record: &Record) -> QueueKey {
        let _ = record;
        0
    }

    /// A partition is ours: read its state. Called again after a reinitialisation.
    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        let _ = (partition, committed);
        Ok(TakeUp::Committed)
    }

    /// A partition is not ours any more: forget its state.
    fn revoked(&mut self, partition: &TopicPartition) {
        let _ = partition;
    }

    /// What these records lead to: one step for each, in order. Records of one lane come in order.
    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<Self::Fact>>, Failure>;

    /// What the result of an effect leads to.
    async fn conclude(&mut self, work: &Work, fact: Self::Fact) -> Result<Step<Self::Fact>, Failure> {
        let _ = (work, fact);
        Err(Failure::Fatal("this handler has no effects".to_owned()))
    }

    /// The result of an effect whose partition was reinitialised meanwhile: worth remembering, its record is handled again.
    fn late(&mut self, work: &Work, fact: Self::Fact) {
        let _ = (work, fact);
    }

    /// Everything visible of this partition below `position` was handled, committed and reported by [`Handler::committed`].
    async fn caught_up(&mut self, partition: &TopicPartition, position: Offset) -> Result<(), Failure> {
        let _ = (partition, position);
        Ok(())
    }

    /// A transaction was committed, or records were replayed. `appended` is what it wrote, `positions` how far each partition touched is finished. A failure is tried
    /// again (`Later`) or leads to a reinitialisation; the transaction stands.
    async fn committed(
        &mut self,
        appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        let _ = (appended, positions);
        Ok(())
    }

    /// How often [`Handler::tick`] is called; `None`: never.
    fn tick_every(&self) -> Option<Duration> {
        None
    }

    /// Work that time brings, not records. What is returned is committed in a transaction of its own.
    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        Ok(Vec::new())
    }
}
