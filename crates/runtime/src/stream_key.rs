//! Whether this process was told the secret that the installation was begun with.
//!
//! With another one every person has another conversation: who wrote STOP is a stranger again. So log, gate and read model carry a
//! fingerprint of the secret, which tells nothing of it, and a process with another one does not start.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::Topic;
use connector_contracts::headers::STREAM_KEY;
use connector_ports::gate::{Change, GateError, View};
use connector_ports::log::{Isolation, LogError, Offset, Polled, Start, TopicPartition};
use thiserror::Error;

use crate::platform::Platform;

/// The view that has nothing but the fingerprint.
const VIEW: View = View::new("stream-key", 0);

/// Its one key.
const KEY: &str = "fingerprint";

/// One poll.
const WAIT: Duration = Duration::from_millis(500);

/// So many polls in a row may bring nothing.
const PATIENCE: u32 = 20;

/// Why a process cannot tell whether it may go on, or may not.
#[derive(Debug, Error)]
pub enum StreamKeyError {
    /// The installation was begun with another secret, or with another name of it.
    #[error(
        "STREAM_SECRET or STREAM_KEY_ID is not the one that {place} was begun with; with another one no conversation, and no STOP, is found \
         again"
    )]
    Another {
        /// What carries the other fingerprint.
        place: &'static str,
    },
    /// The log is away.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The gate is away.
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// Holds the fingerprint against the first records of the log. Whether the log has one at all.
///
/// # Errors
/// [`StreamKeyError::Another`], or when the log is away.
pub async fn check_log(platform: &Platform) -> Result<bool, StreamKeyError> {
    let topic = platform.topic(Topic::ConversationEvents);
    let mut starts = Vec::new();
    for partition in 0..platform.partitions {
        let source = TopicPartition { topic: topic.clone(), partition };
        if platform.log.end_offset(&source, Isolation::Committed).await? > Offset(0) {
            starts.push((source, Start::Beginning));
        }
    }
    if starts.is_empty() {
        return Ok(false);
    }
    let mut silent: BTreeSet<u32> = starts.iter().map(|(source, _)| source.partition).collect();
    let mut reader = platform.log.assign(starts, Isolation::Committed).await?;
    let ours = platform.keys.fingerprint();
    let (mut found, mut idle) = (None, 0);
    // The first record of each partition is enough: whoever wrote it was let in, or was the first.
    while !silent.is_empty() && found.is_none() {
        match reader.poll(WAIT, 100).await? {
            Polled::Records(records) => {
                let first = records.iter().filter(|record| silent.remove(&record.source.partition));
                let told = first.filter_map(|record| record.header(STREAM_KEY)).map(|told| *told == *ours.as_bytes());
                // One that is another's counts, however many are ours.
                found = told.min();
                idle = 0;
            }
            Polled::CaughtUp(source, _) => drop(silent.remove(&source.partition)),
            Polled::Idle if idle == PATIENCE => {
                let reason = "the first records of the log were not told in time".to_owned();
                reader.close().await;
                return Err(LogError::Unavailable { reason }.into());
            }
            Polled::Idle => idle += 1,
            Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) => {}
        }
    }
    reader.close().await;
    match found {
        Some(false) => Err(StreamKeyError::Another { place: "the log" }),
        Some(true) => Ok(true),
        None => Ok(false),
    }
}

/// Holds the fingerprint against the one in the gate, and leaves it there when there is none, or when the log says that it is an old one.
///
/// # Errors
/// [`StreamKeyError::Another`], or when the gate is away.
pub async fn check_gate(platform: &Platform, in_log: bool) -> Result<(), StreamKeyError> {
    let ours = Bytes::from(platform.keys.fingerprint());
    loop {
        let gate = &platform.gate;
        let found = gate.read(&VIEW, &[KEY.to_owned()]).await?.answers.pop().flatten();
        match found {
            Some(found) if found == ours => return Ok(()),
            Some(_) if !in_log => return Err(StreamKeyError::Another { place: "the gate" }),
            Some(_) | None => {}
        }
        let ownership = gate.acquire(&VIEW).await?;
        let next = ownership.applied.map_or(Offset(1), Offset::next);
        let change = Change::Put { key: KEY.to_owned(), value: ours.clone() };
        // Somebody else may be about to write it, too: look again then.
        match gate.apply(&VIEW, ownership.epoch, ownership.applied, next, vec![change]).await {
            Ok(()) | Err(GateError::Conflict { .. } | GateError::Fenced { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
