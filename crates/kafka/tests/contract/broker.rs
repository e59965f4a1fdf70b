//! Brokers that go away.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::log::{
    Append, Identity, Isolation, LogError, Polled, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::{Log, Reader};
use connector_testkit::servers::{KafkaCluster, KafkaOptions, unique};

use crate::{config, log, shared};

async fn start(options: KafkaOptions) -> KafkaCluster {
    tokio::task::spawn_blocking(move || KafkaCluster::start(&options))
        .await
        .expect("no panic")
        .unwrap_or_else(|e| panic!("{e}"))
}

async fn create(log: &dyn Log, partitions: u32, replication: u16) -> TopicName {
    let name = TopicName::from(unique("broker"));
    let settings = Vec::new();
    log.create_topic(&TopicSpec { name: name.clone(), partitions, replication, settings })
        .await
        .expect("create a topic");
    name
}

fn numbered(topic: &TopicName, number: usize) -> Append {
    let value = Some(Bytes::from(number.to_string()));
    Append { topic: topic.clone(), partition: Some(0), key: None, value, headers: Vec::new() }
}

/// Everything a committed reader sees in partition 0.
async fn read_all(log: &dyn Log, topic: &TopicName) -> Vec<usize> {
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(100), 1000).await.expect("poll") {
            Polled::Records(records) => seen.extend(
                records
                    .iter()
                    .filter_map(|record| std::str::from_utf8(record.value.as_deref()?).ok()?.parse::<usize>().ok()),
            ),
            Polled::CaughtUp(..) => break,
            _ => (),
        }
    }
    reader.close().await;
    seen
}

async fn until_record(reader: &mut dyn Reader) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !matches!(reader.poll(Duration::from_millis(100), 1).await.expect("poll"), Polled::Records(_)) {
        assert!(Instant::now() < deadline, "no record came");
    }
}

/// A broker that dies and comes back in the middle: nothing acknowledged is missing, nothing stands twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_stands_once_after_a_broker_died() {
    let mut kafka = start(KafkaOptions::default()).await;
    let log = log(&kafka.bootstrap_servers());
    let topic = create(log.as_ref(), 1, 1).await;
    let appender = Arc::new(log.appender().await.expect("appender"));
    let mut running = Vec::new();
    for caller in 0..8_usize {
        let (appender, topic) = (Arc::clone(&appender), topic.clone());
        running.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..400 {
                let number = caller * 1_000 + number;
                if appender.append(vec![numbered(&topic, number)]).await.is_ok() {
                    acknowledged.push(number);
                }
            }
            acknowledged
        }));
    }
    // In the middle: after the first records, long before the last.
    connector_testkit::wait::until("the first records", Duration::from_secs(20), async || {
        let end = log.end_offset(&TopicPartition::new(topic.clone(), 0), Isolation::Committed).await.ok()?;
        (end.0 > 100).then_some(())
    })
    .await;
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.broker(0).kill9();
        kafka.broker(0).restart().expect("restart");
        kafka
    })
    .await
    .unwrap();
    let mut acknowledged = Vec::new();
    for one in running {
        acknowledged.extend(one.await.expect("no panic"));
    }
    let seen = read_all(log.as_ref(), &topic).await;
    let mut distinct = seen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len(), "a record stands twice");
    let missing: Vec<_> = acknowledged.iter().filter(|number| distinct.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "acknowledged and not there: {missing:?}");
    assert!(acknowledged.len() > 3_000, "only {} were acknowledged", acknowledged.len());
    drop(kafka);
}

/// A reader and a question asked while the broker is away go on by themselves when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_start_is_waited_for() {
    let mut kafka = start(KafkaOptions::default()).await;
    let servers = kafka.bootstrap_servers();
    let topic = create(log(&servers).as_ref(), 1, 1).await;
    let (mut kafka, servers) = tokio::task::spawn_blocking(move || {
        kafka.broker(0).kill9();
        (kafka, servers)
    })
    .await
    .unwrap();

    let impatient = KafkaConfig {
        delivery_timeout: Duration::from_millis(1_500),
        request_timeout: Duration::from_millis(1_500),
        ..config(&servers)
    };
    let log: Arc<dyn Log> = Arc::new(KafkaLog::new(impatient));
    let subscription =
        Subscription { group: unique("group"), topics: vec![topic.clone()], member: None, start: Start::Beginning };
    let mut reader = log.subscribe(subscription).await.expect("subscribe");
    assert_eq!(reader.poll(Duration::from_millis(300), 1).await.expect("poll"), Polled::Idle);
    let appender = log.appender().await.expect("appender");
    let before = Instant::now();
    assert!(matches!(appender.append(vec![numbered(&topic, 1)]).await, Err(LogError::Unavailable { .. })));
    assert!(matches!(log.topic(&topic).await, Err(LogError::Unavailable { .. })));
    assert!(matches!(log.transactor(&unique("id")).await.map(drop), Err(LogError::Unavailable { .. })));
    assert!(before.elapsed() < Duration::from_secs(15), "took {:?}", before.elapsed());

    let kafka = tokio::task::spawn_blocking(move || {
        kafka.broker(0).restart().expect("restart");
        kafka
    })
    .await
    .unwrap();
    connector_testkit::wait::until("an append that works again", Duration::from_secs(30), async || {
        appender.append(vec![numbered(&topic, 2)]).await.ok()
    })
    .await;
    until_record(reader.as_mut()).await;
    reader.close().await;
    drop(kafka);
}

