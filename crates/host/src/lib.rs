//! Where a process is put together: settings to adapters, health endpoints, signals, exit codes.
//!
//! The only crate that names concrete adapters. A service's `main` says which parts it runs; everything else is the same for all
//! of them and stands here: [`run`].

mod admin;
mod backend;
mod config;
mod process;
pub mod reference;
pub mod server;

pub use backend::{Backend, Backends, OpenError, Opened, open};
pub use config::{HostConfig, rules};
pub use process::{StartError, run};

/// A third less CPU than with the system's, for the same memory (ADR 0024).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
