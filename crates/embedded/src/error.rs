//! Why the file cannot be opened, and what a failure of SQLite means to a caller of the log.

use std::path::PathBuf;

use connector_ports::log::LogError;
use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the log's file cannot be opened. None of it passes by waiting.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Only one process may use a file, by whatever name: offsets and groups are kept in its memory.
    #[error("{} is in use by another process; each process needs a LOG_PATH of its own", path.display())]
    InUse {
        /// The log's file.
        path: PathBuf,
    },
    /// The file, its folder or its lock cannot be created or opened.
    #[error("cannot open {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no SQLite file, is damaged, or cannot be written.
    #[error("cannot use {} as a log", path.display())]
    Database {
        /// The log's file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// It is a SQLite file of something else, the read model perhaps.
    #[error("{} is no log: it was made by something else; LOG_PATH needs a file of its own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of the connector wrote it.
    #[error("{} has format {version}, which this version does not know", path.display())]
    Version {
        /// The log's file.
        path: PathBuf,
        /// Its format.
        version: i64,
    },
}

/// How one piece of work inside a commit failed.
pub(crate) enum Failure {
    /// Before anything was written: the commit goes on without it.
    Refused(LogError),
    /// While writing: the whole commit is rolled back.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Refused(error)
    }
}

/// A failure of SQLite that many callers are told of.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Rolled back; may work later (a full disk, a busy file).
    Unavailable(String),
    /// The commit itself failed: after a restart it may turn out to have happened.
    Uncertain(String),
    /// Damaged or not writable.
    Fatal(String),
}

impl Problem {
    /// Nothing was written.
    pub(crate) fn before_commit(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied,
            ) => Self::Fatal(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }

    /// It is not known what was written.
    pub(crate) fn at_commit(error: &rusqlite::Error) -> Self {
        Self::Uncertain(error.to_string())
    }

    /// The same for one caller.
    pub(crate) fn error(&self) -> LogError {
        match self {
            Self::Unavailable(reason) => LogError::Unavailable { reason: reason.clone() },
            Self::Uncertain(reason) => LogError::Uncertain { reason: reason.clone() },
            Self::Fatal(reason) => LogError::Fatal { reason: reason.clone() },
        }
    }
}
