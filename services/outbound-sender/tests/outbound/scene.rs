//! An organization with one number, users with contacts, and what a checker looks at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Contract, Topic, Topics, decode_event, encode};
use connector_domain::command::{
    Content, DirectoryKind, DirectoryRecord, NumberSettings, NumberState, Recipient, SendMessage, SendPolicy,
    SendPurpose,
};
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::directory::Enablement;
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{CommandId, ContactId, PhoneNumber, PhoneNumberId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Change, View};
use connector_ports::log::{Append, Identity, LogId, Offset, TopicPartition};
use connector_ports::{Clock, Gate, Ids, Log};
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::platform::{Platform, views};
use connector_runtime::provision::specs;
use connector_runtime::service::Service;
use connector_runtime::situation::{Membership, conversation_key, enablement_key, membership_key, partition_of, store};
use connector_simulated::{BEGINNING, Plan, Run, SimWorld};
use connector_telemetry::Metrics;
use outbound_sender::Config;
use tokio_util::sync::CancellationToken;

use crate::mutations::{self, Mutation};
use crate::old_tables::Frozen;

pub(crate) const NUMBER: &str = "1055500001";
/// Of the same organization, when a scene has it.
pub(crate) const SECOND: &str = "1055500002";
pub(crate) const PARTITIONS: u32 = 2;
/// Virtual time after which a run has failed.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// Projections of this position have applied whatever a test writes.
const CAUGHT_UP: Offset = Offset(1 << 40);

pub(crate) fn keys() -> StreamKeys {
    StreamKeys::new("k1", b"secret")
}

/// The address of contact `n`.
pub(crate) fn address(n: usize) -> Address {
    Address { phone: PhoneNumber::parse(&format!("4917012340{n:02}")).ok(), bsuid: None }
}

pub(crate) fn conversation(n: usize) -> StreamId {
    keys().conversation(&NUMBER.into(), &address(n)).expect("it has a phone")
}

pub(crate) fn config() -> Config {
    Config {
        concurrency: 8,
        buffer: 4000,
        number_rate: 1000,
        number_burst: 100,
        pair_interval: Duration::from_millis(100),
        pair_burst: 20,
        configuration_pause: Duration::from_secs(30),
    }
}

/// The entries of a contact list that lead to somebody who is, or is not, in it.
pub(crate) fn theirs(is_contact: bool) -> Membership {
    is_contact.then(|| ContactId::from("entry")).into_iter().collect()
}

/// Command `name` with a text to contact `n`; the text names the command, so that a POST shows whose it is.
pub(crate) fn text(name: &str, n: usize) -> SendMessage {
    SendMessage {
        command_id: CommandId::derived(name),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: NUMBER.into(),
        recipient: Recipient { conversation_id: None, address: address(n) },
        content: Content::text(name),
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::Conversation,
        issued_at: BEGINNING,
        not_after: None,
    }
}

/// Command `name` of user `bob` with a text from the second number to its contact `n`.
pub(crate) fn text_of_second(name: &str, n: usize) -> SendMessage {
    SendMessage { user_id: "bob".into(), phone_number_id: SECOND.into(), ..text(name, n) }
}

pub(crate) fn conversation_of_second(n: usize) -> StreamId {
    keys().conversation(&SECOND.into(), &address(n)).expect("it has a phone")
}

/// A contact who accepted and wrote a moment ago.
pub(crate) fn talking() -> Conversation {
    Conversation {
        phone_number_id: Some(NUMBER.into()),
        consent: ConsentState { status: ConsentStatus::Accepted, since: Some(BEGINNING), ..ConsentState::default() },
        deadline: Some(BEGINNING + Duration::from_secs(20 * 3600)),
        last_inbound: Some(BEGINNING),
        ..Conversation::default()
    }
}

pub(crate) struct Scene {
    pub(crate) world: SimWorld,
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    /// How many workers share the partitions.
    pub(crate) instances: usize,
    /// What is broken on purpose.
    pub(crate) mutation: Option<Mutation>,
    pub(crate) metrics: Arc<Metrics>,
    /// What projections have applied.
    pub(crate) applied: Offset,
    /// Whether the tables bring nothing, where that changes.
    pub(crate) frozen: Option<Arc<AtomicBool>>,
}

impl Scene {
    /// Contacts 0 to 9 of user `ada` have accepted and wrote a moment ago.
    pub(crate) async fn new(seed: u64) -> Self {
        Self::applied(seed, CAUGHT_UP).await
    }

