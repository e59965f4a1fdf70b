//! What is started, as told on the command line.

use std::path::PathBuf;

use clap::Parser;
use local_stack::{KafkaOptions, RedisOptions, Secured};

/// Starts Apache Kafka and Redis on 127.0.0.1, prints KAFKA_BOOTSTRAP_SERVERS=… and REDIS_URL=… when both answer, and stays
/// until SIGINT or SIGTERM.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Brokers: 1, or 3 with replication.
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    brokers: String,
    /// Port of the first broker; a free one when absent.
    #[arg(long)]
    kafka_port: Option<u16>,
    /// Port of Redis; a free one when absent.
    #[arg(long)]
    redis_port: Option<u16>,
    /// Folder whose data stay; otherwise they are in memory and go with the servers.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// With TLS and passwords; the settings for it are printed too. The certificates are in memory and go with the servers.
    #[arg(long)]
    pub(crate) secured: bool,
    /// End also when standard input ends (for a parent that holds a pipe).
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
}

impl Arguments {
    pub(crate) fn redis(&self, secured: Option<Secured>) -> RedisOptions {
        let data = self.data_dir.clone();
        RedisOptions { port: self.redis_port, persistent: data.is_some(), data, secured, ..RedisOptions::default() }
    }

    pub(crate) fn kafka(&self, secured: Option<Secured>) -> KafkaOptions {
        KafkaOptions {
            brokers: if self.brokers == "3" { 3 } else { 1 },
            port: self.kafka_port,
            data: self.data_dir.clone(),
            secured,
            ..KafkaOptions::default()
        }
    }
}
