//! Delivery of webhooks: lanes, retries and the ledger of what was acknowledged.
//!
//! Updates of one contact share a lane and go one after the other. A delivery that is not answered by 200 is repeated at
//! once; after that it leaves the lane, which goes on, and comes back with exponential backoff until the receiver takes
//! it or the give-up time has passed. So nothing is lost while a receiver is away, and order is kept only while it is well.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{Update, envelope, sign::signature};
use crate::{
    clock::now_ms,
    config::{Config, WebhookOrder},
};

/// An update on its way.
struct Job {
    update: Update,
    seq: u64,
    since_ms: i64,
    attempts: u32,
    generation: u64,
}

/// What is known of one update.
#[derive(Debug)]
struct Row {
    what: String,
    about: Option<String>,
    queued_ms: i64,
    attempts: u32,
    last_status: Option<u16>,
    acked_ms: Option<i64>,
    dropped: bool,
}

/// The latest rows; the first one has sequence number `first`.
#[derive(Debug, Default)]
struct Rows {
    first: u64,
    rows: VecDeque<Row>,
}

/// Receivers by account; the empty key is the app's.
type Callbacks = HashMap<String, String>;

/// Where updates are put for delivery.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    lanes: Vec<mpsc::UnboundedSender<Job>>,
    order: WebhookOrder,
}

#[derive(Debug)]
struct Shared {
    client: reqwest::Client,
    app_secret: String,
    base: Duration,
    longest: Duration,
    give_up_ms: i64,
    batch: usize,
    keep: usize,
    callbacks: watch::Sender<Callbacks>,
    rows: Mutex<Rows>,
    /// Updates of an older generation are forgotten (reset).
    generation: AtomicU64,
    queued: AtomicU64,
    acked: AtomicU64,
    dropped: AtomicU64,
    posts: AtomicU64,
    failed_posts: AtomicU64,
}

impl Shared {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_rows(&self, jobs: &[Job], change: impl Fn(&mut Row)) {
        let mut rows = self.rows();
        let first = rows.first;
        for job in jobs.iter().filter(|job| job.generation == self.generation.load(Ordering::Relaxed)) {
            let place = job.seq.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(row) = place.and_then(|place| rows.rows.get_mut(place)) {
                change(row);
            }
        }
    }

    /// One POST. The HTTP status, or `None` without an answer.
    async fn post(&self, url: &str, jobs: &mut [Job]) -> Option<u16> {
        let body = envelope(jobs.iter().map(|job| &job.update));
        let signature = signature(&self.app_secret, body.as_bytes());
        self.posts.fetch_add(1, Ordering::Relaxed);
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("x-hub-signature-256", signature)
            .body(body);
        let status = request.send().await.ok().map(|response| response.status().as_u16());
        jobs.iter_mut().for_each(|job| job.attempts += 1);
        self.change_rows(jobs, |row| {
            row.attempts += 1;
            row.last_status = status;
        });
        if status != Some(200) {
            self.failed_posts.fetch_add(1, Ordering::Relaxed);
        }
        status
    }

    /// Waits until there is a receiver for the account.
    async fn callback(&self, waba_id: &str) -> Option<String> {
        let mut callbacks = self.callbacks.subscribe();
        let find = |callbacks: &Callbacks| callbacks.get(waba_id).or_else(|| callbacks.get("")).cloned();
        callbacks.wait_for(|callbacks| find(callbacks).is_some()).await.ok().and_then(|callbacks| find(&callbacks))
    }

    /// Backoff after this many attempts: the base after the immediate retry, then doubling.
    fn pause(&self, attempts: u32) -> Duration {
        self.base.saturating_mul(1 << attempts.saturating_sub(2).min(16)).min(self.longest)
    }

    /// Delivers jobs of one account in one POST; gives back those to try later.
    async fn deliver(&self, mut jobs: Vec<Job>) -> Vec<Job> {
        let Some(waba_id) = jobs.first().map(|job| job.update.waba_id.clone()) else { return jobs };
        let first_time = jobs.iter().all(|job| job.attempts == 0);
        for _ in 0..if first_time { 2 } else { 1 } {
            let Some(url) = self.callback(&waba_id).await else { return Vec::new() };
            // A reset may have come while there was no receiver.
            let generation = self.generation.load(Ordering::Relaxed);
            jobs.retain(|job| job.generation == generation);
            if jobs.is_empty() {
                return jobs;
            }
            if self.post(&url, &mut jobs).await == Some(200) {
                let now = now_ms();
                self.change_rows(&jobs, |row| row.acked_ms = Some(now));
                // A delivery that a reset has overtaken does not count in the new counters.
                let generation = self.generation.load(Ordering::Relaxed);
                let counted = jobs.iter().filter(|job| job.generation == generation).count();
                self.acked.fetch_add(counted as u64, Ordering::Relaxed);
                return Vec::new();
            }
        }
        let oldest = now_ms() - self.give_up_ms;
        let (later, given_up): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.since_ms > oldest);
        self.change_rows(&given_up, |row| row.dropped = true);
        self.dropped.fetch_add(given_up.len() as u64, Ordering::Relaxed);
        later
    }
}

async fn run_lane(shared: Arc<Shared>, own: mpsc::WeakUnboundedSender<Job>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut waiting = Vec::new();
    // Dropped together with the lane, which ends its pauses.
    let mut pauses = JoinSet::new();
    while jobs.recv_many(&mut waiting, shared.batch).await > 0 {
        while let Some(first) = waiting.first() {
            let waba_id = first.update.waba_id.clone();
            let same = waiting.iter().take_while(|job| job.update.waba_id == waba_id).count();
            for job in shared.deliver(waiting.drain(..same).collect()).await {
                let (pause, own) = (shared.pause(job.attempts), own.clone());
                pauses.spawn(async move {
                    tokio::time::sleep(pause).await;
                    if let Some(lane) = own.upgrade() {
                        // Fails only when the lane has ended.
                        drop(lane.send(job));
                    }
                });
            }
        }
        while pauses.try_join_next().is_some() {}
    }
}

