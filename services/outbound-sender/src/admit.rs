//! Admission: every send command gets exactly one first answer, accepted or rejected with a reason (R3).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::{Topic, decode, encode, headers};
use connector_domain::command::{DirectoryRecord, Dispatch, SendMessage};
use connector_domain::composer::Situation;
use connector_domain::conversation::Conversation;
use connector_domain::decide::{Novelty, Reason, Rejection, check_repeat, decide_send};
use connector_domain::event::{Event, MessageAccepted, Recorded, TimeSource};
use connector_domain::identity::Address;
use connector_domain::ids::{CommandId, StreamId};
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use connector_runtime::commands;
use connector_runtime::emit::{Cause, Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason as Letter, Step, TakeUp};
use connector_runtime::lanes::{LaneKey, Work};
use connector_runtime::platform::{Platform, views};
use connector_runtime::situation::{Question, Situations, partition_of};
use connector_runtime::tail::again;
use connector_runtime::view::{Mark, Memory};
use futures::future::try_join_all;

use crate::tables::Tables;

/// How long a refusal waits for the tables before the whole batch is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Marks a command that was sent on to the conversation its recipient continues in (R10).
const LINKED: &str = "linked";
/// More links than people change their identities.
const MOST_LINKS: usize = 4;

/// Answers send commands.
pub struct Admit {
    platform: Platform,
    emitter: Emitter,
    situations: Situations,
    tables: Tables,
    memory: Memory,
    /// What the transaction in the making adds to the memory.
    answered: BTreeMap<u32, Vec<Mark>>,
}

/// A command that is new here.
struct Open {
    /// Which of the records in hand.
    at: usize,
    command: SendMessage,
    digest: u64,
    /// The conversation it is about, when it names one.
    conversation: Option<StreamId>,
    stream: StreamId,
    traceparent: Option<String>,
}

impl Open {
    fn question(&self) -> Option<Question> {
        Some(Question {
            organization_id: self.command.organization_id.clone(),
            user_id: self.command.user_id.clone(),
            conversation_id: self.conversation.clone()?,
        })
    }
}

/// The field that lacks what nobody knows: how WhatsApp addresses the recipient.
const ADDRESS: &str = "recipient.address";

/// An accepted command, with the address its message goes to.
struct Accepted {
    event: MessageAccepted,
    address: Address,
}

impl Admit {
    /// A handler that has no partitions yet.
    #[must_use]
    pub fn new(platform: &Platform, tables: Tables) -> Self {
        let log = platform.topic(Topic::ConversationEvents);
        Self {
            emitter: platform.emitter(crate::PRODUCER),
            situations: tables.situations(),
            tables,
            memory: Memory::new(platform.gate.clone(), platform.log.clone(), views::SEND_COMMANDS, log, first_answer),
            answered: BTreeMap::new(),
            platform: platform.clone(),
        }
    }

    /// The conversation a command names: its id, unless that is none of ours (it would become a key, and a key is never a phone
    /// number), else the one of its address.
    fn conversation(&self, command: &SendMessage) -> Option<StreamId> {
        match &command.recipient.conversation_id {
            Some(id) => is_opaque(id).then(|| id.clone()),
            None => self.platform.keys.conversation(&command.phone_number_id, &command.recipient.address),
        }
    }

    fn open(&self, at: usize, record: &Record, command: SendMessage) -> Open {
        let conversation = self.conversation(&command);
        let user = || self.platform.keys.user(&command.organization_id, &command.user_id);
        let stream = conversation.clone().unwrap_or_else(user);
        Open { at, digest: command.digest(), conversation, stream, traceparent: traceparent(record), command }
    }

    fn misplaced(&self, record: &Record, stream: &StreamId) -> bool {
        partition_of(stream, self.platform.partitions) != record.source.partition
    }

    /// The command for the conversation its recipient continues in, in that conversation's partition.
    fn link(&self, record: &Record, command: &SendMessage, stream: &StreamId) -> Result<Append, Failure> {
        let mut headers = record.headers.clone();
        headers.push((LINKED.into(), Some(bytes::Bytes::from_static(b"1"))));
        Ok(Append {
            topic: record.source.topic.clone(),
            partition: None,
            key: Some(stream.as_str().to_owned().into()),
            value: Some(encode(command)?.into()),
            headers,
        })
    }

