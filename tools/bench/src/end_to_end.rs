//! A message's way into the log: from the webhook's 200 until a reader of committed data has the event in hand.
//!
//! Deliveries leave at fixed moments whether or not earlier ones were answered, so a stall shows in every delivery it held up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connector_contracts::{Topic, Topics, decode_event};
use connector_domain::event::Event;
use connector_ports::clock::SystemClock;
use connector_ports::log::{Isolation, Polled, Reader, Start, TopicPartition};
use connector_ports::{Clock, Log};
use connector_whatsapp::signature::{SIGNATURE_HEADER, sign};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fleet::{APP_SECRET, INBOUND, Service};
use crate::http::Connection;
use crate::report::{Outcome, Report, millis, percentile};
use crate::samples::{NUMBER, phone};

const PATH: &str = "/webhooks";
/// Deliveries a second, of one message each.
const RATE: usize = 500;
const CONNECTIONS: usize = 32;
/// So many people write.
const CONTACTS: usize = 1_000;
/// How long after the last delivery its event may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A delivery that was answered with 200.
struct Delivered {
    wamid: String,
    /// When it should have left; it leaves later when all connections are busy.
    due: Instant,
    answered: Instant,
}

pub(crate) async fn measure(report: &mut Report, log: &dyn Log, topics: &Topics, fleet: &[Service]) -> Outcome<()> {
    if let Some(missing) = INBOUND.iter().find(|name| fleet.iter().all(|service| service.name != **name)) {
        return Err(format!("{missing} does not run").into());
    }
    let receiver = fleet.iter().find(|service| service.name == "webhook-receiver").ok_or("no receiver")?;
    let (warm, period) = (report.period(Duration::from_secs(90)), report.period(Duration::from_secs(20)));
    eprintln!("measuring the way of a message: {RATE} deliveries a second for {:?}", warm + period);
    let reader = reader(log, topics).await?;
    let total = RATE * usize::try_from((warm + period).as_millis())? / 1000;
    let (answered_all, until) = watch::channel(None);
    let reading = tokio::spawn(read(reader, total, until));
    let delivered = deliver(receiver.listen, total).await?;
    // Counted from here: on a machine that cannot keep up the deliveries themselves take longer than planned.
    answered_all.send(Some(Instant::now() + PATIENCE))?;
    let seen = reading.await??;

    let first = delivered.iter().map(|one| one.due).min().ok_or("nothing was delivered")?;
    let (mut from_answer, mut from_start, mut answers, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for one in delivered.iter().filter(|one| one.due >= first + warm) {
        match seen.get(&one.wamid) {
            Some(seen) => {
                // An event may be there before the answer is: that is no delay.
                from_answer.push(millis(seen.saturating_duration_since(one.answered)));
                from_start.push(millis(seen.duration_since(one.due)));
                answers.push(millis(one.answered.duration_since(one.due)));
            }
            None => lost += 1,
        }
    }
    if lost > 0 {
        let counted = from_answer.len() + lost;
        return Err(format!("{lost} of {counted} messages were not in the log {PATIENCE:?} after the last 200").into());
    }
    let load = format!("{} messages at {RATE}/s, one per delivery, {CONTACTS} contacts", from_answer.len());
    for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
        let from_start = percentile(&from_start, share);
        let note = format!("200 to event read committed; from the POST {from_start:.1}; {load}");
        report.add(format!("end_to_end_ms_{name}"), percentile(&from_answer, share), "ms", note);
    }
    let note = format!("POST to 200, after Kafka's ack; p99 {:.1}", percentile(&answers, 0.99));
    report.add("webhook_answer_ms_p50", percentile(&answers, 0.5), "ms", note);
    Ok(())
}

