//! What was not written by the gate: it is noticed, and the view counts as empty.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Claim, Epoch, GateError, Grant, Limit, Register, Reservation, View};
use connector_ports::log::Offset;

use super::RealRedis;

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
        ("DEL", "i", &[]),
        ("DEL", "d", &[]),
        ("DEL", "m", &[]),
        ("HDEL", "m", &["id"]),
        ("DEL", "b", &[]),
        // Seen by the pass that looks through everything.
        ("ZADD", "z", &["XX", "4000000000000", "bucket"]),
        ("DEL", "z:bucket", &[]),
        ("ZREM", "z:bucket", &["timer"]),
        ("ZADD", "z:bucket", &["1800000000000", "foreign"]),
        ("ZADD", "z:bucket", &["XX", "1800000000000", "timer"]),
        ("ZADD", "z:bucket", &["XX", "1800000000000000", "timer"]),
        ("ZADD", "z:2047", &["3686400000000000", "foreign"]),
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
                Change::Schedule { key: "claimed".to_owned(), at: Timestamp(1_700_000_000_000), tag: 0 },
                Change::Mark { id: Bytes::from_static(b"id"), digest: 7, until },
            ]
        };
        world.gate.apply(&view, epoch, None, Offset(7), fill()).await.expect("apply");
        let (now, lease) = (Timestamp(1_700_000_000_000), Duration::from_secs(30));
        let claim = Claim { since: Timestamp::EPOCH, now, lease, limit: 10 };
        assert_eq!(world.gate.claim_due(&view, epoch, claim).await.expect("claim").len(), 1);
        let base = format!("whatsapp-connector:{{{view}}}:2");
        let day = until.as_millis() / 86_400_000;
        let bucket = bucket_of(&mut redis, &base, "timer").await;
        let arguments: Vec<&str> = arguments.iter().map(|one| if *one == "bucket" { &*bucket } else { *one }).collect();
        let key = match part {
            "m" => format!("{base}:m:{day}"),
            "z:bucket" => format!("{base}:z:{bucket}"),
            part => format!("{base}:{part}"),
        };
        let damage = format!("{command} {part} {arguments:?}");
        let mut command = redis::cmd(command);
        command.arg(key).arg(&arguments);
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

/// The number of the bucket in which a timer waits.
async fn bucket_of(redis: &mut redis::aio::MultiplexedConnection, base: &str, member: &str) -> String {
    let buckets: Vec<String> =
        redis::cmd("ZRANGE").arg(format!("{base}:z")).arg(0).arg(-1).query_async(redis).await.expect("buckets");
    for bucket in buckets {
        let mut score = redis::cmd("ZSCORE");
        score.arg(format!("{base}:z:{bucket}")).arg(member);
        if score.query_async::<Option<String>>(redis).await.expect("score").is_some() {
            return bucket;
        }
    }
    panic!("{member} waits in no bucket");
}

/// Whoever reads a bucket near which nothing is any more does not take that for "there is no timer".
#[tokio::test]
async fn a_bucket_that_is_missing_is_not_taken_for_an_empty_one() {
    let world = RealRedis::start().await;
    let client = redis::Client::open(world.url.as_str()).expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
    let timers = |n: i64| Change::Schedule { key: format!("timer-{n}"), at: Timestamp(1_800_000_000_000 + n), tag: 0 };
    type Call = fn(Arc<dyn Gate>, View, Epoch) -> futures::future::BoxFuture<'static, Result<(), GateError>>;
    let calls: [Call; 3] = [
        |gate, view, _| {
            Box::pin(async move {
                let found = gate.timers(&view, &["timer-0".to_owned()]).await?;
                assert_eq!((found.applied, found.answers), (None, vec![None]));
                Ok(())
            })
        },
        |gate, view, epoch| {
            let claim = Claim {
                since: Timestamp::EPOCH,
                now: Timestamp(1_900_000_000_000),
                lease: Duration::from_secs(1),
                limit: 1_000,
            };
            Box::pin(async move { gate.claim_due(&view, epoch, claim).await.map(drop) })
        },
        |gate, view, _| Box::pin(async move { gate.next_due(&view).await.map(drop) }),
    ];
    for (number, call) in (0..).zip(calls) {
        let view = View::new("bucket", number);
        let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
        world.gate.apply(&view, epoch, None, Offset(7), (0..100).map(timers).collect()).await.expect("apply");
        let base = format!("whatsapp-connector:{{{view}}}:2");
        let bucket = bucket_of(&mut redis, &base, "timer-0").await;
        let _: u64 =
            redis::cmd("DEL").arg(format!("{base}:z:{bucket}")).query_async(&mut redis).await.expect("lose it");
        match call(world.gate.clone(), view.clone(), epoch).await {
            Ok(()) | Err(GateError::Conflict { actual: None, .. }) => {}
            Err(error) => panic!("call {number}: {error:?}"),
        }
        assert_eq!(world.gate.read(&view, &[]).await.expect("read").applied, None, "call {number}");
    }
}

