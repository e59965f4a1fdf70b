//! The log's contract on a real Apache Kafka, and what only a real broker can do: die, freeze, come back.

mod broker;
mod delayed;
mod secured;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::Log;
use connector_testkit::contract::log::LogWorld;
use connector_testkit::servers;

struct RealKafka(Arc<dyn Log>);

impl RealKafka {
    async fn start() -> Self {
        Self(log(&shared().await))
    }
}

#[async_trait]
impl LogWorld for RealKafka {
    async fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0)
    }
}

/// Where the Kafka is that these tests share.
async fn shared() -> String {
    tokio::task::spawn_blocking(servers::kafka).await.expect("no panic").to_owned()
}

fn config(bootstrap_servers: &str) -> KafkaConfig {
    KafkaConfig { session_timeout: Duration::from_secs(6), ..KafkaConfig::plaintext(bootstrap_servers) }
}

fn log(bootstrap_servers: &str) -> Arc<dyn Log> {
    Arc::new(KafkaLog::new(config(bootstrap_servers)))
}

connector_testkit::log_contract! { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] RealKafka::start().await }
