//! The schemas of the `schemas/` folder, compiled in, and their fingerprints.
//!
//! A *subject* is the path of a schema without its extension (`events/MessageSent`, `commands/SendMessage`). Older versions
//! of a subject stand in `schemas/history/<subject>/<n>.avsc`; they stay readable for ever, because the log does (R8).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::codec::ContractError;

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/schema_files.rs"));

/// No string, byte array or collection of a record may claim more than this. Kafka refuses such records anyway
/// (`message.max.bytes` is 1 MiB by default), so a larger length is a forged or damaged one.
const MAX_ALLOCATION: usize = 16 << 20;

/// CRC-64-AVRO of a schema's canonical form: names the schema a record was written with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a parsed schema.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        let digest = schema.fingerprint::<Rabin>();
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(&digest.bytes).for_each(|(to, from)| *to = *from);
        Self(u64::from_le_bytes(bytes))
    }
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
            let reader = Reader { subject: file.subject, datum, resolve: newest.is_some() };
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
}
