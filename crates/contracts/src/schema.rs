//! The schemas of the `schemas/` folder, compiled in, and their fingerprints.
//!
//! A *subject* is the path of a schema without its extension (`events/MessageSent`, `commands/SendMessage`). Older versions
//! of a subject stand in `schemas/history/<subject>/<n>.avsc`; they stay readable for ever, because the log does (R8).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{Name, UnionSchema};
use apache_avro::writer::datum::GenericDatumWriter;

use crate::codec::ContractError;
use crate::glimpse::Shape;

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/schema_files.rs"));

/// No string, byte array or collection of a record may claim more than this. Kafka refuses such records anyway
/// (the topics take 4 MiB), so a larger length is a forged or damaged one.
const MAX_ALLOCATION: usize = 16 << 20;

/// CRC-64-AVRO of a schema's canonical form: names the schema a record was written with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a parsed schema.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        // The library leaves `{"type":"long"}` where a logical type stood; the specification (and every other library) has
        // `"long"` there. Nothing else in a canonical form contains these characters, since docs and defaults are gone.
        let mut form = schema.canonical_form();
        for primitive in ["boolean", "int", "long", "float", "double", "bytes", "string"] {
            form = form.replace(&format!(r#"{{"type":"{primitive}"}}"#), &format!(r#""{primitive}""#));
        }
        Self(crc_64_avro(form.as_bytes()))
    }
}

/// CRC-64-AVRO, <https://avro.apache.org/docs/1.12.0/specification/#schema-fingerprints>.
fn crc_64_avro(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    bytes.iter().fold(EMPTY, |crc, byte| {
        // What the specification keeps in a table: schemas are hashed once per process, so it is not worth one.
        let entry = (0..8).fold((crc ^ u64::from(*byte)) & 0xff, |e, _| (e >> 1) ^ (EMPTY & (e & 1).wrapping_neg()));
        (crc >> 8) ^ entry
    })
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One version of one subject.
#[derive(Debug)]
pub struct SchemaFile {
    /// Path in the `schemas/` folder without extension, and without `history/` and number.
    pub subject: &'static str,
    /// The file as it was committed (JSON).
    pub text: &'static str,
    /// The parsed file.
    pub schema: Schema,
    /// Names this version in a record.
    pub fingerprint: Fingerprint,
    /// False for a version of `schemas/history/`.
    pub current: bool,
}

/// How a record of one fingerprint is read.
pub(crate) struct Reader {
    pub(crate) subject: &'static str,
    pub(crate) datum: GenericDatumReader<'static>,
    /// Set for an older version: the data is resolved to the current schema by Avro's rules before serde sees it.
    pub(crate) resolve: bool,
    /// How its records lie in their bytes, for a quick look; of events only.
    pub(crate) shape: Option<Shape>,
}

/// How a record of one subject is written: always with its current schema.
pub(crate) struct Writer {
    pub(crate) prefix: [u8; 10],
    pub(crate) datum: GenericDatumWriter<'static>,
}

pub(crate) struct Registry {
    pub(crate) readers: HashMap<Fingerprint, Reader>,
    pub(crate) writers: HashMap<&'static str, Writer>,
}

static PARSED: LazyLock<Result<Vec<SchemaFile>, ContractError>> = LazyLock::new(|| parse(FILES));

static REGISTRY: LazyLock<Result<Registry, ContractError>> = LazyLock::new(|| {
    apache_avro::util::max_allocation_bytes(MAX_ALLOCATION);
    Registry::new(PARSED.as_ref().map_err(Clone::clone)?)
});

/// Every schema, current and historical, in the order of the subjects.
///
/// # Errors
/// [`ContractError::BrokenSchema`] when a file of the `schemas/` folder is no Avro schema; the tests of this crate rule it
/// out for what is committed.
pub fn all() -> Result<&'static [SchemaFile], ContractError> {
    PARSED.as_deref().map_err(Clone::clone)
}

pub(crate) fn registry() -> Result<&'static Registry, ContractError> {
    REGISTRY.as_ref().map_err(Clone::clone)
}

