//! Commands are answered once: where a command belongs, and whether it was answered before (R3).

use bytes::Bytes;
use connector_domain::decide::{Reason, Rejection};
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::{CommandId, OrganizationId, StreamId};
use connector_ports::log::{Append, Header, Record};
use connector_ports::partition::partition_for;

use crate::view::Mark;

/// How long an answered command is remembered: longer than its topic keeps it.
pub const MEMORY: std::time::Duration = std::time::Duration::from_secs(8 * 24 * 3600);

/// The header that marks a command as sent on to the partition of its stream, so that it is sent on once.
pub const FORWARDED: &str = "forwarded";

/// The header that carries the digest of a command as its publisher wrote it, where what is sent on was written anew.
pub const DIGEST: &str = "digest";

/// The header that sends a command on to the stream of the user who may not do what it asks for, to be refused there: its value is the
/// field at fault. So a refusal stands in a stream of the asking tenant's own (P4).
pub const NOT_OWNED: &str = "not-owned";

/// The digest of a command as its publisher wrote it.
#[must_use]
pub fn digest(record: &Record, of_content: u64) -> u64 {
    let given = record.header(DIGEST).and_then(|value| std::str::from_utf8(value).ok());
    given.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(of_content)
}

/// The header for [`digest`].
#[must_use]
pub fn digest_header(digest: u64) -> Header {
    (DIGEST.into(), Some(Bytes::from(format!("{digest:016x}"))))
}

/// Whether an event refuses a command because its id stands for another one.
#[must_use]
pub fn is_conflict(event: &Event) -> bool {
    matches!(event, Event::MessageRejected(rejected) if rejected.reason == Reason::Conflict.as_str())
}

/// The record of a command for the stream of its user, to be refused there because of `field`.
#[must_use]
pub fn disown(record: &Record, user: &StreamId, field: &'static str) -> Append {
    let mut headers = record.headers.clone();
    headers.push((NOT_OWNED.into(), Some(Bytes::from_static(field.as_bytes()))));
    Append {
        topic: record.source.topic.clone(),
        partition: None,
        key: Some(Bytes::from(user.as_str().to_owned())),
        value: record.value.clone(),
        headers,
    }
}

/// Why a command was sent to its user's stream to be refused.
#[must_use]
pub fn disowned(record: &Record) -> Option<Rejection> {
    let field = record.header(NOT_OWNED)?;
    Some(match field.as_ref() {
        b"recipient" => Reason::NotAContact.at("recipient"),
        b"user_id" => Reason::NotEnabled.at("user_id"),
        b"command_id" => Reason::Conflict.at("command_id"),
        _ => Reason::NotEnabled.at("phone_number_id"),
    })
}

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
        id: mark_id(&envelope.organization_id, envelope.command_id?),
        digest: u64::from_str_radix(digest, 16).ok()?,
        until: envelope.recorded_at + MEMORY,
    })
}

/// The id under which an answered command is remembered: ids of commands belong to their organization.
#[must_use]
pub fn mark_id(organization: &OrganizationId, command: CommandId) -> Bytes {
    let id = CommandId::derived(&format!("{organization}/{command}"));
    Bytes::copy_from_slice(id.0.as_bytes())
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
