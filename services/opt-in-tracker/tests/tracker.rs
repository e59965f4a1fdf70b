//! Consent and directory in the simulated world: whatever goes wrong at whatever call, each command has one answer, each fact is
//! announced once, and the views are the fold of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Contract, Topic, Topics, decode_event};
use connector_domain::command::{ConsentAction, ConsentCommand, DirectoryKind, DirectoryRecord, Recipient};
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::directory::Enablement;
use connector_domain::event::{Event, MessageReceived, Recorded, TimeSource};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{CommandId, PhoneNumber, StreamId, Text};
use connector_domain::settings::Rules;
use connector_ports::gate::View;
use connector_ports::log::{Append, TopicSpec};
use connector_ports::{Clock, Gate, Ids};
use connector_runtime::emit::Cause;
use connector_runtime::handler::{Handler, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_runtime::situation::{conversation_key, enablement_key, load, membership_key, partition_of};
use connector_simulated::{Fault, Noise, Plan, Run, SimWorld, When};
use connector_telemetry::Metrics;
use opt_in_tracker::{Config, Projector};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 2;
const LIMIT: Duration = Duration::from_secs(900);
const TOPICS: [Topic; 4] = [Topic::ConversationEvents, Topic::ConsentCommands, Topic::Directory, Topic::SendCommands];

fn platform(world: &SimWorld) -> Platform {
    let clock: Arc<dyn Clock> = world.clock();
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock,
        ids,
        topics: Topics::new(""),
        partitions: PARTITIONS,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules { opt_in_answer: Duration::from_secs(40), ..Rules::default() },
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

fn address() -> Address {
    Address { phone: PhoneNumber::parse("+49 170 1234567").ok(), bsuid: None }
}

fn conversation(world: &SimWorld) -> StreamId {
    platform(world).keys.conversation(&"number".into(), &address()).expect("an address")
}

fn user(world: &SimWorld) -> StreamId {
    platform(world).keys.user(&"acme".into(), &"ada".into())
}

async fn append(world: &SimWorld, records: Vec<Append>) {
    world.calm_log().appender().await.expect("an appender").append(records).await.expect("appended");
}

fn record<T: Contract>(world: &SimWorld, topic: Topic, key: &str, value: &T) -> Append {
    platform(world).emitter("test").record(topic, key, value, None).expect("a record")
}

fn directory(kind: DirectoryKind) -> DirectoryRecord {
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
    }
}

fn command(world: &SimWorld, id: &str, action: ConsentAction, proof: Option<&str>) -> Append {
    let command = ConsentCommand {
        command_id: CommandId::derived(id),
        organization_id: "acme".into(),
        user_id: "ada".into(),
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

async fn write(world: &SimWorld, name: &str, intent: Intent) {
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

fn history(world: &SimWorld) -> Vec<Recorded> {
    let records = world.history(&Topics::new("").name(Topic::ConversationEvents).into());
    records.iter().map(|r| decode_event(r.value.as_deref().expect("a value")).expect("an event")).collect()
}

fn counts(world: &SimWorld) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for Recorded { envelope, .. } in history(world) {
        *counts.entry(envelope.event_type).or_default() += 1;
    }
    counts
}

async fn until(world: &SimWorld, what: &str, times: usize) {
    while counts(world).get(what).copied().unwrap_or(0) < times {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn view(world: &SimWorld, stream: &StreamId, key: String) -> Option<Bytes> {
    let view = View::new(views::CONVERSATIONS, partition_of(stream, PARTITIONS));
    world.calm_gate().read(&view, &[key]).await.expect("the gate").answers.remove(0)
}

/// Whether the views are the fold of the log.
async fn settled(world: &SimWorld) -> bool {
    let (conversation, user) = (conversation(world), user(world));
    let (mut fold, mut enablement) = (Conversation::default(), Enablement::default());
    for Recorded { envelope, event } in history(world) {
        if envelope.stream_id == conversation {
            fold.evolve(&event, envelope.event_id, envelope.occurred_at);
        } else {
            enablement.evolve(&event);
        }
    }
    let stored = [
        view(world, &conversation, conversation_key(&conversation)).await,
        view(world, &user, enablement_key(&user)).await,
        view(world, &user, membership_key(&user, &conversation)).await,
    ];
    load::<Conversation>(stored[0].as_ref()).expect("ours") == fold
        && load::<Enablement>(stored[1].as_ref()).expect("ours") == enablement
        && load::<u32>(stored[2].as_ref()).expect("ours") == 1
}

async fn story(world: SimWorld) {
    use ConsentAction::{AcknowledgeNotice, Import, RequestOptIn};
    let records = [directory(DirectoryKind::Contact), directory(DirectoryKind::User)];
    let of = |r: &DirectoryRecord| record(&world, Topic::Directory, &r.key().expect("a key"), r);
    append(&world, records.iter().map(of).collect()).await;
    until(&world, "ContactAdded", 1).await;
    until(&world, "ActivationNoticeRaised", 1).await;

    let first = vec![
        command(&world, "notice", AcknowledgeNotice, None),
        command(&world, "notice again", AcknowledgeNotice, None),
        command(&world, "ask", RequestOptIn, None),
        command(&world, "ask", RequestOptIn, None),
        command(&world, "ask", Import, Some("another content under the same id")),
        command(&world, "ask", Import, Some("another content under the same id")),
        command(&world, "ask twice", RequestOptIn, None),
    ];
    append(&world, first).await;
    until(&world, "ActivationNoticeAcknowledged", 1).await;
    until(&world, "MessageRejected", 2).await;
    until(&world, "OptInExpired", 1).await;

    append(&world, vec![command(&world, "ask later", RequestOptIn, None)]).await;
    until(&world, "OptInRequested", 2).await;
    write(&world, "yes", Intent::Accept).await;
    write(&world, "stop", Intent::Stop).await;
    until(&world, "OptedOut", 1).await;
    // Longer than the memory of a broken run could hide something.
    tokio::time::sleep(Duration::from_secs(10)).await;
    while !settled(&world).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn world() -> SimWorld {
    let world = SimWorld::new(7);
    for topic in TOPICS {
        for name in [Topics::new("").name(topic), Topics::new("").dlq(topic)] {
            let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
            world.calm_log().create_topic(&spec).await.expect("a topic");
        }
    }
    world
}

async fn run(plan: Plan) -> (SimWorld, Run) {
    let world = world().await.with(plan.clone());
    let service = |world: SimWorld| async move {
        let mut service = Service::new(platform(&world), CancellationToken::new());
        opt_in_tracker::start(Config { patience: Duration::from_secs(60), ..Config::default() }, &mut service);
        let _ = service.run().await;
    };
    match world.run(LIMIT, service, story).await {
        Ok(run) => (world, run),
        Err(run) => panic!("not finished under {plan:?}: {run:?}, {:?}", counts(&world)),
    }
}

fn check(world: &SimWorld, plan: &Plan) {
    let expected = [
        ("ActivationNoticeAcknowledged", 1),
        ("ActivationNoticeRaised", 1),
        ("ContactAdded", 1),
        ("MessageReceived", 2),
        ("MessageRejected", 2),
        ("OptInAccepted", 1),
        ("OptInExpired", 1),
        ("OptInRequested", 2),
        ("OptedOut", 1),
        ("WhatsAppEnabled", 1),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, times)| (name.to_owned(), times)).into_iter().collect();
    assert_eq!(counts(world), expected, "{plan:?}");
    assert_eq!(world.history(&Topics::new("").name(Topic::SendCommands).into()).len(), 2, "opt-in messages, {plan:?}");
    for topic in TOPICS {
        assert!(world.history(&Topics::new("").dlq(topic).into()).is_empty(), "a dead letter, {plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_is_answered_once_and_every_answer_of_the_contact_is_announced_once() {
    let (world, _) = run(Plan::default()).await;
    check(&world, &Plan::default());
    let rejected = history(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MessageRejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    // Commands under different keys come in any order.
    assert_eq!(rejected.collect::<BTreeSet<_>>(), BTreeSet::from(["conflict", "opt_in_not_needed"].map(str::to_owned)));
    let stored = view(&world, &conversation(&world), conversation_key(&conversation(&world))).await;
    let fold: Conversation = load(stored.as_ref()).expect("ours");
    assert_eq!(fold.consent.status, ConsentStatus::OptedOut);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_in_the_view_before_its_announcement_is_read_back() {
    let world = world().await;
    let platform = platform(&world);
    let stream = conversation(&world);
    write(&world, "stop", Intent::Stop).await;
    let record = world.history(&platform.topic(Topic::ConversationEvents)).remove(0);
    let (source, next) = (record.source.clone(), record.offset.next());
    let mut projector = Projector::new(&platform, Duration::from_secs(1));
    assert_eq!(projector.assigned(&source, None).await.expect("assigned"), TakeUp::Beginning);
    let steps = projector.handle(&[Work { record, replay: false, round: 0 }]).await.expect("handled");
    assert!(matches!(&steps[..], [Step::Done(appends)] if appends.len() == 1), "one announcement");
    assert_eq!(view(&world, &stream, conversation_key(&stream)).await, None, "nothing stands before the commit");
    projector.committed(&[], &[(source, next)]).await.expect("committed");
    let stored = view(&world, &stream, conversation_key(&stream)).await;
    let fold: Conversation = load(stored.as_ref()).expect("ours");
    assert_eq!(fold.consent.status, ConsentStatus::OptedOut);
}

#[tokio::test(start_paused = true)]
async fn whatever_call_the_process_dies_at_everything_is_said_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        let when = if point % 2 == 0 { When::Before } else { When::After };
        let plan = Plan::one(point, Fault::Crash(when));
        check(&run(plan.clone()).await.0, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_or_meets_a_wiped_gate_everything_is_said_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        let faults = [
            Fault::Fail(When::Before),
            Fault::WipeGate,
            Fault::Fail(When::After),
            Fault::Rebalance,
            Fault::RollBackGate { to: point / 2 },
        ];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        check(&run(plan.clone()).await.0, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn a_noisy_world_heals() {
    let noise = Noise { crash_before: 1, crash_after: 1, fail_before: 5, fail_after: 5, rebalance: 2, wipe_gate: 2 };
    let plan = Plan::noisy(noise);
    check(&run(plan.clone()).await.0, &plan);
}
