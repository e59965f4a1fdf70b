//! The fold of one partition's batch into the `conversations` view: which cells the batch needs, what each event makes of them,
//! what has to be announced, and which changes of the view come out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use connector_domain::consent::ConsentStatus;
use connector_domain::conversation::Conversation;
use connector_domain::decide::{announce, announce_ordered, carry_over};
use connector_domain::directory::{ContactEntry, Enablement, decide_contact_moved};
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::{ContactId, StreamId, UserId};
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;
use connector_ports::gate::Change;
use connector_runtime::failure::Failure;
use connector_runtime::situation::{
    Membership, Person, bucket_of, contact_key, contact_list_key, conversation_key, enablement_key, load,
    membership_key, store, users_key,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::asking::{self, Asking};

/// How long the fate of an attempt is remembered: WhatsApp repeats webhooks for seven days.
const ATTEMPTS: Duration = Duration::from_secs(8 * 24 * 3600);

/// The digest of an attempt that WhatsApp reported as failed.
const FAILED: u64 = 1;
/// The digest of an attempt that WhatsApp has in any other state: it left.
const LEFT: u64 = 2;

/// A conversation as it is stored. Readers take it for a [`Conversation`] and pass over the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stored {
    /// The opt-in message of the open request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asking: Option<Asking>,
    /// The fold.
    #[serde(flatten)]
    pub(crate) conversation: Conversation,
}

impl Stored {
    /// What an event says about the opt-in message of the open request.
    fn follow(&mut self, recorded: &Recorded) -> Option<Event> {
        let open = self.timer();
        asking::follow(&mut self.asking, open, recorded).map(Event::from)
    }

    /// When the open opt-in request ends.
    fn timer(&self) -> Option<Timestamp> {
        let consent = &self.conversation.consent;
        consent.expires_at.filter(|_| consent.status == ConsentStatus::Requested)
    }
}

/// One value: as the view has it, and as it is after the events so far.
#[derive(Default)]
struct Cell<T> {
    before: T,
    now: T,
}

/// Values of one type by their keys; `None` until they are read.
struct Cells<T>(BTreeMap<String, Option<Cell<T>>>);

impl<T: Clone + Default + PartialEq + Serialize + DeserializeOwned> Cells<T> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn need(&mut self, key: String) {
        self.0.entry(key).or_default();
    }

    fn missing(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|(_, cell)| cell.is_none()).map(|(key, _)| key.clone())
    }

    fn load(&mut self, values: &BTreeMap<String, Option<Bytes>>) -> Result<(), Failure> {
        for (key, cell) in self.0.iter_mut().filter(|(_, cell)| cell.is_none()) {
            if let Some(stored) = values.get(key) {
                let before: T = load(stored.as_ref())?;
                *cell = Some(Cell { now: before.clone(), before });
            }
        }
        Ok(())
    }

    fn get(&mut self, key: String) -> &mut T {
        &mut self.0.entry(key).or_default().get_or_insert_default().now
    }

    fn changed(&self) -> impl Iterator<Item = (&String, &Cell<T>)> {
        self.0.iter().filter_map(|(key, cell)| Some((key, cell.as_ref().filter(|c| c.now != c.before)?)))
    }

    fn changes(&self, out: &mut Vec<Change>) -> Result<(), Failure> {
        for (key, cell) in self.changed() {
            let key = key.clone();
            out.push(if cell.now == T::default() {
                Change::Delete { key }
            } else {
                Change::Put { key, value: store(&cell.now)? }
            });
        }
        Ok(())
    }
}

/// The cells of one partition that a batch touches.
pub(crate) struct Fold {
    keys: StreamKeys,
    conversations: Cells<Stored>,
    enablements: Cells<Enablement>,
    contacts: Cells<ContactEntry>,
    memberships: Cells<Membership>,
    /// The entries of each user.
    lists: Cells<BTreeSet<ContactId>>,
    /// Who the directory has told of, by bucket.
    users: Cells<BTreeMap<StreamId, Person>>,
    /// Users who may write from another number now: their entries are needed.
    movers: Vec<StreamId>,
    /// The entries among `contacts`, whose conversations before the batch are needed, too.
    entries: Vec<(StreamId, ContactId)>,
    marks: Vec<Change>,
}

const fn about_enablement(event: &Event) -> bool {
    matches!(
        event,
        Event::WhatsAppEnabled(_)
            | Event::WhatsAppDisabled(_)
            | Event::ActivationNoticeRaised(_)
            | Event::ActivationNoticeAcknowledged(_)
    )
}

/// The entry of a contact list an event is about, with the conversation it names.
const fn about_contact(event: &Event) -> Option<(&ContactId, &StreamId)> {
    match event {
        Event::ContactAdded(added) => Some((&added.contact_id, &added.conversation_id)),
        Event::ContactRemoved(removed) => Some((&removed.contact_id, &removed.conversation_id)),
        _ => None,
    }
}