/// A part of another type breaks every script that comes near it: the view counts as empty, is built again, and nothing is left of it.
#[tokio::test]
async fn a_part_of_another_type_heals() {
    let world = RealRedis::start().await;
    let client = redis::Client::open(world.url.as_str()).expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
    let until = Timestamp(world.today_millis(&mut redis).await + 86_400_000);
    let keys = ["value".to_owned()];
    let ids = [Bytes::from_static(b"id")];
    for (number, part) in (0..).zip(["c", "v", "z", "i", "d", "b", "m", "z:bucket"]) {
        for round in 0..5 {
            let view = View::new("type", number * 10 + round);
            let fill = || {
                vec![
                    Change::Put { key: "value".to_owned(), value: Bytes::from_static(b"{}") },
                    Change::Schedule { key: "timer".to_owned(), at: Timestamp(1_800_000_000_000), tag: 0 },
                    Change::Mark { id: ids[0].clone(), digest: 7, until },
                ]
            };
            let epoch = world.gate.acquire(&view).await.expect("acquire").epoch;
            world.gate.apply(&view, epoch, None, Offset(7), fill()).await.expect("apply");
            let base = format!("whatsapp-connector:{{{view}}}:2");
            let bucket = bucket_of(&mut redis, &base, "timer").await;
            let key = match part {
                "m" => format!("{base}:m:{}", until.as_millis() / 86_400_000),
                "z:bucket" => format!("{base}:z:{bucket}"),
                part => format!("{base}:{part}"),
            };
            let _: redis::Value =
                redis::cmd("SET").arg(&key).arg("foreign").query_async(&mut redis).await.expect("SET");
            // Whoever comes first; nobody is told that the gate is away.
            match round {
                0 => drop(world.gate.acquire(&view).await.expect("acquire")),
                1 => drop(world.gate.read(&view, &keys).await.expect("read")),
                2 => drop(world.gate.recall(&view, &ids).await.expect("recall")),
                3 => match world.gate.apply(&view, epoch, Some(Offset(7)), Offset(8), fill()).await {
                    Ok(()) | Err(GateError::Conflict { actual: None, .. }) => {}
                    other => panic!("{part}: {other:?}"),
                },
                _ => {
                    world.gate.inspect(&view, 0).await.expect("inspect");
                    world.gate.inspect(&view, 1).await.expect("inspect");
                }
            }
            // What its owner does once it finds the view empty, or a second before that.
            for _ in 0..2 {
                let ownership = world.gate.acquire(&view).await.expect("acquire");
                let next = Offset(ownership.applied.map_or(0, |applied| applied.0) + 9);
                match world.gate.apply(&view, ownership.epoch, ownership.applied, next, fill()).await {
                    Ok(()) | Err(GateError::Conflict { actual: None, .. }) => {}
                    other => panic!("{part}, {round}: {other:?}"),
                }
            }
            let found = world.gate.read(&view, &keys).await.expect("read");
            assert_eq!(found.answers, [Some(Bytes::from_static(b"{}"))], "{part}, {round}");
            assert_eq!(world.gate.recall(&view, &ids).await.expect("recall").answers, [Some(7)], "{part}, {round}");
            let timers = world.gate.timers(&view, &["timer".to_owned()]).await.expect("timers");
            assert!(timers.applied.is_some() && timers.answers[0].is_some(), "{part}, {round}");
        }
    }
}

