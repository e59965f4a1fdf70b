//! A small service that copies a topic and counts in the gate, right and wrong, under every fault.

use std::time::Duration;

use bytes::Bytes;
use connector_ports::Transactor;
use connector_ports::gate::{Change, Epoch, View};
use connector_ports::log::{
    Append, Consumed, LogError, Offset, Polled, Reader, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};
use connector_simulated::{Fate, Fault, Noise, Plan, Run, SimWorld, When};
use connector_testkit::wait;

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const LIMIT: Duration = Duration::from_secs(3600);
const VIEW: View = View::new("counts", 0);

fn record(topic: &str, value: &str) -> Append {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    Append { topic: topic.into(), partition: Some(0), key: None, value, headers: vec![] }
}

async fn scene(seed: u64, plan: Plan) -> SimWorld {
    let world = SimWorld::new(seed).with(plan);
    let log = world.calm_log();
    for name in [INPUT, OUTPUT] {
        let spec = TopicSpec { name: name.into(), partitions: 1, replication: 1, settings: vec![] };
        log.create_topic(&spec).await.expect("a topic");
    }
    let appender = log.appender().await.expect("an appender");
    let input = (0..6).map(|n| record(INPUT, &n.to_string())).collect();
    appender.append(input).await.expect("append");
    world
}

fn values(world: &SimWorld, topic: &str) -> Vec<String> {
    let text = |value: Option<Bytes>| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
    world.history(&TopicName::from(topic)).into_iter().map(|record| text(record.value)).collect()
}

fn subscription() -> Subscription {
    Subscription { group: "copy".into(), topics: vec![INPUT.into()], member: None, start: Start::Beginning }
}

fn next_position(records: &[connector_ports::log::Record]) -> (TopicPartition, Offset) {
    let last = records.last().expect("a poll brings at least one record");
    (last.source.clone(), last.offset.next())
}

fn copies(records: &[connector_ports::log::Record]) -> Vec<Append> {
    let copy = |read: &connector_ports::log::Record| Append { value: read.value.clone(), ..record(OUTPUT, "") };
    records.iter().map(copy).collect()
}

/// Consume, append, commit in one transaction; anything doubtful ends the process, which is started anew.
async fn copy_exactly_once(world: SimWorld) -> Result<(), LogError> {
    let log = world.log();
    let mut transactor: Box<dyn Transactor> = log.transactor("copy-0").await?;
    let mut reader: Box<dyn Reader> = log.subscribe(subscription()).await?;
    loop {
        match reader.poll(Duration::from_secs(1), 2).await? {
            Polled::Records(records) => {
                transactor.append(copies(&records)).await?;
                let membership = reader.membership().await?;
                let (partition, next) = next_position(&records);
                let positions = vec![(partition, next.into())];
                transactor.commit(Some(Consumed { group: "copy".into(), membership, positions })).await?;
            }
            Polled::Revoked(partitions) => reader.release(&partitions).await?,
            _ => {}
        }
    }
}

/// Appends, then commits the position: a crash in between repeats.
async fn copy_at_least_once(world: SimWorld) -> Result<(), LogError> {
    let log = world.log();
    let appender = log.appender().await?;
    let mut reader = log.subscribe(subscription()).await?;
    loop {
        if let Polled::Records(records) = reader.poll(Duration::from_secs(1), 2).await? {
            appender.append(copies(&records)).await?;
            reader.commit(&[next_position(&records)]).await?;
        }
    }
}

/// Until the output has that many records and nothing is left to do.
async fn until_copied(world: SimWorld, count: usize) {
    let copied = async || values(&world, OUTPUT).len();
    wait::until("every record to be copied", LIMIT, async || (copied().await >= count).then_some(())).await;
    wait::still("what would be repeated", Duration::from_secs(10), LIMIT, copied).await;
}

async fn run_exactly_once(world: &SimWorld) -> Run {
    let service = async |world: SimWorld| drop(copy_exactly_once(world).await);
    world.run(LIMIT, service, |world| until_copied(world, 6)).await.expect("the service gets it done")
}

const EXPECTED: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

