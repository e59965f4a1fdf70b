//! Consent (P6, P9, P15): a state machine per conversation, and the classifier of what people answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::OrganizationId;

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

/// The words by which an organization's contacts answer. Case, accents, punctuation and emoji do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentWords {
    /// Accept the opt-in.
    pub accept: Vec<String>,
    /// Decline the opt-in.
    pub decline: Vec<String>,
    /// Opt out. `STOP` itself always counts, whatever stands here.
    pub stop: Vec<String>,
    /// Opt back in.
    pub start: Vec<String>,
}

/// The words of every organization: the default, and the ones that bring their own.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentVocabulary {
    /// For organizations without words of their own.
    pub default: ConsentWords,
    /// Words of single organizations. A list that is left out is the crate's default list.
    pub organizations: BTreeMap<OrganizationId, ConsentWords>,
}

impl ConsentVocabulary {
    /// The words of an organization.
    #[must_use]
    pub fn for_organization(&self, organization: &OrganizationId) -> &ConsentWords {
        self.organizations.get(organization).unwrap_or(&self.default)
    }
}

/// Payload of the quick-reply button that accepts the opt-in.
pub const OPT_IN_ACCEPT: &str = "OPT_IN_ACCEPT";
/// Payload of the quick-reply button that declines the opt-in.
pub const OPT_IN_DECLINE: &str = "OPT_IN_DECLINE";
/// Payload of a quick-reply button that opts out.
pub const STOP: &str = "STOP";
/// Payload of a quick-reply button that opts back in.
pub const START: &str = "START";

/// What a contact's message means. `payload`: the payload or id of a tapped button or row, `text`: what the contact wrote,
/// or the title of the button or row.
#[must_use]
pub fn classify(words: &ConsentWords, payload: Option<&str>, text: Option<&str>) -> Intent {
    let _ = (words, payload, text);
    Intent::Other
}

impl Default for ConsentWords {
    fn default() -> Self {
        Self { accept: vec![], decline: vec![], stop: vec![], start: vec![] }
    }
}
