//! What the workers know of the world: a partitioned log, a gate that holds projections, WhatsApp, a clock and ids.
//!
//! The traits are batch level and object safe. Three pairs of adapters implement log and gate: Kafka with Redis, the embedded
//! pair (SQLite and memory), and the simulated pair under a seed. What every adapter must show is written on each method
//! and proven by one contract suite per port (crate `connector-testkit`).

pub mod clock;
pub mod gate;
pub mod ids;
pub mod log;
pub mod partition;
pub mod retry;
pub mod whatsapp;

pub use clock::Clock;
pub use gate::Gate;
pub use ids::Ids;
pub use log::{Appender, Log, Reader, Transactor};
pub use retry::Retry;
pub use whatsapp::WhatsApp;
