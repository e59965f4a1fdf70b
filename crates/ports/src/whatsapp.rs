//! WhatsApp's Graph API as the workers know it. One call is one request; nothing behind this trait repeats a POST (R4).

use std::time::Duration;

use async_trait::async_trait;
use connector_domain::command::{Content, NumberState};
use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, OrganizationId, PhoneNumberId, WabaId};
use connector_domain::outcome::Exchange;
use connector_domain::template::Template;
use thiserror::Error;

use crate::retry::Retry;

/// One message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The sending number.
    pub phone_number_id: PhoneNumberId,
    /// The recipient: by phone when there is one, else by BSUID.
    pub address: Address,
    /// What is sent.
    pub content: Content,
    /// Travels in `biz_opaque_callback_data`.
    pub attempt_id: AttemptId,
}

/// The business profile a contact sees behind the sender (P8).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BusinessProfile {
    /// 1 to 139 characters.
    pub about: Option<String>,
    /// Up to 256 characters.
    pub address: Option<String>,
    /// Up to 512 characters.
    pub description: Option<String>,
    /// Up to 128 characters.
    pub email: Option<String>,
    /// Up to two, of 256 characters.
    pub websites: Vec<String>,
    /// One of Meta's words, e.g. `RETAIL`.
    pub vertical: Option<String>,
    /// Where the picture is; read only.
    pub picture_url: Option<String>,
    /// Whether the sender shows the verified mark; read only.
    pub official: bool,
}

/// Why a management call (not a send) failed.
#[derive(Debug, Error)]
pub enum WhatsAppError {
    /// No answer, or one that asks to come back later.
    #[error("WhatsApp is not available: {reason}")]
    Unavailable {
        /// What was observed, without payload.
        reason: String,
    },
    /// A definite refusal.
    #[error("WhatsApp refused with code {code}")]
    Refused {
        /// Graph error code.
        code: i64,
    },
}

impl WhatsAppError {
    /// What the caller may do.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Later,
            Self::Refused { .. } => Retry::Never,
        }
    }
}

/// The Graph API.
#[async_trait]
pub trait WhatsApp: Send + Sync {
    /// Makes exactly one POST, or none. Never fails: what was observed, and whether bytes may have left, is the result.
    async fn send(&self, outbound: &Outbound) -> Exchange;

    /// The longest a [`WhatsApp::send`] takes: this long after it was called none of its bytes is on its way any more.
    fn longest_send(&self) -> Duration;

    /// All templates of an account, whatever their status.
    async fn templates(&self, organization: &OrganizationId, waba: &WabaId) -> Result<Vec<Template>, WhatsAppError>;

    /// What WhatsApp reports about a number: its limits and its state.
    async fn number_state(&self, number: &PhoneNumberId) -> Result<NumberState, WhatsAppError>;

    /// The business profile of a number.
    async fn profile(&self, number: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError>;

    /// Sets what is `Some` (and a non-empty list of websites).
    async fn set_profile(&self, number: &PhoneNumberId, profile: &BusinessProfile) -> Result<(), WhatsAppError>;
}
