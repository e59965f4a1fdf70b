//! The folds of a user's stream: whether WhatsApp is enabled (P1, P2), and who the contacts are (P3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{DirectoryKind, DirectoryRecord};
use crate::decide::{Reason, Rejection};
use crate::event::{
    ActivationNoticeAcknowledged, ActivationNoticeRaised, ContactAdded, ContactRemoved, Event, WhatsAppDisabled,
    WhatsAppEnabled,
};
use crate::handover::Handovers;
use crate::identity::{Address, StreamKeys};
use crate::ids::{ContactId, PhoneNumberId, StreamId, Text, UserId};
use crate::time::Timestamp;

/// Whether a user may use WhatsApp, and whether they have been told.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Enablement {
    /// P1.
    pub enabled: bool,
    /// The number the user writes from.
    pub phone_number_id: Option<PhoneNumberId>,
    /// The number the user wrote from before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_number: Option<PhoneNumberId>,
    /// P2: the notice waits to be dismissed.
    pub notice_pending: bool,
    /// P2: the notice was raised once already and never comes back.
    pub notice_raised: bool,
}

impl Enablement {
    /// Folds one event of the user's stream. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::WhatsAppEnabled(enabled) => {
                self.enabled = true;
                if self.phone_number_id.as_ref() != Some(&enabled.phone_number_id) {
                    self.former_number = self.phone_number_id.replace(enabled.phone_number_id.clone());
                }
            }
            Event::WhatsAppDisabled(_) => self.enabled = false,
            Event::ActivationNoticeRaised(_) if !self.notice_raised => {
                self.notice_raised = true;
                self.notice_pending = true;
            }
            // Also when the raise is read later: acknowledged once, it never comes back.
            Event::ActivationNoticeAcknowledged(_) => {
                self.notice_raised = true;
                self.notice_pending = false;
            }
            _ => {}
        }
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
    /// The name in the contact list.
    pub name: Option<Text>,
}

impl ContactEntry {
    /// Folds one event about this entry. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        match event {
            Event::ContactAdded(added) => {
                self.conversation_id = Some(added.conversation_id.clone());
                self.address = added.address.clone();
                self.name.clone_from(&added.name);
            }
            // The entry may lead elsewhere by now; a removal of the former conversation is stale.
            Event::ContactRemoved(removed) if self.conversation_id.as_ref() == Some(&removed.conversation_id) => {
                *self = Self::default();
            }
            _ => {}
        }
    }
}

/// The fold of a user's contact list.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Contacts {
    /// The entries that lead to a conversation.
    pub entries: BTreeMap<ContactId, ContactEntry>,
}

impl Contacts {
    /// Folds one event of the user's stream. Foreign events change nothing.
    pub fn evolve(&mut self, event: &Event) {
        let id = match event {
            Event::ContactAdded(added) => &added.contact_id,
            Event::ContactRemoved(removed) => &removed.contact_id,
            _ => return,
        };
        let entry = self.entries.entry(id.clone()).or_default();
        entry.evolve(event);
        if entry.conversation_id.is_none() {
            self.entries.remove(id);
        }
    }

    /// Whether any entry leads to this conversation (P3): two entries may be the same person.
    #[must_use]
    pub fn contains(&self, conversation: &StreamId) -> bool {
        self.entries.values().any(|entry| entry.conversation_id.as_ref() == Some(conversation))
    }
}

/// What follows from a user's record (P1, P2). A record that repeats what is known leads to nothing, and so does one without
/// the ids it needs; enabled without a number counts as not enabled.
#[must_use]
pub fn decide_user(enablement: &Enablement, record: &DirectoryRecord) -> Vec<Event> {
    let Some(user_id) = record.user_id.clone().filter(|_| record.kind == DirectoryKind::User) else {
        return Vec::new();
    };
    let Some(phone_number_id) = record.phone_number_id.clone().filter(|_| record.enabled) else {
        return decide_user_removed(enablement, &user_id);
    };
    let mut events = Vec::new();
    if !enablement.enabled || enablement.phone_number_id.as_ref() != Some(&phone_number_id) {
        events.push(WhatsAppEnabled { user_id: user_id.clone(), phone_number_id }.into());
    }
    if !enablement.notice_raised {
        events.push(ActivationNoticeRaised { user_id }.into());
    }
    events
}

