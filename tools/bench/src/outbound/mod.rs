//! Messages on their way out, from the command to the outcome in the log: how many a second, and what one costs.
//!
//! The sender, Kafka, Redis and the simulated WhatsApp are processes of their own; all of them, and this one, share the machine.

mod load;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics, decode, decode_event};
use connector_demo::{Backend, Environment, Fleet, Member, Plan};
use connector_domain::command::{Content, Dispatch};
use connector_domain::event::Event;
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{AttemptId, CommandId};
use connector_domain::outcome::Answer;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::clock::SystemClock;
use connector_ports::log::{Isolation, Offset, Polled, Reader, Start, TopicPartition};
use connector_ports::whatsapp::Outbound;
use connector_ports::{Clock, Log, WhatsApp};
use connector_runtime::provision;
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

use crate::cost;
use crate::fleet::program;
use crate::http::Connection;
use crate::report::{Outcome, Report, folder, percentile};
use load::Contact;

const PARTITIONS: u32 = 6;
/// Messages of one measurement of the rate.
const SENDS: usize = 40_000;
/// Answers the ceiling and the sender wait for at the same time.
const AT_ONCE: usize = 2_000;
/// How long a measurement may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long sender and broker work at half of the rate asked for before anything is measured: what only this makes hot the broker compiles
/// for more than a minute, on the cores that everything else needs too.
const WARM: Duration = Duration::from_secs(60);
/// How long times are taken.
const PERIOD: Duration = Duration::from_secs(10);
/// Half load: half of the 5,000 messages a second that are asked for, which is the same load on every machine and in every build. Half of the
/// rate that was measured stands beside it.
const HALF_OF_ASKED: f64 = 2_500.0;
const STREAM_SECRET: &str = "demo-stream-secret-of-32-bytes-or-more";
const SENDER: &str = "outbound-sender";

const FIGURES: [&str; 7] = [
    "outbound_ceiling_per_s",
    "outbound_per_s_delay0",
    "outbound_per_s_delay100ms",
    "outbound_embedded_per_s",
    "dispatch_overhead_ms",
    "cpu_s_per_1000_sends",
    "rss_loaded_mb",
];

pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    if !FIGURES.iter().any(|figure| report.wants(figure)) {
        return Ok(());
    }
    for name in ["cloud-api-simulator", "connectorctl", "opt-in-tracker", SENDER, "connector"] {
        program(name)?;
    }
    if FIGURES[..3].iter().chain(&FIGURES[4..]).any(|figure| report.wants(figure)) {
        let outcome = on_kafka(report, Duration::ZERO).await;
        report.attempt("outbound on Kafka", outcome);
    }
    if report.wants("outbound_per_s_delay100ms") {
        let outcome = on_kafka(report, Duration::from_millis(100)).await;
        report.attempt("outbound_per_s_delay100ms", outcome);
    }
    if report.wants("outbound_embedded_per_s") {
        let outcome = embedded(report).await;
        report.attempt("outbound_embedded_per_s", outcome);
    }
    Ok(())
}

fn programs() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?.parent().ok_or("this program has no folder")?.to_owned())
}

/// No limit of WhatsApp's is in the way but the thousand a second per number.
fn plan(backend: Backend, delay: Duration, settings: Environment) -> Plan {
    let limits = vec![
        ("PARTITIONS", PARTITIONS.to_string()),
        ("NUMBER_RATE", "1000".to_owned()),
        ("NUMBER_BURST", "1000".to_owned()),
        ("PAIR_INTERVAL", "1ms".to_owned()),
        ("PAIR_BURST", "1000".to_owned()),
        ("DISPATCH_CONCURRENCY", AT_ONCE.to_string()),
        ("GRAPH_POOL_SIZE", AT_ONCE.to_string()),
        ("RUST_LOG", "warn".to_owned()),
    ];
    let members = match backend {
        Backend::Embedded => vec![Member::only("connector")],
        Backend::Kafka => vec![Member::only("opt-in-tracker"), Member::only(SENDER)],
    };
    let simulator = vec![
        ("SIMULATOR_PHONE_NUMBER_ID", load::numbers().join(",")),
        ("SIMULATOR_WABA_ID", "200000000000001".to_owned()),
        ("SIMULATOR_WINDOW_ERRORS", "off".to_owned()),
        ("SIMULATOR_STATUSES", "off".to_owned()),
        ("SIMULATOR_DELAY_MS", delay.as_millis().to_string()),
    ];
    let day = Duration::from_secs(24 * 3600);
    let settings = limits.into_iter().chain(settings).collect();
    Plan { members, settings, simulator, long_runs: true, ..Plan::new(backend, day) }
}

