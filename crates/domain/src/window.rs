//! The customer service window (P11, P12): when it ends, whether it is open, what opens it.

use std::time::Duration;

use crate::event::WindowCause;
use crate::settings::Rules;
use crate::time::Timestamp;

/// The end of the window that a contact's message or call opens or renews.
///
/// Counted from WhatsApp's timestamp of the message or call, as WhatsApp counts it, never from our receipt (P11): a delivery that
/// arrives late has less window left. A timestamp after the receipt can only be a skewed clock; it is taken as the receipt,
/// because a deadline that is too late makes WhatsApp refuse (131047), one that is too early only asks for a template.
#[must_use]
pub fn deadline(whatsapp: Timestamp, received_at: Timestamp, rules: &Rules) -> Timestamp {
    whatsapp.min(received_at) + rules.window
}

/// Until when free-form text may leave: the deadline less the safety margin (R2).
#[must_use]
pub fn free_form_until(deadline: Timestamp, margin: Duration) -> Timestamp {
    deadline - margin
}

/// Whether free-form text may leave at `now`: strictly before the deadline less the safety margin.
#[must_use]
pub fn is_open(deadline: Timestamp, margin: Duration, now: Timestamp) -> bool {
    now < free_form_until(deadline, margin)
}

/// Whether an inbound message of this type (Meta's word) opens or renews the window.
///
/// Everything a person does counts, what the connector does not carry included (P5). What WhatsApp itself tells (`system`),
/// what no longer exists (`request_welcome`) and changes to earlier messages (`edit`, `revoke`) do not: Meta does not say
/// that they do, and a window that is assumed wrongly is refused later with 131047.
#[must_use]
pub fn opens_window(message_type: &str) -> bool {
    !matches!(message_type, "" | "system" | "request_welcome" | "edit" | "revoke")
}

/// What the contact did who sent a message of this type.
#[must_use]
pub fn cause(message_type: &str) -> WindowCause {
    match message_type {
        "button" | "interactive" => WindowCause::Reply,
        "reaction" => WindowCause::Reaction,
        _ => WindowCause::Message,
    }
}

/// When `WindowClosingSoon` is due for a window, earliest first.
#[must_use]
pub fn closing_soon_at(deadline: Timestamp, rules: &Rules) -> Vec<Timestamp> {
    let mut moments: Vec<_> = rules.closing_soon.iter().map(|lead| deadline - *lead).collect();
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// Whether the window has ended for WhatsApp, too: the moment of `WindowExpired`.
#[must_use]
pub fn expiry_due(deadline: Timestamp, now: Timestamp) -> bool {
    now >= deadline
}
