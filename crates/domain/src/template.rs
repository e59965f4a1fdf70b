//! Message templates (P13): what WhatsApp approved, checked before a call is made, and previewed.

use serde::{Deserialize, Serialize};

use crate::command::TemplateCall;
use crate::decide::{Reason, Rejection};
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

/// Checks a call against the template that WhatsApp approved (P13).
///
/// # Errors
/// `template_not_sendable` or `template_parameters`.
pub fn check(template: &Template, call: &TemplateCall) -> Result<(), Rejection> {
    let _ = (template, call);
    Err(Reason::TemplateNotSendable.at(""))
}

/// The text that the contact will read: header, body, footer and buttons, placeholders filled as far as values are given.
#[must_use]
pub fn preview(template: &Template, call: &TemplateCall) -> String {
    let _ = (template, call);
    String::new()
}

/// The placeholders of a text (`{{1}}`, `{{first_name}}`) in the order of their first appearance, each once.
#[must_use]
pub fn placeholders(text: &str) -> Vec<String> {
    let _ = text;
    Vec::new()
}
