//! Windows and consent on real Kafka and Redis: what a window takes, how fast ends are told, how fast a lost projection is there again.
//!
//! The workers run in this process, each with its own group, as their services would run them.

mod backlog;
mod rebuild;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_contracts::{Topic, Topics, decode_event, encode_event, event_headers};
use connector_domain::consent::Intent;
use connector_domain::conversation::Conversation;
use connector_domain::event::{Envelope, Event, MessageReceived, Recorded, TimeSource};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{EventId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_ports::gate::{Change, View};
use connector_ports::ids::RandomIds;
use connector_ports::log::{Append, Isolation, Offset, Polled, Start, TopicName, TopicPartition};
use connector_redis::{RedisConfig, RedisGate};
use connector_runtime::platform::{Platform, views};
use connector_runtime::provision;
use connector_runtime::service::Service;
use connector_runtime::situation::{Question, Situations, conversation_key, partition_of, store};
use connector_runtime::worker::WorkerSpec;
use connector_telemetry::Metrics;
use local_stack::{KafkaCluster, KafkaOptions, RedisOptions, RedisServer};
use opt_in_tracker::Projector;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::report::{Outcome, Report, millis, percentile};
use crate::samples::mixed;

const PARTITIONS: u32 = 6;
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(150);
const DAY: Duration = Duration::from_secs(24 * 3600);
const NAMES: [&str; 8] = [
    "redis_bytes_per_window",
    "gate_check_us",
    "expiry_lateness_ms_p99_1000",
    "expiry_lateness_ms_p99_10000",
    "heal_ms_p99",
    "expiries_per_s",
    "projection_rebuild_per_s",
    "consent_events_per_s",
];

pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    if !NAMES.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    eprintln!("measuring windows and consent: starting Kafka and Redis");
    let start = || {
        Ok::<_, local_stack::ServerError>((
            KafkaCluster::start(&KafkaOptions::default())?,
            RedisServer::start(&RedisOptions::default())?,
        ))
    };
    let (kafka, redis) = spawn_blocking(start).await??;
    let servers = Servers { kafka, redis };
    if report.wants("redis_bytes_per_window") {
        let outcome = servers.memory(report).await;
        report.attempt("redis_bytes_per_window", outcome);
    }
    if report.wants("gate_check_us") {
        let outcome = servers.checks(report).await;
        report.attempt("gate_check_us", outcome);
    }
    for rate in [1_000, 10_000] {
        let name = format!("expiry_lateness_ms_p99_{rate}");
        if report.wants(&name) {
            let outcome = servers.lateness(report, &name, rate).await;
            report.attempt(&name, outcome);
        }
    }
    if report.wants("heal_ms_p99") {
        let outcome = servers.healing(report).await;
        report.attempt("heal_ms_p99", outcome);
    }
    if report.wants("expiries_per_s") {
        let outcome = servers.backlog(report).await;
        report.attempt("expiries_per_s", outcome);
    }
    if report.wants("projection_rebuild_per_s") {
        let outcome = servers.rebuild(report).await;
        report.attempt("projection_rebuild_per_s", outcome);
    }
    if report.wants("consent_events_per_s") {
        let outcome = servers.consent(report).await;
        report.attempt("consent_events_per_s", outcome);
    }
    Ok(())
}

struct Servers {
    kafka: KafkaCluster,
    redis: RedisServer,
}

