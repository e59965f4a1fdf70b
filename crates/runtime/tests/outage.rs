//! An outage restarts nobody: a loop that waits for the log or the gate is alive, wherever in its round it waits. A loop that is stuck in its
//! handler is not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::Topics;
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{Append, Appended, Offset, TopicPartition, TopicSpec};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Order, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_runtime::status::Status;
use connector_runtime::worker::WorkerSpec;
use connector_simulated::{Noise, Plan, SimWorld};
use connector_telemetry::Metrics;
use tokio_util::sync::CancellationToken;

/// The bound of `/livez`.
const STUCK: Duration = Duration::from_secs(60);
const OUTAGE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Every call of log and gate fails.
    Everywhere,
    TakingOver,
    Handling,
    Telling,
    /// What a call of the log that does not answer looks like.
    Effects,
}

struct Dependent {
    waits: Waits,
    clock: Arc<dyn Clock>,
    from: Timestamp,
    until: Timestamp,
    hangs: bool,
}

impl Dependent {
    fn answer(&self, at: Waits) -> Result<(), Failure> {
        let now = self.clock.now();
        let away = self.waits == at && now >= self.from && now < self.until;
        if away { Err(Failure::Later("an outage".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Handler for Dependent {
    type Fact = ();

    fn order(&self) -> Order {
        if self.waits == Waits::Effects { Order::Lanes { at_once: 4 } } else { Order::Batch }
    }

    async fn assigned(&mut self, _: &TopicPartition, _: Option<Offset>) -> Result<TakeUp, Failure> {
        self.answer(Waits::TakingOver)?;
        Ok(TakeUp::Committed)
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.answer(Waits::Handling)?;
        let step = |_: &Work| {
            if self.waits == Waits::Effects {
                let (clock, long) = (self.clock.clone(), self.until.since(self.clock.now()));
                Step::Effect { journal: vec![], run: Box::pin(async move { clock.sleep(long).await }) }
            } else {
                Step::Done(vec![])
            }
        };
        Ok(work.iter().map(step).collect())
    }

    async fn conclude(&mut self, _: &Work, (): ()) -> Result<Step<()>, Failure> {
        Ok(Step::Done(vec![]))
    }

    async fn committed(&mut self, _: &[Appended], _: &[(TopicPartition, Offset)]) -> Result<(), Failure> {
        self.answer(Waits::Telling)
    }
}

async fn write(world: &SimWorld, key: u64) {
    let append = Append {
        topic: "in".into(),
        partition: None,
        key: Some(Bytes::from(key.to_string())),
        value: Some(Bytes::from_static(b"x")),
        headers: vec![],
    };
    world.calm_log().appender().await.expect("an appender").append(vec![append]).await.expect("appended");
}

/// The longest time for which `/livez` has seen the loop go round not once.
async fn longest_silence(waits: Waits, hangs: bool, after: Duration) -> Duration {
    let world = SimWorld::new(7);
    for name in ["in", "in.dlq"] {
        let spec = TopicSpec { name: name.into(), partitions: 2, replication: 1, settings: vec![] };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    let clock: Arc<dyn Clock> = world.clock();
    let platform = Platform {
        log: world.log(),
        gate: world.gate(),
        clock: clock.clone(),
        ids: world.ids(),
        topics: Topics::new(""),
        partitions: 2,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    };
    let from = clock.now() + after;
    let until = from + OUTAGE;
    let shutdown = CancellationToken::new();
    let mut service = Service::new(platform, shutdown.clone());
    let spec = WorkerSpec::new("test", "group".to_owned(), vec!["in".into()], "one".to_owned());
    service.worker(spec, Dependent { waits, clock: clock.clone(), from, until, hangs });
    let status: Status = service.statuses().remove(0).1;
    let running = tokio::spawn(service.run());
    let (mut longest, mut key) = (Duration::ZERO, 0);
    let away = Noise { fail_before: 1000, ..Noise::default() };
    while clock.now() < until + Duration::from_secs(20) {
        let now = clock.now();
        if waits == Waits::Everywhere {
            let noise = if now >= from && now < until { away } else { Noise::default() };
            let _same = world.clone().with(Plan::noisy(noise));
        }
        key += 1;
        write(&world, key).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let last = status.alive_at();
        // What `/livez` looks at: a part that has never gone round is one that is starting.
        if last > Timestamp::EPOCH {
            longest = longest.max(clock.now().since(last));
        }
    }
    assert!(!running.is_finished(), "{waits:?}: waiting is no failure");
    if !hangs {
        assert!(status.is_ready(), "{waits:?}: it works on after the outage");
    }
    running.abort();
    longest
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_two_minutes_restarts_nobody_wherever_the_loop_waits() {
    for waits in [Waits::Everywhere, Waits::TakingOver, Waits::Handling, Waits::Telling, Waits::Effects] {
        for after in [Duration::ZERO, Duration::from_secs(10)] {
            let silence = longest_silence(waits, false, after).await;
            assert!(silence < STUCK / 2, "{waits:?} after {after:?}: not alive for {silence:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_comes_back_is_not_alive() {
    assert!(longest_silence(Waits::Handling, true, Duration::ZERO).await > STUCK);
}
