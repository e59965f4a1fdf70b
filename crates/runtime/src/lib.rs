//! The one consume loop of all services, and what a handler builds on.
//!
//! A service is a [`handler::Handler`] plus its wiring. The [`worker`] owns everything else: assignment and revocation with
//! drain, batches, lanes, back-pressure, the contiguous frontier of finished work ([`ledger`]), transactions, dead letters,
//! shutdown within a bound, and what to do after each kind of failure.

pub mod assignment;
pub mod audit;
pub mod backoff;
pub mod commands;
pub mod dead_letter;
pub mod emit;
pub mod entry;
pub mod failure;
pub mod handler;
pub mod holding;
pub mod lanes;
pub mod ledger;
pub mod numbers;
pub mod people;
pub mod platform;
pub mod projection;
pub mod provision;
mod rebuild;
pub mod renewed;
pub mod replay;
pub mod reserved;
pub mod service;
pub mod situation;
pub mod standing;
pub mod status;
pub mod stream_key;
pub mod table;
pub mod tail;
pub mod view;
pub mod worker;
