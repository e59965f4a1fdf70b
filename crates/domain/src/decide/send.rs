//! Whether a message may be sent: when its command is admitted, and again right before each attempt.

use crate::command::{Dispatch, SendMessage};
use crate::composer::Situation;
use crate::decide::{Reason, Rejection};
use crate::event::MessageAccepted;
use crate::settings::Rules;
use crate::template::Template;
use crate::time::Timestamp;

/// Length of a text in UTF-16 units, the larger of the two ways in which WhatsApp may count its 4,096 characters.
#[must_use]
pub fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Decides about a send command. `template` is the catalogue's entry for the command's template, if there is one.
///
/// # Errors
/// The first rule that refuses it.
pub fn decide_send(
    situation: &Situation,
    command: &SendMessage,
    template: Option<&Template>,
    rules: &Rules,
    now: Timestamp,
) -> Result<MessageAccepted, Rejection> {
    let _ = (situation, command, template, rules, now);
    Err(Reason::NotEnabled.at(""))
}

/// Decides again, right before an attempt, whether an accepted message may still leave (P9).
///
/// # Errors
/// The first rule that refuses it now.
pub fn decide_dispatch(
    situation: &Situation,
    dispatch: &Dispatch,
    template: Option<&Template>,
    rules: &Rules,
    now: Timestamp,
) -> Result<(), Rejection> {
    let _ = (situation, dispatch, template, rules, now);
    Err(Reason::NotEnabled.at(""))
}
