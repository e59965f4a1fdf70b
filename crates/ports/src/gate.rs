//! The gate: projections of the log that many workers ask, each stored with the log offset it has applied (R1).
//!
//! A *view* is one projection of one partition. Everything in it (offset, owner epoch, values, marks, timers) changes in one atomic
//! step. Redis keeps a view in one hash slot; the embedded gate keeps it in memory and rebuilds it from the log.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use thiserror::Error;

use crate::log::{LogId, Offset};
use crate::retry::Retry;

/// One projection of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The projection, e.g. `conversations`.
    pub name: &'static str,
    /// The partition it projects.
    pub partition: u32,
}

impl View {
    /// A view.
    #[must_use]
    pub const fn new(name: &'static str, partition: u32) -> Self {
        Self { name, partition }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.partition)
    }
}

/// Orders the owners of a view. A later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A fresh ownership of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Greater than the epoch of every earlier owner, also after the gate lost its data (adapters mix in the time).
    pub epoch: Epoch,
    /// The position up to which the view has applied the log; `None` when it is empty.
    pub applied: Option<Offset>,
    /// The log of which that is a position, as far as a [`Change::Projects`] has said so.
    pub log: Option<LogId>,
}

/// One change of a view. Keys are opaque: never a phone number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value.
    Put {
        /// Under this key.
        key: String,
        /// Any bytes.
        value: Bytes,
    },
    /// Removes a value.
    Delete {
        /// The key.
        key: String,
    },
    /// Remembers an id, so that a repeat is recognised.
    Mark {
        /// The id (a hash of it is fine), up to 32 bytes.
        id: Bytes,
        /// What it stood for: a repeat with another digest is a conflict.
        digest: u64,
        /// Kept at least until then, dropped within a day after it.
        until: Timestamp,
    },
    /// Sets the timer of a key; one per key, forward and backward.
    Schedule {
        /// The key. One that ends in the 32 hexadecimal digits of a stream id is kept in half the space.
        key: String,
        /// When it is due.
        at: Timestamp,
        /// A small number that stays with the timer and says what it is about, up to [`MAX_TAG`].
        tag: u8,
    },
    /// Removes the timer of a key.
    Unschedule {
        /// The key.
        key: String,
    },
    /// Says which log the view projects; it stays with its position.
    Projects {
        /// That log.
        log: LogId,
    },
}

/// Values with the position at which they were true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// The position up to which the view has applied the log; `None` when it is empty.
    pub applied: Option<Offset>,
    /// The log of which that is a position, as far as a [`Change::Projects`] has said so.
    pub log: Option<LogId>,
    /// One answer per question, in order.
    pub answers: Vec<Option<T>>,
}

/// Greatest tag of a timer.
pub const MAX_TAG: u8 = 7;

/// A timer as it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When it is due.
    pub at: Timestamp,
    /// What it is about.
    pub tag: u8,
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its key.
    pub key: String,
    /// When it was due.
    pub at: Timestamp,
    /// What it is about.
    pub tag: u8,
}

/// Which timers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Not those that were due before this moment.
    pub since: Timestamp,
    /// Those that were due at this moment or before it.
    pub now: Timestamp,
    /// How long they are not handed out again.
    pub lease: Duration,
    /// How many at most.
    pub limit: usize,
}

/// A limit in the form of a generic cell rate algorithm: `burst` at once, then one per `interval`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is limited. Opaque: never a phone number.
    pub key: String,
    /// Time that one costs.
    pub interval: Duration,
    /// How many may go at once after a pause.
    pub burst: u32,
}

/// The answer of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Taken.
    Granted,
    /// Not before this moment; nothing was taken.
    NotBefore(Timestamp),
}

/// Ids that are given out once over all partitions, whoever asks first. Like a view a register is built from the log: each partition's
/// owner tells it which ids stand there, and as long as one has not (the register was lost), nothing can be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// Of what: ids of registers with different names have nothing to do with each other.
    pub name: &'static str,
    /// Who tells: owners of one name tell each for themselves.
    pub teller: &'static str,
    /// How many partitions have to be told.
    pub partitions: u32,
}

/// An id and what it is to stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The id (a hash of it is fine), up to 32 bytes.
    pub id: Bytes,
    /// What it stands for from now on, unless it stands for something else already.
    pub digest: u64,
    /// Kept at least until then.
    pub until: Timestamp,
}

/// Why a call on the gate failed.
#[derive(Debug, Error)]
pub enum GateError {
    /// The gate is away. It is not known whether the call had its effect; applying again tells (conflict or success).
    #[error("the gate is not available: {reason}")]
    Unavailable {
        /// What was observed, without payload.
        reason: String,
    },
    /// The view is at another position than the caller expected (it was wiped, rolled back, or the answer to an earlier call got lost).
    #[error("view {view} stands at {actual:?}, not where expected")]
    Conflict {
        /// The view.
        view: View,
        /// Where it stands; `None` when it is empty.
        actual: Option<Offset>,
    },
    /// A newer owner exists.
    #[error("view {view} has a newer owner")]
    Fenced {
        /// The view.
        view: View,
    },
    /// Misconfiguration or a broken script: nothing to wait for.
    #[error("the gate cannot be used: {reason}")]
    Fatal {
        /// What was observed.
        reason: String,
    },
}

impl GateError {
    /// What the caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Later,
            Self::Conflict { .. } => Retry::Reinitialise,
            Self::Fenced { .. } => Retry::Fenced,
            Self::Fatal { .. } => Retry::Never,
        }
    }
}

/// Projections, timers and limiters.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Takes a view over: every earlier owner is fenced from now on, and the timers it had claimed are free again.
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError>;

    /// Applies changes and moves the view from `expected` to `next`, in one atomic step.
    ///
    /// # Errors
    /// [`GateError::Conflict`] when the view does not stand at `expected`, [`GateError::Fenced`] when `epoch` is not the newest.
    /// In both cases nothing changed.
    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError>;

    /// The values of keys.
    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError>;

    /// The digests of remembered ids.
    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError>;

    /// The timers of keys, claimed ones included.
    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError>;

    /// Timers that are due, oldest first. A claimed timer is not handed out again before its lease has passed; it stays in the view
    /// until it is unscheduled or moved (R8).
    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError>;

    /// When the next timer is due (claimed ones not counted); `None` when there is none.
    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError>;

    /// Looks through a part of the view for what was not written by this port: a value or a timer that somebody changed by hand, a
    /// part that is missing. A view in which such a thing is found, here or by any other call, counts as empty from then on, so that
    /// its owner builds it again. `from` is 0 or what the call before has answered; 0 is answered at the end of a pass.
    async fn inspect(&self, view: &View, from: u64) -> Result<u64, GateError>;

    /// The view counts as empty from now on, so that its owner builds it again.
    async fn discard(&self, view: &View) -> Result<(), GateError>;

    /// Reserves ids: what each of them stands for afterwards, which is what the first asked for. `None`: not every partition was told yet;
    /// some of the ids may be reserved nevertheless. The same reservation again has the same answer.
    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError>;

    /// Tells a register what stands in a partition, whatever was reserved before the register was complete. In several calls, the last of
    /// which is `complete`.
    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError>;

    /// The partitions that were told completely.
    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError>;

    /// Takes one from each limiter independently, at `now`.
    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError>;

    /// Gives back what was taken and not used.
    async fn give_back(&self, limit: &Limit) -> Result<(), GateError>;

    /// Lets nothing through a limiter before this moment (WhatsApp said so).
    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError>;
}
