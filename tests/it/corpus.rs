//! Everything that is known to arrive, through the receiver and the processor themselves: what was answered with 200 stands in the log
//! once, item by item, or among the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::{Topic, Topics, decode, decode_event, encode};
use connector_domain::command::{DirectoryKind, DirectoryRecord, WebhookItem};
use connector_domain::event::Event;
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, TopicPartition, TopicSpec};
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_settings::load;
use connector_simulated::SimWorld;
use connector_tests::root;
use connector_whatsapp::signature::sign;
use connector_whatsapp::webhook::split;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "app secret";
const PARTITIONS: u32 = 3;
/// As often as WhatsApp may deliver the same.
const TIMES: usize = 2;

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The collected samples, where they are at hand.
fn collected() -> Vec<PathBuf> {
    files(&std::env::var_os("WHATSAPP_PAYLOADS").map_or(root().join("../shared/payloads"), PathBuf::from))
}

/// The repository's own samples, and the collected ones.
fn corpus() -> Vec<Vec<u8>> {
    let mut all = [files(&root().join("crates/whatsapp/tests/fixtures/webhooks")), collected()].concat();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    all.sort();
    all.iter().map(|path| std::fs::read(path).expect("a sample")).collect()
}

pub(crate) fn platform(world: &SimWorld, instance: &str) -> Platform {
    Platform {
        log: world.calm_log(),
        gate: world.gate(),
        clock: world.clock(),
        ids: world.ids(),
        topics: Topics::default(),
        partitions: PARTITIONS,
        keys: StreamKeys::new("t", b"a secret of the tests"),
        rules: Rules::default(),
        instance: instance.to_owned(),
        metrics: Arc::new(connector_telemetry::Metrics::new("test", "test")),
    }
}

pub(crate) async fn topics(world: &SimWorld) {
    let topics = Topics::default();
    for name in Topic::ALL.into_iter().flat_map(|topic| [topics.name(topic), topics.dlq(topic)]) {
        let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
}

/// Every number and account of the samples belongs to somebody.
async fn register_all(world: &SimWorld, bodies: &[Vec<u8>]) {
    let (log, topics) = (world.calm_log(), Topics::default());
    let items = bodies.iter().filter_map(|body| split(body, Timestamp(1), "d").ok()).flatten();
    let owners: BTreeSet<_> = items
        .map(|split| {
            let number = split.item.phone_number_id.map_or("no-number".to_owned(), |number| number.0);
            (number, split.item.waba_id.0)
        })
        .collect();
    let mut records = Vec::new();
    for (number, account) in owners {
        let record = DirectoryRecord {
            kind: DirectoryKind::Number,
            organization_id: "acme".into(),
            phone_number_id: Some(number.as_str().into()),
            waba_id: Some(account.as_str().into()),
            user_id: None,
            enabled: false,
            contact_id: None,
            address: Address::default(),
            name: None,
            settings: None,
            state: None,
        };
        records.push(Append {
            topic: topics.name(Topic::Directory).into(),
            partition: None,
            key: record.key().map(Into::into),
            value: Some(encode(&record).expect("a record").into()),
            headers: Vec::new(),
        });
    }
    log.appender().await.expect("an appender").append(records).await.expect("the directory");
}

async fn processed(world: &SimWorld) {
    let name: connector_ports::log::TopicName = Topics::default().name(Topic::Webhooks).into();
    let all: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition { topic: name.clone(), partition: p }).collect();
    let everything = async {
        loop {
            let committed = world.calm_log().committed(inbound_processor::SERVICE, &all).await.expect("positions");
            let history = world.history(&name);
            let done = |r: &connector_ports::log::Record| {
                committed[r.source.partition as usize].is_some_and(|next| r.offset < next)
            };
            if history.iter().all(done) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), everything).await.expect("the processor reads everything");
}

