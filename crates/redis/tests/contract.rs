//! The gate's contract on a real Redis, and what only a real server can do: die, freeze, forget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Claim, GateError, Grant, Limit, View};
use connector_ports::log::Offset;
use connector_redis::{RedisConfig, RedisGate};
use connector_testkit::contract::gate::GateWorld;
use connector_testkit::servers::{self, RedisOptions, RedisServer, unique};

struct RealRedis {
    url: String,
    gate: Arc<dyn Gate>,
}

impl RealRedis {
    async fn start() -> Self {
        let url = tokio::task::spawn_blocking(servers::redis).await.expect("no panic").to_owned();
        let gate = gate(&url);
        Self { url, gate }
    }
}

fn gate(url: &str) -> Arc<dyn Gate> {
    let config = RedisConfig { timeout: Duration::from_millis(500), ..RedisConfig::at(url) };
    Arc::new(RedisGate::new(&config).expect("a gate"))
}

#[async_trait]
impl GateWorld for RealRedis {
    async fn gate(&self) -> Arc<dyn Gate> {
        Arc::clone(&self.gate)
    }

    async fn wipe(&self, view: &View) {
        let client = redis::Client::open(self.url.as_str()).expect("a client");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let pattern = format!("*{{{view}}}*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("keys");
        assert!(!keys.is_empty(), "nothing to wipe");
        let _: u64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.expect("delete");
    }
}

connector_testkit::gate_contract! { #[tokio::test] RealRedis::start().await }

async fn server() -> RedisServer {
    let start = || RedisServer::start(&RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    tokio::task::spawn_blocking(start).await.expect("no panic")
}

/// One Lua script takes a batch of thousands of changes of every kind, beyond what Lua can unpack at once.
#[tokio::test]
async fn a_large_batch_is_one_step() {
    let world = RealRedis::start().await;
    let view = View::new("batch", 1);
    let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
    let until = Timestamp(4_102_444_800_000);
    let mut changes = Vec::new();
    for n in 0..10_000_u32 {
        changes.push(Change::Put { key: format!("key-{n}"), value: Bytes::from(n.to_string()) });
        changes.push(Change::Schedule { key: format!("key-{n}"), at: Timestamp(i64::from(n)), tag: 0 });
        changes.push(Change::Mark { id: Bytes::copy_from_slice(&n.to_be_bytes()), digest: u64::from(n), until });
    }
    world.gate.apply(&view, epoch, None, Offset(1), changes).await.expect("apply");
    let keys: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
    let answers = world.gate.read(&view, &keys).await.expect("read").answers;
    assert!(answers.iter().enumerate().all(|(n, value)| value.as_deref() == Some(n.to_string().as_bytes())));
    let ids: Vec<Bytes> = (0..10_000_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
    let digests = world.gate.recall(&view, &ids).await.expect("recall").answers;
    assert!(digests.iter().zip(0_u64..).all(|(digest, n)| *digest == Some(n)));
    let claim = Claim { since: Timestamp::EPOCH, now: until, lease: Duration::from_secs(1), limit: 20_000 };
    let due = world.gate.claim_due(&view, epoch, claim).await.expect("claim");
    assert_eq!(due.len(), 10_000);
}

/// What a hand, an eviction or a lost key may do to a view: each is noticed by the next call that comes near, and the view counts
/// as empty from then on, so that its owner builds it again (R1) and nobody decides on it (R2).
#[tokio::test]
async fn what_was_not_written_by_the_gate_makes_the_view_count_as_empty() {
    let world = RealRedis::start().await;
    let client = redis::Client::open(world.url.as_str()).expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
    let stream = "1.k1-0123456789abcdef0123456789abcdef";
    for (number, (command, part, arguments)) in [
        // Seen by whoever reads the value.
        ("HSET", "v", &["value", "{\"deadline\":9999999999999}"][..]),
        ("HSET", "v", &["value", ""]),
        // Seen by everybody: a part holds more or less than was put into it.
        ("HSET", "v", &["other", "value"]),
        ("HDEL", "v", &["value"]),
        ("DEL", "v", &[]),
        ("DEL", "z", &[]),
        ("ZADD", "z", &["1800000000000", "foreign"]),
        ("ZREM", "z", &["timer"]),
        ("DEL", "m", &[]),
        ("HDEL", "m", &["id"]),
        ("DEL", "b", &[]),
        // Seen by the pass that looks through everything.
        ("ZADD", "z", &["XX", "4000000000000", "timer"]),
        ("DEL", "c", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let view = View::new("damage", u32::try_from(number).expect("few"));
        let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
        let until = Timestamp(4_102_444_800_000);
        let fill = || {
            vec![
                Change::Put { key: "value".to_owned(), value: Bytes::from_static(b"{}") },
                Change::Schedule { key: "timer".to_owned(), at: Timestamp(1_800_000_000_000), tag: 0 },
                Change::Schedule { key: stream.to_owned(), at: Timestamp(1_900_000_000_000), tag: 1 },
                Change::Mark { id: Bytes::from_static(b"id"), digest: 7, until },
            ]
        };
        world.gate.apply(&view, epoch, None, Offset(7), fill()).await.expect("apply");
        let base = format!("whatsapp-connector:{{{view}}}");
        let day = until.as_millis() / 86_400_000;
        let key = if part == "m" { format!("{base}:m:{day}") } else { format!("{base}:{part}") };
        let damage = format!("{command} {part} {arguments:?}");
        let mut command = redis::cmd(command);
        command.arg(key).arg(arguments);
        let _: redis::Value = command.query_async(&mut redis).await.expect("damage");
        // One round of what owner and readers do anyway.
        let read = world.gate.read(&view, &["value".to_owned()]).await.expect("read");
        world.gate.recall(&view, &[Bytes::from_static(b"id")]).await.expect("recall");
        let mut from = 0;
        loop {
            from = world.gate.inspect(&view, from).await.expect("inspect");
            if from == 0 {
                break;
            }
        }
        if damage.starts_with("HSET v [\"value") {
            assert_eq!(
                (read.applied, read.answers),
                (None, vec![None]),
                "{damage}: the value itself is never given out"
            );
        }
        assert_eq!(world.gate.read(&view, &[]).await.expect("read").applied, None, "{damage}");
        let error = world.gate.apply(&view, epoch, Some(Offset(7)), Offset(8), vec![]).await.expect_err("it is lost");
        assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{damage}: {error:?}");
        // Its owner builds it again, and nothing of the old is left.
        world.gate.apply(&view, epoch, None, Offset(9), fill()).await.expect("apply");
        let now = world.gate.read(&view, &["value".to_owned(), "other".to_owned()]).await.expect("read");
        assert_eq!(
            (now.applied, now.answers),
            (Some(Offset(9)), vec![Some(Bytes::from_static(b"{}")), None]),
            "{damage}"
        );
        let timers =
            world.gate.timers(&view, &["timer".to_owned(), "foreign".to_owned()]).await.expect("timers").answers;
        assert_eq!(timers.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false], "{damage}");
    }
}

/// A mark whose time is over is dropped, and its bucket is no longer looked at.
#[tokio::test]
async fn a_mark_is_dropped_after_its_day() {
    let world = RealRedis::start().await;
    let view = View::new("marks", 1);
    let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
    let id = Bytes::from_static(b"id");
    let past = Change::Mark { id: id.clone(), digest: 1, until: Timestamp(86_400_000 * 1_000) };
    world.gate.apply(&view, epoch, None, Offset(1), vec![past]).await.expect("apply");
    assert_eq!(world.gate.recall(&view, &[id]).await.expect("recall").answers, [None]);
}

/// Away, frozen, back: calls fail within their bound with an error that says "later", and go on by themselves.
#[tokio::test]
async fn a_redis_that_is_away_is_waited_for() {
    let mut redis = server().await;
    let gate = gate(&redis.url());
    let view = View::new("away", 1);
    let epoch = gate.acquire(&view).await.expect("acquire").epoch;
    gate.apply(&view, epoch, None, Offset(1), vec![]).await.expect("apply");

    redis.pause().expect("pause");
    let begun = Instant::now();
    let error = gate.apply(&view, epoch, Some(Offset(1)), Offset(2), vec![]).await.expect_err("it is frozen");
    assert!(matches!(error, GateError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    redis.resume().expect("resume");
    // The answer was lost, the effect perhaps not: the position tells.
    connector_testkit::wait::until("an answer", Duration::from_secs(10), async || {
        match gate.apply(&view, epoch, Some(Offset(1)), Offset(2), vec![]).await {
            Ok(()) | Err(GateError::Conflict { actual: Some(Offset(2)), .. }) => Some(()),
            Err(GateError::Unavailable { .. }) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;

    redis.kill9();
    let error = gate.read(&view, &[]).await.expect_err("it is dead");
    assert!(matches!(error, GateError::Unavailable { .. }), "{error:?}");
    redis.restart().expect("restart");
    let limit = Limit { key: unique("limit"), interval: Duration::from_secs(1), burst: 1 };
    let granted = connector_testkit::wait::until("a grant", Duration::from_secs(10), async || {
        gate.take(std::slice::from_ref(&limit), Timestamp(1_800_000_000_000)).await.ok()
    })
    .await;
    assert_eq!(granted, [Grant::Granted], "a fresh Redis does not know the script yet");
    // It came back empty: the owner learns that it must read the log again.
    let error = gate.apply(&view, epoch, Some(Offset(2)), Offset(3), vec![]).await.expect_err("it is empty");
    assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{error:?}");
}

/// Views and limiters are spread over three masters. One dies: what lies on the others goes on, what lay on it is away and then empty.
#[tokio::test]
async fn a_cluster_goes_on_while_one_of_its_masters_is_away() {
    let options = RedisOptions { cluster: true, ..RedisOptions::default() };
    let start = move || {
        let nodes: Vec<RedisServer> =
            (0..3).map(|_| RedisServer::start(&options).unwrap_or_else(|error| panic!("{error}"))).collect();
        RedisServer::form_cluster(&nodes).unwrap_or_else(|error| panic!("{error}"));
        nodes
    };
    let mut nodes = tokio::task::spawn_blocking(start).await.expect("no panic");
    let url = nodes.iter().map(RedisServer::url).collect::<Vec<_>>().join(",");
    let config = RedisConfig { cluster: true, timeout: Duration::from_millis(500), ..RedisConfig::at(&url) };
    let gate = RedisGate::new(&config).expect("a gate");
    let within = Duration::from_secs(30);
    let mut views = Vec::new();
    for partition in 0..12 {
        let view = View::new("cluster", partition);
        let epoch = gate.acquire(&view).await.expect("acquire").epoch;
        let changes = vec![
            Change::Put { key: "key".to_owned(), value: Bytes::from_static(b"value") },
            Change::Schedule { key: "timer".to_owned(), at: Timestamp(1), tag: 1 },
        ];
        gate.apply(&view, epoch, None, Offset(1), changes).await.expect("apply");
        views.push((view, epoch));
    }
    let limits: Vec<Limit> =
        (0..12).map(|n| Limit { key: format!("limit-{n}"), interval: Duration::from_secs(1), burst: 1 }).collect();
    let granted = gate.take(&limits, Timestamp(1_800_000_000_000)).await.expect("grants");
    assert_eq!(granted, vec![Grant::Granted; 12]);

    nodes[0].kill9();
    let (mut away, mut there) = (Vec::new(), 0);
    for (view, epoch) in &views {
        let read = connector_testkit::wait::until("an answer of the rest", within, async || {
            match gate.read(view, &["key".to_owned()]).await {
                Ok(read) => Some(Some(read)),
                Err(GateError::Unavailable { .. }) if lies_on(&nodes, 0, view).await => Some(None),
                Err(GateError::Unavailable { .. }) => None,
                Err(error) => panic!("{error:?}"),
            }
        });
        match read.await {
            Some(read) => {
                assert_eq!((read.applied, read.answers), (Some(Offset(1)), vec![Some(Bytes::from_static(b"value"))]));
                there += 1;
            }
            None => away.push((view.clone(), *epoch)),
        }
    }
    assert!(there > 0 && !away.is_empty(), "{there} of twelve views are left: they are spread");

    nodes[0].restart().expect("restart");
    for (view, epoch) in away {
        let error = connector_testkit::wait::until("the master that came back", within, async || {
            match gate.apply(&view, epoch, Some(Offset(1)), Offset(2), vec![]).await {
                Err(GateError::Unavailable { .. }) => None,
                other => Some(other.expect_err("it came back empty")),
            }
        });
        let error = error.await;
        assert!(matches!(error, GateError::Conflict { actual: None, .. }), "{error:?}");
        gate.apply(&view, epoch, None, Offset(2), vec![]).await.expect("its owner builds it again");
    }
}

/// Whether the slot of a view belongs to this node, as another one knows it.
async fn lies_on(nodes: &[RedisServer], dead: usize, view: &View) -> bool {
    let port = |url: String| url.trim_end_matches('/').rsplit(':').next().map(str::to_owned).expect("a port");
    let client = redis::Client::open(nodes[dead + 1].url()).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let key = format!("whatsapp-connector:{{{view}}}:c");
    let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await.expect("a slot");
    let lines: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.expect("nodes");
    let dead = format!(":{}@", port(nodes[dead].url()));
    let holds = |range: &str| {
        let (from, to) = range.split_once('-')?;
        Some((from.parse::<u16>().ok()?..=to.parse().ok()?).contains(&slot))
    };
    let line = lines.lines().find(|line| line.contains(&dead)).expect("the node is known");
    line.split(' ').any(|range| holds(range) == Some(true))
}

/// Timers of a hundred thousand conversations. The bound is far below what an idle machine does.
#[tokio::test]
async fn batches_of_a_thousand_changes_are_applied_quickly() {
    let world = RealRedis::start().await;
    let view = View::new("rate", 1);
    let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
    let begun = Instant::now();
    let mut applied = None;
    for batch in 0..50_i64 {
        let changes = (0..500)
            .flat_map(|n| {
                let key = format!("conversation-{batch}-{n:032}");
                let put = Change::Put { key: key.clone(), value: Bytes::from_static(&[7; 100]) };
                [put, Change::Schedule { key, at: Timestamp(batch * 500 + n), tag: 0 }]
            })
            .collect();
        let next = Offset(batch + 1);
        world.gate.apply(&view, epoch, applied, next, changes).await.expect("apply");
        applied = Some(next);
    }
    let rate = 50_000.0 / begun.elapsed().as_secs_f64();
    println!("apply in batches of 1,000 changes: {rate:.0} changes/s");
    assert!(rate > 5_000.0, "{rate:.0}/s");
}
