//! `make demo`: starts everything, plays the story, says where to look, and stays until Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use connector_demo::{Backend, Fleet, FleetError, describe, story, watched};

/// Plays the story of the product on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the connector stands on.
    #[arg(long, default_value = "embedded")]
    backend: Choice,
    /// Play the story once and end; the exit code says whether every step held.
    #[arg(long)]
    once: bool,
    /// Length of the customer service window in seconds (WhatsApp: 24 hours).
    #[arg(long, default_value_t = 15)]
    window: u64,
    /// Folder for data and logs.
    #[arg(long, default_value = ".local/demo")]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    Embedded,
    Kafka,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool, FleetError> {
    let binaries = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)).unwrap_or_default();
    let backend = match arguments.backend {
        Choice::Embedded => Backend::Embedded,
        Choice::Kafka => Backend::Kafka,
    };
    let what = match backend {
        Backend::Embedded => "one process on embedded storage",
        Backend::Kafka => "each service its own process, on Apache Kafka and Redis",
    };
    println!("Starting the connector ({what}) and a simulated WhatsApp …");
    let window = Duration::from_secs(arguments.window);
    let mut fleet = Fleet::start(backend, &binaries, &arguments.folder, window).await?;
    describe(&fleet);

    println!("\nThe story. A customer service window lasts {} s here; WhatsApp's lasts 24 hours.\n", arguments.window);
    let cast = fleet.settings().cast();
    let mut say = |line: &str| println!("{line}");
    let told = story::play(cast, &mut say, async |_| ());
    let held = watched(told, &mut fleet).await?;
    let line = format!("story: {held} of {} steps", story::STEPS);
    if arguments.once {
        fleet.stop();
        println!("\n{line}");
        return Ok(held == story::STEPS);
    }
    println!("\n{line}\n\nEverything stays up. Ctrl-C ends it.");
    let stay = async {
        let _ = tokio::signal::ctrl_c().await;
        0
    };
    watched(stay, &mut fleet).await?;
    fleet.stop();
    Ok(held == story::STEPS)
}
