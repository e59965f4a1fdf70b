//! `make chaos`: harms the fleet while it works. Ends with an error when a promise did not hold.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use connector_chaos::{Options, Outcome, Scenario};

/// Harms a fleet on real servers while it works, and counts what became of the work.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is harmed; everything when nothing is named.
    scenarios: Vec<Scenario>,
    /// How many messages are sent, or delivered, or written by contacts.
    #[arg(long)]
    sends: Option<usize>,
    /// A small and short run.
    #[arg(long)]
    quick: bool,
    /// Decides the order of the harm.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Windows on a Redis Cluster of three masters, one of which dies.
    #[arg(long)]
    cluster: bool,
    /// Folder for data and logs.
    #[arg(long, default_value = ".local/chaos")]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Outcome<bool> {
    let Arguments { scenarios, sends, quick, seed, cluster, folder } = arguments;
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let scenarios = if scenarios.is_empty() { Scenario::value_variants().to_vec() } else { scenarios };
    let mut holds = true;
    for scenario in scenarios {
        let name = format!("{scenario:?}").to_lowercase();
        println!("{name}, seed {seed}");
        let options = Options { sends, quick, seed, cluster, ..Options::new(&programs, &folder.join(&name)) };
        let verdict = scenario.play(&options).await?;
        println!("{}", verdict.line);
        holds &= verdict.holds;
    }
    Ok(holds)
}