impl Outbox {
    /// Starts the lanes in `tasks`.
    pub(crate) fn start(config: &Config, tasks: &mut JoinSet<()>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(config.webhook_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("facebookexternalua")
            .no_proxy()
            .build()?;
        let callbacks = config.callback_url.iter().map(|url| (String::new(), url.clone())).collect();
        let shared = Arc::new(Shared {
            client,
            app_secret: config.app_secret.expose().to_owned(),
            base: config.webhook_retry_base,
            longest: config.webhook_retry_max,
            give_up_ms: i64::try_from(config.webhook_give_up.as_millis()).unwrap_or(i64::MAX),
            batch: usize::from(config.webhook_batch.max(1)),
            keep: config.webhook_ledger,
            callbacks: watch::Sender::new(callbacks),
            rows: Mutex::default(),
            generation: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            posts: AtomicU64::new(0),
            failed_posts: AtomicU64::new(0),
        });
        let lanes = (0..config.webhook_concurrency.max(1))
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                tasks.spawn(run_lane(Arc::clone(&shared), sender.downgrade(), receiver));
                sender
            })
            .collect();
        Ok(Self { shared, lanes, order: config.webhook_order })
    }

    /// Puts an update into its lane and gives its sequence number.
    pub(crate) fn push(&self, update: Update) -> u64 {
        let shared = &self.shared;
        let queued_ms = now_ms();
        let lane = update.lane;
        let mut rows = shared.rows();
        rows.rows.push_back(Row {
            what: update.what.clone(),
            about: update.about.clone(),
            queued_ms,
            attempts: 0,
            last_status: None,
            acked_ms: None,
            dropped: false,
        });
        let seq = rows.first + rows.rows.len() as u64 - 1;
        while rows.rows.len() > shared.keep.max(1) {
            rows.rows.pop_front();
            rows.first += 1;
        }
        shared.queued.fetch_add(1, Ordering::Relaxed);
        let lane = match self.order {
            WebhookOrder::Sequential => lane,
            WebhookOrder::Concurrent => seq,
        };
        let place = usize::try_from(lane % self.lanes.len() as u64).unwrap_or_default();
        let generation = shared.generation.load(Ordering::Relaxed);
        // Sent under the lock, so that two updates of one contact cannot overtake each other here.
        // It fails only when the simulator is ending.
        if let Some(lane) = self.lanes.get(place) {
            drop(lane.send(Job { update, seq, since_ms: queued_ms, attempts: 0, generation }));
        }
        seq
    }

    /// Sets (or removes) the receiver of an account; the empty id is the app's.
    pub(crate) fn set_callback(&self, waba_id: &str, url: Option<String>) {
        self.shared.callbacks.send_modify(|callbacks| {
            match url {
                Some(url) => callbacks.insert(waba_id.to_owned(), url),
                None => callbacks.remove(waba_id),
            };
        });
    }

    /// The app's receiver.
    pub(crate) fn app_callback(&self) -> Option<String> {
        self.shared.callbacks.borrow().get("").cloned()
    }

    /// Asks a callback URL to prove itself, as Meta does when it is saved: true if it answers 200 with the challenge.
    pub(crate) async fn verify(&self, url: &str, verify_token: &str, challenge: &str) -> bool {
        let query = [("hub.mode", "subscribe"), ("hub.challenge", challenge), ("hub.verify_token", verify_token)];
        let Ok(mut target) = reqwest::Url::parse(url) else { return false };
        target.query_pairs_mut().extend_pairs(query);
        let Ok(response) = self.shared.client.get(target).send().await else { return false };
        response.status().as_u16() == 200 && response.text().await.is_ok_and(|body| body == challenge)
    }

    /// Forgets everything, also what waits for delivery.
    pub(crate) fn reset(&self) {
        let shared = &self.shared;
        let mut rows = shared.rows();
        shared.generation.fetch_add(1, Ordering::Relaxed);
        rows.first += rows.rows.len() as u64;
        rows.rows.clear();
        for counter in [&shared.queued, &shared.acked, &shared.dropped, &shared.posts, &shared.failed_posts] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// The counters.
    pub(crate) fn counters(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        let (acked, dropped) = (read(&shared.acked), read(&shared.dropped));
        let queued = read(&shared.queued);
        json!({
            "queued": queued, "acked": acked, "dropped": dropped, "pending": queued.saturating_sub(acked + dropped),
            "posts": read(&shared.posts), "failed_posts": read(&shared.failed_posts),
        })
    }

    /// The rows from `since` on, of a message id if given.
    pub(crate) fn report(&self, since: u64, about: Option<&str>, limit: usize) -> Value {
        let rows = self.shared.rows();
        let list: Vec<Value> = rows
            .rows
            .iter()
            .zip(rows.first..)
            .filter(|(row, seq)| *seq >= since && about.is_none_or(|about| row.about.as_deref() == Some(about)))
            .take(limit)
            .map(|(row, seq)| {
                json!({
                    "seq": seq, "what": row.what, "id": row.about, "queued_ms": row.queued_ms, "attempts": row.attempts,
                    "last_status": row.last_status, "acked_ms": row.acked_ms, "dropped": row.dropped,
                })
            })
            .collect();
        json!({"counters": self.counters(), "webhooks": list, "next": rows.first + rows.rows.len() as u64})
    }
}
