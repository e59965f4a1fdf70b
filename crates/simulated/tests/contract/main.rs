//! The contract of log and gate, and what the simulated world adds to it: faults, restarts, repeatable runs.

mod faults;
mod whatsapp;

use std::sync::Arc;

use async_trait::async_trait;
use connector_ports::gate::View;
use connector_ports::{Gate, Log};
use connector_simulated::SimWorld;
use connector_testkit::contract::gate::GateWorld;
use connector_testkit::contract::log::LogWorld;

struct World(SimWorld);

#[async_trait]
impl LogWorld for World {
    async fn log(&self) -> Arc<dyn Log> {
        self.0.log()
    }
}

#[async_trait]
impl GateWorld for World {
    async fn gate(&self) -> Arc<dyn Gate> {
        self.0.gate()
    }

    async fn wipe(&self, view: &View) {
        self.0.calm_gate().wipe_view(view);
    }
}

mod log {
    connector_testkit::log_contract! { #[tokio::test(start_paused = true)] super::World(super::SimWorld::new(7)) }
}

mod gate {
    connector_testkit::gate_contract! { #[tokio::test(start_paused = true)] super::World(super::SimWorld::new(7)) }
}
