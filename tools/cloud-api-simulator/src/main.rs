//! The simulator as a program: see `--help`.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use cloud_api_simulator::{Config, spawn};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("cloud-api-simulator: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let handle = spawn(config).await?;
    // One line that scripts read to learn the port.
    writeln!(std::io::stdout(), "cloud-api-simulator listening on {}", handle.base_url())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    handle.shutdown().await;
    Ok(())
}
