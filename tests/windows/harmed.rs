//! What stands between a worker and the world: a clock of its own, a gate that stands still, and gates that are broken on purpose.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::gate::{
    Change, Claim, Due, Epoch, GateError, Grant, Limit, Ownership, Register, Reservation, Snapshot, Timer, View,
};
use connector_ports::log::Offset;
use connector_ports::{Clock, Gate};
use connector_runtime::platform::views;
use tokio::sync::{mpsc, watch};

/// What is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// The position is not part of the data: a worker believes that the gate stands where it left it.
    AppliesFromAnywhere,
    /// A claimed timer is gone, instead of leased.
    ClaimRemoves,
    /// The checker's fold does not compare deadlines.
    FoldBelievesEveryExpiry,
}

/// A clock that is wrong by some milliseconds.
pub(crate) struct Skewed {
    pub(crate) right: Arc<dyn Clock>,
    pub(crate) millis: AtomicI64,
}

#[async_trait]
impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp(self.right.now().as_millis() + self.millis.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        self.right.sleep(duration).await;
    }
}

/// The gate as one worker has it.
pub(crate) struct Harmed {
    pub(crate) inner: Arc<dyn Gate>,
    pub(crate) mutation: Mutation,
    /// While it holds true, no call returns: the process stands still.
    pub(crate) frozen: watch::Receiver<bool>,
    /// Where this worker left the views.
    pub(crate) left: Mutex<HashMap<View, Offset>>,
    /// Hears of the windows that were claimed, and with which tag.
    pub(crate) claimed: mpsc::UnboundedSender<(String, u8)>,
}

impl Harmed {
    async fn thawed(&self) {
        // The sender lives as long as the run.
        let _ = self.frozen.clone().wait_for(|frozen| !frozen).await;
    }

    /// As the worker believes it, when the gate is broken in this way.
    fn believed<T>(&self, view: &View, mut snapshot: Snapshot<T>) -> Snapshot<T> {
        if self.mutation == Mutation::AppliesFromAnywhere {
            let left = self.left.lock().expect("no panic").get(view).copied();
            snapshot.applied = left.or(snapshot.applied);
        }
        snapshot
    }
}

#[async_trait]
impl Gate for Harmed {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        self.thawed().await;
        self.inner.acquire(view).await
    }

    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError> {
        self.thawed().await;
        match self.inner.apply(view, epoch, expected, next, changes.clone()).await {
            Err(GateError::Conflict { actual, .. }) if self.mutation == Mutation::AppliesFromAnywhere => {
                self.inner.apply(view, epoch, actual, next, changes).await?;
            }
            other => other?,
        }
        self.left.lock().expect("no panic").insert(view.clone(), next);
        Ok(())
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        self.thawed().await;
        Ok(self.believed(view, self.inner.read(view, keys).await?))
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        self.thawed().await;
        Ok(self.believed(view, self.inner.recall(view, ids).await?))
    }

    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError> {
        self.thawed().await;
        Ok(self.believed(view, self.inner.timers(view, keys).await?))
    }

    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError> {
        self.thawed().await;
        let due = self.inner.claim_due(view, epoch, claim).await?;
        if view.name == views::WINDOWS {
            due.iter().for_each(|due| drop(self.claimed.send((due.key.clone(), due.tag))));
        }
        if self.mutation == Mutation::ClaimRemoves && !due.is_empty() {
            let applied = self.inner.read(view, &[]).await?.applied;
            let gone = due.iter().map(|due| Change::Unschedule { key: due.key.clone() }).collect();
            self.inner.apply(view, epoch, applied, applied.unwrap_or_default(), gone).await?;
        }
        Ok(due)
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        self.thawed().await;
        self.inner.next_due(view).await
    }

    async fn inspect(&self, view: &View, from: u64) -> Result<u64, GateError> {
        self.thawed().await;
        self.inner.inspect(view, from).await
    }

    async fn discard(&self, view: &View) -> Result<(), GateError> {
        self.thawed().await;
        self.inner.discard(view).await
    }

    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError> {
        self.inner.reserve(register, ids).await
    }

    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        self.inner.tell(register, partition, ids, complete).await
    }

    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        self.inner.told(register).await
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        self.inner.take(limits, now).await
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        self.inner.give_back(limit).await
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        self.inner.hold(limit_key, until).await
    }
}
