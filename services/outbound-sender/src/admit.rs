//! Admission: every send command gets exactly one first answer, accepted or rejected with a reason (R3).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::{Topic, decode, encode, headers, salvage};
use connector_domain::command::{Content, Dispatch, Recipient, SendMessage, SendPolicy, SendPurpose};
use connector_domain::composer::Situation;
use connector_domain::conversation::Conversation;
use connector_domain::decide::{Acting, NotOwned, Novelty, Reason, Rejection, check_owner, check_repeat, decide_send};
use connector_domain::event::{MessageAccepted, MessageRejected, Recorded, TimeSource};
use connector_domain::form::{Formed, is_stream_id};
use connector_domain::identity::Address;
use connector_domain::ids::{CommandId, OrganizationId, PhoneNumberId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Appended, Isolation, Offset, Record, TopicPartition};
use connector_runtime::commands;
use connector_runtime::emit::{Cause, Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason as Letter, Step, TakeUp};
use connector_runtime::lanes::{LaneKey, Work};
use connector_runtime::platform::{Platform, views};
use connector_runtime::reserved::Reserved;
use connector_runtime::situation::{Question, Situations, partition_of};
use connector_runtime::tail::again;
use connector_runtime::view::{Mark, Memory};
use futures::future::try_join_all;

use crate::seal::seal;
use crate::tables::{Facts, Tables};

/// How long a decision waits for the tables before the whole batch is tried again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often admission looks whether the register of command ids is still there: others wait for us when it was lost.
const CHECKED_EVERY: Duration = Duration::from_secs(2);
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
    reserved: Reserved,
    /// What the transaction in the making adds to the memory.
    answered: BTreeMap<u32, Vec<Mark>>,
    /// A position of each dispatch partition behind everything that was written there so far: what is accepted stands at or behind it.
    behind: BTreeMap<u32, Offset>,
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
    /// It is refused whatever the situation is: the reason and the field.
    refused: Option<(Reason, String)>,
    /// Its id stands for another command. Where that is told depends on whose the conversation is, as for any refusal.
    conflict: bool,
}

impl Open {
    fn mark_id(&self) -> Bytes {
        commands::mark_id(&self.command.organization_id, self.command.command_id)
    }

