//! The folds of a user's stream: whether WhatsApp is enabled (P1, P2), and who the contacts are (P3).

use serde::{Deserialize, Serialize};

use crate::command::DirectoryRecord;
use crate::event::Event;
use crate::identity::{Address, StreamKeys};
use crate::ids::{ContactId, PhoneNumberId, StreamId, UserId};

/// Whether a user may use WhatsApp, and whether they have been told.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Enablement {
    /// P1.
    pub enabled: bool,
    /// The number the user writes from.
    pub phone_number_id: Option<PhoneNumberId>,
    /// P2: the notice waits to be dismissed.
    pub notice_pending: bool,
    /// P2: the notice was raised once already and never comes back.
    pub notice_raised: bool,
}

impl Enablement {
    /// Folds one event of the user's stream. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        let _ = event;
    }
}

/// One entry of a user's contact list, with regard to one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContactEntry {
    /// The conversation the entry leads to; `None` once it was removed.
    pub conversation_id: Option<StreamId>,
    /// How WhatsApp addresses the contact.
    pub address: Address,
}

impl ContactEntry {
    /// Folds one event about this entry. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        let _ = event;
    }
}

/// What follows from a user's record (P1, P2).
#[must_use]
pub fn decide_user(enablement: &Enablement, record: &DirectoryRecord) -> Vec<Event> {
    let _ = (enablement, record);
    Vec::new()
}

/// What follows when a user's record is taken away.
#[must_use]
pub fn decide_user_removed(enablement: &Enablement, user: &UserId) -> Vec<Event> {
    let _ = (enablement, user);
    Vec::new()
}

/// What follows from a contact's record (P3). `number`: the number its user writes from.
#[must_use]
pub fn decide_contact(
    old: &ContactEntry,
    record: &DirectoryRecord,
    keys: &StreamKeys,
    number: &PhoneNumberId,
) -> Vec<Event> {
    let _ = (old, record, keys, number);
    Vec::new()
}

/// What follows when a contact's record is taken away.
#[must_use]
pub fn decide_contact_removed(old: &ContactEntry, user: &UserId, contact: &ContactId) -> Vec<Event> {
    let _ = (old, user, contact);
    Vec::new()
}

/// What follows when the user dismisses the activation notice (P2). Nothing when there is none to dismiss.
#[must_use]
pub fn decide_acknowledge(enablement: &Enablement, user: &UserId) -> Vec<Event> {
    let _ = (enablement, user);
    Vec::new()
}
