//! What a handler or a port call can fail with, as the loop understands it.

use connector_contracts::ContractError;
use connector_ports::Retry;
use connector_ports::gate::GateError;
use connector_ports::log::LogError;
use thiserror::Error;

/// A failure, sorted by what the loop does about it.
#[derive(Debug, Error)]
pub enum Failure {
    /// Wait and do the same again.
    #[error("not possible now: {0}")]
    Later(String),
    /// What is in memory may be wrong: drop it, read the state again, go on from there.
    #[error("the state has to be read again: {0}")]
    Reinitialise(String),
    /// Somebody newer owns the work: drop it.
    #[error("a newer owner took over: {0}")]
    Fenced(String),
    /// The process ends with this reason.
    #[error("cannot go on: {0}")]
    Fatal(String),
}

impl Failure {
    fn sorted(retry: Retry, text: String) -> Self {
        match retry {
            Retry::Later => Self::Later(text),
            Retry::Reinitialise => Self::Reinitialise(text),
            Retry::Fenced => Self::Fenced(text),
            Retry::Never => Self::Fatal(text),
        }
    }

    /// A failure of the log for whoever waits for a topic that is not there as for a log that is away: it may be made, or made again.
    #[must_use]
    pub fn waiting(error: LogError) -> Self {
        match error {
            LogError::UnknownTopic { .. } => Self::Later(error.to_string()),
            error => error.into(),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::sorted(error.retry(), error.to_string())
    }
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Self {
        Self::sorted(error.retry(), error.to_string())
    }
}

/// Encoding what we made ourselves only fails by a mistake of ours.
impl From<ContractError> for Failure {
    fn from(error: ContractError) -> Self {
        Self::Fatal(error.to_string())
    }
}
