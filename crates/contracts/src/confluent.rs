//! Records of publishers that use a Confluent-compatible schema registry: a zero byte, the id of the schema in the registry
//! (4 bytes, big endian), the datum.
//!
//! Framing: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.
//! The connector reads them; it writes single-object encoding only.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use apache_avro::Schema;

use crate::codec::ContractError;
use crate::schema::Fingerprint;

/// Schemas by their id in a registry. Asked once per id.
pub trait SchemaRegistry {
    /// The schema (JSON) with this id, from memory or from a file: it is called between records. `None` when there is none.
    fn schema(&self, id: u32) -> Option<String>;
}

/// Turns Confluent frames into single-object encoding, for [`crate::decode`] and [`crate::decode_event`].
#[derive(Debug)]
pub struct ConfluentFrames<R> {
    registry: R,
    known: RwLock<HashMap<u32, Fingerprint>>,
}

impl<R: SchemaRegistry> ConfluentFrames<R> {
    /// With the ids of this registry.
    pub fn new(registry: R) -> Self {
        Self { registry, known: RwLock::default() }
    }

    /// The record in single-object encoding; one that is not in a Confluent frame comes back as it is.
    ///
    /// # Errors
    /// [`ContractError::UnknownSchemaId`] when the registry does not know the id, [`ContractError::BrokenSchema`] when what it
    /// has is not a schema.
    pub fn single_object<'r>(&self, record: &'r [u8]) -> Result<Cow<'r, [u8]>, ContractError> {
        let [0, a, b, c, d, datum @ ..] = record else { return Ok(Cow::Borrowed(record)) };
        let fingerprint = self.fingerprint(u32::from_be_bytes([*a, *b, *c, *d]))?;
        Ok(Cow::Owned([&[0xC3, 0x01], fingerprint.0.to_le_bytes().as_slice(), datum].concat()))
    }

    fn fingerprint(&self, id: u32) -> Result<Fingerprint, ContractError> {
        // A map that only grows is whole even after a panic.
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(*known);
        }
        let text = self.registry.schema(id).ok_or(ContractError::UnknownSchemaId(id))?;
        let schema = Schema::parse_str(&text).map_err(|e| ContractError::broken(&format!("registry id {id}"), &e))?;
        let fingerprint = Fingerprint::of(&schema);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, fingerprint);
        Ok(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use connector_domain::command::{DirectoryKind, DirectoryRecord};
    use connector_domain::identity::Address;
    use connector_domain::ids::PhoneNumberId;

    use super::*;
    use crate::{decode, encode};

    struct OneSchema {
        asked: Cell<u32>,
    }

    impl SchemaRegistry for OneSchema {
        fn schema(&self, id: u32) -> Option<String> {
            self.asked.set(self.asked.get() + 1);
            let files = crate::schema::all().expect("schemas parse");
            let text = files.iter().find(|file| file.subject == "directory/DirectoryRecord").map(|file| file.text);
            match id {
                258 => text.map(str::to_owned),
                7 => Some("{".to_owned()),
                _ => None,
            }
        }
    }

    fn number() -> DirectoryRecord {
        DirectoryRecord {
            kind: DirectoryKind::Number,
            organization_id: "acme".into(),
            phone_number_id: Some(PhoneNumberId::from("1")),
            waba_id: None,
            user_id: None,
            enabled: false,
            contact_id: None,
            address: Address::default(),
            name: None,
            settings: None,
            state: None,
        }
    }

    #[test]
    fn a_record_with_a_registry_id_reads_like_one_with_a_fingerprint() {
        let frames = ConfluentFrames::new(OneSchema { asked: Cell::new(0) });
        let ours = encode(&number()).expect("encodes");
        let theirs = [&[0, 0, 0, 1, 2], &ours[10..]].concat();
        for _ in 0..3 {
            let record = frames.single_object(&theirs).expect("a known id");
            assert_eq!(record, ours);
            assert_eq!(decode(&record), Ok(number()));
        }
        assert_eq!(frames.registry.asked.get(), 1, "the registry is asked once per id");
        assert!(matches!(frames.single_object(&ours), Ok(Cow::Borrowed(_))), "our own frame is left alone");
    }

    #[test]
    fn an_id_without_a_usable_schema_is_an_error() {
        let frames = ConfluentFrames::new(OneSchema { asked: Cell::new(0) });
        assert_eq!(frames.single_object(&[0, 0, 0, 0, 9, 1]), Err(ContractError::UnknownSchemaId(9)));
        assert_eq!(frames.single_object(&[0, 0, 0, 0, 7, 1]).expect_err("no schema").reason(), "broken_schema");
        assert_eq!(frames.single_object(&[0, 0]).expect("no frame at all"), [0, 0].as_slice());
    }
}
