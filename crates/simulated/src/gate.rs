//! The gate with faults at every call.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{
    Change, Claim, Due, Epoch, GateError, Grant, Limit, Ownership, Register, Reservation, Snapshot, Timer, View,
};
use connector_ports::log::Offset;

use crate::world::Process;

pub(crate) struct SimGate {
    pub(crate) process: Process,
}

/// The gate does not say whether a call had its effect.
fn unavailable(point: &'static str, _: bool) -> GateError {
    GateError::Unavailable { reason: format!("simulated at {point}") }
}

impl SimGate {
    fn gate(&self) -> &impl Gate {
        &self.process.shared.gate
    }

    /// Whether this view can be reached.
    fn see(&self, view: &View) -> Result<(), GateError> {
        match self.process.shared.has_views(view.partition) {
            true => Ok(()),
            false => Err(unavailable("a view that is away", false)),
        }
    }

    /// Whether these limiters can be reached.
    fn reach<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<(), GateError> {
        match keys.into_iter().any(|key| self.process.shared.is_away(key)) {
            true => Err(unavailable("a limiter that is away", false)),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Gate for SimGate {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        self.see(view)?;
        self.process.call("gate.acquire", unavailable, self.gate().acquire(view)).await
    }

    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError> {
        self.see(view)?;
        self.process.call("gate.apply", unavailable, self.gate().apply(view, epoch, expected, next, changes)).await
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        self.see(view)?;
        self.process.shared.values_read.fetch_add(keys.len(), Ordering::Relaxed);
        self.process.call("gate.read", unavailable, self.gate().read(view, keys)).await
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        self.see(view)?;
        self.process.call("gate.recall", unavailable, self.gate().recall(view, ids)).await
    }

    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError> {
        self.see(view)?;
        self.process.call("gate.timers", unavailable, self.gate().timers(view, keys)).await
    }

    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError> {
        self.see(view)?;
        self.process.call("gate.claim_due", unavailable, self.gate().claim_due(view, epoch, claim)).await
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        self.see(view)?;
        self.process.call("gate.next_due", unavailable, self.gate().next_due(view)).await
    }

    /// No point: it changes nothing, and there would be no end of them.
    async fn inspect(&self, view: &View, from: u64) -> Result<u64, GateError> {
        self.process.alive().await;
        self.see(view)?;
        self.gate().inspect(view, from).await
    }

    async fn discard(&self, view: &View) -> Result<(), GateError> {
        self.see(view)?;
        self.process.call("gate.discard", unavailable, self.gate().discard(view)).await
    }

    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError> {
        self.process.call("gate.reserve", unavailable, self.gate().reserve(register, ids)).await
    }

    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        self.process.call("gate.tell", unavailable, self.gate().tell(register, partition, ids, complete)).await
    }

    /// No point: it changes nothing, and there would be no end of them.
    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        self.process.alive().await;
        self.gate().told(register).await
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        self.reach(limits.iter().map(|limit| limit.key.as_str()))?;
        self.process.call("gate.take", unavailable, self.gate().take(limits, now)).await
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        self.reach([limit.key.as_str()])?;
        self.process.call("gate.give_back", unavailable, self.gate().give_back(limit)).await
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        self.reach([limit_key])?;
        self.process.call("gate.hold", unavailable, self.gate().hold(limit_key, until)).await
    }
}
