//! Batches of webhook items become events: understood, told from repeats, put into the conversation they belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::{Topic, decode};
use connector_domain::command::{DirectoryRecord, WebhookItem};
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::ids::{EventId, OrganizationId, PhoneNumberId, StreamId, Text};
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::View;
use connector_ports::log::{Append, Appended, Header, Offset, Record, TopicPartition};
use connector_runtime::commands::{FORWARDED, forward};
use connector_runtime::emit::{Cause, Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::people::{Learns, Link, People, Said, Whose};
use connector_runtime::platform::{Platform, views};
use connector_runtime::situation::partition_of;
use connector_runtime::table::Table;
use connector_runtime::view::{Mark, Memory, Reading};
use connector_telemetry::Metrics;
use connector_telemetry::metrics::InboundOutcome;
use futures::future::{try_join, try_join_all};

use crate::meaning::{Interpreter, Meaning};
use crate::moves::Mover;
use crate::{Config, SERVICE};

/// The header of an item that was sent on to a conversation which not all of its identities name for good: which ones do not.
const APART: &str = "apart";

/// How long WhatsApp repeats what it has told, with a day for what is on its way.
const REPEATED: i64 = 8 * 24 * 3600 * 1000;

/// How long a recorded item is remembered exactly: as long as the topic may have its last repeat, so that a replay of the topic adds nothing.
const MEMORY: Duration = Duration::from_millis((Topic::Webhooks.retention().retention_ms() + REPEATED).unsigned_abs());

/// Bytes of item and text in an event, so that it fits into a record of 4 MiB with everything else.
const LARGEST: usize = 4_000_000;

/// How long a number that seems unknown is waited for.
const SETTLE: Duration = Duration::from_secs(5);

/// The handler of the webhook topic.
pub struct InboundHandler {
    interpreter: Interpreter,
    emitter: Emitter,
    partitions: u32,
    conversations: Reading,
    numbers: Table<DirectoryRecord>,
    memory: Memory,
    /// For the memories of other partitions.
    gate: Arc<dyn Gate>,
    metrics: Arc<Metrics>,
    written: Written,
    /// What was said about identities before; the views may not have it yet.
    said: Arc<Said>,
}

/// What the last batch wrote, until its commit.
#[derive(Default)]
struct Written {
    marks: BTreeMap<u32, Vec<Mark>>,
    outcomes: Vec<InboundOutcome>,
    said: Said,
}

/// An item that is understood.
struct Item {
    meaning: Meaning,
    organization: OrganizationId,
    /// Who else has a number of the account that the item is about.
    others: BTreeSet<OrganizationId>,
    /// The stream it was sent on to, and what it tells there.
    sent_on: Option<(StreamId, Learns)>,
    partition: u32,
    traceparent: Option<String>,
}

impl Item {
    /// Where it belongs: where the record was sent on to, else with whoever has the address it names.
    fn whose(&self, people: &People) -> Whose {
        let meaning = &self.meaning;
        match (&self.sent_on, &meaning.event) {
            (Some((home, learns)), _) => Whose { stream: home.clone(), learns: *learns, lost_by: None },
            (None, _) if meaning.address.is_empty() => {
                Whose { stream: meaning.home.clone(), learns: Learns::All, lost_by: None }
            }
            (None, Event::MessageStatusChanged(_)) => {
                people.whose_status(&meaning.home, meaning.bsuid(), meaning.occurred_at)
            }
            (None, _) => people.whose(&meaning.home, meaning.bsuid(), meaning.occurred_at),
        }
    }

    /// Its own stream and the further ones that its conversation learns.
    fn identities(&self, stream: &StreamId, learns: Learns) -> (StreamId, &[StreamId]) {
        match learns {
            Learns::All => (self.meaning.home.clone(), &self.meaning.identities),
            Learns::NotTheNumber => (stream.clone(), &self.meaning.identities),
            Learns::Nothing => (stream.clone(), &[]),
        }
    }
}

/// The header that tells the next one what an item tells there.
fn apart(learns: Learns) -> Option<Header> {
    let word: &'static [u8] = match learns {
        Learns::All => return None,
        Learns::NotTheNumber => b"number",
        Learns::Nothing => b"all",
    };
    Some((APART.into(), Some(Bytes::from_static(word))))
}

