//! A network that holds requests back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use connector_ports::log::{Append, Isolation, LogError, Polled, Start, TopicName, TopicPartition, TopicSpec};
use connector_testkit::servers::{KafkaCluster, KafkaOptions, unique};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::log;

/// EndTxn, in Kafka's protocol.
const END_TRANSACTION: i16 = 26;

/// Longer than one attempt of a commit, shorter than its bound.
const HELD_BACK: Duration = Duration::from_secs(3);

/// Passes everything on to the broker. While it is armed, the next end of a transaction is held back.
async fn proxy(listener: TcpListener, broker: String, armed: Arc<AtomicBool>) {
    while let Ok((client, _)) = listener.accept().await {
        let (broker, armed) = (broker.clone(), armed.clone());
        tokio::spawn(async move { pass_on(client, TcpStream::connect(broker).await?, armed).await });
    }
}

async fn pass_on(client: TcpStream, broker: TcpStream, armed: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut requests, mut answers) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut answers).await });
    loop {
        let length = requests.read_i32().await?;
        let mut request = vec![0; usize::try_from(length).unwrap_or(0)];
        requests.read_exact(&mut request).await?;
        let key = request.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
        if key == Some(END_TRANSACTION) && armed.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(HELD_BACK).await;
        }
        to_broker.write_i32(length).await?;
        to_broker.write_all(&request).await?;
    }
}

fn numbered(topic: &TopicName, number: usize) -> Append {
    let value = Some(Bytes::from(number.to_string()));
    Append { topic: topic.clone(), partition: Some(0), key: None, value, headers: Vec::new() }
}

/// What librdkafka has repeated, or may still have under way, must not meet the next transaction of the same producer (KIP-890).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_that_took_long_nothing_goes_on_with_the_same_producer() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    drop(taken);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let advertised = ("advertised.listeners".to_owned(), format!("PLAINTEXT://{address}"));
    let options = KafkaOptions { port: Some(port), settings: vec![advertised], ..KafkaOptions::default() };
    let armed = Arc::new(AtomicBool::new(false));
    tokio::spawn(proxy(listener, format!("127.0.0.1:{port}"), armed.clone()));
    let started = tokio::task::spawn_blocking(move || KafkaCluster::start(&options)).await.expect("no panic");
    let kafka = started.unwrap_or_else(|error| panic!("{error}"));
    let log = log(&address);
    let topic = TopicName::from(unique("delayed"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: Vec::new() };
    log.create_topic(&spec).await.expect("a topic");
    let id = unique("id");
    let mut transactor = log.transactor(&id).await.expect("a transactor");
    for number in 0..2 {
        transactor.append(vec![numbered(&topic, number)]).await.expect("append");
        transactor.commit(None).await.expect("commit");
    }
    transactor.append(vec![numbered(&topic, 2)]).await.expect("append");
    armed.store(true, Ordering::Relaxed);
    transactor.commit(None).await.expect("it took long, and what came of it is known");
    assert!(!armed.load(Ordering::Relaxed), "it was held back");
    let error = transactor.append(vec![numbered(&topic, 3)]).await.expect_err("the same producer goes on");
    assert!(matches!(error, LogError::Uncertain { .. }), "{error:?}");
    drop(transactor);
    let mut transactor = log.transactor(&id).await.expect("a transactor");
    transactor.append(vec![numbered(&topic, 4)]).await.expect("append");
    armed.store(true, Ordering::Relaxed);
    transactor.abort().await.expect("it took long, and what came of it is known");
    let error = transactor.append(vec![numbered(&topic, 5)]).await.expect_err("the same producer goes on");
    assert!(matches!(error, LogError::Uncertain { .. }), "{error:?}");
    let mut transactor = log.transactor(&id).await.expect("a transactor");
    transactor.append(vec![numbered(&topic, 6)]).await.expect("append");
    transactor.commit(None).await.expect("commit");

    let partition = TopicPartition::new(topic.clone(), 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "6") {
        if let Polled::Records(records) = reader.poll(Duration::from_secs(1), 100).await.expect("poll") {
            let text = |value: Option<Bytes>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
            seen.extend(records.into_iter().map(|record| text(record.value)));
        }
    }
    assert_eq!(seen, ["0", "1", "2", "6"]);
    reader.close().await;
    drop(kafka);
}
