//! The way in: what the receiver takes beside a bare one, how long its answer takes, how fast the processor works a backlog off, how fast
//! an item is read, and what both need for that.
//!
//! Load generator, services, broker and Redis share the machine, so the ceiling is measured in the same run and in turns with the
//! receiver: what counts is their relation.

mod bare;
mod load;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{WebhookItem, WebhookKind};
use connector_domain::identity::StreamKeys;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::clock::SystemClock;
use connector_ports::log::{Append, Offset, TopicPartition};
use connector_ports::{Clock, Log};
use connector_runtime::provision;
use connector_whatsapp::webhook::{parse_message, parse_status, split};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

pub(crate) use bare::{BareReceiver, run as run_bare};
use load::{Load, Requests, request};

use crate::cost::resident;
use crate::fleet::program;
use crate::fleet::{PARTITIONS, STREAM_SECRET, Servers, free_address, is_ready, register_number};
use crate::pure::rate;
use crate::report::{Outcome, Report, percentile};
use crate::samples::{NUMBER, phone};

const PATH: &str = "/webhooks";
/// Different requests of a load; a receiver does not look whether it has seen one before.
const REQUESTS: usize = 2_048;
/// Items of a delivery when Meta sends several at once.
const SEVERAL: usize = 20;
/// So many people write.
const CONTACTS: usize = 5_000;
/// Items that wait for the processor.
const BACKLOG: usize = 240_000;
/// How long the backlog may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Measured in turns, so that a slow minute of the machine hits both.
const TURNS: u32 = 4;

/// The shapes of load: what it is called, connections, items of a delivery.
const SHAPES: [(&str, usize, usize); 3] = [("", 64, 1), ("_256", 256, 1), ("_items", 64, SEVERAL)];

const OF_RECEIVER: [&str; 3] = ["webhook_ingest", "webhook_ack_ms", "rss_loaded_mb"];
const OF_PROCESSOR: [&str; 3] = ["inbound_process_per_s", "inbound_memory_bytes_per_id", "rss_loaded_mb"];

/// Everything about the way in that [`crate::end_to_end`] does not measure.
pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    if report.wants("parse_per_s") {
        let parsed = parse(report);
        report.attempt("parse_per_s", parsed);
    }
    let receiver = OF_RECEIVER.iter().any(|name| report.wants(name));
    let processor = OF_PROCESSOR.iter().any(|name| report.wants(name));
    if !receiver && !processor {
        return Ok(());
    }
    let servers = spawn_blocking(Servers::start).await??;
    let log = KafkaLog::new(KafkaConfig::plaintext(&servers.kafka.bootstrap_servers()));
    crate::warm::broker(report, &servers.kafka.bootstrap_servers()).await?;
    if receiver {
        let outcome = ingest(report, &servers, &log).await;
        report.attempt("webhook_ingest", outcome);
    }
    if processor {
        let outcome = process(report, &servers, &log).await;
        report.attempt("inbound_process_per_s", outcome);
    }
    Ok(())
}

/// Deliveries taken apart and read, on one core.
fn parse(report: &mut Report) -> Outcome<()> {
    let bodies: Vec<String> = (0..200).map(|at| delivery(&[message(at), status(at)].concat())).collect();
    let read = |body: &String| -> Outcome<usize> {
        let items = split(body.as_bytes(), SystemClock.now(), "delivery")?;
        for split in &items {
            understand(&split.item)?;
        }
        Ok(items.len())
    };
    let count = bodies.iter().map(read).sum::<Outcome<usize>>()?;
    let slice = report.period(Duration::from_millis(200));
    let rate = rate(slice, count, || bodies.iter().for_each(|body| drop(black_box(read(body)))));
    let note = "one core; a message and a status per delivery, taken apart and read";
    report.add("parse_per_s", rate, "1/s", note);
    Ok(())
}

fn understand(item: &WebhookItem) -> Outcome<()> {
    match item.kind {
        WebhookKind::Message => drop(black_box(parse_message(item)?)),
        _ => drop(black_box(parse_status(item)?)),
    }
    Ok(())
}

