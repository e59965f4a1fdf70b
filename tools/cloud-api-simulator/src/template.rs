//! Message templates: what they contain, and filling one with the parameters of a send.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::graph::{
    errors::GraphError,
    request::{Component, Parameter, TemplateRequest},
};

/// A template as the world file, the control API and `GET /{waba}/message_templates` show it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Template {
    /// Node id; 0 means "give it one".
    #[serde(default)]
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) language: String,
    #[serde(default = "utility")]
    pub(crate) category: String,
    #[serde(default = "positional")]
    pub(crate) parameter_format: String,
    #[serde(default = "approved")]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) components: Vec<Value>,
    #[serde(default)]
    pub(crate) sub_category: Option<String>,
    #[serde(default)]
    pub(crate) rejected_reason: Option<String>,
}

fn utility() -> String {
    "UTILITY".to_owned()
}

fn positional() -> String {
    "POSITIONAL".to_owned()
}

fn approved() -> String {
    "APPROVED".to_owned()
}

/// What the contact sees of a template message.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Filled {
    pub(crate) header: Option<String>,
    pub(crate) body: String,
    pub(crate) footer: Option<String>,
    pub(crate) buttons: Vec<FilledButton>,
}

/// A button of a template message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilledButton {
    /// `QUICK_REPLY`, `URL`, ...
    pub(crate) kind: String,
    pub(crate) text: String,
    /// What a tap sends back; only quick replies have it.
    pub(crate) payload: Option<String>,
    /// Where a URL button leads.
    pub(crate) url: Option<String>,
}

impl Filled {
    /// For the phone's screen.
    pub(crate) fn json(&self) -> Value {
        let buttons: Vec<Value> = self
            .buttons
            .iter()
            .map(|b| json!({"type": b.kind, "text": b.text, "payload": b.payload, "url": b.url}))
            .collect();
        json!({"header": self.header, "body": self.body, "footer": self.footer, "buttons": buttons})
    }
}

impl Template {
    /// One of its components, by upper-case type.
    fn component(&self, kind: &str) -> Option<&Value> {
        self.components.iter().find(|c| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(kind)))
    }

    /// The Graph API's form.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name, "parameter_format": self.parameter_format, "components": self.components,
            "language": self.language, "status": self.status, "category": self.category, "id": self.id.to_string(),
            "rejected_reason": self.rejected_reason.as_deref().unwrap_or("NONE"),
            "quality_score": {"score": "UNKNOWN", "date": 1_767_225_600},
        });
        if let Some(sub_category) = &self.sub_category {
            value["sub_category"] = json!(sub_category);
        }
        value
    }

    /// Whether it can be sent: 132015 paused, 132016 disabled, 132001 anything else but approved.
    pub(crate) fn check_sendable(&self) -> Result<(), GraphError> {
        match self.status.as_str() {
            "APPROVED" => Ok(()),
            "PAUSED" => Err(GraphError::new(132_015).details("Template is paused due to low quality")),
            "DISABLED" => Err(GraphError::new(132_016).details("Template is disabled permanently")),
            _ => Err(Self::missing(&self.name, &self.language)),
        }
    }

    /// 132001 for a name and language that cannot be used.
    pub(crate) fn missing(name: &str, language: &str) -> GraphError {
        GraphError::new(132_001).details(format!("template name ({name}) does not exist in {language}"))
    }

    /// Fills the template.
    ///
    /// # Errors
    /// 132000 for a wrong number of parameters or a mix of named and positional ones, 132012 for a wrong kind, 132018 for a text that no
    /// parameter may have, 132005 for a text that is too long when filled, 131008 and 131009 for what a button lacks.
    pub(crate) fn fill(&self, request: &TemplateRequest) -> Result<Filled, GraphError> {
        let named = self.parameter_format.eq_ignore_ascii_case("NAMED");
        let given = |kind: &str| request.components.iter().find(|c| c.kind.eq_ignore_ascii_case(kind));
        let mut filled = Filled::default();
        if let Some(header) = self.component("HEADER") {
            filled.header = fill_header(header, given("header"), named)?;
        } else if given("header").is_some() {
            return Err(GraphError::new(132_000).details("header: number of localizable_params does not match (0)"));
        }
        let text = self.component("BODY").and_then(|body| body["text"].as_str()).unwrap_or_default();
        filled.body = substitute("body", text, given("body"), named)?;
        filled.footer = self.component("FOOTER").and_then(|footer| footer["text"].as_str()).map(str::to_owned);
        if let Some(buttons) = self.component("BUTTONS").and_then(|c| c["buttons"].as_array()) {
            for (index, button) in buttons.iter().enumerate() {
                filled.buttons.push(fill_button(index, button, &request.components)?);
            }
        }
        for component in &self.components {
            check_other(component, &request.components)?;
        }
        let beyond = |c: &&Component| c.is_button() && c.index().is_none_or(|i| i >= filled.buttons.len());
        if request.components.iter().any(|c| beyond(&c)) {
            return Err(GraphError::new(131_009).details("buttons: index is not one of the template's buttons"));
        }
        Ok(filled)
    }
}

