//! What can still be read of a command that is damaged: its id, so that whoever published it learns of it (R3), and where it is damaged.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::Name;
use connector_domain::ids::{CommandId, PhoneNumber};

use crate::codec::Contract;
use crate::schema::{Fingerprint, all};

/// The beginning of a damaged command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Its outcome is found under this id.
    pub command_id: CommandId,
    /// The tenant, as far as it can be read; no more is known of it than that it is a text.
    pub organization_id: Option<String>,
    /// Who asks, likewise.
    pub user_id: Option<String>,
    /// The first field that cannot be read, as a path into the command; empty when every field can.
    pub field: &'static str,
}

/// The names of fields as the HTTP API and refusals have them, by their paths in the schemas. Of those that are not here, the nearest that
/// contains them.
const FIELDS: &[&str] = &[
    "command_id",
    "organization_id",
    "user_id",
    "phone_number_id",
    "recipient",
    "recipient.conversation_id",
    "recipient.phone",
    "recipient.bsuid",
    "content",
    "content.kind",
    "content.text",
    "content.preview_url",
    "content.template",
    "content.template.name",
    "content.template.language",
    "content.template.header",
    "content.template.body",
    "content.template.buttons",
    "content.reply_to",
    "policy",
    "purpose",
    "issued_at",
    "not_after",
    "action",
    "template",
    "template.name",
    "template.language",
    "template.header",
    "template.body",
    "template.buttons",
    "proof",
];

fn named(path: &str) -> &'static str {
    let path = path.replace("recipient.address", "recipient");
    let mut path = path.as_str();
    loop {
        if let Some(field) = FIELDS.iter().find(|field| **field == path) {
            return field;
        }
        match path.rsplit_once('.') {
            Some((outer, _)) => path = outer,
            None => return "",
        }
    }
}

/// Reads as much of a record as there is. `None` when not even its command id can be read, or when it is no record of `T`.
#[must_use]
pub fn salvage<T: Contract>(record: &[u8]) -> Option<Salvaged> {
    let [0xC3, 0x01, a, b, c, d, e, f, g, h, datum @ ..] = record else { return None };
    let fingerprint = Fingerprint(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]));
    let file = all().ok()?.iter().find(|file| file.fingerprint == fingerprint && file.subject == T::SCHEMA)?;
    let mut walk = Walk { datum, names: HashMap::new(), texts: HashMap::new(), damaged: None };
    walk.names(&file.schema);
    let read = walk.pass("", &file.schema);
    let field = match (read, walk.damaged.as_deref()) {
        (Some(()), _) => "",
        (None, path) => named(path.unwrap_or_default()),
    };
    let text = |name: &str| walk.texts.get(name).map(|text| (*text).to_owned());
    let command_id = text("command_id")?.parse().ok()?;
    let phone = walk.texts.get("recipient.address.phone");
    let field = match phone {
        Some(phone) if PhoneNumber::parse(phone).is_err() => "recipient.phone",
        _ => field,
    };
    Some(Salvaged { command_id, organization_id: text("organization_id"), user_id: text("user_id"), field })
}

struct Walk<'a, 's> {
    datum: &'a [u8],
    names: HashMap<&'s Name, &'s Schema>,
    /// What was read, by path; of fields that tell who asks for what, not of lists.
    texts: HashMap<String, &'a str>,
    damaged: Option<String>,
}

impl<'s> Walk<'_, 's> {
    fn names(&mut self, schema: &'s Schema) {
        match schema {
            Schema::Record(record) => {
                self.names.insert(&record.name, schema);
                record.fields.iter().for_each(|field| self.names(&field.schema));
            }
            Schema::Enum(symbols) => {
                self.names.insert(&symbols.name, schema);
            }
            Schema::Union(union) => union.variants().iter().for_each(|variant| self.names(variant)),
            Schema::Array(array) => self.names(&array.items),
            _ => {}
        }
    }

    fn number(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.datum.split_first()?;
            self.datum = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }

    /// Passes over a datum; notes where it is none.
    fn pass(&mut self, path: &str, schema: &Schema) -> Option<()> {
        let passed = self.read(path, schema);
        if passed.is_none() && self.damaged.is_none() {
            self.damaged = Some(path.to_owned());
        }
        passed
    }

    fn read(&mut self, path: &str, schema: &Schema) -> Option<()> {
        match schema {
            Schema::Null => Some(()),
            Schema::Boolean => {
                let (byte, rest) = self.datum.split_first()?;
                self.datum = rest;
                (*byte <= 1).then_some(())
            }
            Schema::Int | Schema::Long | Schema::TimestampMillis => self.number().map(drop),
            Schema::String => {
                let length = usize::try_from(self.number()?).ok()?;
                let (text, rest) = self.datum.split_at_checked(length)?;
                self.datum = rest;
                let text = std::str::from_utf8(text).ok()?;
                if matches!(path, "command_id" | "organization_id" | "user_id" | "recipient.address.phone") {
                    self.texts.insert(path.to_owned(), text);
                }
                Some(())
            }
            Schema::Enum(symbols) => {
                let symbol = usize::try_from(self.number()?).ok()?;
                (symbol < symbols.symbols.len()).then_some(())
            }
            Schema::Union(union) => {
                let variant = usize::try_from(self.number()?).ok()?;
                self.read(path, union.variants().get(variant)?)
            }
            Schema::Array(array) => loop {
                let mut count = self.number()?;
                if count == 0 {
                    return Some(());
                }
                if count < 0 {
                    self.number()?;
                    count = count.checked_neg()?;
                }
                for _ in 0..count {
                    let before = self.datum.len();
                    self.read(path, &array.items)?;
                    if self.datum.len() == before {
                        return None;
                    }
                }
            },
            Schema::Record(record) => {
                for field in &record.fields {
                    let inner = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
                    self.pass(&inner, &field.schema)?;
                }
                Some(())
            }
            Schema::Ref { name } => {
                let named = *self.names.get(name)?;
                self.read(path, named)
            }
            // Commands have no other one; the test looks at both schemas.
            _ => None,
        }
    }
}