/// The receiver and a bare one, in turns under the same load; then its answers at half of what it takes.
async fn ingest(report: &mut Report, servers: &Servers, log: &KafkaLog) -> Outcome<()> {
    let built = program("webhook-receiver")?;
    let topics = Topics::new("ingest");
    prepare(log, &topics).await?;
    let receiver = servers.start_service("webhook-receiver", &built, &[("TOPIC_PREFIX", "ingest")]).await?;
    let bare = Bare::start(&servers.kafka.bootstrap_servers(), &topics.name(Topic::ConversationEvents)).await?;
    eprintln!("measuring the receiver beside a bare one");
    let (warm, period) = (report.period(Duration::from_secs(2)), report.period(Duration::from_secs(4)));
    // The broker compiles what it does often; its first seconds say nothing.
    let first = Load {
        target: bare.listen,
        connections: 64,
        requests: requests(PATH, 1),
        warm: Duration::ZERO,
        period: period * 2,
    };
    first.saturate().await?;
    let mut taken = 0.0;
    for (name, connections, items) in SHAPES {
        if !report.wants(&format!("webhook_ingest{name}_per_s")) && !report.wants("webhook_ack_ms") {
            continue;
        }
        let load = |target| Load { target, connections, requests: requests(PATH, items), warm, period };
        let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            ceiling.push(load(bare.listen).saturate().await?);
            ours.push(load(receiver.listen).saturate().await?);
        }
        let (ours, ceiling) = (mean(&ours), mean(&ceiling));
        let share = 100.0 * ours / ceiling;
        let of =
            if items == 1 { "deliveries of one message".to_owned() } else { format!("deliveries of {items} messages") };
        let note = format!("{of} on {connections} connections; {share:.0} % of the ceiling");
        report.add(format!("webhook_ingest{name}_per_s"), ours, "1/s", note);
        let note = "the same against a bare handler: signature, one awaited record per message with the sender as its key, nothing else";
        report.add(format!("webhook_ingest{name}_ceiling_per_s"), ceiling, "1/s", note);
        report.add(format!("webhook_ingest{name}_share"), share, "%", "of the ceiling");
        let keyless = Load { requests: requests(bare::KEYLESS, items), ..load(bare.listen) }.saturate().await?;
        let note = format!(
            "the same when records have no key, so that a conversation is in no partition; {:.0} % of it",
            100.0 * ours / keyless
        );
        report.add(format!("webhook_ingest{name}_keyless_per_s"), keyless, "1/s", note);
        if items > 1 {
            let whole = Load { requests: requests(bare::WHOLE, items), ..load(bare.listen) }.saturate().await?;
            let note = "the same when a delivery stays one record";
            report.add(format!("webhook_ingest{name}_whole_per_s"), whole, "1/s", note);
        }
        if name.is_empty() {
            taken = ours;
        }
    }
    bare.stop();
    let megabytes = resident(receiver.pid())?;
    report.add("rss_loaded_mb_webhook-receiver", megabytes, "MB", "after the loads above");
    if report.wants("webhook_ack_ms") {
        let load =
            Load { target: receiver.listen, connections: 256, requests: requests(PATH, 1), warm, period: period * 2 };
        let times = load.paced(taken / 2.0).await?;
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let note = format!("due to 200, {} deliveries at {:.0}/s, half of what it takes", times.len(), taken / 2.0);
            report.add(format!("webhook_ack_ms_{name}"), percentile(&times, share), "ms", note);
        }
    }
    receiver.stop();
    Ok(())
}

