//! The simulated world of the tests: one organization, one number, one user, one contact; helpers to write what others write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Contract, Topic, Topics, decode_event};
use connector_domain::command::{ConsentAction, ConsentCommand, DirectoryKind, DirectoryRecord, Recipient};
use connector_domain::consent::{ConsentState, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, MessageReceived, Recorded, TimeSource};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{CommandId, PhoneNumber, StreamId, Text};
use connector_domain::settings::Rules;
use connector_ports::gate::View;
use connector_ports::log::{Append, TopicSpec};
use connector_ports::{Clock, Gate, Ids};
use connector_runtime::emit::Cause;
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_runtime::situation::partition_of;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use opt_in_tracker::Config;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: u32 = 2;
pub(crate) const LIMIT: Duration = Duration::from_secs(900);
pub(crate) const TOPICS: [Topic; 4] =
    [Topic::ConversationEvents, Topic::ConsentCommands, Topic::Directory, Topic::SendCommands];

pub(crate) fn keys() -> StreamKeys {
    StreamKeys::new("k1", b"secret")
}

pub(crate) fn platform(world: &SimWorld) -> Platform {
    let clock: Arc<dyn Clock> = world.clock();
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock,
        ids,
        topics: Topics::new(""),
        partitions: PARTITIONS,
        keys: keys(),
        rules: Rules { opt_in_answer: Duration::from_secs(40), ..Rules::default() },
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

pub(crate) fn address() -> Address {
    Address { phone: PhoneNumber::parse("+49 170 1234567").ok(), bsuid: None }
}

pub(crate) fn conversation(world: &SimWorld) -> StreamId {
    platform(world).keys.conversation(&"number".into(), &address()).expect("an address")
}

pub(crate) fn user(world: &SimWorld) -> StreamId {
    platform(world).keys.user(&"acme".into(), &"ada".into())
}

pub(crate) async fn append(world: &SimWorld, records: Vec<Append>) {
    world.calm_log().appender().await.expect("an appender").append(records).await.expect("appended");
}

pub(crate) fn record<T: Contract>(world: &SimWorld, topic: Topic, key: &str, value: &T) -> Append {
    platform(world).emitter("test").record(topic, key, value, None).expect("a record")
}

pub(crate) fn directory(kind: DirectoryKind) -> DirectoryRecord {
    let contact = kind == DirectoryKind::Contact;
    DirectoryRecord {
        kind,
        organization_id: "acme".into(),
        phone_number_id: (!contact).then(|| "number".into()),
        waba_id: None,
        user_id: Some("ada".into()),
        enabled: !contact,
        contact_id: contact.then(|| "bob".into()),
        address: if contact { address() } else { Address::default() },
        name: None,
        settings: None,
        state: None,
    }
}

pub(crate) fn command(world: &SimWorld, id: &str, action: ConsentAction, proof: Option<&str>) -> Append {
    command_by(world, id, "ada", action, proof)
}

pub(crate) fn command_by(world: &SimWorld, id: &str, user: &str, action: ConsentAction, proof: Option<&str>) -> Append {
    let command = ConsentCommand {
        command_id: CommandId::derived(id),
        organization_id: "acme".into(),
        user_id: user.into(),
        phone_number_id: "number".into(),
        recipient: Recipient { conversation_id: None, address: address() },
        action,
        template: None,
        proof: proof.map(Text::from),
        issued_at: platform(world).clock.now(),
    };
    // A key of the publisher's own: the command has to find its home.
    record(world, Topic::ConsentCommands, id, &command)
}

/// A command for a conversation by its id.
pub(crate) fn command_in(world: &SimWorld, id: &str, stream: &StreamId, action: ConsentAction) -> Append {
    let recipient = Recipient { conversation_id: Some(stream.clone()), address: Address::default() };
    let command = ConsentCommand {
        command_id: CommandId::derived(id),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient,
        action,
        template: None,
        proof: None,
        issued_at: platform(world).clock.now(),
    };
    record(world, Topic::ConsentCommands, id, &command)
}

pub(crate) async fn write(world: &SimWorld, name: &str, intent: Intent) {
    let platform = platform(world);
    let at = platform.clock.now();
    let message = MessageReceived {
        phone_number_id: "number".into(),
        wamid: name.into(),
        address: address(),
        profile_name: None,
        message_type: "text".to_owned(),
        text: None,
        unsupported: false,
        reply_to: None,
        intent,
        answer: Intent::Other,
        window_deadline: Some(at + platform.rules.window),
        raw: "{}".into(),
    };
    let cause = Cause {
        organization_id: "acme".into(),
        stream_id: conversation(world),
        cause_id: name.to_owned(),
        command_id: None,
        occurred_at: at,
        time_source: TimeSource::Whatsapp,
        traceparent: None,
    };
    append(world, vec![platform.emitter("test").emit(message, &cause).expect("an event")]).await;
}

pub(crate) fn history(world: &SimWorld) -> Vec<Recorded> {
    let records = world.history(&Topics::new("").name(Topic::ConversationEvents).into());
    records.iter().map(|r| decode_event(r.value.as_deref().expect("a value")).expect("an event")).collect()
}

pub(crate) fn counts(world: &SimWorld) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for Recorded { envelope, .. } in history(world) {
        *counts.entry(envelope.event_type).or_default() += 1;
    }
    counts
}