async fn on_kafka(report: &mut Report, delay: Duration) -> Outcome<()> {
    eprintln!("measuring messages on their way out, WhatsApp answers after {delay:?}");
    // Kept: the logs of the processes say why something went wrong.
    let home = folder()?.join("outbound");
    let mut fleet = Fleet::start_plan(plan(Backend::Kafka, delay, Vec::new()), &programs()?, &home).await?;
    let outcome = with_fleet(report, &fleet, delay).await;
    tokio::task::block_in_place(|| fleet.stop());
    outcome
}

async fn with_fleet(report: &mut Report, fleet: &Fleet, delay: Duration) -> Outcome<()> {
    let (kafka, _) = fleet.servers().ok_or("the fleet stands on Kafka")?;
    let simulator = fleet.settings().simulator_url();
    if delay.is_zero() && report.wants("outbound_ceiling_per_s") {
        ceiling(report, &simulator).await?;
    }
    let log = KafkaLog::new(KafkaConfig::plaintext(&kafka));
    crate::warm::broker(report, &kafka).await?;
    let contacts = load::contacts(&StreamKeys::new("k1", STREAM_SECRET.as_bytes()))?;
    load::prepare(&log, &contacts, SystemClock.now()).await?;
    known(&log, contacts.len()).await?;

    let pid = fleet.processes().into_iter().find(|(name, ..)| *name == SENDER).and_then(|(_, pid, _)| pid);
    let pid = pid.ok_or("the sender does not run")?;
    let steady = Steady { log: &log, contacts: &contacts, simulator: &simulator };
    let first = steady.times(0, HALF_OF_ASKED, report.period(WARM)).await?.count;
    let count = if report.quick() { SENDS / 5 } else { SENDS };
    let warm = count / 2;
    let through = through(&log, &contacts, first, warm).await?;
    eprintln!("  warm at {through:.0}/s");
    let before = cost::cpu(pid)?;
    let rate = self::through(&log, &contacts, first + warm, count).await?;
    let spent = (cost::cpu(pid)? - before).as_secs_f64();
    let note = format!(
        "{count} commands at once, to {} conversations of {} numbers: admitted, journal, POST, outcome in the log; one sender",
        load::CONTACTS,
        load::NUMBERS
    );
    report.add(format!("outbound_per_s_delay{}", if delay.is_zero() { "0" } else { "100ms" }), rate, "1/s", note);
    if !delay.is_zero() {
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let per_thousand = spent * 1000.0 / count as f64;
    report.add("cpu_s_per_1000_sends", per_thousand, "s", "user and system time of the sender's process");
    report.add("rss_loaded_mb_outbound-sender", cost::peak(pid)?, "MB", "the most it ever had, after these sends");
    if report.wants("dispatch_overhead_ms") {
        let mut first = first + warm + count;
        for (name, rate) in [("", HALF_OF_ASKED), ("_half_of_measured", rate / 2.0)] {
            let times = steady.times(first, rate, report.period(PERIOD)).await?;
            first += times.count;
            times.add(report, name, rate);
        }
    }
    Ok(())
}

/// How many contacts are in a log that nobody writes to.
async fn contacts_in(log: &dyn Log) -> Outcome<usize> {
    let name = Topics::default().name(Topic::ConversationEvents);
    let mut known = 0;
    for number in 0..PARTITIONS {
        let partition = TopicPartition::new(name.as_str(), number);
        let each = |record: connector_ports::log::Record| {
            let recorded = decode_event(record.value.as_deref().unwrap_or_default())?;
            known += usize::from(matches!(recorded.event, Event::ContactAdded(_)));
            Ok(())
        };
        let read = connector_runtime::replay::replay(log, &partition, Start::Beginning, Isolation::Committed, each);
        read.await.map_err(|failure| failure.to_string())?;
    }
    Ok(known)
}

/// Waits until the contacts are in the log, and with them what the tracker made of them.
async fn known(log: &dyn Log, contacts: usize) -> Outcome<()> {
    let mut reader = reader(log, Topic::ConversationEvents, Start::Beginning).await?;
    let (mut known, deadline) = (0, Instant::now() + PATIENCE);
    while known < contacts {
        if Instant::now() > deadline {
            return Err(format!("only {known} of {contacts} contacts are known after {PATIENCE:?}").into());
        }
        let Polled::Records(records) = reader.poll(Duration::from_millis(100), 1_000).await? else { continue };
        for record in records {
            let recorded = decode_event(record.value.as_deref().unwrap_or_default())?;
            known += usize::from(matches!(recorded.event, Event::ContactAdded(_)));
        }
    }
    reader.close().await;
    Ok(())
}

async fn reader(log: &dyn Log, topic: Topic, start: Start) -> Outcome<Box<dyn Reader>> {
    let name = Topics::default().name(topic);
    let all = (0..PARTITIONS).map(|number| (TopicPartition::new(name.as_str(), number), start)).collect();
    Ok(log.assign(all, Isolation::Committed).await?)
}

/// Where a topic ends now.
async fn ends(log: &dyn Log, topic: Topic) -> Outcome<Vec<(TopicPartition, Offset)>> {
    let name = Topics::default().name(topic);
    let mut all = Vec::new();
    for number in 0..PARTITIONS {
        let partition = TopicPartition::new(name.as_str(), number);
        let end = log.end_offset(&partition, Isolation::Committed).await?;
        all.push((partition, end));
    }
    Ok(all)
}

/// A reader of what comes from now on.
async fn from_now(log: &dyn Log, topic: Topic) -> Outcome<Box<dyn Reader>> {
    let all = ends(log, topic).await?.into_iter().map(|(partition, end)| (partition, Start::At(end))).collect();
    Ok(log.assign(all, Isolation::Committed).await?)
}

/// When the outcome of each command was seen in the log.
async fn outcomes(mut reader: Box<dyn Reader>, count: usize) -> Outcome<Vec<Instant>> {
    let (mut seen, deadline) = (Vec::with_capacity(count), Instant::now() + PATIENCE);
    while seen.len() < count {
        if Instant::now() > deadline {
            return Err(format!("only {} of {count} outcomes after {PATIENCE:?}", seen.len()).into());
        }
        let Polled::Records(records) = reader.poll(Duration::from_millis(50), 1_000).await? else { continue };
        let now = Instant::now();
        for record in records {
            let recorded = decode_event(record.value.as_deref().unwrap_or_default())?;
            match recorded.event {
                Event::MessageSent(_) => seen.push(now),
                Event::MessageFailed(failed) => return Err(format!("a message failed: {}", failed.reason).into()),
                Event::MessageRejected(rejected) => {
                    return Err(format!("a command was refused: {} {}", rejected.reason, rejected.field).into());
                }
                Event::MessageUnconfirmed(lost) => {
                    return Err(format!("a message is unconfirmed: {}", lost.observed).into());
                }
                _ => {}
            }
        }
    }
    reader.close().await;
    Ok(seen)
}

/// Outcomes a second, of the middle four fifths: without the first commands on their way in, and the last on their way out.
async fn through(log: &dyn Log, contacts: &[Contact], first: usize, count: usize) -> Outcome<f64> {
    let reading: JoinHandle<_> = tokio::spawn(outcomes(from_now(log, Topic::ConversationEvents).await?, count));
    load::write(log, load::commands(contacts, first, count, SystemClock.now())?).await?;
    let seen = reading.await??;
    let (from, to) = (count / 10, count - count / 10 - 1);
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let counted = (to - from) as f64;
    Ok(counted / (seen[to] - seen[from]).as_secs_f64())
}

/// Messages at a steady rate.
struct Steady<'a> {
    log: &'a dyn Log,
    contacts: &'a [Contact],
    simulator: &'a str,
}