/// Components beside header, body, footer and buttons: nothing of them can be left out of a send.
fn check_other(component: &Value, given: &[Component]) -> Result<(), GraphError> {
    let kind = component["type"].as_str().unwrap_or_default().to_ascii_uppercase();
    let is_given = given.iter().any(|c| c.kind.eq_ignore_ascii_case(&kind) && !c.is_button());
    match kind.as_str() {
        "CAROUSEL" if !is_given => {
            Err(GraphError::new(132_012)
                .details("carousel: Format mismatch, number of cards does not match the template"))
        }
        "LIMITED_TIME_OFFER" if !is_given => {
            Err(GraphError::new(131_008).details("limited_time_offer: component is missing"))
        }
        _ => Ok(()),
    }
}

/// Longest header and body when filled.
const MAX_HEADER: usize = 60;
const MAX_BODY: usize = 1024;

/// 132005 for a filled text that is too long.
fn check_length(part: &str, filled: String) -> Result<String, GraphError> {
    let longest = if part == "header" { MAX_HEADER } else { MAX_BODY };
    if filled.chars().count() <= longest {
        return Ok(filled);
    }
    Err(GraphError::new(132_005).details(format!("{part}: Translated text too long, at most {longest} characters")))
}

/// 132018 for a line break, a tab or more than four spaces in a row.
fn check_text(part: &str, text: &str) -> Result<(), GraphError> {
    if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
        let details =
            format!("{part}: Param text cannot have new-line/tab characters or more than 4 consecutive spaces");
        return Err(GraphError::new(132_018).details(details));
    }
    Ok(())
}

fn fill_header(header: &Value, given: Option<&Component>, named: bool) -> Result<Option<String>, GraphError> {
    let format = header["format"].as_str().unwrap_or("TEXT");
    if format.eq_ignore_ascii_case("TEXT") {
        let text = header["text"].as_str().unwrap_or_default();
        return substitute("header", text, given, named).map(Some);
    }
    let wrong =
        || GraphError::new(132_012).details(format!("header: Format mismatch, expected {format}, received none"));
    let parameter = given.and_then(|c| c.parameters.first()).ok_or_else(wrong)?;
    if parameter.kind.eq_ignore_ascii_case(format) {
        return Ok(Some(format!("[{}]", format.to_ascii_lowercase())));
    }
    let received = parameter.kind.to_ascii_uppercase();
    Err(GraphError::new(132_012).details(format!("header: Format mismatch, expected {format}, received {received}")))
}

