//! Messages on their way in: two receivers and two processors are killed, frozen and moved, brokers die, all of them at once for a
//! while, and Redis is emptied, while somebody delivers webhooks as Meta does: again until it is answered with 200. Then every
//! message stands in the log once, whether or not its first answer was a 200 (R3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connector_contracts::Topic;
use connector_demo::{Member, settings};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::Address;
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_whatsapp::signature::{SIGNATURE_HEADER, sign};
use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet::{Ground, Harm, plan};
use crate::random::Random;
use crate::{Options, Outcome, Verdict};

const DELIVERIES: usize = 10_000;
const QUICK: usize = 400;
/// Deliveries on their way at the same time.
const AT_ONCE: usize = 16;
/// Deliveries of a second, so that harm meets load from the first to the last one.
const RATE: f64 = 100.0;
const QUICK_RATE: f64 = 40.0;
/// People who write.
const CONTACTS: usize = 50;
/// Of so many deliveries one comes a second time although it was answered with 200.
const REPEATED: usize = 7;
/// How long a single request may take.
const REQUEST: Duration = Duration::from_secs(15);
/// How long a delivery is repeated: longer than everything is away.
const PERSISTENCE: Duration = Duration::from_secs(180);
/// How long the log may take to have everything after the last harm.
const PATIENCE: Duration = Duration::from_secs(120);

const RECEIVERS: [&str; 2] = ["webhook-receiver-1", "webhook-receiver-2"];
const PROCESSORS: [&str; 2] = ["inbound-processor-1", "inbound-processor-2"];
const RESERVE: &str = "inbound-processor-3";

/// Everything that happens, in the order of the seed.
fn harms(options: &Options) -> Vec<Harm> {
    let mut harms = vec![Harm::Kill(RECEIVERS[0]), Harm::Kill(PROCESSORS[0])];
    if options.quick {
        return harms;
    }
    harms.extend([
        Harm::Kill(RECEIVERS[1]),
        Harm::Kill(PROCESSORS[1]),
        Harm::Freeze(PROCESSORS[0]),
        Harm::Restart(RECEIVERS[0]),
        Harm::Restart(PROCESSORS[1]),
        Harm::Rebalance(RESERVE),
        Harm::Broker,
        Harm::Outage,
        Harm::Redis,
    ]);
    Random::new(options.seed).shuffle(&mut harms);
    harms
}

/// Plays the scenario: `acknowledged 10000 lost 0 duplicated 0`. Three brokers with `min.insync.replicas` 2; one for a quick run.
///
/// # Errors
/// When it could not be played to its end.
pub async fn play(options: &Options) -> Outcome<Verdict> {
    let count = options.sends.unwrap_or(if options.quick { QUICK } else { DELIVERIES }).max(1);
    let rate = if options.quick { QUICK_RATE } else { RATE };
    let listen =
        [local_stack::free_port()?, local_stack::free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let receivers = RECEIVERS.into_iter().zip(listen).map(|(name, address)| Member {
        settings: vec![("WEBHOOK_LISTEN", address.to_string())],
        ..Member::instance("webhook-receiver", name)
    });
    let processors = PROCESSORS.into_iter().chain([RESERVE]).map(|name| Member::instance("inbound-processor", name));
    let members = receivers.chain(processors).collect();
    let brokers = if options.quick { 1 } else { 3 };
    let secret = vec![("WHATSAPP_APP_SECRET", SECRET.to_owned())];
    let mut ground = Ground::start(options, plan(members, brokers, secret, Vec::new()), &[RESERVE]).await?;
    let mut log = ground.log();
    ground.publisher().await?.register(vec![number()]).await?;

    let meta = Arc::new(Meta::new(listen, count, rate)?);
    let delivering = tokio::spawn(Arc::clone(&meta).deliver());
    let harms = harms(options);
    let share = count / (harms.len() + 1);
    for (done, harm) in harms.into_iter().enumerate() {
        meta.reached(share * (done + 1)).await?;
        println!("  {harm:?} after {} deliveries", meta.answered.load(Ordering::Relaxed));
        ground.harm(harm).await?;
    }
    delivering.await??;

    let waited = log.until("every message", PATIENCE, |events| received(events).len() >= count).await;
    if let Err(error) = waited {
        println!("  {error}");
        for line in log.unfinished("inbound-processor", Topic::Webhooks).await? {
            println!("  {line}");
        }
    }
    let found = received(log.events().await?);
    ground.stop();
    let expected = (0..count).map(|number| meta.wamid(number));
    let lost: Vec<_> = expected.filter(|wamid| !found.contains_key(wamid)).collect();
    for wamid in lost.iter().take(20) {
        println!("  {wamid} is not in the log");
    }
    let duplicated = found.values().filter(|times| **times > 1).count();
    println!(
        "  {} answers were no 200 or got lost, and their deliveries came again",
        meta.refused.load(Ordering::Relaxed)
    );
    let line = format!("acknowledged {count} lost {} duplicated {duplicated}", lost.len());
    Ok(Verdict { line, holds: lost.is_empty() && duplicated == 0 })
}

/// How often each message stands in the log.
pub(crate) fn received(events: &[Recorded]) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for recorded in events {
        if let Event::MessageReceived(message) = &recorded.event {
            *found.entry(message.wamid.0.clone()).or_default() += 1;
        }
    }
    found
}

