//! An installation in one process, and events to put into its log.

mod client;

use std::sync::Arc;
use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_domain::command::{Content, DirectoryRecord, NumberState, SendMessage, SendPurpose};
use connector_domain::consent::Intent;
use connector_domain::event::{
    ActivationNoticeRaised, CallReceived, ContactAdded, ConversationLinked, Event, IdentityPassedOn, IdentityTakenOver,
    MessageAccepted, MessageFailed, MessageReceived, MessageRejected, MessageSent, MessageStatusChanged,
    MessageUnconfirmed, OptInRequested, TimeSource, WhatsAppEnabled,
};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{AttemptId, CommandId, OrganizationId, PhoneNumber, PhoneNumberId, StreamId, WabaId};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, Transport};
use connector_domain::settings::Rules;
use connector_domain::status::DeliveryStatus;
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_embedded::{MemoryGate, MemoryStore, StoreLog};
use connector_host::server::Limits;
use connector_ports::clock::SystemClock;
use connector_ports::ids::RandomIds;
use connector_ports::log::{Append, Isolation, Polled, Record, Start, Subscription, TopicPartition};
use connector_ports::whatsapp::{BusinessProfile, Outbound, WhatsAppError};
use connector_ports::{Clock, Log, WhatsApp};
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::platform::{Platform, groups};
use connector_runtime::provision;
use connector_runtime::service::Service;
use connector_settings::{Secret, SecretSource};
use connector_telemetry::Metrics;
use conversation_api::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use client::Client;

/// The business number of every test.
pub(crate) const NUMBER: &str = "100";
/// Of every topic.
pub(crate) const PARTITIONS: u32 = 3;

/// A running API over an embedded log. It ends when it is dropped.
pub(crate) struct Installation {
    folder: TempDir,
    platform: Platform,
    address: std::net::SocketAddr,
    shutdown: DropGuard,
    running: tokio::task::JoinHandle<()>,
}

struct Phones;

#[async_trait::async_trait]
impl WhatsApp for Phones {
    fn longest_send(&self) -> Duration {
        Duration::ZERO
    }

    async fn send(&self, _: &Outbound) -> Exchange {
        Exchange { left: BytesLeft::No, answer: Answer::Transport(Transport::Connect) }
    }

    async fn templates(&self, _: &OrganizationId, _: &WabaId) -> Result<Vec<Template>, WhatsAppError> {
        Ok(Vec::new())
    }

    async fn number_state(&self, _: &PhoneNumberId) -> Result<NumberState, WhatsAppError> {
        Ok(NumberState::default())
    }

    async fn profile(&self, _: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError> {
        Ok(BusinessProfile { official: true, ..BusinessProfile::default() })
    }

    async fn set_profile(&self, _: &PhoneNumberId, _: &BusinessProfile) -> Result<(), WhatsAppError> {
        Ok(())
    }
}

impl Installation {
    /// With all its topics.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = platform(&folder);
        provision::apply(platform.log.as_ref(), &provision::specs(&platform.topics, PARTITIONS, 1)).await.unwrap();
        Self::run(folder, platform).await
    }