/// A backlog from the topic into the log.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn process(report: &mut Report, servers: &Servers, log: &KafkaLog) -> Outcome<()> {
    let built = program("inbound-processor")?;
    let topics = Topics::new("backlog");
    prepare(log, &topics).await?;
    register_number(log, &topics).await?;
    let count = if report.period(PATIENCE) < PATIENCE { BACKLOG / 5 } else { BACKLOG };
    eprintln!("writing {count} webhook items");
    preload(log, &topics, count).await?;
    let before = used_memory(&servers.redis.url())?;
    let processor = servers.start_service("inbound-processor", &built, &[("TOPIC_PREFIX", "backlog")]).await?;
    let name = topics.name(Topic::Webhooks);
    let all: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new(name.as_str(), number)).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    let (done, took) = loop {
        let committed = log.committed(&topics.prefixed("inbound-processor"), &all).await?;
        let done = committed.iter().map(|offset| offset.unwrap_or(Offset(0)).0).sum::<i64>();
        let now = Instant::now();
        let (from, start) = *first.get_or_insert((done, now));
        if done == 0 {
            first = None;
        }
        if done >= i64::try_from(count)? {
            break (done - from, now - start);
        }
        if now > deadline {
            return Err(format!("only {done} of {count} items after {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let rate = done as f64 / took.as_secs_f64();
    let note =
        format!("{done} items of a backlog, half messages and half statuses, from the first commit seen to the last");
    report.add("inbound_process_per_s", rate, "1/s", note);
    let megabytes = resident(processor.pid())?;
    report.add("rss_loaded_mb_inbound-processor", megabytes, "MB", "after the backlog");
    let each = (used_memory(&servers.redis.url())? - before) / count as f64;
    report.add("inbound_memory_bytes_per_id", each, "B", "in Redis, per remembered item; kept 8 days");
    processor.stop();
    Ok(())
}

async fn prepare(log: &KafkaLog, topics: &Topics) -> Outcome<()> {
    Ok(provision::apply(log, &provision::specs(topics, PARTITIONS, 1)).await.map(drop)?)
}

/// Writes items as the receiver does.
async fn preload(log: &dyn Log, topics: &Topics, count: usize) -> Outcome<()> {
    let keys = StreamKeys::new("k1", STREAM_SECRET.as_bytes());
    let appender = log.appender().await?;
    let topic = topics.name(Topic::Webhooks).as_str().into();
    for from in (0..count / 2).step_by(1_000) {
        let each = (from..(from + 1_000).min(count / 2)).map(|at| [message(at), status(at)].concat());
        let mut records = Vec::new();
        for item in each.map(|value| delivery(&value)) {
            for split in split(item.as_bytes(), SystemClock.now(), "backlog")? {
                let key = Some(Bytes::from(split.key(&keys)));
                let value = Some(encode(&split.item)?.into());
                records.push(Append { topic: Clone::clone(&topic), partition: None, key, value, headers: Vec::new() });
            }
        }
        appender.append(records).await?;
    }
    Ok(())
}

/// Parts of the `value` of a change: one message.
fn message(at: usize) -> Vec<(&'static str, Value)> {
    let (phone, seconds) = (phone(at % CONTACTS), SystemClock.now().as_millis() / 1000);
    vec![
        ("contacts", json!({ "profile": { "name": "Ada Example" }, "wa_id": phone })),
        (
            "messages",
            json!({
                "from": phone, "id": format!("wamid.HBgLMTU1NTAwMDAwMDAVAgASGBQz{at:012}"), "timestamp": seconds.to_string(),
                "type": "text", "text": { "body": "Is the appointment on Thursday still free?" },
            }),
        ),
    ]
}

/// Parts of the `value` of a change: one status.
fn status(at: usize) -> Vec<(&'static str, Value)> {
    let (phone, seconds) = (phone(at % CONTACTS), SystemClock.now().as_millis() / 1000);
    vec![(
        "statuses",
        json!({
            "id": format!("wamid.HBgLMTU1NTAwMDAwMDAVAgARGBIw{at:012}"), "status": "delivered", "timestamp": seconds.to_string(),
            "recipient_id": phone, "biz_opaque_callback_data": "0190163d-8694-739b-aea5-966c26f8ad90",
            "pricing": { "billable": false, "pricing_model": "PMP", "category": "service", "type": "free_customer_service" },
        }),
    )]
}

/// A delivery as Meta sends it.
fn delivery(parts: &[(&'static str, Value)]) -> String {
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550000000", "phone_number_id": NUMBER },
    });
    for (list, element) in parts {
        match value[*list].as_array_mut() {
            Some(elements) => elements.push(element.clone()),
            None => value[*list] = json!([element]),
        }
    }
    let entry = json!([{ "id": "100000000000001", "changes": [{ "field": "messages", "value": value }] }]);
    json!({ "object": "whatsapp_business_account", "entry": entry }).to_string()
}

/// Deliveries of `items` messages each, of different people.
fn requests(path: &str, items: usize) -> Requests {
    let count = REQUESTS / items.min(8);
    let body = |nth: usize| delivery(&(0..items).flat_map(|at| message(nth * items + at)).collect::<Vec<_>>());
    Arc::new((0..count).map(|nth| request(path, &body(nth))).collect())
}

/// A bare receiver in a process of its own. Killed on drop.
struct Bare {
    child: Child,
    listen: SocketAddr,
}

impl Bare {
    async fn start(kafka: &str, topic: &str) -> Outcome<Self> {
        let listen = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare-receiver", "--listen", &listen.to_string(), "--kafka", kafka, "--topic", topic]);
        let bare = Self { child: command.stdin(Stdio::null()).spawn()?, listen };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_ready(listen).await {
            if Instant::now() > deadline {
                return Err("the bare receiver is not ready".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(bare)
    }

    fn stop(self) {}
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `used_memory` of a Redis at `redis://host:port`, in bytes.
fn used_memory(url: &str) -> Outcome<f64> {
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"INFO memory\r\nQUIT\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let value = answer.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("Redis does not tell")?;
    Ok(value.trim().parse()?)
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_what_they_are_counted_as() {
        let several: Vec<_> = (0..SEVERAL).flat_map(message).collect();
        let items = split(delivery(&several).as_bytes(), SystemClock.now(), "d").unwrap();
        assert_eq!(items.len(), SEVERAL);
        let both = split(delivery(&[message(7), status(7)].concat()).as_bytes(), SystemClock.now(), "d").unwrap();
        assert_eq!(
            both.iter().map(|split| split.item.kind).collect::<Vec<_>>(),
            [WebhookKind::Message, WebhookKind::Status]
        );
        assert!(both.iter().all(|split| split.address.phone.is_some() && understand(&split.item).is_ok()));
    }
}
