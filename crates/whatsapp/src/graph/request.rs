//! The JSON of a request to `/messages`, exactly as WhatsApp wants it.

use connector_domain::command::{ButtonParameter, Content, ContentKind, TemplateCall, TemplateParameter};
use connector_domain::form::Formed;
use connector_domain::identity::Address;
use connector_domain::ids::PhoneNumber;
use connector_ports::whatsapp::Outbound;
use serde_json::{Value, json};

/// The body of `POST /<phone number id>/messages`; `None` when the content lacks what its kind needs, or has no recipient.
///
/// Contains the recipient and the text: for the wire only.
#[must_use]
pub fn request_body(outbound: &Outbound) -> Option<Value> {
    let content = &outbound.content;
    match content.kind {
        ContentKind::Text => {
            let text = content.text.as_ref()?.expose();
            message(outbound, "text", json!({ "body": text, "preview_url": content.preview_url }))
        }
        ContentKind::Template => message(outbound, "template", template(content.template.as_ref()?)),
        ContentKind::Read => read(content),
        ContentKind::Typing => {
            let mut body = read(content)?;
            body["typing_indicator"] = json!({ "type": "text" });
            Some(body)
        }
        ContentKind::Unknown => None,
    }
}

fn message(outbound: &Outbound, kind: &str, object: Value) -> Option<Value> {
    let mut body = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "type": kind,
        // Not an idempotency key: WhatsApp only repeats it in every status of the message.
        "biz_opaque_callback_data": outbound.attempt_id.to_string(),
    });
    body[kind] = object;
    let (field, recipient) = recipient(&outbound.address)?;
    body[field] = recipient.into();
    if let Some(wamid) = &outbound.content.reply_to {
        body["context"] = json!({ "message_id": wamid.as_str() });
    }
    Some(body)
}

/// The field that names the recipient: a phone number goes before a user id. Each only in its own form: WhatsApp accepts a user id in `to`, and
/// drops the message without a word; and a phone number in the place of a user id is somebody whose consent was never looked at under it.
fn recipient(address: &Address) -> Option<(&'static str, String)> {
    let phone = address.phone.as_ref().map(PhoneNumber::expose).filter(|phone| is_phone_number(phone));
    // Without the plus sign Meta would put the business number's country code in front.
    let to = phone.map(|phone| ("to", format!("+{}", phone.trim_start_matches('+'))));
    let bsuid = address.bsuid.as_ref().filter(|bsuid| bsuid.is_formed());
    to.or_else(|| bsuid.map(|bsuid| ("recipient", bsuid.expose().to_owned())))
}

fn is_phone_number(id: &str) -> bool {
    let digits = id.strip_prefix('+').unwrap_or(id);
    (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Marks a message as read. Has neither recipient nor callback data: it addresses a message, and no status follows.
fn read(content: &Content) -> Option<Value> {
    let wamid = content.reply_to.as_ref()?.as_str();
    Some(json!({ "messaging_product": "whatsapp", "status": "read", "message_id": wamid }))
}

fn template(call: &TemplateCall) -> Value {
    let mut components = Vec::new();
    for (kind, parameters) in [("header", &call.header), ("body", &call.body)] {
        // A component without placeholders is left out.
        if !parameters.is_empty() {
            let parameters: Vec<_> = parameters.iter().map(parameter).collect();
            components.push(json!({ "type": kind, "parameters": parameters }));
        }
    }
    components.extend(call.buttons.iter().map(button));
    let mut template = json!({ "name": call.name, "language": { "code": call.language } });
    if !components.is_empty() {
        template["components"] = components.into();
    }
    template
}

fn parameter(parameter: &TemplateParameter) -> Value {
    let mut value = json!({ "type": "text", "text": parameter.text.expose() });
    if let Some(name) = &parameter.name {
        value["parameter_name"] = name.as_str().into();
    }
    value
}

fn button(button: &ButtonParameter) -> Value {
    let text = button.text.expose();
    let parameter = match button.sub_type.as_str() {
        "quick_reply" => json!({ "type": "payload", "payload": text }),
        "copy_code" => json!({ "type": "coupon_code", "coupon_code": text }),
        _ => json!({ "type": "text", "text": text }),
    };
    json!({
        "type": "button",
        "sub_type": button.sub_type,
        "index": button.index.to_string(),
        "parameters": [parameter],
    })
}