fn learns(record: &Record) -> Learns {
    match record.header(APART).map(|word| &word[..]) {
        None => Learns::All,
        Some(b"number") => Learns::NotTheNumber,
        Some(_) => Learns::Nothing,
    }
}

/// The mark of an event: its id, derived from its cause, so that the memory can be rebuilt from the log alone.
fn mark(recorded: &Recorded) -> Option<Mark> {
    let envelope = &recorded.envelope;
    (envelope.producer == SERVICE).then(|| Mark {
        id: mark_id(envelope.event_id),
        digest: 0,
        until: envelope.recorded_at + MEMORY,
    })
}

fn mark_id(id: EventId) -> Bytes {
    Bytes::copy_from_slice(id.0.as_bytes())
}

/// The item of a record.
fn item(record: &Record) -> Result<WebhookItem, Reason> {
    let value = record.value.as_deref().ok_or_else(|| Reason::new("tombstone", "a webhook item has a value"))?;
    decode(value).map_err(|error| Reason::new(error.reason(), error))
}

fn number_key(number: &PhoneNumberId) -> String {
    format!("number/{number}")
}

impl InboundHandler {
    /// A handler on a platform. `numbers`: the directory's records under `number/…`, followed by a task of the service.
    #[must_use]
    pub fn new(platform: &Platform, config: Config, numbers: Table<DirectoryRecord>) -> Self {
        let log = platform.topic(Topic::ConversationEvents);
        Self {
            interpreter: Interpreter {
                keys: platform.keys.clone(),
                rules: platform.rules.clone(),
                vocabulary: config.vocabulary,
            },
            emitter: platform.emitter(SERVICE),
            partitions: platform.partitions,
            conversations: platform.conversations(),
            numbers,
            gate: platform.gate.clone(),
            memory: Memory::new(platform.gate.clone(), platform.log.clone(), views::INBOUND, log, mark),
            metrics: platform.metrics.clone(),
            written: Written::default(),
            said: Arc::default(),
        }
    }

    /// Reads the directory up to its end as of this call, as far as the items of a batch need it: whose an item is, is decided on what holds
    /// now, and not on a table of a moment ago (R2).
    async fn settle(&self, items: &[Result<WebhookItem, Reason>]) -> Result<(), Failure> {
        let items = || items.iter().filter_map(|item| item.as_ref().ok());
        if items().any(|item| item.phone_number_id.is_none()) {
            // All who have a number of an account are known when the whole table was read.
            return self.numbers.complete(SETTLE).await;
        }
        let numbers: BTreeSet<String> =
            items().filter_map(|item| item.phone_number_id.as_ref()).map(number_key).collect();
        self.numbers.at_end(&numbers.into_iter().collect::<Vec<_>>(), SETTLE).await
    }

    /// Whose item it is: one organization's, if it is about a number; else that of all who have a number of the account. Empty when neither
    /// belongs to anybody.
    fn owners(&self, item: &WebhookItem) -> BTreeSet<OrganizationId> {
        if let Some(number) = &item.phone_number_id {
            let record = self.numbers.get(&number_key(number));
            return record.map(|record| record.organization_id.clone()).into_iter().collect();
        }
        let all = self.numbers.all();
        let of_account = all.iter().filter(|number| number.waba_id.as_ref() == Some(&item.waba_id));
        of_account.map(|number| number.organization_id.clone()).collect()
    }

    fn understand(
        &self,
        record: &Record,
        item: Result<WebhookItem, Reason>,
        owners: &mut HashMap<(Option<String>, String), BTreeSet<OrganizationId>>,
    ) -> Result<Item, Reason> {
        let item = item?;
        let who = (item.phone_number_id.as_ref().map(|n| n.0.clone()), item.waba_id.0.clone());
        let mut owners = owners.entry(who).or_insert_with(|| self.owners(&item)).clone();
        let Some(organization) = owners.pop_first() else {
            let word = if item.phone_number_id.is_some() { "unknown_number" } else { "unknown_account" };
            return Err(Reason::new(word, "no organization has it"));
        };
        let meaning = self.interpreter.interpret(&item, &organization).and_then(fitting)?;
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let sent_on_to = key.filter(|_| record.header(FORWARDED).is_some()).map(StreamId::from);
        Ok(Item {
            organization,
            others: owners,
            sent_on: sent_on_to.map(|stream| (stream, learns(record))),
            meaning,
            partition: record.source.partition,
            traceparent: traceparent(record),
        })
    }

