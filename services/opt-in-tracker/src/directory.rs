//! Turns the directory into facts: who may use WhatsApp (P1, P2), and who is in whose contacts (P3).
//!
//! A contact leads to a conversation of a business number: the one its record names, else the one its user writes from. The
//! records of a user and of their contacts stand in different partitions, so a contact may come before its user. Then it waits a
//! little; if the user stays unknown, the record goes to the dead letter topic as `user_unknown`, to be redriven once the user is there.
//! So does a record that names a number, until that is one of its organization's (P4); if it is not, the word is `number_unknown`, whether
//! the number is somebody else's or nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::decode;
use connector_domain::command::{DirectoryRecord, NumberSettings};
use connector_domain::conversation::Conversation;
use connector_domain::decide::utf16_len;
use connector_domain::directory::{
    ContactEntry, Enablement, decide_contact, decide_contact_removed, decide_user, decide_user_removed,
};
use connector_domain::event::{Event, TimeSource};
use connector_domain::form::{Formed, is_name};
use connector_domain::handover::Handovers;
use connector_domain::ids::{ContactId, OrganizationId, PhoneNumberId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use connector_ports::partition::partition_for;
use connector_runtime::emit::{Cause, Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::numbers::Numbers;
use connector_runtime::platform::Platform;
use connector_runtime::situation::{contact_key, conversation_key, enablement_key, load, partition_of};
use connector_runtime::table::entry;

use crate::PRODUCER;
use crate::gone::{Comparison, Gone, compacted};
use crate::settling::Settling;

/// When a record that came before its user or its number is looked at again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the table of the numbers may take to come to the end of the topic.
const WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked whether there is something to compare.
const QUIET: Duration = Duration::from_secs(1);

/// The longest name of a contact, in UTF-16 units: it stands in the log and in every list.
const LONGEST_NAME: usize = 1024;

/// Steps of a comparison in one turn, while nobody is found to be gone.
const STEPS: usize = 16;

/// The handler.
pub struct Directory {
    platform: Platform,
    emitter: Emitter,
    clock: Arc<dyn Clock>,
    settling: Settling,
    numbers: Numbers,
    patience: Duration,
    /// Partitions of the topic; its number is for ever.
    partitions: u32,
    /// The partitions held, and since when: nobody has waited here for longer.
    since: BTreeMap<TopicPartition, Timestamp>,
    /// When records were first seen here whose own time was still to come then.
    ahead: BTreeMap<(TopicPartition, Offset), Timestamp>,
    /// Partitions of which compaction has taken records away that nobody has read. Nothing of them is handled before they are compared: what
    /// is new would be taken for gone, and whoever comes after us could not see the gap any more.
    compacted: BTreeSet<TopicPartition>,
    comparing: Option<(TopicPartition, Comparison)>,
}

/// What is known about a number that nobody ever handed over.
static NONE: Handovers = Handovers::none();

/// What a key of the topic is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    organization_id: OrganizationId,
    user_id: UserId,
    /// `None`: the user as such.
    contact_id: Option<ContactId>,
}

/// A record to decide about.
struct Item {
    at: usize,
    key: String,
    subject: Subject,
    stream: StreamId,
    /// `None` for a tombstone.
    record: Option<DirectoryRecord>,
}

/// What a record needs and the directory does not have yet.
enum Missing {
    /// The number that the record names is none of its organization's.
    Number,
    /// Neither a contact's record nor its user names a number.
    User,
}

/// The folds of the users of a batch, by their keys in the view.
#[derive(Default)]
struct Folds {
    enablements: BTreeMap<String, Enablement>,
    contacts: BTreeMap<String, ContactEntry>,
    /// What is known about the numbers of the contacts, by the streams that follow from them.
    handovers: BTreeMap<StreamId, Handovers>,
}

/// Reads a key. `Ok(None)`: not for the tracker.
fn subject(key: &str) -> Result<Option<Subject>, Reason> {
    let parts: Vec<&str> = key.split('/').collect();
    let (organization, user, contact) = match parts.as_slice() {
        ["number" | "number-state" | "organization", _] => return Ok(None),
        ["user", organization, user] => (*organization, *user, None),
        ["contact", organization, user, contact] => (*organization, *user, Some(*contact)),
        _ => {
            return Err(Reason::new(
                "unknown_key",
                "the key is none of number/…, user/…/…, contact/…/…/…, organization/… and number-state/…",
            ));
        }
    };
    Ok(Some(Subject {
        organization_id: organization.into(),
        user_id: user.into(),
        contact_id: contact.map(ContactId::from),
    }))
}

/// The step of a record about a number or an organization: followed in memory by whoever needs it, and nobody looks at one that cannot be
/// read, or sets what cannot be set. So it is said here.
fn not_for_people(record: &Record, partitions: u32) -> Step<()> {
    let decoded = record.value.as_deref().map(decode::<DirectoryRecord>);
    if let Some(field) = decoded.and_then(Result::ok).as_ref().and_then(DirectoryRecord::misformed) {
        return Step::DeadLetter(Reason::new("invalid_id", field));
    }
    match entry::<DirectoryRecord>(record, partitions) {
        Err(reason) => Step::DeadLetter(reason),
        Ok(found) => match found.and_then(|found| found.settings).as_ref().map_or(Ok(()), NumberSettings::check) {
            Ok(()) => Step::Done(Vec::new()),
            Err(field) => Step::DeadLetter(Reason::new("invalid_settings", field)),
        },
    }
}

impl Item {
    /// The number that the record lets somebody write from.
    fn number(&self) -> Option<&PhoneNumberId> {
        let record = self.record.as_ref()?;
        // Who may not write any more is told so, whatever number the record has.
        record.phone_number_id.as_ref().filter(|_| record.enabled || self.subject.contact_id.is_some())
    }
}

impl Missing {
    fn reason(&self) -> Reason {
        match self {
            Self::Number => Reason::new("number_unknown", "the number is none of the organization's"),
            Self::User => Reason::new("user_unknown", "neither the record nor its user names a number"),
        }
    }
}

impl Directory {
    /// A handler that lets a record wait this long for its user and its number. `numbers` are followed by a task of the service.
    #[must_use]
    pub fn new(platform: &Platform, patience: Duration, numbers: Numbers) -> Self {
        Self {
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            settling: Settling::new(platform),
            platform: platform.clone(),
            numbers,
            patience,
            partitions: 0,
            since: BTreeMap::new(),
            ahead: BTreeMap::new(),
            compacted: BTreeSet::new(),
            comparing: None,
        }
    }

    /// Reads a record. `Err`: its step, there is nothing to decide.
    fn item(&self, at: usize, record: &Record) -> Result<Item, Step<()>> {
        let dead = |word, detail: &str| Err(Step::DeadLetter(Reason::new(word, detail)));
        let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else {
            return dead("unknown_key", "the record has no readable key");
        };
        let subject = match subject(key) {
            // Another partition has no order with the key's own, and is not compacted with it.
            Ok(Some(_)) if partition_for(key.as_bytes(), self.partitions) != record.source.partition => {
                return dead("misplaced", "it stands in another partition than its key's");
            }
            Ok(Some(subject)) => subject,
            Ok(None) => return Err(not_for_people(record, self.partitions)),
            Err(reason) => return Err(Step::DeadLetter(reason)),
        };
        let decoded = match record.value.as_deref().map(decode::<DirectoryRecord>) {
            None => None,
            Some(Ok(decoded)) => Some(decoded),
            Some(Err(error)) => return Err(Step::DeadLetter(Reason::new(error.reason(), error))),
        };
        // A tombstone has nothing but its key, so what stands under a key must be what the key says.
        if decoded.as_ref().is_some_and(|decoded| decoded.key().as_deref() != Some(key)) {
            return dead("key_mismatch", "the key names something else than the record");
        }
        let formed = subject.organization_id.is_formed()
            && subject.user_id.is_formed()
            && subject.contact_id.as_ref().is_none_or(Formed::is_formed);
        // What was in the directory before may be taken away under whatever key it has.
        if !formed && decoded.is_some() {
            return dead("invalid_id", "an id in the key is no opaque id");
        }
        if let Some(field) = decoded.as_ref().and_then(DirectoryRecord::misformed) {
            return dead("invalid_id", field);
        }
        let name = decoded.as_ref().and_then(|decoded| decoded.name.as_ref());
        if name.is_some_and(|name| !is_name(name.expose())) {
            return dead("invalid", "name is too long");
        }
        let phone = decoded.as_ref().and_then(|decoded| decoded.address.phone.as_ref());
        if phone.is_some_and(|phone| !phone.is_possible()) {
            return dead("invalid", "address.phone is no phone number");
        }
        let bsuid = decoded.as_ref().and_then(|decoded| decoded.address.bsuid.as_ref());
        if bsuid.is_some_and(|bsuid| !bsuid.is_formed()) {
            return dead("invalid", "address.bsuid is no business-scoped user id");
        }
        let name = decoded.as_ref().and_then(|decoded| decoded.name.as_ref());
        if name.is_some_and(|name| utf16_len(name.expose()) > LONGEST_NAME) {
            return dead("invalid", "name is too long");
        }
        let stream = self.platform.keys.user(&subject.organization_id, &subject.user_id);
        Ok(Item { at, key: key.to_owned(), subject, stream, record: decoded })
    }

    /// The folds of all users and contacts concerned, after their views have caught up.
    async fn folds(&mut self, items: &[Item]) -> Result<Folds, Failure> {
        let mut keys: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for Item { stream, subject, .. } in items {
            let keys = keys.entry(partition_of(stream, self.platform.partitions)).or_default();
            keys.insert(enablement_key(stream));
            keys.extend(subject.contact_id.as_ref().map(|contact| contact_key(stream, contact)));
        }
        let values = self.settling.read(&keys).await?;
        let mut folds = Folds::default();
        for Item { stream, subject, .. } in items {
            let key = enablement_key(stream);
            let stored = load(values.get(&key).and_then(Option::as_ref))?;
            folds.enablements.insert(key, stored);
            if let Some(contact) = &subject.contact_id {
                let key = contact_key(stream, contact);
                let stored = load(values.get(&key).and_then(Option::as_ref))?;
                folds.contacts.insert(key, stored);
            }
        }
        self.handovers(items, &mut folds).await?;
        Ok(folds)
    }

    /// Who has the numbers of the contacts by now (R10).
    async fn handovers(&mut self, items: &[Item], folds: &mut Folds) -> Result<(), Failure> {
        let mut keys: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        let mut identities = BTreeSet::new();
        // A user may be told of in this very batch, and write from another number than before.
        let told = items.iter().filter(|item| item.subject.contact_id.is_none());
        let told = told.filter_map(|item| item.record.as_ref()?.phone_number_id.as_ref());
        for item in items.iter().filter(|item| item.subject.contact_id.is_some()) {
            let Some(record) = &item.record else { continue };
            let known = folds.enablements.get(&enablement_key(&item.stream)).and_then(|e| e.phone_number_id.as_ref());
            for number in record.phone_number_id.as_ref().into_iter().chain(known).chain(told.clone()) {
                identities.extend(self.platform.keys.conversation(number, &record.address));
            }
        }
        for identity in &identities {
            let partition = partition_of(identity, self.platform.partitions);
            keys.entry(partition).or_default().insert(conversation_key(identity));
        }
        let values = self.settling.read(&keys).await?;
        for identity in identities {
            let stored = values.get(&conversation_key(&identity)).and_then(Option::as_ref);
            let conversation: Conversation = load(stored)?;
            folds.handovers.insert(identity, conversation.handovers);
        }
        Ok(())
    }

    /// What a record leads to.
    fn decide(&self, item: &Item, folds: &mut Folds) -> Result<Vec<Event>, Missing> {
        let Subject { organization_id, user_id, contact_id } = &item.subject;
        let owns = |number: &PhoneNumberId| {
            self.numbers.get(number).is_some_and(|record| record.organization_id == *organization_id)
        };
        if !item.number().is_none_or(owns) {
            return Err(Missing::Number);
        }
        let enablement = folds.enablements.entry(enablement_key(&item.stream)).or_default();
        let Some(contact_id) = contact_id else {
            let events = match &item.record {
                Some(record) => decide_user(enablement, record),
                None => decide_user_removed(enablement, user_id),
            };
            events.iter().for_each(|event| enablement.evolve(event));
            return Ok(events);
        };
        let entry = folds.contacts.entry(contact_key(&item.stream, contact_id)).or_default();
        let events = match &item.record {
            None => decide_contact_removed(entry, user_id, contact_id),
            Some(record) => {
                let number = record.phone_number_id.as_ref().or(enablement.phone_number_id.as_ref());
                let number = number.ok_or(Missing::User)?;
                let keys = &self.platform.keys;
                let identity = keys.conversation(number, &record.address);
                let handovers = identity.and_then(|identity| folds.handovers.get(&identity)).unwrap_or(&NONE);
                decide_contact(entry, record, keys, number, (handovers, self.clock.now()))
            }
        };
        events.iter().for_each(|event| entry.evolve(event));
        Ok(events)
    }

    fn write(&self, item: &Item, events: Vec<Event>, record: &Record) -> Result<Vec<Append>, Failure> {
        let cause = Cause {
            organization_id: item.subject.organization_id.clone(),
            stream_id: item.stream.clone(),
            cause_id: format!("directory:{}:{}:{}", item.key, record.source.partition, record.offset.0),
            command_id: None,
            occurred_at: self.clock.now(),
            time_source: TimeSource::Connector,
            traceparent: traceparent(record),
        };
        events.into_iter().map(|event| self.emitter.emit(event, &cause)).collect()
    }

    /// Takes note of records whose own time is still to come: they are here since they were first seen. A publisher's clock must not hold up
    /// whoever stands behind.
    fn see(&mut self, work: &[Work], now: Timestamp) {
        let mut first: BTreeMap<&TopicPartition, Offset> = BTreeMap::new();
        for Work { record, .. } in work {
            let lowest = first.entry(&record.source).or_insert(record.offset);
            *lowest = record.offset.min(*lowest);
        }
        self.ahead.retain(|(partition, offset), _| first.get(partition).is_none_or(|first| offset >= first));
        for Work { record, .. } in work.iter().filter(|work| work.record.timestamp > now) {
            self.ahead.entry((record.source.clone(), record.offset)).or_insert(now);
        }
    }

    /// Whether a record may still wait for what it needs. All that came together wait together.
    fn may_wait(&self, record: &Record) -> bool {
        let seen = self.ahead.get(&(record.source.clone(), record.offset)).copied();
        let arrived = seen.map_or(record.timestamp, |seen| seen.min(record.timestamp));
        let held = self.since.get(&record.source).copied().unwrap_or(Timestamp::EPOCH);
        self.clock.now().since(arrived.max(held)) < self.patience
    }

    /// A step of the comparison of a partition with the views, see [`crate::gone`].
    async fn compare(&mut self) -> Result<Vec<Append>, Failure> {
        if self.comparing.is_none()
            && let Some(partition) = self.compacted.first().cloned()
        {
            let counts = (self.partitions, self.platform.partitions);
            match Comparison::begin(self.platform.log.as_ref(), &partition, counts).await? {
                Some(comparison) => self.comparing = Some((partition, comparison)),
                None => {
                    self.compacted.remove(&partition);
                }
            }
        }
        let Some((partition, mut comparison)) = self.comparing.take() else { return Ok(Vec::new()) };
        let mut gone = Vec::new();
        for _ in 0..STEPS {
            match comparison.step(&mut self.settling).await {
                Ok(found) => gone = found,
                Err(failure) => {
                    self.comparing = Some((partition, comparison));
                    return Err(failure);
                }
            }
            if !gone.is_empty() || comparison.is_over() {
                break;
            }
        }
        let mut appends = Vec::new();
        for Gone { key, person, stream, events } in gone {
            let cause = Cause {
                organization_id: person.organization_id,
                stream_id: stream,
                cause_id: format!("directory:{key}:{}:gone:{}", partition.partition, comparison.end.0),
                command_id: None,
                occurred_at: self.clock.now(),
                time_source: TimeSource::Connector,
                traceparent: None,
            };
            for event in events {
                appends.push(self.emitter.emit(event, &cause)?);
            }
        }
        if !appends.is_empty() {
            tracing::warn!(%partition, count = appends.len(), "taken away: the directory has them no more, and their tombstones are gone");
        }
        if comparison.is_over() {
            self.compacted.remove(&partition);
        } else {
            self.comparing = Some((partition, comparison));
        }
        Ok(appends)
    }
}

#[async_trait]
impl Handler for Directory {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        let missing = || Failure::Later(format!("topic {} does not exist yet", partition.topic));
        self.partitions = self.platform.log.topic(&partition.topic).await?.ok_or_else(missing)?.partitions;
        if compacted(self.platform.log.as_ref(), partition, committed).await? {
            self.compacted.insert(partition.clone());
        }
        self.since.insert(partition.clone(), self.clock.now());
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.since.remove(partition);
        self.ahead.retain(|(of, _), _| of != partition);
        self.compacted.remove(partition);
        self.comparing.take_if(|(comparing, _)| comparing == partition);
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(if self.compacted.is_empty() { QUIET } else { AGAIN })
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        if self.compacted.is_empty() { Ok(Vec::new()) } else { self.compare().await }
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Option<Step<()>>> = Vec::with_capacity(work.len());
        let mut items = Vec::new();
        let now = self.clock.now();
        let until = now + AGAIN;
        self.see(work, now);
        for (at, work) in work.iter().enumerate() {
            if self.compacted.contains(&work.record.source) {
                steps.push(Some(Step::Wait { until, appends: Vec::new() }));
                continue;
            }
            match self.item(at, &work.record) {
                Ok(item) => {
                    items.push(item);
                    steps.push(None);
                }
                Err(step) => steps.push(Some(step)),
            }
        }
        if items.is_empty() {
            return Ok(steps.into_iter().flatten().collect());
        }
        let mut folds = self.folds(&items).await?;
        self.numbers.at_end(items.iter().filter_map(Item::number), WITHIN).await?;
        // What stands behind a record that waits, waits with it; what it waits for may stand in front of it, or elsewhere. Numbers are read
        // beside, so one that stands behind is no dead end.
        let mut waiting = BTreeSet::new();
        for item in &items {
            let record = &work[item.at].record;
            if waiting.contains(&record.source) {
                steps[item.at] = Some(Step::Wait { until, appends: Vec::new() });
                continue;
            }
            let events = self.decide(item, &mut folds);
            steps[item.at] = Some(match events {
                Ok(events) => Step::Done(self.write(item, events, record)?),
                Err(_) if self.may_wait(record) => {
                    waiting.insert(record.source.clone());
                    Step::Wait { until, appends: Vec::new() }
                }
                Err(missing) => Step::DeadLetter(missing.reason()),
            });
        }
        Ok(steps.into_iter().flatten().collect())
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        _positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.settling.wrote(appended);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use connector_contracts::Topics;
    use connector_domain::identity::StreamKeys;
    use connector_domain::settings::Rules;
    use connector_simulated::SimWorld;
    use connector_telemetry::Metrics;

    use super::*;

    /// A publisher's clock is an hour ahead: the contact of somebody who never comes waits no longer than any other.
    #[tokio::test(start_paused = true)]
    async fn patience_runs_from_when_a_record_was_seen_however_late_it_is_stamped() {
        let world = SimWorld::new(1);
        let minute = Duration::from_secs(60);
        let platform = Platform {
            log: world.log(),
            gate: world.gate(),
            clock: world.clock(),
            ids: world.ids(),
            topics: Topics::default(),
            partitions: 1,
            keys: StreamKeys::new("k1", b"secret"),
            rules: Rules::default(),
            instance: "test".to_owned(),
            metrics: Arc::new(Metrics::new("0", "test")),
        };
        let mut directory = Directory::new(&platform, minute, Numbers::new(&platform));
        let now = world.clock().now();
        let source = TopicPartition::new("directory", 0);
        directory.since.insert(source.clone(), now);
        let record = |offset, timestamp| Record {
            source: source.clone(),
            offset: Offset(offset),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp,
        };
        let records = [record(0, now + 60 * minute), record(1, now)];
        let work: Vec<_> =
            records.iter().map(|record| Work { record: record.clone(), replay: false, round: 0 }).collect();
        directory.see(&work, now);
        assert!(records.iter().all(|record| directory.may_wait(record)));
        tokio::time::advance(minute - Duration::from_secs(1)).await;
        directory.see(&work, world.clock().now());
        assert!(records.iter().all(|record| directory.may_wait(record)));
        tokio::time::advance(Duration::from_secs(1)).await;
        directory.see(&work, world.clock().now());
        assert!(!records.iter().any(|record| directory.may_wait(record)));
        // Nothing is kept of what was dealt with.
        directory.see(&work[1..], world.clock().now());
        assert!(directory.ahead.is_empty());
    }

    #[test]
    fn a_key_names_a_user_or_a_contact_and_nothing_else() {
        let user = Subject { organization_id: "acme".into(), user_id: "ada".into(), contact_id: None };
        assert_eq!(subject("user/acme/ada"), Ok(Some(user.clone())));
        let contact = Subject { contact_id: Some("7".into()), ..user };
        assert_eq!(subject("contact/acme/ada/7"), Ok(Some(contact)));
        assert_eq!(subject("number/1"), Ok(None));
        for strange in ["", "user/acme", "user/acme/ada/7", "contact/acme/ada", "team/acme/ada"] {
            assert_eq!(subject(strange).map_err(|reason| reason.word), Err("unknown_key"), "{strange}");
        }
    }
}
