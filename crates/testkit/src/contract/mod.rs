//! One suite per port, run on every adapter.

pub mod gate;
pub mod log;
