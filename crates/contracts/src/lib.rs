//! The wire between the services, and to everybody else who reads the log.
//!
//! - [`topic`]: the topics, declared once: name, key, retention, dead-letter topic.
//! - [`codec`]: Avro single-object encoding between bytes and the domain's types, with every version of every schema of
//!   the repository's `schemas/` folder compiled in.
//! - [`confluent`]: reads the framing of publishers that use a schema registry.
//! - [`schema`]: those schemas and their fingerprints.
//! - [`glimpse`](glimpse()): a quick look at an event, for those who read a whole log.
//! - [`headers`]: names of record headers, for events (CloudEvents) and for dead letters.

pub mod codec;
pub mod confluent;
pub mod headers;
pub mod schema;
pub mod topic;

mod event;
mod glimpse;
mod salvage;
mod webhook;

pub use codec::{Contract, ContractError, decode, encode, encode_into};
pub use event::{decode_event, encode_event};
pub use glimpse::{Glimpse, event_type, glimpse};
pub use headers::event_headers;
pub use salvage::{Salvaged, salvage};
pub use topic::{Topic, Topics};
pub use webhook::encode_webhook_item;
