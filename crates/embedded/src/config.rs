//! The one setting of the embedded log.

use std::path::PathBuf;

use connector_settings::{Group, Kind, Reader, Variable};

const LOG_PATH: Variable = Variable::with_default(
    "LOG_PATH",
    Kind::Path,
    "data/log.sqlite",
    "The SQLite file of the embedded log. It is created with its folder; only one process may use it at a time.",
);

/// Where the embedded log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The SQLite file.
    pub path: PathBuf,
}

impl EmbeddedConfig {
    /// The variables this reads, for the reference page.
    pub const GROUP: Group = Group {
        title: "Embedded log",
        doc: "The log of one machine without servers: a SQLite file. The gate is in memory and is built from the log.",
        used_by: &["connector"],
        variables: &[LOG_PATH],
    };

    /// Reads it; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        reader.path(&LOG_PATH).map(|path| Self { path })
    }
}