    /// The same with projections that stand at this position.
    pub(crate) async fn applied(seed: u64, applied: Offset) -> Self {
        let world = SimWorld::new(seed);
        for spec in specs(&Topics::new(""), PARTITIONS, 1) {
            world.calm_log().create_topic(&spec).await.expect("a topic");
        }
        let scene = Self { applied, ..Self::of(world) };
        let user = keys().user(&"acme".into(), &"ada".into());
        let enablement = Enablement { enabled: true, phone_number_id: Some(NUMBER.into()), ..Enablement::default() };
        for partition in 0..PARTITIONS {
            scene.put(partition, "seen".to_owned(), Bytes::from_static(b"1"), applied).await;
        }
        scene.project(&user, enablement_key(&user), &enablement).await;
        for n in 0..10 {
            scene.converse(n, &talking()).await;
            scene.project(&user, membership_key(&user, &conversation(n)), &theirs(true)).await;
        }
        scene.number("acme", NUMBER).await;
        scene
    }

    pub(crate) async fn number(&self, organization: &str, id: &str) {
        let number = DirectoryRecord {
            kind: DirectoryKind::Number,
            organization_id: organization.into(),
            phone_number_id: Some(id.into()),
            waba_id: Some("waba".into()),
            user_id: None,
            enabled: false,
            contact_id: None,
            address: Address::default(),
            name: None,
            settings: None,
            state: None,
        };
        let key = number.key().expect("a number has a key");
        self.write(Topic::Directory, &key, &number).await;
    }

    /// What is set for a number and for its organization, and what WhatsApp reports about it.
    pub(crate) async fn set(
        &self,
        id: &str,
        number: NumberSettings,
        organization: NumberSettings,
        state: Option<NumberState>,
    ) {
        let record = |kind, settings, state| DirectoryRecord {
            kind,
            organization_id: "acme".into(),
            phone_number_id: Some(id.into()),
            waba_id: Some("waba".into()),
            user_id: None,
            enabled: false,
            contact_id: None,
            address: Address::default(),
            name: None,
            settings,
            state,
        };
        for record in [
            record(DirectoryKind::Number, Some(number), None),
            record(DirectoryKind::Organization, Some(organization), None),
            record(DirectoryKind::NumberState, None, state),
        ] {
            let key = record.key().expect("it has a key");
            self.write(Topic::Directory, &key, &record).await;
        }
    }

    /// The second number with user `bob`, whose contacts 0 to `contacts` have accepted and wrote a moment ago.
    pub(crate) async fn second(&self, contacts: usize) {
        self.second_of("acme", contacts).await;
    }

    /// The same of another organization.
    pub(crate) async fn second_of(&self, organization: &str, contacts: usize) {
        self.number(organization, SECOND).await;
        let user = keys().user(&organization.into(), &"bob".into());
        let enablement = Enablement { enabled: true, phone_number_id: Some(SECOND.into()), ..Enablement::default() };
        self.project(&user, enablement_key(&user), &enablement).await;
        for n in 0..contacts {
            let stream = conversation_of_second(n);
            let state = Conversation { phone_number_id: Some(SECOND.into()), ..talking() };
            self.project(&stream, conversation_key(&stream), &state).await;
            self.project(&user, membership_key(&user, &stream), &theirs(true)).await;
        }
    }

    /// The value of a gauge of the dispatcher.
    pub(crate) fn gauge(&self, name: &str) -> usize {
        let line = format!("connector_{name}{{group=\"outbound-sender.dispatch\"}} ");
        let text = self.metrics.encode();
        let value = text.lines().find_map(|found| found.strip_prefix(&line)).and_then(|value| value.parse().ok());
        value.unwrap_or(0)
    }

    /// The scene of a world that was set up before, for what happens while the service runs.
    pub(crate) fn of(world: SimWorld) -> Self {
        let metrics = Arc::new(Metrics::new("0", "test"));
        Self {
            world,
            config: config(),
            rules: Rules::default(),
            instances: 1,
            mutation: None,
            metrics,
            applied: CAUGHT_UP,
            frozen: None,
        }
    }

    pub(crate) fn plan(mut self, plan: Plan) -> Self {
        self.world = self.world.with(plan);
        self
    }

    /// Puts a value into the `conversations` view of a partition, in place of the tracker.
    pub(crate) async fn put(&self, partition: u32, key: String, value: Bytes, next: Offset) {
        let (gate, view) = (self.world.calm_gate(), View::new(views::CONVERSATIONS, partition));
        let owner = gate.acquire(&view).await.expect("the gate is calm");
        let log = self.log_of(partition).await;
        let change = vec![Change::Put { key, value }, Change::Projects { log }];
        gate.apply(&view, owner.epoch, owner.applied, next, change).await.expect("nobody else owns it");
    }

    /// The name of a partition of the log.
    async fn log_of(&self, partition: u32) -> LogId {
        let source = TopicPartition::new(Topic::ConversationEvents.name(""), partition);
        match self.world.calm_log().identity(&source).await.expect("the log is calm") {
            Identity::Known(log) => log,
            unknown => panic!("{unknown:?}"),
        }
    }

