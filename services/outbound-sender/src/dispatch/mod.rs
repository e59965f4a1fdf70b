//! Dispatch: what was accepted leaves, journal first, in order per conversation, within WhatsApp's limits (R4 to R6).

mod accepted;
mod journal;
mod learned;
mod limits;
mod local;
mod outcome;
mod permit;
mod places;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::headers;
use connector_domain::command::{self, ContentKind, JournalKind, SendPolicy};
use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, CommandId};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, Transport};
use connector_domain::time::Timestamp;
use connector_ports::WhatsApp;
use connector_ports::log::{Append, Appended, Isolation, Offset, Record, Start, TopicPartition};
use connector_ports::whatsapp::Outbound;
use connector_runtime::emit::{Emitter, traceparent};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Order, Step, TakeUp};
use connector_runtime::holding::Holding;
use connector_runtime::lanes::{LaneKey, QueueKey, Work};
use connector_runtime::platform::Platform;
use connector_runtime::replay::first;
use connector_runtime::situation::{Situations, partition_of};
use connector_runtime::tail::IDLE;
use connector_runtime::view::Reading;
use futures::FutureExt;
use uuid::Uuid;

use crate::config::Config;
use crate::tables::Tables;
use accepted::{Accepted, Judged};
use journal::{Attempt, Blocked, Ending, Fate, Journal, Loaded, Name};
use learned::Learned;
use limits::Limits;
use permit::Permit;
use places::{Places, Remembered};

/// How often a message whose answer got lost asks whether a status has settled it.
const POLL: Duration = Duration::from_secs(1);
/// A POST that did not begin this long after its attempt was decided is withdrawn: the machine slept, somebody else may own the
/// conversation by now.
const STALE: Duration = Duration::from_secs(5);
/// When an answer that must be on its way is looked for again.
const SOON: Duration = Duration::from_millis(50);
/// When an operator's word about a journal that cannot be read is looked for again.
const LOOK: Duration = Duration::from_secs(5);
/// Attempts of an `at_least_once` message that may end ambiguously.
const MOST_AMBIGUOUS: u32 = 2;

/// Sends what was accepted.
pub struct Dispatcher {
    platform: Platform,
    emitter: Emitter,
    situations: Situations,
    conversations: Reading,
    tables: Tables,
    whatsapp: Arc<dyn WhatsApp>,
    limits: Limits,
    places: Places,
    concurrency: usize,
    /// Makes the attempts of this process unlike those of any other.
    nonce: Uuid,
    /// `None`: ours, and its journal has not been read yet.
    partitions: HashMap<u32, Option<Journal>>,
    /// Where partitions were taken over: everything below was finished and committed by then.
    taken_over: HashMap<u32, Offset>,
    /// Ours, and its journal cannot be read: nothing is sent from there.
    blocked: HashMap<u32, (Blocked, Timestamp)>,
    accepted: Accepted,
    /// Identities that answers of WhatsApp showed, and that were written down.
    learned: Learned,
    /// The newest attempts of this process, and how far they are.
    issued: HashMap<Name, Issued>,
}

/// A message on its way.
#[derive(Clone, Debug)]
struct Job {
    dispatch: Arc<command::Dispatch>,
    partition: u32,
    offset: Offset,
    traceparent: Option<String>,
    queued_at: Timestamp,
}

impl Job {
    fn id(&self) -> CommandId {
        self.dispatch.command_id
    }

    fn name(&self) -> Name {
        journal::name(self.dispatch.command_id, &self.dispatch.conversation_id)
    }

    /// A read receipt or typing indicator: nothing is lost with it, and it is no message to the contact.
    fn is_receipt(&self) -> bool {
        matches!(self.dispatch.content.kind, ContentKind::Read | ContentKind::Typing)
    }

    /// Whether an attempt whose answer got lost may be followed by another one.
    fn repeats(&self) -> bool {
        self.dispatch.policy == SendPolicy::AtLeastOnce && !self.is_receipt()
    }
}

/// What became of one POST.
#[derive(Debug)]
pub struct Fact {
    job: Job,
    attempt: Attempt,
    exchange: Exchange,
    took: Duration,
    /// What it was decided on did not hold: there was no POST.
    held_back: bool,
}

/// What a record leads to, before anything was asked.
enum Plan {
    Step(Step<Fact>),
    /// Its answer is here already.
    Conclude(Fact),
    /// Its answer got lost with the process.
    Crashed(Job, Attempt),
    /// How it ended is known and does not stand in the log.
    Again(Job, Attempt, Ending),
    /// It waits for a status that settles it.
    Unsettled(Job, Attempt),
    /// It may leave if nothing speaks against it.
    Send(Job),
}