fn fill_button(index: usize, button: &Value, components: &[Component]) -> Result<FilledButton, GraphError> {
    let kind = button["type"].as_str().unwrap_or_default().to_ascii_uppercase();
    let text = button["text"].as_str().unwrap_or_default().to_owned();
    let mut of_button = components.iter().filter(|c| c.is_button() && c.index() == Some(index));
    let given = of_button.next();
    if of_button.next().is_some() {
        return Err(GraphError::new(131_009).details(format!("buttons: Button at index {index} is given twice")));
    }
    if let Some(component) = given.filter(|component| !is_of(&kind, &component.sub_type)) {
        let sub_type = &component.sub_type;
        let details = format!("buttons: Button at index {index} of type {kind} does not match sub_type {sub_type}");
        return Err(GraphError::new(131_009).details(details));
    }
    let parameter = given.and_then(|c| c.parameters.first());
    let required = |code: u32| {
        GraphError::new(code).details(format!("buttons: Button at index {index} of type {kind} requires a parameter"))
    };
    let mut filled = FilledButton { payload: None, url: None, text, kind: kind.clone() };
    match kind.as_str() {
        "QUICK_REPLY" => {
            // A quick reply whose send names no payload sends its own text back.
            filled.payload = Some(parameter.and_then(|p| p.payload.clone()).unwrap_or_else(|| filled.text.clone()));
        }
        "URL" => {
            let url = button["url"].as_str().unwrap_or_default();
            let suffix = parameter.and_then(|p| p.text.as_deref()).filter(|suffix| !suffix.is_empty());
            filled.url = Some(match (url.contains("{{1}}"), suffix) {
                (true, Some(suffix)) => {
                    check_text("buttons", suffix)?;
                    url.replace("{{1}}", suffix)
                }
                (true, None) => return Err(required(131_008)),
                (false, Some(_)) => {
                    let details = format!("buttons: Button at index {index} of type Url does not take a parameter");
                    return Err(GraphError::new(132_018).details(details));
                }
                (false, None) => url.to_owned(),
            });
        }
        "COPY_CODE" => {
            let parameter = parameter.ok_or_else(|| required(131_008))?;
            let code = parameter.coupon_code.as_deref().filter(|_| parameter.kind == "coupon_code");
            let code = code.ok_or_else(|| {
                GraphError::new(132_012).details("buttons: Format mismatch, expected COUPON_CODE".to_owned())
            })?;
            if !(1..=15).contains(&code.chars().count()) {
                return Err(GraphError::new(131_009).details("buttons: a coupon code has 1 to 15 characters"));
            }
            check_text("buttons", code)?;
        }
        "OTP" if parameter.is_none() => return Err(required(131_008)),
        "FLOW" | "MPM" if parameter.is_none() => return Err(required(131_009)),
        _ => {}
    }
    Ok(filled)
}

/// Whether a component of this `sub_type` fills a button of this type.
fn is_of(kind: &str, sub_type: &str) -> bool {
    match kind {
        // One-time codes are filled like links.
        "OTP" => sub_type.eq_ignore_ascii_case("url"),
        _ => sub_type.eq_ignore_ascii_case(kind),
    }
}

/// Names of the placeholders `{{name}}` of a text, each once, in order.
fn placeholders(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        let name = name.trim();
        if !names.contains(&name) {
            names.push(name);
        }
        rest = after;
    }
    names
}

fn substitute(part: &str, text: &str, given: Option<&Component>, named: bool) -> Result<String, GraphError> {
    let names = placeholders(text);
    let parameters = given.map_or(&[][..], |c| c.parameters.as_slice());
    if parameters.len() != names.len() {
        let details = format!(
            "{part}: number of localizable_params ({}) does not match the expected number of params ({})",
            parameters.len(),
            names.len()
        );
        return Err(GraphError::new(132_000).details(details));
    }
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let name = match (named, parameter.parameter_name.as_deref()) {
            (true, Some(name)) if names.contains(&name) => name,
            (false, None) => names[index],
            _ => {
                let details = format!("{part}: parameter names do not match those of the template");
                return Err(GraphError::new(132_000).details(details));
            }
        };
        values.insert(name, value_of(part, parameter)?);
    }
    if values.len() != names.len() {
        return Err(GraphError::new(132_000).details(format!("{part}: a parameter name is used twice")));
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        filled.push_str(before);
        filled.push_str(values.get(name.trim()).map_or("", String::as_str));
        rest = after;
    }
    filled.push_str(rest);
    check_length(part, filled)
}