/// The schema with every reference replaced by the type it names, for those who compare or print schemas. No type of the
/// contracts contains itself, so there is an end to it; a name that is not defined before it is used stays a reference.
#[must_use]
pub fn expand(schema: &Schema) -> Schema {
    fn walk(schema: &mut Schema, seen: &mut HashMap<Name, Schema>) {
        match schema {
            Schema::Ref { name } => {
                if let Some(named) = seen.get(name) {
                    *schema = named.clone();
                }
            }
            Schema::Record(record) => {
                record.fields.iter_mut().for_each(|field| walk(&mut field.schema, seen));
                seen.insert(record.name.clone(), schema.clone());
            }
            Schema::Enum(named) => {
                seen.insert(named.name.clone(), schema.clone());
            }
            Schema::Union(union) => {
                let mut variants = union.variants().to_vec();
                variants.iter_mut().for_each(|variant| walk(variant, seen));
                if let Ok(expanded) = UnionSchema::new(variants) {
                    *union = expanded;
                }
            }
            Schema::Array(array) => walk(&mut array.items, seen),
            _ => {}
        }
    }
    let mut schema = schema.clone();
    walk(&mut schema, &mut HashMap::new());
    schema
}

/// `history/events/X/3` is version 3 of `events/X`; anything else is current.
fn split_history(path: &'static str) -> (&'static str, bool) {
    match path.strip_prefix("history/").and_then(|rest| rest.rsplit_once('/')) {
        Some((subject, _version)) => (subject, false),
        None => (path, true),
    }
}

pub(crate) fn parse(files: &[(&'static str, &'static str)]) -> Result<Vec<SchemaFile>, ContractError> {
    files
        .iter()
        .map(|&(path, text)| {
            let (subject, current) = split_history(path);
            let schema = Schema::parse_str(text).map_err(|e| ContractError::broken(path, &e))?;
            let fingerprint = Fingerprint::of(&schema);
            Ok(SchemaFile { subject, text, schema, fingerprint, current })
        })
        .collect()
}

