//! `make bench`: the figures of the connector, as a table and in `target/bench/results.json`.

mod cost;
mod embedded;
mod end_to_end;
mod fleet;
mod http;
mod inbound;
mod kafka;
mod outbound;
mod pure;
mod report;
mod rss;
mod run;
mod samples;
mod warm;
mod windows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inbound::BareReceiver;
use report::Report;

/// Measures the connector. Prints a table and writes results.json into the target folder.
#[derive(Debug, Parser)]
struct Options {
    /// Only figures whose name begins like this (may be given several times).
    #[arg(long)]
    only: Vec<String>,
    /// Shorter measurements: good enough to see whether everything works, not for comparing.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the benchmark starts as a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    BareReceiver(BareReceiver),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { only, quick, part } = Options::parse();
    match part {
        Some(Part::BareReceiver(options)) => inbound::run_bare(options).await,
        None => run::run(Report::new(only, quick)).await,
    }
}
