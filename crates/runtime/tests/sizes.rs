//! Records that are too large, or lead to what is: each goes to the dead letters, and everything else goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::Topics;
use connector_contracts::headers::dlq;
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::log::{
    Append, MAX_RECORD_BYTES, MAX_TAKEN_BYTES, MAX_TOPIC_BYTES, MIN_TOPIC_BYTES, Record, TopicName, TopicSpec,
};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Order, Step};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_telemetry::Metrics;
use connector_testkit::wait;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

const RECORDS: usize = 12;
const LIMIT: Duration = Duration::from_secs(600);

fn topic(name: &str) -> TopicName {
    name.into()
}

fn append(to: &str, key: &str, value: impl Into<Bytes>) -> Append {
    let key = Some(Bytes::copy_from_slice(key.as_bytes()));
    Append { topic: topic(to), partition: Some(0), key, value: Some(value.into()), headers: vec![] }
}

/// A record whose size is this.
fn of_size(to: &str, key: &str, bytes: usize) -> Append {
    let empty = append(to, key, "").size();
    append(to, key, vec![b'x'; bytes - empty])
}

fn platform(world: &SimWorld) -> Platform {
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock: world.clock(),
        ids: world.ids(),
        topics: Topics::new(""),
        partitions: 1,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

/// Where a [`Grower`] writes too much.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Done,
    Wait,
    Journal,
    Outcome,
    Forward,
}

/// Copies. What says `grow` leads to a record of so many bytes. Remembers what it was shown, and which effects it had.
#[derive(Clone)]
struct Grower {
    at: At,
    bytes: usize,
    effects: bool,
    world: SimWorld,
    shown: Arc<Mutex<Vec<usize>>>,
    made: Arc<Mutex<Vec<Bytes>>>,
}

impl Grower {
    fn output(&self, work: &Work, at: At, to: &str) -> Vec<Append> {
        let (key, value) = (work.record.key.clone(), work.record.value.clone().unwrap_or_default());
        let grows = self.at == at && &value[..] == b"grow";
        vec![if grows { of_size(to, "grown", self.bytes) } else { Append { key, ..append(to, "", value) } }]
    }
}

#[async_trait]
impl Handler for Grower {
    type Fact = ();

    fn order(&self) -> Order {
        if self.effects { Order::Lanes { at_once: 2 } } else { Order::Batch }
    }

    fn lane(&self, record: &Record) -> u64 {
        record.key.as_ref().map_or(0, |key| u64::from(key[0]))
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let step = |work: &Work| {
            let value = work.record.value.clone().unwrap_or_default();
            let grows = &value[..] == b"grow";
            self.shown.lock().expect("shown").push(work.record.size());
            if self.effects {
                let made = self.made.clone();
                let run = async move { made.lock().expect("made").push(value) }.boxed();
                return Step::Effect { journal: self.output(work, At::Journal, "journal"), run };
            }
            match self.at {
                At::Wait if grows && work.round == 0 => {
                    let until = platform(&self.world).clock.now() + Duration::from_millis(50);
                    Step::Wait { until, appends: self.output(work, At::Wait, "out") }
                }
                At::Forward if grows => Step::Done(self.output(work, At::Forward, "in")),
                _ => Step::Done(self.output(work, At::Done, "out")),
            }
        };
        Ok(work.iter().map(step).collect())
    }

    async fn conclude(&mut self, work: &Work, (): ()) -> Result<Step<()>, Failure> {
        Ok(Step::Done(self.output(work, At::Outcome, "out")))
    }
}

/// How large the topics are: of the dead letters, and of what comes out.
#[derive(Clone, Copy)]
struct Takes {
    letters: usize,
    out: usize,
}

const DECLARED: Takes = Takes { letters: MAX_RECORD_BYTES, out: MAX_TOPIC_BYTES };

async fn prepare(world: &SimWorld, takes: Takes, hostile: &[Append]) {
    let log = world.calm_log();
    for (name, most) in
        [("in", MAX_TOPIC_BYTES), ("in.dlq", takes.letters), ("journal", MAX_TOPIC_BYTES), ("out", takes.out)]
    {
        let settings = vec![("max.message.bytes".to_owned(), most.to_string())];
        let spec = TopicSpec { name: topic(name), partitions: 1, replication: 1, settings };
        log.create_topic(&spec).await.expect("topic");
    }
    let calm = |n: usize| append("in", &format!("{}", n % 3), format!("{n}"));
    let (first, second) = ((0..RECORDS / 2).map(calm), (RECORDS / 2..RECORDS).map(calm));
    let records = first.chain(hostile.iter().cloned()).chain(second).collect();
    log.appender().await.expect("appender").append(records).await.expect("append");
}

fn calm_out(world: &SimWorld) -> Vec<usize> {
    let value = |record: Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).parse().ok();
    world.history(&topic("out")).into_iter().filter_map(value).collect()
}

async fn serve(world: SimWorld, handler: Grower) {
    let mut service = Service::new(platform(&world), CancellationToken::new());
    let mut spec = WorkerSpec::new("test", "group".to_owned(), vec![topic("in")], "one".to_owned());
    // So few in hand that some are put aside and come back.
    (spec.batch, spec.buffer) = (4, 2);
    service.worker(spec, handler);
    service.run().await.expect("one record does not end a worker");
}

struct Outcome {
    letters: Vec<Record>,
    shown: Vec<usize>,
    made: Vec<Bytes>,
    points: u64,
}

