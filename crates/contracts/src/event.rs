//! Records of the log: every event type has its own schema, a record `<EventType>` of `envelope` and `data`.

use std::fmt;
use std::marker::PhantomData;

use connector_domain::event::{self, Envelope, Event, Recorded};
use connector_domain::with_event_types;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::codec::{ContractError, open, read, write};
use crate::schema::{Reader, Registry, registry};

/// The record of an event, written with the schema of its type.
///
/// # Errors
/// [`ContractError::Unwritable`], which the tests rule out for the domain's types.
pub fn encode_event(recorded: &Recorded) -> Result<Vec<u8>, ContractError> {
    let mut out = Vec::with_capacity(1024);
    write_event(registry()?, recorded, &mut out)?;
    Ok(out)
}

/// The event of a record, whichever type and version it has.
///
/// # Errors
/// When the bytes are not a record of an event; [`ContractError::UnknownSchema`] for an event type or version that a newer
/// build wrote. Never panics.
pub fn decode_event(record: &[u8]) -> Result<Recorded, ContractError> {
    let (reader, datum) = open(registry()?, record)?;
    read_event(reader, datum)
}

/// The data of one event type.
trait EventData: Serialize + DeserializeOwned + Into<Event> {
    /// Name of the type and of its outer record.
    const NAME: &'static str;
    /// Name of the record of its data. Two records of one file cannot share a name, so it differs from the struct's.
    const DATA: &'static str;
}

macro_rules! event_codecs {
    ($($name:ident)*) => {
        $(impl EventData for event::$name {
            const NAME: &'static str = stringify!($name);
            const DATA: &'static str = concat!(stringify!($name), "Data");
        })*

        fn write_event(registry: &Registry, recorded: &Recorded, out: &mut Vec<u8>) -> Result<(), ContractError> {
            let envelope = &recorded.envelope;
            match &recorded.event {
                $(Event::$name(data) => {
                    write(registry, concat!("events/", stringify!($name)), &Borrowed { envelope, data }, out)
                })*
            }
        }

        fn read_event(reader: &Reader, datum: &[u8]) -> Result<Recorded, ContractError> {
            match reader.subject.strip_prefix("events/") {
                $(Some(stringify!($name)) => read::<Owned<event::$name>>(reader, datum).map(Recorded::from),)*
                _ => Err(ContractError::WrongContract { expected: "events", found: reader.subject }),
            }
        }
    };
}
with_event_types!(event_codecs);

struct Borrowed<'a, T> {
    envelope: &'a Envelope,
    data: &'a T,
}

impl<T: EventData> Serialize for Borrowed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct(T::NAME, 2)?;
        record.serialize_field("envelope", self.envelope)?;
        record.serialize_field("data", self.data)?;
        record.end()
    }
}

struct Owned<T> {
    envelope: Envelope,
    data: T,
}

impl<T: EventData> From<Owned<T>> for Recorded {
    fn from(owned: Owned<T>) -> Self {
        Self { envelope: owned.envelope, event: owned.data.into() }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Envelope,
    Data,
    #[serde(other)]
    Unknown,
}

impl<'de, T: EventData> Deserialize<'de> for Owned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: EventData> Visitor<'de> for Fields<T> {
            type Value = Owned<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a record of {}", T::NAME)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut envelope = None;
                let mut data = None;
                while let Some(field) = fields.next_key()? {
                    match field {
                        Field::Envelope => envelope = Some(fields.next_value()?),
                        Field::Data => data = Some(fields.next_value::<Data<T>>()?.0),
                        Field::Unknown => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let envelope = envelope.ok_or_else(|| de::Error::missing_field("envelope"))?;
                let data = data.ok_or_else(|| de::Error::missing_field("data"))?;
                Ok(Owned { envelope, data })
            }
        }

        deserializer.deserialize_struct(T::NAME, &["envelope", "data"], Fields(PhantomData))
    }
}

/// Reads a `T` from the record [`EventData::DATA`]: the Avro library compares the names of struct and record.
struct Data<T>(T);

impl<'de, T: EventData> Deserialize<'de> for Data<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(Renamed { name: T::DATA, inner: deserializer }).map(Self)
    }
}

struct Renamed<D> {
    name: &'static str,
    inner: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Renamed<D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(self.name, fields, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
