//! The whole product on one machine: every process a plain child, on free ports, with its log in a file.
//!
//! The demo shows it to a person; the tests of the fleet kill parts of it and look whether the story still holds.

mod fleet;
pub mod settings;
mod show;
pub mod story;

pub use fleet::{Backend, Environment, Fleet, FleetError, Member, Plan};
pub use settings::Settings;
pub use show::{describe, watched};
