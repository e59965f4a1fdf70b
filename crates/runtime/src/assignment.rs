//! Assigning a business number to an organization: one at a time, so that of two who do it at once one wins and the other is told (R13).
//!
//! Who assigns a number takes over the transactional id of that number: whoever was at it and has not committed is fenced. What was
//! committed stands before the end of the topic that is then read, and what is decided on it is committed or fenced in turn.

use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_domain::command::DirectoryRecord;
use connector_ports::Log;
use connector_ports::log::{Append, LogError};

use crate::emit::Emitter;
use crate::failure::Failure;
use crate::table::Table;

/// How long the directory may take to be read up to its end.
const SETTLE: Duration = Duration::from_secs(5);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// It stands in the directory.
    Done,
    /// The number belongs to another organization, which has to give it back first.
    Taken,
    /// Somebody else began to assign the same number; theirs counts.
    Contended,
}

/// The transactional id under which a number is assigned in an installation. Others on the same broker assign their own.
#[must_use]
pub fn transactional_id(topics: &Topics, key: &str) -> String {
    topics.prefixed(&format!("directory.{}", key.replace('/', ".")))
}

/// Writes the record of a number (`stays`), or takes it away, unless another organization has it. Settings that the record does not name stay.
///
/// # Errors
/// When the log is away, or the directory cannot be read up to its end in time.
pub async fn assign(
    log: &dyn Log,
    numbers: &Table<DirectoryRecord>,
    emitter: &Emitter,
    record: &DirectoryRecord,
    stays: bool,
) -> Result<Assigned, Failure> {
    let key = record.key().ok_or_else(|| Failure::Fatal("a record without its ids has no place".to_owned()))?;
    let mut transactor = log.transactor(&transactional_id(emitter.topics(), &key)).await.map_err(Failure::waiting)?;
    let known = numbers.newest(&key, SETTLE).await?;
    if known.as_ref().is_some_and(|known| known.organization_id != record.organization_id) {
        return Ok(Assigned::Taken);
    }
    // Who assigns a number again says nothing about what is set for it.
    let settings = record.settings.clone().or_else(|| known.and_then(|known| known.settings.clone()));
    let record = DirectoryRecord { settings, ..record.clone() };
    let written = emitter.record(Topic::Directory, &key, &record, None)?;
    let append = if stays { written } else { Append { value: None, ..written } };
    let committed = match transactor.append(vec![append]).await {
        Ok(appended) => transactor.commit(None).await.map(|()| appended),
        Err(error) => Err(error),
    };
    match committed {
        Ok(appended) => {
            // Whoever enables a user next is told of the number. It is assigned also when the table does not get there in time.
            for written in &appended {
                if let Err(failure) = numbers.reached(written, SETTLE).await {
                    tracing::warn!(%failure, "a number is assigned, and the table has not read it yet");
                }
            }
            Ok(Assigned::Done)
        }
        Err(LogError::Fenced { .. }) => Ok(Assigned::Contended),
        Err(error) => Err(Failure::waiting(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installations_on_one_broker_do_not_fence_each_other() {
        let of = |prefix: &str| transactional_id(&Topics::new(prefix), "number/1");
        assert_eq!((of(""), of("blue")), ("directory.number.1".to_owned(), "blue.directory.number.1".to_owned()));
    }
}
