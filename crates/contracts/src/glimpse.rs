//! A quick look at an event: whose it is, when it happened, which end of a window it names. Everything else is passed over as it stands, so
//! this takes a tenth of the time of [`crate::decode_event`]. It is for those who read a whole log and need little of it.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::Name;
use connector_domain::time::Timestamp;

use crate::codec::{ContractError, open};
use crate::schema::registry;

/// What a quick look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glimpse<'a> {
    /// The name of the event type.
    pub event_type: &'static str,
    /// The tenant.
    pub organization_id: &'a str,
    /// The conversation (or user, or number) the event belongs to.
    pub stream_id: &'a str,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When the connector wrote it down.
    pub recorded_at: Timestamp,
    /// The end of a window: `window_deadline` of a message or a call, `deadline` of what is said about windows.
    pub deadline: Option<Timestamp>,
    /// The error code of a status.
    pub error_code: Option<i64>,
}

/// The name of a record's event type, known by its fingerprint alone. `None`: not an event, or of a schema that this build does not know.
#[must_use]
pub fn event_type(record: &[u8]) -> Option<&'static str> {
    let (reader, _) = open(registry().ok()?, record).ok()?;
    reader.subject.strip_prefix("events/")
}

/// Looks at a record. What is passed over is not checked: a record that cannot be decoded may well be looked at.
///
/// # Errors
/// As [`crate::decode_event`], as far as it looks. Never panics, never allocates.
pub fn glimpse(record: &[u8]) -> Result<Glimpse<'_>, ContractError> {
    let (reader, mut datum) = open(registry()?, record)?;
    let subject = reader.subject;
    let (Some(shape), Some(event_type)) = (&reader.shape, subject.strip_prefix("events/")) else {
        return Err(ContractError::WrongContract { expected: "events", found: subject });
    };
    let malformed = |detail: &str| ContractError::Malformed { subject, detail: detail.to_owned() };
    let mut seen = Seen::default();
    shape.walk(&mut datum, &mut seen).ok_or_else(|| malformed("cut off, or a length that is none"))?;
    if !datum.is_empty() {
        return Err(ContractError::TrailingBytes { subject, count: datum.len() });
    }
    let (Some(Ok(organization_id)), Some(Ok(stream_id))) =
        (seen.organization_id.map(std::str::from_utf8), seen.stream_id.map(std::str::from_utf8))
    else {
        return Err(malformed("an identifier is no text"));
    };
    let (Some(occurred_at), Some(recorded_at)) = (seen.occurred_at, seen.recorded_at) else {
        return Err(malformed("a time is missing"));
    };
    let (occurred_at, recorded_at) = (Timestamp(occurred_at), Timestamp(recorded_at));
    Ok(Glimpse {
        event_type,
        organization_id,
        stream_id,
        occurred_at,
        recorded_at,
        deadline: seen.deadline.map(Timestamp),
        error_code: seen.error_code,
    })
}

/// What was seen on the way.
#[derive(Default)]
struct Seen<'a> {
    organization_id: Option<&'a [u8]>,
    stream_id: Option<&'a [u8]>,
    occurred_at: Option<i64>,
    recorded_at: Option<i64>,
    deadline: Option<i64>,
    error_code: Option<i64>,
}

/// Fields that are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    Organization,
    Stream,
    Occurred,
    Recorded,
    Deadline,
    ErrorCode,
}

impl Field {
    fn of(record: &str, field: &str) -> Option<Self> {
        match (record, field) {
            ("Envelope", "organization_id") => Some(Self::Organization),
            ("Envelope", "stream_id") => Some(Self::Stream),
            ("Envelope", "occurred_at") => Some(Self::Occurred),
            ("Envelope", "recorded_at") => Some(Self::Recorded),
            ("MessageReceivedData" | "CallReceivedData", "window_deadline")
            | ("WindowOpenedData" | "WindowClosingSoonData" | "WindowExpiredData", "deadline") => Some(Self::Deadline),
            ("MessageStatusChangedData", "error_code") => Some(Self::ErrorCode),
            _ => None,
        }
    }
}

/// How a datum of a schema lies in its bytes: <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>.
#[derive(Debug)]
pub(crate) enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A whole number, or the place of an enum's symbol.
    Number(Option<Field>),
    /// A length and so many bytes.
    Text(Option<Field>),
    Union(Vec<Self>),
    /// An array, or a map with texts before the items.
    Items {
        keys: bool,
        item: Box<Self>,
    },
    Record(Vec<Self>),
}