/// The user whom an event tells of for the first time, perhaps.
const fn listed(event: &Event) -> Option<&UserId> {
    match event {
        Event::WhatsAppEnabled(enabled) => Some(&enabled.user_id),
        Event::ContactAdded(added) => Some(&added.user_id),
        _ => None,
    }
}

impl Fold {
    /// A fold over these events. Its cells have to be read before [`Fold::evolve`]: ask [`Fold::missing`], give the values to
    /// [`Fold::load`], until nothing is missing.
    pub(crate) fn over<'a>(keys: &StreamKeys, events: impl Iterator<Item = &'a Recorded>) -> Self {
        let mut fold = Self {
            keys: keys.clone(),
            conversations: Cells::new(),
            enablements: Cells::new(),
            contacts: Cells::new(),
            memberships: Cells::new(),
            lists: Cells::new(),
            users: Cells::new(),
            movers: Vec::new(),
            entries: Vec::new(),
            marks: Vec::new(),
        };
        for Recorded { envelope, event } in events {
            let stream = &envelope.stream_id;
            if listed(event).is_some() {
                fold.users.need(users_key(bucket_of(stream)));
            }
            if Conversation::is_moved_by(event) || asking::about(event) {
                fold.conversations.need(conversation_key(stream));
            } else if about_enablement(event) {
                fold.enablements.need(enablement_key(stream));
                if matches!(event, Event::WhatsAppEnabled(_)) {
                    fold.lists.need(contact_list_key(stream));
                    fold.movers.push(stream.clone());
                }
            } else if let Some((contact, conversation)) = about_contact(event) {
                fold.enablements.need(enablement_key(stream));
                fold.lists.need(contact_list_key(stream));
                fold.contacts.need(contact_key(stream, contact));
                fold.memberships.need(membership_key(stream, conversation));
                fold.entries.push((stream.clone(), contact.clone()));
            }
        }
        fold
    }

    /// The keys that are not read yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        let users = self.enablements.missing().chain(self.contacts.missing()).chain(self.memberships.missing());
        let users = users.chain(self.lists.missing()).chain(self.users.missing());
        self.conversations.missing().chain(users).collect()
    }

    /// Takes values that were read.
    ///
    /// # Errors
    /// `Reinitialise` when one of them is not ours.
    pub(crate) fn load(&mut self, keys: Vec<String>, values: Vec<Option<Bytes>>) -> Result<(), Failure> {
        let values = keys.into_iter().zip(values).collect();
        self.conversations.load(&values)?;
        self.enablements.load(&values)?;
        self.contacts.load(&values)?;
        self.memberships.load(&values)?;
        self.lists.load(&values)?;
        self.users.load(&values)?;
        for user in std::mem::take(&mut self.movers) {
            for contact in self.lists.get(contact_list_key(&user)).iter() {
                self.contacts.need(contact_key(&user, contact));
            }
        }
        for (user, contact) in std::mem::take(&mut self.entries) {
            let entry = self.contacts.get(contact_key(&user, &contact));
            if let Some(before) = &entry.conversation_id {
                self.memberships.need(membership_key(&user, before));
            }
        }
        Ok(())
    }

    /// Folds an event and returns what has to be written because of it, with the streams where it belongs.
    pub(crate) fn evolve(&mut self, recorded: &Recorded) -> Vec<(StreamId, Event)> {
        let stream = &recorded.envelope.stream_id;
        let linked = matches!(recorded.event, Event::ConversationLinked(_));
        let before = self.conversation(recorded).filter(|before| linked || before.canonical.is_some()).cloned();
        let said = self.announced(recorded);
        let mut out: Vec<_> = said.into_iter().map(|event| (stream.clone(), event)).collect();
        if let (Some(before), Some(after)) = (before, self.conversation(recorded))
            && let Some((canonical, events)) = carry_over(&before, after, stream)
        {
            out.extend(events.into_iter().map(|event| (canonical.clone(), event)));
        }
        out
    }

    /// The conversation an event can change.
    fn conversation(&mut self, Recorded { envelope, event }: &Recorded) -> Option<&Conversation> {
        let key = || conversation_key(&envelope.stream_id);
        Conversation::is_moved_by(event).then(|| &self.conversations.get(key()).conversation)
    }

    /// What an event leads to in its own stream.
    fn announced(&mut self, recorded: &Recorded) -> Vec<Event> {
        let Recorded { envelope, event } = recorded;
        let stream = &envelope.stream_id;
        self.marks.extend(attempt_mark(recorded));
        if let Some(user_id) = listed(event) {
            let users = self.users.get(users_key(bucket_of(stream)));
            let organization_id = envelope.organization_id.clone();
            users.entry(stream.clone()).or_insert_with(|| Person { organization_id, user_id: user_id.clone() });
        }
        if Conversation::is_moved_by(event) {
            let stored = self.conversations.get(conversation_key(stream));
            let owner = stored.conversation.organization_id.clone();
            if !stored.conversation.is_entered_by(&envelope.organization_id, event) {
                return Vec::new();
            }
            if owner.is_some() && stored.conversation.organization_id != owner {
                stored.asking = None;
            }
            let before = stored.conversation.clone();
            stored.conversation.evolve(event, envelope.event_id, envelope.occurred_at);
            let after = &stored.conversation;
            let mut said = match event {
                Event::MessageReceived(received) => announce(&before, after, envelope.event_id, received),
                _ => announce_ordered(&before, after, envelope.event_id, event),
            };
            said.extend(stored.follow(recorded));
            return said;
        }
        if asking::about(event) {
            let stored = self.conversations.get(conversation_key(stream));
            let failed = stored.asking.is_some().then(|| stored.follow(recorded)).flatten();
            return failed.into_iter().collect();
        }
        if about_enablement(event) {
            let enablement = self.enablements.get(enablement_key(stream));
            let before = enablement.phone_number_id.clone();
            enablement.evolve(event);
            return match event {
                Event::WhatsAppEnabled(now) if before.is_some_and(|before| before != now.phone_number_id) => {
                    self.moved(stream, &now.user_id)
                }
                _ => Vec::new(),
            };
        }
        if let Some((contact, _)) = about_contact(event) {
            self.contact(stream, contact, event);
            if let Event::ContactAdded(added) = event {
                // Decided before the user's move was known, or announced for a move that another one followed.
                return self.follow(stream, &added.user_id, contact);
            }
        }
        Vec::new()
    }

    fn contact(&mut self, user: &StreamId, contact: &ContactId, event: &Event) {
        let entry = self.contacts.get(contact_key(user, contact));
        let before = entry.conversation_id.clone();
        entry.evolve(event);
        let after = entry.conversation_id.clone();
        if before == after {
            return;
        }
        let list = self.lists.get(contact_list_key(user));
        if after.is_some() {
            list.insert(contact.clone());
        } else {
            list.remove(contact);
        }
        if let Some(before) = before {
            self.memberships.get(membership_key(user, &before)).remove(contact);
        }
        if let Some(after) = after {
            self.memberships.get(membership_key(user, &after)).insert(contact.clone());
        }
    }

    /// The entries of a user who writes from another number now.
    fn moved(&mut self, user: &StreamId, id: &UserId) -> Vec<Event> {
        let contacts = self.lists.get(contact_list_key(user)).clone();
        contacts.iter().flat_map(|contact| self.follow(user, id, contact)).collect()
    }

    /// An entry follows its user to the number of now.
    fn follow(&mut self, user: &StreamId, id: &UserId, contact: &ContactId) -> Vec<Event> {
        let enablement = self.enablements.get(enablement_key(user));
        let entry = self.contacts.get(contact_key(user, contact));
        decide_contact_moved(entry, enablement, &self.keys, id, contact)
    }

    /// What the view has to change.
    ///
    /// # Errors
    /// Never for the folds of the domain.
    pub(crate) fn changes(self) -> Result<Vec<Change>, Failure> {
        let mut out = self.marks;
        self.conversations.changes(&mut out)?;
        self.enablements.changes(&mut out)?;
        self.contacts.changes(&mut out)?;
        self.memberships.changes(&mut out)?;
        self.lists.changes(&mut out)?;
        self.users.changes(&mut out)?;
        for (key, cell) in self.conversations.changed() {
            match (cell.before.timer(), cell.now.timer()) {
                (before, after) if before == after => {}
                (_, Some(at)) => out.push(Change::Schedule { key: key.clone(), at, tag: 0 }),
                (_, None) => out.push(Change::Unschedule { key: key.clone() }),
            }
        }
        Ok(out)
    }
}

