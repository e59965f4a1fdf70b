//! Starts Apache Kafka and Redis, says where they are, and ends them when it is ended itself.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use local_stack::{KafkaCluster, KafkaOptions, RedisOptions, RedisServer, ServerError};
use tokio::signal::unix::{SignalKind, signal};

/// Starts Apache Kafka and Redis on 127.0.0.1, prints KAFKA_BOOTSTRAP_SERVERS=… and REDIS_URL=… when both answer, and stays
/// until SIGINT or SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
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
    /// End also when standard input ends (for a parent that holds a pipe).
    #[arg(long)]
    until_stdin_closes: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-stack: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), ServerError> {
    let failed = |error: std::io::Error| ServerError(format!("cannot listen to signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let data = arguments.data_dir.clone();
    let redis =
        RedisOptions { port: arguments.redis_port, persistent: data.is_some(), data: data.clone(), cluster: false };
    let redis = RedisServer::start(&redis)?;
    let kafka = KafkaOptions {
        brokers: if arguments.brokers == "3" { 3 } else { 1 },
        port: arguments.kafka_port,
        data,
        ..KafkaOptions::default()
    };
    let kafka = tokio::task::spawn_blocking(move || KafkaCluster::start(&kafka));
    let kafka = tokio::select! {
        // The children hear Ctrl-C too and end; the watchdogs see to the rest.
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        kafka = kafka => kafka.map_err(|error| ServerError(error.to_string()))??,
    };
    println!("KAFKA_BOOTSTRAP_SERVERS={}", kafka.bootstrap_servers());
    println!("REDIS_URL={}", redis.url());
    std::io::stdout().flush().ok();
    let (ended, stdin_ended) = tokio::sync::oneshot::channel();
    if arguments.until_stdin_closes {
        // A thread of its own: tokio's stdin would keep the runtime from ending.
        std::thread::spawn(move || {
            std::io::stdin().lock().read_to_end(&mut Vec::new()).ok();
            ended.send(()).ok();
        });
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = stdin_ended => (),
        }
    } else {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    }
    kafka.stop();
    Ok(())
}