/// How long messages took, in milliseconds.
struct Times {
    count: usize,
    /// From the moment a reader has the dispatch record in hand until WhatsApp has the request.
    dispatch: Vec<f64>,
    /// From the moment before the command is published until WhatsApp has the request.
    send: Vec<f64>,
}

impl Steady<'_> {
    /// Publishes the commands from number `first` on, so many a second, and waits until all are in the log.
    async fn times(&self, first: usize, rate: f64, period: Duration) -> Outcome<Times> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
        let (lot, count) = ((rate / 100.0).max(1.0) as usize, (rate * period.as_secs_f64()) as usize);
        let reading = tokio::spawn(dispatched(from_now(self.log, Topic::Dispatch).await?, count));
        let ending = tokio::spawn(outcomes(from_now(self.log, Topic::ConversationEvents).await?, count));
        let posted_before = posts(self.simulator, None).await?.1;
        let journalled_before = ends(self.log, Topic::DispatchJournal).await?;
        let commands = load::commands(self.contacts, first, count, SystemClock.now())?;
        let appender = self.log.appender().await?;
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let mut asked = HashMap::with_capacity(count);
        for (lots, commands) in commands.chunks(lot).enumerate() {
            pace.tick().await;
            let now = SystemClock.now().as_millis();
            asked.extend((0..commands.len()).map(|at| (load::command_id(first + lots * lot + at), now)));
            appender.append(commands.to_vec()).await?;
        }
        let readable = reading.await??;
        ending.await??;
        let journal = attempts(self.log, journalled_before).await?;
        let (mut dispatch, mut send) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut since = posted_before;
        loop {
            let (page, next) = posts(self.simulator, Some(since)).await?;
            for (attempt, at) in &page {
                let Some(command) = journal.get(attempt) else { continue };
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of a few seconds")]
                let since = |moment: &i64| (at - moment).max(0) as f64;
                dispatch.extend(readable.get(command).map(since));
                send.extend(asked.get(command).map(since));
            }
            if page.is_empty() {
                break;
            }
            since = next;
        }
        Ok(Times { count, dispatch, send })
    }
}

