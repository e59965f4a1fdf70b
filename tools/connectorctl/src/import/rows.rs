//! Files of entries: CSV with a header line, or one JSON object per line, as rows of named fields.
//!
//! What is wrong is named by line and field and never repeated: a phone number may stand anywhere in a line that is wrong.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use connector_domain::form::Formed;
use connector_domain::ids::{ContactId, OrganizationId, PhoneNumberId, StreamId, WabaId};
use serde_json::Value;

/// How the entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Comma- or semicolon-separated values, RFC 4180, with a header line.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Counted from 1; of an entry over several lines, the first.
    pub(crate) line: usize,
    /// The field, or nothing when it is the line as such.
    pub(crate) field: String,
    /// What is wrong. Without any value of the file.
    pub(crate) what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.what),
            field => write!(f, "line {}: {field}: {}", self.line, self.what),
        }
    }
}

/// One entry: its fields that are not empty. What is wrong with it is collected while it is read.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) line: usize,
    fields: BTreeMap<String, String>,
    pub(crate) problems: Vec<Problem>,
}

impl Row {
    fn new(line: usize) -> Self {
        Self { line, fields: BTreeMap::new(), problems: Vec::new() }
    }

    pub(crate) fn wrong(&mut self, field: &str, what: &str) {
        self.problems.push(Problem { line: self.line, field: field.to_owned(), what: what.to_owned() });
    }

    /// A field that may be missing.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// A field that must be there.
    pub(crate) fn text(&mut self, field: &str) -> Option<String> {
        let value = self.get(field).map(str::to_owned);
        if value.is_none() {
            self.wrong(field, "is missing");
        }
        value
    }

    /// An id that becomes part of a key.
    pub(crate) fn id(&mut self, field: &str) -> Option<String> {
        let id = self.text(field)?;
        self.usable(field, id)
    }

    /// An id that becomes part of a key, or may be missing.
    pub(crate) fn optional_id(&mut self, field: &str) -> Option<String> {
        let id = self.get(field)?.to_owned();
        self.usable(field, id)
    }

    fn usable(&mut self, field: &str, id: String) -> Option<String> {
        // Ids become keys: what is no opaque id, a phone number for example, is refused.
        let formed = match field {
            "phone_number_id" => PhoneNumberId(id.clone()).is_formed(),
            "waba_id" => WabaId(id.clone()).is_formed(),
            "conversation" => StreamId(id.clone()).is_formed(),
            "organization" => OrganizationId(id.clone()).is_formed(),
            _ => ContactId(id.clone()).is_formed(),
        };
        if !formed {
            let what = if id.contains('/') || id.chars().any(char::is_control) {
                "must not contain a slash or control characters"
            } else if id.chars().all(|c| c.is_ascii_digit() || c == '+') {
                "must not be the phone number: ids stand in keys"
            } else {
                "is no opaque id: letters, digits and - _ . : @ = ~"
            };
            self.wrong(field, what);
            return None;
        }
        Some(id)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, field: &str, default: bool) -> bool {
        match self.get(field).map(str::to_ascii_lowercase).as_deref() {
            None => default,
            Some("true" | "yes" | "1") => true,
            Some("false" | "no" | "0") => false,
            Some(_) => {
                self.wrong(field, "is neither true nor false");
                default
            }
        }
    }
}

/// The rows of a file. `known`: the fields there are; another one is a problem of its line.
pub(crate) fn read(format: Format, text: &str, known: &[&str]) -> Vec<Row> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Csv => csv(text, known),
        Format::Jsonl => jsonl(text, known),
    }
}

/// A field that there is not. Its name is repeated only if it can be nothing but a name.
fn unknown(row: &mut Row, name: &str, position: Option<usize>, known: &[&str]) {
    let harmless = name.len() <= 32 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let field = match position {
        _ if harmless => name.to_owned(),
        Some(position) => format!("field {position}"),
        None => "a field".to_owned(),
    };
    row.wrong(&field, &format!("there is no such field; expected some of {}", known.join(", ")));
}

fn jsonl(text: &str, known: &[&str]) -> Vec<Row> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line): (usize, &str)| {
        let mut row = Row::new(at + 1);
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) => {
                for (name, value) in &object {
                    if !known.contains(&name.as_str()) {
                        unknown(&mut row, name, None, known);
                        continue;
                    }
                    let value = match value {
                        Value::Null => continue,
                        Value::String(text) => text.trim().to_owned(),
                        Value::Bool(flag) => flag.to_string(),
                        Value::Number(number) => number.to_string(),
                        Value::Array(_) | Value::Object(_) => {
                            row.wrong(name, "is neither text nor number nor true or false");
                            continue;
                        }
                    };
                    if !value.is_empty() {
                        row.fields.insert(name.clone(), value);
                    }
                }
            }
            // The parser's own words could repeat a value.
            Ok(_) => row.wrong("", "is not a JSON object"),
            Err(error) => row.wrong("", &format!("is not JSON (at character {})", error.column())),
        }
        row
    };
    lines.map(read).collect()
}

