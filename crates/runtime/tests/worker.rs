//! The consume loop in the simulated world: whatever goes wrong at whatever call, each record has its outcome once, in order, and no
//! effect happens twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::Topics;
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Isolation, Offset, Record, Start, TopicName, TopicPartition, TopicSpec};
use connector_ports::{Clock, Ids};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Order, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::replay::replay;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;
use connector_simulated::{Fault, Noise, Plan, SimWorld, When};
use connector_telemetry::Metrics;
use connector_testkit::wait;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

const RECORDS: usize = 24;
const LIMIT: Duration = Duration::from_secs(600);

fn topic(name: &str) -> TopicName {
    name.into()
}

fn append(to: &str, key: &[u8], value: &[u8]) -> Append {
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    Append { topic: topic(to), partition: None, key: Some(key), value: Some(value), headers: vec![] }
}

fn platform(world: &SimWorld) -> Platform {
    let clock: Arc<dyn Clock> = world.clock();
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock,
        ids,
        topics: Topics::new(""),
        partitions: 2,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

/// Copies every record, sends what says `bad` to the dead letter topic.
struct Copier;

#[async_trait]
impl Handler for Copier {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let step = |work: &Work| match (&work.record.key, &work.record.value) {
            (_, Some(value)) if &value[..] == b"bad" => Step::DeadLetter(Reason::new("bad", "it says so")),
            (Some(key), Some(value)) => Step::Done(vec![append("out", key, value)]),
            _ => Step::Done(vec![]),
        };
        Ok(work.iter().map(step).collect())
    }
}

/// Copies, but lets every third record wait twice, the second time as the first of its batch: the positions that were foreseen for its batch do not come.
struct Hesitant(SimWorld);

#[async_trait]
impl Handler for Hesitant {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let until = platform(&self.0).clock.now() + Duration::from_millis(50);
        let mut steps = Copier.handle(work).await?;
        for (step, work) in steps.iter_mut().zip(work) {
            if work.round < 2 && work.record.offset.0 % 3 == 0 {
                *step = Step::Wait { until, appends: vec![] };
            }
        }
        Ok(steps)
    }
}

/// Copies; the records of one key wait until everything else is copied.
struct Patient {
    world: SimWorld,
    others: usize,
}

#[async_trait]
impl Handler for Patient {
    type Fact = ();

    fn lane(&self, record: &Record) -> u64 {
        record.key.as_ref().map_or(0, |key| u64::from(key[0]))
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let until = platform(&self.world).clock.now() + Duration::from_millis(50);
        let waits = values(&self.world, "out").len() < self.others;
        let mut steps = Copier.handle(work).await?;
        for (step, _) in steps.iter_mut().zip(work).filter(|(_, work)| waits && is_of_first_lane(&work.record)) {
            *step = Step::Wait { until, appends: vec![] };
        }
        Ok(steps)
    }
}

/// The other side of an effect: counts what arrived, per record.
type Ledger = Arc<Mutex<Vec<(String, String)>>>;

/// Journals an attempt, makes an effect, writes its outcome; an attempt found in the journal is never repeated.
struct Sender {
    ledger: Ledger,
    world: SimWorld,
    /// Attempts found at take-over, and whether their outcome was committed.
    journal: HashMap<String, bool>,
    waited: bool,
}

#[async_trait]
impl Handler for Sender {
    type Fact = ();

    fn order(&self) -> Order {
        Order::Lanes { at_once: 4 }
    }

    fn lane(&self, record: &Record) -> u64 {
        record.key.as_ref().map_or(0, |key| u64::from(key[0]))
    }

    async fn assigned(&mut self, partition: &TopicPartition, _: Option<Offset>) -> Result<TakeUp, Failure> {
        let log = platform(&self.world).log;
        // An attempt counts although its transaction was aborted; an outcome counts only when it was committed.
        for (name, isolation, concluded) in
            [("journal", Isolation::Uncommitted, false), ("out", Isolation::Committed, true)]
        {
            let source = TopicPartition::new(name, partition.partition);
            let known = &mut self.journal;
            let each = |record: Record| {
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                known.insert(value, concluded);
                Ok(())
            };
            replay(log.as_ref(), &source, Start::Beginning, isolation, each).await?;
        }
        Ok(TakeUp::Committed)
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps = Vec::new();
        for work in work {
            let (Some(key), Some(value)) = (work.record.key.clone(), work.record.value.clone()) else {
                steps.push(Step::Done(vec![]));
                continue;
            };
            let name = String::from_utf8_lossy(&value).into_owned();
            if let Some(concluded) = self.journal.get(&name) {
                steps.push(Step::Done(if *concluded { vec![] } else { vec![append("out", &key, &value)] }));
            } else if work.round == 0 && self.waited {
                let until = platform(&self.world).clock.now() + Duration::from_millis(50);
                steps.push(Step::Wait { until, appends: vec![] });
            } else {
                let ledger = self.ledger.clone();
                let lane = String::from_utf8_lossy(&key).into_owned();
                let run = async move { ledger.lock().expect("ledger").push((lane, name)) }.boxed();
                steps.push(Step::Effect { journal: vec![append("journal", &key, &value)], run });
            }
        }
        Ok(steps)
    }

