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
mod samples;
mod warm;
mod windows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inbound::BareReceiver;
use report::{Outcome, Report};
use tokio::signal::unix::{SignalKind, signal};

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
    if let Some(Part::BareReceiver(options)) = part {
        let served = inbound::serve_bare(options).await;
        return served.map_or_else(
            |error| {
                eprintln!("bare receiver: {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let mut report = Report::new(only, quick);
    let stopped = tokio::select! {
        () = measure(&mut report) => Ok(()),
        stop = stop_signal() => stop.and_then(|()| Err("stopped by a signal".into())),
    };
    report.attempt("run", stopped);
    report.finish()
}

async fn measure(report: &mut Report) {
    pure::measure(report);
    let embedded = embedded::measure(report).await;
    report.attempt("embedded", embedded);
    let on_servers = fleet::measure(report).await;
    report.attempt("kafka", on_servers);
    let outbound = outbound::measure(report).await;
    report.attempt("outbound", outbound);
    let inbound = inbound::measure(report).await;
    report.attempt("inbound", inbound);
    let windows = windows::measure(report).await;
    report.attempt("windows", windows);
}

/// Ends the children too: a signal alone would leave them behind.
async fn stop_signal() -> Outcome<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}

/// Where a program lies: beside this one, built with it.
pub(crate) fn program(name: &str) -> Outcome<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if program.is_file() { Ok(program) } else { Err(format!("{name} is not built: make bench does").into()) }
}
