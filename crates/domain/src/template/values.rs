//! Whether the values of a call are those that the template's placeholders and buttons need, in a form that WhatsApp takes.

use std::collections::HashSet;

use super::placeholder::{fill, placeholders};
use super::{Part, Template};
use crate::command::{ButtonParameter, TemplateCall, TemplateParameter};
use crate::decide::{Reason, Rejection, utf16_len};

/// Longest header and body with their values, in characters (132005).
const MAX_HEADER: usize = 60;
const MAX_BODY: usize = 1024;
/// Spaces in a row that a value may have (132018).
const MAX_SPACES: usize = 4;
/// Longest link with its value.
const MAX_URL: usize = 2000;
/// Longest code to copy.
const MAX_CODE: usize = 15;
/// Longest payload of a quick reply.
const MAX_PAYLOAD: usize = 256;

const BUTTONS: &str = "content.template.buttons";

pub(super) fn check(template: &Template, call: &TemplateCall) -> Result<(), Rejection> {
    let named = template.is_named();
    let header = template.header.as_deref().unwrap_or_default();
    check_text(header, &call.header, named, MAX_HEADER, "content.template.header")?;
    check_text(&template.body, &call.body, named, MAX_BODY, "content.template.body")?;
    check_buttons(template, &call.buttons)
}

/// Most buttons of a template.
const MAX_BUTTONS: i32 = 10;

/// As [`super::misshapen`].
pub(super) fn misshapen(call: &TemplateCall) -> Option<Part> {
    let is_name = |name: &String| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    let misshapen = |given: &[TemplateParameter], longest: usize| {
        given.iter().any(|TemplateParameter { name, text }| {
            let text = text.expose();
            !name.as_ref().is_none_or(is_name) || text.chars().nth(longest).is_some() || check_value(text, "").is_err()
        })
    };
    let mut filled = HashSet::new();
    let wrong_button = |button: &ButtonParameter| {
        let known = ["quick_reply", "url", "copy_code"].contains(&button.sub_type.as_str());
        let placed = (0..MAX_BUTTONS).contains(&button.index) && filled.insert(button.index);
        !known || !placed || check_button("", button).is_err()
    };
    if misshapen(&call.header, MAX_HEADER) {
        Some(Part::Header)
    } else if misshapen(&call.body, MAX_BODY) {
        Some(Part::Body)
    } else {
        call.buttons.iter().any(wrong_button).then_some(Part::Buttons)
    }
}

fn wrong(field: &'static str, remedy: &'static str) -> Rejection {
    Rejection { reason: Reason::TemplateParameters, field, remedy: remedy.into() }
}

/// WhatsApp takes no line breaks, no tabs and at most four spaces in a row in a value; an empty one it takes for a missing one.
fn check_value(text: &str, field: &'static str) -> Result<(), Rejection> {
    if text.trim().is_empty() {
        return Err(Reason::TemplateParameters.at(field));
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(wrong(field, "Write the value in one line, without line breaks and tabs."));
    }
    if text.split(|c| c != ' ').any(|spaces| spaces.len() > MAX_SPACES) {
        return Err(wrong(field, "Use at most four spaces in a row."));
    }
    Ok(())
}

fn check_text(
    text: &str,
    given: &[TemplateParameter],
    named: bool,
    longest: usize,
    field: &'static str,
) -> Result<(), Rejection> {
    let wanted = placeholders(text);
    if given.len() != wanted.len() {
        return Err(Reason::TemplateParameters.at(field));
    }
    let fits = if named {
        // As many as wanted and every wanted one among them: none twice, none unknown.
        let names: HashSet<&str> = given.iter().filter_map(|parameter| parameter.name.as_deref()).collect();
        wanted.iter().all(|name| names.contains(name.as_str()))
    } else {
        given.iter().all(|parameter| parameter.name.is_none())
    };
    if !fits {
        return Err(Reason::TemplateParameters.at(field));
    }
    let too_long = || wrong(field, "Shorten the values: filled with them the text is longer than WhatsApp allows.");
    for parameter in given {
        let value = parameter.text.expose();
        // A placeholder may stand many times: a long value must not be filled in to find out that it is too long.
        if value.chars().take(longest + 1).count() > longest {
            return Err(too_long());
        }
        check_value(value, field)?;
    }
    if !given.is_empty() && utf16_len(&fill(text, given, named)) > longest {
        return Err(too_long());
    }
    Ok(())
}

fn check_buttons(template: &Template, given: &[ButtonParameter]) -> Result<(), Rejection> {
    let refused = Err(Reason::TemplateParameters.at(BUTTONS));
    let mut filled = HashSet::new();
    for parameter in given {
        let index = usize::try_from(parameter.index).ok().filter(|index| *index < template.buttons.len());
        let Some(index) = index.filter(|index| filled.insert(*index)) else { return refused };
        let button = &template.buttons[index];
        if button.takes().is_none_or(|takes| takes.sub_type != parameter.sub_type) {
            return refused;
        }
        check_button(button.url.as_deref().unwrap_or_default(), parameter)?;
    }
    let missing = |(index, button): (usize, &super::TemplateButton)| {
        button.takes().is_some_and(|takes| takes.required) && !filled.contains(&index)
    };
    if template.buttons.iter().enumerate().any(missing) { refused } else { Ok(()) }
}

fn check_button(url: &str, parameter: &ButtonParameter) -> Result<(), Rejection> {
    let text = parameter.text.expose();
    if text.trim().is_empty() {
        return Err(Reason::TemplateParameters.at(BUTTONS));
    }
    match parameter.sub_type.as_str() {
        "url" => {
            if !is_percent_encoded(text) {
                return Err(wrong(BUTTONS, "Percent-encode the value of the link."));
            }
            if url.len() + text.len() > MAX_URL {
                return Err(wrong(BUTTONS, "Shorten the value of the link."));
            }
        }
        "copy_code" => {
            check_value(text, BUTTONS)?;
            if utf16_len(text) > MAX_CODE {
                return Err(wrong(BUTTONS, "Use a code of up to 15 characters."));
            }
        }
        _ if utf16_len(text) > MAX_PAYLOAD || text.chars().any(char::is_control) => {
            return Err(wrong(BUTTONS, "Use a payload of up to 256 characters in one line."));
        }
        _ => {}
    }
    Ok(())
}

/// Whether every character may stand in a URL as it is, and every `%` begins an encoded byte.
fn is_percent_encoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
        other => other.is_ascii_graphic(),
    })
}
