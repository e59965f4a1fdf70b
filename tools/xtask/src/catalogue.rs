//! `docs/reference/event-catalogue.md`, written from the schemas: what people read is what is on the wire.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, RecordField, RecordSchema};
use connector_contracts::schema::expand;
use connector_contracts::topic::Topics;

use crate::schemas::{Files, load};
use crate::{Failure, conclude, read, save};

const FILE: &str = "docs/reference/event-catalogue.md";

/// Brings the catalogue up to date, or with `check` only looks.
///
/// # Errors
/// With `check`, when it is not up to date; else what is in the way.
pub fn write(root: &Path, check: bool) -> Result<(), Failure> {
    let text = render(&load(&root.join("schemas"))?)?;
    let path = root.join(FILE);
    if check {
        let stale = read(&path)? != text;
        let finding = format!("{FILE}: `cargo xtask catalogue` writes it anew");
        return conclude("documentation that is not up to date", stale.then_some(finding).into_iter().collect());
    }
    save(&path, &text)
}

/// The catalogue as Markdown.
///
/// # Errors
/// When a file is not a schema.
pub fn render(files: &Files) -> Result<String, Failure> {
    let mut catalogue = Catalogue::default();
    let mut out = String::from(INTRODUCTION);
    topics(&mut out);

    let mut events = Vec::new();
    let mut others = Vec::new();
    for (subject, text) in files {
        if subject.starts_with("history/") || subject.starts_with("shared/") {
            continue;
        }
        let parsed = Schema::parse_str(text).map_err(|e| Failure::broken(format!("schemas/{subject}.avsc"), e))?;
        let Schema::Record(record) = expand(&parsed) else {
            return Err(Failure::broken(format!("schemas/{subject}.avsc"), "not a record"));
        };
        if subject.starts_with("events/") { events.push((subject, record)) } else { others.push((subject, record)) }
    }

    out.push_str("\n## Envelope\n\nStands around every event, as the field `envelope`.\n");
    if let Some(Schema::Record(envelope)) = events.first().and_then(|(_, record)| field(record, "envelope")) {
        catalogue.table(envelope, &mut out);
    }
    out.push_str("\n## Events\n\nThe tables list the fields of `data`.\n");
    for (subject, record) in &events {
        heading(subject, record, &mut out);
        if let Some(Schema::Record(data)) = field(record, "data") {
            catalogue.table(data, &mut out);
        }
    }
    out.push_str("\n## Commands and internal records\n");
    for (subject, record) in &others {
        heading(subject, record, &mut out);
        catalogue.table(record, &mut out);
    }
    out.push_str("\n## Types\n");
    catalogue.types(&mut out);
    Ok(out)
}

const INTRODUCTION: &str = "<!-- Written by `cargo xtask catalogue` from schemas/. Change the schemas, not this file. -->
# Event catalogue

Every record of every topic. The schemas are in [`schemas/`](../../schemas), with the rules of how they change; how to read
the log in Python and Go is shown in [`crates/contracts/tests/interop`](../../crates/contracts/tests/interop).

A field with a default may be missing in records of an earlier version. `?` marks a field that can be `null`.

## Topics

| topic | records | key | kept |
|---|---|---|---|
";

fn topics(out: &mut String) {
    for topic in Topics::default().listing().into_iter().filter(|topic| !topic.dlq) {
        let kept = match (topic.cleanup_policy.as_str(), topic.retention_ms) {
            ("compact", _) => "newest per key".to_owned(),
            (_, -1) => "for ever".to_owned(),
            (_, millis) => format!("{} days", millis / 86_400_000),
        };
        let _ = writeln!(out, "| `{}` | {} | {} | {kept} |", topic.name, topic.schema, cell(&topic.key));
    }
    out.push_str(
        "\nBeside each topic stands `<topic>.dlq` with what could not be processed, bytes untouched, kept 30 days.\n",
    );
}

fn heading(subject: &str, record: &RecordSchema, out: &mut String) {
    let name = record.name.name();
    let _ = writeln!(out, "\n### {name}\n\n{} [Schema](../../schemas/{subject}.avsc).", doc(record.doc.as_ref()));
}