/// The old owner of a transactional id wakes up after the new one has taken over: none of its records appears, in no isolation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_appends_nothing_after_the_takeover() {
    let log = log(&shared().await);
    let topic = create(log.as_ref(), 1, 1).await;
    let id = unique("id");
    let mut zombie = log.transactor(&id).await.expect("transactor");
    zombie.append(vec![numbered(&topic, 1)]).await.expect("append");
    let mut owner = log.transactor(&id).await.expect("takeover");
    let end = log.end_offset(&TopicPartition::new(topic.clone(), 0), Isolation::Uncommitted).await.expect("end");

    let late = zombie.append(vec![numbered(&topic, 2)]).await;
    assert!(matches!(late, Err(LogError::Fenced { .. })), "{late:?}");
    assert!(matches!(zombie.commit(None).await, Err(LogError::Fenced { .. })));
    let after = log.end_offset(&TopicPartition::new(topic.clone(), 0), Isolation::Uncommitted).await.expect("end");
    assert_eq!(after, end, "the zombie wrote something");

    owner.append(vec![numbered(&topic, 3)]).await.expect("append");
    owner.commit(None).await.expect("commit");
    assert_eq!(read_all(log.as_ref(), &topic).await, [3]);
}

/// What a client of another kind may write: a header whose name is no UTF-8, between two that are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_with_an_unreadable_name_ends_no_reader() {
    let servers = shared().await;
    let log = log(&servers);
    let topic = create(log.as_ref(), 1, 1).await;
    let (name, value) = (topic.clone(), "first");
    let written = tokio::task::spawn_blocking(move || {
        let mut kcat = Command::new("kcat");
        kcat.args(["-P", "-b", &servers, "-t", name.as_str(), "-p", "0", "-H", "before=1", "-H"]);
        kcat.arg(OsStr::from_bytes(b"na\xffme=2")).args(["-H", "after=3", "-D", "\n"]).stdin(Stdio::piped());
        let mut running = kcat.spawn().expect("kcat starts");
        running.stdin.take().expect("its input").write_all(format!("{value}\n").as_bytes()).expect("written");
        running.wait().expect("kcat ends").success()
    });
    assert!(written.await.expect("no panic"), "kcat has written");
    log.appender().await.expect("appender").append(vec![numbered(&topic, 7)]).await.expect("append");
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let (mut records, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while records.len() < 2 {
        assert!(Instant::now() < deadline, "read: {records:?}");
        if let Polled::Records(read) = reader.poll(Duration::from_millis(100), 10).await.expect("poll") {
            records.extend(read);
        }
    }
    reader.close().await;
    let readable = [("before".into(), Some("1".into())), ("after".into(), Some("3".into()))];
    assert_eq!((records[0].value.as_deref(), &records[0].headers[..]), (Some(value.as_bytes()), &readable[..]));
    assert_eq!(records[1].value.as_deref(), Some(b"7".as_slice()));
}

