//! The audit: a timer that somebody wrote by hand, with everything right about it but the time, is found and healed; a view that is
//! what the log says is left alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::{Topic, Topics};
use connector_domain::event::{Event, TimeSource, WindowExpired};
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Change, Epoch, Timer, View};
use connector_ports::log::{Offset, TopicSpec};
use connector_ports::{Clock, Gate, Ids};
use connector_redis::{RedisConfig, RedisGate};
use connector_runtime::audit::{Auditor, Bounds, Look};
use connector_runtime::emit::Cause;
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use connector_testkit::event::text_received;
use connector_testkit::servers::{RedisOptions, RedisServer};
use tokio_util::sync::CancellationToken;
use window_timer::{Config, Windows};

const WINDOW: Duration = Duration::from_secs(24 * 3600);
const VIEW: View = View::new(views::WINDOWS, 0);

fn platform(world: &SimWorld, gate: Arc<dyn Gate>) -> Platform {
    let clock: Arc<dyn Clock> = world.clock();
    let ids: Arc<dyn Ids> = world.ids();
    Platform {
        log: world.calm_log(),
        gate,
        clock,
        ids,
        topics: Topics::new(""),
        partitions: 1,
        keys: StreamKeys::new("k1", b"secret"),
        rules: Rules::default(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

async fn world() -> SimWorld {
    let world = SimWorld::new(7);
    for name in [Topics::new("").name(Topic::ConversationEvents), Topics::new("").dlq(Topic::ConversationEvents)] {
        let spec = TopicSpec { name: name.into(), partitions: 1, replication: 1, settings: vec![] };
        world.calm_log().create_topic(&spec).await.expect("a topic");
    }
    world
}

async fn write(platform: &Platform, stream: &str, at: Timestamp, event: Event) {
    let cause = Cause {
        organization_id: "acme".into(),
        stream_id: stream.into(),
        cause_id: format!("{stream}{}", at.as_millis()),
        command_id: None,
        occurred_at: at,
        time_source: TimeSource::Whatsapp,
        traceparent: None,
    };
    let append = platform.emitter("test").emit(event, &cause).expect("an event");
    platform.log.appender().await.expect("an appender").append(vec![append]).await.expect("appended");
}

fn message(at: Timestamp) -> Event {
    text_received(at + WINDOW).into()
}

fn stream(n: usize) -> String {
    format!("k1-{n:032x}")
}

fn key(n: usize) -> String {
    format!("0.{}", stream(n))
}

/// Somebody with his hands in the store, who knows how it is written there.
#[async_trait]
trait Hand: Send + Sync {
    async fn change(&self, change: Change);
}

struct InMemory(SimWorld);

#[async_trait]
impl Hand for InMemory {
    async fn change(&self, change: Change) {
        self.0.calm_gate().by_hand(&VIEW, change);
    }
}

/// Writes as the owner does, under the owner's epoch, and moves nothing: all that is checked about the view itself stays right.
struct InRedis {
    server: RedisServer,
    gate: Arc<dyn Gate>,
}

#[async_trait]
impl Hand for InRedis {
    async fn change(&self, change: Change) {
        let part = format!("whatsapp-connector:{{{VIEW}}}:2:c");
        let epoch = self.server.hash_field(&part, "ep").expect("an owner").parse().expect("a number");
        loop {
            let applied = self.gate.read(&VIEW, &[]).await.expect("the gate").applied.expect("a view");
            let changes = vec![change.clone()];
            if self.gate.apply(&VIEW, Epoch(epoch), Some(applied), applied, changes).await.is_ok() {
                return;
            }
        }
    }
}

/// What a metric of the windows' audit counts.
fn count(platform: &Platform, metric: &str) -> u64 {
    let page = platform.metrics.encode();
    let ours = |line: &&str| line.starts_with(metric) && line.contains(VIEW.name);
    page.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn timers(platform: &Platform, streams: usize) -> (Option<Offset>, Vec<Option<Timer>>) {
    let keys: Vec<_> = (0..streams).map(key).collect();
    let found = platform.gate.timers(&VIEW, &keys).await.expect("the gate");
    (found.applied, found.answers)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(3_000), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

/// One conversation's timer is changed by hand, then another's is removed, and a closed one's set: each is found, counted and healed.
async fn a_hand_is_found(platform: &Platform, hand: &dyn Hand, audit: Duration, calm: Duration) {
    let start = platform.clock.now();
    for n in 0..30 {
        write(platform, &stream(n), start, message(start)).await;
    }
    let end = WindowExpired { deadline: start + WINDOW };
    write(platform, &stream(29), start, end.into()).await;
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(Config { tick: Duration::from_millis(50), audit }, &mut service);
    let running = tokio::spawn(service.run());
    until("the view is built", async || timers(platform, 1).await.1[0].is_some()).await;
    until("the first comparison", async || count(platform, "connector_gate_audit_checked_total") > 60).await;
    assert_eq!(count(platform, "connector_gate_audit_drifted_total"), 0);
    let right = timers(platform, 30).await.1;
    assert_eq!(right.iter().flatten().count(), 29);

    let later = right[3].map(|timer| timer.at + WINDOW).expect("open");
    let harms = [
        Change::Schedule { key: key(3), at: later, tag: 1 },
        Change::Unschedule { key: key(4) },
        Change::Schedule { key: key(29), at: later, tag: 1 },
    ];
    for (harm, found) in harms.into_iter().zip(1..) {
        let about = format!("{harm:?}");
        hand.change(harm).await;
        until(&about, async || count(platform, "connector_gate_audit_drifted_total") >= found).await;
        until(&about, async || timers(platform, 30).await.1 == right).await;
        let compared = count(platform, "connector_gate_audit_checked_total");
        until(&about, async || count(platform, "connector_gate_audit_checked_total") > compared + 60).await;
        assert_eq!(count(platform, "connector_gate_audit_drifted_total"), found, "{about}: it is right again");
        // It is not built again too often.
        tokio::time::sleep(calm).await;
    }
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_timer_changed_by_hand_is_found_and_healed() {
    let world = world().await;
    let platform = platform(&world, Arc::new(world.calm_gate().clone()));
    a_hand_is_found(&platform, &InMemory(world), Duration::from_secs(2), Duration::from_secs(700)).await;
}

/// As it is on a real Redis: what the gate itself cannot see is found by the audit.
#[tokio::test]
async fn a_timer_changed_by_hand_in_redis_is_found_by_one_comparison() {
    let start = || RedisServer::start(&RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let server = tokio::task::spawn_blocking(start).await.expect("no panic");
    let gate: Arc<dyn Gate> = Arc::new(RedisGate::new(&RedisConfig::at(&server.url())).expect("a gate"));
    let world = world().await;
    let platform = platform(&world, gate.clone());
    let hand = InRedis { server, gate };
    let start = platform.clock.now();
    for n in 0..30 {
        write(&platform, &stream(n), start, message(start)).await;
    }
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(Config { tick: Duration::from_millis(50), audit: Duration::from_millis(100) }, &mut service);
    let running = tokio::spawn(service.run());
    until("the first comparison", async || count(&platform, "connector_gate_audit_checked_total") > 60).await;
    let right = timers(&platform, 30).await.1;
    assert_eq!(right.iter().flatten().count(), 30);
    assert_eq!(count(&platform, "connector_gate_audit_drifted_total"), 0);
    hand.change(Change::Schedule { key: key(3), at: start + 2 * WINDOW, tag: 1 }).await;
    hand.change(Change::Unschedule { key: key(4) }).await;
    until("it is found", async || count(&platform, "connector_gate_audit_drifted_total") > 0).await;
    until("it is healed", async || timers(&platform, 30).await.1 == right).await;
    let drifted = count(&platform, "connector_gate_audit_drifted_total");
    let compared = count(&platform, "connector_gate_audit_checked_total");
    until("compared again", async || count(&platform, "connector_gate_audit_checked_total") > compared + 60).await;
    assert_eq!(count(&platform, "connector_gate_audit_drifted_total"), drifted, "it is right again");
    running.abort();
}

/// Traffic goes on while everything is compared, again and again.
#[tokio::test(start_paused = true)]
async fn a_healthy_view_shows_no_drift_under_traffic() {
    let world = world().await;
    let platform = platform(&world, Arc::new(world.calm_gate().clone()));
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(Config { tick: Duration::from_millis(50), audit: Duration::from_millis(300) }, &mut service);
    let running = tokio::spawn(service.run());
    for n in 0..2_000_usize {
        let at = platform.clock.now();
        write(&platform, &stream(n * 7 % 50), at, message(at)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(count(&platform, "connector_gate_audit_checked_total") > 1_000);
    assert_eq!(count(&platform, "connector_gate_audit_drifted_total"), 0);
    running.abort();
}

/// With little room a pass compares a part, and the next ones the others; with few records at a time it takes several looks.
#[tokio::test(start_paused = true)]
async fn a_sample_that_is_too_large_is_compared_in_parts() {
    let world = world().await;
    let platform = platform(&world, Arc::new(world.calm_gate().clone()));
    let start = platform.clock.now();
    for n in 0..100 {
        write(&platform, &stream(n), start, message(start)).await;
    }
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(Config { tick: Duration::from_millis(50), audit: Duration::ZERO }, &mut service);
    let running = tokio::spawn(service.run());
    until("the view is built", async || timers(&platform, 100).await.1.iter().all(Option::is_some)).await;
    world.calm_gate().by_hand(&VIEW, Change::Unschedule { key: key(42) });
    let rules = platform.rules.clone();
    let mut auditor = Auditor::new(&platform, views::WINDOWS, Box::new(move |_| Windows::new(&rules)));
    let bounds = Bounds { since: None, records: 30, sample: 20 };
    let (mut behind, mut compared, mut found) = (0, 0, Vec::new());
    // Sixteen parts at the most, each of which has its turn.
    while compared < 16 {
        match auditor.look(0, bounds).await.expect("calm") {
            Look::Behind => behind += 1,
            Look::Elsewhere => panic!("nobody builds it"),
            Look::Compared { checked, drifted } => {
                assert!((1..=20).contains(&checked), "{checked}");
                compared += 1;
                found.extend(drifted);
            }
        }
    }
    assert!(behind >= 16, "{behind} looks were not enough for 16 times a hundred records");
    found.dedup();
    assert_eq!(found, [stream(42)]);
    running.abort();
}

/// Read from some time ago only, what is not known yet is not judged, and what is known is.
#[tokio::test(start_paused = true)]
async fn a_fold_that_begins_in_the_middle_judges_only_what_it_knows() {
    let world = world().await;
    let platform = platform(&world, Arc::new(world.calm_gate().clone()));
    const WINDOW: Duration = Duration::from_secs(600);
    let rules = Rules { window: WINDOW, closing_soon: vec![WINDOW / 4], ..Rules::default() };
    let platform = Platform { rules: rules.clone(), ..platform };
    let message = |at| {
        let mut event = message(at);
        let Event::MessageReceived(message) = &mut event else { unreachable!() };
        message.window_deadline = Some(at + WINDOW);
        event
    };
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(Config { tick: Duration::from_secs(1), audit: Duration::ZERO }, &mut service);
    let running = tokio::spawn(service.run());
    for n in 0..4 {
        let at = platform.clock.now();
        write(&platform, &stream(n), at, message(at)).await;
        tokio::time::sleep(WINDOW).await;
    }
    let at = platform.clock.now();
    for n in [0, 3] {
        write(&platform, &stream(n), at, message(at)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let make = move |since: Option<_>| Windows::since(&rules, since.expect("a moment"));
    let mut auditor = Auditor::new(&platform, views::WINDOWS, Box::new(make));
    let since = platform.clock.now() - 3 * WINDOW;
    let bounds = Bounds { since: Some(since), records: 1_000, sample: 1_000 };
    let look = auditor.look(0, bounds).await.expect("calm");
    assert_eq!(look, Look::Compared { checked: 2, drifted: vec![] }, "those that wrote within two windows");
    world.calm_gate().by_hand(&VIEW, Change::Schedule { key: key(3), at: at + WINDOW, tag: 0 });
    let look = auditor.look(0, bounds).await.expect("calm");
    assert_eq!(look, Look::Compared { checked: 2, drifted: vec![stream(3)] }, "its warning would not be given");
    running.abort();
}
