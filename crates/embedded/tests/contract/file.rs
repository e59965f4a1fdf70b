//! What is in the file after the process is gone, however it went, and how fast it gets there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_embedded::store::Store;
use connector_embedded::{EmbeddedLog, OpenError};
use connector_ports::clock::SystemClock;
use connector_ports::log::{
    Append, Identity, Isolation, Offset, Polled, Record, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::{Clock, Log};

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

/// The file counts, not its name: nothing else would keep two processes from sending the same message.
#[tokio::test]
async fn a_file_that_is_in_use_is_refused_by_every_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.sqlite");
    let log = open(&path);
    let (symbolic, hard) = (folder.path().join("symbolic.sqlite"), folder.path().join("hard.sqlite"));
    std::os::unix::fs::symlink(&path, &symbolic).expect("a symbolic link");
    std::fs::hard_link(&path, &hard).expect("a hard link");
    let roundabout = folder.path().join("inside/../log.sqlite");
    std::fs::create_dir(folder.path().join("inside")).expect("a folder");
    for name in [&symbolic, &hard, &roundabout] {
        let error = connector_embedded::open(name, Arc::new(SystemClock)).err().expect("it is in use");
        assert!(matches!(error, OpenError::InUse { .. }), "{}: {error:?}", name.display());
    }
    drop(log);
    open(&symbolic);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.sqlite");
    let model = rusqlite::Connection::open(&path).expect("a database");
    model.execute_batch("CREATE TABLE offsets (partition INTEGER); PRAGMA user_version = 1;").expect("a table");
    drop(model);
    let error = connector_embedded::open(&path, Arc::new(SystemClock)).err().expect("it is no log");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    let model = rusqlite::Connection::open(&path).expect("a database");
    let tables: i64 = model.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get(0)).expect("a count");
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_file_made_anew_is_another_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let identity = async |path: &Path| {
        let log = open(path);
        create(&log).await;
        log.identity(&partition()).await.expect("ask")
    };
    let (one, other) = (folder.path().join("one.sqlite"), folder.path().join("other.sqlite"));
    let known = identity(&one).await;
    assert!(matches!(known, Identity::Known(_)), "{known:?}");
    assert_eq!(identity(&one).await, known, "over a restart");
    assert_ne!(identity(&other).await, known);
}

/// Time as the test wants it.
struct Hand(AtomicI64);

#[async_trait::async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, _: Duration) {}
}

const HOUR: i64 = 3_600_000;

fn declared(name: &str, settings: &[(&str, &str)]) -> TopicSpec {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TopicSpec { name: name.into(), partitions: 1, replication: 1, settings }
}

async fn append(log: &EmbeddedLog, topic: &str, records: impl IntoIterator<Item = (String, Option<String>)>) {
    let record = |(key, value): (String, Option<String>)| Append {
        topic: topic.into(),
        partition: Some(0),
        key: Some(key.into()),
        value: value.map(Bytes::from),
        headers: vec![],
    };
    log.appender().await.expect("an appender").append(records.into_iter().map(record).collect()).await.expect("append");
}

async fn keys(log: &EmbeddedLog, topic: &str) -> Vec<String> {
    let source = TopicPartition::new(topic, 0);
    let mut reader = log.assign(vec![(source, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let mut seen = Vec::new();
    loop {
        match reader.poll(Duration::from_secs(10), 1000).await.expect("poll") {
            Polled::Records(records) => {
                seen.extend(
                    records.iter().map(|one| String::from_utf8_lossy(one.key.as_deref().unwrap_or_default()).into()),
                );
            }
            Polled::CaughtUp(..) => return seen,
            other => panic!("{other:?}"),
        }
    }
}

/// Deleted by age and by key as declared, between the commits; the log is kept for ever.
#[tokio::test]
async fn what_need_not_be_kept_goes_and_its_place_is_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.sqlite");
    let clock = Arc::new(Hand(AtomicI64::new(1_000 * HOUR)));
    let log = connector_embedded::open(&path, clock.clone()).expect("open the log");
    let old = [("cleanup.policy", "delete"), ("retention.ms", "36000000")];
    let ever = [("cleanup.policy", "delete"), ("retention.ms", "-1")];
    let newest = [("cleanup.policy", "compact"), ("retention.ms", "-1"), ("delete.retention.ms", "7200000")];
    let topics = [("old", &old[..]), ("ever", &ever[..]), ("newest", &newest[..])];
    for (name, settings) in topics {
        log.create_topic(&declared(name, settings)).await.expect("create");
    }
    let text = "x".repeat(1_000);
    let round = async |n: i64| {
        append(&log, "old", (0..2_000).map(|i| (format!("{n}-{i}"), Some(text.clone())))).await;
        append(&log, "newest", (0..2_000).map(|i| (format!("{}", i % 10), Some(text.clone())))).await;
    };
    append(&log, "ever", [("first".to_owned(), Some("kept".to_owned()))]).await;
    append(&log, "newest", [("gone".to_owned(), None)]).await;
    let source = TopicPartition::new("old", 0);
    let mut sizes = Vec::new();
    for n in 0..12 {
        round(n).await;
        clock.0.fetch_add(6 * HOUR, Ordering::Relaxed);
        // A commit is what it is done after.
        append(&log, "ever", [(format!("{n}"), None)]).await;
        connector_testkit::wait::until("what is old to go", Duration::from_secs(30), async || {
            append(&log, "ever", [("again".to_owned(), None)]).await;
            let begin = log.begin_offset(&source).await.expect("ask");
            let wanted = Offset(2_000 * n);
            (begin >= wanted && keys(&log, "newest").await.len() <= 11).then_some(())
        })
        .await;
        sizes.push(std::fs::metadata(&path).expect("a file").len());
    }
    // Rounds of 6 hours, kept for 10: the last two.
    let begin = log.begin_offset(&source).await.expect("ask");
    assert_eq!(
        begin,
        Offset(22_000),
        "of the twelve the last one is young enough, and the one before it is not any more"
    );
    assert_eq!(keys(&log, "old").await.len(), 2_000);
    assert_eq!(log.end_offset(&source, Isolation::Committed).await.expect("ask"), Offset(24_000));
    assert_eq!(keys(&log, "newest").await, (0..10).map(|key| key.to_string()).collect::<Vec<_>>());
    assert_eq!(keys(&log, "ever").await.first().map(String::as_str), Some("first"), "the log is kept for ever");
    assert!(sizes[11] < sizes[3] * 3 / 2, "the file goes on growing: {sizes:?}");
    // Over a restart everything is where it was.
    drop(log);
    let log = connector_embedded::open(&path, clock.clone()).expect("open the log");
    assert_eq!(log.begin_offset(&source).await.expect("ask"), Offset(22_000));
    assert_eq!(log.end_offset(&source, Isolation::Committed).await.expect("ask"), Offset(24_000));
    // Nobody has said by now how long anything is kept. When all of it is too old its end is still known.
    for (name, settings) in topics {
        log.create_topic(&declared(name, settings)).await.expect("create");
    }
    clock.0.fetch_add(600 * HOUR, Ordering::Relaxed);
    connector_testkit::wait::until("everything to go", Duration::from_secs(30), async || {
        append(&log, "ever", [("again".to_owned(), None)]).await;
        (log.begin_offset(&source).await.expect("ask") >= Offset(23_999)).then_some(())
    })
    .await;
    drop(log);
    let log = connector_embedded::open(&path, clock).expect("open the log");
    append(&log, "old", [("next".to_owned(), None)]).await;
    assert_eq!(log.end_offset(&source, Isolation::Committed).await.expect("ask"), Offset(24_001));
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