pub(crate) async fn until(world: &SimWorld, what: &str, times: usize) {
    while counts(world).get(what).copied().unwrap_or(0) < times {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn view(world: &SimWorld, stream: &StreamId, key: String) -> Option<Bytes> {
    let view = View::new(views::CONVERSATIONS, partition_of(stream, PARTITIONS));
    world.calm_gate().read(&view, &[key]).await.expect("the gate").answers.remove(0)
}

pub(crate) async fn world() -> SimWorld {
    let world = SimWorld::new(7);
    for topic in TOPICS {
        for name in [Topics::new("").name(topic), Topics::new("").dlq(topic)] {
            let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
            world.calm_log().create_topic(&spec).await.expect("a topic");
        }
    }
    world
}

/// The three workers of the service.
pub(crate) async fn service(world: SimWorld) {
    let mut service = Service::new(platform(&world), CancellationToken::new());
    opt_in_tracker::start(Config { patience: Duration::from_secs(60), ..Config::default() }, &mut service);
    let _ = service.run().await;
}

/// Runs the service beside a story, without faults.
pub(crate) async fn play<S>(story: impl Fn(SimWorld) -> S) -> SimWorld
where
    S: Future<Output = ()>,
{
    let world = world().await;
    match world.run(LIMIT, service, story).await {
        Ok(_) => world,
        Err(run) => panic!("not finished: {run:?}, {:?}", counts(&world)),
    }
}

/// A business number of an organization.
pub(crate) fn number(organization: &str, id: &str) -> DirectoryRecord {
    DirectoryRecord {
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
    }
}

/// The organization has the number, the user is enabled and has the contact.
pub(crate) async fn prepared(world: &SimWorld) {
    let records = [number("acme", "number"), directory(DirectoryKind::User), directory(DirectoryKind::Contact)];
    let of = |r: &DirectoryRecord| record(world, Topic::Directory, &r.key().expect("a key"), r);
    append(world, records.iter().map(of).collect()).await;
    until(world, "ContactAdded", 1).await;
}

/// An event of another service in the conversation, as the outcome of a command.
pub(crate) async fn event(world: &SimWorld, name: &str, command: Option<CommandId>, event: impl Into<Event>) {
    event_in(world, &conversation(world), name, command, event).await;
}

/// An event of another service in a stream.
pub(crate) async fn event_in(
    world: &SimWorld,
    stream: &StreamId,
    name: &str,
    command: Option<CommandId>,
    event: impl Into<Event>,
) {
    let platform = platform(world);
    let cause = Cause {
        organization_id: "acme".into(),
        stream_id: stream.clone(),
        cause_id: name.to_owned(),
        command_id: command,
        occurred_at: platform.clock.now(),
        time_source: TimeSource::Connector,
        traceparent: None,
    };
    append(world, vec![platform.emitter("test").emit(event, &cause).expect("an event")]).await;
}

/// The consent of the conversation, folded from the log.
pub(crate) fn consent(world: &SimWorld) -> ConsentState {
    let (stream, mut fold) = (conversation(world), Conversation::default());
    for Recorded { envelope, event } in history(world).iter().filter(|recorded| recorded.envelope.stream_id == stream) {
        fold.evolve(event, envelope.event_id, envelope.occurred_at);
    }
    fold.consent
}

/// Waits until the log has this many events of a type that satisfy a condition, and gives out the last of them.
pub(crate) async fn until_some(world: &SimWorld, what: impl Fn(&Recorded) -> bool) -> Recorded {
    loop {
        if let Some(found) = history(world).into_iter().rev().find(|recorded| what(recorded)) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
