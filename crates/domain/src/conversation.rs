//! The fold of one conversation: who the contact is, what they consented to, until when free-form text is possible.

use serde::{Deserialize, Serialize};

use crate::consent::ConsentState;
use crate::event::Event;
use crate::identity::Address;
use crate::ids::{EventId, PhoneNumberId, StreamId};
use crate::time::Timestamp;

/// What decisions need to know about a conversation. Small: it is stored per conversation in the gate.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Conversation {
    /// The business number of the conversation.
    pub phone_number_id: Option<PhoneNumberId>,
    /// How WhatsApp addresses the contact.
    pub address: Address,
    /// Set when this stream is only an alias (R10).
    pub canonical: Option<StreamId>,
    /// The stream ids that are aliases of this conversation.
    pub aliases: Vec<StreamId>,
    /// What the contact agreed to.
    pub consent: ConsentState,
    /// The end of the current or last customer service window. Moves forward only.
    pub deadline: Option<Timestamp>,
    /// When the contact last wrote, by WhatsApp's clock.
    pub last_inbound: Option<Timestamp>,
    /// When the window that ends at `deadline` was opened (first message after a closed time), for `WindowOpened`.
    pub window_since: Option<Timestamp>,
    /// The last deadline whose expiry stands in the log.
    pub expired: Option<Timestamp>,
    /// When a template was last accepted for sending; free-form text needs a reply after it once the window is over (P14).
    pub last_template: Option<Timestamp>,
    /// The contact stopped marketing messages in WhatsApp itself.
    pub marketing_stopped: bool,
}

impl Conversation {
    /// Folds one event of this conversation's stream, which happened at `at` (its envelope's `occurred_at`) and has the id `id`.
    /// Total: any event in any order is taken, foreign ones change nothing.
    pub fn evolve(&mut self, event: &Event, id: EventId, at: Timestamp) {
        let _ = (event, id, at);
    }
}