    /// Which of these events stand in the log already, by partition.
    async fn recall(&self, ids: BTreeMap<u32, Vec<EventId>>) -> Result<HashSet<EventId>, Failure> {
        let asked = ids.into_iter().map(async |(partition, ids)| {
            let marks: Vec<_> = ids.iter().copied().map(mark_id).collect();
            let found = self.memory.recall(partition, &marks).await?;
            Ok::<_, Failure>(ids.into_iter().zip(found).filter(|(_, found)| found.is_some()).map(|(id, _)| id))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Messages and calls of people who are known by nothing may have been recorded before under another identity, in another partition: until the
    /// two are known to be one person, only the id of the message or call tells. The memories of other partitions are asked as they stand: they
    /// move with what their owners write and not with the log, so no position says that they are complete.
    async fn recorded_elsewhere(&self, items: &[&Item], people: &People) -> Result<HashSet<EventId>, Failure> {
        let is_stranger = |item: &&&Item| {
            let by_person = matches!(item.meaning.event, Event::MessageReceived(_) | Event::CallReceived(_));
            by_person && !people.is_anybody(&item.whose(people).stream)
        };
        let strangers: Vec<_> = items.iter().filter(is_stranger).collect();
        if strangers.is_empty() {
            return Ok(HashSet::new());
        }
        let asked = (0..self.partitions).map(async |partition| {
            let others = strangers.iter().filter(|item| item.partition != partition);
            let ids: Vec<_> = others.map(|item| item.meaning.event_id()).collect();
            let marks: Vec<_> = ids.iter().copied().map(mark_id).collect();
            let found = self.gate.recall(&View::new(views::INBOUND, partition), &marks).await?.answers;
            Ok::<_, Failure>(ids.into_iter().zip(found).filter(|(_, found)| found.is_some()).map(|(id, _)| id))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Reads who else is concerned, and which of the links that may have to be written were written before.
    async fn links(&self, items: &[&Item], people: &mut People) -> Result<HashSet<EventId>, Failure> {
        let mut further = news(items, people);
        further.extend(items.iter().filter_map(|item| self.left(item, people)));
        people.read(&self.conversations, self.partitions, further).await?;
        let mut asked: BTreeMap<u32, Vec<EventId>> = BTreeMap::new();
        for item in items {
            let Whose { stream, learns, .. } = item.whose(people);
            let (place, into) = people.place(&stream, &item.meaning.identities);
            let (own, identities) = item.identities(&place, learns);
            let learned = people.learn(&place, &own, identities);
            let ids = into.iter().chain(&learned).map(Link::event_id);
            asked.entry(item.partition).or_default().extend(ids);
        }
        asked.retain(|_, ids| !ids.is_empty());
        self.recall(asked).await
    }

    /// The stream of the number that somebody leaves, when only their conversation tells which one that is.
    fn left(&self, item: &Item, people: &People) -> Option<StreamId> {
        let moves = item.meaning.moved_to.as_ref().filter(|moves| moves.leaves)?;
        let person = people.root(&item.whose(people).stream);
        let phone = people.conversation(&person)?.address.phone.as_ref()?;
        Some(self.interpreter.keys.by_phone(&moves.phone_number_id, phone))
    }
}

/// An event carries the item and beside it the text that stands in the item: one as large as a whole delivery may not fit into the log.
fn fitting(meaning: Meaning) -> Result<Meaning, Reason> {
    let bytes = match &meaning.event {
        Event::MessageReceived(message) => {
            let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.expose().len());
            message.raw.expose().len() + text(&message.text) + text(&message.profile_name)
        }
        _ => 0,
    };
    if bytes <= LARGEST { Ok(meaning) } else { Err(Reason::new("too_large", "the event does not fit into the log")) }
}

/// The streams that items name first.
fn own_streams(items: &[&Item]) -> Vec<StreamId> {
    let mut streams = Vec::new();
    for item in items {
        let meaning = &item.meaning;
        streams.extend(meaning.also.iter().map(|(stream, ..)| stream.clone()));
        if !meaning.address.is_empty() {
            streams.extend(item.sent_on.iter().map(|(stream, _)| stream.clone()));
            streams.push(meaning.home.clone());
            streams.extend(meaning.moved_to.iter().flat_map(|moves| moves.streams.clone()));
        }
    }
    streams
}

/// The other identities of people. They lie all over the partitions, so they are only asked for while they are news.
fn news(items: &[&Item], people: &People) -> Vec<StreamId> {
    let own = |item: &Item| match &item.sent_on {
        Some((stream, _)) => stream.clone(),
        None => people.holder(&item.meaning.home, item.meaning.occurred_at),
    };
    let is_news = |item: &&&Item| !people.knows_all(&own(item), &item.meaning.identities);
    items.iter().filter(is_news).flat_map(|item| item.meaning.identities.clone()).collect()
}

/// Writes the events of one item.
pub(crate) struct Writer<'a> {
    emitter: &'a Emitter,
    partitions: u32,
    item: &'a Item,
    appends: Vec<Append>,
    marks: &'a mut BTreeMap<u32, Vec<Mark>>,
}

impl<'a> Writer<'a> {
    /// What the item means.
    pub(crate) const fn meaning(&self) -> &'a Meaning {
        &self.item.meaning
    }

    pub(crate) fn event(
        &mut self,
        event: impl Into<Event>,
        stream: &StreamId,
        cause_id: String,
    ) -> Result<(), Failure> {
        let meaning = &self.item.meaning;
        self.event_at(event, stream, cause_id, (meaning.occurred_at, meaning.time_source))
    }

    fn event_at(
        &mut self,
        event: impl Into<Event>,
        stream: &StreamId,
        cause_id: String,
        (occurred_at, time_source): (Timestamp, TimeSource),
    ) -> Result<(), Failure> {
        let recorded = self.emitter.recorded(
            event,
            &Cause {
                organization_id: self.item.organization.clone(),
                stream_id: stream.clone(),
                cause_id,
                command_id: None,
                occurred_at,
                time_source,
                traceparent: self.item.traceparent.clone(),
            },
        );
        // The memory of a partition holds what its own worker wrote into the log partition of the same number.
        if partition_of(stream, self.partitions) == self.item.partition {
            self.marks.entry(self.item.partition).or_default().extend(mark(&recorded));
        }
        self.appends.push(self.emitter.event(&recorded)?);
        Ok(())
    }

    /// The event once more for another organization.
    fn event_of(&mut self, organization: &OrganizationId, stream: &StreamId) -> Result<(), Failure> {
        let meaning = &self.item.meaning;
        let cause = Cause {
            organization_id: organization.clone(),
            stream_id: stream.clone(),
            cause_id: format!("{}:{organization}", meaning.cause_id),
            command_id: None,
            occurred_at: meaning.occurred_at,
            time_source: meaning.time_source,
            traceparent: self.item.traceparent.clone(),
        };
        self.appends.push(self.emitter.emit(meaning.event.clone(), &cause)?);
        Ok(())
    }

    fn link(&mut self, link: &Link) -> Result<(), Failure> {
        for (stream, event, cause_id) in link.events(&self.item.meaning.address) {
            self.event(event, &stream, cause_id)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for InboundHandler {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, _: Option<Offset>) -> Result<TakeUp, Failure> {
        self.memory.take_over(partition.partition).await?;
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.memory.forget(partition.partition);
        self.written.marks.remove(&partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        self.written = Written::default();
        let mut owners = HashMap::new();
        let mut understood = Vec::with_capacity(work.len());
        let mut asked: BTreeMap<u32, Vec<EventId>> = BTreeMap::new();
        let read: Vec<_> = work.iter().map(|work| item(&work.record)).collect();
        self.settle(&read).await?;
        for (work, read) in work.iter().zip(read) {
            let item = self.understand(&work.record, read, &mut owners);
            if let Ok(item) = &item {
                asked.entry(item.partition).or_default().push(item.meaning.event_id());
            }
            understood.push(item);
        }
        let mut items: Vec<&Item> = understood.iter().filter_map(|item| item.as_ref().ok()).collect();
        let mut people = People::beside(self.said.clone());
        // Both at once: most items are new, so most of these people have to be known.
        let own = people.read(&self.conversations, self.partitions, own_streams(&items));
        let (mut recorded, ()) = try_join(self.recall(asked), own).await?;
        items.retain(|item| !recorded.contains(&item.meaning.event_id()));
        let new = items;
        let linked = self.links(&new, &mut people).await?;
        let elsewhere = self.recorded_elsewhere(&new, &people).await?;
        recorded.extend(elsewhere);

        let mut written = Written::default();
        let mut steps = Vec::with_capacity(work.len());
        for (work, item) in work.iter().zip(&understood) {
            let item = match item {
                Ok(item) => item,
                Err(reason) => {
                    written.outcomes.push(InboundOutcome::DeadLetter);
                    steps.push(Step::DeadLetter(reason.clone()));
                    continue;
                }
            };
            if !recorded.insert(item.meaning.event_id()) {
                written.outcomes.push(InboundOutcome::Duplicate);
                steps.push(Step::Done(Vec::new()));
                continue;
            }
            let appends = self.write(work, item, &mut people, &linked, &mut written)?;
            steps.push(Step::Done(appends));
        }
        written.said = people.said();
        self.written = written;
        Ok(steps)
    }

    async fn committed(&mut self, appended: &[Appended], _: &[(TopicPartition, Offset)]) -> Result<(), Failure> {
        self.memory.remember(&self.written.marks, appended).await?;
        self.written.marks.clear();
        Arc::make_mut(&mut self.said).add(std::mem::take(&mut self.written.said));
        for outcome in self.written.outcomes.drain(..) {
            self.metrics.inbound.item(outcome);
        }
        Ok(())
    }
}

impl InboundHandler {
    fn write(
        &self,
        work: &Work,
        item: &Item,
        people: &mut People,
        linked: &HashSet<EventId>,
        written: &mut Written,
    ) -> Result<Vec<Append>, Failure> {
        let meaning = &item.meaning;
        let personal = !meaning.address.is_empty();
        let Whose { stream: home, learns, lost_by } = item.whose(people);
        let (mut stream, into) = people.place(&home, &meaning.identities);
        if item.sent_on.is_some() && partition_of(&stream, self.partitions) != item.partition {
            // It continues elsewhere again; an item is sent on once.
            stream.clone_from(&home);
        }
        let marks = &mut written.marks;
        let mut writer =
            Writer { emitter: &self.emitter, partitions: self.partitions, item, appends: Vec::new(), marks };
        if let Some(into) = into.filter(|_| personal && item.sent_on.is_none()) {
            if !linked.contains(&into.event_id()) {
                writer.link(&into)?;
            }
            people.add(&into);
        }
        if let Some(loser) = lost_by {
            Mover::new(&mut writer, &self.interpreter.keys, people).unannounced(&loser, &stream)?;
        }
        if let Some(mut sent_on) = forward(&work.record, &stream, self.partitions) {
            sent_on.headers.extend(apart(learns));
            writer.appends.push(sent_on);
            return Ok(writer.appends);
        }
        if personal {
            let (own, identities) = item.identities(&stream, learns);
            for link in people.learn(&stream, &own, identities) {
                if !linked.contains(&link.event_id()) {
                    writer.link(&link)?;
                }
                people.add(&link);
            }
        }
        writer.event(meaning.event.clone(), &stream, meaning.cause_id.clone())?;
        for other in &item.others {
            writer.event_of(other, &stream)?;
        }
        if let Some(bsuid) = meaning.address.bsuid.as_ref().filter(|_| learns != Learns::Nothing) {
            people.has_bsuid(&stream, bsuid);
        }
        if meaning.moved_to.is_some() {
            Mover::new(&mut writer, &self.interpreter.keys, people).announced(&stream, learns)?;
        }
        for (stream, event, cause_id, at) in &meaning.also {
            let stream = people.root(&people.holder(stream, *at));
            writer.event_at(event.clone(), &stream, cause_id.clone(), (*at, TimeSource::Whatsapp))?;
        }
        written.outcomes.push(meaning.outcome);
        Ok(writer.appends)
    }
}
