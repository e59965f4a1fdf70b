//! Avro single-object encoding: `C3 01`, the schema's fingerprint (8 bytes, little endian), the datum.
//!
//! Framing: <https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding>. Written is always the current version
//! of a schema, straight from serde. Read is every version of the `schemas/` folder: the current one straight into serde,
//! an older one through Avro's schema resolution, so that defaults and unknown enum symbols follow the Avro rules there too.

use connector_domain::command::{ConsentCommand, DirectoryRecord, Dispatch, JournalEntry, SendMessage, WebhookItem};
use connector_domain::template::Template;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::schema::{Fingerprint, Reader, Registry, registry};

/// Why bytes are not a record of a contract, or a value cannot become one.
///
/// None of them goes away when the same bytes are read again, with one exception: [`Self::UnknownSchema`] goes away with a
/// newer build. None carries the content of the record.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ContractError {
    /// The record does not start with `C3 01` and a fingerprint.
    #[error("record is not in avro single-object encoding")]
    NotFramed,
    /// Written with a schema this build does not know: by a newer version, or by somebody else.
    #[error("record was written with the unknown schema {0}")]
    UnknownSchema(Fingerprint),
    /// Framed with the id of a schema that the schema registry does not have ([`crate::confluent`]).
    #[error("record was written with the unknown registry schema {0}")]
    UnknownSchemaId(u32),
    /// A record of a known schema where another was expected: it stands in the wrong topic.
    #[error("expected a record of {expected}, found {found}")]
    WrongContract {
        /// The subject that was asked for.
        expected: &'static str,
        /// The subject that the fingerprint names.
        found: &'static str,
    },
    /// The bytes after the fingerprint are not a datum of the schema: cut off, damaged, or a value out of its range.
    #[error("record of {subject} is damaged: {detail}")]
    Malformed {
        /// The subject that the fingerprint names.
        subject: &'static str,
        /// What the Avro library objects to.
        detail: String,
    },
    /// The datum ended before the record did.
    #[error("record of {subject} has {count} bytes after its end")]
    TrailingBytes {
        /// The subject that the fingerprint names.
        subject: &'static str,
        /// How many.
        count: usize,
    },
    /// The value does not fit its schema. The tests of this crate rule it out for every type of the domain.
    #[error("value does not fit the schema of {subject}: {detail}")]
    Unwritable {
        /// The subject.
        subject: &'static str,
        /// What the Avro library objects to.
        detail: String,
    },
    /// A file of the `schemas/` folder is not a schema. Ruled out by the tests of this crate.
    #[error("schema is broken: {0}")]
    BrokenSchema(String),
}

impl ContractError {
    /// A short word for metrics and dead letters, one per variant.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotFramed => "not_framed",
            Self::UnknownSchemaId(_) => "unknown_schema_id",
            Self::UnknownSchema(_) => "unknown_schema",
            Self::WrongContract { .. } => "wrong_contract",
            Self::Malformed { .. } => "malformed",
            Self::TrailingBytes { .. } => "trailing_bytes",
            Self::Unwritable { .. } => "unwritable",
            Self::BrokenSchema(_) => "broken_schema",
        }
    }

    pub(crate) fn broken(subject: &str, error: &apache_avro::Error) -> Self {
        Self::BrokenSchema(format!("{subject}: {}", brief(error)))
    }
}

/// The library's objection without its source chain: the chain of a UTF-8 error holds the text itself (privacy), and an
/// objection may print a whole schema.
fn brief(error: &apache_avro::Error) -> String {
    const MOST: usize = 160;
    let mut text = error.to_string();
    if let Some((at, _)) = text.char_indices().nth(MOST) {
        text.truncate(at);
        text.push('…');
    }
    text
}

mod sealed {
    pub trait Sealed {}
}

/// A type that travels alone in a topic. The log's records are [`connector_domain::event::Recorded`] and have their own
/// pair of functions, [`crate::encode_event`] and [`crate::decode_event`].
pub trait Contract: Serialize + DeserializeOwned + sealed::Sealed {
    /// Path of its schema in the `schemas/` folder, without extension.
    const SCHEMA: &'static str;
}

macro_rules! contracts {
    ($($name:ident: $subject:literal)*) => {
        $(
            impl sealed::Sealed for $name {}
            impl Contract for $name {
                const SCHEMA: &'static str = $subject;
            }
        )*

        /// Subjects of everything that implements [`Contract`].
        pub const CONTRACTS: &[&str] = &[$($subject),*];
    };
}

contracts! {
    SendMessage: "commands/SendMessage"
    ConsentCommand: "commands/ConsentCommand"
    Dispatch: "dispatch/Dispatch"
    JournalEntry: "dispatch/JournalEntry"
    DirectoryRecord: "directory/DirectoryRecord"
    Template: "templates/Template"
    WebhookItem: "webhooks/WebhookItem"
}

/// The record of a value.
///
/// # Errors
/// [`ContractError::Unwritable`], which the tests rule out for the domain's types.
pub fn encode<T: Contract>(value: &T) -> Result<Vec<u8>, ContractError> {
    let mut out = Vec::with_capacity(1024);
    encode_into(value, &mut out)?;
    Ok(out)
}

/// As [`encode`], appended to `out`, for callers that keep a buffer. On an error `out` is as it was.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Contract>(value: &T, out: &mut Vec<u8>) -> Result<(), ContractError> {
    write(registry()?, T::SCHEMA, value, out)
}

/// The value of a record, whichever version of the schema it was written with.
///
/// # Errors
/// When the bytes are not a record of `T`; see [`ContractError`]. Never panics, and allocates no more than 16 MiB for a
/// length the record only claims.
pub fn decode<T: Contract>(record: &[u8]) -> Result<T, ContractError> {
    let (reader, datum) = open(registry()?, record)?;
    if reader.subject != T::SCHEMA {
        return Err(ContractError::WrongContract { expected: T::SCHEMA, found: reader.subject });
    }
    read(reader, datum)
}

pub(crate) fn write<T: Serialize>(
    registry: &Registry,
    subject: &'static str,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), ContractError> {
    let writer = registry.writer(subject)?;
    let start = out.len();
    out.extend_from_slice(&writer.prefix);
    match writer.datum.write_ser(out, value) {
        Ok(_) => Ok(()),
        Err(error) => {
            out.truncate(start);
            Err(ContractError::Unwritable { subject, detail: brief(&error) })
        }
    }
}

/// Reads the frame: how to go on, and the datum.
pub(crate) fn open<'r, 'b>(registry: &'r Registry, record: &'b [u8]) -> Result<(&'r Reader, &'b [u8]), ContractError> {
    let [0xC3, 0x01, a, b, c, d, e, f, g, h, datum @ ..] = record else {
        return Err(ContractError::NotFramed);
    };
    let fingerprint = Fingerprint(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]));
    let reader = registry.readers.get(&fingerprint).ok_or(ContractError::UnknownSchema(fingerprint))?;
    Ok((reader, datum))
}

pub(crate) fn read<T: DeserializeOwned>(reader: &Reader, mut datum: &[u8]) -> Result<T, ContractError> {
    let value = if reader.resolve {
        // The library has no serde path with resolution yet; older records are rare, so the slower way over `Value` will do.
        reader.datum.read_value(&mut datum).and_then(|value| apache_avro::from_value(&value))
    } else {
        reader.datum.read_deser(&mut datum)
    };
    let subject = reader.subject;
    let value = value.map_err(|error| ContractError::Malformed { subject, detail: brief(&error) })?;
    if datum.is_empty() { Ok(value) } else { Err(ContractError::TrailingBytes { subject, count: datum.len() }) }
}
