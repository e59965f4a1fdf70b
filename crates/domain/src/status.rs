//! Delivery status as a lattice (R9): it only moves up.

use serde::{Deserialize, Serialize};

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
