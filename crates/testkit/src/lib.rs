//! What tests share: one contract suite per port, real servers as plain children, and waiting on conditions.

pub mod contract;
pub mod event;
pub mod servers;
pub mod wait;
