//! Message templates (P13): what WhatsApp approved, checked before a call is made, and previewed.

use serde::{Deserialize, Serialize};

use crate::command::TemplateCall;
use crate::decide::{Reason, Rejection};
use crate::ids::{OrganizationId, WabaId};

mod obstacle;
mod placeholder;
mod values;

pub use obstacle::{ButtonValue, Obstacle, obstacle};
pub use placeholder::placeholders;

use placeholder::fill;

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
    /// `TEXT`, `IMAGE`, `VIDEO`, `DOCUMENT`, `LOCATION` and what WhatsApp may add; `None` without a header.
    #[serde(default)]
    pub header_format: Option<String>,
    /// Text of the header, when it is text.
    pub header: Option<String>,
    /// Text of the body with its placeholders.
    pub body: String,
    /// Text of the footer.
    pub footer: Option<String>,
    /// Its buttons, in their order.
    #[serde(default)]
    pub buttons: Vec<TemplateButton>,
    /// Types of the components that are none of header, body, footer and buttons, e.g. `CAROUSEL`.
    #[serde(default)]
    pub other_components: Vec<String>,
}

/// A button of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateButton {
    /// WhatsApp's type: `QUICK_REPLY`, `URL`, `PHONE_NUMBER`, `COPY_CODE`, `FLOW` and more.
    pub kind: String,
    /// Its title.
    #[serde(default)]
    pub text: String,
    /// Where a `URL` button leads, with its placeholder.
    #[serde(default)]
    pub url: Option<String>,
}

impl Template {
    /// The key of its slot in the compacted topic.
    #[must_use]
    pub fn key(waba: &WabaId, name: &str, language: &str) -> String {
        format!("{waba}/{name}/{language}")
    }

    fn is_named(&self) -> bool {
        self.parameter_format.eq_ignore_ascii_case("NAMED")
    }
}

/// Checks a call against the template that WhatsApp approved (P13), so that a wrong one is refused before any call is made.
///
/// # Errors
/// `template_not_sendable` when it is another template, in another language, not approved, or needs what a call cannot give
/// ([`obstacle`]); `template_parameters` when a value is missing, unknown, given twice, empty, too long, or of a form that WhatsApp refuses
/// (its codes: 132000, 132001, 132005, 132012, 132015, 132016, 132018, 131008, 131009).
pub fn check(template: &Template, call: &TemplateCall) -> Result<(), Rejection> {
    if template.name != call.name {
        return Err(Reason::TemplateNotSendable.at("content.template.name"));
    }
    if template.language != call.language {
        return Err(Reason::TemplateNotSendable.at("content.template.language"));
    }
    if let Some(obstacle) = obstacle(template) {
        return Err(obstacle.rejection());
    }
    values::check(template, call)
}

/// The text that the contact will read: header, body, footer and button titles, placeholders filled as far as values are
/// given. A placeholder without a value stays visible, so that a preview of a half-filled form shows what is missing.
#[must_use]
pub fn preview(template: &Template, call: &TemplateCall) -> String {
    let named = template.is_named();
    let mut lines = Vec::new();
    if let Some(header) = &template.header {
        lines.push(fill(header, &call.header, named));
    }
    lines.push(fill(&template.body, &call.body, named));
    lines.extend(template.footer.clone());
    lines.extend(template.buttons.iter().map(|button| format!("[{}]", button.text)));
    lines.join("\n")
}

/// A part of a call that has values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header.
    Header,
    /// The body.
    Body,
    /// The buttons.
    Buttons,
}

/// The first part of a call with a value that no template takes, known before the template is.
#[must_use]
pub fn misshapen(call: &TemplateCall) -> Option<Part> {
    values::misshapen(call)
}

#[cfg(test)]
mod tests;
