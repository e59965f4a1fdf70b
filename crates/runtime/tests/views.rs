//! Views and the log they belong to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_ports::clock::SystemClock;
use connector_ports::gate::Change;
use connector_ports::log::{Append, Offset, TopicPartition, TopicSpec};
use connector_ports::{Clock, Gate, Log};
use connector_runtime::failure::Failure;
use connector_runtime::view::{OwnedView, Reading};
use connector_simulated::{MemoryGate, MemoryStore, StoreLog};

const NAME: &str = "conversations";

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// A log with so many records in its one partition.
async fn log(records: usize) -> Arc<dyn Log> {
    let log: Arc<dyn Log> = Arc::new(StoreLog::new(MemoryStore::new(clock())));
    fill(&log, records).await;
    log
}

async fn fill(log: &Arc<dyn Log>, records: usize) {
    let spec = TopicSpec { name: "events".into(), partitions: 1, replication: 1, settings: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let record = Append { topic: "events".into(), partition: Some(0), key: None, value: None, headers: Vec::new() };
    log.appender().await.expect("an appender").append(vec![record; records]).await.expect("append");
}

fn source() -> TopicPartition {
    TopicPartition::new("events", 0)
}

async fn own(gate: &Arc<dyn Gate>, log: &Arc<dyn Log>) -> OwnedView {
    OwnedView::acquire(gate.clone(), log.clone(), source(), NAME).await.expect("a view")
}

fn consent(value: &'static str) -> Vec<Change> {
    vec![Change::Put { key: "consent".to_owned(), value: Bytes::from_static(value.as_bytes()) }]
}

#[tokio::test]
async fn a_view_of_another_log_is_not_believed_and_is_built_again() {
    let gate: Arc<dyn Gate> = Arc::new(MemoryGate::new(clock()));
    let keys = ["consent".to_owned()];
    let before = log(5).await;
    own(&gate, &before).await.apply(Offset(5), consent("accepted")).await.expect("applied");
    assert_eq!(own(&gate, &before).await.applied(), Some(Offset(5)), "of its own log it goes on");
    let reading = |log: &Arc<dyn Log>| Reading::new(gate.clone(), log.clone(), NAME, "events".into());
    let old = reading(&before);
    let found = old.glance(0, &keys).await.expect("its own log");
    assert_eq!((found.applied, found.answers), (Some(Offset(5)), vec![Some(Bytes::from_static(b"accepted"))]));

    // The log was made anew, Redis was kept. It is empty, shorter, longer: never taken for the one before.
    let ids = [Bytes::from_static(b"id")];
    for records in [0, 3, 5, 9] {
        let after = log(records).await;
        let found = reading(&after).glance(0, &keys).await.expect("an answer");
        assert_eq!((found.applied, found.answers), (None, vec![None]), "{records}");
        let found = reading(&after).recall(0, &ids).await.expect("an answer");
        assert_eq!((found.applied, found.answers), (None, vec![None]), "{records}");
    }
    let after = log(3).await;
    let new = reading(&after);
    assert_eq!(new.glance(0, &keys).await.expect("an answer").applied, None);
    let mut view = own(&gate, &after).await;
    assert_eq!(view.applied(), None, "its owner reads the new log from the beginning");
    view.apply(Offset(3), consent("none")).await.expect("applied");
    let found = new.glance(0, &keys).await.expect("an answer");
    assert_eq!((found.applied, found.answers), (Some(Offset(3)), vec![Some(Bytes::from_static(b"none"))]));
    assert_eq!(own(&gate, &after).await.applied(), Some(Offset(3)));
}

#[tokio::test]
async fn a_view_that_does_not_say_whose_it_is_is_built_again() {
    let gate: Arc<dyn Gate> = Arc::new(MemoryGate::new(clock()));
    let log = log(5).await;
    let view = connector_ports::gate::View::new(NAME, 0);
    let epoch = gate.acquire(&view).await.expect("acquired").epoch;
    gate.apply(&view, epoch, None, Offset(4), consent("accepted")).await.expect("applied");
    assert_eq!(own(&gate, &log).await.applied(), None);
}

/// Lets a question that nobody waits for be asked and answered.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(40)).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_made_anew_under_those_who_know_it_is_noticed_though_it_grew_past_the_view() {
    let gate: Arc<dyn Gate> = Arc::new(MemoryGate::new(clock()));
    let store = Arc::new(StoreLog::new(MemoryStore::new(clock())));
    let log: Arc<dyn Log> = store.clone();
    fill(&log, 5).await;
    let keys = ["consent".to_owned()];
    let mut view = own(&gate, &log).await;
    view.apply(Offset(5), consent("accepted")).await.expect("applied");
    let reading = Reading::new(gate.clone(), log.clone(), NAME, "events".into());
    assert_eq!(reading.glance(0, &keys).await.expect("its own log").applied, Some(Offset(5)));
    store.store().make_anew(&"events".into());
    fill(&log, 9).await;

    // Each look may be the one that asks, or the one that hears the answer.
    let mut found = Vec::new();
    for _ in 0..3 {
        a_while().await;
        found.push(reading.glance(0, &keys).await.expect("an answer").applied);
    }
    assert_eq!(found.last(), Some(&None), "{found:?}");
    let mut read = Vec::new();
    for _ in 0..3 {
        a_while().await;
        read.push(view.read(&keys).await.err());
    }
    assert!(read.iter().any(|failure| matches!(failure, Some(Failure::Reinitialise(_)))), "{read:?}");
    assert_eq!(own(&gate, &log).await.applied(), None, "its owner reads the new log from the beginning");
}
