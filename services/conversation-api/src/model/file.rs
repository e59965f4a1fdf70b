//! The file of the read model: whose it is, that nobody else has it, and what is done when it is damaged.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension};
use thiserror::Error;

/// Says of a SQLite file that it is a read model: "WMOD".
const APPLICATION: i64 = 0x574d_4f44;

/// Why the file of the read model cannot be used. None of it passes by waiting.
#[derive(Debug, Error)]
pub enum FileError {
    /// Another process has it open, by this name or another.
    #[error("{} is in use by another process; each process needs a READ_MODEL_PATH of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is a SQLite file of something else, the log perhaps.
    #[error("{} is no read model: it was made by something else; READ_MODEL_PATH needs a file of its own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to an installation with another stream secret.
    #[error(
        "STREAM_SECRET or STREAM_KEY_ID is not the one that the read model was built with; with the right one it goes on, and without its \
         file it is built again"
    )]
    AnotherSecret,
    /// The file or its folder cannot be created, opened or moved.
    #[error("cannot open {}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Whether SQLite says that a file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Locks a file for this process alone, and creates it with its folder. The lock is on the file itself, whatever its name.
pub(super) fn lock(path: &Path) -> Result<File, FileError> {
    let system = |source| FileError::System { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(system)?;
    }
    let lock = File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(system)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(FileError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(system(source)),
    }
}

/// Puts a damaged file aside, so that the model is built in a new one. It is kept: it may be something else that somebody misses.
pub(super) fn put_aside(path: &Path) -> Result<(), FileError> {
    let system = |source| FileError::System { path: path.to_owned(), source };
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    tracing::warn!(file = %path.display(), "the read model is damaged; it is put aside and built again");
    std::fs::rename(path, beside(".damaged")).map_err(system)?;
    for end in ["-wal", "-shm"] {
        match std::fs::remove_file(beside(end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(system(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Marks a new file as a read model; refuses one of something else.
pub(super) fn claim(connection: &Connection, path: Option<&Path>) -> Result<Result<(), FileError>, rusqlite::Error> {
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let used = ask("SELECT EXISTS (SELECT 1 FROM sqlite_master)")? != 0;
    if used && ask("PRAGMA application_id")? != APPLICATION {
        return Ok(Err(FileError::Foreign { path: path.unwrap_or(Path::new(":memory:")).to_owned() }));
    }
    claim_again(connection)?;
    Ok(Ok(()))
}

/// Marks a file as a read model.
pub(super) fn claim_again(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!("PRAGMA application_id = {APPLICATION};"))
}

/// Holds the fingerprint of the stream secret against the one the model was built with; a new model keeps it.
pub(super) fn keep_stream_key(connection: &Connection, ours: &str) -> Result<Result<(), FileError>, rusqlite::Error> {
    let sql = "SELECT value FROM facts WHERE name = 'stream_key'";
    let found: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    match found {
        Some(found) if found != ours => Ok(Err(FileError::AnotherSecret)),
        Some(_) => Ok(Ok(())),
        None => {
            connection.execute("INSERT INTO facts (name, value) VALUES ('stream_key', ?1)", [ours])?;
            Ok(Ok(()))
        }
    }
}
