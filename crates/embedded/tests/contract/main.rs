//! The contract of log and gate, and what a file on a disk promises on top of it.

mod file;

use std::sync::Arc;

use async_trait::async_trait;
use connector_embedded::{EmbeddedLog, MemoryGate};
use connector_ports::clock::SystemClock;
use connector_ports::gate::View;
use connector_ports::{Gate, Log};
use connector_testkit::contract::gate::GateWorld;
use connector_testkit::contract::log::LogWorld;
use tempfile::TempDir;

struct World {
    log: EmbeddedLog,
    gate: MemoryGate,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = connector_embedded::open(&folder.path().join("log.sqlite"), Arc::new(SystemClock)).expect("open");
        Self { log, gate: MemoryGate::new(Arc::new(SystemClock)), _folder: folder }
    }
}

#[async_trait]
impl LogWorld for World {
    async fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }
}

#[async_trait]
impl GateWorld for World {
    async fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(self.gate.clone())
    }

    async fn wipe(&self, view: &View) {
        self.gate.wipe_view(view);
    }
}

mod log {
    connector_testkit::log_contract! { #[tokio::test] super::World::new() }
}

mod gate {
    connector_testkit::gate_contract! { #[tokio::test] super::World::new() }
}
