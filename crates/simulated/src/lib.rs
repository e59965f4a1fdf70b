//! A world under a seed, in which everything that may go wrong does, at every call of a port: how crashes are tested.
//!
//! A service gets its ports from a [`SimWorld`]. Every call is a *point* with a number. A first run without faults counts the points; then
//! one run per point and [`Fault`] shows that nothing is lost or done twice. [`SimWorld::run`] is the supervisor that starts the
//! service anew after a crash; [`SimWorld::history`] and the ledger of [`SimWhatsApp`] are what a checker looks at.
//!
//! A run repeats exactly on a tokio runtime of one thread with paused time (`#[tokio::test(start_paused = true)]`), provided that the
//! service's own `select!` are `biased` and it takes time, ids and randomness from its ports.

mod clock;
mod gate;
mod ids;
mod log;
mod plan;
mod random;
mod supervisor;
mod whatsapp;
mod world;

pub use clock::{BEGINNING, SimClock};
pub use connector_embedded::{Fate, MemoryGate, MemoryStore, StoreLog};
pub use ids::SimIds;
pub use plan::{Fault, Noise, Plan, When};
pub use supervisor::Run;
pub use whatsapp::{Post, Reaction, SimWhatsApp, Weather};
pub use world::SimWorld;
