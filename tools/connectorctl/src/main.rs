//! The operator's tool.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    connectorctl::run(connectorctl::Cli::parse(), &mut std::io::stdout()).await
}
