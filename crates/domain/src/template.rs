//! Message templates (P13): what WhatsApp approved, checked before a call is made, and previewed.

use serde::{Deserialize, Serialize};

use crate::command::{ButtonParameter, TemplateCall, TemplateParameter};
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

    fn is_named(&self) -> bool {
        self.parameter_format.eq_ignore_ascii_case("NAMED")
    }
}

/// A button of the catalogue, `type|text|url-or-empty`.
struct Button<'a> {
    kind: String,
    text: &'a str,
    url: &'a str,
}

impl<'a> Button<'a> {
    fn parse(entry: &'a str) -> Self {
        let mut parts = entry.splitn(3, '|');
        let mut part = || parts.next().unwrap_or_default();
        Self { kind: part().trim().to_ascii_uppercase(), text: part(), url: part() }
    }

    /// The `sub_type` with which a call may fill this button, and whether it must.
    fn takes(&self) -> Option<(&'static str, bool)> {
        match self.kind.as_str() {
            "QUICK_REPLY" => Some(("quick_reply", false)),
            "URL" if !placeholders(self.url).is_empty() => Some(("url", true)),
            // The one-time password goes into the button as well as into the body (authentication templates).
            "OTP" => Some(("url", true)),
            _ => None,
        }
    }
}

/// Checks a call against the template that WhatsApp approved (P13), so that a wrong one is refused before any call is made.
///
/// # Errors
/// `template_not_sendable` when it is another template, in another language, or not approved; `template_parameters` when a
/// placeholder is missing, unknown, filled twice or filled with nothing (WhatsApp: 132000, 132001, 132012, 132015, 132016).
pub fn check(template: &Template, call: &TemplateCall) -> Result<(), Rejection> {
    if template.name != call.name {
        return Err(Reason::TemplateNotSendable.at("content.template.name"));
    }
    if template.language != call.language {
        return Err(Reason::TemplateNotSendable.at("content.template.language"));
    }
    if !template.status.eq_ignore_ascii_case("APPROVED") {
        return Err(Reason::TemplateNotSendable.at("content.template"));
    }
    let named = template.is_named();
    let header = template.header.as_deref().unwrap_or_default();
    check_parameters(header, &call.header, named, "content.template.header")?;
    check_parameters(&template.body, &call.body, named, "content.template.body")?;
    check_buttons(template, &call.buttons)
}

fn check_parameters(
    text: &str,
    given: &[TemplateParameter],
    named: bool,
    field: &'static str,
) -> Result<(), Rejection> {
    let wanted = placeholders(text);
    let wrong = Err(Reason::TemplateParameters.at(field));
    if given.len() != wanted.len() || given.iter().any(|parameter| parameter.text.expose().trim().is_empty()) {
        return wrong;
    }
    let fits = if named {
        // As many as wanted and every wanted one among them: none twice, none unknown.
        wanted.iter().all(|name| given.iter().any(|parameter| parameter.name.as_ref() == Some(name)))
    } else {
        given.iter().all(|parameter| parameter.name.is_none())
    };
    if fits { Ok(()) } else { wrong }
}

fn check_buttons(template: &Template, given: &[ButtonParameter]) -> Result<(), Rejection> {
    let wrong = Err(Reason::TemplateParameters.at("content.template.buttons"));
    let buttons: Vec<_> = template.buttons.iter().map(|entry| Button::parse(entry)).collect();
    for (at, parameter) in given.iter().enumerate() {
        let button = usize::try_from(parameter.index).ok().and_then(|index| buttons.get(index));
        let Some((sub_type, _)) = button.and_then(Button::takes) else { return wrong };
        let twice = given[..at].iter().any(|earlier| earlier.index == parameter.index);
        if twice || parameter.sub_type != sub_type || parameter.text.expose().trim().is_empty() {
            return wrong;
        }
    }
    for (index, button) in buttons.iter().enumerate() {
        let filled = given.iter().any(|parameter| usize::try_from(parameter.index) == Ok(index));
        if button.takes().is_some_and(|(_, required)| required) && !filled {
            return wrong;
        }
    }
    Ok(())
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
    lines.extend(template.buttons.iter().map(|entry| format!("[{}]", Button::parse(entry).text)));
    lines.join("\n")
}

