//! Reading a JSON body field by field, so that an answer names every field at fault and not only the first.

use std::cell::RefCell;
use std::collections::BTreeSet;

use axum::extract::{FromRequest, Request};
use connector_domain::command::{ButtonParameter, Recipient, TemplateCall, TemplateParameter};
use connector_domain::form::Formed;
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::{FieldError, Problem};

/// A request body that is a JSON object. Nothing else of it is checked yet.
pub(crate) struct Body(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        super::extract::object(request, state).await.map(Self)
    }
}

impl Body {
    /// Reads the body with `read`, which notes what is wrong.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Form<'_>) -> Option<T>) -> Result<T, Problem> {
        let notes = Notes::default();
        let value = read(&Form { object: &self.0, path: String::new(), notes: &notes });
        let mut errors = notes.errors.into_inner();
        let (known, closed) = (notes.known.into_inner(), notes.closed.into_inner());
        Strangers { known: &known, closed: &closed, named: 0, errors: &mut errors }.of_object(&self.0, "");
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(Problem::invalid(errors)),
        }
    }
}

/// What was found out while a body was read.
#[derive(Default)]
struct Notes {
    errors: RefCell<Vec<FieldError>>,
    /// The paths that were asked for.
    known: RefCell<BTreeSet<String>>,
    /// The paths of objects that were read field by field: what else stands in them is a mistake.
    closed: RefCell<BTreeSet<String>>,
}

/// Longest name of an unknown field that is repeated.
const LONGEST_NAME: usize = 64;

/// Most unknown fields that are named.
const MOST_STRANGERS: usize = 16;

/// Names the fields that nobody has asked for: a field that is misspelled must not be a field that is missing.
struct Strangers<'a> {
    known: &'a BTreeSet<String>,
    closed: &'a BTreeSet<String>,
    named: usize,
    errors: &'a mut Vec<FieldError>,
}

impl Strangers<'_> {
    fn of_object(&mut self, object: &Map<String, Value>, path: &str) {
        for (name, value) in object {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if self.known.contains(&at) {
                self.within(value, &at);
                continue;
            }
            self.named += 1;
            if self.named > MOST_STRANGERS {
                return;
            }
            let shown = at.char_indices().nth(LONGEST_NAME).map_or(at.as_str(), |(end, _)| &at[..end]);
            self.errors.push(FieldError::new(shown, "there is no such field"));
        }
    }

    fn within(&mut self, value: &Value, path: &str) {
        match value {
            Value::Object(inner) if self.closed.contains(path) => self.of_object(inner, path),
            Value::Array(list) => {
                for (n, value) in list.iter().enumerate().filter(|(_, value)| value.is_object()) {
                    self.within(value, &format!("{path}.{n}"));
                }
            }
            _ => {}
        }
    }
}

/// One JSON object of a body.
pub(crate) struct Form<'a> {
    object: &'a Map<String, Value>,
    path: String,
    notes: &'a Notes,
}

impl<'a> Form<'a> {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes that a field is at fault.
    pub(crate) fn wrong(&self, name: &str, detail: &str) {
        self.notes.errors.borrow_mut().push(FieldError::new(self.at(name), detail));
    }

    /// What stands in this object beside the fields that are read is nobody's mistake.
    pub(crate) fn leave_open(&self) {
        self.notes.closed.borrow_mut().remove(&self.path);
    }

