//! A month of virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::StreamId;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::log::{Isolation, Polled, Start, TopicName, TopicPartition, TopicSpec};
use connector_ports::{Appender, Clock, Ids, Reader};
use connector_runtime::emit::Cause;
use connector_runtime::handler::{Handler, Step};
use connector_runtime::lanes::Work;
use connector_runtime::platform::Platform;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use connector_testkit::event::text_received;
use window_timer::WindowTimer;

use crate::check::{at_rest, fold};
use crate::harmed::Mutation;

const CONVERSATIONS: u64 = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// 10,000 people who write in office hours of their own time zone, three or four times, from the middle of March to the middle of April 2028:
/// Berlin changes to summer time on the 26th (01:00 UTC), which moves their office hours and must move no window.
#[test]
fn a_month_with_summer_time_ends_each_window_a_day_after_its_last_message() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(month());
}

/// Without warnings: only ends matter here.
fn rules() -> Rules {
    Rules { closing_soon: Vec::new(), ..Rules::default() }
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
        partitions: 6,
        keys: StreamKeys::new("k1", b"secret"),
        rules: rules(),
        instance: "test".to_owned(),
        metrics: Arc::new(Metrics::new("0", "test")),
    }
}

/// How often the timer looks.
const LOOK: Duration = Duration::from_secs(300);

/// The timer without its loop, which looks ten times a second: what comes is handled, what is due is said, and both are written down.
struct Timer {
    timer: WindowTimer,
    reader: Box<dyn Reader>,
    appender: Box<dyn Appender>,
}

impl Timer {
    async fn look(&mut self) {
        loop {
            let mut work = Vec::new();
            while let Polled::Records(records) = self.reader.poll(Duration::ZERO, 2_000).await.expect("the log") {
                work.extend(records.into_iter().map(|record| Work { record, replay: false, round: 0 }));
            }
            let mut ends = BTreeMap::new();
            for Work { record, .. } in &work {
                ends.insert(record.source.clone(), record.offset.next());
            }
            let mut appends = Vec::new();
            for step in self.timer.handle(&work).await.expect("handled") {
                let Step::Done(done) = step else { panic!("a dead letter") };
                appends.extend(done);
            }
            self.timer.committed(&[], &ends.into_iter().collect::<Vec<_>>()).await.expect("applied");
            appends.extend(self.timer.tick().await.expect("a tick"));
            if work.is_empty() && appends.is_empty() {
                return;
            }
            self.appender.append(appends).await.expect("appended");
        }
    }
}

async fn month() {
    let world = SimWorld::new(1);
    let log: TopicName = Topics::new("").name(Topic::ConversationEvents).into();
    let spec = TopicSpec { name: log.clone(), partitions: 6, replication: 1, settings: vec![] };
    world.calm_log().create_topic(&spec).await.expect("a topic");
    let mid_march = Timestamp::from_secs(1_836_691_200);
    let change = Timestamp::from_secs(1_837_645_200);
    tokio::time::sleep(mid_march.since(world.clock().now())).await;
    let platform = platform(&world);
    let all: Vec<_> = (0..6).map(|partition| (TopicPartition::new(log.clone(), partition), Start::Beginning)).collect();
    let mut timer = WindowTimer::new(&platform, LOOK);
    for (partition, _) in &all {
        timer.assigned(partition, None).await.expect("assigned");
    }
    let reader = world.calm_log().assign(all, Isolation::Committed).await.expect("a reader");
    let appender = world.calm_log().appender().await.expect("an appender");
    let mut timer = Timer { timer, reader, appender };
    for hour in 0..32 * 24_u32 {
        let now = world.clock().now();
        let offset = if now >= change { 2 } else { 1 };
        let local = (now.as_millis() / 3_600_000 + offset) % 24;
        if (9..18).contains(&local) && hour < 30 * 24 {
            let messages = (0..CONVERSATIONS).filter(|person| (person + u64::from(hour) * 7) % 83 == 0);
            let appends = messages.map(|person| message(&platform, person, hour, now)).collect();
            timer.appender.append(appends).await.expect("appended");
        }
        for _ in 0..HOUR.as_secs() / LOOK.as_secs() {
            timer.look().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    let records = world.history(&log);
    let events: Vec<Recorded> =
        records.iter().map(|r| decode_event(r.value.as_deref().expect("a value")).expect("an event")).collect();
    let folds = fold(&events, &rules(), |envelope| envelope.recorded_at, Mutation::None)
        .unwrap_or_else(|finding| panic!("{finding}"));
    at_rest(&folds).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(folds.len() as u64, CONVERSATIONS);
    let mut expired = 0;
    let mut last: BTreeMap<StreamId, Timestamp> = BTreeMap::new();
    for Recorded { envelope, event } in &events {
        match event {
            Event::MessageReceived(_) => drop(last.insert(envelope.stream_id.clone(), envelope.occurred_at)),
            Event::WindowExpired(end) => {
                assert_eq!(Some(end.deadline), last.get(&envelope.stream_id).map(|last| *last + DAY));
                assert!(envelope.recorded_at.since(end.deadline) <= LOOK, "at the next look");
                expired += 1;
            }
            _ => {}
        }
    }
    assert!(expired > 2 * CONVERSATIONS, "{expired} windows ended");
}

fn message(platform: &Platform, person: u64, hour: u32, now: Timestamp) -> connector_ports::log::Append {
    let message = text_received(now + DAY);
    let cause = Cause {
        organization_id: "acme".into(),
        stream_id: StreamId(format!("k1-{person:032x}")),
        cause_id: format!("{person}/{hour}"),
        command_id: None,
        occurred_at: now,
        time_source: TimeSource::Whatsapp,
        traceparent: None,
    };
    platform.emitter("test").emit(message, &cause).expect("an event")
}
