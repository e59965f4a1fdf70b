//! The partitioned log: topics, consumer groups, transactions. Kafka's semantics, behind four small traits.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use thiserror::Error;

use crate::retry::Retry;

/// The full name of a topic, prefix included. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for TopicName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// From 0.
    pub partition: u32,
}

impl TopicPartition {
    /// A partition of a topic.
    #[must_use]
    pub fn new(topic: impl Into<TopicName>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A position in a partition. There are gaps: control records, aborted data, compaction. Never compute with `+ 1` across records
/// that were not read; "everything below" is what a position means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The position right behind this record.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The name of a record header. There are few of them and many records, so that most are known at compile time, or kept once by an adapter.
pub type HeaderName = Cow<'static, str>;

/// A record header. Names may repeat. `None` is Kafka's null, which is not an empty value.
pub type Header = (HeaderName, Option<Bytes>);

/// The largest record that is written at all, by [`Append::size`]: a dead letter, which is a record of a topic, byte for byte, with more
/// headers. Every writer and the dead letter topics take as much.
pub const MAX_RECORD_BYTES: usize = MAX_TOPIC_BYTES + ROOM_BYTES;

/// The largest record of every other topic.
pub const MAX_TOPIC_BYTES: usize = 4 * 1024 * 1024;

/// The largest record that is worked on. One that is sent on to another partition of its topic is a little larger there.
pub const MAX_TAKEN_BYTES: usize = MAX_TOPIC_BYTES - ROOM_BYTES;

/// By how much a record may grow on its way: headers, and another key.
const ROOM_BYTES: usize = 64 * 1024;

/// How much every topic must take at least: so much a writer puts into one batch of small records (what a broker takes by default).
pub const MIN_TOPIC_BYTES: usize = 1_048_588;

/// What a record takes beside its contents at most: lengths, offsets, the batch that it stands in (Kafka's record format v2).
const OVERHEAD: usize = 128;
/// The same of a header: its lengths.
const HEADER_OVERHEAD: usize = 8;

fn size(key: Option<&Bytes>, value: Option<&Bytes>, headers: &[Header]) -> usize {
    let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    let headers = headers.iter().map(|(name, value)| name.len() + length(value.as_ref()) + HEADER_OVERHEAD);
    length(key) + length(value) + headers.sum::<usize>() + OVERHEAD
}

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub source: TopicPartition,
    /// Its position.
    pub offset: Offset,
    /// Decides the partition.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the order written.
    pub headers: Vec<Header>,
    /// Kafka's record timestamp.
    pub timestamp: Timestamp,
}

impl Record {
    /// The value of the first header of this name that has one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().filter(|(n, _)| n == name).find_map(|(_, value)| value.as_ref())
    }

    /// What it takes in the log at most: uncompressed, with its headers.
    #[must_use]
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// To which topic.
    pub topic: TopicName,
    /// A partition named by the caller (dead letters keep theirs); otherwise [`crate::partition::partition_for`] of the key.
    pub partition: Option<u32>,
    /// Decides the partition and, in compacted topics, the slot.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}

impl Append {
    /// What it takes in the log at most: uncompressed, with its headers.
    #[must_use]
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The partition.
    pub target: TopicPartition,
    /// Its position.
    pub offset: Offset,
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only committed data, up to the first open transaction (the last stable offset).
    Committed,
    /// Everything acknowledged, aborted and open data included. Only for the journal of attempts (R4).
    Uncommitted,
}

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record there is.
    Beginning,
    /// Behind the last record there is.
    End,
    /// At this position, or the next record behind it.
    At(Offset),
    /// At the first record with this timestamp or a later one.
    Since(Timestamp),
}

/// A membership in a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The group's name.
    pub group: String,
    /// The topics. Their partitions are shared among the members.
    pub topics: Vec<TopicName>,
    /// A name that survives a restart of this member (static membership); a restarted member takes over at once.
    pub member: Option<String>,
    /// Where to begin in a partition for which the group has no offset.
    pub start: Start,
}

/// What a poll brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Records in order per partition. They may come from several partitions, all of them assigned.
    Records(Vec<Record>),
    /// These partitions are ours from now on; reading starts at the group's offset unless `seek` is called.
    Assigned(Vec<TopicPartition>),
    /// The group wants these back. No more records of them come. Finish, commit, then call [`Reader::release`]: the group waits for
    /// that, within its session bound.
    Revoked(Vec<TopicPartition>),
    /// These are somebody else's already: drop everything in hand, commit nothing. No `release` is needed.
    Lost(Vec<TopicPartition>),
    /// Everything visible below this position has been delivered (end of the partition reached). Control records are counted, so the
    /// position may be ahead of the last record. Comes again each time the end is reached anew.
    CaughtUp(TopicPartition, Offset),
    /// Nothing happened within the wait.
    Idle,
}

