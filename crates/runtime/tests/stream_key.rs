//! A process that was told another stream secret than the installation was begun with.

use std::sync::Arc;

use connector_contracts::{Topic, Topics};
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::clock::SystemClock;
use connector_ports::ids::RandomIds;
use connector_ports::log::TopicSpec;
use connector_ports::{Gate, Log};
use connector_runtime::platform::Platform;
use connector_runtime::stream_key::{StreamKeyError, check_gate, check_log};
use connector_simulated::{MemoryGate, MemoryStore, StoreLog};
use connector_telemetry::Metrics;

const SECRET: &[u8] = b"a stream secret of thirty-two bytes and more";

async fn log() -> Arc<dyn Log> {
    let log = StoreLog::new(MemoryStore::new(Arc::new(SystemClock)));
    let name = Topic::ConversationEvents.name("").into();
    log.create_topic(&TopicSpec { name, partitions: 3, replication: 1, settings: Vec::new() }).await.expect("a topic");
    Arc::new(log)
}

fn gate() -> Arc<dyn Gate> {
    Arc::new(MemoryGate::new(Arc::new(SystemClock)))
}

fn process(log: &Arc<dyn Log>, gate: &Arc<dyn Gate>, key_id: &str, secret: &[u8]) -> Platform {
    Platform {
        log: log.clone(),
        gate: gate.clone(),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        topics: Topics::default(),
        partitions: 3,
        keys: StreamKeys::new(key_id, secret),
        rules: Rules::default(),
        instance: "one".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

/// Writes an event as every service does.
async fn write(platform: &Platform) {
    let (organization, user) = ("acme".into(), "ada".into());
    let cause = connector_runtime::emit::Cause {
        stream_id: platform.keys.user(&organization, &user),
        organization_id: organization,
        cause_id: "test".to_owned(),
        command_id: None,
        occurred_at: platform.clock.now(),
        time_source: connector_domain::event::TimeSource::Connector,
        traceparent: None,
    };
    let event = connector_domain::event::ActivationNoticeAcknowledged { user_id: user };
    let record = platform.emitter("test").emit(event, &cause).expect("an event");
    platform.log.appender().await.expect("an appender").append(vec![record]).await.expect("append");
}

fn is_another<T: std::fmt::Debug>(result: Result<T, StreamKeyError>, place: &str) {
    match result {
        Err(StreamKeyError::Another { place: told }) => assert_eq!(told, place),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_log_tells_whose_secret_it_was_begun_with() {
    let (log, gate) = (log().await, gate());
    let first = process(&log, &gate, "k1", SECRET);
    assert!(!check_log(&first).await.expect("an empty log is everybody's"));
    write(&first).await;
    assert!(check_log(&first).await.expect("ours"));
    assert!(check_log(&process(&log, &gate, "k1", SECRET)).await.expect("ours, over a restart"));
    is_another(check_log(&process(&log, &gate, "k1", b"another stream secret of thirty-two bytes")).await, "the log");
    is_another(check_log(&process(&log, &gate, "k2", SECRET)).await, "the log");
}

#[tokio::test]
async fn the_gate_tells_it_too_before_anything_stands_in_the_log() {
    let (log, gate) = (log().await, gate());
    check_gate(&process(&log, &gate, "k1", SECRET), false).await.expect("the first one");
    check_gate(&process(&log, &gate, "k1", SECRET), false).await.expect("the same");
    let other = process(&log, &gate, "k1", b"another stream secret of thirty-two bytes");
    is_another(check_gate(&other, false).await, "the gate");
    // The log says that it is the other's: the gate was left over from an installation before.
    check_gate(&other, true).await.expect("the log counts");
    check_gate(&other, false).await.expect("it is written down");
}

#[test]
fn a_fingerprint_tells_nothing_but_whose_it_is() {
    let keys = StreamKeys::new("k1", SECRET);
    assert_eq!(keys.fingerprint(), StreamKeys::new("k1", SECRET).fingerprint());
    assert_ne!(keys.fingerprint(), StreamKeys::new("k1", b"another").fingerprint());
    assert!(keys.fingerprint().starts_with("k1-") && keys.fingerprint().len() == 19);
}
