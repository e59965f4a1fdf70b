//! Windows in the simulated world: whatever goes wrong at whatever call, each window expires once, and never a renewed one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::event::{CallReceived, Event, MessageReceived, Recorded, TimeSource, WindowCause};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{EventId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::gate::{
    Change, Claim, Due, Epoch, GateError, Grant, Limit, Ownership, Register, Reservation, Snapshot, Timer, View,
};
use connector_ports::log::{Offset, TopicSpec};
use connector_ports::partition::partition_for;
use connector_ports::{Clock, Gate, Ids};
use connector_runtime::emit::Cause;
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_simulated::{BEGINNING, Fault, Noise, Plan, Run, SimWorld, When};
use connector_telemetry::Metrics;
use connector_testkit::event::text_received;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use window_timer::Config;

const PARTITIONS: u32 = 2;
const WINDOW: Duration = Duration::from_secs(20);
const LEAD: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(600);

fn platform(world: &SimWorld) -> Platform {
    let clock: Arc<dyn Clock> = world.clock();
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.log(),
        gate: world.gate(),
        clock,
        ids,
        topics: Topics::new(""),
        partitions: PARTITIONS,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules { closing_soon: vec![LEAD], window: WINDOW, ..Rules::default() },
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

async fn write(world: &SimWorld, stream: &str, name: &str) {
    let message = MessageReceived { wamid: name.into(), ..text_received(world.clock().now() + WINDOW) };
    does(world, stream, name, message.into()).await;
}

async fn call(world: &SimWorld, stream: &str, name: &str) {
    let call = CallReceived {
        phone_number_id: "number".into(),
        call_id: name.into(),
        address: Address::default(),
        window_deadline: world.clock().now() + WINDOW,
    };
    does(world, stream, name, call.into()).await;
}

/// The contact of this stream does something now.
async fn does(world: &SimWorld, stream: &str, name: &str, what: Event) {
    let platform = Platform { log: world.calm_log(), ..platform(world) };
    let cause = Cause {
        organization_id: "acme".into(),
        stream_id: stream.into(),
        cause_id: name.to_owned(),
        command_id: None,
        occurred_at: platform.clock.now(),
        time_source: TimeSource::Whatsapp,
        traceparent: None,
    };
    let append = platform.emitter("test").emit(what, &cause).expect("an event");
    let log = world.calm_log();
    log.appender().await.expect("an appender").append(vec![append]).await.expect("appended");
}

fn history(world: &SimWorld) -> Vec<Recorded> {
    let records = world.history(&Topics::new("").name(Topic::ConversationEvents).into());
    records.iter().map(|r| decode_event(r.value.as_deref().expect("a value")).expect("an event")).collect()
}

/// What was said about windows: what, about whom, seconds from the beginning to the deadline (give or take), how often.
fn said(world: &SimWorld, what: &str) -> BTreeMap<(String, i64), usize> {
    let mut said = BTreeMap::new();
    for Recorded { envelope, event } in history(world) {
        let deadline = match &event {
            Event::WindowOpened(opened) => opened.deadline,
            Event::WindowClosingSoon(soon) => soon.deadline,
            Event::WindowExpired(expired) => expired.deadline,
            _ => continue,
        };
        if event.type_name() == what {
            let seconds = deadline.since(BEGINNING).as_secs();
            *said.entry((envelope.stream_id.to_string(), seconds.cast_signed())).or_default() += 1;
        }
    }
    said
}

async fn story(world: SimWorld) {
    let names = ["a", "b", "c"];
    for name in names {
        write(&world, name, &format!("{name}1")).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    call(&world, "b", "b2").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    call(&world, "c", "c2").await;
    while said(&world, "WindowExpired").len() < 4 || !settled(&world).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    while !settled(&world).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether the views are the fold of the log.
async fn settled(world: &SimWorld) -> bool {
    let mut open: BTreeMap<StreamId, Option<Timestamp>> = BTreeMap::new();
    for Recorded { envelope, event } in history(world) {
        let deadline = open.entry(envelope.stream_id).or_default();
        match event {
            Event::MessageReceived(message) => *deadline = (*deadline).max(message.window_deadline),
            Event::CallReceived(call) => *deadline = (*deadline).max(Some(call.window_deadline)),
            Event::WindowExpired(expired) if *deadline == Some(expired.deadline) => *deadline = None,
            _ => {}
        }
    }
    for (stream, deadline) in open {
        let view = View::new(views::WINDOWS, partition_for(stream.as_str().as_bytes(), PARTITIONS));
        let timer =
            world.calm_gate().timers(&view, &[format!("0.{stream}")]).await.expect("the gate").answers.remove(0);
        let lead = |tag| if tag == 0 { Duration::ZERO } else { LEAD };
        if timer.map(|timer| timer.at + lead(timer.tag)) != deadline {
            return false;
        }
    }
    true
}

/// A world with the topics of the service.
async fn world() -> SimWorld {
    let world = SimWorld::new(7).with(Plan::default());
    for name in [Topics::new("").name(Topic::ConversationEvents), Topics::new("").dlq(Topic::ConversationEvents)] {
        let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    world
}

async fn service(world: SimWorld) {
    let mut service = Service::new(platform(&world), CancellationToken::new());
    window_timer::start(Config::default(), &mut service);
    let _ = service.run().await;
}

async fn run(plan: Plan) -> (SimWorld, Run) {
    let world = world().await.with(plan.clone());
    match world.run(LIMIT, service, story).await {
        Ok(run) => (world, run),
        Err(run) => panic!("not finished under {plan:?}: {run:?}, expired {:?}", said(&world, "WindowExpired")),
    }
}

fn check(world: &SimWorld, plan: &Plan) {
    let windows = [("a", 20), ("b", 30), ("c", 20), ("c", 60)];
    let once = windows.map(|(name, end)| ((name.to_owned(), end), 1)).into_iter().collect();
    assert_eq!(said(world, "WindowExpired"), once, "{plan:?}");
    let opened: usize = said(world, "WindowOpened").values().sum();
    assert_eq!(opened, 4, "{plan:?}");
    for (window, times) in said(world, "WindowClosingSoon") {
        assert!(once.contains_key(&window) && times == 1, "{window:?} {times} {plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_window_is_said_to_open_to_end_soon_and_to_have_ended_within_a_second() {
    let (world, _) = run(Plan::default()).await;
    check(&world, &Plan::default());
    assert_eq!(said(&world, "WindowClosingSoon"), said(&world, "WindowExpired"));
    let causes: BTreeMap<EventId, WindowCause> = history(&world)
        .iter()
        .filter_map(|Recorded { envelope, event }| match event {
            Event::MessageReceived(_) => Some((envelope.event_id, WindowCause::Message)),
            Event::CallReceived(_) => Some((envelope.event_id, WindowCause::Call)),
            _ => None,
        })
        .collect();
    let mut by_call = 0;
    for Recorded { event, .. } in history(&world) {
        if let Event::WindowOpened(opened) = event {
            assert_eq!(causes.get(&opened.source), Some(&opened.cause), "{opened:?}");
            by_call += usize::from(opened.cause == WindowCause::Call);
        }
    }
    assert_eq!(by_call, 1, "the other call renewed an open window");
    for Recorded { envelope, event } in history(&world) {
        if matches!(event, Event::WindowExpired(_) | Event::WindowClosingSoon(_)) {
            let late = envelope.recorded_at.since(envelope.occurred_at);
            assert!(late <= Duration::from_secs(1), "{} was {late:?} late", envelope.event_type);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_the_process_dies_at_each_window_expires_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        for when in [When::Before, When::After] {
            let plan = Plan::one(point, Fault::Crash(when));
            check(&run(plan.clone()).await.0, &plan);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_or_meets_a_wiped_gate_each_window_expires_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        let faults = [
            Fault::Fail(When::Before),
            Fault::Fail(When::After),
            Fault::WipeGate,
            Fault::Rebalance,
            Fault::RollBackGate { to: point / 2 },
        ];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        check(&run(plan.clone()).await.0, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn a_noisy_world_heals() {
    let noise = Noise { crash_before: 3, crash_after: 3, fail_before: 10, fail_after: 10, rebalance: 5, wipe_gate: 5 };
    let plan = Plan::noisy(noise);
    check(&run(plan.clone()).await.0, &plan);
}

/// A gate that is slow at the worst of moments.
struct Slow {
    world: SimWorld,
    inner: Arc<dyn Gate>,
    /// When somebody last looked whether the views are still there.
    looked: watch::Sender<Timestamp>,
    /// When the warning is due.
    warning: AtomicI64,
    /// 0 until the warning is due, 1 until the view gets on after it, then 2.
    chapter: AtomicUsize,
}

impl Slow {
    fn turns(&self, from: usize) -> bool {
        self.chapter.compare_exchange(from, from + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[async_trait]
impl Gate for Slow {
    async fn inspect(&self, view: &View, from: u64) -> Result<u64, GateError> {
        let now = self.world.clock().now();
        self.looked.send_replace(now);
        if now.as_millis() >= self.warning.load(Ordering::Relaxed) && self.turns(0) {
            // Right before the claim the log gets something that the view does not have.
            write(&self.world, "b", "beside").await;
        }
        self.inner.inspect(view, from).await
    }

    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError> {
        if self.turns(1) {
            // The contact writes in time, and the window's end passes before the view is where the log was at the claim.
            write(&self.world, "a", "in time").await;
            tokio::time::sleep(LEAD + Duration::from_secs(3)).await;
        }
        self.inner.apply(view, epoch, expected, next, changes).await
    }

    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        self.inner.acquire(view).await
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        self.inner.read(view, keys).await
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        self.inner.recall(view, ids).await
    }

    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError> {
        self.inner.timers(view, keys).await
    }

    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError> {
        self.inner.claim_due(view, epoch, claim).await
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        self.inner.next_due(view).await
    }

    async fn discard(&self, view: &View) -> Result<(), GateError> {
        self.inner.discard(view).await
    }

    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError> {
        self.inner.reserve(register, ids).await
    }

    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        self.inner.tell(register, partition, ids, complete).await
    }

    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        self.inner.told(register).await
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        self.inner.take(limits, now).await
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        self.inner.give_back(limit).await
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        self.inner.hold(limit_key, until).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_that_was_held_up_until_the_end_of_its_window_does_not_end_one_that_was_renewed() {
    assert_eq!(partition_for(b"a", PARTITIONS), partition_for(b"b", PARTITIONS), "they hold each other up");
    let world = SimWorld::new(7);
    for name in [Topics::new("").name(Topic::ConversationEvents), Topics::new("").dlq(Topic::ConversationEvents)] {
        let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    let (looked, mut seen) = watch::channel(BEGINNING);
    let warning = AtomicI64::new(i64::MAX);
    let slow =
        Arc::new(Slow { world: world.clone(), inner: world.gate(), looked, warning, chapter: AtomicUsize::new(0) });
    let platform = Platform { gate: slow.clone(), ..platform(&world) };
    let mut service = Service::new(platform, CancellationToken::new());
    window_timer::start(Config::default(), &mut service);
    let running = tokio::spawn(service.run());
    // The views are looked at once a second, with the tick that comes then: it shall be the one that claims the warning.
    seen.changed().await.expect("it runs");
    tokio::time::sleep(Duration::from_millis(950)).await;
    let first = world.clock().now();
    write(&world, "a", "first").await;
    slow.warning.store((first + (WINDOW - LEAD)).as_millis(), Ordering::Relaxed);
    while said(&world, "WindowExpired").len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.abort();
    assert_eq!(slow.chapter.load(Ordering::Relaxed), 2, "the story was told to its end");
    let ends = history(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::WindowExpired(expired) if recorded.envelope.stream_id.as_str() == "a" => Some(expired.deadline),
        _ => None,
    });
    let renewed = history(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MessageReceived(message) if recorded.envelope.stream_id.as_str() == "a" => message.window_deadline,
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), renewed.skip(1).collect::<Vec<_>>(), "only the renewed window has an end");
}

/// A message in the partition of another conversation opens no window, neither in the view nor in what is told.
#[tokio::test(start_paused = true)]
async fn a_message_in_the_wrong_partition_opens_no_window() {
    let world = world().await;
    let story = async |world: SimWorld| {
        let home = partition_for(b"a", PARTITIONS);
        let platform = platform(&world);
        let cause = Cause {
            organization_id: "acme".into(),
            stream_id: "a".into(),
            cause_id: "foreign".to_owned(),
            command_id: None,
            occurred_at: platform.clock.now(),
            time_source: TimeSource::Whatsapp,
            traceparent: None,
        };
        let message = text_received(world.clock().now() + WINDOW);
        let foreign = platform.emitter("test").emit(message, &cause).expect("an event");
        let foreign = connector_ports::log::Append { partition: Some((home + 1) % PARTITIONS), ..foreign };
        world.calm_log().appender().await.expect("an appender").append(vec![foreign]).await.expect("appended");
        write(&world, "b", "b1").await;
        while said(&world, "WindowExpired").is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let letters = world.history(&Topics::new("").dlq(Topic::ConversationEvents).into());
        assert_eq!(letters.len(), 1);
        assert!(said(&world, "WindowOpened").keys().all(|(stream, _)| stream == "b"));
    };
    world.run(LIMIT, service, story).await.expect("it finishes");
}