/// Proof of membership that a transaction needs to commit offsets; a stale one is fenced. Opaque, made by [`Reader::membership`].
#[derive(Clone)]
pub struct Membership(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Membership")
    }
}

/// Why a call on the log failed.
#[derive(Debug, Error)]
pub enum LogError {
    /// The broker is away or overloaded. Nothing was done.
    #[error("the log is not available: {reason}")]
    Unavailable {
        /// What was observed, without payload.
        reason: String,
    },
    /// The call may or may not have had its effect.
    #[error("the result of a call on the log is unknown: {reason}")]
    Uncertain {
        /// What was observed, without payload.
        reason: String,
    },
    /// A newer owner of the transactional id or of the partition exists.
    #[error("a newer owner took over: {reason}")]
    Fenced {
        /// What was observed.
        reason: String,
    },
    /// The transaction cannot be committed any more; abort it and start again.
    #[error("the transaction must be aborted: {reason}")]
    Aborted {
        /// What was observed.
        reason: String,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its name.
        topic: TopicName,
    },
    /// The record is larger than [`MAX_RECORD_BYTES`], or than its topic takes (`max.message.bytes`).
    #[error("a record for {topic} is too large: {bytes} bytes")]
    TooLarge {
        /// Where it should go.
        topic: TopicName,
        /// Its size ([`Append::size`]); the largest when several are.
        bytes: usize,
    },
    /// Misconfiguration, denied access, a broken file: nothing to wait for.
    #[error("the log cannot be used: {reason}")]
    Fatal {
        /// What was observed.
        reason: String,
    },
}

impl LogError {
    /// What the caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Later,
            Self::Uncertain { .. } | Self::Aborted { .. } => Retry::Reinitialise,
            Self::Fenced { .. } => Retry::Fenced,
            Self::UnknownTopic { .. } | Self::TooLarge { .. } | Self::Fatal { .. } => Retry::Never,
        }
    }
}

/// Names one partition of one log: the same as long as it is the same, and another one after the topic was deleted and made again, in
/// another cluster or in another file. Opaque; only compared. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogId(Arc<str>);

impl LogId {
    /// The id as text, for whoever keeps it beside a position.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for LogId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for LogId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

/// What is known of which log a partition belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing was written to it yet, and it has no name before that.
    Unwritten,
    /// This one.
    Known(LogId),
    /// Its first records are gone, and what they would have said of it with them. A topic that is kept for ever never gets there by itself.
    BeginningLost {
        /// The first record that is still there.
        first: Offset,
    },
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Number of partitions.
    pub partitions: u32,
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: TopicName,
    /// Number of partitions. For ever: the key decides the partition.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u16,
    /// Broker settings such as `retention.ms` and `cleanup.policy`.
    pub settings: Vec<(String, String)>,
}

/// The log as a place to open readers and writers.
#[async_trait]
pub trait Log: Send + Sync {
    /// Joins a consumer group. Assignments arrive through [`Reader::poll`]. Reads committed data only.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError>;

    /// Reads the given partitions without a group.
    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError>;

    /// As [`Log::assign`], for who waits for the end with each question: it is told as soon as it is reached. That costs the log more while
    /// nothing is written, so pause it when nobody asks.
    async fn follow(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.assign(partitions, isolation).await
    }

    /// A writer without transactions.
    async fn appender(&self) -> Result<Box<dyn Appender>, LogError>;

    /// Takes over the transactional id: an older owner is fenced at its next call, and a transaction it left open is aborted
    /// before this returns.
    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError>;

    /// The position behind the last record a reader of this isolation can see right now.
    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError>;

    /// The position of the first record that is kept. What stood below was deleted (retention, an operator); where nothing was, this is
    /// 0. Compaction takes records out and leaves this where it is.
    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError>;