/// Lets a worker have these records among others, and checks that the others came out once, in order.
async fn worked(plan: Plan, at: At, bytes: usize, effects: bool, takes: Takes, hostile: &[Append]) -> Outcome {
    let context = format!("{plan:?}: {at:?} {bytes}, effects: {effects}");
    let world = SimWorld::new(1).with(plan);
    prepare(&world, takes, hostile).await;
    let (shown, made) = (Arc::default(), Arc::default());
    let handler = Grower { at, bytes, effects, world: world.clone(), shown, made };
    let service = |world: SimWorld| serve(world.clone(), Grower { world, ..handler.clone() });
    let count = hostile.len();
    let done = async |world: SimWorld| {
        let out = async || calm_out(&world).len() + world.history(&topic("in.dlq")).len();
        wait::until("everything to come out", LIMIT, async || (out().await >= RECORDS + count).then_some(())).await;
        wait::still("what would come too often", Duration::from_secs(5), LIMIT, out).await;
    };
    let run = world.run(LIMIT, service, done).await;
    let run = run.unwrap_or_else(|run| panic!("{context}: not finished in time, {run:?}"));
    let mut out = calm_out(&world);
    for lane in 0..3 {
        let of_lane: Vec<_> = out.iter().filter(|n| *n % 3 == lane).collect();
        assert!(of_lane.is_sorted(), "{context}: out of order: {of_lane:?}");
    }
    out.sort_unstable();
    assert_eq!(out, (0..RECORDS).collect::<Vec<_>>(), "{context}");
    let letters = world.history(&topic("in.dlq"));
    assert_eq!(letters.len(), count, "{context}");
    for letter in &letters {
        assert_eq!(letter.header(dlq::REASON).expect("a reason"), "too_large", "{context}");
    }
    let (shown, made) = (handler.shown.lock().expect("shown").clone(), handler.made.lock().expect("made").clone());
    Outcome { letters, shown, made, points: run.points }
}

fn grow() -> Append {
    append("in", "1", "grow")
}

#[tokio::test(start_paused = true)]
async fn a_record_that_leads_to_what_does_not_fit_is_a_dead_letter_and_the_rest_goes_on() {
    let bytes = MAX_TOPIC_BYTES + 1;
    for at in [At::Done, At::Wait] {
        let outcome = worked(Plan::default(), at, bytes, false, DECLARED, &[grow(), grow()]).await;
        assert_eq!(outcome.letters[0].value, grow().value, "byte for byte");
        assert_eq!(outcome.letters[0].header(dlq::OMITTED), None);
    }
    worked(Plan::default(), At::Forward, MAX_TOPIC_BYTES + 1, false, DECLARED, &[grow()]).await;
    for at in [At::Journal, At::Outcome] {
        let outcome = worked(Plan::default(), at, bytes, true, DECLARED, &[grow()]).await;
        let grown = outcome.made.iter().filter(|value| &value[..] == b"grow").count();
        assert_eq!(grown, usize::from(at == At::Outcome), "no effect without its journal");
        assert_eq!(outcome.made.len(), RECORDS + grown, "what others did is not done again");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_meanwhile_it_is_one_dead_letter() {
    let faults = [Fault::Crash(When::Before), Fault::Crash(When::After), Fault::Fail(When::Before), Fault::Rebalance];
    let calm = worked(Plan::default(), At::Done, MAX_TOPIC_BYTES + 1, false, DECLARED, &[grow()]).await;
    for point in 0..calm.points {
        for fault in faults {
            worked(Plan::one(point, fault), At::Done, MAX_TOPIC_BYTES + 1, false, DECLARED, &[grow()]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_is_worked_on_is_not_shown_to_anybody() {
    for effects in [false, true] {
        let not = of_size("in", "1", MAX_TAKEN_BYTES + 1);
        let outcome = worked(Plan::default(), At::Done, 0, effects, DECLARED, std::slice::from_ref(&not)).await;
        assert!(outcome.shown.iter().all(|bytes| *bytes <= MAX_TAKEN_BYTES));
        assert_eq!(outcome.letters[0].value, not.value, "byte for byte");
        // The largest of all, with the circumstances: it fits.
        let outcome =
            worked(Plan::default(), At::Done, 0, effects, DECLARED, &[of_size("in", "1", MAX_TOPIC_BYTES)]).await;
        assert_eq!(outcome.letters[0].header(dlq::OMITTED), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_takes_less_than_declared_is_learned_from_its_refusal() {
    let takes = Takes { out: MIN_TOPIC_BYTES, ..DECLARED };
    for (at, effects) in [(At::Done, false), (At::Outcome, true)] {
        let outcome = worked(Plan::default(), at, MIN_TOPIC_BYTES + 1, effects, takes, &[grow()]).await;
        assert_eq!(outcome.letters[0].value, grow().value, "byte for byte");
    }
    // Neither do its dead letters: they tell where the record stands.
    let takes = Takes { letters: MIN_TOPIC_BYTES, ..DECLARED };
    let hostile = of_size("in", "1", MAX_TAKEN_BYTES + 1);
    let outcome = worked(Plan::default(), At::Done, 0, false, takes, std::slice::from_ref(&hostile)).await;
    let letter = &outcome.letters[0];
    assert_eq!(letter.value.as_deref(), Some(&b""[..]), "no tombstone");
    assert_eq!(letter.header(dlq::OMITTED).expect("told"), &hostile.size().to_string());
    assert_eq!(letter.header(dlq::ORIGINAL_OFFSET).expect("told"), &(RECORDS / 2).to_string());
    assert_eq!(letter.key, hostile.key);
}