    async fn conclude(&mut self, work: &Work, (): ()) -> Result<Step<()>, Failure> {
        let (Some(key), Some(value)) = (&work.record.key, &work.record.value) else { return Ok(Step::Done(vec![])) };
        Ok(Step::Done(vec![append("out", key, value)]))
    }
}

async fn prepare(world: &SimWorld) {
    let log = world.calm_log();
    for name in ["in", "in.dlq", "journal", "out"] {
        let spec = TopicSpec { name: topic(name), partitions: 2, replication: 1, settings: vec![] };
        log.create_topic(&spec).await.expect("topic");
    }
    let records = (0..RECORDS).map(|n| append("in", format!("{}", n % 5).as_bytes(), format!("{n}").as_bytes()));
    log.appender().await.expect("appender").append(records.collect()).await.expect("append");
}

fn is_of_first_lane(record: &Record) -> bool {
    record.key.as_deref() == Some(b"0")
}

fn values(world: &SimWorld, name: &str) -> Vec<String> {
    let text = |record: Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    world.history(&topic(name)).into_iter().map(text).collect()
}

async fn serve<H: Handler + 'static>(world: SimWorld, handler: H) {
    serve_with_room_for(4000, world, handler).await;
}

async fn serve_with_room_for<H: Handler + 'static>(buffer: usize, world: SimWorld, handler: H) {
    serve_as(world, handler, |spec| (spec.batch, spec.buffer) = (4, buffer)).await;
}

async fn serve_as<H: Handler + 'static>(world: SimWorld, handler: H, set: impl FnOnce(&mut WorkerSpec)) {
    let mut service = Service::new(platform(&world), CancellationToken::new());
    let mut spec = WorkerSpec::new("test", "group".to_owned(), vec![topic("in")], "one".to_owned());
    set(&mut spec);
    service.worker(spec, handler);
    service.run().await.expect("nothing here is fatal");
}

async fn all_out(world: SimWorld) {
    let out = async || values(&world, "out").len() + values(&world, "in.dlq").len();
    wait::until("every record to come out", LIMIT, async || (out().await >= RECORDS).then_some(())).await;
    wait::still("what would come too often", Duration::from_secs(5), LIMIT, out).await;
}

fn check_order(context: &str, outcomes: &[String]) {
    let mut sorted = outcomes.to_vec();
    sorted.sort_by_key(|value| value.parse::<usize>().unwrap_or(usize::MAX));
    let expected: Vec<_> = (0..RECORDS).map(|n| n.to_string()).collect();
    assert_eq!(sorted, expected, "{context}: each record has one outcome");
    for lane in 0..5 {
        let lane: Vec<usize> =
            outcomes.iter().filter_map(|v| v.parse().ok()).filter(|n: &usize| n % 5 == lane).collect();
        assert!(lane.is_sorted(), "{context}: a lane is out of order: {lane:?}");
    }
}

async fn copied(plan: Plan, seed: u64, waited: bool) -> u64 {
    let context = format!("{plan:?} seed {seed}");
    let world = SimWorld::new(seed).with(plan);
    prepare(&world).await;
    let run = if waited {
        world.run(LIMIT, |world| serve(world.clone(), Hesitant(world)), all_out).await
    } else {
        world.run(LIMIT, |world| serve(world, Copier), all_out).await
    };
    let run = run.unwrap_or_else(|run| panic!("{context}: not finished in time, {run:?}, {:?}", values(&world, "out")));
    check_order(&context, &values(&world, "out"));
    run.points
}

async fn sent(plan: Plan, seed: u64, waited: bool) -> u64 {
    sent_with_room_for(4000, plan, seed, waited).await
}