impl Times {
    fn add(&self, report: &mut Report, name: &str, rate: f64) {
        let load = format!("{} messages at {rate:.0}/s; whole milliseconds", self.dispatch.len());
        for (share, of) in [(0.5, "p50"), (0.99, "p99")] {
            let note = format!("a reader has the dispatch record to WhatsApp has the request, {load}");
            report.add(format!("dispatch_overhead{name}_ms_{of}"), percentile(&self.dispatch, share), "ms", note);
            let note = format!("the command is about to be published to WhatsApp has the request, {load}");
            report.add(format!("send{name}_ms_{of}"), percentile(&self.send, share), "ms", note);
        }
    }
}

/// When each dispatch record could be read, in milliseconds since the epoch.
async fn dispatched(mut reader: Box<dyn Reader>, count: usize) -> Outcome<HashMap<CommandId, i64>> {
    let (mut seen, deadline) = (HashMap::with_capacity(count), Instant::now() + PATIENCE);
    while seen.len() < count && Instant::now() < deadline {
        let Polled::Records(records) = reader.poll(Duration::from_millis(50), 1_000).await? else { continue };
        let now = SystemClock.now().as_millis();
        for record in records {
            let dispatch: Dispatch = decode(record.value.as_deref().unwrap_or_default())?;
            seen.insert(dispatch.command_id, now);
        }
    }
    reader.close().await;
    Ok(seen)
}

/// Which command each attempt was for, from these positions of the journal on.
async fn attempts(log: &dyn Log, from: Vec<(TopicPartition, Offset)>) -> Outcome<HashMap<String, CommandId>> {
    let mut attempts = HashMap::new();
    for (partition, from) in from {
        let each = |record: connector_ports::log::Record| {
            let entry: connector_domain::command::JournalEntry = decode(record.value.as_deref().unwrap_or_default())?;
            attempts.insert(entry.attempt_id.to_string(), entry.command_id);
            Ok(())
        };
        let read = connector_runtime::replay::replay(log, &partition, Start::At(from), Isolation::Committed, each);
        read.await.map_err(|failure| failure.to_string())?;
    }
    Ok(attempts)
}

