//! Typed identifiers. None of them prints a phone number: what identifies a person has a redacted `Debug`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

pub use crate::phone::{NotAPhoneNumber, PhoneNumber};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// An id that depends on nothing but its cause: the UUIDv5 of `cause` under this connector's namespace (R3).
            #[must_use]
            pub fn derived(cause: &str) -> Self {
                Self(Uuid::new_v5(&NAMESPACE, cause.as_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        // As text in every format: binary formats would otherwise write 16 raw bytes where the contract says string.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The namespace of every derived id. It never changes: a changed namespace would make a repeat look new.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d75_6c74_696c_696e_652d_7768_6174_7361);

text_id! {
    /// A tenant of MultiLine. Chosen upstream, opaque here.
    OrganizationId
}
text_id! {
    /// A MultiLine user, unique within an organization.
    UserId
}
text_id! {
    /// MultiLine's own id of an entry in a user's contact list.
    ContactId
}
text_id! {
    /// Meta's id of a business phone number (not the number itself).
    PhoneNumberId
}
text_id! {
    /// Meta's id of a WhatsApp Business Account.
    WabaId
}
text_id! {
    /// Meta's message id (`wamid.…`): opaque, case-sensitive, of variable length.
    Wamid
}
text_id! {
    /// Meta's id of a call (`wacid.…`): opaque, case-sensitive, of variable length.
    CallId
}
text_id! {
    /// The stream an event belongs to and the key of its record: a conversation or a user. Opaque, see [`crate::identity`].
    StreamId
}
uuid_id! {
    /// Chosen by the publisher of a command; its outcome is found under it.
    CommandId
}
uuid_id! {
    /// One POST to the Graph API. Travels in `biz_opaque_callback_data` and comes back in status webhooks.
    AttemptId
}
uuid_id! {
    /// One event in the log, derived from its cause (R3).
    EventId
}

/// A business-scoped user id (`CC.…`), Meta's pseudonym of a person towards one business portfolio. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bsuid(pub String);

impl Bsuid {
    /// The id as Meta wrote it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bsuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bsuid(…)")
    }
}

/// What a person wrote or reads. `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Text(pub String);

impl Text {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} chars)", self.0.chars().count())
    }
}