/// Several topics with the same partition number in one reader: each end is told for the topic whose end it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_topics_with_equal_partition_numbers_are_told_apart() {
    let log = log(&shared().await);
    let (empty, full) = (create(log.as_ref(), 1, 1).await, create(log.as_ref(), 1, 1).await);
    let appender = log.appender().await.expect("appender");
    appender.append((0..2_000).map(|number| numbered(&full, number)).collect()).await.expect("append");
    let partitions = [&empty, &full].map(|topic| (TopicPartition::new(topic.clone(), 0), Start::Beginning));
    let mut reader = log.assign(partitions.to_vec(), Isolation::Committed).await.expect("assign");
    let (mut seen, mut ends) = (0, Vec::new());
    let deadline = Instant::now() + Duration::from_secs(20);
    while ends.len() < 2 {
        assert!(Instant::now() < deadline, "ends told: {ends:?}");
        match reader.poll(Duration::from_millis(100), 100).await.expect("poll") {
            Polled::Records(records) => seen += records.len(),
            Polled::CaughtUp(partition, end) if partition.topic == full => {
                assert_eq!((seen, end.0), (2_000, 2_000), "the end was told too early");
                ends.push(partition);
            }
            Polled::CaughtUp(partition, end) => {
                assert_eq!(end.0, 0);
                ends.push(partition);
            }
            _ => (),
        }
    }
    reader.close().await;
}

/// Three copies, two of which must have a record: the death of any one broker loses nothing that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_one_of_three_brokers_loses_nothing() {
    let kafka = start(KafkaOptions { brokers: 3, heap_mib: 256, ..KafkaOptions::default() }).await;
    let log = log(&kafka.bootstrap_servers());
    let topic = create(log.as_ref(), 3, 3).await;
    let appender = log.appender().await.expect("appender");
    let record = |number: usize| {
        let partition = u32::try_from(number % 3).expect("small");
        Append { partition: Some(partition), ..numbered(&topic, number) }
    };
    let mut acknowledged = [0_i64; 3];
    let mut kafka = Some(kafka);
    for number in 0..60 {
        if number == 20 {
            // Leads one of the three partitions, and its group and transaction coordinators move too.
            let mut running = kafka.take().expect("running");
            kafka = tokio::task::spawn_blocking(move || {
                running.broker(0).kill9();
                Some(running)
            })
            .await
            .expect("no panic");
        }
        connector_testkit::wait::until("an append by the remaining two", Duration::from_secs(60), async || {
            appender.append(vec![record(number)]).await.ok()
        })
        .await;
        acknowledged[number % 3] += 1;
    }
    let mut transactor = log.transactor(&unique("id")).await.expect("transactor");
    transactor.append((0..3).map(record).collect()).await.expect("append");
    transactor.commit(None).await.expect("commit");
    for (partition, acknowledged) in (0..).zip(acknowledged) {
        let partition = TopicPartition::new(topic.clone(), partition);
        // A commit returns when it is decided; the markers that show it to committed readers follow within milliseconds.
        connector_testkit::wait::until("the committed end", Duration::from_secs(30), async || {
            let end = log.end_offset(&partition, Isolation::Committed).await.ok()?;
            (end.0 > acknowledged).then_some(())
        })
        .await;
    }
}

/// A topic that was deleted and made again is another one, and says so before anything is written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_another_log() {
    let kafka = start(KafkaOptions::default()).await;
    let (before, after) = (log(&kafka.bootstrap_servers()), log(&kafka.bootstrap_servers()));
    let topic = create(before.as_ref(), 1, 1).await;
    let partition = TopicPartition::new(topic.clone(), 0);
    assert_eq!(before.identity(&partition).await.expect("ask"), Identity::Unwritten);
    // What was aborted counts: it stays the first for ever.
    let mut transactor = before.transactor(&unique("id")).await.expect("transactor");
    transactor.append(vec![numbered(&topic, 0)]).await.expect("append");
    transactor.abort().await.expect("abort");
    let known = before.identity(&partition).await.expect("ask");
    assert!(matches!(known, Identity::Known(_)), "{known:?}");
    before.appender().await.expect("appender").append(vec![numbered(&topic, 1)]).await.expect("append");
    assert_eq!(after.identity(&partition).await.expect("ask"), known);

    let admin: rdkafka::admin::AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", kafka.bootstrap_servers()).create().expect("a client");
    let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    admin.delete_topics(&[topic.as_str()], &options).await.expect("asked")[0].as_ref().expect("deleted");
    connector_testkit::wait::until("the end of the topic", Duration::from_secs(30), async || {
        after.topic(&topic).await.ok()?.is_none().then_some(())
    })
    .await;
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: Vec::new() };
    after.create_topic(&spec).await.expect("created");
    let fresh = log(&kafka.bootstrap_servers());
    assert_eq!(fresh.identity(&partition).await.expect("ask"), Identity::Unwritten);
    fresh.appender().await.expect("appender").append(vec![numbered(&topic, 1)]).await.expect("append");
    let another = fresh.identity(&partition).await.expect("ask");
    assert!(matches!(another, Identity::Known(_)) && another != known, "{another:?} {known:?}");
}