impl Shape {
    /// The shape of a schema. `None` for one that contains itself.
    pub(crate) fn of(schema: &Schema) -> Option<Self> {
        Self::build(schema, None, &mut HashMap::new())
    }

    fn build<'s>(
        schema: &'s Schema,
        field: Option<Field>,
        names: &mut HashMap<&'s Name, Option<&'s Schema>>,
    ) -> Option<Self> {
        Some(match schema {
            Schema::Null => Self::Fixed(0),
            Schema::Boolean => Self::Fixed(1),
            Schema::Float => Self::Fixed(4),
            Schema::Double => Self::Fixed(8),
            Schema::Fixed(fixed) => {
                names.insert(&fixed.name, Some(schema));
                Self::Fixed(fixed.size)
            }
            Schema::Int | Schema::Long | Schema::TimestampMillis => Self::Number(field),
            Schema::Enum(symbols) => {
                names.insert(&symbols.name, Some(schema));
                Self::Number(None)
            }
            Schema::Bytes | Schema::String => Self::Text(field),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| Self::build(variant, field, names));
                Self::Union(variants.collect::<Option<_>>()?)
            }
            Schema::Array(array) => {
                Self::Items { keys: false, item: Box::new(Self::build(&array.items, None, names)?) }
            }
            Schema::Map(map) => Self::Items { keys: true, item: Box::new(Self::build(&map.types, None, names)?) },
            Schema::Record(record) => {
                // Not known before its end: a record that contains itself has no shape.
                names.insert(&record.name, None);
                let mut fields = Vec::new();
                for field in &record.fields {
                    let looked_at = Field::of(record.name.name(), &field.name);
                    fields.push(Self::build(&field.schema, looked_at, names)?);
                }
                names.insert(&record.name, Some(schema));
                Self::Record(fields)
            }
            Schema::Ref { name } => {
                let named = names.get(name).copied().flatten()?;
                Self::build(named, field, names)?
            }
            // Nothing in the contracts has another one; the tests of this crate look at every schema.
            _ => return None,
        })
    }

    /// Passes over a datum. `None` when it is not one of this shape.
    fn walk<'a>(&self, datum: &mut &'a [u8], seen: &mut Seen<'a>) -> Option<()> {
        match self {
            Self::Fixed(size) => *datum = datum.get(*size..)?,
            Self::Number(field) => {
                let number = number(datum)?;
                match field {
                    Some(Field::Occurred) => seen.occurred_at = Some(number),
                    Some(Field::Recorded) => seen.recorded_at = Some(number),
                    Some(Field::Deadline) => seen.deadline = Some(number),
                    Some(Field::ErrorCode) => seen.error_code = Some(number),
                    Some(Field::Organization | Field::Stream) | None => {}
                }
            }
            Self::Text(field) => {
                let text = text(datum)?;
                match field {
                    Some(Field::Organization) => seen.organization_id = Some(text),
                    Some(Field::Stream) => seen.stream_id = Some(text),
                    Some(Field::Occurred | Field::Recorded | Field::Deadline | Field::ErrorCode) | None => {}
                }
            }
            Self::Union(variants) => {
                let variant = usize::try_from(number(datum)?).ok()?;
                variants.get(variant)?.walk(datum, seen)?;
            }
            Self::Items { keys, item } => loop {
                let mut count = number(datum)?;
                if count == 0 {
                    break;
                }
                if count < 0 {
                    // The size of the block in bytes follows; the items tell it, too.
                    number(datum)?;
                    count = count.checked_neg()?;
                }
                // Each takes a byte at least, so that a count that is only claimed ends soon.
                for _ in 0..count {
                    let before = datum.len();
                    if *keys {
                        text(datum)?;
                    }
                    item.walk(datum, seen)?;
                    if datum.len() == before {
                        return None;
                    }
                }
            },
            Self::Record(fields) => {
                for field in fields {
                    field.walk(datum, seen)?;
                }
            }
        }
        Some(())
    }
}

/// A whole number: seven bits a byte, lowest first, the sign in the lowest bit.
fn number(datum: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = datum.split_first()?;
        *datum = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn text<'a>(datum: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(datum)?).ok()?;
    let (text, rest) = datum.split_at_checked(length)?;
    *datum = rest;
    Some(text)
}
