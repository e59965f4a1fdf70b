//! Commands are answered once: where a command belongs, and whether it was answered before (R3).

use bytes::Bytes;
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::{CommandId, StreamId};
use connector_ports::log::{Append, Record};
use connector_ports::partition::partition_for;

use crate::view::Mark;

/// How long an answered command is remembered: longer than its topic keeps it.
pub const MEMORY: std::time::Duration = std::time::Duration::from_secs(8 * 24 * 3600);

/// The header that marks a command as sent on to the partition of its stream, so that it is sent on once.
pub const FORWARDED: &str = "forwarded";

/// The cause id of a command's answer. It carries the digest of the command, so that the memory can be rebuilt from the log.
#[must_use]
pub fn cause(command: CommandId, digest: u64) -> String {
    format!("command:{command}:{digest:016x}")
}

/// What the answer to a command leaves in the memory of answered commands.
#[must_use]
pub fn answered(recorded: &Recorded) -> Option<Mark> {
    if !matches!(recorded.event, Event::MessageAccepted(_) | Event::MessageRejected(_)) {
        return None;
    }
    mark(recorded)
}

/// What any event that a command caused directly leaves in a memory.
#[must_use]
pub fn mark(recorded: &Recorded) -> Option<Mark> {
    let envelope = &recorded.envelope;
    let (_, digest) = envelope.cause_id.strip_prefix("command:")?.split_once(':')?;
    Some(Mark {
        id: mark_id(envelope.command_id?),
        digest: u64::from_str_radix(digest, 16).ok()?,
        until: envelope.recorded_at + MEMORY,
    })
}

/// The id under which an answered command is remembered.
#[must_use]
pub fn mark_id(command: CommandId) -> Bytes {
    Bytes::copy_from_slice(command.0.as_bytes())
}

/// Whether a command stands in the partition of its stream. If not, the same record goes there: all commands of one stream are
/// answered by one worker, whatever key their publishers chose.
///
/// A record that was sent on already is never sent on again: `None` then, too (the number of partitions must have changed).
#[must_use]
pub fn forward(record: &Record, stream: &StreamId, partitions: u32) -> Option<Append> {
    let home = partition_for(stream.as_str().as_bytes(), partitions);
    if home == record.source.partition || record.header(FORWARDED).is_some() {
        return None;
    }
    let mut headers = record.headers.clone();
    headers.push((FORWARDED.into(), Some(Bytes::from_static(b"1"))));
    Some(Append {
        topic: record.source.topic.clone(),
        partition: None,
        key: Some(Bytes::from(stream.as_str().to_owned())),
        value: record.value.clone(),
        headers,
    })
}
