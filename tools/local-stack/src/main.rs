//! Starts Apache Kafka and Redis, says where they are, and ends them when it is ended itself.

mod arguments;
mod stop;

use std::io::Write;
use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser;
use local_stack::{KafkaCluster, RedisServer, Secured, ServerError};
use stop::Stop;

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
    let mut stop = Stop::listen(arguments.until_stdin_closes)?;
    let secured = arguments.secured.then(Secured::new).transpose()?;
    let (redis, kafka) = (arguments.redis(secured.clone()), arguments.kafka(secured.clone()));
    let redis = RedisServer::start(&redis)?;
    let kafka = tokio::task::spawn_blocking(move || KafkaCluster::start(&kafka));
    let kafka = tokio::select! {
        // The children hear Ctrl-C too and end; the watchdogs see to the rest.
        () = stop.wanted() => return Ok(()),
        kafka = kafka => kafka.map_err(|error| ServerError(error.to_string()))??,
    };
    println!("KAFKA_BOOTSTRAP_SERVERS={}", kafka.bootstrap_servers());
    println!("REDIS_URL={}", redis.url());
    for (name, value) in secured.iter().flat_map(Secured::environment) {
        println!("{name}={value}");
    }
    std::io::stdout().flush().ok();
    stop.wanted().await;
    kafka.stop();
    Ok(())
}
