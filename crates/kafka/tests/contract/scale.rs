//! Rates that a wrong setting would cut by a factor of ten or more. The bounds are far below what an idle machine does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_ports::log::{Append, Isolation, Polled, Start, TopicName, TopicPartition, TopicSpec};
use connector_testkit::servers::unique;

use crate::{log, shared};

fn record(topic: &TopicName) -> Append {
    let value = Some(Bytes::from(vec![b'x'; 400]));
    Append { topic: topic.clone(), partition: Some(0), key: None, value, headers: Vec::new() }
}

/// Without the workarounds in the transactor one transaction takes 100 to 206 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_does_not_wait_for_a_polling_interval() {
    let log = log(&shared().await);
    let topic = TopicName::from(unique("rate"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: vec![] };
    log.create_topic(&spec).await.expect("create");
    let mut transactor = log.transactor(&unique("id")).await.expect("transactor");
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        transactor.append(vec![record(&topic)]).await.expect("append");
        transactor.commit(None).await.expect("commit");
        times.push(begun.elapsed());
    }
    times.sort();
    println!("a transaction of one record: p50 {:?}, p99 {:?}", times[50], times[98]);
    assert!(times[50] < Duration::from_millis(90), "p50 is {:?}", times[50]);
}

/// Callers that append one record each share requests to the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_of_an_appender_share_its_requests() {
    let log = log(&shared().await);
    let topic = TopicName::from(unique("rate"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: vec![] };
    log.create_topic(&spec).await.expect("create");
    let appender = Arc::new(log.appender().await.expect("appender"));
    appender.append(vec![record(&topic)]).await.expect("append");
    let begun = Instant::now();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (appender, topic) = (Arc::clone(&appender), topic.clone());
            tokio::spawn(async move {
                for _ in 0..150 {
                    appender.append(vec![record(&topic)]).await.expect("append");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    let rate = 9_600.0 / begun.elapsed().as_secs_f64();
    println!("64 callers with one record each: {rate:.0}/s");
    assert!(rate > 1_000.0, "{rate:.0}/s");
}

/// A reader that waits is woken by the record, not by the end of some interval.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_record_reaches_a_waiting_reader_at_once() {
    let log = log(&shared().await);
    let topic = TopicName::from(unique("latency"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: vec![] };
    log.create_topic(&spec).await.expect("create");
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let mut transactor = log.transactor(&unique("id")).await.expect("transactor");
    let mut times = Vec::new();
    for _ in 0..100 {
        transactor.append(vec![record(&topic)]).await.expect("append");
        transactor.commit(None).await.expect("commit");
        let committed = Instant::now();
        while !matches!(reader.poll(Duration::from_secs(1), 10).await.expect("poll"), Polled::Records(_)) {
            assert!(committed.elapsed() < Duration::from_secs(30), "no record came");
        }
        times.push(committed.elapsed());
    }
    times.sort();
    println!("from commit to a waiting reader: p50 {:?}, p99 {:?}", times[50], times[98]);
    assert!(times[50] < Duration::from_millis(40), "p50 is {:?}", times[50]);
    reader.close().await;
}
