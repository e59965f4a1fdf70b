//! The body of `POST /{phone_number_id}/messages`, and the checks of its shape.

use serde::Deserialize;
use serde_json::Value;

use super::errors::GraphError;

/// Longest text body, in characters.
pub(crate) const MAX_TEXT: usize = 4096;
/// Longest `biz_opaque_callback_data`, in characters.
pub(crate) const MAX_OPAQUE: usize = 512;

/// Everything a request may hold. Unknown fields are ignored, as Graph does for this endpoint.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct MessageRequest {
    pub(crate) messaging_product: Option<String>,
    pub(crate) recipient_type: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) recipient: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) context: Option<Context>,
    pub(crate) biz_opaque_callback_data: Option<String>,
    pub(crate) text: Option<TextBody>,
    pub(crate) template: Option<TemplateRequest>,
    pub(crate) image: Option<Value>,
    pub(crate) audio: Option<Value>,
    pub(crate) video: Option<Value>,
    pub(crate) document: Option<Value>,
    pub(crate) sticker: Option<Value>,
    pub(crate) location: Option<Value>,
    pub(crate) contacts: Option<Value>,
    pub(crate) interactive: Option<Value>,
    pub(crate) reaction: Option<Value>,
    /// `read` in a mark-as-read request.
    pub(crate) status: Option<String>,
    /// The inbound message to mark as read.
    pub(crate) message_id: Option<String>,
    pub(crate) typing_indicator: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Context {
    pub(crate) message_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TextBody {
    pub(crate) body: Option<String>,
}

/// `template` of a send.
#[derive(Debug, Deserialize)]
pub(crate) struct TemplateRequest {
    pub(crate) name: Option<String>,
    pub(crate) language: Option<Language>,
    #[serde(default)]
    pub(crate) components: Vec<Component>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Language {
    pub(crate) code: Option<String>,
}

/// One component of a template send.
#[derive(Debug, Deserialize)]
pub(crate) struct Component {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// What kind of button it fills.
    #[serde(default)]
    pub(crate) sub_type: String,
    /// A string in Meta's examples; numbers are accepted as well.
    index: Option<Value>,
    #[serde(default)]
    pub(crate) parameters: Vec<Parameter>,
}

impl Component {
    pub(crate) fn is_button(&self) -> bool {
        self.kind.eq_ignore_ascii_case("button")
    }

    /// Place of the button.
    pub(crate) fn index(&self) -> Option<usize> {
        match self.index.as_ref()? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
            _ => None,
        }
    }
}

/// One parameter of a component.
#[derive(Debug, Deserialize)]
pub(crate) struct Parameter {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) parameter_name: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) payload: Option<String>,
    pub(crate) coupon_code: Option<String>,
    pub(crate) currency: Option<Value>,
    pub(crate) date_time: Option<Value>,
}

/// Types of messages besides text and template.
const OTHER_TYPES: &str =
    "AUDIO, CONTACTS, DOCUMENT, IMAGE, INTERACTIVE, LOCATION, REACTION, STICKER, TEMPLATE, TEXT, VIDEO";

