//! What is in the file after the process is gone, however it went, and how fast it gets there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_embedded::store::Store;
use connector_embedded::{EmbeddedLog, OpenError};
use connector_ports::Log;
use connector_ports::clock::SystemClock;
use connector_ports::log::{
    Append, Isolation, Offset, Polled, Record, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};

const TOPIC: &str = "file";
/// Set in the child that is killed: the file it appends to.
const CHILD: &str = "EMBEDDED_TEST_CHILD";

fn open(path: &Path) -> EmbeddedLog {
    connector_embedded::open(path, Arc::new(SystemClock)).expect("open the log")
}

async fn create(log: &EmbeddedLog) {
    let spec = TopicSpec { name: TOPIC.into(), partitions: 1, replication: 1, settings: vec![] };
    log.create_topic(&spec).await.expect("create the topic");
}

fn record(value: &str) -> Append {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    Append { topic: TOPIC.into(), partition: Some(0), key: None, value, headers: vec![] }
}

fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

async fn values(log: &EmbeddedLog, isolation: Isolation) -> Vec<String> {
    let mut reader = log.assign(vec![(partition(), Start::Beginning)], isolation).await.expect("assign");
    let text = |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    let mut seen = Vec::new();
    loop {
        match reader.poll(Duration::from_secs(10), 1000).await.expect("poll") {
            Polled::Records(records) => seen.extend(records.iter().map(text)),
            Polled::CaughtUp(..) => return seen,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/inside/log.sqlite");
    let log = open(&path);
    create(&log).await;
    let mut one = log.transactor("one").await.expect("a transactor");
    one.append(vec![record("committed")]).await.expect("append");
    one.commit(None).await.expect("commit");
    one.append(vec![record("aborted")]).await.expect("append");
    one.abort().await.expect("abort");
    let name = TopicName::from(TOPIC);
    let subscription =
        Subscription { group: "g".into(), topics: vec![name.clone()], member: None, start: Start::Beginning };
    let mut reader = log.subscribe(subscription).await.expect("subscribe");
    reader.poll(Duration::from_secs(10), 10).await.expect("an assignment");
    reader.commit(&[(partition(), Offset(1))]).await.expect("commit a position");
    reader.close().await;
    let end = log.end_offset(&partition(), Isolation::Committed).await.expect("ask");
    drop((one, log));
    let log = open(&path);
    assert_eq!(values(&log, Isolation::Committed).await, ["committed"]);
    assert_eq!(values(&log, Isolation::Uncommitted).await, ["committed", "aborted"]);
    assert_eq!(log.topic(&name).await.expect("ask").map(|topic| topic.partitions), Some(1));
    assert_eq!(log.committed("g", &[partition()]).await.expect("ask"), [Some(Offset(1))]);
    assert_eq!(log.end_offset(&partition(), Isolation::Committed).await.expect("ask"), end);
}

#[tokio::test]
async fn a_file_that_is_in_use_is_refused_with_a_clear_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.sqlite");
    let log = open(&path);
    let error = connector_embedded::open(&path, Arc::new(SystemClock)).err().expect("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(log);
    open(&path);
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.sqlite");
    std::fs::write(&path, "not a database, but long enough to be taken for a damaged one".repeat(100)).expect("write");
    let error = connector_embedded::open(&path, Arc::new(SystemClock)).err().expect("it is no database");
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
}

/// The child of the next test: appends, tells what was acknowledged, until it is killed. Nothing when run on its own.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let log = open(Path::new(&path));
    create(&log).await;
    let appender = log.appender().await.expect("an appender");
    let mut open = log.transactor("left open").await.expect("a transactor");
    open.append(vec![record("open")]).await.expect("append");
    println!("\nacked open");
    let mut committing = log.transactor("committing").await.expect("a transactor");
    for n in 0.. {
        appender.append(vec![record(&format!("plain-{n}"))]).await.expect("append");
        println!("acked plain-{n}");
        committing.append(vec![record(&format!("tx-{n}"))]).await.expect("append");
        committing.commit(None).await.expect("commit");
        println!("acked tx-{n}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.sqlite");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "file::child_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the child");
    let mut acked = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let name = |line: String| line.strip_prefix("acked ").map(ToOwned::to_owned);
    while acked.len() < 200 {
        acked.extend(name(lines.next().expect("the child appends until it is killed")));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("the child is gone");
    acked.extend(lines.filter_map(name));
    let log = open(&path);
    let all = values(&log, Isolation::Uncommitted).await;
    let committed = values(&log, Isolation::Committed).await;
    assert_eq!(acked.first().map(String::as_str), Some("open"));
    for acked in &acked {
        assert!(all.contains(acked), "{acked} was acknowledged and is lost");
    }
    // What was left open is aborted at the start, so it hides nothing behind it.
    let expected: Vec<&String> = acked.iter().filter(|name| *name != "open").collect();
    assert_eq!(committed.iter().take(expected.len()).collect::<Vec<_>>(), expected);
    // At most what was under way: one plain record, or one transaction.
    assert!(committed.len() <= expected.len() + 1, "{} > {} + 1", committed.len(), expected.len());
    let appender = log.appender().await.expect("an appender");
    let next = appender.append(vec![record("after")]).await.expect("append")[0].offset;
    assert!(usize::try_from(next.0).expect("positive") >= all.len(), "no position is given twice");
}

/// Not a benchmark, which has a quiet machine: it shows that callers share commits, and prints what it saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_commits() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(&folder.path().join("log.sqlite"));
    create(&log).await;
    let appender: Arc<dyn connector_ports::Appender> = log.appender().await.expect("an appender").into();
    let began = Instant::now();
    for n in 0..200 {
        appender.append(vec![record(&n.to_string())]).await.expect("append");
    }
    let alone = 200.0 / began.elapsed().as_secs_f64();
    let commits = || *log.store().changes().borrow();
    let (began, before) = (Instant::now(), commits());
    let callers = (0..64).map(|_| {
        let appender = appender.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                appender.append(vec![record(&n.to_string())]).await.expect("append");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("a caller");
    }
    let together = 3200.0 / began.elapsed().as_secs_f64();
    let shared = commits() - before;
    let began = Instant::now();
    let batch: Vec<Append> = (0..1000).map(|n| record(&format!("{n:0200}"))).collect();
    for _ in 0..50 {
        appender.append(batch.clone()).await.expect("append");
    }
    let batches = 50_000.0 / began.elapsed().as_secs_f64();
    println!(
        "appends/s: {alone:.0} alone, {together:.0} of 64 callers ({shared} commits); {batches:.0} records/s in batches"
    );
    assert!(shared <= 1600, "3200 appends of 64 callers took {shared} commits");
}