async fn sent_with_room_for(buffer: usize, plan: Plan, seed: u64, waited: bool) -> u64 {
    let context = format!("{plan:?} seed {seed} room {buffer}");
    let world = SimWorld::new(seed).with(plan);
    prepare(&world).await;
    let ledger = Ledger::default();
    let service = |world: SimWorld| {
        let handler = Sender { ledger: ledger.clone(), world: world.clone(), journal: HashMap::new(), waited };
        serve_with_room_for(buffer, world, handler)
    };
    let run = world.run(LIMIT, service, all_out).await;
    let run = run.unwrap_or_else(|run| panic!("{context}: not finished in time, {run:?}, {:?}", values(&world, "out")));
    check_order(&context, &values(&world, "out"));
    let sent = ledger.lock().expect("ledger").clone();
    let mut once = HashMap::new();
    for (_, name) in &sent {
        *once.entry(name.clone()).or_insert(0) += 1;
    }
    assert!(once.values().all(|count| *count == 1), "{context}: an effect happened twice: {once:?}");
    // Two partitions are sought at take-over; each reading again seeks as well, but for the first.
    let sought = world.trace().iter().filter(|call| **call == "log.seek").count();
    assert!(buffer > RECORDS || sought > 2, "{context}: nothing was read again: {sought}");
    for lane in 0..5 {
        let lane: Vec<usize> =
            sent.iter().filter_map(|(_, v)| v.parse().ok()).filter(|n: &usize| n % 5 == lane).collect();
        assert!(lane.is_sorted(), "{context}: effects of a lane out of order: {lane:?}");
    }
    run.points
}