fn number() -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::Number,
        organization_id: settings::ORGANIZATION.into(),
        phone_number_id: Some(settings::PHONE_NUMBER_ID.into()),
        waba_id: Some(settings::WABA_ID.into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    }
}

const SECRET: &str = "chaos app secret";

/// Meta's side: every delivery is repeated until its 200.
struct Meta {
    client: Client,
    receivers: [SocketAddr; 2],
    run: i64,
    count: usize,
    rate: f64,
    start: Instant,
    next: AtomicUsize,
    answered: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicBool,
}

impl Meta {
    fn new(receivers: [SocketAddr; 2], count: usize, rate: f64) -> Outcome<Self> {
        Ok(Self {
            client: Client::builder().no_proxy().timeout(REQUEST).build()?,
            receivers,
            run: SystemClock.now().as_millis(),
            count,
            rate,
            start: Instant::now(),
            next: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        })
    }

    fn wamid(&self, number: usize) -> String {
        format!("wamid.chaos{}-{number:06}", self.run)
    }

    /// Waits until so many deliveries were answered with 200.
    async fn reached(&self, wanted: usize) -> Outcome<()> {
        while self.answered.load(Ordering::Relaxed) < wanted {
            if self.failed.load(Ordering::Relaxed) {
                return Err("a delivery was refused until its end".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn deliver(self: Arc<Self>) -> Outcome<()> {
        let mut delivering = JoinSet::new();
        for _ in 0..AT_ONCE {
            delivering.spawn(Arc::clone(&self).one_after_the_other());
        }
        while let Some(delivered) = delivering.join_next().await {
            if let Err(error) = delivered? {
                self.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn one_after_the_other(self: Arc<Self>) -> Outcome<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return Ok(());
            }
            let due = Duration::from_secs_f64(f64::from(u32::try_from(number)?) / self.rate);
            tokio::time::sleep_until((self.start + due).into()).await;
            let body = self.body(number);
            self.until_accepted(number, &body).await?;
            self.answered.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(REPEATED) {
                // Meta did not hear the first answer, and asks the other receiver.
                self.until_accepted(number + 1, &body).await?;
            }
        }
    }

    async fn until_accepted(&self, number: usize, body: &str) -> Outcome<()> {
        let deadline = Instant::now() + PERSISTENCE;
        let mut attempt = number;
        loop {
            let url = format!("http://{}/webhooks", self.receivers[attempt % self.receivers.len()]);
            let request = self.client.post(url).header("content-type", "application/json");
            let request = request.header(SIGNATURE_HEADER, sign(SECRET.as_bytes(), body.as_bytes()));
            if request.body(body.to_owned()).send().await.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            if Instant::now() > deadline {
                return Err(format!("delivery {number} is not accepted within {PERSISTENCE:?}").into());
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn body(&self, number: usize) -> String {
        let (phone, seconds) = (format!("4917055{:06}", number % CONTACTS), self.run / 1000);
        json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": settings::WABA_ID, "changes": [{ "field": "messages", "value": {
                "messaging_product": "whatsapp",
                "metadata": { "display_phone_number": "15550000000", "phone_number_id": settings::PHONE_NUMBER_ID },
                "contacts": [{ "profile": { "name": "Ada" }, "wa_id": phone }],
                "messages": [{ "from": phone, "id": self.wamid(number), "timestamp": seconds.to_string(),
                    "type": "text", "text": { "body": "Hello" } }],
            } }] }],
        })
        .to_string()
    }
}
