//! The scene of the tests: topics, a number of an organization, deliveries, and what came of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Topic, Topics, decode_event, encode};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::StreamId;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::Gate as _;
use connector_ports::gate::{Change, View};
use connector_ports::log::{Append, Identity, Offset, Record, TopicPartition, TopicSpec};
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_runtime::situation::{conversation_key, partition_of, store};
use connector_simulated::{Run, SimWorld};
use connector_telemetry::Metrics;
use connector_testkit::wait;
use connector_whatsapp::webhook::{Split, split};
use inbound_processor::{Config, SERVICE};
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: u32 = 3;
pub(crate) const NUMBER: &str = "200000000000001";
pub(crate) const ACCOUNT: &str = "100000000000001";

pub(crate) fn keys() -> StreamKeys {
    StreamKeys::new("t", b"a secret of the tests")
}

pub(crate) fn topic(topic: Topic) -> String {
    Topics::default().name(topic)
}

pub(crate) fn platform(world: &SimWorld, instance: &str) -> Platform {
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock: world.clock(),
        ids: world.ids(),
        topics: Topics::default(),
        partitions: PARTITIONS,
        keys: keys(),
        rules: Rules::default(),
        instance: instance.to_owned(),
        metrics: Arc::new(Metrics::new("test", "test")),
    }
}

/// A world with topics and one number.
pub(crate) async fn scene(world: SimWorld) -> SimWorld {
    let log = world.calm_log();
    for name in Topic::ALL.into_iter().flat_map(|t| [topic(t), Topics::default().dlq(t)]) {
        let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: Vec::new() };
        log.create_topic(&spec).await.unwrap();
    }
    number(&world, NUMBER, ACCOUNT).await;
    world
}

pub(crate) async fn number(world: &SimWorld, number: &str, account: &str) {
    number_of(world, "acme", number, account).await;
}

pub(crate) async fn number_of(world: &SimWorld, organization: &str, number: &str, account: &str) {
    let record = DirectoryRecord {
        kind: DirectoryKind::Number,
        organization_id: organization.into(),
        phone_number_id: Some(number.into()),
        waba_id: Some(account.into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    };
    let key = record.key().unwrap();
    put(world, Topic::Directory, key, encode(&record).unwrap().into()).await;
}

pub(crate) async fn put(world: &SimWorld, to: Topic, key: String, value: Bytes) {
    let topic = topic(to).into();
    let record = Append { topic, partition: None, key: Some(key.into()), value: Some(value), headers: Vec::new() };
    world.calm_log().appender().await.unwrap().append(vec![record]).await.unwrap();
}

/// What the tracker would have folded so far.
pub(crate) async fn known(world: &SimWorld, stream: &StreamId, conversation: &Conversation) {
    let view = View::new(views::CONVERSATIONS, partition_of(stream, PARTITIONS));
    let gate = world.calm_gate();
    let ownership = gate.acquire(&view).await.unwrap();
    let change = Change::Put { key: conversation_key(stream), value: store(conversation).unwrap() };
    let source = TopicPartition::new(topic(Topic::ConversationEvents), view.partition);
    let Identity::Known(log) = world.calm_log().identity(&source).await.unwrap() else { panic!("it has a name") };
    let changes = vec![change, Change::Projects { log }];
    gate.apply(&view, ownership.epoch, ownership.applied, Offset(1), changes).await.unwrap();
}

pub(crate) fn items(delivery: &[u8]) -> Vec<Split> {
    split(delivery, Timestamp::from_secs(1_790_000_005), "delivery").unwrap()
}

/// Delivers items as the receiver writes them.
pub(crate) async fn deliver(world: &SimWorld, items: &[Split]) {
    for split in items {
        put(world, Topic::Webhooks, split.key(&keys()), encode(&split.item).unwrap().into()).await;
    }
}

/// A delivery of one message (or status) of the number.
pub(crate) fn delivery(list: &str, item: &str) -> Vec<Split> {
    items(
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"field":"messages","value":{{
            "messaging_product":"whatsapp","metadata":{{"phone_number_id":"{NUMBER}"}},"{list}":[{item}]}}}}]}}]}}"#
        )
        .as_bytes(),
    )
}

pub(crate) fn text(id: &str, who: &str) -> Vec<Split> {
    delivery(
        "messages",
        &format!(r#"{{{who},"id":"wamid.{id}","timestamp":"1790000000","type":"text","text":{{"body":"hello"}}}}"#),
    )
}

/// Runs the processor until every webhook record is committed.
pub(crate) async fn process(world: &SimWorld) -> Result<Run, Run> {
    process_with(world, Config::default()).await
}

pub(crate) async fn process_with(world: &SimWorld, config: Config) -> Result<Run, Run> {
    process_with_many(world, &config, &["one"]).await
}

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The same with several processors, which share the partitions.
pub(crate) async fn process_with_many(world: &SimWorld, config: &Config, instances: &[&str]) -> Result<Run, Run> {
    world
        .run(
            LIMIT,
            |world| async move {
                let run = instances.iter().map(|instance| {
                    let mut service = Service::new(platform(&world, instance), CancellationToken::new());
                    inbound_processor::start(config.clone(), &mut service);
                    service.run()
                });
                futures::future::join_all(run).await;
            },
            |world| async move {
                let finished = async || finished(&world).await.then_some(());
                wait::until("every item to be committed", LIMIT, finished).await;
            },
        )
        .await
}

async fn finished(world: &SimWorld) -> bool {
    let name = topic(Topic::Webhooks);
    let all: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new(name.as_str(), p)).collect();
    let committed = world.calm_log().committed(SERVICE, &all).await.unwrap();
    let done = |record: &Record| committed[record.source.partition as usize].is_some_and(|next| record.offset < next);
    world.history(&name.into()).iter().all(done)
}

pub(crate) fn log(world: &SimWorld) -> Vec<Recorded> {
    let records = world.history(&topic(Topic::ConversationEvents).into());
    records.iter().map(|record| decode_event(record.value.as_deref().unwrap()).unwrap()).collect()
}

pub(crate) fn dead_letters(world: &SimWorld) -> Vec<Record> {
    world.history(&Topics::default().dlq(Topic::Webhooks).into())
}

/// The events that stand for items: not the ones about identities.
pub(crate) fn of_items(log: &[Recorded]) -> Vec<&Recorded> {
    let about_identity = |e: &&Recorded| {
        matches!(
            e.event,
            Event::IdentityLearned(_)
                | Event::ConversationLinked(_)
                | Event::IdentityPassedOn(_)
                | Event::IdentityTakenOver(_)
        )
    };
    log.iter().filter(|event| !about_identity(event)).collect()
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
