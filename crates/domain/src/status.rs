//! Delivery status as a lattice (R9): it only moves up.

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// What WhatsApp reports about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Left WhatsApp's servers.
    Sent,
    /// Reached a device.
    Delivered,
    /// Was opened. Implies delivered.
    Read,
    /// A voice message was played. Implies read.
    Played,
    /// Will not be delivered.
    Failed,
    /// The recipient deleted it (legacy).
    Deleted,
    /// A warning (legacy).
    Warning,
    /// A status Meta invented later; the raw item says which.
    #[serde(other)]
    Unknown,
}

/// What became of a command, as the read model shows it. The order of the variants is the lattice (R9): a message only
/// moves down this list, so facts may arrive in any order.
///
/// `Failed` stands between `Sent` and `Delivered`: it ends a message, unless a device was reached. WhatsApp reports both for a
/// person with several devices, and a message that was read has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Queued.
    Accepted,
    /// WhatsApp's answer got lost; any status settles it (R4).
    Unconfirmed,
    /// WhatsApp took it.
    Sent,
    /// Will not be delivered.
    Failed,
    /// Reached a device.
    Delivered,
    /// Was opened (or played).
    Read,
    /// Refused; nothing left.
    Rejected,
}

impl MessageState {
    /// The state as the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unconfirmed => "unconfirmed",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Rejected => "rejected",
        }
    }

    /// The state after an event about this message; `None` before its first. Events about other things change nothing.
    #[must_use]
    pub fn after(current: Option<Self>, event: &Event) -> Option<Self> {
        let said = match event {
            Event::MessageAccepted(_) => Self::Accepted,
            Event::MessageRejected(_) => Self::Rejected,
            Event::MessageSent(_) => Self::Sent,
            Event::MessageFailed(_) => Self::Failed,
            Event::MessageUnconfirmed(_) => Self::Unconfirmed,
            Event::MessageStatusChanged(changed) => of(changed.status),
            _ => return current,
        };
        Some(current.map_or(said, |current| current.max(said)))
    }
}

/// What a status says about a message. One that says nothing about delivery still proves that WhatsApp took it.
const fn of(status: DeliveryStatus) -> MessageState {
    match status {
        DeliveryStatus::Sent | DeliveryStatus::Deleted | DeliveryStatus::Warning | DeliveryStatus::Unknown => {
            MessageState::Sent
        }
        DeliveryStatus::Delivered => MessageState::Delivered,
        DeliveryStatus::Read | DeliveryStatus::Played => MessageState::Read,
        DeliveryStatus::Failed => MessageState::Failed,
    }
}

/// The state of a message after WhatsApp reported `status`. Never goes back.
#[must_use]
pub fn advance(current: MessageState, status: DeliveryStatus) -> MessageState {
    current.max(of(status))
}
