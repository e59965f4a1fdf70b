//! One play under a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::command::{Content, Recipient, SendMessage, SendPolicy, SendPurpose};
use connector_domain::consent::Intent;
use connector_domain::conversation::Conversation;
use connector_domain::decide::decide_send;
use connector_domain::event::{ContactAdded, Envelope, Event, MessageReceived, Recorded, TimeSource, WhatsAppEnabled};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{CommandId, EventId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Claim, View};
use connector_ports::log::TopicSpec;
use connector_ports::{Clock, Gate, Ids};
use connector_runtime::audit::{self, Auditor};
use connector_runtime::emit::Cause;
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_runtime::situation::{Question, Situations, conversation_key, load, partition_of};
use connector_runtime::worker::WorkerSpec;
use connector_simulated::{Noise, Plan, SimWorld};
use connector_telemetry::Metrics;
use connector_testkit::event::text_received;
use opt_in_tracker::{Conversations, Projector};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::check::{Fold, at_rest, fold};
use crate::harmed::{Harmed, Mutation, Skewed};

const PARTITIONS: u32 = 2;
const WINDOW: Duration = Duration::from_secs(120);
/// The most by which a clock is wrong.
const SKEW: i64 = 5_000;
/// How long the projections may take to be the fold of the log again once nobody harms them.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// How often each process compares one of its partitions with the log.
const AUDIT: Duration = Duration::from_secs(3);
/// Steps of a play: something happens in each.
const STEPS: usize = 30;

fn rules() -> Rules {
    Rules {
        window: WINDOW,
        // Twice what two clocks may differ by, and some.
        margin: Duration::from_secs(12),
        closing_soon: vec![Duration::from_secs(20), Duration::from_secs(50)],
        ..Rules::default()
    }
}

/// SplitMix64, as the world's own.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn skew(&mut self) -> i64 {
        i64::try_from(self.below(2 * SKEW.unsigned_abs() + 1)).unwrap_or(0) - SKEW
    }
}

/// A process with both projections, and what can be done to it.
struct Process {
    clock: Arc<Skewed>,
    frozen: watch::Sender<bool>,
    platform: Platform,
    mutation: Mutation,
    running: Option<JoinHandle<()>>,
}

impl Process {
    fn new(world: &SimWorld, name: &str, mutation: Mutation, claimed: mpsc::UnboundedSender<(String, u8)>) -> Self {
        let clock = Arc::new(Skewed { right: world.clock(), millis: AtomicI64::new(0) });
        let (frozen, watched) = watch::channel(false);
        let gate = Harmed { inner: world.gate(), mutation, frozen: watched, left: Mutex::default(), claimed };
        let platform = platform(world, name, clock.clone(), Arc::new(gate));
        Self { clock, frozen, platform, mutation, running: None }
    }

    fn start(&mut self) {
        let mut service = Service::new(self.platform.clone(), CancellationToken::new());
        // Of a gate that is broken on purpose the audit would heal what has to be found out.
        let audit = if self.mutation == Mutation::None { AUDIT } else { Duration::ZERO };
        window_timer::start(window_timer::Config { tick: Duration::from_millis(200), audit }, &mut service);
        let topics = vec![self.platform.topic(Topic::ConversationEvents)];
        let spec = WorkerSpec::new("projector", "projector".to_owned(), topics, self.platform.instance.clone());
        let projector = Projector::new(&self.platform, Duration::from_secs(1));
        let auditor = Auditor::new(&self.platform, views::CONVERSATIONS, Box::new(|_| Conversations::default()));
        audit::start(&mut service, "audit", auditor, projector.owned(), audit, None);
        service.worker(spec, projector);
        self.running = Some(tokio::spawn(async move {
            // A process that ends with a failure is started again by whoever sees it, see `Play::calm`.
            let _ = service.run().await;
        }));
    }

    fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }

    fn is_down(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn platform(world: &SimWorld, name: &str, clock: Arc<dyn Clock>, gate: Arc<dyn Gate>) -> Platform {
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.log(),
        gate,
        clock,
        ids,
        topics: Topics::new(""),
        partitions: PARTITIONS,
        keys: StreamKeys::new("k1", b"secret"),
        rules: rules(),
        instance: name.to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

struct Play {
    world: SimWorld,
    dice: Dice,
    mutation: Mutation,
    processes: Vec<Process>,
    claimed: mpsc::UnboundedReceiver<(String, u8)>,
    /// Writes what the other services would.
    inbound: Platform,
    sender: Platform,
    situations: Situations,
    streams: Vec<StreamId>,
    /// When the contact of each conversation wrote, by the right clock.
    wrote: BTreeMap<StreamId, Vec<Timestamp>>,
    /// When each event of this play was written into the log, by the right clock.
    written: BTreeMap<EventId, Timestamp>,
    /// Conversations in which the contact's last word was STOP.
    opted_out: BTreeSet<StreamId>,
    messages: usize,
}

/// Plays one seed. `Err`: what it brought to light.
pub(crate) async fn play(seed: u64, mutation: Mutation) -> Result<(), String> {
    let world = SimWorld::new(seed);
    let topics = Topics::new("");
    for topic in [Topic::ConversationEvents, Topic::SendCommands, Topic::Directory] {
        for name in [topics.name(topic), topics.dlq(topic)] {
            let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
            world.calm_log().create_topic(&spec).await.expect("a topic");
        }
    }
    let (told, claimed) = mpsc::unbounded_channel();
    let processes = ["a", "b"].map(|name| Process::new(&world, name, mutation, told.clone())).into();
    let calm: Arc<dyn Gate> = Arc::new(world.calm_gate().clone());
    let skewed = || Arc::new(Skewed { right: world.clock(), millis: AtomicI64::new(0) });
    let (inbound_clock, sender_clock) = (skewed(), skewed());
    let mut dice = Dice(seed);
    inbound_clock.millis.store(dice.skew(), Ordering::Relaxed);
    sender_clock.millis.store(dice.skew(), Ordering::Relaxed);
    let calm_platform = |name, clock| Platform { log: world.calm_log(), ..platform(&world, name, clock, calm.clone()) };
    let inbound = calm_platform("inbound", inbound_clock);
    let sender = calm_platform("sender", sender_clock);
    let mut play = Play {
        situations: Situations::new(&sender),
        streams: (0..4).map(|n| StreamId(format!("k1-{n:032x}"))).collect(),
        world: world.clone(),
        dice,
        mutation,
        processes,
        claimed,
        inbound,
        sender,
        wrote: BTreeMap::new(),
        written: BTreeMap::new(),
        opted_out: BTreeSet::new(),
        messages: 0,
    };
    play.all().await
}

impl Play {
    async fn all(&mut self) -> Result<(), String> {
        self.directory().await;
        self.processes.iter_mut().for_each(Process::start);
        self.harm().await?;
        self.calm().await;
        self.is_the_fold().await.map_err(|finding| format!("while windows are open: {finding}"))?;
        tokio::time::sleep(WINDOW + Duration::from_secs(30)).await;
        let folds = self.is_the_fold().await?;
        at_rest(&folds)?;
        self.audited()?;
        self.nothing_is_left().await
    }

    /// Whatever was done to gate and processes, the audit has only ever compared at the same position: it found nothing.
    fn audited(&self) -> Result<(), String> {
        if self.mutation != Mutation::None {
            return Ok(());
        }
        let pages: Vec<_> = self.processes.iter().map(|process| process.platform.metrics.encode()).collect();
        let count = |metric: &str| -> u64 {
            let lines = pages.iter().flat_map(|page| page.lines()).filter(|line| line.starts_with(metric));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        for view in [views::WINDOWS, views::CONVERSATIONS] {
            if count(&format!("connector_gate_audit_checked_total{{view=\"{view}\"}}")) == 0 {
                return Err(format!("nothing of {view} was compared with the log"));
            }
        }
        match count("connector_gate_audit_drifted_total") {
            0 => Ok(()),
            drifted => Err(format!("the audit takes {drifted} right conversations for wrong ones")),
        }
    }

    fn now(&self) -> Timestamp {
        self.world.clock().now()
    }

    async fn emit(&mut self, stream: &StreamId, event: Event, occurred_at: Timestamp) {
        self.messages += 1;
        let cause = Cause {
            organization_id: "acme".into(),
            stream_id: stream.clone(),
            cause_id: self.messages.to_string(),
            command_id: None,
            occurred_at,
            time_source: TimeSource::Whatsapp,
            traceparent: None,
        };
        let emitter = self.inbound.emitter("test");
        let recorded = emitter.recorded(event, &cause);
        let appender = self.inbound.log.appender().await.expect("an appender");
        appender.append(vec![emitter.event(&recorded).expect("an event")]).await.expect("appended");
        self.written.insert(recorded.envelope.event_id, self.now());
    }

    /// A user who may write to everybody.
    async fn directory(&mut self) {
        let user = self.inbound.keys.user(&"acme".into(), &"ada".into());
        let now = self.now();
        let enabled = WhatsAppEnabled { user_id: "ada".into(), phone_number_id: "number".into() };
        self.emit(&user, enabled.into(), now).await;
        for (n, conversation_id) in self.streams.clone().into_iter().enumerate() {
            let contact_id = n.to_string().as_str().into();
            let address = Address::default();
            let added = ContactAdded { user_id: "ada".into(), contact_id, conversation_id, address, name: None };
            self.emit(&user, added.into(), now).await;
        }
    }

    /// The contact wrote so long ago, and the message comes now.
    async fn message(&mut self, stream: &StreamId, ago: Duration, intent: Intent) {
        let written = Timestamp::from_secs((self.now() - ago).as_millis() / 1000);
        self.wrote.entry(stream.clone()).or_default().push(written);
        let deadline = connector_domain::window::deadline(written, self.inbound.clock.now(), &rules());
        let message = MessageReceived { intent, ..text_received(deadline) };
        self.emit(stream, message.into(), written).await;
    }

    /// A user tries to write: what leaves must leave inside the window, and not after a STOP.
    async fn send(&mut self, stream: &StreamId) -> Result<(), String> {
        let question = Question {
            organization_id: "acme".into(),
            user_id: "ada".into(),
            conversation_id: stream.clone(),
            addressed_at: None,
        };
        // What cannot be decided on waits, and so it is with a part that does not answer.
        let settled = self.situations.settled(&mut [question]).await;
        let Ok([Some(situation)]) = settled.as_deref() else { return Ok(()) };
        let command = SendMessage {
            command_id: CommandId::derived("send"),
            organization_id: "acme".into(),
            user_id: "ada".into(),
            phone_number_id: "number".into(),
            recipient: Recipient { conversation_id: Some(stream.clone()), address: Address::default() },
            content: Content::text("hello"),
            policy: SendPolicy::default(),
            purpose: SendPurpose::default(),
            issued_at: self.sender.clock.now(),
            not_after: None,
        };
        if decide_send(situation, &command, None, &rules(), self.sender.clock.now()).is_ok() {
            let now = self.now();
            let inside = |written: &Timestamp| *written <= now && now < *written + WINDOW;
            if !self.wrote.get(stream).is_some_and(|wrote| wrote.iter().any(inside)) {
                return Err(format!("a message to {stream} left outside its window at {now:?}"));
            }
            if self.opted_out.contains(stream) {
                return Err(format!("a message to {stream} left after a STOP"));
            }
        }
        Ok(())
    }

    /// Everything at once, under the dice.
    async fn harm(&mut self) -> Result<(), String> {
        let noise = Noise { fail_before: 4, fail_after: 4, rebalance: 2, ..Noise::default() };
        self.world = self.world.clone().with(Plan::noisy(noise));
        let mut dumps = vec![self.world.calm_gate().snapshot()];
        for _ in 0..STEPS {
            let stream = self.streams[usize::try_from(self.dice.below(4)).unwrap_or(0)].clone();
            let which = usize::try_from(self.dice.below(2)).unwrap_or(0);
            match self.dice.below(100) {
                0..25 => {
                    let ago = Duration::from_millis(self.dice.below(3_000));
                    self.message(&stream, ago, Intent::Other).await;
                }
                25..28 => {
                    // Delivered long after it was written; perhaps later than its window lasted.
                    let ago = Duration::from_secs(self.dice.below(200));
                    self.message(&stream, ago, Intent::Other).await;
                }
                28..31 => {
                    self.opted_out.insert(stream.clone());
                    self.message(&stream, Duration::ZERO, Intent::Stop).await;
                }
                31..34 => {
                    self.opted_out.remove(&stream);
                    self.message(&stream, Duration::ZERO, Intent::Start).await;
                }
                34..54 => self.send(&stream).await?,
                54..59 => dumps.push(self.world.calm_gate().snapshot()),
                59..64 => {
                    let at = usize::try_from(self.dice.below(dumps.len() as u64)).unwrap_or(0);
                    self.world.calm_gate().restore(&dumps[at]);
                }
                64..67 => self.world.calm_gate().wipe(),
                67..72 => self.processes[which].kill(),
                72..80 if self.processes[which].is_down() => self.processes[which].start(),
                72..77 => drop(self.processes[which].frozen.send_replace(true)),
                77..82 => drop(self.processes[which].frozen.send_replace(false)),
                82..86 => {
                    let skew = self.dice.skew();
                    self.processes[which].clock.millis.store(skew, Ordering::Relaxed);
                }
                _ => {}
            }
            self.wait().await;
        }
        Ok(())
    }

    /// Time passes. Now and then a contact writes at the very moment at which a timer holds their window in its hands.
    async fn wait(&mut self) {
        let until = self.now() + Duration::from_millis(self.dice.below(8_000));
        while let Ok(Some((key, tag))) = tokio::time::timeout(until.since(self.now()), self.claimed.recv()).await {
            let claimed = key.split_once('.').map(|(_, stream)| StreamId(stream.to_owned()));
            // Not too often at a warning: windows have to come to their end.
            if let Some(stream) = claimed.filter(|_| self.dice.below(if tag == 0 { 2 } else { 12 }) == 0) {
                self.message(&stream, Duration::ZERO, Intent::Other).await;
            }
        }
    }

    /// Nobody harms anything any more, and whatever is down comes up.
    async fn calm(&mut self) {
        self.world = self.world.clone().with(Plan::default());
        for process in &mut self.processes {
            process.frozen.send_replace(false);
            if process.is_down() {
                process.start();
            }
        }
    }

    fn history(&self) -> Vec<Recorded> {
        let records = self.world.history(&Topics::new("").name(Topic::ConversationEvents).into());
        records.iter().map(|r| decode_event(r.value.as_deref().expect("a value")).expect("an event")).collect()
    }

    /// Whether the views become the fold of the log.
    async fn is_the_fold(&mut self) -> Result<BTreeMap<StreamId, Fold>, String> {
        let until = self.now() + HEALED_WITHIN;
        loop {
            while self.claimed.try_recv().is_ok() {}
            for process in &mut self.processes {
                if process.is_down() {
                    process.start();
                }
            }
            let skew = Duration::from_millis(SKEW.unsigned_abs());
            let written = |envelope: &Envelope| self.written[&envelope.event_id] + skew;
            let folds = fold(&self.history(), &rules(), written, self.mutation)?;
            let difference = self.difference(&folds).await;
            match difference {
                None => return Ok(folds),
                Some(difference) if self.now() > until => return Err(difference),
                Some(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    async fn difference(&self, folds: &BTreeMap<StreamId, Fold>) -> Option<String> {
        let gate = self.world.calm_gate();
        for (stream, fold) in folds.iter().filter(|(stream, _)| self.streams.contains(stream)) {
            let partition = partition_of(stream, PARTITIONS);
            let windows = gate.timers(&View::new(views::WINDOWS, partition), &[format!("0.{stream}")]).await;
            let timer = windows.expect("the gate").answers.remove(0);
            // The leads of the rules, the longest first.
            let lead = |tag| Duration::from_secs([0, 50, 20][usize::from(tag)]);
            let deadline = timer.map(|timer| timer.at + lead(timer.tag));
            if deadline != fold.open {
                return Some(format!("the gate has {stream} open until {deadline:?}, the log until {:?}", fold.open));
            }
            let conversations = View::new(views::CONVERSATIONS, partition);
            let stored =
                gate.read(&conversations, &[conversation_key(stream)]).await.expect("the gate").answers.remove(0);
            if load::<Conversation>(stored.as_ref()).ok().as_ref() != Some(&fold.conversation) {
                return Some(format!("the conversation {stream} in the gate is not the one of the log"));
            }
        }
        None
    }

    /// A gate in which all windows are closed holds none.
    async fn nothing_is_left(&mut self) -> Result<(), String> {
        self.processes.iter_mut().for_each(Process::kill);
        for partition in 0..PARTITIONS {
            let view = View::new(views::WINDOWS, partition);
            let epoch = self.world.calm_gate().acquire(&view).await.expect("the gate").epoch;
            let all = Claim {
                since: Timestamp::EPOCH,
                now: Timestamp(i64::MAX / 2),
                lease: Duration::from_secs(1),
                limit: 100,
            };
            let left = self.world.calm_gate().claim_due(&view, epoch, all).await.expect("the gate");
            if !left.is_empty() {
                return Err(format!("{} timers are left of closed windows", left.len()));
            }
        }
        Ok(())
    }
}