/// Whether two values of a key mean the same. An earlier version may have written less about what has not changed since.
#[must_use]
pub(crate) fn same(key: &str, one: Option<&Bytes>, other: Option<&Bytes>) -> bool {
    fn by<T: DeserializeOwned + Default + PartialEq>(one: Option<&Bytes>, other: Option<&Bytes>) -> bool {
        matches!((load::<T>(one), load::<T>(other)), (Ok(one), Ok(other)) if one == other)
    }
    match key.split_once(':').map(|(kind, _)| kind) {
        _ if one == other => true,
        Some("c") => by::<Stored>(one, other),
        Some("u") => by::<Enablement>(one, other),
        Some("e") => by::<ContactEntry>(one, other),
        Some("m") => by::<Membership>(one, other),
        Some("l") => by::<BTreeSet<ContactId>>(one, other),
        Some("d") => by::<BTreeMap<StreamId, Person>>(one, other),
        _ => false,
    }
}

/// What a status leaves about the attempt it echoes: whoever waits for the fate of an attempt asks for it (R4).
fn attempt_mark(Recorded { envelope, event }: &Recorded) -> Option<Change> {
    let Event::MessageStatusChanged(status) = event else { return None };
    let id = Bytes::copy_from_slice(status.attempt_id?.0.as_bytes());
    let digest = if status.status == DeliveryStatus::Failed { FAILED } else { LEFT };
    Some(Change::Mark { id, digest, until: envelope.recorded_at + ATTEMPTS })
}