/// Limiters, too: what is no limiter is one that nothing was taken from.
#[tokio::test]
async fn a_limiter_of_another_type_heals() {
    let world = RealRedis::start().await;
    let client = redis::Client::open(world.url.as_str()).expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
    let limit = Limit { key: "damaged".to_owned(), interval: Duration::from_secs(1), burst: 1 };
    let key = "whatsapp-connector:rate:{damaged}";
    let now = Timestamp(1_900_000_000_000);
    for wrong in [&["RPUSH", key, "x"][..], &["SET", key, "foreign words"], &["SET", key, "one"]] {
        let damage = async |redis: &mut redis::aio::MultiplexedConnection| {
            let _: redis::Value = redis::cmd("DEL").arg(key).query_async(redis).await.expect("DEL");
            let mut command = redis::cmd(wrong[0]);
            let _: redis::Value = command.arg(&wrong[1..]).query_async(redis).await.expect("damage");
        };
        damage(&mut redis).await;
        world.gate.give_back(&limit).await.expect("give back");
        let grants = world.gate.take(&[limit.clone(), limit.clone()], now).await.expect("take");
        assert!(matches!(grants[..], [Grant::Granted, Grant::NotBefore(_)]), "{wrong:?}: {grants:?}");
        damage(&mut redis).await;
        world.gate.hold(&limit.key, Timestamp(now.0 + 5_000)).await.expect("hold");
        let grants = world.gate.take(std::slice::from_ref(&limit), now).await.expect("take");
        assert!(matches!(grants[..], [Grant::NotBefore(_)]), "{wrong:?}: {grants:?}");
    }
}

/// Registers, too: what was put there by hand is taken away, and the register answers again once it was told everything anew.
#[tokio::test]
async fn a_damaged_register_of_ids_heals() {
    let world = RealRedis::start().await;
    let client = redis::Client::open(world.url.as_str()).expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
    let register = Register { name: "damaged", teller: "one", partitions: 2 };
    let until = Timestamp(4_000_000_000_000);
    let id = |name: &'static str, digest: u64| Reservation { id: Bytes::from_static(name.as_bytes()), digest, until };
    let known = [id("a", 1), id("b", 2)];
    let tell = async || {
        world.gate.tell(&register, 0, &known, true).await.expect("tell");
        world.gate.tell(&register, 1, &[], true).await.expect("tell");
    };
    let (id_key, told_key) = ("whatsapp-connector:id:damaged:61", "whatsapp-connector:told:{damaged/one}");
    for wrong in [
        &["RPUSH", id_key, "x"][..],
        &["SET", id_key, "foreign words"],
        &["SET", id_key, "-1"],
        &["SET", told_key, "x"],
        &["RPUSH", told_key, "x"],
        &["SADD", told_key, "foreign"],
    ] {
        // Whoever comes first.
        for first in ["reserve", "tell", "told"] {
            tell().await;
            // A foreign member among the ones of ours is a set of another one.
            let _: redis::Value = redis::cmd("DEL").arg(wrong[1]).query_async(&mut redis).await.expect("DEL");
            let mut damage = redis::cmd(wrong[0]);
            let _: redis::Value = damage.arg(&wrong[1..]).query_async(&mut redis).await.expect("damage");
            match first {
                "reserve" => {
                    let found = world.gate.reserve(&register, &known).await.expect("reserve");
                    assert_eq!(found, None, "{wrong:?}: nothing is given out on it");
                }
                "tell" => tell().await,
                _ => drop(world.gate.told(&register).await.expect("told")),
            }
            // What its tellers do as long as it was not told.
            let mut rounds = 0;
            let found = loop {
                if let Some(found) = world.gate.reserve(&register, &[id("b", 9), id("a", 9)]).await.expect("reserve") {
                    break found;
                }
                rounds += 1;
                assert!(rounds < 3, "{wrong:?}, {first}: it never heals");
                assert!(
                    world.gate.told(&register).await.expect("told").len() < 2,
                    "{wrong:?}, {first}: nobody tells it"
                );
                tell().await;
            };
            assert_eq!(found, [2, 1], "{wrong:?}, {first}");
        }
    }
}