    /// Decides on a situation. A command without a conversation has an empty one.
    fn decide(
        &self,
        open: &Open,
        situation: &Situation,
        number: Option<&DirectoryRecord>,
        template: Option<&Template>,
        now: Timestamp,
    ) -> Result<Accepted, Rejection> {
        let command = &open.command;
        let Some(conversation) = &open.conversation else {
            return Err(Reason::Invalid.at(match command.recipient.conversation_id {
                Some(_) => "recipient.conversation_id",
                None => "recipient",
            }));
        };
        // P4: nobody sends from another organization's number.
        if number.is_none_or(|number| number.organization_id != command.organization_id) {
            return Err(Reason::NotEnabled.at("phone_number_id"));
        }
        let event = decide_send(situation, command, template, &self.platform.rules, now)?;
        let address = self.address(command, conversation, &situation.conversation);
        let address = address.ok_or(Reason::Invalid.at(ADDRESS))?;
        Ok(Accepted { event, address })
    }

    /// How WhatsApp addresses the recipient: as the conversation knows it, else as the command says, if that is the same person (and
    /// else as the user's contact list does, see [`Situations::listed_address`]).
    /// A consent never covers an address that was merely named beside a conversation.
    fn address(&self, command: &SendMessage, id: &StreamId, conversation: &Conversation) -> Option<Address> {
        if !conversation.address.is_empty() {
            return Some(conversation.address.clone());
        }
        let (keys, number, given) = (&self.platform.keys, &command.phone_number_id, &command.recipient.address);
        let same = |stream: StreamId| stream == *id || conversation.aliases.contains(&stream);
        let phone = given.phone.clone().filter(|phone| same(keys.by_phone(number, phone)));
        let bsuid = given.bsuid.clone().filter(|bsuid| same(keys.by_bsuid(number, bsuid)));
        Some(Address { phone, bsuid }).filter(|address| !address.is_empty())
    }

    async fn template(&self, open: &Open, number: Option<&DirectoryRecord>, settled: bool) -> Found<Template> {
        let Some(call) = open.command.content.template.as_ref() else { return Ok(None) };
        let Some(waba) = number.and_then(|number| number.waba_id.as_ref()) else { return Ok(None) };
        self.tables.template(&Template::key(waba, &call.name, &call.language), settled.then_some(PATIENCE)).await
    }

    async fn number(&self, open: &Open, settled: bool) -> Found<DirectoryRecord> {
        self.tables.number(&open.command.phone_number_id, settled.then_some(PATIENCE)).await
    }