    /// As [`Log::end_offset`], of many partitions in one question. Each answer is one of a moment after this was called.
    async fn end_offsets(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, LogError> {
        let mut ends = Vec::with_capacity(partitions.len());
        for partition in partitions {
            ends.push(self.end_offset(partition, isolation).await?);
        }
        Ok(ends)
    }

    /// Which log this partition of a topic that is kept for ever belongs to. Whoever keeps a position of it elsewhere keeps this beside it: a
    /// position of another log means nothing.
    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError>;

    /// The next position the group reads in each of the partitions; `None` where it never committed. A position that an open
    /// transaction holds ([`Transactor::hold`]) is not given out: this waits for the end of that transaction, is `Unavailable`, or
    /// fences its owner.
    async fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Offset>>, LogError> {
        let positions = self.positions(group, partitions).await?;
        Ok(positions.into_iter().map(|position| Some(position?.next)).collect())
    }

    /// As [`Log::committed`], with the landmark that was committed together with each position. Positions stay when a topic is deleted and
    /// made again under its name; whether they still mean anything tells the landmark.
    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError>;

    /// The topic as it is; `None` when it does not exist.
    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError>;

    /// The settings of a topic by their names, such as `retention.ms`, as they apply: those that nobody set for this topic have the defaults
    /// of the log.
    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError>;

    /// Creates a topic. An existing one keeps its partitions and its records, whatever it is like.
    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError>;
}

/// Reads records. One owner, one call at a time.
#[async_trait]
pub trait Reader: Send {
    /// Waits up to `wait` for something to happen and returns it. Never returns more than `max` records. Must be called often enough
    /// to stay in the group, also while everything is paused. Cancel safe: a dropped call loses nothing.
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError>;

    /// Continues reading at this position; records in hand from before are not delivered any more.
    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError>;

    /// Stops delivering records of these partitions. Costs what was prefetched: use with hysteresis.
    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Delivers again.
    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Commits next positions for the group, outside any transaction, and waits for the answer.
    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError>;

    /// Hands revoked partitions back, after their work is finished and committed.
    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Proof of the present membership, for a transaction's commit.
    async fn membership(&self) -> Result<Membership, LogError>;

    /// Leaves the group (a static member stays known) and frees everything, within a bound.
    async fn close(self: Box<Self>);
}

/// Appends records without a transaction.
#[async_trait]
pub trait Appender: Send + Sync {
    /// Appends all records and waits until each is durable. Order per partition is kept within and between calls of one task. On an
    /// error some of them may have been written.
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError>;
}

/// A record by which a topic is known again: in a topic that was made anew another one stands there, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// Where it stands.
    pub offset: Offset,
    /// When it was written.
    pub written: Timestamp,
}

/// Where a group goes on in a partition, and in which topic: an offset alone means something in every topic of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next record.
    pub next: Offset,
    /// A record of the topic that was read; `None` when whoever committed named none.
    pub landmark: Option<Landmark>,
}

impl From<Offset> for Position {
    fn from(next: Offset) -> Self {
        Self { next, landmark: None }
    }
}

/// What a transaction has consumed.
#[derive(Clone, Debug)]
pub struct Consumed {
    /// The group.
    pub group: String,
    /// Proof of membership.
    pub membership: Membership,
    /// The next position of each partition.
    pub positions: Vec<(TopicPartition, Position)>,
}

/// Appends to many topics, all or nothing. A transaction begins by itself with the first call.
#[async_trait]
pub trait Transactor: Send {
    /// Holds these positions for the time of the transaction, and commits them with it unless [`Transactor::commit`] brings newer
    /// ones. A stale membership is `Fenced`, so it is known before anything is appended that the partitions are still ours; and as
    /// long as the transaction is open nobody else learns from where to go on ([`Log::committed`]), so they stay ours until it ends.
    /// What is appended in between is appended by their only owner (R4).
    async fn hold(&mut self, consumed: Consumed) -> Result<(), LogError>;

    /// Appends within the transaction and waits until each record is durable (not yet committed): a reader of
    /// [`Isolation::Uncommitted`] sees it even after a crash of this process.
    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError>;

    /// As [`Transactor::append`], and tells of each record by its place in the list, once and as soon as it is durable: who waits for one
    /// need not wait for all. Those it told of before an error are durable nevertheless.
    async fn append_each(
        &mut self,
        records: Vec<Append>,
        durable: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Appended>, LogError> {
        let appended = self.append(records).await?;
        (0..appended.len()).for_each(durable);
        Ok(appended)
    }

    /// Commits what was appended together with the consumed positions. With nothing appended and nothing consumed it does nothing.
    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError>;

    /// Drops what was appended since the last commit. Does nothing without an open transaction.
    async fn abort(&mut self) -> Result<(), LogError>;
}