/// What becomes of a message that is unconfirmed.
enum Unsettled {
    Over,
    Wait,
    Repeat,
}

/// An attempt that was handed out.
struct Issued {
    attempt: AttemptId,
    progress: Arc<Mutex<Progress>>,
    /// Its answer has led to something, which may stand in the journal by now.
    concluded: bool,
}

/// How far a POST is. It is kept beside the worker, which forgets what runs when it has to leave its group.
enum Progress {
    /// Not begun. Whoever asks for the attempt again turns this into [`NOT_BEGUN`] for ever: the effect may be alive, waiting for the answer
    /// to whether its decision holds.
    Waiting,
    /// On its way.
    Begun,
    /// It was dropped on its way.
    Dropped,
    /// This is what came of it.
    Answered(Exchange),
}

/// What a process knows about an attempt that it, or somebody else, made.
enum Known {
    Answer(Exchange),
    Soon,
    Nothing,
}

fn locked(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks a POST that is being made, also when it is dropped on the way.
struct Begun(Arc<Mutex<Progress>>);

impl Begun {
    /// `None`: meanwhile it was said of this attempt that it never began.
    fn new(progress: Arc<Mutex<Progress>>) -> Option<Self> {
        {
            let mut state = locked(&progress);
            if !matches!(*state, Progress::Waiting) {
                return None;
            }
            *state = Progress::Begun;
        }
        Some(Self(progress))
    }

    fn answered(self, exchange: &Exchange) {
        *locked(&self.0) = Progress::Answered(exchange.clone());
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut progress = locked(&self.0);
        if matches!(*progress, Progress::Begun) {
            *progress = Progress::Dropped;
        }
    }
}

impl Dispatcher {
    /// A handler that has no partitions yet.
    #[must_use]
    pub fn new(platform: &Platform, config: &Config, whatsapp: Arc<dyn WhatsApp>, tables: Tables) -> Self {
        Self {
            emitter: platform.emitter(crate::PRODUCER),
            situations: tables.situations(),
            conversations: platform.conversations(),
            limits: Limits::new(platform.gate.clone(), config, platform.partitions, tables.of_numbers().clone()),
            tables,
            whatsapp,
            places: Places::default(),
            concurrency: config.concurrency,
            nonce: platform.ids.fresh(),
            partitions: HashMap::new(),
            taken_over: HashMap::new(),
            blocked: HashMap::new(),
            accepted: Accepted::default(),
            learned: Learned::default(),
            issued: HashMap::new(),
            platform: platform.clone(),
        }
    }

    /// Reads the journals of partitions that are new here.
    async fn load(&mut self, work: &[Work]) -> Result<(), Failure> {
        let mut oldest: HashMap<&TopicPartition, Timestamp> = HashMap::new();
        for Work { record, .. } in work {
            let partition = record.source.partition;
            if !matches!(self.partitions.get(&partition), Some(Some(_))) && !self.is_blocked(partition).await {
                let first = oldest.entry(&record.source).or_insert(record.timestamp);
                *first = record.timestamp.min(*first);
            }
        }
        for (source, mut oldest) in oldest {
            // What comes first here need not be the first that is unfinished: whoever has a place goes, and others wait for theirs.
            let from = Start::At(self.taken_over.get(&source.partition).copied().unwrap_or_default());
            if let Some(first) = first(self.platform.log.as_ref(), source, from, Isolation::Committed).await? {
                oldest = first.timestamp.min(oldest);
            }
            match Journal::load(&self.platform, source, oldest).await? {
                Loaded::Whole(journal) => {
                    self.partitions.insert(source.partition, Some(journal));
                }
                Loaded::Blocked(blocked) => self.block(source.partition, blocked),
            }
        }
        Ok(())
    }

    /// Nothing is sent from a partition whose journal has a record that cannot be read: it may be an attempt. Others go on.
    fn block(&mut self, partition: u32, blocked: Blocked) {
        for unreadable in blocked.unreadable.values() {
            tracing::error!(
                journal = %blocked.journal,
                offset = unreadable.offset.0,
                reason = unreadable.reason,
                "the journal has a record that cannot be read: nothing is sent from this partition until an operator accepts it as an \
                 attempt without a conclusion, with `connectorctl journal accept --partition {partition} --offset {}`",
                unreadable.offset.0,
            );
        }
        self.blocked.insert(partition, (blocked, self.platform.clock.now() + LOOK));
        self.platform.metrics.outbound.journals_blocked(self.blocked.len());
    }

    /// Whether the journal of a partition cannot be read, and nobody has said since how to take it.
    async fn is_blocked(&mut self, partition: u32) -> bool {
        let now = self.platform.clock.now();
        let Some((blocked, until)) = self.blocked.get_mut(&partition) else { return false };
        if now < *until {
            return true;
        }
        *until = now + LOOK;
        match blocked.look(&self.platform).await {
            Ok(false) => true,
            Ok(true) => {
                tracing::info!(journal = %blocked.journal, "an operator has accepted what cannot be read");
                self.free(partition);
                false
            }
            // It is no news that it cannot be read.
            Err(failure) => {
                tracing::debug!(%failure, "the journal was not looked through");
                true
            }
        }
    }

    fn free(&mut self, partition: u32) {
        self.blocked.remove(&partition);
        self.platform.metrics.outbound.journals_blocked(self.blocked.len());
    }

    fn journal(&mut self, partition: u32) -> &mut Journal {
        self.partitions.entry(partition).or_default().get_or_insert_default()
    }

    fn fate(&mut self, job: &Job) -> &mut Fate {
        self.journal(job.partition).fate(job.name())
    }

    fn plan(&mut self, record: &Record, judged: Judged) -> Plan {
        let dispatch = match judged {
            Ok(dispatch) => dispatch,
            Err(letter) => return Plan::Step(Step::DeadLetter(letter)),
        };
        let partition = record.source.partition;
        if let Some((_, until)) = self.blocked.get(&partition) {
            return Plan::Step(Step::Wait { until: *until, appends: Vec::new() });
        }
        let (offset, traceparent) = (record.offset, traceparent(record));
        let job = Job { dispatch, partition, offset, traceparent, queued_at: record.timestamp };
        let name = job.name();
        if self.journal(partition).is_done(name) {
            return Plan::Step(Step::Done(Vec::new()));
        }
        if let Some(attempt) = self.journal(partition).doubt(&job.dispatch, offset, record.timestamp) {
            self.fate(&job).attempted(attempt);
        }
        let Some(fate) = self.journal(partition).get(name) else { return Plan::Send(job) };
        let Some(attempt) = fate.pending() else { return Plan::Send(job) };
        let ending = fate.ending.clone();
        if let Some((ending @ (Ending::Sent(_) | Ending::Failed { .. }), _)) = ending {
            return Plan::Again(job, attempt, ending);
        }
        if !job.repeats() && matches!(ending, Some((Ending::Unconfirmed(_), true))) {
            // Another owner told its end; what we know ourselves comes too late.
            return Plan::Unsettled(job, attempt);
        }
        match self.known(&job, attempt.id, ending.is_some()) {
            Known::Answer(exchange) => {
                return Plan::Conclude(Fact { job, attempt, exchange, took: Duration::ZERO, held_back: false });
            }
            Known::Soon => {
                let until = self.platform.clock.now() + SOON;
                return Plan::Step(Step::Wait { until, appends: Vec::new() });
            }
            Known::Nothing => {}
        }
        match ending {
            None => Plan::Crashed(job, attempt),
            Some((ending, false)) => Plan::Again(job, attempt, ending),
            Some((_, true)) => Plan::Unsettled(job, attempt),
        }
    }

    /// What this process knows about an attempt: of its own, and, if it `ended`, more than led to that end.
    fn known(&self, job: &Job, attempt: AttemptId, ended: bool) -> Known {
        let issued = self.issued.get(&job.name()).filter(|issued| issued.attempt == attempt);
        let Some(issued) = issued.filter(|issued| !(issued.concluded && ended)) else { return Known::Nothing };
        let mut progress = locked(&issued.progress);
        match &*progress {
            // It was written down, and its POST did not begin: from here on it cannot.
            Progress::Waiting => {
                *progress = Progress::Answered(NOT_BEGUN);
                Known::Answer(NOT_BEGUN)
            }
            // The partition came back faster than the answer.
            Progress::Begun => Known::Soon,
            Progress::Answered(exchange) => Known::Answer(exchange.clone()),
            Progress::Dropped => Known::Nothing,
        }
    }

    /// The attempt, journal first. Before its first byte leaves, what it was decided on must hold. It goes `to` where its recipient is by now,
    /// which may be elsewhere than when it was accepted.
    fn go(&mut self, job: Job, to: Option<Address>, holding: Option<(Holding, usize)>) -> Result<Step<Fact>, Failure> {
        let now = self.platform.clock.now();
        let nonce = self.nonce;
        let fate = self.fate(&job);
        let free_at = fate.free_at.unwrap_or(job.queued_at);
        let no = fate.last.map_or(0, |last| last.no) + 1;
        let attempt = Attempt {
            id: AttemptId::derived(&format!("{}:{}:{no}:{nonce}", job.id(), job.dispatch.conversation_id)),
            no,
            at: now,
        };
        fate.attempted(attempt);
        let settled = std::mem::take(&mut fate.counted);
        self.platform.metrics.outbound.unconfirmed(-i64::from(settled));
        self.platform.metrics.outbound.attempted(now.since(free_at));
        let entry = self.entry(&job, &attempt, JournalKind::Attempted, None, now)?;

        let progress = Arc::new(Mutex::new(Progress::Waiting));
        let issued = Issued { attempt: attempt.id, progress: progress.clone(), concluded: false };
        self.issued.insert(job.name(), issued);
        let (clock, whatsapp) = (self.platform.clock.clone(), self.whatsapp.clone());
        let outbound = Outbound {
            phone_number_id: job.dispatch.phone_number_id.clone(),
            address: to.unwrap_or_else(|| job.dispatch.address.clone()),
            content: job.dispatch.content.clone(),
            attempt_id: attempt.id,
        };
        let run = async move {
            let holds = match holding {
                Some((holding, nth)) => holding.holds(nth).await,
                None => true,
            };
            let begun = if holds { Begun::new(progress) } else { None };
            let Some(begun) = begun else {
                return Fact { job, attempt, exchange: NOT_BEGUN, took: Duration::ZERO, held_back: true };
            };
            let began = clock.now();
            let stale = began.since(attempt.at) > STALE;
            let exchange = if stale { NOT_BEGUN } else { whatsapp.send(&outbound).await };
            begun.answered(&exchange);
            Fact { job, attempt, exchange, took: clock.now().since(began), held_back: false }
        };
        Ok(Step::Effect { journal: vec![entry], run: run.boxed() })
    }

    /// Whether statuses have settled these attempts.
    async fn settled_attempts(
        &mut self,
        waiting: &[(usize, Job, Attempt)],
        now: Timestamp,
    ) -> Result<Vec<Remembered>, Failure> {
        let mut asked: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
        let mut positions = Vec::with_capacity(waiting.len());
        for (_, job, attempt) in waiting {
            let partition = partition_of(&job.dispatch.conversation_id, self.platform.partitions);
            let ids = asked.entry(partition).or_default();
            positions.push((partition, ids.len()));
            ids.push(Bytes::copy_from_slice(attempt.id.0.as_bytes()));
        }
        let known = self.places.remembered(&self.conversations, asked, now).await?;
        let settled = |(partition, at): (u32, usize)| known.get(&partition)?.get(at).copied();
        Ok(positions.into_iter().map(|position| settled(position).unwrap_or(Remembered::Away)).collect())
    }

    /// Whether the POST of an attempt may still be on its way to WhatsApp: its answer is not here, and whoever made it may be alive, a
    /// former owner of the partition for instance. What follows in the conversation would overtake it.
    fn may_arrive(&self, job: &Job, attempt: Attempt, now: Timestamp) -> bool {
        let issued = self.issued.get(&job.name()).filter(|issued| issued.attempt == attempt.id);
        let answered = issued.is_some_and(|issued| matches!(*locked(&issued.progress), Progress::Answered(_)));
        !answered && !job.is_receipt() && now < attempt.at + STALE + self.whatsapp.longest_send()
    }

    /// What a message does whose answer got lost.
    fn unsettled(&self, job: &Job, attempt: Attempt, settled: Remembered, now: Timestamp) -> Unsettled {
        match settled {
            Remembered::Away => return Unsettled::Wait,
            Remembered::Yes => return Unsettled::Over,
            Remembered::No | Remembered::NotYet => {}
        }
        let fate = self.partitions.get(&job.partition).and_then(Option::as_ref).and_then(|j| j.get(job.name()));
        let spent = fate.is_some_and(|fate| fate.ambiguous >= MOST_AMBIGUOUS);
        if self.may_arrive(job, attempt, now) {
            Unsettled::Wait
        } else if !job.repeats() || spent || now > job.dispatch.not_after {
            Unsettled::Over
        } else if now.since(attempt.at) < self.platform.rules.unconfirmed_wait || settled == Remembered::NotYet {
            Unsettled::Wait
        } else {
            Unsettled::Repeat
        }
    }

    /// What is known about attempts that nobody will ask for any more goes, when it has become much.
    fn sweep(&mut self) {
        if self.issued.len() <= 4 * self.concurrency {
            return;
        }
        let open = |name: &Name| self.partitions.values().flatten().any(|journal| journal.get(*name).is_some());
        self.issued.retain(|name, _| open(name));
    }
}

fn hashed(bytes: Option<&Bytes>) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

const NOT_BEGUN: Exchange = Exchange { left: BytesLeft::No, answer: Answer::Transport(Transport::Other) };

#[async_trait]
impl Handler for Dispatcher {
    type Fact = Fact;

    fn order(&self) -> Order {
        Order::Lanes { at_once: self.concurrency }
    }

    fn lane(&self, record: &Record) -> LaneKey {
        hashed(record.key.as_ref())
    }

    fn queue(&self, record: &Record) -> QueueKey {
        hashed(record.header(headers::NUMBER))
    }

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.partitions.insert(partition.partition, None);
        self.taken_over.insert(partition.partition, committed.unwrap_or_default());
        self.accepted.took_over(partition.partition, committed.unwrap_or_default());
        self.limits.forget_probes();
        self.limits.owns(partition.partition, self.platform.clock.now());
        // What was written may have gone with its transaction.
        self.learned = Learned::default();
        Ok(TakeUp::Committed)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.limits.lost(partition.partition);
        // The probe of a number may have been in there.
        self.limits.forget_probes();
        self.taken_over.remove(&partition.partition);
        self.accepted.lost(partition.partition);
        self.free(partition.partition);
        let journal = self.partitions.remove(&partition.partition).flatten();
        let waiting = journal.map_or(0, |journal| journal.open().filter(|fate| fate.counted).count());
        self.platform.metrics.outbound.unconfirmed(-i64::try_from(waiting).unwrap_or(0));
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<Fact>>, Failure> {
        let judged = self.accepted.judge(&self.platform, work).await?;
        self.load(work).await?;
        let now = self.platform.clock.now();
        let mut steps: Vec<Option<Step<Fact>>> = work.iter().map(|_| None).collect();
        let (mut waiting, mut sending, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for ((at, Work { record, .. }), judged) in work.iter().enumerate().zip(judged) {
            match self.plan(record, judged) {
                Plan::Step(step) => steps[at] = Some(step),
                Plan::Unsettled(job, attempt) => waiting.push((at, job, attempt)),
                Plan::Send(job) => sending.push((at, job)),
                plan => rest.push((at, plan)),
            }
        }

        let settled = self.settled_attempts(&waiting, now).await?;
        let mut held = Vec::new();
        for ((at, job, attempt), settled) in waiting.into_iter().zip(settled) {
            match self.unsettled(&job, attempt, settled, now) {
                Unsettled::Repeat => sending.push((at, job)),
                other => held.push((at, job, other)),
            }
        }
        let new = work.iter().all(|work| work.round == 0);
        let permits = self.permits(&sending, new, now).await?;

        // Whatever could be tried again was tried: from here on what is remembered is what is written.
        for (at, job, what) in held {
            steps[at] = Some(if matches!(what, Unsettled::Wait) {
                self.count(&job);
                Step::Wait { until: now + POLL, appends: Vec::new() }
            } else {
                self.finish(&job);
                Step::Done(Vec::new())
            });
        }
        for ((at, job), (permit, holding)) in sending.into_iter().zip(permits) {
            steps[at] = Some(match permit {
                Permit::Go { to } => self.go(job, to, holding)?,
                Permit::Wait { until, free } => self.wait_for_leave(&job, until, free),
                Permit::Never(rejection) => self.withdraw(&job, &rejection, now)?,
            });
        }
        for (at, plan) in rest {
            steps[at] = match plan {
                Plan::Conclude(fact) => Some(self.outcome(fact).await?),
                Plan::Crashed(job, attempt) => Some(self.unconfirmed(&job, &attempt, "crash", now)?),
                Plan::Again(job, attempt, ending) => Some(self.again(&job, &attempt, ending, now)?),
                Plan::Step(_) | Plan::Unsettled(..) | Plan::Send(_) => None,
            };
        }
        self.sweep();
        Ok(steps.into_iter().map(|step| step.unwrap_or(Step::Done(Vec::new()))).collect())
    }

    async fn conclude(&mut self, _work: &Work, fact: Fact) -> Result<Step<Fact>, Failure> {
        self.outcome(fact).await
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(IDLE)
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        self.situations.rest().await?;
        Ok(Vec::new())
    }

    async fn committed(
        &mut self,
        _appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        for (partition, frontier) in positions {
            self.accepted.passed(partition.partition, *frontier);
            if let Some(Some(journal)) = self.partitions.get_mut(&partition.partition) {
                journal.passed(*frontier);
            }
        }
        Ok(())
    }
}
