//! The operator's tool: what `connectorctl` can do, and in which exit code it ends ([`EXIT_CODES`]).
//!
//! `topics`, `log`, `import` and `dlq` read the settings of the backend from the environment, as the services do (`BACKEND`, `KAFKA_…`,
//! `LOG_PATH`, `TOPIC_PREFIX`). The embedded log serves one process: stop the connector first. `audit` needs Kafka and Redis, and the
//! `WINDOW_…` settings of the services.

mod audit;
mod dlq;
mod import;
mod journal;
mod log;
mod open;
pub mod show;
mod topics;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use connector_ports::Retry;
use thiserror::Error;

/// What the exit codes mean, as `--help` says it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   done, and everything is as it should be
  1   it is not: something differs, is wrong in a file, or was not found
  2   the command line
  64  the settings, or what was asked for, cannot work
  69  Kafka or Redis is away: nothing is known about what was asked for";

/// `connectorctl`
#[derive(Debug, Parser)]
#[command(name = "connectorctl", version, about = "Looks after the connector's topics, log and dead letters", after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create topics, or check those that are there. A wrong number of partitions is refused, never changed.
    Topics {
        #[command(subcommand)]
        action: topics::Action,
    },
    /// Print events of the log as readable lines. Texts of messages are printed.
    Log(log::Options),
    /// Publish entries of the directory, or consent given elsewhere, from a file: CSV with a header line, or one JSON object per line.
    Import {
        #[command(subcommand)]
        what: import::Action,
    },
    /// Hold the views in Redis against the log, and print the ids of conversations about which they disagree. Reads the log from its
    /// beginning and changes nothing.
    Audit(audit::Options),
    /// Look at records of the journal of attempts that cannot be read, and accept them: nothing is sent from their partitions before.
    Journal {
        #[command(subcommand)]
        action: journal::Action,
    },
    /// Look at dead letters. Facts only: their content is not printed.
    Dlq {
        #[command(subcommand)]
        action: dlq::Action,
    },
}

/// Why a command did not get through.
#[derive(Debug, Error)]
pub(crate) enum Failed {
    /// The environment; every problem is listed.
    #[error("{0}")]
    Settings(#[from] connector_settings::Problems),
    /// The backend's settings cannot work at all.
    #[error("cannot open the log")]
    Open(#[from] connector_host::OpenError),
    /// The log is away or refuses.
    #[error("the log does not answer")]
    Log(#[from] connector_ports::log::LogError),
    /// Log or gate are away, or the view was built under other settings.
    #[error("the views cannot be compared")]
    Compare(#[from] connector_runtime::failure::Failure),
    /// What is read from a file does not fit the schema of its topic.
    #[error("an entry cannot be written")]
    Schema(#[from] connector_contracts::ContractError),
    /// A file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    /// Nobody reads what is printed.
    #[error("cannot print")]
    Print(#[from] std::io::Error),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
}

impl Failed {
    const fn exit_code(&self) -> u8 {
        use connector_runtime::failure::Failure;
        match self {
            Self::Settings(_) | Self::Usage(_) => 64,
            Self::Log(error) => match error.retry() {
                Retry::Later | Retry::Reinitialise | Retry::Fenced => 69,
                Retry::Never => 1,
            },
            Self::Compare(Failure::Later(_) | Failure::Reinitialise(_)) => 69,
            Self::Compare(Failure::Fenced(_) | Failure::Fatal(_))
            | Self::Open(_)
            | Self::Schema(_)
            | Self::File(_)
            | Self::Print(_)
            | Self::NotFound(_) => 1,
        }
    }
}

/// Runs one command and prints to `out`.
pub async fn run(cli: Cli, out: &mut (dyn Write + Send)) -> ExitCode {
    let done = match cli.command {
        Command::Topics { action } => topics::run(&action, out).await,
        Command::Log(options) => log::run(&options, out).await.map(|()| true),
        Command::Import { what } => import::run(&what, out).await,
        Command::Audit(options) => audit::run(&options, out).await,
        Command::Journal { action } => journal::run(&action, out).await,
        Command::Dlq { action } => dlq::run(&action, out).await.map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failed) => {
            let mut text = failed.to_string();
            let mut cause = std::error::Error::source(&failed);
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            // Nobody is left to be told when stderr is closed.
            let _ = writeln!(std::io::stderr(), "connectorctl: {text}");
            ExitCode::from(failed.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_put_together_rightly() {
        Cli::command().debug_assert();
    }

    #[test]
    fn away_is_not_drift_and_not_found_is_neither_and_help_says_so() {
        use connector_ports::log::LogError;
        use connector_runtime::failure::Failure;
        let away = LogError::Unavailable { reason: "a test".to_owned() };
        let fatal = LogError::Fatal { reason: "a test".to_owned() };
        for (failed, code) in [
            (Failed::Log(away), 69),
            (Failed::Compare(Failure::Later("a test".to_owned())), 69),
            (Failed::Log(fatal), 1),
            (Failed::NotFound("nothing".to_owned()), 1),
            (Failed::Usage("wrong".to_owned()), 64),
        ] {
            assert_eq!(failed.exit_code(), code, "{failed:?}");
        }
        let help = Cli::command().render_help().to_string();
        for code in ["0 ", "1 ", "2 ", "64", "69"] {
            assert!(help.contains(&format!("\n  {code}")), "{code} is not in {help}");
        }
    }
}
