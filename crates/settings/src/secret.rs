//! Values that are never shown, and files that hold them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// What stands wherever a secret would have been printed.
pub(crate) const REDACTED: &str = "[redacted]";

/// A value that is never shown: `Debug` prints `[redacted]`, there is no `Display`, and only [`Secret::expose`] gives it out.
/// There is no `==` on purpose: a comparison that leaks time belongs to nobody, use a constant-time one.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text as it is.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The text itself. Every call is a place to review: it must not reach a log, an error or a label.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A secret that may change while the process runs (a token that is renewed): a fixed value, or a file that is read
/// again when it changes.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// The value of the variable; it stays.
    Fixed(Secret),
    /// The file named by `<NAME>_FILE`.
    File(SecretFile),
}

impl SecretSource {
    /// The secret as of now.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or is empty; worth another try, as files are replaced in operation.
    pub fn current(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::File(file) => file.current(),
        }
    }
}

/// A file that holds one secret, read again when its modification time or size changes. Blanks and line ends around the
/// secret do not count. Clones share what was read.
///
/// Reading blocks: one `stat` per call, and a small read after a change.
#[derive(Debug, Clone)]
pub struct SecretFile {
    path: Arc<PathBuf>,
    read: Arc<Mutex<Option<Read>>>,
}

#[derive(Debug)]
struct Read {
    modified: SystemTime,
    size: u64,
    secret: Secret,
}

impl SecretFile {
    /// Names the file; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: Arc::new(path.into()), read: Arc::default() }
    }

    /// Where the secret is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret as it stands in the file now.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or holds nothing.
    pub fn current(&self) -> Result<Secret, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: self.path.to_path_buf(), source };
        let metadata = std::fs::metadata(&*self.path).map_err(unreadable)?;
        let modified = metadata.modified().map_err(unreadable)?;
        let size = metadata.len();
        // A panic elsewhere cannot leave half a value here: the entry is replaced as a whole.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.as_ref()
            && known.modified == modified
            && known.size == size
        {
            return Ok(known.secret.clone());
        }
        let text = std::fs::read_to_string(&*self.path).map_err(unreadable)?;
        if text.trim().is_empty() {
            return Err(SecretError::Empty { path: self.path.to_path_buf() });
        }
        let secret = Secret::new(text.trim());
        *read = Some(Read { modified, size, secret: secret.clone() });
        Ok(secret)
    }
}

/// Why a secret could not be had. Retry: yes, after a while; a mounted secret may be in the middle of its renewal.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is not there, not allowed to be read, or not text.
    #[error("cannot read the secret file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is there and holds nothing.
    #[error("the secret file {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_secret_is_never_printed() {
        let source = SecretSource::Fixed(Secret::new("hunter2"));
        assert_eq!(format!("{source:?}"), "Fixed([redacted])");
    }

    #[test]
    fn a_secret_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let source = SecretSource::File(SecretFile::new(&path));
        assert_eq!(source.current().unwrap().expose(), "first");

        std::fs::write(&path, "other\n").unwrap();
        // Same size: only the modification time tells. It is set by hand so that the test does not wait for the clock.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_eq!(source.current().unwrap().expose(), "other");
        assert!(!format!("{source:?}").contains("other"));
    }

    #[test]
    fn a_missing_or_empty_secret_file_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = SecretFile::new(&path);
        assert!(file.current().unwrap_err().to_string().contains("token"));
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(file.current(), Err(SecretError::Empty { .. })));
    }
}
