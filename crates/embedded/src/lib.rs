//! Log and gate inside one process: the default of one machine, without servers.
//!
//! [`open`] gives a log in a SQLite file ([`SqliteStore`]), [`MemoryGate`] a gate in memory that its users build from the log.
//! [`StoreLog`] is the part that does not care where records are: groups, transactions, readers. Over [`MemoryStore`] it is the
//! log of the simulated world.

mod config;
mod error;
mod gate;
pub mod group;
mod hold;
mod limiter;
mod log;
mod memory;
mod reader;
mod sqlite;
pub mod store;

use std::path::Path;
use std::sync::Arc;

use connector_ports::Clock;

pub use config::EmbeddedConfig;
pub use error::OpenError;
pub use gate::{GateSnapshot, MemoryGate};
pub use log::StoreLog;
pub use memory::{Fate, MemoryStore};
pub use sqlite::SqliteStore;

/// The embedded log: Kafka's semantics over a SQLite file.
pub type EmbeddedLog = StoreLog<SqliteStore>;

/// Opens the log in this file, or creates it. Transactions that a former process left open are aborted. The clock stamps records.
///
/// # Errors
/// [`OpenError::InUse`] when the file is open already; the others when it cannot be used at all.
pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<EmbeddedLog, OpenError> {
    Ok(StoreLog::new(SqliteStore::open(path, clock)?))
}
