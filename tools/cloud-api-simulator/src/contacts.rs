//! The other side: people with a phone. A contact exists from its first use on; this file keeps what its screen shows,
//! the customer service window and the pair limit per business number.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ids::{Ids, mix_str},
    template::Filled,
};

/// Messages a business may send at once to one contact (Meta: up to 45 within 6 s).
const PAIR_BURST: i64 = 45;
/// After the burst, one message per this many milliseconds (Meta: 1 per 6 s).
const PAIR_INTERVAL_MS: i64 = 6_000;

const NAMES: [&str; 12] =
    ["Ada", "Bo", "Chidi", "Dana", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas", "Keiko", "Lía"];

/// All contacts by wa_id.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    by_wa_id: HashMap<String, Contact>,
    by_user_id: HashMap<String, String>,
    /// Messages of contacts, by id: who wrote them.
    inbound: HashMap<String, String>,
}

/// A person with WhatsApp.
#[derive(Debug)]
pub(crate) struct Contact {
    pub(crate) wa_id: String,
    pub(crate) user_id: String,
    pub(crate) name: String,
    pub(crate) username: Option<String>,
    /// Webhooks leave the phone number out, as for people with a username.
    pub(crate) hide_number: bool,
    /// Reads by itself; `None` is the setting.
    pub(crate) auto_read: Option<bool>,
    /// Not on WhatsApp or has blocked the business: 131026 by webhook.
    pub(crate) unreachable: bool,
    /// Stopped marketing: 131050 by webhook.
    pub(crate) marketing_stopped: bool,
    threads: HashMap<String, Thread>,
}

/// The conversation with one business number.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    /// When the contact wrote last, by the timestamp of its message.
    last_inbound_ms: Option<i64>,
    /// Theoretical arrival time of the pair limit (GCRA).
    pair_ms: i64,
    screen: VecDeque<ScreenMessage>,
}

/// One message on the screen.
#[derive(Debug)]
pub(crate) struct ScreenMessage {
    pub(crate) wamid: String,
    /// Written by the contact.
    pub(crate) from_contact: bool,
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) template: Option<(String, Filled)>,
    pub(crate) context: Option<String>,
    pub(crate) opaque: Option<String>,
    pub(crate) pricing_category: String,
    pub(crate) timestamp_ms: i64,
    /// `accepted`, `sent`, `delivered`, `read`, `failed`; for messages of the contact `sent` or `read`.
    pub(crate) status: &'static str,
}

/// `PUT /simulator/contacts/{wa_id}`: what is given is changed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContactChange {
    name: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    hide_number: Option<bool>,
    auto_read: Option<bool>,
    unreachable: Option<bool>,
    marketing_stopped: Option<bool>,
}

impl Contacts {
    /// The contact, made on first use.
    pub(crate) fn get_or_create(&mut self, wa_id: &str, ids: &Ids) -> &mut Contact {
        if !self.by_wa_id.contains_key(wa_id) {
            let contact = Contact::new(wa_id, ids);
            self.by_user_id.insert(contact.user_id.clone(), wa_id.to_owned());
            self.by_wa_id.insert(wa_id.to_owned(), contact);
        }
        self.by_wa_id.entry(wa_id.to_owned()).or_insert_with(|| Contact::new(wa_id, ids))
    }

    /// The contact, if it was used before.
    pub(crate) fn get(&self, wa_id: &str) -> Option<&Contact> {
        self.by_wa_id.get(wa_id)
    }

    /// The contact, to change it.
    pub(crate) fn get_mut(&mut self, wa_id: &str) -> Option<&mut Contact> {
        self.by_wa_id.get_mut(wa_id)
    }

    /// The wa_id behind a business-scoped user id.
    pub(crate) fn wa_id_of(&self, user_id: &str) -> Option<&str> {
        self.by_user_id.get(user_id).map(String::as_str)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_wa_id.len()
    }

    /// Changes a contact.
    pub(crate) fn change(&mut self, wa_id: &str, change: ContactChange, ids: &Ids) -> &Contact {
        if let Some(user_id) = change.user_id {
            let old = std::mem::replace(&mut self.get_or_create(wa_id, ids).user_id, user_id.clone());
            self.by_user_id.remove(&old);
            self.by_user_id.insert(user_id, wa_id.to_owned());
        }
        let contact = self.get_or_create(wa_id, ids);
        if let Some(name) = change.name {
            contact.name = name;
        }
        if let Some(username) = change.username {
            contact.username = (!username.is_empty()).then_some(username);
        }
        contact.hide_number = change.hide_number.unwrap_or(contact.hide_number);
        contact.auto_read = change.auto_read.or(contact.auto_read);
        contact.unreachable = change.unreachable.unwrap_or(contact.unreachable);
        contact.marketing_stopped = change.marketing_stopped.unwrap_or(contact.marketing_stopped);
        contact
    }

    /// Remembers who wrote an inbound message.
    pub(crate) fn remember_inbound(&mut self, wamid: &str, wa_id: &str) {
        self.inbound.insert(wamid.to_owned(), wa_id.to_owned());
    }

    /// The business marks an inbound message and the ones before it as read. False if there is no such message.
    pub(crate) fn business_reads(&mut self, wamid: &str, phone_number_id: &str) -> bool {
        let Some(contact) = self.inbound.get(wamid).and_then(|wa_id| self.by_wa_id.get_mut(wa_id)) else {
            return false;
        };
        let Some(thread) = contact.threads.get_mut(phone_number_id) else { return false };
        let place = thread.screen.iter().position(|m| m.from_contact && m.wamid == wamid);
        let up_to = place.map_or(0, |place| place + 1);
        thread.screen.iter_mut().take(up_to).filter(|m| m.from_contact).for_each(|m| m.status = "read");
        true
    }
}

