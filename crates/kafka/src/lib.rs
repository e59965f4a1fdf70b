//! Apache Kafka behind the port [`connector_ports::Log`], through librdkafka.
//!
//! librdkafka blocks: readers and transactors each live on a thread of their own and talk to the async side over channels. The
//! other clients (appender, questions) are shared. Three of librdkafka's habits cost 100 ms and more per transaction when they
//! are not known: see [`mod@transactor`].
//!
//! A broker that is away is no error at start: readers wait, everything else answers
//! [`LogError::Unavailable`](connector_ports::log::LogError::Unavailable) within its bound, and goes on when it is back.

mod appender;
mod client;
mod config;
mod error;
mod identity;
mod log;
mod questions;
mod reader;
mod record;
pub mod transactor;

pub use config::{KafkaConfig, Security};
pub use log::KafkaLog;
