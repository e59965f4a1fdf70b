//! What the window timer says (P12): opened, closing soon, expired. Exactly one expiry per window.

use std::time::Duration;

use crate::conversation::Conversation;
use crate::event::{Event, WindowCause, WindowClosingSoon, WindowExpired, WindowOpened};
use crate::ids::EventId;
use crate::time::Timestamp;
use crate::window;

/// What to announce after `event` with this id turned `before` into `after`: that a window opened which was closed, or never was
/// open. A renewal of an open window is no announcement.
#[must_use]
pub fn announce_window(before: &Conversation, after: &Conversation, id: EventId, event: &Event) -> Option<Event> {
    let deadline = after.deadline?;
    let opened = before.deadline < Some(deadline) && before.window_since != after.window_since;
    let cause = match event {
        Event::MessageReceived(message) => window::cause(&message.message_type),
        Event::CallReceived(_) => WindowCause::Call,
        _ => WindowCause::Unknown,
    };
    opened.then(|| WindowOpened { deadline, source: id, cause }.into())
}

/// The expiry of the window that ends at `deadline`, when a timer for it fires at `now`. `None` when the window was renewed
/// meanwhile, when its expiry already stands in the log, or when the timer is early (R8).
#[must_use]
pub fn decide_expiry(conversation: &Conversation, deadline: Timestamp, now: Timestamp) -> Option<Event> {
    let due = conversation.deadline == Some(deadline)
        && conversation.expired != Some(deadline)
        && window::expiry_due(deadline, now);
    due.then(|| WindowExpired { deadline }.into())
}

/// The warning `lead` before `deadline`, when its timer fires at `now`. `None` when the window was renewed meanwhile, when it
/// has ended already, or when the timer is early.
#[must_use]
pub fn decide_closing_soon(
    conversation: &Conversation,
    deadline: Timestamp,
    lead: Duration,
    now: Timestamp,
) -> Option<Event> {
    let due = conversation.deadline == Some(deadline)
        && conversation.expired != Some(deadline)
        && now >= deadline - lead
        && !window::expiry_due(deadline, now);
    due.then(|| WindowClosingSoon { deadline }.into())
}