impl Registry {
    pub(crate) fn new(files: &'static [SchemaFile]) -> Result<Self, ContractError> {
        let current: BTreeMap<&str, &SchemaFile> =
            files.iter().filter(|file| file.current).map(|file| (file.subject, file)).collect();
        let mut readers = HashMap::new();
        let mut writers = HashMap::new();
        // The current versions last: one that went back to an older shape is read on the fast path.
        for file in files.iter().filter(|file| !file.current).chain(current.values().copied()) {
            let broken = |e: apache_avro::Error| ContractError::broken(file.subject, &e);
            let newest = current.get(file.subject).filter(|newest| newest.fingerprint != file.fingerprint);
            let datum = GenericDatumReader::builder(&file.schema)
                .maybe_reader_schema(newest.map(|newest| &newest.schema))
                .human_readable(false)
                .build()
                .map_err(broken)?;
            let shape = file.subject.strip_prefix("events/").and_then(|_| Shape::of(&file.schema));
            let reader = Reader { subject: file.subject, datum, resolve: newest.is_some(), shape };
            let other = readers.insert(file.fingerprint, reader);
            if other.is_some_and(|other| other.subject != file.subject) {
                return Err(ContractError::BrokenSchema(format!("{}: fingerprint is taken", file.subject)));
            }
            if file.current {
                let datum = GenericDatumWriter::builder(&file.schema).human_readable(false).build().map_err(broken)?;
                let mut prefix = [0xC3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
                prefix[2..].copy_from_slice(&file.fingerprint.0.to_le_bytes());
                writers.insert(file.subject, Writer { prefix, datum });
            }
        }
        Ok(Self { readers, writers })
    }

    pub(crate) fn writer(&self, subject: &str) -> Result<&Writer, ContractError> {
        let missing = || ContractError::BrokenSchema(format!("{subject}: there is no such schema"));
        self.writers.get(subject).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use connector_domain::command::{ContentKind, SendMessage, SendPolicy};

    use super::*;
    use crate::codec::{Contract, open, read, write};

    #[test]
    fn the_fingerprint_is_the_one_of_the_specification() {
        assert_eq!(crc_64_avro(b""), 0xc15d_213a_a4d7_a795);
        // The value every implementation tests with: the schema "int".
        let int = Schema::parse_str(r#""int""#).expect("a schema");
        assert_eq!(Fingerprint::of(&int), Fingerprint(0x7275_d51a_3f39_5c8f));
        let moment = Schema::parse_str(r#"{"type":"long","logicalType":"timestamp-millis"}"#).expect("a schema");
        let long = Schema::parse_str(r#""long""#).expect("a schema");
        assert_eq!(
            Fingerprint::of(&moment),
            Fingerprint::of(&long),
            "logical types are not part of the canonical form"
        );
    }

    /// The registry as it would be if `history` had stood in `schemas/history/commands/SendMessage/1.avsc`.
    fn with_history(history: &str) -> (Registry, &'static SchemaFile) {
        let text: &'static str = Box::leak(history.to_owned().into_boxed_str());
        let mut files = vec![("history/commands/SendMessage/1", text)];
        files.extend(FILES);
        let files: &'static [SchemaFile] = Box::leak(parse(&files).expect("parses").into_boxed_slice());
        (Registry::new(files).expect("a registry"), &files[0])
    }

    fn text_of(subject: &str) -> String {
        FILES.iter().find(|(s, _)| *s == subject).map(|(_, text)| (*text).to_owned()).expect("there is such a schema")
    }

    fn message() -> SendMessage {
        use connector_domain::command::{Content, Recipient, SendPurpose};
        use connector_domain::ids::CommandId;
        use connector_domain::time::Timestamp;
        SendMessage {
            command_id: CommandId::derived("a"),
            organization_id: "o".into(),
            user_id: "u".into(),
            phone_number_id: "n".into(),
            recipient: Recipient::default(),
            content: Content::text("hello"),
            policy: SendPolicy::AtMostOnce,
            purpose: SendPurpose::Conversation,
            issued_at: Timestamp(5),
            not_after: None,
        }
    }

    #[test]
    fn a_record_of_an_older_schema_is_resolved_to_the_current_type() {
        // The older version had no `not_after` and no `policy`, but a field and an enum symbol that are gone today.
        let mut older: serde_json::Value = serde_json::from_str(&text_of(SendMessage::SCHEMA)).expect("JSON");
        let fields = older["fields"].as_array_mut().expect("fields");
        fields.retain(|field| field["name"] != "not_after" && field["name"] != "policy");
        fields.push(serde_json::json!({"name": "gone", "doc": "", "default": "a", "type":
            {"type": "enum", "name": "Gone", "symbols": ["a", "b"], "default": "a"}}));
        let older = older.to_string().replace(r#""typing","#, r#""typing","hologram","#);
        let (registry, version) = with_history(&older);
        assert!(!version.current);

        let current = Schema::parse_str(&text_of(SendMessage::SCHEMA)).expect("a schema");
        let today = crate::encode(&message()).expect("writes");
        let value = GenericDatumReader::builder(&current)
            .build()
            .and_then(|reader| reader.read_value(&mut &today[10..]))
            .expect("reads");
        let Value::Record(mut fields) = value else { panic!("a record") };
        fields.retain(|(name, _)| name != "not_after" && name != "policy");
        for (name, value) in &mut fields {
            if let ("content", Value::Record(content)) = (name.as_str(), value) {
                content[0].1 = Value::Enum(3, "hologram".to_owned());
            }
        }
        fields.push(("gone".to_owned(), Value::Enum(1, "b".to_owned())));
        let mut record = vec![0xC3, 0x01];
        record.extend_from_slice(&version.fingerprint.0.to_le_bytes());
        GenericDatumWriter::builder(&version.schema)
            .build()
            .and_then(|w| w.write_value(&mut record, Value::Record(fields)))
            .expect("an older build could write this");

        let (reader, datum) = open(&registry, &record).expect("known");
        let read_back: SendMessage = read(reader, datum).expect("resolves");
        let mut expected = message();
        expected.content.kind = ContentKind::Unknown;
        assert_eq!(read_back, expected);
        let trailing = [datum, &[0]].concat();
        assert_eq!(read::<SendMessage>(reader, &trailing).expect_err("one too many").reason(), "trailing_bytes");
    }

    #[test]
    fn a_history_of_a_subject_leaves_writing_as_it_is() {
        let older = text_of(SendMessage::SCHEMA).replace("\"symbols\": [", "\"symbols\": [\n\"earlier\",");
        let (registry, version) = with_history(&older);
        let mut record = Vec::new();
        write(&registry, SendMessage::SCHEMA, &message(), &mut record).expect("writes");
        assert_eq!(Ok(record.clone()), crate::encode(&message()));
        assert_ne!(record[2..10], version.fingerprint.0.to_le_bytes());
    }

    #[test]
    fn a_schema_that_does_not_parse_is_named() {
        let error = parse(&[("events/Broken", "{}")]).expect_err("no schema");
        assert!(error.to_string().starts_with("schema is broken: events/Broken: "), "{error}");
    }
}