    /// What the projection knows about the user's right to write, and whether contact `n` is theirs.
    pub(crate) async fn user(&self, enabled: bool, number: &str, n: usize, is_contact: bool) {
        let user = keys().user(&"acme".into(), &"ada".into());
        let enablement = Enablement { enabled, phone_number_id: Some(number.into()), ..Enablement::default() };
        self.project(&user, enablement_key(&user), &enablement).await;
        self.project(&user, membership_key(&user, &conversation(n)), &theirs(is_contact)).await;
    }

    pub(crate) async fn project<T: serde::Serialize>(&self, stream: &StreamId, key: String, value: &T) {
        let value = store(value).expect("a fold");
        self.put(partition_of(stream, PARTITIONS), key, value, self.applied).await;
    }

    /// What the projection knows about the conversation with contact `n`.
    pub(crate) async fn converse(&self, n: usize, state: &Conversation) {
        let stream = conversation(n);
        self.project(&stream, conversation_key(&stream), state).await;
    }

    /// A status has settled an attempt, as the tracker marks it.
    pub(crate) async fn settle(&self, n: usize, attempt: connector_domain::ids::AttemptId) {
        let view = View::new(views::CONVERSATIONS, partition_of(&conversation(n), PARTITIONS));
        let gate = self.world.calm_gate();
        let owner = gate.acquire(&view).await.expect("the gate is calm");
        let until = Timestamp(i64::MAX);
        let mark = Change::Mark { id: Bytes::copy_from_slice(attempt.0.as_bytes()), digest: 0, until };
        let projects = Change::Projects { log: self.log_of(view.partition).await };
        gate.apply(&view, owner.epoch, owner.applied, CAUGHT_UP, vec![mark, projects])
            .await
            .expect("nobody else owns it");
    }

    /// Something is told in a stream of the log.
    pub(crate) async fn tell(&self, stream: &StreamId, event: impl Into<Event>) {
        let emitter = Emitter::new(Topics::new(""), "test", self.world.clock());
        let cause = Cause {
            organization_id: "acme".into(),
            stream_id: stream.clone(),
            cause_id: format!("test {}", self.world.clock().now().0),
            command_id: None,
            occurred_at: self.world.clock().now(),
            time_source: TimeSource::Whatsapp,
            traceparent: None,
        };
        let append = emitter.emit(event, &cause).expect("it fits its schema");
        let appender = self.world.calm_log().appender().await.expect("the log is calm");
        appender.append(vec![append]).await.expect("the log is calm");
    }

    pub(crate) async fn write<T: Contract>(&self, topic: Topic, key: &str, value: &T) {
        self.write_raw(topic, key, encode(value).expect("it fits its schema")).await;
    }

    pub(crate) async fn write_raw(&self, topic: Topic, key: &str, value: Vec<u8>) {
        let record = Append {
            topic: topic.name("").into(),
            partition: None,
            key: Some(Bytes::from(key.to_owned())),
            value: Some(value.into()),
            headers: vec![],
        };
        let appender = self.world.calm_log().appender().await.expect("the log is calm");
        appender.append(vec![record]).await.expect("the log is calm");
    }

    /// Publishes commands under one key of the publisher's.
    pub(crate) async fn publish(&self, commands: &[SendMessage]) {
        for command in commands {
            self.write(Topic::SendCommands, "publisher", command).await;
        }
    }

    pub(crate) fn platform(&self, world: &SimWorld, instance: String) -> Platform {
        let clock: Arc<dyn Clock> = world.clock();
        let ids: Arc<dyn Ids> = world.ids();
        let log: Arc<dyn Log> = match &self.frozen {
            Some(frozen) => Arc::new(Frozen { log: world.log(), frozen: frozen.clone() }),
            None => world.log(),
        };
        let unfenced = self.mutation == Some(Mutation::NoFencing) && instance == "worker-0";
        Platform {
            log: if unfenced { mutations::unfenced(log) } else { log },
            gate: world.gate(),
            clock,
            ids,
            topics: Topics::new(""),
            partitions: PARTITIONS,
            keys: keys(),
            rules: self.rules.clone(),
            instance,
            metrics: self.metrics.clone(),
        }
    }