#[tokio::test(start_paused = true)]
async fn a_run_without_faults_counts_its_points() {
    let world = scene(1, Plan::default()).await;
    let run = run_exactly_once(&world).await;
    assert_eq!(values(&world, OUTPUT), EXPECTED);
    assert_eq!(run.starts, 1);
    let batch = ["log.poll.records", "transactor.append", "transactor.commit"];
    let expected: Vec<&str> =
        ["log.transactor", "log.subscribe", "log.poll.assigned"].into_iter().chain(batch.repeat(3)).collect();
    assert_eq!(world.trace(), expected);
    assert_eq!(run.points, expected.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn transactions_survive_every_fault_at_every_point() {
    let calm = scene(1, Plan::default()).await;
    let points = run_exactly_once(&calm).await.points;
    let faults = [
        Fault::Crash(When::Before),
        Fault::Crash(When::After),
        Fault::Fail(When::Before),
        Fault::Fail(When::After),
        Fault::Rebalance,
    ];
    for point in 0..points {
        for fault in faults {
            let world = scene(1, Plan::one(point, fault)).await;
            let run = run_exactly_once(&world).await;
            assert_eq!(values(&world, OUTPUT), EXPECTED, "{fault:?} at {point}, {}", world.trace().join(" "));
            assert!(run.starts > 1 || !matches!(fault, Fault::Crash(_)), "a crash starts it anew");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_survive_every_pair_of_crashes() {
    let calm = scene(1, Plan::default()).await;
    let points = run_exactly_once(&calm).await.points;
    for first in 0..points {
        for second in first + 1..first + points {
            let plan = Plan::two((first, Fault::Crash(When::After)), (second, Fault::Crash(When::Before)));
            let world = scene(1, plan).await;
            run_exactly_once(&world).await;
            assert_eq!(values(&world, OUTPUT), EXPECTED, "crashes at {first} and {second}");
        }
    }
}

/// The world must be able to find what is wrong, or it proves nothing.
#[tokio::test(start_paused = true)]
async fn a_service_without_transactions_is_caught() {
    let mut wrong = 0;
    for point in 0..12 {
        let world = scene(1, Plan::one(point, Fault::Crash(When::After))).await;
        let service = async |world: SimWorld| drop(copy_at_least_once(world).await);
        world.run(LIMIT, service, |world| until_copied(world, 6)).await.expect("it gets done");
        wrong += usize::from(values(&world, OUTPUT) != EXPECTED);
    }
    assert!(wrong > 0, "a crash between append and commit repeats records");
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_the_transaction_open_and_the_next_owner_aborts_it() {
    let world = scene(1, Plan::default()).await;
    world.crash_at(2, When::Before);
    let log = world.log();
    let mut transactor = log.transactor("tx").await.expect("a transactor");
    transactor.append(vec![record(OUTPUT, "left open")]).await.expect("append");
    tokio::select! {
        biased;
        _ = transactor.commit(None) => panic!("a dead process gets no answer"),
        () = world.crashed() => {}
    }
    world.restart();
    let fates = |world: &SimWorld| world.appended(&OUTPUT.into()).into_iter().map(|(_, fate)| fate).collect::<Vec<_>>();
    assert_eq!(fates(&world), [Fate::Open]);
    let zombie =
        tokio::time::timeout(Duration::from_secs(100), transactor.append(vec![record(OUTPUT, "zombie")])).await;
    assert!(zombie.is_err(), "the former incarnation gets no answer");
    world.log().transactor("tx").await.expect("the next owner");
    assert_eq!(fates(&world), [Fate::Aborted]);
}

#[tokio::test(start_paused = true)]
async fn a_zombie_cannot_commit_after_a_rebalance() {
    // subscribe, assigned, records, transactor, append: then the commit.
    let world = scene(1, Plan::one(5, Fault::Rebalance)).await;
    let log = world.log();
    let mut reader = log.subscribe(subscription()).await.expect("subscribe");
    let mut records = Vec::new();
    while records.is_empty() {
        if let Polled::Records(polled) = reader.poll(Duration::from_secs(1), 10).await.expect("poll") {
            records = polled;
        }
    }
    let mut transactor = log.transactor("tx").await.expect("a transactor");
    transactor.append(copies(&records)).await.expect("append");
    let membership = reader.membership().await.expect("it does not know yet");
    let (partition, next) = next_position(&records);
    let consumed = Consumed { group: "copy".into(), membership, positions: vec![(partition, next.into())] };
    let error = transactor.commit(Some(consumed)).await.expect_err("the partition was taken away");
    assert!(matches!(error, LogError::Fenced { .. }), "{error:?}");
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(reader.poll(Duration::from_secs(1), 10).await.expect("poll"));
    }
    let partitions = vec![TopicPartition::new(INPUT, 0)];
    assert_eq!(told, [Polled::Lost(partitions.clone()), Polled::Assigned(partitions)]);
}

#[tokio::test(start_paused = true)]
async fn the_gate_rolls_back_and_is_wiped_where_the_plan_says() {
    let plan = Plan::two((3, Fault::RollBackGate { to: 2 }), (5, Fault::WipeGate));
    let world = scene(1, plan).await;
    let gate = world.gate();
    let put = |n: i64| vec![Change::Put { key: "n".into(), value: Bytes::from(n.to_string()) }];
    let Epoch(_) = gate.acquire(&VIEW).await.expect("point 0").epoch;
    let epoch = gate.acquire(&VIEW).await.expect("point 1").epoch;
    gate.apply(&VIEW, epoch, None, Offset(1), put(1)).await.expect("point 2");
    // Point 3: back to before the apply.
    assert_eq!(gate.read(&VIEW, &["n".into()]).await.expect("point 3").applied, None);
    gate.apply(&VIEW, epoch, None, Offset(2), put(2)).await.expect("point 4");
    assert_eq!(gate.read(&VIEW, &["n".into()]).await.expect("point 5").answers, [None]);
}

/// Everything at once, told apart by the seed.
async fn noisy(seed: u64) -> (Vec<&'static str>, Vec<connector_ports::log::Record>, u32) {
    let noise =
        Noise { crash_before: 30, crash_after: 30, fail_before: 50, fail_after: 50, rebalance: 50, wipe_gate: 20 };
    let world = scene(seed, Plan::noisy(noise)).await;
    let run = run_exactly_once(&world).await;
    assert_eq!(values(&world, OUTPUT), EXPECTED, "seed {seed}");
    (world.trace(), world.history(&OUTPUT.into()), run.starts)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    // A runtime per run: the virtual time begins anew.
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(noisy(seed))
    };
    let runs: Vec<_> = (0..50).map(run).collect();
    for (seed, first) in runs.iter().enumerate() {
        assert_eq!(run(seed as u64), *first, "seed {seed}");
    }
    let traces: std::collections::BTreeSet<_> = runs.iter().map(|(trace, ..)| trace).collect();
    assert!(traces.len() > 40, "seeds differ: {} of 50", traces.len());
    assert!(runs.iter().any(|(_, _, starts)| *starts > 1), "some of them crash");
}
