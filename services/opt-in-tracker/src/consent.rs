//! Answers consent commands: opt-in requests, imports, revocations, the activation notice.
//!
//! Every command has an outcome in the log under its id, also one that changes nothing (a notice that was dismissed already).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use connector_contracts::{Salvaged, Topic, decode, salvage};
use connector_domain::command::{ConsentAction, ConsentCommand, NumberSettings, Recipient, TemplateCall};
use connector_domain::composer::Situation;
use connector_domain::decide::{
    Acting, NotOwned, Novelty, Reason as Rule, Rejection, check_owner, check_repeat, decide_consent,
};
use connector_domain::event::{Event, MessageRejected, Recorded, TimeSource};
use connector_domain::form::Formed;
use connector_domain::ids::{EventId, OrganizationId, PhoneNumberId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use connector_runtime::commands;
use connector_runtime::emit::{Cause, Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::{LaneKey, Work};
use connector_runtime::numbers::Numbers;
use connector_runtime::platform::{Platform, views};
use connector_runtime::reserved::Reserved;
use connector_runtime::situation::{Question, Situations, partition_of};
use connector_runtime::tail::{IDLE, again};
use connector_runtime::view::{Mark, Memory};

use crate::PRODUCER;
use crate::settling::Own;

/// How often it is looked whether the register of command ids is still there: others wait for us when it was lost.
const CHECKED_EVERY: Duration = Duration::from_secs(2);

/// How long a batch waits for what it depends on before it is tried again.
const WITHIN: Duration = Duration::from_secs(2);

/// How often a command is sent on when links are written while it is on its way (R10).
const MOST_LINKS: usize = 4;

/// How long the directory may take to be read to its end before a command waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// The header that [`commands::forward`] marks a record with; a command that follows links gets one more for each time.
const FORWARDED: &str = "forwarded";

/// The handler.
pub struct Consent {
    platform: Platform,
    emitter: Emitter,
    clock: Arc<dyn Clock>,
    situations: Situations,
    own: Own,
    memory: Memory,
    reserved: Reserved,
    template: TemplateCall,
    numbers: Numbers,
    /// What the batch in hand leaves in the memory, per partition.
    pending: BTreeMap<u32, Vec<Mark>>,
}

/// What the answer to a consent command leaves in the memory. Only what this worker wrote counts: refusals of send commands stand
/// in the same streams.
#[must_use]
pub(crate) fn mark(recorded: &Recorded) -> Option<Mark> {
    if recorded.envelope.producer != PRODUCER {
        return None;
    }
    let mark = commands::mark(recorded)?;
    match &recorded.event {
        // The id stands for the command it was used for first; the conflicting one is remembered beside it.
        Event::MessageRejected(rejected) if rejected.reason == Rule::Conflict.as_str() => {
            Some(Mark { id: conflict_id(&mark.id, mark.digest), ..mark })
        }
        Event::MessageRejected(_)
        | Event::OptInRequested(_)
        | Event::ConsentImported(_)
        | Event::ConsentRevoked(_)
        | Event::ActivationNoticeAcknowledged(_) => Some(mark),
        _ => None,
    }
}

/// The id under which a command is remembered that used the id of another one.
fn conflict_id(command: &Bytes, digest: u64) -> Bytes {
    let mut id = BytesMut::from(&command[..]);
    id.put_u64(digest);
    id.freeze()
}

/// A command on its way to an answer.
struct Open {
    at: usize,
    command: ConsentCommand,
    digest: u64,
    /// The stream of the user.
    user: StreamId,
    /// The stream the answer belongs to.
    home: StreamId,
    situation: Situation,
    /// It is refused whatever the situation is: the reason and the field.
    refused: Option<(Rule, String)>,
}

impl Open {
    fn mark_id(&self) -> Bytes {
        commands::mark_id(&self.command.organization_id, self.command.command_id)
    }

    /// Whether it has to do with a conversation.
    fn is_of_conversation(&self) -> bool {
        self.home != self.user
    }

    /// Whose situation; an address means whoever has it `now`.
    fn question(&self, now: Timestamp) -> Question {
        Question {
            organization_id: self.command.organization_id.clone(),
            user_id: self.command.user_id.clone(),
            conversation_id: self.home.clone(),
            addressed_at: self.command.recipient.conversation_id.is_none().then_some(now),
        }
    }
}

/// What the batch decided so far about streams and commands, before any of it can be read from the views.
#[derive(Default)]
struct Batch {
    facts: HashMap<StreamId, Vec<(Event, EventId, Timestamp)>>,
    answered: HashMap<Bytes, u64>,
    marks: BTreeMap<u32, Vec<Mark>>,
}

impl Consent {
    /// A handler that asks for the opt-in with this template where neither the number nor its organization has set one.
    #[must_use]
    pub fn new(platform: &Platform, template: TemplateCall, numbers: Numbers) -> Self {
        let source = platform.topic(Topic::ConversationEvents);
        let (gate, log) = (platform.gate.clone(), platform.log.clone());
        Self {
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            situations: Situations::new(platform),
            own: Own::default(),
            memory: Memory::new(gate, log, views::CONSENT_COMMANDS, source, mark),
            reserved: Reserved::new(platform, views::CONSENT_COMMANDS),
            platform: platform.clone(),
            template,
            numbers,
            pending: BTreeMap::new(),
        }
    }

    /// Decodes a record and finds its home. `Err`: its step, there is nothing to decide here.
    fn open(&self, at: usize, record: &Record) -> Result<Open, Step<()>> {
        let Some(value) = record.value.as_deref() else {
            return Err(Step::DeadLetter(Reason::new("tombstone", "a command cannot be taken back")));
        };
        let (command, digest, refused) = match decode::<ConsentCommand>(value) {
            Ok(command) => {
                let refused = command.check().err().or_else(|| commands::disowned(record));
                let digest = commands::digest(record, command.digest());
                (command, digest, refused.map(|refused| (refused.reason, refused.field.to_owned())))
            }
            // Damaged, but it says who published it: it is refused, not lost (R3).
            Err(error) => match salvage::<ConsentCommand>(value) {
                Some(found) => {
                    let refused = Some((Rule::Invalid, found.field.to_owned()));
                    (self.damaged(found), self.platform.keys.digest(value), refused)
                }
                None => return Err(Step::DeadLetter(Reason::new(error.reason(), error))),
            },
        };
        let user = self.platform.keys.user(&command.organization_id, &command.user_id);
        let recipient = &command.recipient;
        let conversation = || self.platform.keys.conversation(&command.phone_number_id, &recipient.address);
        let home = match command.action {
            ConsentAction::AcknowledgeNotice => None,
            _ if refused.is_some() => None,
            _ => recipient.conversation_id.clone().or_else(conversation),
        };
        let home = home.unwrap_or_else(|| user.clone());
        match commands::forward(record, &home, self.platform.partitions) {
            Some(append) => Err(Step::Done(vec![append])),
            None if partition_of(&home, self.platform.partitions) != record.source.partition => {
                // Its answer would stand where this worker's memory is not kept.
                let detail = "sent on once and still not in the partition of its conversation";
                Err(Step::DeadLetter(Reason::new("misplaced", detail)))
            }
            None => {
                let situation = Situation::default();
                Ok(Open { at, command, digest, user, home, situation, refused })
            }
        }
    }

    fn damaged(&self, found: Salvaged) -> ConsentCommand {
        ConsentCommand {
            command_id: found.command_id,
            organization_id: OrganizationId(found.organization_id.unwrap_or_default()),
            user_id: UserId(found.user_id.unwrap_or_default()),
            phone_number_id: PhoneNumberId(String::new()),
            recipient: Recipient::default(),
            action: ConsentAction::Unknown,
            template: None,
            proof: None,
            issued_at: self.clock.now(),
        }
    }

    /// The digests remembered of all commands: under their ids, and as conflicts.
    async fn recall(&self, open: &[Open], work: &[Work]) -> Result<Vec<[Option<u64>; 2]>, Failure> {
        let mut by_partition: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, item) in open.iter().enumerate() {
            by_partition.entry(work[item.at].record.source.partition).or_default().push(index);
        }
        let mut known = vec![[None; 2]; open.len()];
        for (partition, indices) in by_partition {
            let ids = indices.iter().flat_map(|index| {
                let item = &open[*index];
                let id = item.mark_id();
                [id.clone(), conflict_id(&id, item.digest)]
            });
            let digests = self.memory.recall(partition, &ids.collect::<Vec<_>>()).await?;
            for (index, pair) in indices.into_iter().zip(digests.chunks_exact(2)) {
                known[index] = [pair[0], pair[1]];
            }
        }
        Ok(known)
    }

    /// Finds every situation, where links lead (R10); a circle continues in its least stream, as for admission and dispatch. A command whose
    /// conversation continues in another partition gets its step, and so does one that cannot be decided yet (R2), with everything behind
    /// it.
    async fn situate(&self, open: &mut [Open], work: &[Work], steps: &mut [Option<Step<()>>]) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut questions: Vec<Question> = open.iter().map(|item| item.question(now)).collect();
        let situations = self.situations.settled_behind(&mut questions, self.own.ends()).await?;
        let mut waiting = BTreeSet::new();
        for ((item, question), situation) in open.iter_mut().zip(questions).zip(situations) {
            let record = &work[item.at].record;
            let lane = (record.source.partition, self.lane(record));
            if waiting.contains(&lane) || situation.is_none() {
                waiting.insert(lane);
                steps[item.at] = Some(Step::Wait { until: again(record.timestamp, now), appends: Vec::new() });
                continue;
            }
            item.situation = situation.unwrap_or_default();
            if item.home != question.conversation_id {
                item.home = question.conversation_id;
                item.command.recipient.conversation_id = Some(item.home.clone());
                if partition_of(&item.home, self.platform.partitions) != record.source.partition {
                    steps[item.at] = self.follow(record, item)?;
                }
            }
        }
        Ok(())
    }

    /// The command, to be answered where its conversation continues. `None` after too many times.
    fn follow(&self, record: &Record, item: &Open) -> Result<Option<Step<()>>, Failure> {
        let earlier = record.headers.iter().filter(|(name, _)| name == FORWARDED).count();
        if earlier > MOST_LINKS {
            return Ok(None);
        }
        let trace = traceparent(record);
        let mut append =
            self.emitter.record(Topic::ConsentCommands, item.home.as_str(), &item.command, trace.as_deref())?;
        for _ in 0..=earlier {
            append.headers.push((FORWARDED.into(), Some(Bytes::from_static(b"1"))));
        }
        // Written anew it has another digest than what its publisher may repeat.
        append.headers.push(commands::digest_header(item.digest));
        Ok(Some(Step::Done(vec![append])))
    }

    /// What is set for the number of an opt-in request, as of now. The other commands need none of it.
    async fn settings(&self, command: &ConsentCommand) -> Result<NumberSettings, Failure> {
        match command.action {
            ConsentAction::RequestOptIn => {
                self.numbers.newest_settings(&command.phone_number_id, &command.organization_id, PATIENCE).await
            }
            ConsentAction::Import
            | ConsentAction::Revoke
            | ConsentAction::AcknowledgeNotice
            | ConsentAction::Unknown => Ok(NumberSettings::default()),
        }
    }

    /// Adds how the user's contact list addresses people of whom nothing else tells whose conversation it is. What cannot be decided yet
    /// gets the step to wait, with everything behind it.
    async fn addresses(&self, open: &mut [Open], work: &[Work], steps: &mut [Option<Step<()>>]) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut waiting = BTreeSet::new();
        for item in open {
            if steps[item.at].is_some() {
                continue;
            }
            let record = &work[item.at].record;
            let lane = (record.source.partition, self.lane(record));
            let conversation = &item.situation.conversation;
            let unknown = conversation.phone_number_id.is_none() && conversation.address.is_empty();
            let named = !item.command.recipient.address.is_empty();
            let found = if named || !unknown || !item.situation.is_contact || !item.is_of_conversation() {
                Ok(None)
            } else {
                self.situations.listed_address(&item.question(now), conversation).await
            };
            match found {
                Ok(found) if !waiting.contains(&lane) => {
                    if let Some(address) = found {
                        item.situation.conversation.address = address;
                    }
                }
                Ok(_) | Err(Failure::Later(_)) => {
                    waiting.insert(lane);
                    steps[item.at] = Some(Step::Wait { until: again(record.timestamp, now), appends: Vec::new() });
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Whether the tenant may ask for this at all (P4).
    fn check_owner(&self, item: &Open, situation: &Situation) -> Result<(), NotOwned> {
        let command = &item.command;
        let acting = Acting {
            organization_id: &command.organization_id,
            phone_number_id: &command.phone_number_id,
            conversation: Some(&item.home).filter(|_| item.is_of_conversation()),
            address: Some(&command.recipient.address),
            // Taking consent away can only make the connector quieter: any operator of the organization may.
            as_user: command.action != ConsentAction::Revoke,
        };
        let number = self.numbers.get(&command.phone_number_id);
        check_owner(acting, number.as_deref(), situation, &self.platform.keys)
    }

    /// Decides about one command and writes the answer.
    fn answer(
        &self,
        item: &Open,
        settings: &NumberSettings,
        (known, has_id): ([Option<u64>; 2], bool),
        batch: &mut Batch,
        record: &Record,
    ) -> Result<Step<()>, Failure> {
        let Open { command, digest, user, .. } = item;
        let mut home = &item.home;
        let id = item.mark_id();
        let as_conflict = conflict_id(&id, *digest);
        let mut field = None;
        let first = batch.answered.get(&id).copied().or(known[0]);
        let now = self.clock.now();
        let conflict = match check_repeat(first, *digest) {
            Ok(Novelty::Repeat) => return Ok(Step::Done(Vec::new())),
            Err(_) if known[1].is_some() || batch.answered.contains_key(&as_conflict) => {
                return Ok(Step::Done(Vec::new()));
            }
            Err(rejection) => Some(rejection),
            Ok(Novelty::New) => (!has_id).then(|| Rule::Conflict.at("command_id")),
        };
        let mut situation = item.situation.clone();
        for stream in BTreeSet::from([home, user]) {
            for (event, id, at) in batch.facts.get(stream).into_iter().flatten() {
                situation.conversation.evolve(event, *id, *at);
                situation.enablement.evolve(event);
            }
        }
        // What is answered in the stream of its user is their business in any case.
        let needs_owner = item.refused.is_none() && (conflict.is_none() || item.is_of_conversation());
        let owned = if needs_owner { self.check_owner(item, &situation) } else { Ok(()) };
        let foreign = owned.as_ref().is_err_and(|refused| refused.foreign);
        let decided = match (conflict, &item.refused, owned) {
            (Some(rejection), ..) => Err(rejection),
            (None, Some((reason, of)), _) => {
                field = Some(of.clone());
                Err(reason.at(""))
            }
            (None, None, Err(NotOwned { rejection, .. })) => Err(rejection),
            (None, None, Ok(())) => {
                let template = settings.opt_in_template.as_ref().unwrap_or(&self.template);
                let rules = settings.rules(&self.platform.rules);
                let message = self.platform.keys.opt_in_message(&command.organization_id, command.command_id);
                decide_consent(&situation, command, Some(template), message, &rules, now)
            }
        };
        if foreign && let Err(rejection) = &decided {
            // Refused in a stream of the tenant's own: here, or where that is.
            if partition_of(user, self.platform.partitions) != record.source.partition {
                return Ok(Step::Done(vec![commands::disown(record, user, rejection.field)]));
            }
            home = user;
        }
        // What is no opaque id does not get into the log (R13).
        let formed = |id: &OrganizationId| if id.is_formed() { id.clone() } else { OrganizationId(String::new()) };
        let cause = Cause {
            organization_id: formed(&command.organization_id),
            stream_id: home.clone(),
            cause_id: commands::cause(command.command_id, *digest),
            command_id: Some(command.command_id),
            occurred_at: now,
            time_source: TimeSource::Connector,
            traceparent: traceparent(record),
        };
        let (events, send) = match decided {
            Ok(decision) => (decision.events, decision.send),
            Err(rejection) => (vec![refusal(&rejection, field, item)], None),
        };
        let mut appends = Vec::new();
        for event in events {
            let recorded = self.emitter.recorded(event, &cause);
            if let Some(mark) = mark(&recorded) {
                batch.answered.insert(mark.id.clone(), mark.digest);
                batch.marks.entry(record.source.partition).or_default().push(mark);
            }
            appends.push(self.emitter.event(&recorded)?);
            let fact = (recorded.event, recorded.envelope.event_id, now);
            batch.facts.entry(home.clone()).or_default().push(fact);
        }
        if let Some(send) = send {
            appends.push(self.emitter.record(
                Topic::SendCommands,
                home.as_str(),
                &send,
                cause.traceparent.as_deref(),
            )?);
        }
        Ok(Step::Done(appends))
    }
}

/// A refusal as the log keeps it. `field`: the one at fault, when the rule does not know it.
fn refusal(rejection: &Rejection, field: Option<String>, item: &Open) -> Event {
    let command = &item.command;
    tracing::debug!(command = %command.command_id, reason = %rejection.reason, "consent command refused");
    let user = if command.user_id.is_formed() { command.user_id.clone() } else { UserId(String::new()) };
    let refused = rejection.event(&user);
    MessageRejected { field: field.unwrap_or(refused.field), ..refused }.into()
}

#[async_trait]
impl Handler for Consent {
    type Fact = ();

    /// What must keep its order has the same key.
    fn lane(&self, record: &Record) -> LaneKey {
        let mut hasher = DefaultHasher::new();
        record.key.hash(&mut hasher);
        hasher.finish()
    }

    async fn assigned(&mut self, partition: &TopicPartition, _committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.memory.take_over(partition.partition).await?;
        self.reserved.take_over(partition.partition).await?;
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.memory.forget(partition.partition);
        self.reserved.forget(partition.partition);
        self.pending.remove(&partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Option<Step<()>>> = Vec::with_capacity(work.len());
        let mut open = Vec::new();
        for (at, work) in work.iter().enumerate() {
            match self.open(at, &work.record) {
                Ok(item) => {
                    open.push(item);
                    steps.push(None);
                }
                Err(step) => steps.push(Some(step)),
            }
        }
        let known = self.recall(&open, work).await?;
        // A repeat needs no situation; the views are asked for the rest.
        let (mut asked, mut seen) = (Vec::new(), Vec::new());
        for (item, known) in open.into_iter().zip(known) {
            if known[0] == Some(item.digest) {
                steps[item.at] = Some(Step::Done(Vec::new()));
            } else {
                asked.push(item);
                seen.push(known);
            }
        }
        if !asked.is_empty() {
            self.situate(&mut asked, work, &mut steps).await?;
            self.addresses(&mut asked, work, &mut steps).await?;
            self.numbers.at_end(asked.iter().map(|item| &item.command.phone_number_id), WITHIN).await?;
        }
        // The commands that are answered here; their ids may stand for others that were answered elsewhere.
        let here: Vec<_> = (0..asked.len()).filter(|at| steps[asked[*at].at].is_none()).collect();
        let ids: Vec<_> = here
            .iter()
            .map(|at| &asked[*at])
            .map(|item| (&item.command.organization_id, item.command.command_id, item.digest))
            .collect();
        let has = self.reserved.reserve(&ids, self.clock.now()).await?;
        let mut batch = Batch::default();
        for (at, has) in here.into_iter().zip(has) {
            let item = &asked[at];
            let settings = self.settings(&item.command).await?;
            steps[item.at] = Some(self.answer(item, &settings, (seen[at], has), &mut batch, &work[item.at].record)?);
        }
        self.pending = batch.marks;
        Ok(steps.into_iter().flatten().collect())
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(CHECKED_EVERY.min(IDLE))
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        self.reserved.check().await?;
        self.situations.rest().await?;
        Ok(Vec::new())
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        _positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.own.wrote(&self.platform.topic(Topic::ConversationEvents), appended);
        self.memory.remember(&self.pending, appended).await?;
        self.pending.clear();
        Ok(())
    }
}