/// A page of the simulator's ledger: attempt and moment of each POST, and where the next page begins; without a beginning, only
/// where the ledger ends.
async fn posts(simulator: &str, since: Option<u64>) -> Outcome<(Vec<(String, i64)>, u64)> {
    let mut connection = Connection::open(simulator.trim_start_matches("http://").parse()?).await?;
    let Some(since) = since else {
        let stats: Value = serde_json::from_slice(&connection.get_body("/simulator/stats").await?)?;
        return Ok((Vec::new(), stats["posts"].as_u64().unwrap_or(0)));
    };
    let page = connection.get_body(&format!("/simulator/ledger?since={since}&limit=5000")).await?;
    let page: Value = serde_json::from_slice(&page)?;
    let row = |row: &Value| Some((row["biz_opaque_callback_data"].as_str()?.to_owned(), row["at_ms"].as_i64()?));
    let rows = page["posts"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok((rows.iter().filter_map(row).collect(), page["next"].as_u64().unwrap_or(since)))
}

/// The same client against the same simulator, and nothing else.
async fn ceiling(report: &mut Report, simulator: &str) -> Outcome<()> {
    let settings = [("GRAPH_BASE_URL", simulator), ("GRAPH_TOKEN", "demo-graph-token"), ("GRAPH_POOL_SIZE", "256")];
    let config = connector_settings::load(&settings, GraphConfig::from)?;
    let client = Arc::new(GraphClient::new(config)?);
    let until = Instant::now() + report.period(Duration::from_secs(4));
    let (started, mut sending) = (Instant::now(), JoinSet::new());
    for lane in 0..256_usize {
        let client = Arc::clone(&client);
        sending.spawn(async move {
            let mut sent = 0_u32;
            while Instant::now() < until {
                let outbound = Outbound {
                    phone_number_id: load::numbers()[lane % load::NUMBERS].as_str().into(),
                    address: Address {
                        phone: connector_domain::ids::PhoneNumber::parse(&crate::samples::phone(lane)).ok(),
                        bsuid: None,
                    },
                    content: Content::text("Yes, it is. Thursday at ten, second floor. See you then!"),
                    attempt_id: AttemptId::derived(&format!("ceiling {lane} {sent}")),
                };
                let exchange = client.send(&outbound).await;
                if !matches!(exchange.answer, Answer::Http { status: 200, .. }) {
                    return Err("the simulator refuses".to_owned());
                }
                sent += 1;
            }
            Ok(sent)
        });
    }
    let mut sent = 0;
    while let Some(lane) = sending.join_next().await {
        sent += lane??;
    }
    let rate = f64::from(sent) / started.elapsed().as_secs_f64();
    report.add("outbound_ceiling_per_s", rate, "1/s", "the same HTTP client against the same simulator, 256 at once");
    Ok(())
}

/// One process on an embedded log that holds the commands already.
async fn embedded(report: &mut Report) -> Outcome<()> {
    eprintln!("measuring messages on their way out, embedded");
    let home = tempfile::Builder::new().prefix("outbound-").tempdir_in(folder()?)?;
    let path = home.path().join("prepared.sqlite");
    let contacts = load::contacts(&StreamKeys::new("k1", STREAM_SECRET.as_bytes()))?;
    let count = if report.quick() { SENDS / 5 } else { SENDS };
    {
        let log = connector_embedded::open(&path, Arc::new(SystemClock))?;
        provision::apply(&log, &provision::specs(&Topics::default(), PARTITIONS, 1)).await?;
        load::prepare(&log, &contacts, SystemClock.now()).await?;
    }
    let settings = vec![("LOG_PATH", path.display().to_string())];
    let plan = plan(Backend::Embedded, Duration::ZERO, settings);
    let mut fleet = Fleet::start_plan(plan, &programs()?, home.path()).await?;
    let simulator = fleet.settings().simulator_url();
    // The log has one process at a time: the connector learns its contacts, ends, and finds the commands when it comes back.
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::task::block_in_place(|| fleet.end("connector", PATIENCE));
        let log = connector_embedded::open(&path, Arc::new(SystemClock))?;
        let there = contacts_in(&log).await?;
        if there == contacts.len() {
            load::write(&log, load::commands(&contacts, 0, count, SystemClock.now())?).await?;
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("only {there} of {} contacts are known after {PATIENCE:?}", contacts.len()).into());
        }
        drop(log);
        fleet.spawn("connector")?;
    }
    fleet.spawn("connector")?;
    let (mut times, deadline) = (vec![(Instant::now(), 0)], Instant::now() + PATIENCE);
    while times.last().is_some_and(|(_, posts)| *posts < count as u64) {
        if Instant::now() > deadline {
            return Err(format!("{:?} of {count} messages after {PATIENCE:?}", times.last()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        times.push((Instant::now(), posts(&simulator, None).await?.1));
    }
    tokio::task::block_in_place(|| fleet.stop());
    let log = connector_embedded::open(&path, Arc::new(SystemClock))?;
    let seen = outcomes(reader(&log, Topic::ConversationEvents, Start::Beginning).await?, count).await?;
    let reached = |share: usize| times.iter().find(|(_, posts)| *posts >= (count * share / 10) as u64);
    let (Some((from, first)), Some((to, last))) = (reached(1), reached(9)) else { return Err("no messages".into()) };
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let rate = (last - first) as f64 / (*to - *from).as_secs_f64();
    let note = format!("one process, {} outcomes in its log afterwards", seen.len());
    report.add("outbound_embedded_per_s", rate, "1/s", note);
    Ok(())
}
