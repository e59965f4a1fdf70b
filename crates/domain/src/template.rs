//! Message templates (P13): what WhatsApp approved, checked before a call is made, and previewed.

use serde::{Deserialize, Serialize};

use crate::ids::{OrganizationId, WabaId};

/// `whatsapp.templates.v1` (compacted), key `<waba_id>/<name>/<language>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The account it belongs to.
    pub waba_id: WabaId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Its name.
    pub name: String,
    /// Its language, e.g. `en_US`.
    pub language: String,
    /// WhatsApp's status: only `APPROVED` can be sent.
    pub status: String,
    /// `MARKETING`, `UTILITY` or `AUTHENTICATION`.
    pub category: String,
    /// `NAMED` or `POSITIONAL`.
    pub parameter_format: String,
    /// Text of the header, when it is text.
    pub header: Option<String>,
    /// Text of the body with its placeholders.
    pub body: String,
    /// Text of the footer.
    pub footer: Option<String>,
    /// Texts of the buttons, each `type|text|url-or-empty`.
    #[serde(default)]
    pub buttons: Vec<String>,
}

impl Template {
    /// The key of its slot in the compacted topic.
    #[must_use]
    pub fn key(waba: &WabaId, name: &str, language: &str) -> String {
        format!("{waba}/{name}/{language}")
    }
}