/// The text of a parameter.
fn value_of(part: &str, parameter: &Parameter) -> Result<String, GraphError> {
    let fallback = |value: &Option<Value>| value.as_ref().and_then(|v| v["fallback_value"].as_str()).map(str::to_owned);
    let value = match parameter.kind.as_str() {
        "text" => {
            let text = parameter.text.clone().filter(|text| !text.is_empty()).ok_or_else(|| {
                GraphError::new(131_008).details(format!("{part}: Parameter of type text is missing text value"))
            })?;
            Some(text)
        }
        "currency" => fallback(&parameter.currency),
        "date_time" => fallback(&parameter.date_time),
        _ => None,
    };
    let value = value.ok_or_else(|| {
        let details =
            format!("{part}: Format mismatch, expected TEXT, received {}", parameter.kind.to_ascii_uppercase());
        GraphError::new(132_012).details(details)
    })?;
    check_text(part, &value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(value: Value) -> Template {
        serde_json::from_value(value).expect("a template")
    }

    fn request(components: Value) -> TemplateRequest {
        serde_json::from_value(json!({"name": "t", "language": {"code": "en"}, "components": components}))
            .expect("a request")
    }

    fn two_positional() -> Template {
        template(json!({"name": "t", "language": "en", "components": [
            {"type": "BODY", "text": "Hello {{1}}, see you {{2}}."},
            {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Yes"}, {"type": "QUICK_REPLY", "text": "No"}]}]}))
    }

    #[test]
    fn positional_parameters_fill_the_body_and_buttons_get_their_payloads() {
        let filled = two_positional()
            .fill(&request(json!([
                {"type": "body", "parameters": [{"type": "text", "text": "Ada"},
                    {"type": "date_time", "date_time": {"fallback_value": "Monday"}}]},
                {"type": "button", "sub_type": "quick_reply", "index": "0",
                    "parameters": [{"type": "payload", "payload": "YES"}]}])))
            .expect("fits");
        assert_eq!(filled.body, "Hello Ada, see you Monday.");
        assert_eq!(filled.buttons[0].payload.as_deref(), Some("YES"));
        assert_eq!(filled.buttons[1].payload.as_deref(), Some("No"));
    }

    #[test]
    fn a_wrong_number_of_parameters_is_132000_and_a_wrong_kind_132012() {
        let code = |components| two_positional().fill(&request(components)).map_err(|e| e.code);
        assert_eq!(code(json!([])), Err(132_000));
        let image = json!([{"type": "body", "parameters": [{"type": "text", "text": "a"}, {"type": "image"}]}]);
        assert_eq!(code(image), Err(132_012));
        let named = json!([{"type": "body", "parameters": [{"type": "text", "text": "a", "parameter_name": "x"},
            {"type": "text", "text": "b", "parameter_name": "y"}]}]);
        assert_eq!(code(named), Err(132_000));
    }

    #[test]
    fn named_parameters_come_in_any_order() {
        let template = template(json!({"name": "t", "language": "en", "parameter_format": "NAMED", "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Order"},
            {"type": "BODY", "text": "{{item}} for {{name}}, {{name}}!"}]}));
        let filled = template
            .fill(&request(json!([{"type": "body", "parameters": [
                {"type": "text", "parameter_name": "name", "text": "Bo"},
                {"type": "text", "parameter_name": "item", "text": "Tea {{name}}"}]}])))
            .expect("fits");
        assert_eq!(filled.body, "Tea {{name}} for Bo, Bo!");
        assert_eq!(filled.header.as_deref(), Some("Order"));
    }

    #[test]
    fn what_whatsapp_refuses_is_refused_with_its_code() {
        let one = |components: Value| template(json!({"name": "t", "language": "en", "components": components}));
        let code =
            |template: &Template, components: Value| template.fill(&request(components)).map_err(|e| e.code).err();
        let body = |text: &str| json!([{"type": "body", "parameters": [{"type": "text", "text": text}]}]);
        let order = one(json!([{"type": "BODY", "text": "Hi {{1}}"}]));
        for text in ["a\nb", "a\rb", "a\tb", "a     b"] {
            assert_eq!(code(&order, body(text)), Some(132_018), "{text:?}");
        }
        assert_eq!(code(&order, body("a    b")), None);
        assert_eq!(code(&order, body("")), Some(131_008));
        assert_eq!(code(&order, body(&"a".repeat(1021))), None);
        assert_eq!(code(&order, body(&"a".repeat(1022))), Some(132_005));
        let header =
            one(json!([{"type": "HEADER", "format": "TEXT", "text": "{{1}}"}, {"type": "BODY", "text": "Hi"}]));
        let long = json!([{"type": "header", "parameters": [{"type": "text", "text": "a".repeat(61)}]}]);
        assert_eq!(code(&header, long), Some(132_005));
        for (kind, wanted) in [("FLOW", 131_009), ("MPM", 131_009), ("OTP", 131_008), ("COPY_CODE", 131_008)] {
            let buttons =
                json!([{"type": "BODY", "text": "Hi"}, {"type": "BUTTONS", "buttons": [{"type": kind, "text": "Go"}]}]);
            assert_eq!(code(&one(buttons), json!([])), Some(wanted), "{kind}");
        }
        for (component, wanted) in [("CAROUSEL", 132_012), ("LIMITED_TIME_OFFER", 131_008)] {
            let components = json!([{"type": component}, {"type": "BODY", "text": "Hi"}]);
            assert_eq!(code(&one(components), json!([])), Some(wanted), "{component}");
        }
        for format in ["IMAGE", "VIDEO", "DOCUMENT", "LOCATION"] {
            let components = json!([{"type": "HEADER", "format": format}, {"type": "BODY", "text": "Hi"}]);
            assert_eq!(code(&one(components), json!([])), Some(132_012), "{format}");
        }
    }

    #[test]
    fn a_button_takes_a_component_of_its_own_kind_once() {
        let coupon = template(json!({"name": "t", "language": "en", "components": [{"type": "BODY", "text": "Hi"},
            {"type": "BUTTONS", "buttons": [{"type": "COPY_CODE"}, {"type": "URL", "url": "https://a.example"}]}]}));
        let button = |index: u8, sub_type: &str, parameter: Value| json!({"type": "button", "sub_type": sub_type, "index": index, "parameters": [parameter]});
        let code = |components: Value| coupon.fill(&request(components)).map_err(|e| e.code).err();
        let given = button(0, "copy_code", json!({"type": "coupon_code", "coupon_code": "25OFF"}));
        assert_eq!(code(json!([given])), None);
        assert_eq!(code(json!([given, given])), Some(131_009));
        assert_eq!(code(json!([button(0, "copy_code", json!({"type": "text", "text": "25OFF"}))])), Some(132_012));
        assert_eq!(code(json!([button(0, "quick_reply", json!({"type": "payload", "payload": "x"}))])), Some(131_009));
        let long = json!({"type": "coupon_code", "coupon_code": "1234567890123456"});
        assert_eq!(code(json!([button(0, "copy_code", long)])), Some(131_009));
        let link = button(1, "url", json!({"type": "text", "text": "x"}));
        assert_eq!(code(json!([given, link])), Some(132_018));
    }

    #[test]
    fn only_approved_templates_can_be_sent() {
        let code = |status: &str| {
            let template = Template { status: status.to_owned(), ..two_positional() };
            template.check_sendable().map_err(|e| e.code)
        };
        assert_eq!(code("APPROVED"), Ok(()));
        assert_eq!(code("PAUSED"), Err(132_015));
        assert_eq!(code("DISABLED"), Err(132_016));
        assert_eq!(code("REJECTED"), Err(132_001));
    }
}