    /// With all its topics but that of the templates.
    pub(crate) async fn without_templates() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = platform(&folder);
        let mut specs = provision::specs(&platform.topics, PARTITIONS, 1);
        let templates = platform.topics.name(Topic::Templates).into();
        specs.retain(|spec| spec.name != templates);
        provision::apply(platform.log.as_ref(), &specs).await.unwrap();
        Self::run(folder, platform).await
    }

    /// With all its topics, in a log whose topics can be made anew.
    pub(crate) async fn in_memory() -> (Self, Arc<StoreLog<MemoryStore>>) {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(StoreLog::new(MemoryStore::new(Arc::new(SystemClock))));
        let platform = Platform { log: log.clone(), ..platform(&folder) };
        provision::apply(platform.log.as_ref(), &provision::specs(&platform.topics, PARTITIONS, 1)).await.unwrap();
        (Self::run(folder, platform).await, log)
    }

    /// With a log that has nothing in it.
    pub(crate) async fn without_topics() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = platform(&folder);
        Self::run(folder, platform).await
    }

    /// With all its topics, and so many connections at a time.
    pub(crate) async fn with_connections(connections: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = platform(&folder);
        provision::apply(platform.log.as_ref(), &provision::specs(&platform.topics, PARTITIONS, 1)).await.unwrap();
        let limits = Limits { connections, header_timeout: Duration::from_secs(600), ..Limits::default() };
        Self::run_within(limits, folder, platform).await
    }

    async fn run(folder: TempDir, platform: Platform) -> Self {
        Self::run_within(Limits::default(), folder, platform).await
    }

    async fn run_within(limits: Limits, folder: TempDir, platform: Platform) -> Self {
        let shutdown = CancellationToken::new();
        let mut service = Service::new(platform.clone(), shutdown.clone());
        let tokens = Secret::new(r#"{"token-a": "a", "token-b": "b"}"#);
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            tokens: SecretSource::Fixed(tokens),
            operators: Some(SecretSource::Fixed(Secret::new(r#"{"token-o": "operator"}"#))),
            read_model: Some(folder.path().join("model")),
            limits,
        };
        let address = conversation_api::start(config, Arc::new(Phones), &mut service).await.unwrap();
        let running = tokio::spawn(async move { service.run().await.unwrap() });
        Self { folder, platform, address, shutdown: shutdown.drop_guard(), running }
    }

    /// Ends it and starts it again on the same log and read model.
    pub(crate) async fn restart(self) -> Self {
        drop(self.shutdown);
        self.running.await.unwrap();
        Self::run(self.folder, self.platform).await
    }

    /// Ends it, which must not be an error.
    pub(crate) async fn end(self) {
        drop(self.shutdown);
        self.running.await.unwrap();
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// A client with this token.
    pub(crate) fn api(&self, token: &str) -> Client {
        Client::new(self.address, token)
    }

    /// Assigns the number to an organization.
    pub(crate) async fn assign(&self, organization: &str) {
        let number = json!({ "organization_id": organization, "waba_id": "waba" });
        let path = format!("/v1/directory/numbers/{NUMBER}");
        assert_eq!(self.api("token-o").put(&path, &number).await.0, 202);
    }

    /// The clock's time.
    pub(crate) fn now(&self) -> i64 {
        self.platform.clock.now().as_millis()
    }

    fn emitter(&self) -> Emitter {
        self.platform.emitter("test")
    }

    /// Appends events in this order.
    pub(crate) async fn publish(&self, events: Vec<(Event, Cause)>) {
        // What the tests order by.
        let events = events.into_iter().map(|(event, cause)| {
            let at = cause.occurred_at.as_millis();
            ((event, cause), at)
        });
        self.publish_recorded(events.collect()).await;
    }

    /// Appends events in this order, each with the moment when it is written down.
    pub(crate) async fn publish_recorded(&self, events: Vec<((Event, Cause), i64)>) {
        let emitter = self.emitter();
        let records = events.into_iter().map(|((event, cause), recorded_at)| {
            let mut recorded = emitter.recorded(event, &cause);
            recorded.envelope.recorded_at = Timestamp(recorded_at);
            emitter.event(&recorded).unwrap()
        });
        self.append_all(records.collect()).await;
    }

    /// Appends an event to a partition where its stream does not belong, and bytes that are no event beside it.
    pub(crate) async fn publish_elsewhere(&self, (event, cause): (Event, Cause)) {
        let append = self.emitter().emit(event, &cause).unwrap();
        let home = connector_ports::partition::partition_for(append.key.as_deref().unwrap_or_default(), PARTITIONS);
        let elsewhere = Append { partition: Some((home + 1) % PARTITIONS), ..append.clone() };
        let nonsense = Append { partition: Some(home), value: Some("nonsense".into()), ..append };
        self.append_all(vec![elsewhere, nonsense]).await;
    }

    /// Appends templates.
    pub(crate) async fn append(&self, templates: Vec<Template>) {
        let records = templates.iter().map(|template| {
            let key = Template::key(&template.waba_id, &template.name, &template.language);
            self.emitter().record(Topic::Templates, &key, template, None).unwrap()
        });
        self.append_all(records.collect()).await;
    }

    pub(crate) async fn register(&self, records: Vec<DirectoryRecord>) {
        let records = records.iter().map(|record| {
            let key = record.key().unwrap();
            self.emitter().record(Topic::Directory, &key, record, None).unwrap()
        });
        self.append_all(records.collect()).await;
    }

    async fn append_all(&self, records: Vec<Append>) {
        self.platform.log.appender().await.unwrap().append(records).await.unwrap();
    }

    /// Admission has answered everything that it was asked, and goes.
    pub(crate) async fn admission_is_at_the_end(&self) {
        let topic = self.platform.topic(Topic::SendCommands);
        let subscription = Subscription {
            group: format!("t.{}", groups::SEND_COMMANDS),
            topics: vec![topic.clone()],
            member: None,
            start: Start::Beginning,
        };
        let mut reader = self.platform.log.subscribe(subscription).await.unwrap();
        while !matches!(reader.poll(Duration::from_secs(1), 1).await.unwrap(), Polled::Assigned(_)) {}
        let all: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(topic.clone(), partition)).collect();
        let ends = self.platform.log.end_offsets(&all, Isolation::Committed).await.unwrap();
        reader.commit(&all.into_iter().zip(ends).collect::<Vec<_>>()).await.unwrap();
        reader.close().await;
    }

    /// The first `count` records of a topic.
    pub(crate) async fn records(&self, topic: Topic, count: usize) -> Vec<Record> {
        let name = self.platform.topic(topic);
        let all = (0..PARTITIONS).map(|p| (TopicPartition::new(name.clone(), p), Start::Beginning)).collect();
        let mut reader = self.platform.log.assign(all, Isolation::Committed).await.unwrap();
        let mut found = Vec::new();
        let read = async {
            while found.len() < count {
                if let Polled::Records(records) = reader.poll(Duration::from_secs(1), 100).await.unwrap() {
                    found.extend(records);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the records are there");
        reader.close().await;
        found
    }
}

fn platform(folder: &TempDir) -> Platform {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log: Arc<dyn Log> = Arc::new(connector_embedded::open(&folder.path().join("log"), clock.clone()).unwrap());
    Platform {
        log,
        gate: Arc::new(MemoryGate::new(clock.clone())),
        clock,
        ids: Arc::new(RandomIds),
        topics: Topics::new("t"),
        partitions: PARTITIONS,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

/// The id of a command that a test calls by a name.
pub(crate) fn command(name: &str) -> CommandId {
    CommandId::derived(name)
}

fn attempt(name: &str) -> AttemptId {
    AttemptId::derived(name)
}

fn at(organization: &str, stream: &str, cause: String, command: Option<&str>, at: i64) -> Cause {
    Cause {
        organization_id: organization.into(),
        stream_id: stream.into(),
        cause_id: cause,
        command_id: command.map(self::command),
        occurred_at: Timestamp(at),
        time_source: TimeSource::Connector,
        traceparent: None,
    }
}

fn ben() -> Address {
    Address { phone: PhoneNumber::parse("491701234567").ok(), bsuid: None }
}

/// Enables a user and gives them the contact Ben; the id of the conversation.
pub(crate) async fn a_contact(installation: &Installation, organization: &str, user: &str) -> String {
    let keys = StreamKeys::new("k1", b"secret");
    let stream = keys.conversation(&NUMBER.into(), &ben()).unwrap();
    let home = keys.user(&organization.into(), &user.into());
    let cause = |name: &str| at(organization, home.as_str(), name.to_owned(), None, 1);
    let added = ContactAdded {
        user_id: user.into(),
        contact_id: "ben".into(),
        conversation_id: stream.clone(),
        address: ben(),
        name: Some("Ben".into()),
    };
    let enabled = WhatsAppEnabled { user_id: user.into(), phone_number_id: NUMBER.into() };
    let raised = ActivationNoticeRaised { user_id: user.into() };
    let events = vec![(enabled.into(), cause("1")), (raised.into(), cause("2")), (added.into(), cause("3"))];
    installation.publish(events).await;
    stream.0
}

fn received(organization: &str, stream: &str, wamid: &str, text: &str, intent: Intent, when: i64) -> (Event, Cause) {
    let event = MessageReceived {
        phone_number_id: NUMBER.into(),
        wamid: wamid.into(),
        address: ben(),
        profile_name: None,
        message_type: "text".to_owned(),
        text: Some(text.into()),
        unsupported: false,
        reply_to: None,
        intent,
        answer: Intent::Other,
        window_deadline: Some(Timestamp(when + 24 * 3_600_000)),
        raw: "{}".into(),
    };
    (event.into(), at(organization, stream, wamid.to_owned(), None, when))
}

/// The contact writes.
pub(crate) fn a_message(organization: &str, stream: &str, wamid: &str, text: &str, when: i64) -> (Event, Cause) {
    received(organization, stream, wamid, text, Intent::Other, when)
}

/// The contact calls.
pub(crate) fn a_call(organization: &str, stream: &str, call_id: &str, when: i64) -> (Event, Cause) {
    let event = CallReceived {
        phone_number_id: NUMBER.into(),
        call_id: call_id.into(),
        address: ben(),
        window_deadline: Timestamp(when + 24 * 3_600_000),
    };
    (event.into(), at(organization, stream, call_id.to_owned(), None, when))
}

/// The contact writes `accept` or `stop`.
pub(crate) fn reply(organization: &str, stream: &str, wamid: &str, what: &str, when: i64) -> (Event, Cause) {
    let intent = if what == "stop" { Intent::Stop } else { Intent::Accept };
    received(organization, stream, wamid, what, intent, when)
}

/// The contact is asked for the opt-in.
pub(crate) fn asked(organization: &str, stream: &str, when: i64) -> (Event, Cause) {
    let event = OptInRequested {
        user_id: "ann".into(),
        phone_number_id: NUMBER.into(),
        expires_at: Timestamp(when + 7 * 24 * 3_600_000),
        message_id: None,
    };
    (event.into(), at(organization, stream, format!("asked {when}"), None, when))
}

/// A send command was accepted.
pub(crate) fn accepted(organization: &str, stream: &str, name: &str, text: &str, when: i64) -> (Event, Cause) {
    let event = MessageAccepted {
        user_id: "ann".into(),
        phone_number_id: NUMBER.into(),
        content: Content::text(text),
        policy: Default::default(),
        purpose: Default::default(),
        not_after: Timestamp(i64::MAX),
    };
    (event.into(), at(organization, stream, format!("accepted {name}"), Some(name), when))
}

/// A send command was accepted as admission does it.
pub(crate) fn admitted(organization: &str, stream: &str, command: &SendMessage, when: i64) -> (Event, Cause) {
    let (event, mut cause) = accepted(organization, stream, "", "hello", when);
    cause.cause_id = connector_runtime::commands::cause(command.command_id, command.digest());
    cause.command_id = Some(command.command_id);
    (event, cause)
}

/// A command was refused.
pub(crate) fn rejected(organization: &str, stream: &str, name: &str, reason: &str) -> (Event, Cause) {
    let event = MessageRejected {
        user_id: "ann".into(),
        reason: reason.to_owned(),
        field: String::new(),
        remedy: "Do something else.".to_owned(),
    };
    (event.into(), at(organization, stream, format!("rejected {name}"), Some(name), 1))
}

/// WhatsApp took a message.
pub(crate) fn sent(organization: &str, stream: &str, name: &str, wamid: &str, when: i64) -> (Event, Cause) {
    let event = MessageSent {
        phone_number_id: NUMBER.into(),
        wamid: wamid.into(),
        attempt_id: attempt(name),
        purpose: SendPurpose::Conversation,
    };
    (event.into(), at(organization, stream, format!("sent {name}"), Some(name), when))
}

/// The answer got lost.
pub(crate) fn unconfirmed(organization: &str, stream: &str, name: &str, when: i64) -> (Event, Cause) {
    let event = MessageUnconfirmed { attempt_id: attempt(name), observed: "timeout".to_owned() };
    (event.into(), at(organization, stream, format!("unconfirmed {name}"), Some(name), when))
}

/// A message will not be sent.
pub(crate) fn failed(organization: &str, stream: &str, name: &str, reason: &str, when: i64) -> (Event, Cause) {
    let event = MessageFailed { reason: reason.to_owned(), error_code: None, attempt_id: None };
    (event.into(), at(organization, stream, format!("failed {name}"), Some(name), when))
}

/// WhatsApp reports.
pub(crate) fn status(
    organization: &str,
    stream: &str,
    name: &str,
    wamid: &str,
    word: &str,
    when: i64,
) -> (Event, Cause) {
    let event = MessageStatusChanged {
        phone_number_id: NUMBER.into(),
        wamid: wamid.into(),
        status: serde_json::from_value::<DeliveryStatus>(json!(word)).unwrap(),
        attempt_id: Some(attempt(name)),
        address: ben(),
        error_code: None,
        raw: "{}".into(),
    };
    (event.into(), at(organization, stream, format!("{wamid}/{word}"), None, when))
}

/// A stream turned out to be an alias.
pub(crate) fn linked(organization: &str, stream: &str, canonical: &str, when: i64) -> (Event, Cause) {
    let event = ConversationLinked { canonical: StreamId::from(canonical) };
    (event.into(), at(organization, stream, "linked".to_owned(), None, when))
}

/// The number of the conversation names somebody else from a moment on: in its stream, and where that one's conversation begins.
pub(crate) fn passed_on(organization: &str, stream: &str, since: i64) -> (String, Vec<(Event, Cause)>) {
    let (identity, since) = (StreamId::from(stream), Timestamp(since));
    let successor = StreamKeys::new("k1", b"secret").successor(&identity, since);
    let passed = IdentityPassedOn { identity: identity.clone(), address: ben(), since, successor: successor.clone() };
    let taken = IdentityTakenOver { phone_number_id: NUMBER.into(), identity, address: ben(), since };
    let cause = |stream: &str| at(organization, stream, "passed on".to_owned(), None, since.as_millis());
    let events = vec![(passed.into(), cause(stream)), (taken.into(), cause(successor.as_str()))];
    (successor.0, events)
}

/// An approved template.
pub(crate) fn a_template(organization: &str, waba: &str) -> Template {
    Template {
        waba_id: waba.into(),
        organization_id: organization.into(),
        name: "reminder".to_owned(),
        language: "en_US".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        header_format: None,
        header: None,
        body: "Hello {{1}}, until {{2}}.".to_owned(),
        footer: None,
        buttons: Vec::new(),
        other_components: vec![],
    }
}

/// A call that fills it.
pub(crate) fn the_template() -> Value {
    json!({ "name": "reminder", "language": "en_US", "body": ["Ben", "Monday"] })
}
