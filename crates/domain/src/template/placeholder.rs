//! Placeholders of a text. Linear in the length of the text, whatever stands in it (R15).

use std::collections::{HashMap, HashSet};

use crate::command::TemplateParameter;

/// The text with its placeholders filled, as far as values are given.
pub(super) fn fill(text: &str, given: &[TemplateParameter], named: bool) -> String {
    let mut values: HashMap<&str, &str> = HashMap::new();
    let wanted = placeholders(text);
    if named {
        for parameter in given {
            if let Some(name) = &parameter.name {
                values.entry(name).or_insert(parameter.text.expose());
            }
        }
    } else {
        values.extend(wanted.iter().map(String::as_str).zip(given.iter().map(|parameter| parameter.text.expose())));
    }
    let mut filled = String::with_capacity(text.len());
    // In one pass: a value that looks like a placeholder is not filled again.
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => filled.push_str(plain),
            Piece::Placeholder { name, raw } => filled.push_str(values.get(name).copied().unwrap_or(raw)),
        }
    }
    filled
}

/// The placeholders of a text, each once: names (`{{first_name}}`) in the order of their first appearance, numbers (`{{1}}`)
/// in numeric order, which is the order of positional parameters.
#[must_use]
pub fn placeholders(text: &str) -> Vec<String> {
    let mut known: HashSet<&str> = HashSet::new();
    let mut names: Vec<String> = Vec::new();
    for piece in pieces(text) {
        if let Piece::Placeholder { name, .. } = piece
            && known.insert(name)
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

/// The name in the braces that `text` stands behind, and the length of name and closing braces.
fn named(text: &str) -> Option<(&str, usize)> {
    let name = text.trim_start();
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|end| *end > 0)?;
    let (name, rest) = name.split_at(end);
    let rest = rest.trim_start().strip_prefix("}}")?;
    Some((name, text.len() - rest.len()))
}

/// Cuts a text at its placeholders. Braces around anything but a name or a number are plain text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut plain_from, mut search_from) = (0, 0);
    while let Some(open) = text[search_from..].find("{{").map(|at| at + search_from) {
        // Up to the next brace: no part of the text is looked at more than twice.
        let Some((name, length)) = named(&text[open + 2..]) else {
            search_from = open + 1;
            continue;
        };
        let end = open + 2 + length;
        pieces.push(Piece::Plain(&text[plain_from..open]));
        pieces.push(Piece::Placeholder { name, raw: &text[open..end] });
        (plain_from, search_from) = (end, end);
    }
    pieces.push(Piece::Plain(&text[plain_from..]));
    pieces
}
