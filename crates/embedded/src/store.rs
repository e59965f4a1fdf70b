//! What a log of one process needs from the place that keeps its records. Two places exist: a SQLite file and memory.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use connector_ports::log::{
    Header, Identity, Isolation, LogError, Offset, Position, Record, Start, TopicName, TopicPartition, TopicSpec,
};
use tokio::sync::watch;

/// The result of a call. The call takes its place in the order of all calls when it is *made*, not when its answer is awaited; a
/// dropped answer does not undo it.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send>>;

/// An owner of a transactional id. A greater epoch is a newer owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The transactional id.
    pub id: String,
    /// Which of its owners.
    pub epoch: u64,
}

/// A record with its partition decided.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where it goes.
    pub target: TopicPartition,
    /// Key.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}

/// Next positions of a group.
#[derive(Clone, Debug)]
pub struct Positions {
    /// The group.
    pub group: String,
    /// Its next position in each partition.
    pub positions: Vec<(TopicPartition, Position)>,
}

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Visible records, in order.
    pub records: Vec<Record>,
    /// Where the next fetch goes on. Behind skipped records too.
    pub next: Offset,
}

/// How a transaction ends.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Visible, together with these positions.
    Commit(Option<Positions>),
    /// Never visible to committed readers.
    Abort,
}

/// Keeps topics, records, transactions and positions of groups.
pub trait Store: Send + Sync + 'static {
    /// Creates a topic; an existing one keeps its partitions and its records. The settings are those of this process.
    fn create_topic(&self, spec: &TopicSpec) -> Answer<()>;

    /// The settings with which the topic was created by this process.
    fn settings(&self, topic: &TopicName) -> BTreeMap<String, String>;

    /// Which log a partition is; `None` when there is no such partition.
    fn identity(&self, partition: &TopicPartition) -> Option<Identity>;

    /// The number of partitions; `None` when there is no such topic.
    fn partitions(&self, topic: &TopicName) -> Option<u32>;

    /// Appends all records or none, and answers when they are durable. In the order of the call.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when the session has a newer owner, [`LogError::UnknownTopic`].
    fn append(&self, records: Vec<Placed>, session: Option<&Session>) -> Answer<Vec<Offset>>;

    /// A new owner of the id. What an older one left open is aborted.
    fn take_over(&self, id: &str) -> Answer<Session>;

    /// Ends the open transaction of the session, if there is one, and commits positions.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when the session has a newer owner.
    fn finish(&self, session: &Session, outcome: Outcome) -> Answer<()>;

    /// The owner of a session went away without ending its transaction.
    fn abandon(&self, session: &Session);

    /// Stores positions of a group.
    fn commit_positions(&self, positions: Positions) -> Answer<()>;

    /// The positions of a group, after all calls made before this one.
    fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Answer<Vec<Option<Position>>>;

    /// The position behind the last visible record; `None` when there is no such partition.
    fn end(&self, partition: &TopicPartition, isolation: Isolation) -> Option<Offset>;

    /// The position of the first record that is kept, whatever compaction took out behind it; `None` when there is no such partition.
    fn begin(&self, partition: &TopicPartition) -> Option<Offset>;

    /// Up to `max` visible records from a position on.
    fn fetch(&self, partition: &TopicPartition, from: Offset, max: usize, isolation: Isolation) -> Answer<Fetched>;

    /// The position that `start` means right now.
    fn resolve(&self, partition: &TopicPartition, start: Start, isolation: Isolation) -> Answer<Offset>;

    /// Changes whenever more may be visible than before.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// An answer that is there already.
pub(crate) fn ready<T: Send + 'static>(result: Result<T, LogError>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

/// The transactional id has a newer owner.
pub(crate) fn fenced(session: &Session) -> LogError {
    LogError::Fenced { reason: format!("transactional id {} has a newer owner", session.id) }
}
