//! What a user may do in a conversation right now, as one value that a screen can show (P12).

use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;
use crate::directory::Enablement;
use crate::settings::Rules;
use crate::time::Timestamp;

/// Everything a decision about one user and one conversation looks at.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Situation {
    /// The user's enablement.
    pub enablement: Enablement,
    /// Whether the conversation's contact is in the user's contacts.
    pub is_contact: bool,
    /// The conversation.
    pub conversation: Conversation,
}

/// Why only templates are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOnlyReason {
    /// The contact has consented but never wrote.
    NeverWrote,
    /// 24 hours passed since the contact's last message (P12).
    WindowExpired,
    /// A template was sent after the window ended; the contact has not replied yet (P14).
    AwaitingReply,
}

/// The composer state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Composer {
    /// Free-form text and templates.
    FreeForm {
        /// Until this moment (already less the safety margin).
        until: Timestamp,
        /// Whether business-initiated templates are possible as well (P15).
        templates: bool,
    },
    /// Only templates (P12, P14).
    TemplateOnly {
        /// Since when.
        since: Option<Timestamp>,
        /// Why.
        reason: TemplateOnlyReason,
    },
    /// The contact has to be asked first (P6).
    OptInRequired,
    /// The contact was asked and has not accepted (P9).
    OptInPending {
        /// When.
        asked_at: Option<Timestamp>,
    },
    /// The contact declined or wrote STOP (P9).
    OptedOut,
    /// The organization has not enabled WhatsApp for the user (P1).
    NotEnabled,
    /// The person is not in the user's contacts (P3).
    NotAContact,
}

/// The composer state of a situation.
#[must_use]
pub fn compose(situation: &Situation, rules: &Rules, now: Timestamp) -> Composer {
    let _ = (situation, rules, now);
    Composer::NotEnabled
}