    /// Whose situation; an address means whoever has it `now`.
    fn question(&self, now: Timestamp) -> Option<Question> {
        Some(Question {
            organization_id: self.command.organization_id.clone(),
            user_id: self.command.user_id.clone(),
            conversation_id: self.conversation.clone()?,
            addressed_at: self.command.recipient.conversation_id.is_none().then_some(now),
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
            reserved: Reserved::new(platform, views::SEND_COMMANDS),
            answered: BTreeMap::new(),
            behind: BTreeMap::new(),
            platform: platform.clone(),
        }
    }

    /// The conversation a command names: its id, else the one of its address.
    fn conversation(&self, command: &SendMessage) -> Option<StreamId> {
        let by_address = || self.platform.keys.conversation(&command.phone_number_id, &command.recipient.address);
        command.recipient.conversation_id.clone().or_else(by_address)
    }

    /// A command and where it is answered: in its conversation, unless that is none of its user's business.
    fn open(&self, at: usize, record: &Record, command: SendMessage, now: Timestamp) -> Open {
        let user = self.platform.keys.user(&command.organization_id, &command.user_id);
        let refused = command.check(now).err().or_else(|| commands::disowned(record));
        let conversation = if refused.is_some() { None } else { self.conversation(&command) };
        Open {
            at,
            conflict: refused.as_ref().is_some_and(|refused| refused.reason == Reason::Conflict),
            digest: commands::digest(record, command.digest()),
            stream: conversation.clone().unwrap_or(user),
            conversation,
            traceparent: traceparent(record),
            refused: refused.map(|refused| (refused.reason, refused.field.to_owned())),
            command,
        }
    }

    /// A command that is damaged, but says who published it: it is refused, not lost (R3).
    fn damaged(&self, at: usize, record: &Record, value: &[u8], now: Timestamp) -> Option<Open> {
        let found = salvage::<SendMessage>(value)?;
        let command = SendMessage {
            command_id: found.command_id,
            organization_id: OrganizationId(found.organization_id.unwrap_or_default()),
            user_id: UserId(found.user_id.unwrap_or_default()),
            phone_number_id: PhoneNumberId(String::new()),
            recipient: Recipient::default(),
            content: Content::text(""),
            policy: SendPolicy::default(),
            purpose: SendPurpose::default(),
            issued_at: now,
            not_after: None,
        };
        let stream = self.platform.keys.user(&command.organization_id, &command.user_id);
        Some(Open {
            at,
            digest: self.platform.keys.digest(value),
            conversation: None,
            stream,
            traceparent: traceparent(record),
            refused: Some((Reason::Invalid, found.field.to_owned())),
            conflict: false,
            command,
        })
    }

    fn misplaced(&self, record: &Record, stream: &StreamId) -> bool {
        partition_of(stream, self.platform.partitions) != record.source.partition
    }

    /// The command for the conversation its recipient continues in, in that conversation's partition.
    fn link(&self, record: &Record, open: &Open, stream: &StreamId) -> Result<Append, Failure> {
        let mut headers = record.headers.clone();
        headers.push((LINKED.into(), Some(bytes::Bytes::from_static(b"1"))));
        if record.header(commands::DIGEST).is_none() {
            // Written anew it has another digest than what its publisher may repeat.
            headers.push(commands::digest_header(open.digest));
        }
        Ok(Append {
            topic: record.source.topic.clone(),
            partition: None,
            key: Some(stream.as_str().to_owned().into()),
            value: Some(encode(&open.command)?.into()),
            headers,
        })
    }

    /// Decides on a situation. A command without a conversation has an empty one.
    fn decide(&self, open: &Open, situation: &Situation, facts: &Facts, now: Timestamp) -> Result<Accepted, Refused> {
        let command = &open.command;
        let conflict = Reason::Conflict.at("command_id");
        let Some(conversation) = &open.conversation else {
            if open.conflict {
                return Err(refused(conflict));
            }
            // Nobody's: a text that is no phone number.
            let field = if command.recipient.address.phone.is_some() { "recipient.phone" } else { "recipient" };
            return Err(refused(Reason::Invalid.at(field)));
        };
        let acting = Acting {
            organization_id: &command.organization_id,
            phone_number_id: &command.phone_number_id,
            conversation: Some(conversation),
            address: Some(&command.recipient.address),
            as_user: true,
        };
        let owned = check_owner(acting, facts.number.as_deref(), situation, &self.platform.keys);
        if open.conflict {
            let foreign = owned.is_err_and(|refused| refused.foreign);
            return Err(NotOwned { rejection: conflict, foreign });
        }
        owned?;
        let event =
            decide_send(situation, command, facts.template.as_deref(), &self.platform.rules, now).map_err(refused)?;
        let given = self.address(command, conversation, &situation.conversation);
        let address = given.and_then(|given| situation.conversation.reached_at(&given));
        Ok(Accepted { event, address: address.ok_or(refused(Reason::Invalid.at(ADDRESS)))? })
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

    /// What the tables say about each command, at the ends of their topics as of this call (R2).
    async fn facts(&self, opens: &[Open]) -> Result<Vec<Facts>, Failure> {
        let asked =
            opens.iter().map(|open| (open.command.phone_number_id.clone(), open.command.content.template.as_ref()));
        self.tables.at_end(&asked.collect::<Vec<_>>(), PATIENCE).await
    }

    /// Decides about every open command. `None`: it cannot be decided yet.
    async fn answers(
        &self,
        opens: &[Open],
        situations: &mut [Situation],
        now: Timestamp,
    ) -> Result<Vec<Option<Result<Accepted, Refused>>>, Failure> {
        let facts = self.facts(opens).await?;
        let mut answers = Vec::with_capacity(opens.len());
        for ((open, situation), facts) in opens.iter().zip(situations).zip(facts) {
            // A command that is refused anyway has no conversation.
            let mut answer = self.decide(open, situation, &facts, now);
            if answer.as_ref().is_err_and(|refused| lacks_address(refused, situation))
                && let Some(question) = open.question(now)
            {
                match self.situations.listed_address(&question, &situation.conversation).await {
                    Ok(None) => {}
                    Ok(Some(address)) => {
                        situation.conversation.address =
                            situation.conversation.reached_at(&address).unwrap_or_default();
                        answer = self.decide(open, situation, &facts, now);
                    }
                    Err(Failure::Later(reason)) => {
                        tracing::debug!(reason, "a contact list cannot be decided on yet");
                        answers.push(None);
                        continue;
                    }
                    Err(failure) => return Err(failure),
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
        self.reject_field(open, rejection.reason, rejection.field, now)
    }

    fn reject_field(&self, open: &Open, reason: Reason, field: &str, now: Timestamp) -> Result<Vec<Append>, Failure> {
        self.platform.metrics.outbound.rejected(reason.as_str());
        let mut cause = self.cause(open, now);
        let mut user = open.command.user_id.clone();
        // What is no opaque id does not get into the log (R13).
        if !cause.organization_id.is_formed() {
            cause.organization_id = OrganizationId(String::new());
        }
        if !user.is_formed() {
            user = UserId(String::new());
        }
        let event = MessageRejected { field: field.to_owned(), ..reason.at("").event(&user) };
        Ok(vec![self.emitter.emit(event, &cause)?])
    }

    /// Refuses what is not the tenant's business, in the stream of its user: here, or where that is.
    fn refuse_foreign(
        &self,
        mut open: Open,
        record: &Record,
        rejection: &Rejection,
        now: Timestamp,
    ) -> Result<(Vec<Append>, bool), Failure> {
        let user = self.platform.keys.user(&open.command.organization_id, &open.command.user_id);
        if self.misplaced(record, &user) {
            return Ok((vec![commands::disown(record, &user, rejection.field)], false));
        }
        open.stream = user;
        Ok((self.reject(&open, rejection, now)?, true))
    }

    /// Where the partitions end in which these commands are queued when they are accepted.
    async fn dispatch_ends(&self, opens: impl Iterator<Item = &Open>) -> Result<Vec<(u32, Offset)>, Failure> {
        let partitions: BTreeSet<u32> =
            opens.map(|open| partition_of(&open.stream, self.platform.partitions)).collect();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topic = self.platform.topic(Topic::Dispatch);
        let asked = partitions.iter().map(|partition| TopicPartition { topic: topic.clone(), partition: *partition });
        let asked: Vec<_> = asked.collect();
        let ends = self.platform.log.end_offsets(&asked, Isolation::Uncommitted).await?;
        Ok(partitions.into_iter().zip(ends).collect())
    }

    /// A topic that was made anew begins again, and what is accepted from now on stands below what was written before. To name a position
    /// that is too low costs dispatch a look at a few records more; one that is too high would make it take the record for a forged one.
    fn not_behind(&mut self, ends: Vec<(u32, Offset)>) {
        for (partition, end) in ends {
            if let Some(behind) = self.behind.get_mut(&partition)
                && end < *behind
            {
                let (written, end) = (behind.0, end.0);
                tracing::warn!(
                    partition,
                    written,
                    end,
                    "dispatch ends before what was written to it: it was made anew"
                );
                *behind = Offset(end);
            }
        }
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
        let behind = self.behind.get(&partition_of(&open.stream, self.platform.partitions)).copied();
        let seal = seal(&self.platform.keys, queued.value.as_deref().unwrap_or_default(), behind.unwrap_or_default());
        queued.headers.push((headers::SEAL.into(), Some(seal)));
        queued.headers.push((headers::NUMBER.into(), Some(Bytes::from(dispatch.phone_number_id.to_string()))));
        Ok(vec![self.emitter.emit(event, &self.cause(open, now))?, queued])
    }

    /// Finds those whose ids stand for another command of their organization, wherever that was answered.
    async fn reserve(&self, opens: &mut [Open], now: Timestamp) -> Result<(), Failure> {
        let free: Vec<_> = opens.iter_mut().filter(|open| !open.conflict).collect();
        let asked: Vec<_> =
            free.iter().map(|open| (&open.command.organization_id, open.command.command_id, open.digest)).collect();
        let has = self.reserved.reserve(&asked, now).await?;
        for (open, has) in free.into_iter().zip(has) {
            open.conflict = !has;
        }
        Ok(())
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
        let mut questions: Vec<_> = opens.iter().filter_map(|open| open.question(now)).collect();
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
                    steps[open.at] = Some(Step::Done(vec![self.link(record, &open, &root)?]));
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
/// pass as a repeat. Answers to consent commands stand in the same streams and are not ours.
fn first_answer(recorded: &Recorded) -> Option<Mark> {
    if recorded.envelope.producer != crate::PRODUCER || commands::is_conflict(&recorded.event) {
        return None;
    }
    commands::answered(recorded)
}

/// A refusal, and whether it says nothing about a stream that is not the tenant's.
type Refused = NotOwned;

/// A refusal in the conversation.
fn refused(rejection: Rejection) -> Refused {
    NotOwned { rejection, foreign: false }
}

/// Whether the address in the user's contact list may change a refusal: whose conversation it is, or where the message goes, follows from
/// that.
fn lacks_address(refused: &Refused, situation: &Situation) -> bool {
    let conversation = &situation.conversation;
    let unknown = conversation.phone_number_id.is_none() && conversation.address.is_empty();
    refused.rejection.field == ADDRESS || (refused.foreign && situation.is_contact && unknown)
}

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

#[async_trait]
impl Handler for Admit {
    type Fact = ();

    /// A conversation that cannot be decided on holds up no other, whatever keys its publishers choose.
    fn lane(&self, record: &Record) -> LaneKey {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        if let Some(stream) = key.filter(|key| is_stream_id(key)) {
            return hashed(stream);
        }
        let command = record.value.as_deref().and_then(|value| decode::<SendMessage>(value).ok());
        let stream = command.and_then(|command| self.conversation(&command));
        hashed(stream.as_ref().map_or(key.unwrap_or_default(), StreamId::as_str))
    }

    async fn assigned(&mut self, partition: &TopicPartition, _committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.answered.remove(&partition.partition);
        self.memory.take_over(partition.partition).await?;
        self.reserved.take_over(partition.partition).await?;
        let dispatch = TopicPartition { topic: self.platform.topic(Topic::Dispatch), partition: partition.partition };
        let end = self.platform.log.end_offset(&dispatch, Isolation::Uncommitted).await?;
        self.behind.insert(partition.partition, end);
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.answered.remove(&partition.partition);
        self.behind.remove(&partition.partition);
        self.memory.forget(partition.partition);
        self.reserved.forget(partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let now = self.platform.clock.now();
        let mut steps: Vec<Option<Step<()>>> = work.iter().map(|_| None).collect();
        let mut homes: BTreeMap<u32, Vec<Open>> = BTreeMap::new();
        for (at, Work { record, .. }) in work.iter().enumerate() {
            let Some(value) = record.value.as_deref() else {
                steps[at] = Some(Step::DeadLetter(Letter::new("tombstone", "a command cannot be taken back")));
                continue;
            };
            let open = match decode::<SendMessage>(value) {
                Ok(command) => self.open(at, record, command, now),
                Err(error) => match self.damaged(at, record, value, now) {
                    Some(open) => open,
                    None => {
                        steps[at] = Some(Step::DeadLetter(Letter::new(error.reason(), error)));
                        continue;
                    }
                },
            };
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

        let mut opens = Vec::new();
        // All partitions at once: each is a question to the gate.
        let asked = homes.into_iter().map(async |(partition, home)| {
            let ids: Vec<_> = home.iter().map(Open::mark_id).collect();
            let known = self.memory.recall(partition, &ids).await?;
            Ok::<_, Failure>(home.into_iter().zip(known))
        });
        for home in try_join_all(asked).await? {
            let mut here: HashMap<(OrganizationId, CommandId), u64> = HashMap::new();
            for (mut open, known) in home {
                let id = (open.command.organization_id.clone(), open.command.command_id);
                let first = known.or_else(|| here.get(&id).copied());
                match check_repeat(first, open.digest) {
                    Ok(Novelty::Repeat) => steps[open.at] = Some(Step::Done(Vec::new())),
                    Ok(Novelty::New) => {
                        here.insert(id, open.digest);
                        opens.push(open);
                    }
                    Err(_) => {
                        open.conflict = true;
                        opens.push(open);
                    }
                }
            }
        }
        let mut situations = self.situations(work, &mut opens, &mut steps, now).await?;
        self.reserve(&mut opens, now).await?;
        let (answers, ends) =
            futures::join!(self.answers(&opens, &mut situations, now), self.dispatch_ends(opens.iter()));
        let answers = answers?;
        self.not_behind(ends?);
        let undecided = opens.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        for (open, _) in undecided {
            steps[open.at] = Some(waits(&work[open.at].record, now));
        }
        let lanes: Vec<_> =
            work.iter().map(|Work { record, .. }| (record.source.partition, self.lane(record))).collect();
        wait_behind(&lanes, work, &mut steps, now);

        // Nothing fails from here on but by a mistake of ours, so what is remembered is what is written.
        for (open, answer) in opens.into_iter().zip(answers) {
            let (None, Some(answer)) = (&steps[open.at], answer) else { continue };
            let (at, record) = (open.at, &work[open.at].record);
            let mark = Mark { id: open.mark_id(), digest: open.digest, until: now + commands::MEMORY };
            let conflict = open.conflict;
            let (appends, answered) = match (&open.refused, answer) {
                (Some((reason, field)), _) if !conflict => (self.reject_field(&open, *reason, field, now)?, true),
                (_, Ok(accepted)) => (self.accept(&open, accepted, now)?, true),
                (_, Err(Refused { rejection, foreign: true })) => self.refuse_foreign(open, record, &rejection, now)?,
                (_, Err(Refused { rejection, foreign: false })) => (self.reject(&open, &rejection, now)?, true),
            };
            // A conflict is no first answer.
            if answered && !conflict {
                self.answered.entry(record.source.partition).or_default().push(mark);
            }
            steps[at] = Some(Step::Done(appends));
        }
        Ok(steps.into_iter().map(|step| step.unwrap_or(Step::Done(Vec::new()))).collect())
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(CHECKED_EVERY)
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        self.reserved.check().await?;
        Ok(Vec::new())
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        _positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.memory.remember(&self.answered, appended).await?;
        self.answered.clear();
        let dispatch = self.platform.topic(Topic::Dispatch);
        for one in appended.iter().filter(|one| one.target.topic == dispatch) {
            let behind = self.behind.entry(one.target.partition).or_default();
            *behind = one.offset.next().max(*behind);
        }
        Ok(())
    }
}