    /// A field that means nothing here, and may stand there all the same.
    pub(crate) fn pass_over(&self, name: &str) {
        let _whatever_it_is = self.get(name);
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.notes.known.borrow_mut().insert(self.at(name));
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A text that may be absent.
    pub(crate) fn optional_text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(name, "expected a text");
        }
        text
    }

    /// A text that must be there and not be empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            None => {
                self.wrong(name, "is missing");
                None
            }
            Some(_) => self.optional_text(name).filter(|text| {
                let filled = !text.trim().is_empty();
                if !filled {
                    self.wrong(name, "is empty");
                }
                filled
            }),
        }
    }

    /// A text that must be there, empty or not.
    fn text_as_it_is(&self, name: &str) -> Option<String> {
        if self.get(name).is_none() {
            self.wrong(name, "is missing");
        }
        self.optional_text(name)
    }

    /// A text that `parse` understands; absent is fine.
    pub(crate) fn optional<T>(&self, name: &str, expected: &str, parse: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.wrong(name, expected);
        }
        parsed
    }

    /// True or false; `default` when absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.optional(name, "expected true or false", Value::as_bool).unwrap_or(default)
    }

    /// One of the words of an enum. The enums of the domain take any word (serde `other`), a request must not.
    pub(crate) fn word<T: DeserializeOwned>(&self, name: &str, words: &[&str]) -> Option<T> {
        let expected = format!("expected one of {}", words.join(", "));
        self.optional(name, &expected, |value| {
            value.as_str().filter(|word| words.contains(word))?;
            serde_json::from_value(value.clone()).ok()
        })
    }

    /// An object inside; absent is fine.
    pub(crate) fn optional_object(&self, name: &str) -> Option<Form<'a>> {
        let object = self.optional(name, "expected an object", |value| value.is_object().then_some(()));
        object?;
        let object = self.get(name)?.as_object()?;
        let path = self.at(name);
        self.notes.closed.borrow_mut().insert(path.clone());
        Some(Form { object, path, notes: self.notes })
    }

    /// An object inside that must be there.
    pub(crate) fn object(&self, name: &str) -> Option<Form<'a>> {
        if self.get(name).is_none() {
            self.wrong(name, "is missing");
            return None;
        }
        self.optional_object(name)
    }

    /// A list of any shape that serde reads; empty when absent.
    pub(crate) fn list<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Vec<T> {
        self.optional(name, expected, |value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
    }

    /// A list of which `read` takes each element, those that are objects field by field; empty when absent.
    fn elements<T>(&self, name: &str, expected: &str, read: impl Fn(&Value, Option<&Form<'a>>) -> Option<T>) -> Vec<T> {
        let is_list = self.optional(name, expected, |value| value.is_array().then_some(())).is_some();
        let elements = self.get(name).filter(|_| is_list).and_then(Value::as_array).map(Vec::as_slice);
        let elements = elements.unwrap_or_default();
        let mut taken = Vec::with_capacity(elements.len());
        for (n, element) in elements.iter().enumerate() {
            let path = format!("{}.{n}", self.at(name));
            let form = element.as_object().map(|object| {
                self.notes.closed.borrow_mut().insert(path.clone());
                Form { object, path: path.clone(), notes: self.notes }
            });
            let errors = self.notes.errors.borrow().len();
            match read(element, form.as_ref()) {
                Some(value) => taken.push(value),
                // Said once, by whoever knows best.
                None if self.notes.errors.borrow().len() == errors => {
                    self.notes.errors.borrow_mut().push(FieldError::new(path, expected));
                }
                None => {}
            }
            if self.notes.errors.borrow().len() > MOST_STRANGERS {
                break;
            }
        }
        taken
    }

    /// Values of placeholders: `["a", "b"]`, or `[{"name": "n", "text": "a"}]` for named ones.
    fn parameters(&self, name: &str) -> Vec<TemplateParameter> {
        let expected = "expected a list of texts, or of {\"name\", \"text\"}";
        self.elements(name, expected, |value, form| match (value, form) {
            (Value::String(text), _) => Some(TemplateParameter { name: None, text: text.as_str().into() }),
            (_, Some(form)) => {
                let (name, text) = (form.optional_text("name"), form.text_as_it_is("text"));
                Some(TemplateParameter { name, text: text?.as_str().into() })
            }
            _ => None,
        })
    }

    /// Values of buttons.
    fn buttons(&self, name: &str) -> Vec<ButtonParameter> {
        self.elements(name, "expected a list of {\"index\", \"sub_type\", \"text\"}", |_, form| {
            let form = form?;
            let index = form.optional("index", "expected the position of the button, from 0", |value| {
                i32::try_from(value.as_i64()?).ok()
            });
            if form.get("index").is_none() {
                form.wrong("index", "is missing");
            }
            let (sub_type, text) = (form.text("sub_type"), form.text_as_it_is("text"));
            Some(ButtonParameter { index: index?, sub_type: sub_type?, text: text?.as_str().into() })
        })
    }

    /// A phone number as people write it.
    pub(crate) fn phone(&self, name: &str) -> Option<PhoneNumber> {
        let expected = "expected a phone number of 5 to 15 digits with its country code";
        self.optional(name, expected, |value| PhoneNumber::parse(value.as_str()?).ok())
    }

    /// A BSUID.
    pub(crate) fn bsuid(&self, name: &str) -> Option<Bsuid> {
        let expected = "expected a business-scoped user id as WhatsApp writes it, such as US.13491208655302741918";
        let text = self.optional_text(name).filter(|text| !text.is_empty())?;
        let bsuid = Some(Bsuid(text)).filter(Formed::is_formed);
        if bsuid.is_none() {
            self.wrong(name, expected);
        }
        bsuid
    }

    /// The template of a command.
    pub(crate) fn template_call(&self) -> Option<TemplateCall> {
        let (name, language) = (self.text("name"), self.text("language"));
        let (header, body) = (self.parameters("header"), self.parameters("body"));
        let buttons = self.buttons("buttons");
        Some(TemplateCall { name: name?, language: language?, header, body, buttons })
    }

    /// `{"conversation_id"}`, `{"phone"}` or `{"bsuid"}`, exactly one way or phone and BSUID together.
    pub(crate) fn recipient(&self) -> Option<Recipient> {
        let form = self.object("recipient")?;
        let conversation_id = form.optional_text("conversation_id").filter(|id| !id.is_empty()).map(StreamId);
        let mut recipient = Recipient { conversation_id, ..Recipient::default() };
        recipient.address.phone = form.phone("phone");
        recipient.address.bsuid = form.bsuid("bsuid");
        let named = ["conversation_id", "phone", "bsuid"].iter().any(|name| form.get(name).is_some());
        if !named {
            self.wrong("recipient", "expected conversation_id, phone or bsuid");
        }
        Some(recipient)
    }
}
