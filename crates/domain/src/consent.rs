//! Consent (P6, P9, P15): a state machine per conversation, and the classifier of what people answer.

use serde::{Deserialize, Serialize};

/// What a contact's message means for consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Accepts the opt-in.
    Accept,
    /// Declines the opt-in.
    Decline,
    /// STOP in any of the organization's languages.
    Stop,
    /// START in any of the organization's languages.
    Start,
    /// Nothing about consent.
    #[default]
    #[serde(other)]
    Other,
}

/// Where a conversation stands with regard to consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ConsentStatus {
    /// Nobody asked, nobody answered.
    #[default]
    None,
    /// Asked, not answered yet (P9).
    Requested,
    /// The contact accepted.
    Accepted,
    /// The contact declined.
    Declined,
    /// The contact wrote STOP, or an operator revoked.
    OptedOut,
    /// The contact wrote first (P15): replies inside the window, no business-initiated templates.
    Implied,
}

/// The fold of consent.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsentState {
    /// Where it stands.
    pub status: ConsentStatus,
    /// Since when (the `occurred_at` of the event that set it).
    pub since: Option<crate::time::Timestamp>,
    /// The event that set it; an announcement about another event is stale.
    pub source: Option<crate::ids::EventId>,
    /// When an open request ends without an answer.
    pub expires_at: Option<crate::time::Timestamp>,
}
