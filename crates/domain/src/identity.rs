//! Who a conversation is with (R10): a phone number, a business-scoped user id, or both, behind one opaque stream id.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::ids::{Bsuid, CommandId, OrganizationId, PhoneNumber, PhoneNumberId, StreamId, UserId};
use crate::phone::one_form;
use crate::time::Timestamp;

/// How WhatsApp addresses one person. At least one of the two is present in everything the connector records.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Address {
    /// The `wa_id`. Absent when the person hides their number behind a username.
    #[serde(default)]
    pub phone: Option<PhoneNumber>,
    /// The business-scoped user id. Absent in webhooks from before April 2026.
    #[serde(default)]
    pub bsuid: Option<Bsuid>,
}

impl Address {
    /// Neither a phone number nor a BSUID.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phone.is_none() && self.bsuid.is_none()
    }

    /// Fills what is missing here from `other`; what is known stays.
    pub fn learn(&mut self, other: &Self) {
        if self.phone.is_none() {
            self.phone.clone_from(&other.phone);
        }
        if self.bsuid.is_none() {
            self.bsuid.clone_from(&other.bsuid);
        }
    }
}

/// The secret that turns a person into an opaque stream id. It never changes; its id stands in front of every stream id.
#[derive(Clone)]
pub struct StreamKeys {
    key_id: String,
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for StreamKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamKeys").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

impl StreamKeys {
    /// Keys from a secret of any length and a short id (`a` to `z`, digits) that names it for ever.
    #[must_use]
    pub fn new(key_id: &str, secret: &[u8]) -> Self {
        // HMAC takes a key of any length, so this cannot fail.
        let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("HMAC takes any key length"));
        Self { key_id: key_id.to_owned(), mac }
    }

    /// Tells secrets apart without telling anything of them: who has another secret, or names it otherwise, has another one.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // Parts of a stream id have their length in front, so that this is the input of none.
        let mut mac = self.mac.clone();
        mac.update(b"fingerprint of the stream secret");
        let tag = mac.finalize().into_bytes();
        let digits = tag[..8].iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        format!("{}-{}", self.key_id, digits.collect::<String>())
    }

    fn stream(&self, parts: [&str; 3]) -> StreamId {
        let mut mac = self.mac.clone();
        for part in parts {
            // Length first, so that no two different triples are the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let tag = mac.finalize().into_bytes();
        // Written in one piece: every record that comes in needs one.
        let mut id = String::with_capacity(self.key_id.len() + 33);
        id.push_str(&self.key_id);
        id.push('-');
        for byte in &tag[..16] {
            id.push(HEX[usize::from(byte >> 4)]);
            id.push(HEX[usize::from(byte & 15)]);
        }
        StreamId(id)
    }

    /// A number that stands for bytes which may have somebody's details in them: nobody without the secret can tell which.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> u64 {
        let mut mac = self.mac.clone();
        mac.update(b"digest");
        mac.update(bytes);
        let tag = mac.finalize().into_bytes();
        tag[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The conversation of a business number with the person known under this phone number, however it is written: WhatsApp's own form
    /// of it and the one in a contact list name the same conversation.
    #[must_use]
    pub fn by_phone(&self, number: &PhoneNumberId, phone: &PhoneNumber) -> StreamId {
        self.stream(["phone", number.as_str(), &one_form(phone.expose())])
    }

    /// The conversation of a business number with the person known under this business-scoped user id.
    #[must_use]
    pub fn by_bsuid(&self, number: &PhoneNumberId, bsuid: &Bsuid) -> StreamId {
        self.stream(["bsuid", number.as_str(), bsuid.expose()])
    }

    /// The stream id of an address: by phone when there is one, else by BSUID. `None` for an address of nobody.
    #[must_use]
    pub fn conversation(&self, number: &PhoneNumberId, address: &Address) -> Option<StreamId> {
        match (address.phone.as_ref().filter(|phone| !phone.is_nobody()), &address.bsuid) {
            (Some(phone), _) => Some(self.by_phone(number, phone)),
            (None, Some(bsuid)) => Some(self.by_bsuid(number, bsuid)),
            (None, None) => None,
        }
    }

    /// The stream of a user: enablement, activation notice and contacts.
    #[must_use]
    pub fn user(&self, organization: &OrganizationId, user: &UserId) -> StreamId {
        self.stream(["user", organization.as_str(), user.as_str()])
    }

    /// The conversation with whoever has an identity after its person gave it up: `identity` is the stream that follows from it, `since` the
    /// first moment at which it names somebody else.
    #[must_use]
    pub fn successor(&self, identity: &StreamId, since: Timestamp) -> StreamId {
        self.stream(["successor", identity.as_str(), &since.as_millis().to_string()])
    }

    /// A proof that whoever has the secret wrote these parts for this purpose.
    #[must_use]
    pub fn seal(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.mac.clone();
        // No stream id is made of anything that begins like this.
        for part in [b"seal", purpose.as_bytes()].into_iter().chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut seal = [0; 16];
        seal.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        seal
    }

    /// The id of the opt-in message that a consent command of an organization leads to: the same for every repeat of the command (R3), and known to
    /// nobody without the secret before the request stands in the log. Otherwise a publisher could send a message of their own under it (P6).
    #[must_use]
    pub fn opt_in_message(&self, organization: &OrganizationId, request: CommandId) -> CommandId {
        let seal = self.seal("opt-in message", &[organization.as_str().as_bytes(), request.0.as_bytes()]);
        CommandId(Uuid::new_v8(seal))
    }

    /// The stream of a business number: account notices, pauses and limits.
    #[must_use]
    pub fn number(&self, number: &PhoneNumberId) -> StreamId {
        self.stream(["number", number.as_str(), ""])
    }
}