    /// Decides about every open command; a refusal that may be news to a table is decided again when that has caught up (R2). `None`: it
    /// cannot be decided yet.
    async fn answers(
        &self,
        opens: &[Open],
        situations: &mut [Situation],
        now: Timestamp,
    ) -> Result<Vec<Option<Result<Accepted, Rejection>>>, Failure> {
        let mut answers = Vec::with_capacity(opens.len());
        for (open, situation) in opens.iter().zip(situations) {
            let number = self.number(open, false).await?;
            let template = self.template(open, number.as_deref(), false).await?;
            let mut answer = self.decide(open, situation, number.as_deref(), template.as_deref(), now);
            if answer.as_ref().is_err_and(may_be_news) {
                let number = self.number(open, true).await?;
                let template = self.template(open, number.as_deref(), true).await?;
                answer = self.decide(open, situation, number.as_deref(), template.as_deref(), now);
                if answer.as_ref().is_err_and(|refusal| refusal.field == ADDRESS)
                    && let Some(question) = open.question()
                {
                    match self.situations.listed_address(&question, &situation.conversation).await {
                        Ok(None) => {}
                        Ok(Some(address)) => {
                            situation.conversation.address = address;
                            answer = self.decide(open, situation, number.as_deref(), template.as_deref(), now);
                        }
                        Err(Failure::Later(reason)) => {
                            tracing::debug!(reason, "a contact list cannot be decided on yet");
                            answers.push(None);
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            }
            answers.push(Some(answer));
        }
        Ok(answers)
    }

    fn cause(&self, open: &Open, now: Timestamp) -> Cause {
        Cause {
            organization_id: open.command.organization_id.clone(),
            stream_id: open.stream.clone(),
            cause_id: commands::cause(open.command.command_id, open.digest),
            command_id: Some(open.command.command_id),
            occurred_at: now,
            time_source: TimeSource::Connector,
            traceparent: open.traceparent.clone(),
        }
    }

    fn reject(&self, open: &Open, rejection: &Rejection, now: Timestamp) -> Result<Vec<Append>, Failure> {
        self.platform.metrics.outbound.rejected(rejection.reason.as_str());
        Ok(vec![self.emitter.emit(rejection.event(&open.command.user_id), &self.cause(open, now))?])
    }

    fn accept(&self, open: &Open, accepted: Accepted, now: Timestamp) -> Result<Vec<Append>, Failure> {
        self.platform.metrics.outbound.accepted();
        let Accepted { event, address } = accepted;
        let dispatch = Dispatch {
            command_id: open.command.command_id,
            organization_id: open.command.organization_id.clone(),
            user_id: event.user_id.clone(),
            phone_number_id: event.phone_number_id.clone(),
            conversation_id: open.stream.clone(),
            address,
            content: event.content.clone(),
            policy: event.policy,
            purpose: event.purpose,
            accepted_at: now,
            not_after: event.not_after,
        };
        let key = open.stream.as_str();
        let mut queued = self.emitter.record(Topic::Dispatch, key, &dispatch, open.traceparent.as_deref())?;
        queued.headers.push((headers::NUMBER.into(), Some(Bytes::from(dispatch.phone_number_id.to_string()))));
        Ok(vec![self.emitter.emit(event, &self.cause(open, now))?, queued])
    }

    /// Follows the links of conversations (R10): a command goes on where its recipient's conversation continues. What cannot be decided yet
    /// gets the step to wait.
    async fn situations(
        &self,
        work: &[Work],
        opens: &mut Vec<Open>,
        steps: &mut [Option<Step<()>>],
        now: Timestamp,
    ) -> Result<Vec<Situation>, Failure> {
        let mut questions: Vec<_> = opens.iter().filter_map(Open::question).collect();
        let situations = self.situations.settled(&mut questions).await?;
        let mut known = questions.into_iter().zip(situations);
        let mut situations: Vec<Situation> = Vec::with_capacity(opens.len());
        for mut open in std::mem::take(opens) {
            let found = open.conversation.is_some().then(|| known.next()).flatten();
            let Some((question, situation)) = found else {
                situations.push(Situation::default());
                opens.push(open);
                continue;
            };
            let root = question.conversation_id;
            let record = &work[open.at].record;
            let Some(situation) = situation else {
                steps[open.at] = Some(waits(record, now));
                continue;
            };
            if open.conversation.as_ref() != Some(&root) {
                open.command.recipient.conversation_id = Some(root.clone());
                let links = record.headers.iter().filter(|(name, _)| name == LINKED).count();
                if !self.misplaced(record, &root) {
                    open.conversation = Some(root.clone());
                    open.stream = root;
                } else if links < MOST_LINKS {
                    steps[open.at] = Some(Step::Done(vec![self.link(record, &open.command, &root)?]));
                    continue;
                }
            }
            situations.push(situation);
            opens.push(open);
        }
        Ok(situations)
    }
}

/// What an event leaves in the memory of first answers. A conflict is no first answer: remembered, it would let the other content
/// pass as a repeat.
fn first_answer(recorded: &Recorded) -> Option<Mark> {
    match &recorded.event {
        Event::MessageRejected(rejected) if rejected.reason == Reason::Conflict.as_str() => None,
        _ => commands::answered(recorded),
    }
}

type Found<T> = Result<Option<Arc<T>>, Failure>;

fn waits(record: &Record, now: Timestamp) -> Step<()> {
    Step::Wait { until: again(record.timestamp, now), appends: Vec::new() }
}

/// What is behind a record that waits, in its lane, waits with it: nothing of it may be answered. Each work's lane in order.
fn wait_behind(lanes: &[(u32, LaneKey)], work: &[Work], steps: &mut [Option<Step<()>>], now: Timestamp) {
    let mut waiting = HashSet::new();
    for (at, lane) in lanes.iter().enumerate() {
        if matches!(steps[at], Some(Step::Wait { .. })) {
            waiting.insert(lane);
        } else if waiting.contains(lane) {
            steps[at] = Some(waits(&work[at].record, now));
        }
    }
}

fn hashed(stream: &str) -> LaneKey {
    let mut hasher = DefaultHasher::new();
    stream.hash(&mut hasher);
    hasher.finish()
}

/// Whether an id has the form of [`connector_domain::identity::StreamKeys`].
fn is_opaque(id: &StreamId) -> bool {
    has_form(id.as_str())
}

fn has_form(id: &str) -> bool {
    let Some((key, tag)) = id.split_once('-') else { return false };
    let short = (1..=16).contains(&key.len()) && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    short && tag.len() == 32 && tag.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a projection that is behind could be the only cause of a refusal. The others follow from the command alone.
fn may_be_news(refusal: &Rejection) -> bool {
    match refusal.reason {
        Reason::UnsupportedContent | Reason::Expired | Reason::Conflict => false,
        Reason::Invalid => matches!(refusal.field, "content.reply_to" | "purpose" | ADDRESS),
        _ => true,
    }
}

#[async_trait]
impl Handler for Admit {
    type Fact = ();

    /// A conversation that cannot be decided on holds up no other, whatever keys its publishers choose.
    fn lane(&self, record: &Record) -> LaneKey {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        if let Some(stream) = key.filter(|key| has_form(key)) {
            return hashed(stream);
        }
        let command = record.value.as_deref().and_then(|value| decode::<SendMessage>(value).ok());
        let stream = command.and_then(|command| self.conversation(&command));
        hashed(stream.as_ref().map_or(key.unwrap_or_default(), StreamId::as_str))
    }

    async fn assigned(&mut self, partition: &TopicPartition, _committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.answered.remove(&partition.partition);
        self.memory.take_over(partition.partition).await?;
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.answered.remove(&partition.partition);
        self.memory.forget(partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let now = self.platform.clock.now();
        let mut steps: Vec<Option<Step<()>>> = work.iter().map(|_| None).collect();
        let mut homes: BTreeMap<u32, Vec<Open>> = BTreeMap::new();
        for (at, Work { record, .. }) in work.iter().enumerate() {
            let command = match record.value.as_deref().map(decode::<SendMessage>) {
                Some(Ok(command)) => command,
                Some(Err(error)) => {
                    steps[at] = Some(Step::DeadLetter(Letter::new(error.reason(), error)));
                    continue;
                }
                None => {
                    steps[at] = Some(Step::DeadLetter(Letter::new("tombstone", "a command cannot be taken back")));
                    continue;
                }
            };
            let open = self.open(at, record, command);
            if let Some(forwarded) = commands::forward(record, &open.stream, self.platform.partitions) {
                steps[at] = Some(Step::Done(vec![forwarded]));
            } else if self.misplaced(record, &open.stream) {
                // Its answer would stand where this worker's memory is not kept.
                let detail = "sent on once and still not in the partition of its conversation";
                steps[at] = Some(Step::DeadLetter(Letter::new("misplaced", detail)));
            } else {
                homes.entry(record.source.partition).or_default().push(open);
            }
        }

        let mut conflicts = Vec::new();
        let mut opens = Vec::new();
        // All partitions at once: each is a question to the gate.
        let asked = homes.into_iter().map(async |(partition, home)| {
            let ids: Vec<_> = home.iter().map(|open| commands::mark_id(open.command.command_id)).collect();
            let known = self.memory.recall(partition, &ids).await?;
            Ok::<_, Failure>(home.into_iter().zip(known))
        });
        for home in try_join_all(asked).await? {
            let mut here: HashMap<CommandId, u64> = HashMap::new();
            for (open, known) in home {
                let first = known.or_else(|| here.get(&open.command.command_id).copied());
                match check_repeat(first, open.digest) {
                    Ok(Novelty::Repeat) => steps[open.at] = Some(Step::Done(Vec::new())),
                    Ok(Novelty::New) => {
                        here.insert(open.command.command_id, open.digest);
                        opens.push(open);
                    }
                    Err(rejection) => conflicts.push((open, rejection)),
                }
            }
        }
        let mut situations = self.situations(work, &mut opens, &mut steps, now).await?;
        let answers = self.answers(&opens, &mut situations, now).await?;
        let undecided = opens.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        for (open, _) in undecided {
            steps[open.at] = Some(waits(&work[open.at].record, now));
        }
        let lanes: Vec<_> =
            work.iter().map(|Work { record, .. }| (record.source.partition, self.lane(record))).collect();
        wait_behind(&lanes, work, &mut steps, now);

        // Nothing fails from here on but by a mistake of ours, so what is remembered is what is written.
        for (open, rejection) in conflicts {
            if steps[open.at].is_none() {
                steps[open.at] = Some(Step::Done(self.reject(&open, &rejection, now)?));
            }
        }
        for (open, answer) in opens.into_iter().zip(answers) {
            let (None, Some(answer)) = (&steps[open.at], answer) else { continue };
            let appends = match answer {
                Ok(accepted) => self.accept(&open, accepted, now)?,
                Err(rejection) => self.reject(&open, &rejection, now)?,
            };
            let mark = Mark {
                id: commands::mark_id(open.command.command_id),
                digest: open.digest,
                until: now + commands::MEMORY,
            };
            self.answered.entry(work[open.at].record.source.partition).or_default().push(mark);
            steps[open.at] = Some(Step::Done(appends));
        }
        Ok(steps.into_iter().map(|step| step.unwrap_or(Step::Done(Vec::new()))).collect())
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        _positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.memory.remember(&self.answered, appended).await?;
        self.answered.clear();
        Ok(())
    }
}
