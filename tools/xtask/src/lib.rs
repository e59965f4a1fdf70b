//! Checks and generators of this repository. Each check says what is wrong and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, Subcommand};
use thiserror::Error;

pub mod catalogue;
pub mod deps;
pub mod schemas;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Checks and generators of this repository")]
pub struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The Avro schemas of schemas/
    #[command(subcommand)]
    Schemas(Schemas),
    /// Checks which crate may depend on which
    Deps,
    /// Writes docs/reference/event-catalogue.md from the schemas
    Catalogue {
        /// Writes nothing; fails when the file is not up to date
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Schemas {
    /// Fails when a schema cannot read, or be read by, any earlier version of it
    Check {
        /// A git ref or a folder with the version to compare with, besides those in schemas/history
        #[arg(long, default_value = "HEAD")]
        against: String,
    },
    /// Copies the types of schemas/shared into the files that inline them, and formats all files
    Sync {
        /// Writes nothing; fails when a file is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Puts the earlier version of every changed schema into schemas/history
    Record {
        /// A git ref or a folder with the earlier version
        #[arg(long, default_value = "HEAD")]
        against: String,
    },
}

/// Why a task ended badly.
#[derive(Debug, Error)]
pub enum Failure {
    /// The check found something.
    #[error("{what}:\n{}", Lines(.findings))]
    Found {
        /// What was checked.
        what: &'static str,
        /// One sentence each.
        findings: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something that must be JSON or a schema is not.
    #[error("{what}: {detail}")]
    Broken {
        /// Which file or output.
        what: String,
        /// Why.
        detail: String,
    },
    /// git or cargo did not do what they were asked.
    #[error("`{command}` failed: {detail}")]
    Tool {
        /// What was called.
        command: String,
        /// What it said.
        detail: String,
    },
}

struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "  - {line}"))
    }
}

impl Failure {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn broken(what: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Broken { what: what.into(), detail: detail.to_string() }
    }
}

/// `Ok` when there are no findings.
pub(crate) fn conclude(what: &'static str, findings: Vec<String>) -> Result<(), Failure> {
    if findings.is_empty() { Ok(()) } else { Err(Failure::Found { what, findings }) }
}

/// Does the task in the repository this program was built in; the message is for the terminal.
///
/// # Errors
/// When a check finds something, or a file or tool is in the way.
pub fn run(xtask: Xtask) -> Result<String, Failure> {
    let root = root();
    match xtask.task {
        Task::Schemas(Schemas::Check { against }) => {
            let compared = schemas::check(&root, &against)?;
            Ok(format!("schemas: {compared} earlier versions compared, all readable in both directions"))
        }
        Task::Schemas(Schemas::Sync { check }) => {
            let written = schemas::sync(&root.join("schemas"), check)?;
            Ok(format!("schemas: {written} files brought up to date"))
        }
        Task::Schemas(Schemas::Record { against }) => {
            let recorded = schemas::record(&root, &against)?;
            Ok(format!("schemas: {recorded} earlier versions put into schemas/history"))
        }
        Task::Deps => {
            let checked = deps::check_workspace(&root)?;
            Ok(format!("deps: {checked} crates depend only on what they may"))
        }
        Task::Catalogue { check } => {
            catalogue::write(&root, check)?;
            Ok("catalogue: docs/reference/event-catalogue.md is up to date".to_owned())
        }
    }
}

fn root() -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
    tool.ancestors().nth(2).unwrap_or(tool).to_owned()
}

pub(crate) fn output(root: &Path, program: &str, args: &[&str]) -> Result<String, Failure> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .current_dir(root)
        .output()
        .map_err(|e| Failure::Tool { command: command(), detail: e.to_string() })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::Tool { command: command(), detail: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::file(path, e))
}

pub(crate) fn save(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    std::fs::write(path, text).map_err(|e| Failure::file(path, e))
}