impl Contact {
    fn new(wa_id: &str, ids: &Ids) -> Self {
        let pick = usize::try_from(mix_str(7, wa_id) % NAMES.len() as u64).unwrap_or_default();
        let last = wa_id.get(wa_id.len().saturating_sub(2)..).unwrap_or_default();
        Self {
            wa_id: wa_id.to_owned(),
            user_id: ids.bsuid(wa_id),
            name: format!("{} {last}", NAMES[pick]),
            username: None,
            hide_number: false,
            auto_read: None,
            unreachable: false,
            marketing_stopped: false,
            threads: HashMap::new(),
        }
    }

    /// The conversation with a business number.
    pub(crate) fn thread(&mut self, phone_number_id: &str) -> &mut Thread {
        if !self.threads.contains_key(phone_number_id) {
            self.threads.insert(phone_number_id.to_owned(), Thread::default());
        }
        self.threads.entry(phone_number_id.to_owned()).or_default()
    }

    /// Conversations by phone number id.
    pub(crate) fn threads(&self) -> impl Iterator<Item = (&str, &Thread)> {
        self.threads.iter().map(|(id, thread)| (id.as_str(), thread))
    }

    /// The thread and message of a message id.
    pub(crate) fn find(&self, wamid: &str) -> Option<(&str, &ScreenMessage)> {
        self.threads().find_map(|(id, thread)| Some((id, thread.screen.iter().rev().find(|m| m.wamid == wamid)?)))
    }

    /// Moves a message's status forward; never back from `read`, as screens do not.
    pub(crate) fn set_status(&mut self, phone_number_id: &str, wamid: &str, status: &'static str) {
        let rank = |status| ["accepted", "sent", "delivered", "read"].iter().position(|s| *s == status);
        if let Some(message) = self.thread(phone_number_id).screen.iter_mut().rev().find(|m| m.wamid == wamid)
            && (status == "failed" || rank(status) > rank(message.status))
        {
            message.status = status;
        }
    }
}

impl Thread {
    /// The contact wrote or called at this time: opens or renews the window.
    pub(crate) fn contact_wrote(&mut self, timestamp_ms: i64) {
        self.last_inbound_ms = Some(self.last_inbound_ms.map_or(timestamp_ms, |last| last.max(timestamp_ms)));
    }

    /// When the window closes, if it was ever opened.
    pub(crate) fn window_closes_ms(&self, length: Duration) -> Option<i64> {
        Some(self.last_inbound_ms?.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whether free-form messages are allowed now.
    pub(crate) fn window_open(&self, now_ms: i64, length: Duration) -> bool {
        self.window_closes_ms(length).is_some_and(|closes| now_ms < closes)
    }

    /// Takes one send from the pair limit; false if there is none left.
    pub(crate) fn take_pair(&mut self, now_ms: i64) -> bool {
        let next = self.pair_ms.max(now_ms) + PAIR_INTERVAL_MS;
        let allowed = next - now_ms <= PAIR_BURST * PAIR_INTERVAL_MS;
        if allowed {
            self.pair_ms = next;
        }
        allowed
    }

    /// Puts a message on the screen, dropping the oldest beyond `limit`.
    pub(crate) fn show(&mut self, message: ScreenMessage, limit: usize) {
        while self.screen.len() >= limit.max(1) {
            self.screen.pop_front();
        }
        self.screen.push_back(message);
    }

    /// Messages, oldest first.
    pub(crate) fn messages(&self) -> impl DoubleEndedIterator<Item = &ScreenMessage> {
        self.screen.iter()
    }

    /// Marks all received messages of the business as read and names those that were not.
    pub(crate) fn contact_reads(&mut self) -> Vec<String> {
        let unread = |m: &&mut ScreenMessage| !m.from_contact && matches!(m.status, "accepted" | "sent" | "delivered");
        let mut read = Vec::new();
        for message in self.screen.iter_mut().filter(|m| unread(m)) {
            message.status = "read";
            read.push(message.wamid.clone());
        }
        read
    }
}

impl ScreenMessage {
    /// As `GET /simulator/contacts/{wa_id}` shows it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "id": self.wamid, "from": if self.from_contact { "contact" } else { "business" }, "type": self.kind,
            "text": self.text, "template": self.template.as_ref().map(|(name, filled)| {
                let mut value = filled.json();
                value["name"] = json!(name);
                value
            }),
            "context": self.context, "biz_opaque_callback_data": self.opaque,
            "timestamp_ms": self.timestamp_ms, "status": self.status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_window_runs_from_the_latest_message_of_the_contact() {
        let mut thread = Thread::default();
        assert!(!thread.window_open(0, DAY));
        thread.contact_wrote(1_000);
        thread.contact_wrote(500);
        assert!(thread.window_open(86_400_999, DAY));
        assert!(!thread.window_open(86_401_000, DAY));
    }

    #[test]
    fn the_pair_limit_lets_a_burst_of_45_through_and_then_one_per_six_seconds() {
        let mut thread = Thread::default();
        assert_eq!((0..60).filter(|_| thread.take_pair(0)).count(), 45);
        assert!(!thread.take_pair(5_999));
        assert!(thread.take_pair(6_000));
        assert!(!thread.take_pair(6_001));
    }

    #[test]
    fn a_contact_is_found_by_its_new_user_id_only() {
        let ids = Ids::new(1);
        let mut contacts = Contacts::default();
        let old = contacts.get_or_create("16505551234", &ids).user_id.clone();
        let change = ContactChange { user_id: Some("US.1".to_owned()), ..ContactChange::default() };
        contacts.change("16505551234", change, &ids);
        assert_eq!(contacts.wa_id_of("US.1"), Some("16505551234"));
        assert_eq!(contacts.wa_id_of(&old), None);
    }
}