/// A worker at work. Killed on drop.
struct Running {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Running {
    /// Lets it finish what it has in hand.
    async fn stop(mut self) -> Outcome<()> {
        self.shutdown.cancel();
        Ok((&mut self.task).await?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Servers {
    /// A platform with topics of its own.
    async fn platform(&self, name: &str) -> Outcome<Platform> {
        let topics = Topics::new(name);
        let log = KafkaLog::new(KafkaConfig::plaintext(&self.kafka.bootstrap_servers()));
        let mut specs = provision::specs(&topics, PARTITIONS, 1);
        let log_name = topics.name(Topic::ConversationEvents);
        specs.retain(|spec| spec.name.as_str().starts_with(log_name.as_str()));
        provision::apply(&log, &specs).await?;
        self.redis(&["FLUSHALL"])?;
        let config = RedisConfig { prefix: name.to_owned(), ..RedisConfig::at(&self.redis.url()) };
        Ok(Platform {
            log: Arc::new(log),
            gate: Arc::new(RedisGate::new(&config)?),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            topics,
            partitions: PARTITIONS,
            keys: StreamKeys::new("k1", b"bench"),
            // Windows of some seconds count as windows, too.
            rules: Rules { closing_soon: Vec::new(), margin: Duration::ZERO, ..Rules::default() },
            instance: "bench".to_owned(),
            metrics: Arc::new(Metrics::new("0", "bench")),
        })
    }

    fn redis(&self, words: &[&str]) -> Outcome<String> {
        let port = self.redis.url().trim_end_matches('/').rsplit(':').next().unwrap_or_default().to_owned();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn used_memory(&self) -> Outcome<f64> {
        let info = self.redis(&["INFO", "memory"])?;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("Redis does not tell")?;
        Ok(line.trim().parse()?)
    }

    async fn memory(&self, report: &mut Report) -> Outcome<()> {
        const BATCH: u64 = 5_000;
        let windows = if report.quick() { 100_000 } else { 1_000_000 };
        let platform = self.platform("memory").await?;
        let mut views = Vec::new();
        for partition in 0..PARTITIONS {
            let view = View::new(views::WINDOWS, partition);
            let epoch = platform.gate.acquire(&view).await?.epoch;
            views.push((view, epoch, None));
        }
        let (before, began, end) = (self.used_memory()?, Instant::now(), SystemClock.now() + DAY);
        for batch in 0..windows / BATCH {
            let (view, epoch, applied) = &mut views[usize::try_from(batch)? % 6];
            let schedule = |n: u64| {
                let key = format!("0.{}", stream(batch * BATCH + n));
                Change::Schedule { key, at: end + Duration::from_millis(batch * BATCH + n), tag: 0 }
            };
            let next = Offset(i64::try_from(batch)? + 1);
            platform.gate.apply(view, *epoch, *applied, next, (0..BATCH).map(schedule).collect()).await?;
            *applied = Some(next);
        }
        let took = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = windows as f64;
        let note = format!("{windows} open windows in {PARTITIONS} views; {:.0} applied a second", count / took);
        report.add("redis_bytes_per_window", (self.used_memory()? - before) / count, "B", note);
        Ok(())
    }

    async fn checks(&self, report: &mut Report) -> Outcome<()> {
        let platform = self.platform("checks").await?;
        let conversations: Vec<StreamId> = (0..10_000).map(stream).collect();
        let value = store(&Conversation { deadline: Some(SystemClock.now()), ..Conversation::default() })?;
        for partition in 0..PARTITIONS {
            let view = View::new(views::CONVERSATIONS, partition);
            let epoch = platform.gate.acquire(&view).await?.epoch;
            let ours = conversations.iter().filter(|stream| partition_of(stream, PARTITIONS) == partition);
            let put = ours.map(|stream| Change::Put { key: conversation_key(stream), value: value.clone() }).collect();
            // Nobody has written to this log: a reader believes no other position.
            platform.gate.apply(&view, epoch, None, Offset(0), put).await?;
        }
        let situations = Situations::new(&platform);
        let (mut times, begin) = (Vec::new(), Instant::now());
        for conversation_id in conversations.iter().cycle() {
            let question = Question {
                organization_id: "organization-1".into(),
                user_id: "user-7".into(),
                conversation_id: conversation_id.clone(),
                addressed_at: None,
            };
            let asked = Instant::now();
            situations.now(&[question]).await?;
            times.push(asked.elapsed().as_secs_f64() * 1e6);
            if begin.elapsed() > report.period(Duration::from_secs(5)) {
                break;
            }
        }
        let note =
            format!("conversation, enablement and membership of one command, {} one after the other", times.len());
        report.add("gate_check_us_p50", percentile(&times, 0.5), "us", note);
        report.add("gate_check_us_p99", percentile(&times, 0.99), "us", "");
        Ok(())
    }

    async fn lateness(&self, report: &mut Report, name: &str, rate: u64) -> Outcome<()> {
        let seconds = if report.quick() { 3 } else { 10 };
        let (platform, windows) = (self.platform(&format!("late-{rate}")).await?, rate * seconds);
        let timer = timer(&platform);
        // Time to open all of them before the first ends.
        let first = SystemClock.now() + Duration::from_secs(6 + windows / 15_000);
        let deadline = |n: u64| first + Duration::from_micros(n * 1_000_000 / rate);
        append(&platform, windows, |n| message(n, SystemClock.now(), deadline(n))).await?;
        if SystemClock.now() + Duration::from_secs(1) > first {
            return Err("the machine was too slow to write the messages in time".into());
        }
        let late = ends(&platform, windows).await?;
        drop(timer);
        let p99 = percentile(&late, 0.99);
        let note = format!(
            "deadline to event read committed, {windows} windows at {rate}/s; p50 {:.0}, max {:.0}",
            percentile(&late, 0.5),
            percentile(&late, 1.0)
        );
        report.add(name, p99, "ms", note);
        Ok(())
    }

    async fn healing(&self, report: &mut Report) -> Outcome<()> {
        let windows = if report.quick() { 20_000 } else { 100_000 };
        let platform = self.platform("healing").await?;
        let timer = timer(&platform);
        let end = SystemClock.now() + DAY;
        append(&platform, windows, |n| message(n, SystemClock.now(), end)).await?;
        caught_up(&platform, views::WINDOWS).await?;
        let mut times = Vec::new();
        for _ in 0..if report.quick() { 3 } else { 10 } {
            self.redis(&["FLUSHALL"])?;
            let began = Instant::now();
            caught_up(&platform, views::WINDOWS).await?;
            times.push(millis(began.elapsed()));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        drop(timer);
        let note = format!(
            "FLUSHALL to all {PARTITIONS} views at the end of the log again, {windows} windows, {} times; p50 {:.0}",
            times.len(),
            percentile(&times, 0.5)
        );
        report.add("heal_ms_p99", percentile(&times, 0.99), "ms", note);
        Ok(())
    }

    async fn consent(&self, report: &mut Report) -> Outcome<()> {
        let conversations = if report.quick() { 2_000 } else { 20_000 };
        let platform = self.platform("consent").await?;
        let stories = mixed(conversations);
        let stories: Vec<Recorded> = stories.into_iter().map(|(_, recorded)| recorded).collect();
        let count = stories.len();
        append(&platform, count as u64, |n| stories[usize::try_from(n).unwrap_or(0)].clone()).await?;
        let began = Instant::now();
        let mut service = Service::new(platform.clone(), CancellationToken::new());
        let topics = vec![platform.topic(Topic::ConversationEvents)];
        let mut spec = WorkerSpec::new("projector", "projector".to_owned(), topics, "bench".to_owned());
        (spec.batch, spec.buffer) = opt_in_tracker::PROJECTED_AT_ONCE;
        service.worker(spec, Projector::new(&platform, Duration::from_millis(500)));
        let running = run(service);
        caught_up(&platform, views::CONVERSATIONS).await?;
        drop(running);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = count as f64 / began.elapsed().as_secs_f64();
        let note = format!(
            "{count} events of ordinary conversations into the views, announcements written, joining the group included"
        );
        report.add("consent_events_per_s", rate, "1/s", note);
        Ok(())
    }
}

fn run(service: Service) -> Running {
    let shutdown = service.shutdown();
    let task = tokio::spawn(async move {
        if let Err(error) = service.run().await {
            eprintln!("a worker ended: {error}");
        }
    });
    Running { task, shutdown }
}

fn timer(platform: &Platform) -> Running {
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    window_timer::start(window_timer::Config::default(), &mut service);
    run(service)
}

fn stream(number: u64) -> StreamId {
    StreamId(format!("k1-{:032x}", u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
}

fn message(number: u64, at: Timestamp, deadline: Timestamp) -> Recorded {
    let event: Event = MessageReceived {
        phone_number_id: crate::samples::NUMBER.into(),
        wamid: format!("wamid.{number}").as_str().into(),
        address: Address::default(),
        profile_name: None,
        message_type: "text".to_owned(),
        text: Some("Is the appointment on Thursday still free?".into()),
        unsupported: false,
        reply_to: None,
        intent: Intent::Other,
        answer: Intent::Other,
        window_deadline: Some(deadline),
        raw: r#"{"type":"text","text":{"body":"Is the appointment on Thursday still free?"}}"#.into(),
    }
    .into();
    let envelope = Envelope {
        event_id: EventId::derived(&number.to_string()),
        event_type: event.type_name().to_owned(),
        schema_version: 1,
        organization_id: "organization-1".into(),
        stream_id: stream(number),
        cause_id: number.to_string(),
        command_id: None,
        occurred_at: at,
        time_source: TimeSource::Whatsapp,
        recorded_at: at,
        producer: "bench".to_owned(),
        traceparent: None,
    };
    Recorded { envelope, event }
}

/// Writes so many events into the log.
async fn append(platform: &Platform, count: u64, event: impl Fn(u64) -> Recorded) -> Outcome<()> {
    const BATCH: u64 = 5_000;
    let topic = platform.topic(Topic::ConversationEvents);
    let appender = platform.log.appender().await?;
    for from in (0..count).step_by(usize::try_from(BATCH)?) {
        let record = |n| {
            let recorded = event(n);
            Ok::<_, connector_contracts::ContractError>(Append {
                topic: topic.clone(),
                partition: None,
                key: Some(Bytes::from(recorded.envelope.stream_id.to_string())),
                value: Some(encode_event(&recorded)?.into()),
                headers: event_headers(&recorded),
            })
        };
        let batch: Vec<Append> = (from..(from + BATCH).min(count)).map(record).collect::<Result<_, _>>()?;
        appender.append(batch).await?;
    }
    Ok(())
}

async fn end(platform: &Platform) -> Outcome<Vec<Offset>> {
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        let source = TopicPartition { topic: platform.topic(Topic::ConversationEvents), partition };
        ends.push(platform.log.end_offset(&source, Isolation::Committed).await?);
    }
    Ok(ends)
}

/// Waits until the views have applied the log as it is when this is called.
async fn caught_up(platform: &Platform, name: &'static str) -> Outcome<()> {
    let (ends, began) = (end(platform).await?, Instant::now());
    for (partition, end) in (0..).zip(ends) {
        let view = View::new(name, partition);
        while platform.gate.read(&view, &[]).await?.applied.unwrap_or_default() < end {
            if began.elapsed() > PATIENCE {
                return Err(format!("view {view} does not catch up").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// How late the ends of windows came, in milliseconds, until there are so many; each once.
async fn ends(platform: &Platform, count: u64) -> Outcome<Vec<f64>> {
    let topic: TopicName = platform.topic(Topic::ConversationEvents);
    let all = (0..PARTITIONS).map(|partition| (TopicPartition { topic: topic.clone(), partition }, Start::Beginning));
    let mut reader = platform.log.assign(all.collect(), Isolation::Committed).await?;
    let (mut late, began) = (BTreeMap::new(), Instant::now());
    while (late.len() as u64) < count {
        if began.elapsed() > PATIENCE {
            return Err(format!("{} of {count} windows have ended", late.len()).into());
        }
        let Polled::Records(records) = reader.poll(Duration::from_millis(50), 5_000).await? else { continue };
        let now = SystemClock.now();
        for record in records {
            let kind = record.header(connector_contracts::headers::CE_TYPE);
            if !kind.is_some_and(|kind| kind.ends_with(b"WindowExpired")) {
                continue;
            }
            let Recorded { envelope, event } = decode_event(record.value.as_deref().unwrap_or_default())?;
            let Event::WindowExpired(expired) = event else { continue };
            if late.insert(envelope.stream_id, millis(now.since(expired.deadline))).is_some() {
                return Err("a window has ended twice".into());
            }
        }
    }
    reader.close().await;
    Ok(late.into_values().collect())
}
