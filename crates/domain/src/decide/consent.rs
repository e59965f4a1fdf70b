//! Consent commands (P6, P9) and what the opt-in tracker announces about the contact's answers.

use crate::command::{ConsentCommand, SendMessage, TemplateCall};
use crate::composer::Situation;
use crate::conversation::Conversation;
use crate::decide::{Reason, Rejection};
use crate::event::{Event, MessageReceived};
use crate::ids::EventId;
use crate::settings::Rules;
use crate::time::Timestamp;

/// What follows from a consent command.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConsentDecision {
    /// What the log gets. Empty when the command changes nothing (a notice dismissed twice).
    pub events: Vec<Event>,
    /// The opt-in message to queue, with `purpose` opt-in and a command id derived from the request.
    pub send: Option<SendMessage>,
}

/// Decides about a consent command. `default_template` is the organization's opt-in template.
///
/// # Errors
/// The first rule that refuses it.
pub fn decide_consent(
    situation: &Situation,
    command: &ConsentCommand,
    default_template: Option<&TemplateCall>,
    rules: &Rules,
    now: Timestamp,
) -> Result<ConsentDecision, Rejection> {
    let _ = (situation, command, default_template, rules, now);
    Err(Reason::NotEnabled.at(""))
}

/// What the tracker announces after the contact's message `id` turned `before` into `after`.
#[must_use]
pub fn announce(before: &Conversation, after: &Conversation, id: EventId, received: &MessageReceived) -> Vec<Event> {
    let _ = (before, after, id, received);
    Vec::new()
}

/// What the tracker announces after its own event `id` (`ConsentImported`, `ConsentRevoked`) turned `before` into `after`.
#[must_use]
pub fn announce_ordered(before: &Conversation, after: &Conversation, id: EventId, event: &Event) -> Vec<Event> {
    let _ = (before, after, id, event);
    Vec::new()
}

/// The end of an unanswered opt-in request, when a timer for `expires_at` fires at `now`. `None` when it was answered or
/// repeated meanwhile, or when the timer is early.
#[must_use]
pub fn decide_opt_in_expiry(conversation: &Conversation, expires_at: Timestamp, now: Timestamp) -> Option<Event> {
    let _ = (conversation, expires_at, now);
    None
}