    /// Runs the service, again after each crash, until `done` returns.
    pub(crate) async fn run<D: Future<Output = ()>>(&self, done: impl FnOnce(SimWorld) -> D) -> Run {
        self.try_run(done).await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same. A run that does not come to its end is an error, and one whose service gives up as well.
    pub(crate) async fn try_run<D: Future<Output = ()>>(
        &self,
        done: impl FnOnce(SimWorld) -> D,
    ) -> Result<Run, String> {
        let service = |world: SimWorld| async move {
            // Dropped at a crash, which ends the workers with it.
            let mut workers = tokio::task::JoinSet::new();
            for instance in 0..self.instances {
                let platform = self.platform(&world, format!("worker-{instance}"));
                let mut service = Service::new(platform, CancellationToken::new());
                mutations::start(self.mutation, self.config.clone(), world.whatsapp(), &mut service);
                workers.spawn(service.run());
            }
            if let Some(end) = workers.join_next().await {
                // Who was broken on purpose may end, and is started again.
                assert!(self.mutation.is_some(), "a service gave up: {end:?}");
            }
        };
        let run = self.world.run(LIMIT, service, done).await;
        run.map_err(|run| format!("not done after {LIMIT:?}: {run:?}, events {:?}", types(&events(&self.world))))
    }

    /// WhatsApp's statuses, of those messages that `of` chooses: late, in the wrong order, and twice. Never ends.
    pub(crate) async fn statuses(&self, conversation_of: impl Fn(&str) -> Option<usize>, of: impl Fn(usize) -> bool) {
        let mut told = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let posts = self.world.whatsapp_side().posts();
            let news = posts.iter().enumerate().skip(told).filter(|(at, post)| post.accepted && of(*at));
            let news: Vec<_> = news.map(|(_, post)| post.outbound.clone()).collect();
            told = posts.len();
            for outbound in news.iter().rev().chain(&news) {
                let text = outbound.content.text.as_ref().map(|text| text.expose()).unwrap_or_default();
                if let Some(n) = conversation_of(text) {
                    self.settle(n, outbound.attempt_id).await;
                }
            }
        }
    }

    /// Runs until every command has an end (or was rejected).
    pub(crate) async fn run_to_the_end(&self, commands: &[SendMessage]) -> Run {
        self.run(async |world| ended(&world, commands).await).await
    }

    pub(crate) fn events(&self) -> Vec<Recorded> {
        events(&self.world)
    }

    /// The types of a command's events, in order.
    pub(crate) fn story(&self, command: &SendMessage) -> Vec<String> {
        types(&of(&self.events(), command.command_id))
    }

    /// The text of every POST that arrived, in order, with its moment.
    pub(crate) fn posts(&self) -> Vec<(String, Timestamp)> {
        let text = |post: &connector_simulated::Post| {
            post.outbound.content.text.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default()
        };
        self.world.whatsapp_side().posts().iter().map(|post| (text(post), post.at)).collect()
    }

    /// How often each command was accepted by WhatsApp.
    pub(crate) fn accepted_posts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for post in self.world.whatsapp_side().posts().iter().filter(|post| post.accepted) {
            let text = post.outbound.content.text.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default();
            *counts.entry(text).or_default() += 1;
        }
        counts
    }
}

/// Waits until each of these commands has an end in the log, then a moment more for whatever should not come.
pub(crate) async fn ended(world: &SimWorld, commands: &[SendMessage]) {
    let over = |event: &Event| {
        matches!(
            event,
            Event::MessageRejected(_) | Event::MessageSent(_) | Event::MessageFailed(_) | Event::MessageUnconfirmed(_)
        )
    };
    loop {
        let events = events(world);
        if commands.iter().all(|command| of(&events, command.command_id).iter().any(|r| over(&r.event))) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Waits until the log has an event that `wanted` wants.
pub(crate) async fn appears(world: &SimWorld, wanted: impl Fn(&Recorded) -> bool) {
    while !events(world).iter().any(&wanted) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn events(world: &SimWorld) -> Vec<Recorded> {
    let history = world.history(&Topic::ConversationEvents.name("").into());
    let event = |value: &Bytes| decode_event(value).expect("an event");
    history.iter().filter_map(|record| record.value.as_ref().map(event)).collect()
}

pub(crate) fn of(events: &[Recorded], command: CommandId) -> Vec<Recorded> {
    events.iter().filter(|recorded| recorded.envelope.command_id == Some(command)).cloned().collect()
}

pub(crate) fn types(events: &[Recorded]) -> Vec<String> {
    events.iter().map(|recorded| recorded.envelope.event_type.clone()).collect()
}

/// The reason of the only refusal among these events, with its field.
pub(crate) fn refusal(events: &[Recorded]) -> (String, String) {
    let refusals: Vec<_> = (events.iter())
        .filter_map(|recorded| match &recorded.event {
            Event::MessageRejected(rejected) => Some((rejected.reason.clone(), rejected.field.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(refusals.len(), 1, "{:?}", types(events));
    refusals.into_iter().next().unwrap_or_default()
}

pub(crate) fn number() -> PhoneNumberId {
    NUMBER.into()
}
