//! A command id is used once (R3): the same command again is a repeat, other content under it is a conflict.

use crate::decide::{Reason, Rejection};

/// Whether a command was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Novelty {
    /// Decide about it.
    New,
    /// The same command again: its outcome stands in the log already.
    Repeat,
}

/// Compares a command's digest with the one remembered under its command id, if any.
///
/// # Errors
/// `conflict` when the id was used with other content.
pub fn check_repeat(known: Option<u64>, digest: u64) -> Result<Novelty, Rejection> {
    match known {
        None => Ok(Novelty::New),
        Some(known) if known == digest => Ok(Novelty::Repeat),
        Some(_) => Err(Reason::Conflict.at("command_id")),
    }
}