#[tokio::test]
async fn the_whole_corpus_through_two_receivers_ends_once_in_the_log_or_the_dead_letters() {
    let bodies = corpus();
    let world = SimWorld::new(1);
    topics(&world).await;
    register_all(&world, &bodies).await;
    let shutdown = CancellationToken::new();
    let settings = [("WEBHOOK_LISTEN", "127.0.0.1:0"), ("WHATSAPP_APP_SECRET", SECRET)];
    let settings: std::collections::HashMap<String, String> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut receivers = Vec::new();
    for instance in ["one", "two"] {
        let config = load(&settings, webhook_receiver::Config::from).expect("settings");
        let mut service = Service::new(platform(&world, instance), shutdown.clone());
        receivers.push(webhook_receiver::start(config, &mut service).await.expect("a receiver"));
        tokio::spawn(service.run());
    }
    let mut service = Service::new(platform(&world, "one"), shutdown.clone());
    inbound_processor::start(inbound_processor::Config::default(), &mut service);
    tokio::spawn(service.run());

    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    for body in &bodies {
        // Both receivers get it at the same moment.
        let posts = receivers.iter().map(|address| {
            let request = http.post(format!("http://{address}/webhooks")).header("content-type", "application/json");
            request.header("x-hub-signature-256", sign(SECRET.as_bytes(), body)).body(body.clone()).send()
        });
        for answer in futures::future::join_all(posts).await {
            assert_eq!(answer.expect("an answer").status(), 200);
        }
    }
    processed(&world).await;

    // What was expected, counted from the samples: the same item may stand in several of them.
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    let mut whole = 0;
    for body in &bodies {
        match split(body, Timestamp(1), "d") {
            Ok(items) => {
                items.iter().for_each(|s| *expected.entry(s.item.raw.expose().to_owned()).or_default() += TIMES)
            }
            Err(_) => whole += TIMES,
        }
    }
    let mut once = BTreeSet::new();
    let mut recorded: BTreeSet<String> = BTreeSet::new();
    let mut calls: BTreeSet<String> = BTreeSet::new();
    for record in world.history(&Topics::default().name(Topic::ConversationEvents).into()) {
        let event = decode_event(record.value.as_deref().unwrap_or_default()).expect("an event");
        let about = (event.event.type_name(), event.envelope.cause_id.clone(), event.envelope.stream_id.clone());
        // Samples share message ids among different people, which WhatsApp never does.
        let in_its_stream = (event.envelope.event_id, event.envelope.stream_id.clone());
        assert!(once.insert(in_its_stream), "twice in the log: {about:?}");
        let raw = match event.event {
            Event::MessageReceived(event) => event.raw,
            Event::MessageStatusChanged(event) => event.raw,
            Event::AccountNotice(event) => event.raw,
            Event::MarketingPreferenceChanged(event) => event.raw,
            // One event for all that is told of a call; it does not keep the item.
            Event::CallReceived(event) => {
                calls.insert(event.call_id.0);
                continue;
            }
            _ => continue,
        };
        recorded.insert(raw.expose().to_owned());
    }
    let mut letters: BTreeMap<String, usize> = BTreeMap::new();
    for letter in world.history(&Topics::default().dlq(Topic::Webhooks).into()) {
        match decode::<WebhookItem>(letter.value.as_deref().unwrap_or_default()) {
            Ok(item) => *letters.entry(item.raw.expose().to_owned()).or_default() += 1,
            Err(_) => whole -= 1,
        }
    }
    assert_eq!(whole, 0, "a delivery that cannot be split is kept as a whole");
    let id = |raw: &str| {
        let raw: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
        Some(format!("{}/{}", raw["id"].as_str()?, raw["status"]))
    };
    let of_call = |raw: &str| {
        let raw: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
        raw["direction"] == "USER_INITIATED" && raw["id"].as_str().is_some_and(|id| calls.contains(id))
    };
    let known: BTreeSet<String> = recorded.iter().filter_map(|raw| id(raw)).collect();
    for (raw, times) in &expected {
        match letters.get(raw) {
            Some(letters) => assert_eq!(letters, times, "a dead letter per delivery: {:?}", id(raw)),
            // Samples share message ids among different texts, which WhatsApp never does: the first one counts.
            None => {
                assert!(
                    recorded.contains(raw) || of_call(raw) || id(raw).is_some_and(|id| known.contains(&id)),
                    "lost: {:?}",
                    id(raw)
                )
            }
        }
    }
    // The repository's own samples alone have so many.
    let least = if collected().is_empty() { 36 } else { 41 };
    assert!(recorded.len() >= least, "{} items in the log", recorded.len());
    shutdown.cancel();
}