fn csv(text: &str, known: &[&str]) -> Vec<Row> {
    let first = text.lines().next().unwrap_or_default();
    let separator = if first.contains(';') && !first.contains(',') { ';' } else { ',' };
    let mut lines = records(text, separator).into_iter();
    let Some((at, header)) = lines.next() else { return Vec::new() };
    let mut heading = Row::new(at);
    let header: Vec<String> = header.fields.iter().map(|name| name.trim().to_lowercase()).collect();
    for (position, name) in (1..).zip(&header) {
        if !known.contains(&name.as_str()) {
            unknown(&mut heading, name, Some(position), known);
        } else if header[..position - 1].contains(name) {
            heading.wrong(name, "stands in the header twice");
        }
    }
    if !heading.problems.is_empty() {
        // Nobody knows what the columns are.
        return vec![heading];
    }
    let read = |(at, record): (usize, Record)| {
        let mut row = Row::new(at);
        if record.torn {
            row.wrong("", "a quote is opened and not closed, or text stands behind a closing one");
        }
        if record.fields.len() != header.len() {
            row.wrong("", &format!("has {} fields, the header has {}", record.fields.len(), header.len()));
        }
        for (name, value) in header.iter().zip(record.fields) {
            let value = value.trim();
            if !value.is_empty() {
                row.fields.insert(name.clone(), value.to_owned());
            }
        }
        row
    };
    lines.map(read).collect()
}

/// One line of a CSV file, or several when a quoted field has line ends.
#[derive(Debug, Default)]
struct Record {
    fields: Vec<String>,
    torn: bool,
}

/// Takes a CSV text apart: each record with the line it begins in. Empty lines are passed over.
fn records(text: &str, separator: char) -> Vec<(usize, Record)> {
    let (mut found, mut record, mut field) = (Vec::new(), Record::default(), String::new());
    let (mut line, mut began) = (1, 1);
    let (mut quoted, mut closed) = (false, false);
    let mut chars = text.chars().peekable();
    loop {
        let next = chars.next();
        match next {
            Some('"') if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            Some('"') if quoted => (quoted, closed) = (false, true),
            Some('"') if field.trim().is_empty() && !closed => {
                field.clear();
                quoted = true;
            }
            Some(c) if c == separator && !quoted => {
                record.fields.push(std::mem::take(&mut field));
                closed = false;
            }
            Some('\r') if !quoted && chars.peek() == Some(&'\n') => {}
            Some('\n') if !quoted => {
                line += 1;
                end(&mut found, &mut record, &mut field, began);
                (began, closed) = (line, false);
            }
            Some(c) => {
                line += usize::from(c == '\n');
                record.torn |= closed && !c.is_whitespace();
                field.push(c);
            }
            None => {
                record.torn |= quoted;
                end(&mut found, &mut record, &mut field, began);
                return found;
            }
        }
    }
}

fn end(found: &mut Vec<(usize, Record)>, record: &mut Record, field: &mut String, began: usize) {
    record.fields.push(std::mem::take(field));
    let record = std::mem::take(record);
    if record.torn || record.fields.iter().any(|field| !field.trim().is_empty()) {
        found.push((began, record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["kind", "name", "phone"];

    fn said(format: Format, text: &str) -> Vec<String> {
        read(format, text, KNOWN).iter().flat_map(|row| row.problems.iter().map(Problem::to_string)).collect()
    }

    #[test]
    fn quotes_separators_and_line_ends_are_read_as_rfc_4180_has_them() {
        let text = "\u{feff}Kind,name,phone\r\ncontact,\"Doe, \"\"Jo\"\"\nJunior\", +49 1 \r\n\r\ncontact,,\"\"\n";
        let rows = read(Format::Csv, text, KNOWN);
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(rows[0].get("name"), Some("Doe, \"Jo\"\nJunior"));
        assert_eq!(rows[0].get("phone"), Some("+49 1"));
        assert_eq!((rows[1].get("kind"), rows[1].get("name"), rows[1].get("phone")), (Some("contact"), None, None));
        let semicolons = read(Format::Csv, "kind;name\nuser;a,b", KNOWN);
        assert_eq!(semicolons[0].get("name"), Some("a,b"));
    }

    #[test]
    fn json_lines_take_texts_numbers_flags_and_nothing() {
        let text = "{\"kind\":\"contact\",\"phone\":491701234567,\"name\":null}\n\n{\"kind\":true}";
        let rows = read(Format::Jsonl, text, KNOWN);
        assert_eq!((rows[0].get("phone"), rows[0].get("name")), (Some("491701234567"), None));
        assert_eq!((rows[1].line, rows[1].get("kind")), (3, Some("true")));
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_field_and_never_repeated() {
        let json =
            "[\"+491701234567\"]\n{\"phone\":\"+491701234567\n{\"phone\":[\"+491701234567\"]}\n{\"+491701234567\":1}";
        let csv = "kind,name\ncontact,\"+491701234567\ncontact,+491701234567,x";
        let torn = "kind,name\ncontact,\"+49170\"1234567\ncontact,+491701234567,x";
        let headless = "contact,+491701234567\ncontact,+491701234568";
        let fields = "there is no such field; expected some of kind, name, phone";
        assert_eq!(
            said(Format::Jsonl, json),
            [
                "line 1: is not a JSON object".to_owned(),
                "line 2: is not JSON (at character 23)".to_owned(),
                "line 3: phone: is neither text nor number nor true or false".to_owned(),
                format!("line 4: a field: {fields}"),
            ]
        );
        let quote = "a quote is opened and not closed, or text stands behind a closing one";
        assert_eq!(said(Format::Csv, csv), [format!("line 2: {quote}")]);
        assert_eq!(
            said(Format::Csv, torn),
            [format!("line 2: {quote}"), "line 3: has 3 fields, the header has 2".to_owned(),]
        );
        assert_eq!(
            said(Format::Csv, headless),
            [format!("line 1: contact: {fields}"), format!("line 1: field 2: {fields}"),]
        );
        assert_eq!(said(Format::Csv, "kind,kind\nuser,user"), ["line 1: kind: stands in the header twice"]);
    }
}