async fn reader(log: &dyn Log, topics: &Topics) -> Outcome<Box<dyn Reader>> {
    let name = topics.name(Topic::ConversationEvents);
    let partitions = log.topic(&name.as_str().into()).await?.ok_or("the log's topic is missing")?.partitions;
    let all = (0..partitions).map(|number| (TopicPartition::new(name.as_str(), number), Start::End)).collect();
    let mut reader = log.assign(all, Isolation::Committed).await?;
    // Its end is the end before the first delivery, once it says it is there.
    let mut ready = std::collections::BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while ready.len() < partitions as usize {
        if Instant::now() > deadline {
            return Err("the reader of the log does not reach its end".into());
        }
        if let Polled::CaughtUp(partition, _) = reader.poll(Duration::from_millis(100), 100).await? {
            ready.insert(partition);
        }
    }
    Ok(reader)
}

/// When each message was seen first, until there are `total` of them, or until the moment that is told once it is known. Ends as
/// well when nobody waits any more.
async fn read(
    mut reader: Box<dyn Reader>,
    total: usize,
    until: watch::Receiver<Option<Instant>>,
) -> Outcome<HashMap<String, Instant>> {
    let mut seen = HashMap::with_capacity(total);
    let expired = || match *until.borrow() {
        Some(until) => Instant::now() > until,
        None => until.has_changed().is_err(),
    };
    while seen.len() < total && !expired() {
        let Polled::Records(records) = reader.poll(Duration::from_millis(100), 1_000).await? else { continue };
        let now = Instant::now();
        for record in records {
            let recorded = decode_event(record.value.as_deref().unwrap_or_default())?;
            if let Event::MessageReceived(message) = recorded.event {
                seen.entry(message.wamid.0).or_insert(now);
            }
        }
    }
    reader.close().await;
    Ok(seen)
}

async fn deliver(receiver: SocketAddr, total: usize) -> Outcome<Vec<Delivered>> {
    let next = Arc::new(AtomicUsize::new(0));
    // The run's own name: a wamid of an earlier run would be a duplicate.
    let run = uuid::Uuid::now_v7().simple().to_string();
    let start = Instant::now() + Duration::from_millis(100);
    let mut posting = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connection = Connection::open(receiver).await?;
        posting.spawn(post(connection, Arc::clone(&next), total, start, run.clone()));
    }
    let mut delivered = Vec::with_capacity(total);
    while let Some(some) = posting.join_next().await {
        delivered.extend(some??);
    }
    Ok(delivered)
}

/// Takes the next delivery that nobody has taken, waits for its moment, posts it, until there are no more.
async fn post(
    mut connection: Connection,
    next: Arc<AtomicUsize>,
    total: usize,
    start: Instant,
    run: String,
) -> Outcome<Vec<Delivered>> {
    let gap = Duration::from_secs(1) / u32::try_from(RATE)?;
    let mut delivered = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return Ok(delivered);
        }
        let wamid = format!("wamid.{run}{number:08}");
        let body = delivery(&wamid, number % CONTACTS);
        let signature = sign(APP_SECRET.as_bytes(), body.as_bytes());
        let due = start + gap * u32::try_from(number)?;
        tokio::time::sleep_until(due.into()).await;
        let answer = connection.post(PATH, (SIGNATURE_HEADER, &signature), body.as_bytes()).await?;
        if answer.status != 200 {
            return Err(format!("the webhook answers {}", answer.status).into());
        }
        delivered.push(Delivered { wamid, due, answered: answer.at });
    }
}

/// A delivery as Meta sends it for one text message.
fn delivery(wamid: &str, contact: usize) -> String {
    let (phone, seconds) = (phone(contact), SystemClock.now().as_millis() / 1000);
    serde_json::json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": "100000000000001", "changes": [{ "field": "messages", "value": {
            "messaging_product": "whatsapp",
            "metadata": { "display_phone_number": "15550000000", "phone_number_id": NUMBER },
            "contacts": [{ "profile": { "name": "Ada Example" }, "wa_id": phone }],
            "messages": [{
                "from": phone, "id": wamid, "timestamp": seconds.to_string(), "type": "text",
                "text": { "body": "Is the appointment on Thursday still free?" },
            }],
        } }] }],
    })
    .to_string()
}
