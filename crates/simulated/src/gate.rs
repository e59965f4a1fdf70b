//! The gate with faults at every call.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Due, Epoch, GateError, Grant, Limit, Ownership, Snapshot, View};
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
}

#[async_trait]
impl Gate for SimGate {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
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
        self.process.call("gate.apply", unavailable, self.gate().apply(view, epoch, expected, next, changes)).await
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        self.process.call("gate.read", unavailable, self.gate().read(view, keys)).await
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        self.process.call("gate.recall", unavailable, self.gate().recall(view, ids)).await
    }

    async fn claim_due(
        &self,
        view: &View,
        epoch: Epoch,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Due>, GateError> {
        self.process.call("gate.claim_due", unavailable, self.gate().claim_due(view, epoch, now, lease, limit)).await
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        self.process.call("gate.next_due", unavailable, self.gate().next_due(view)).await
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        self.process.call("gate.take", unavailable, self.gate().take(limits, now)).await
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        self.process.call("gate.give_back", unavailable, self.gate().give_back(limit)).await
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        self.process.call("gate.hold", unavailable, self.gate().hold(limit_key, until)).await
    }
}