impl MessageRequest {
    /// Parses a body; a shape that is not JSON or has a wrong kind of value is error 100.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, GraphError> {
        serde_json::from_slice(body).map_err(|error| {
            let what = if error.is_data() { "Invalid parameter" } else { "Invalid JSON in the request body" };
            GraphError::param(what).details(format!("line {} column {}", error.line(), error.column()))
        })
    }

    /// The type; a missing one means text.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("text")
    }

    /// `messaging_product` is required everywhere.
    pub(crate) fn check_product(&self) -> Result<(), GraphError> {
        match self.messaging_product.as_deref() {
            None => Err(GraphError::param("The parameter messaging_product is required.")),
            Some("whatsapp") => Ok(()),
            Some(_) => Err(GraphError::param("Param messaging_product must be one of {WHATSAPP}")),
        }
    }

    /// Checks the shape of a message, without regard to who gets it.
    pub(crate) fn check_shape(&self) -> Result<(), GraphError> {
        self.check_product()?;
        if self.biz_opaque_callback_data.as_deref().is_some_and(|data| data.chars().count() > MAX_OPAQUE) {
            return Err(GraphError::param(format!(
                "Param biz_opaque_callback_data must be at most {MAX_OPAQUE} characters long."
            )));
        }
        if self.recipient_type.as_deref().is_some_and(|kind| kind != "individual" && kind != "group") {
            return Err(GraphError::param("Param recipient_type must be one of {GROUP, INDIVIDUAL}"));
        }
        let required = |name: &str| {
            GraphError::new(131_008).details(format!("Parameter '{name}' is mandatory for type '{}'", self.kind()))
        };
        let object = match self.kind() {
            "text" => {
                let body =
                    self.text.as_ref().and_then(|text| text.body.as_deref()).ok_or_else(|| required("text.body"))?;
                return match body.chars().count() {
                    0 => Err(required("text.body")),
                    1..=MAX_TEXT => Ok(()),
                    _ => Err(GraphError::param(format!(
                        "Param text['body'] must be at most {MAX_TEXT} characters long."
                    ))),
                };
            }
            "template" => {
                let template = self.template.as_ref().ok_or_else(|| required("template"))?;
                if template.name.as_deref().unwrap_or_default().is_empty() {
                    return Err(required("template.name"));
                }
                let code = template.language.as_ref().and_then(|language| language.code.as_deref());
                return if code.unwrap_or_default().is_empty() {
                    Err(required("template.language.code"))
                } else {
                    Ok(())
                };
            }
            "image" => &self.image,
            "audio" => &self.audio,
            "video" => &self.video,
            "document" => &self.document,
            "sticker" => &self.sticker,
            "location" => &self.location,
            "contacts" => &self.contacts,
            "interactive" => &self.interactive,
            "reaction" => &self.reaction,
            _ => return Err(GraphError::param(format!("Param type must be one of {{{OTHER_TYPES}}}"))),
        };
        let object = object.as_ref().ok_or_else(|| required(self.kind()))?;
        match self.kind() {
            "image" | "audio" | "video" | "document" | "sticker"
                if object["id"].is_null() == object["link"].is_null() =>
            {
                Err(GraphError::new(131_009).details("exactly one of id and link is needed"))
            }
            "reaction" if object["message_id"].as_str().is_none() => Err(required("reaction.message_id")),
            "interactive" if object["type"].as_str().is_none() => Err(required("interactive.type")),
            "location" if object["latitude"].is_null() || object["longitude"].is_null() => {
                Err(required("location.latitude"))
            }
            _ => Ok(()),
        }
    }

    /// What the contact sees: the text, or a caption, or the type in brackets.
    pub(crate) fn shown_text(&self) -> String {
        if let Some(body) = self.text.as_ref().and_then(|text| text.body.as_ref()) {
            return body.clone();
        }
        if let Some(reaction) = &self.reaction {
            return reaction["emoji"].as_str().unwrap_or_default().to_owned();
        }
        if let Some(text) = self.interactive.as_ref().and_then(|i| i["body"]["text"].as_str()) {
            return text.to_owned();
        }
        let media = [&self.image, &self.video, &self.document];
        let caption = media.into_iter().flatten().find_map(|object| object["caption"].as_str());
        caption.map_or_else(|| format!("[{}]", self.kind()), str::to_owned)
    }
}

/// A phone number as its digits, if it can be one: `+`, spaces, `-` and brackets are dropped.
pub(crate) fn digits(to: &str) -> Option<String> {
    let mut digits = String::with_capacity(to.len());
    for c in to.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '+' | ' ' | '-' | '(' | ')' => {}
            _ => return None,
        }
    }
    (7..=15).contains(&digits.len()).then_some(digits)
}

/// Whether a recipient has the form of a business-scoped user id: `CC.…`.
pub(crate) fn is_user_id(to: &str) -> bool {
    to.split_once('.').is_some_and(|(country, rest)| {
        country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase()) && !rest.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Result<(), u32> {
        MessageRequest::parse(body.as_bytes()).and_then(|request| request.check_shape()).map_err(|error| error.code)
    }

    #[test]
    fn shapes_are_checked_as_graph_does() {
        assert_eq!(code(r#"{"messaging_product":"whatsapp","to":"1","type":"text","text":{"body":"x"}}"#), Ok(()));
        assert_eq!(code(r#"{"to":"1","type":"text","text":{"body":"x"}}"#), Err(100));
        assert_eq!(code(r#"{"messaging_product":"whatsapp","type":"text","text":{}}"#), Err(131_008));
        assert_eq!(code(r#"{"messaging_product":"whatsapp","type":"text","text":{"body":7}}"#), Err(100));
        assert_eq!(code(r#"{"messaging_product":"whatsapp","type":"fax","fax":{}}"#), Err(100));
        assert_eq!(code(r#"{"messaging_product":"whatsapp","type":"image","image":{"id":"1"}}"#), Ok(()));
        assert_eq!(code(r#"{"messaging_product":"whatsapp","type":"image","image":{}}"#), Err(131_009));
        assert_eq!(code("{"), Err(100));
    }

    #[test]
    fn a_text_of_4097_characters_is_too_long() {
        let text = |n: usize| format!(r#"{{"messaging_product":"whatsapp","text":{{"body":"{}"}}}}"#, "é".repeat(n));
        assert_eq!(code(&text(4096)), Ok(()));
        assert_eq!(code(&text(4097)), Err(100));
    }

    #[test]
    fn phone_numbers_are_reduced_to_digits() {
        assert_eq!(digits("+1 (650) 555-1234").as_deref(), Some("16505551234"));
        assert_eq!(digits("call me"), None);
        assert_eq!(digits("12"), None);
    }
}