fn faults() -> [Fault; 5] {
    let (before, after) = (When::Before, When::After);
    [Fault::Crash(before), Fault::Crash(after), Fault::Fail(before), Fault::Fail(after), Fault::Rebalance]
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_copied_once_whatever_happens_at_any_call() {
    for waited in [false, true] {
        let points = copied(Plan::default(), 1, waited).await;
        for point in 0..points {
            for fault in faults() {
                copied(Plan::one(point, fault), 1, waited).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_of_a_batch_that_waits_holds_up_no_other() {
    let world = SimWorld::new(1);
    prepare(&world).await;
    let first = world.history(&topic("in")).iter().filter(|record| is_of_first_lane(record)).count();
    assert!((1..RECORDS).contains(&first), "there are others");
    let service =
        |world: SimWorld| serve_as(world.clone(), Patient { world, others: RECORDS - first }, |spec| spec.batch = 4);
    let run = world.run(LIMIT, service, all_out).await;
    run.unwrap_or_else(|run| panic!("not finished in time, {run:?}, {:?}", values(&world, "out")));
    check_order("a lane waits", &values(&world, "out"));
}

#[tokio::test(start_paused = true)]
async fn an_effect_happens_once_whatever_happens_at_any_call() {
    let points = sent(Plan::default(), 1, false).await;
    for point in 0..points {
        for fault in faults() {
            sent(Plan::one(point, fault), 1, false).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_put_aside_happens_once_whatever_happens_at_any_call() {
    let points = sent_with_room_for(2, Plan::default(), 1, true).await;
    for point in 0..points {
        for fault in faults() {
            sent_with_room_for(2, Plan::one(point, fault), 1, true).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_repeated_in_bad_weather() {
    let noise = Noise { crash_before: 5, crash_after: 5, fail_before: 20, fail_after: 20, rebalance: 5, wipe_gate: 0 };
    for seed in 0..40 {
        copied(Plan::noisy(noise), seed, seed % 2 == 1).await;
        sent(Plan::noisy(noise), seed, seed % 2 == 0).await;
        if seed % 4 < 2 {
            sent_with_room_for(3, Plan::noisy(noise), seed, seed % 2 == 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_goes_to_the_dead_letters_byte_for_byte() {
    let world = SimWorld::new(1);
    prepare(&world).await;
    let mut bad = append("in", b"key", b"bad");
    bad.headers = vec![
        ("origin".into(), Some(Bytes::from_static(b"somewhere"))),
        ("null".into(), None),
        ("empty".into(), Some(Bytes::new())),
    ];
    let appender = world.calm_log().appender().await.expect("appender");
    let at = appender.append(vec![bad.clone()]).await.expect("append").remove(0);
    let dead = |world: SimWorld| async move {
        let done = || !values(&world, "in.dlq").is_empty() && values(&world, "out").len() >= RECORDS;
        wait::until("the dead letter and the rest", LIMIT, async || done().then_some(())).await;
    };
    world.run(LIMIT, |world| serve(world, Copier), dead).await.expect("a dead letter");
    let letter = world.history(&topic("in.dlq")).remove(0);
    assert_eq!((letter.key.clone(), letter.value.clone()), (bad.key, bad.value));
    assert_eq!(letter.source.partition, at.target.partition, "same partition");
    assert_eq!(letter.headers[..3], bad.headers);
    let header = |name: &str| letter.header(name).map(|v| String::from_utf8_lossy(v).into_owned());
    assert_eq!(header("dlq.original-topic").as_deref(), Some("in"));
    assert_eq!(header("dlq.original-offset"), Some(at.offset.0.to_string()));
    assert_eq!(header("dlq.reason").as_deref(), Some("bad"));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_leaves_the_rest_to_the_next() {
    let world = SimWorld::new(3);
    prepare(&world).await;
    let ledger = Ledger::default();
    for _ in 0..50 {
        let shutdown = CancellationToken::new();
        let mut service = Service::new(platform(&world), shutdown.clone());
        let mut spec = WorkerSpec::new("test", "group".to_owned(), vec![topic("in")], "one".to_owned());
        spec.batch = 2;
        let handler = Sender { ledger: ledger.clone(), world: world.clone(), journal: HashMap::new(), waited: false };
        service.worker(spec, handler);
        let running = tokio::spawn(service.run());
        let before = ledger.lock().expect("ledger").len();
        let moved = || before >= RECORDS || ledger.lock().expect("ledger").len() > before;
        wait::until("an effect", LIMIT, async || moved().then_some(())).await;
        shutdown.cancel();
        running.await.expect("joined").expect("drained");
    }
    check_order("drained", &values(&world, "out"));
    assert_eq!(ledger.lock().expect("ledger").len(), RECORDS, "no effect was made twice");
}

/// Copies, ticks, and counts the rounds of its worker, which asks for the tick in each.
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Handler for Counting {
    type Fact = ();

    fn tick_every(&self) -> Option<Duration> {
        // Time stands still for everybody while a worker goes round without a pause.
        assert!(self.0.fetch_add(1, Ordering::Relaxed) < 10_000, "it never rests");
        Some(Duration::from_millis(100))
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        Copier.handle(work).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_without_partitions_rests_between_two_looks() {
    let world = SimWorld::new(1);
    prepare(&world).await;
    let mut members = Vec::new();
    // One more than there are partitions.
    for instance in ["one", "two", "three"] {
        let rounds = Arc::new(AtomicUsize::new(0));
        let mut service = Service::new(platform(&world), CancellationToken::new());
        let spec = WorkerSpec::new("test", "group".to_owned(), vec![topic("in")], instance.to_owned());
        service.worker(spec, Counting(rounds.clone()));
        members.push((tokio::spawn(service.run()), rounds));
    }
    all_out(world.clone()).await;
    check_order("shared", &values(&world, "out"));
    for (running, rounds) in members {
        assert!(!running.is_finished(), "it works on");
        let rounds = rounds.load(Ordering::Relaxed);
        assert!(rounds < 500, "{rounds} rounds in five seconds");
    }
}

/// Handles nothing of partition 0 before everything of partition 1.
struct Dependent {
    world: SimWorld,
    missing: usize,
}

#[async_trait]
impl Handler for Dependent {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps = Copier.handle(work).await?;
        let until = platform(&self.world).clock.now() + Duration::from_millis(50);
        for (step, work) in steps.iter_mut().zip(work) {
            match work.record.source.partition {
                0 if self.missing > 0 => *step = Step::Wait { until, appends: vec![] },
                0 => {}
                _ => self.missing -= 1,
            }
        }
        Ok(steps)
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_waits_does_not_keep_the_others_waiting() {
    let world = SimWorld::new(1);
    prepare(&world).await;
    let missing = world.history(&topic("in")).iter().filter(|record| record.source.partition == 1).count();
    assert!((1..RECORDS).contains(&missing), "both partitions have records");
    let run = world.run(LIMIT, |world| serve(world.clone(), Dependent { world, missing }), all_out).await;
    run.unwrap_or_else(|run| panic!("not finished in time, {run:?}, {:?}", values(&world, "out")));
}

/// Waits for ten seconds, then copies and tells of which partitions each call was.
struct Turns {
    begin: Timestamp,
    world: SimWorld,
    turns: Arc<Mutex<Vec<Vec<u32>>>>,
}

#[async_trait]
impl Handler for Turns {
    type Fact = ();

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        if platform(&self.world).clock.now() < self.begin {
            return Ok(work.iter().map(|_| Step::Wait { until: self.begin, appends: vec![] }).collect());
        }
        let mut partitions: Vec<u32> = work.iter().map(|work| work.record.source.partition).collect();
        partitions.dedup();
        self.turns.lock().expect("turns").push(partitions);
        Copier.handle(work).await
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_that_do_not_share_a_turn_are_served_one_after_the_other() {
    let world = SimWorld::new(1);
    prepare(&world).await;
    let turns = Arc::default();
    let service = |world: SimWorld| {
        let begin = platform(&world).clock.now() + Duration::from_secs(10);
        let handler = Turns { begin, world: world.clone(), turns: Arc::clone(&turns) };
        serve_as(world, handler, |spec| (spec.batch, spec.together) = (4, 1))
    };
    let run = world.run(LIMIT, service, all_out).await;
    run.unwrap_or_else(|run| panic!("not finished in time, {run:?}, {:?}", values(&world, "out")));
    check_order("one partition a turn", &values(&world, "out"));
    let turns = turns.lock().expect("turns").clone();
    assert_eq!(turns[..4], [[0], [1], [0], [1]], "both have a backlog: {turns:?}");
    assert!(turns.iter().all(|turn| turn.len() == 1), "{turns:?}");
}