fn field<'a>(record: &'a RecordSchema, name: &str) -> Option<&'a Schema> {
    record.fields.iter().find(|field| field.name == name).map(|field| &field.schema)
}

fn doc(doc: Option<&String>) -> &str {
    doc.map_or("", |doc| doc.trim())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Collects the named types that the tables mention.
#[derive(Default)]
struct Catalogue {
    records: BTreeMap<String, RecordSchema>,
    enums: BTreeMap<String, EnumSchema>,
}

impl Catalogue {
    fn table(&mut self, record: &RecordSchema, out: &mut String) {
        out.push_str("\n| field | type | default | |\n|---|---|---|---|\n");
        for RecordField { name, schema, default, doc: text, .. } in &record.fields {
            let kind = self.kind(schema);
            let default = default.as_ref().map(|d| format!("`{d}`")).unwrap_or_default();
            let _ = writeln!(out, "| `{name}` | {kind} | {default} | {} |", cell(doc(text.as_ref())));
        }
    }

    fn kind(&mut self, schema: &Schema) -> String {
        match schema {
            Schema::TimestampMillis => "timestamp".to_owned(),
            Schema::Array(array) => format!("list of {}", self.kind(&array.items)),
            Schema::Union(union) => {
                let kinds: Vec<_> =
                    union.variants().iter().filter(|v| **v != Schema::Null).map(|v| self.kind(v)).collect();
                format!("{}?", kinds.join(" or "))
            }
            Schema::Record(record) => self.link(record.name.name(), |all, name| {
                all.records.insert(name, record.clone());
            }),
            Schema::Enum(named) => self.link(named.name.name(), |all, name| {
                all.enums.insert(name, named.clone());
            }),
            Schema::Boolean => "boolean".to_owned(),
            Schema::Int => "int".to_owned(),
            Schema::Long => "long".to_owned(),
            _ => "string".to_owned(),
        }
    }

    fn link(&mut self, name: &str, keep: impl FnOnce(&mut Self, String)) -> String {
        keep(self, name.to_owned());
        format!("[{name}](#{})", name.to_lowercase())
    }

    fn types(mut self, out: &mut String) {
        // Tables of types mention further types, so until there is nothing new.
        let mut tables = BTreeMap::new();
        while let Some((name, record)) = self.records.iter().find(|(name, _)| !tables.contains_key(*name)) {
            let (name, record) = (name.clone(), record.clone());
            let mut text = format!("\n### {name}\n\n{}\n", doc(record.doc.as_ref()));
            self.table(&record, &mut text);
            tables.insert(name, text);
        }
        for (name, named) in &self.enums {
            let symbols: Vec<_> = named.symbols.iter().map(|symbol| format!("`{symbol}`")).collect();
            let default = named.default.as_deref().unwrap_or_default();
            let text = format!(
                "\n### {name}\n\n{}\n\nOne of {}; what a reader does not know, it reads as `{default}`.\n",
                doc(named.doc.as_ref()),
                symbols.join(", ")
            );
            tables.insert(name.clone(), text);
        }
        tables.values().for_each(|text| out.push_str(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_catalogue_is_up_to_date_and_has_every_event() {
        let root = crate::root();
        write(&root, true).expect("up to date");
        let text = read(&root.join(FILE)).expect("readable");
        for event in std::fs::read_dir(root.join("schemas/events")).expect("readable") {
            let name = event.expect("readable").path().file_stem().map(|n| n.to_string_lossy().into_owned());
            assert!(text.contains(&format!("\n### {}\n", name.expect("plain names"))));
        }
    }

    #[test]
    fn every_link_of_the_catalogue_leads_to_a_heading() {
        let text = render(&load(&crate::root().join("schemas")).expect("readable")).expect("schemas");
        for link in text.split("](#").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let found = text.lines().any(|l| l.strip_prefix("### ").is_some_and(|h| h.to_lowercase() == target));
            assert!(found, "#{target}");
        }
    }
}