/// What follows when a user's record is taken away.
#[must_use]
pub fn decide_user_removed(enablement: &Enablement, user: &UserId) -> Vec<Event> {
    if enablement.enabled { vec![WhatsAppDisabled { user_id: user.clone() }.into()] } else { Vec::new() }
}

/// What follows from a contact's record (P3). `number`: the number its user writes from. A changed phone number (or a user who
/// moved to another business number) leads to another conversation: removed, then added. `handovers`: what is known about the address. An
/// entry stays with the person it was made for, wherever they are; one that is new names whoever has the address `now` (R10).
#[must_use]
pub fn decide_contact(
    old: &ContactEntry,
    record: &DirectoryRecord,
    keys: &StreamKeys,
    number: &PhoneNumberId,
    (handovers, now): (&Handovers, Timestamp),
) -> Vec<Event> {
    let (DirectoryKind::Contact, Some(user_id), Some(contact_id)) = (record.kind, &record.user_id, &record.contact_id)
    else {
        return Vec::new();
    };
    // An entry that WhatsApp cannot address is no contact.
    let Some(identity) = keys.conversation(number, &record.address) else {
        return decide_contact_removed(old, user_id, contact_id);
    };
    let same_address = keys.conversation(number, &old.address).as_ref() == Some(&identity);
    let ever = |id: &&StreamId| **id == identity || handovers.of(&identity).any(|handover| handover.successor == **id);
    let kept = old.conversation_id.as_ref().filter(|_| same_address).filter(ever);
    let conversation_id = kept.unwrap_or_else(|| handovers.holder(&identity, now)).clone();
    let same_conversation = old.conversation_id.as_ref() == Some(&conversation_id);
    if same_conversation && old.address == record.address && old.name == record.name {
        return Vec::new();
    }
    let mut events = if same_conversation { Vec::new() } else { decide_contact_removed(old, user_id, contact_id) };
    let added = ContactAdded {
        user_id: user_id.clone(),
        contact_id: contact_id.clone(),
        conversation_id,
        address: record.address.clone(),
        name: record.name.clone(),
    };
    events.push(added.into());
    events
}

/// What follows for an entry of a user who writes from another number than before: an entry that leads to the conversation with its
/// person from the former number leads to the one from the number of now. Nothing for an entry that names a number of its own.
#[must_use]
pub fn decide_contact_moved(
    entry: &ContactEntry,
    enablement: &Enablement,
    keys: &StreamKeys,
    user: &UserId,
    contact: &ContactId,
) -> Vec<Event> {
    let (Some(former), Some(number)) = (&enablement.former_number, &enablement.phone_number_id) else {
        return Vec::new();
    };
    let leads = |number| keys.conversation(number, &entry.address);
    let (Some(from), Some(to)) = (leads(former), leads(number)) else { return Vec::new() };
    if entry.conversation_id.as_ref() != Some(&from) || from == to {
        return Vec::new();
    }
    let mut events = decide_contact_removed(entry, user, contact);
    let added = ContactAdded {
        user_id: user.clone(),
        contact_id: contact.clone(),
        conversation_id: to,
        address: entry.address.clone(),
        name: entry.name.clone(),
    };
    events.push(added.into());
    events
}

/// What follows when a contact's record is taken away.
#[must_use]
pub fn decide_contact_removed(old: &ContactEntry, user: &UserId, contact: &ContactId) -> Vec<Event> {
    let removed = old.conversation_id.clone().map(|conversation_id| {
        ContactRemoved { user_id: user.clone(), contact_id: contact.clone(), conversation_id }.into()
    });
    removed.into_iter().collect()
}

/// What follows when the user dismisses the activation notice (P2). Once more changes nothing, and is said again: the command has an
/// outcome.
///
/// # Errors
/// When the user was never told of anything.
pub fn decide_acknowledge(enablement: &Enablement, user: &UserId) -> Result<Event, Rejection> {
    if enablement.notice_raised {
        Ok(ActivationNoticeAcknowledged { user_id: user.clone() }.into())
    } else {
        Err(Reason::NotEnabled.at("user_id"))
    }
}
