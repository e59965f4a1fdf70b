//! The folds of a user's stream: whether WhatsApp is enabled (P1, P2), and who the contacts are (P3).

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::identity::Address;
use crate::ids::{PhoneNumberId, StreamId};

/// Whether a user may use WhatsApp, and whether they have been told.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Enablement {
    /// P1.
    pub enabled: bool,
    /// The number the user writes from.
    pub phone_number_id: Option<PhoneNumberId>,
    /// P2: the notice waits to be dismissed.
    pub notice_pending: bool,
    /// P2: the notice was raised once already and never comes back.
    pub notice_raised: bool,
}

impl Enablement {
    /// Folds one event of the user's stream. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        let _ = event;
    }
}

/// One entry of a user's contact list, with regard to one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContactEntry {
    /// The conversation the entry leads to; `None` once it was removed.
    pub conversation_id: Option<StreamId>,
    /// How WhatsApp addresses the contact.
    pub address: Address,
}