fn fill(text: &str, given: &[TemplateParameter], named: bool) -> String {
    let wanted = placeholders(text);
    let mut filled = String::with_capacity(text.len());
    // In one pass: a value that looks like a placeholder is not filled again.
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => filled.push_str(plain),
            Piece::Placeholder { name, raw } => {
                let parameter = if named {
                    given.iter().find(|parameter| parameter.name.as_deref() == Some(name))
                } else {
                    wanted.iter().position(|wanted| wanted == name).and_then(|at| given.get(at))
                };
                filled.push_str(parameter.map_or(raw, |parameter| parameter.text.expose()));
            }
        }
    }
    filled
}

/// The placeholders of a text, each once: names (`{{first_name}}`) in the order of their first appearance, numbers (`{{1}}`)
/// in numeric order, which is the order of positional parameters.
#[must_use]
pub fn placeholders(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for piece in pieces(text) {
        if let Piece::Placeholder { name, .. } = piece
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    if names.iter().all(|name| name.parse::<u32>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
    }
    names
}

enum Piece<'a> {
    Plain(&'a str),
    Placeholder { name: &'a str, raw: &'a str },
}

/// Cuts a text at its placeholders. Braces around anything but a name or a number are plain text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut plain_from, mut search_from) = (0, 0);
    while let Some(open) = text[search_from..].find("{{").map(|at| at + search_from) {
        let Some(close) = text[open + 2..].find("}}").map(|at| at + open + 2) else { break };
        let name = text[open + 2..close].trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            search_from = open + 1;
            continue;
        }
        pieces.push(Piece::Plain(&text[plain_from..open]));
        pieces.push(Piece::Placeholder { name, raw: &text[open..close + 2] });
        plain_from = close + 2;
        search_from = plain_from;
    }
    pieces.push(Piece::Plain(&text[plain_from..]));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(format: &str, header: Option<&str>, body: &str, buttons: &[&str]) -> Template {
        Template {
            waba_id: "waba".into(),
            organization_id: "acme".into(),
            name: "greeting".to_owned(),
            language: "en_US".to_owned(),
            status: "APPROVED".to_owned(),
            category: "UTILITY".to_owned(),
            parameter_format: format.to_owned(),
            header: header.map(str::to_owned),
            body: body.to_owned(),
            footer: Some("Acme".to_owned()),
            buttons: buttons.iter().map(|button| (*button).to_owned()).collect(),
        }
    }

    fn values(values: &[(Option<&str>, &str)]) -> Vec<TemplateParameter> {
        values
            .iter()
            .map(|(name, text)| TemplateParameter { name: name.map(str::to_owned), text: (*text).into() })
            .collect()
    }

    fn call(
        header: &[(Option<&str>, &str)],
        body: &[(Option<&str>, &str)],
        buttons: &[(i32, &str, &str)],
    ) -> TemplateCall {
        TemplateCall {
            name: "greeting".to_owned(),
            language: "en_US".to_owned(),
            header: values(header),
            body: values(body),
            buttons: buttons
                .iter()
                .map(|(index, sub_type, text)| ButtonParameter {
                    index: *index,
                    sub_type: (*sub_type).to_owned(),
                    text: (*text).into(),
                })
                .collect(),
        }
    }

    fn refused(template: &Template, call: &TemplateCall) -> (Reason, &'static str) {
        let rejection = check(template, call).expect_err("should be refused");
        (rejection.reason, rejection.field)
    }

    #[test]
    fn placeholders_are_found_once_each_and_numbers_in_numeric_order() {
        assert_eq!(placeholders("{{2}} and {{1}}, {{2}} again"), ["1", "2"]);
        assert_eq!(placeholders("Hi {{ name }}, {{order_id}} / {{name}}"), ["name", "order_id"]);
        assert_eq!(placeholders("{{}} {{a b}} {{x {y}} {1} {{"), Vec::<String>::new());
        assert_eq!(placeholders("{{{1}}}"), ["1"]);
    }

    #[test]
    fn positional_parameters_are_counted_and_carry_no_names() {
        let template = template("POSITIONAL", Some("Order {{1}}"), "Hi {{1}}, {{2}} is ready", &[]);
        assert_eq!(check(&template, &call(&[(None, "7")], &[(None, "Ada"), (None, "tea")], &[])), Ok(()));
        let body = (Reason::TemplateParameters, "content.template.body");
        assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada")], &[])), body);
        assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada"), (None, "  ")], &[])), body);
        assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada"), (Some("2"), "tea")], &[])), body);
        let header = (Reason::TemplateParameters, "content.template.header");
        assert_eq!(refused(&template, &call(&[], &[(None, "Ada"), (None, "tea")], &[])), header);
    }

    #[test]
    fn named_parameters_may_come_in_any_order_but_each_exactly_once() {
        let template = template("NAMED", None, "Hi {{name}}, {{item}} for {{name}}", &[]);
        assert_eq!(check(&template, &call(&[], &[(Some("item"), "tea"), (Some("name"), "Ada")], &[])), Ok(()));
        for body in [
            &[(Some("name"), "Ada"), (Some("name"), "Eve")][..],
            &[(Some("name"), "Ada"), (None, "tea")],
            &[(Some("name"), "Ada"), (Some("thing"), "tea")],
            &[(Some("name"), "Ada"), (Some("item"), "tea"), (Some("more"), "x")],
        ] {
            assert_eq!(refused(&template, &call(&[], body, &[])).0, Reason::TemplateParameters);
        }
    }

    #[test]
    fn only_the_approved_template_in_the_right_language_can_be_sent() {
        let approved = template("POSITIONAL", None, "Hi", &[]);
        for status in ["PAUSED", "REJECTED", "DISABLED", "PENDING", "IN_APPEAL", "ARCHIVED", ""] {
            let template = Template { status: status.to_owned(), ..approved.clone() };
            assert_eq!(refused(&template, &call(&[], &[], &[])), (Reason::TemplateNotSendable, "content.template"));
        }
        let german = Template { language: "de".to_owned(), ..approved.clone() };
        let language = (Reason::TemplateNotSendable, "content.template.language");
        assert_eq!(refused(&german, &call(&[], &[], &[])), language);
        let other = Template { name: "other".to_owned(), ..approved };
        assert_eq!(refused(&other, &call(&[], &[], &[])), (Reason::TemplateNotSendable, "content.template.name"));
    }

    #[test]
    fn buttons_take_what_they_need_and_nothing_else() {
        let template = template(
            "POSITIONAL",
            None,
            "Hi",
            &[
                "QUICK_REPLY|Yes|",
                "URL|Track|https://example.org/{{1}}",
                "URL|Home|https://example.org",
                "PHONE_NUMBER|Call|",
            ],
        );
        assert_eq!(check(&template, &call(&[], &[], &[(1, "url", "42")])), Ok(()));
        assert_eq!(check(&template, &call(&[], &[], &[(0, "quick_reply", "OPT_IN_ACCEPT"), (1, "url", "42")])), Ok(()));
        for buttons in [
            &[][..],
            &[(1, "url", "")],
            &[(1, "quick_reply", "42")],
            &[(1, "url", "42"), (1, "url", "43")],
            &[(1, "url", "42"), (2, "url", "43")],
            &[(1, "url", "42"), (9, "url", "43")],
            &[(1, "url", "42"), (-1, "quick_reply", "x")],
        ] {
            assert_eq!(refused(&template, &call(&[], &[], buttons)).1, "content.template.buttons", "{buttons:?}");
        }
    }

    #[test]
    fn the_preview_is_what_the_contact_will_read() {
        let positional = template("POSITIONAL", Some("Order {{1}}"), "{{2}} for {{1}}", &["QUICK_REPLY|Yes|"]);
        let filled = call(&[(None, "7")], &[(None, "Ada"), (None, "{{1}} tea")], &[]);
        assert_eq!(preview(&positional, &filled), "Order 7\n{{1}} tea for Ada\nAcme\n[Yes]");
        assert_eq!(preview(&positional, &call(&[], &[], &[])), "Order {{1}}\n{{2}} for {{1}}\nAcme\n[Yes]");
        let named = template("NAMED", None, "Hi {{ name }}!", &[]);
        assert_eq!(preview(&named, &call(&[], &[(Some("name"), "Zoë 🦊")], &[])), "Hi Zoë 🦊!\nAcme");
    }
}
