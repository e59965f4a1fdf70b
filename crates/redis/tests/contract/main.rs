//! The gate's contract on a real Redis, and what only a real server can do: die, freeze, forget.

mod cluster;
mod damage;
mod secured;

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

impl RealRedis {
    /// The time of the server.
    async fn today_millis(&self, redis: &mut redis::aio::MultiplexedConnection) -> i64 {
        let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(redis).await.expect("TIME");
        seconds * 1_000
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

/// Against a plain list of timers: what is due comes oldest first, nothing twice and nothing never, however buckets fill, empty and move.
#[tokio::test]
async fn timers_in_buckets_are_as_timers_in_one_list() {
    let world = RealRedis::start().await;
    let view = View::new("random", 1);
    let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut timers: std::collections::BTreeMap<String, i64> = std::collections::BTreeMap::new();
    let (mut applied, mut now) = (None, 1_800_000_000_000_i64);
    for round in 0..60_i64 {
        let mut changes = std::collections::BTreeMap::new();
        for _ in 0..random(400) {
            let key = format!("1.k1-{:032x}", random(3_000));
            let at = now + i64::try_from(random(20_000)).expect("small") - 2_000;
            let change = if random(4) == 0 {
                timers.remove(&key);
                Change::Unschedule { key: key.clone() }
            } else {
                timers.insert(key.clone(), at);
                Change::Schedule { key: key.clone(), at: Timestamp(at), tag: 0 }
            };
            changes.insert(key, change);
        }
        let next = Offset(round + 1);
        world.gate.apply(&view, epoch, applied, next, changes.into_values().collect()).await.expect("apply");
        applied = Some(next);
        let first = world.gate.next_due(&view).await.expect("ask").map(|at| at.0);
        assert_eq!(first, timers.values().min().copied(), "round {round}");
        let limit = 1 + usize::try_from(random(200)).expect("small");
        let claim = Claim {
            since: Timestamp(if random(5) == 0 { now - 1_000 } else { 0 }),
            now: Timestamp(now),
            lease: Duration::from_secs(1_000),
            limit,
        };
        let due = world.gate.claim_due(&view, epoch, claim).await.expect("claim");
        let mut expected: Vec<i64> = timers.values().copied().filter(|at| (claim.since.0..=now).contains(at)).collect();
        expected.sort_unstable();
        expected.truncate(limit);
        assert_eq!(due.iter().map(|due| due.at.0).collect::<Vec<_>>(), expected, "round {round}");
        let gone = due.iter().map(|due| Change::Unschedule { key: due.key.clone() }).collect();
        for due in &due {
            assert_eq!(timers.remove(&due.key), Some(due.at.0), "round {round}");
        }
        world.gate.apply(&view, epoch, applied, next, gone).await.expect("apply");
        let mut from = 0;
        loop {
            from = world.gate.inspect(&view, from).await.expect("inspect");
            if from == 0 {
                break;
            }
        }
        now += 1_000;
    }
    let keys: Vec<String> = (0..3_000).map(|n| format!("1.k1-{n:032x}")).collect();
    let found = world.gate.timers(&view, &keys).await.expect("timers");
    assert_eq!(found.applied, applied);
    let found: Vec<_> = found.answers.into_iter().map(|timer| timer.map(|timer| timer.at.0)).collect();
    assert_eq!(found, keys.iter().map(|key| timers.get(key).copied()).collect::<Vec<_>>());
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

/// The client library keeps an answer to AUTH that is no yes, and would give it for the answer to everything from then on.
#[tokio::test]
async fn who_was_sent_away_comes_in_as_soon_as_there_is_a_place() {
    let options = RedisOptions { password: true, ..RedisOptions::default() };
    let start = move || RedisServer::start(&options).unwrap_or_else(|error| panic!("{error}"));
    let server = tokio::task::spawn_blocking(start).await.expect("no panic");
    let config = RedisConfig {
        timeout: Duration::from_millis(500),
        password: Some(connector_settings::Secret::new(servers::PASSWORD)),
        ..RedisConfig::at(&server.url())
    };
    let gate = RedisGate::new(&config).expect("a gate");
    let view = View::new("places", 0);
    gate.acquire(&view).await.expect("it comes in");
    let full = server.fill().expect("it is full");
    // The first call finds its connection broken; it is the second one that is told.
    for _ in 0..3 {
        let error = gate.acquire(&view).await.expect_err("there is no place");
        assert!(matches!(error, GateError::Unavailable { .. }), "{error}");
    }
    assert!(full.sent_away() > 0);
    full.end().expect("it has places again");
    connector_testkit::wait::until("a place", Duration::from_secs(10), async || gate.acquire(&view).await.ok()).await;
}

/// A Redis without a free place for a client answers with an error to whatever comes first, and with a password that is AUTH: it is a
/// matter of waiting, with a wrong one it is not.
#[tokio::test]
async fn a_redis_without_a_free_place_is_waited_for() {
    let server = server().await;
    let client = redis::Client::open(server.url()).expect("a client");
    let mut operator = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut set = async |name: &str, value: &str| {
        let mut command = redis::cmd("CONFIG");
        let _: String = command.arg("SET").arg(name).arg(value).query_async(&mut operator).await.expect("CONFIG SET");
    };
    set("requirepass", "correct").await;
    let with = |password: Option<&str>| {
        let config = RedisConfig {
            timeout: Duration::from_millis(500),
            password: password.map(connector_settings::Secret::new),
            ..RedisConfig::at(&server.url())
        };
        RedisGate::new(&config).expect("a gate")
    };
    let view = View::new("places", 0);
    with(Some("correct")).acquire(&view).await.expect("it comes in");
    set("maxclients", "1").await;
    for (password, gate) in [("the right one", with(Some("correct"))), ("none", with(None))] {
        for _ in 0..3 {
            let error = gate.acquire(&view).await.expect_err("there is no place");
            assert!(matches!(error, GateError::Unavailable { .. }), "{password}: {error}");
            let words = error.to_string().to_lowercase();
            assert!(!words.contains("password") && !words.contains("authentication"), "{password}: {words}");
        }
    }
    let waiting = with(Some("correct"));
    waiting.acquire(&view).await.expect_err("there is no place");
    set("maxclients", "100").await;
    connector_testkit::wait::until("a place", Duration::from_secs(10), async || waiting.acquire(&view).await.ok())
        .await;
    for (password, why) in [(Some("guessed"), "WRONGPASS"), (None, "NOAUTH")] {
        let error = with(password).acquire(&view).await.expect_err("nobody comes in");
        assert!(matches!(&error, GateError::Fatal { reason } if reason.contains(why)), "{error:?}");
    }
}
