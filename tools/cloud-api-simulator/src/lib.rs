//! WhatsApp for development and tests: a server that speaks as the Cloud API does.
//!
//! It offers the Graph API (`/v26.0/...`), sends signed webhooks, simulates the phones of contacts, and is steered over
//! `/simulator/...` (see `control.rs`). It shares no types with the connector, so that a wrong idea of the Cloud API in one
//! of them shows in tests. It is not for production: the control API has no authentication, so keep it on loopback.

mod clock;
pub mod config;
mod contacts;
mod control;
mod faults;
mod graph;
mod ids;
mod ledger;
mod template;
mod webhooks;
mod world;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

pub use crate::{
    config::{Config, Secret, StartError, Switch, WebhookOrder, WindowErrors},
    world::{DEFAULT_PHONE_NUMBER_IDS, DEFAULT_WABA_ID},
};
use crate::{
    contacts::Contacts,
    faults::Faults,
    ids::Ids,
    ledger::{Ledger, Outcome, Post},
    webhooks::deliver::Outbox,
    world::World,
};

/// Everything the handlers share. Locks are held for moments only and never across an await.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) ids: Ids,
    pub(crate) faults: Faults,
    pub(crate) outbox: Outbox,
    world: RwLock<World>,
    contacts: Mutex<Contacts>,
    ledger: Mutex<Ledger>,
    /// Theoretical arrival times of the throughput limit (GCRA), in microseconds, by number.
    throughput: Mutex<HashMap<String, i64>>,
    /// Grows with each reset: work of an older epoch stops.
    epoch: AtomicU64,
    posts: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl App {
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Puts a POST into the ledger and the totals.
    pub(crate) fn record(&self, post: Post) {
        self.posts.fetch_add(1, Ordering::Relaxed);
        let counter = match post.outcome {
            Outcome::Accepted => &self.accepted,
            Outcome::Refused(_) => &self.refused,
            Outcome::Lost => &self.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.ledger().record(post);
    }

    /// Takes one message from a number's throughput: a second's worth may come at once.
    pub(crate) fn take_throughput(&self, phone_number_id: &str, now_ms: i64) -> bool {
        let per_second = i64::from(self.config.throughput);
        if per_second == 0 {
            return true;
        }
        let now_us = now_ms * 1_000;
        let mut throughput = self.throughput.lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = throughput.entry(phone_number_id.to_owned()).or_insert(now_us);
        let next = (*arrival).max(now_us) + 1_000_000 / per_second;
        let allowed = next - now_us <= 1_000_000;
        if allowed {
            *arrival = next;
        }
        allowed
    }

    /// Totals since the start or the last reset.
    pub(crate) fn stats(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "posts": read(&self.posts), "accepted": read(&self.accepted), "refused": read(&self.refused),
            "lost": read(&self.lost), "contacts": self.contacts().len(), "webhooks": self.outbox.counters(),
        })
    }

    /// Back to the first moment: world, contacts, ledgers, faults and waiting webhooks. Callback URLs stay.
    pub(crate) fn reset(&self) -> Result<(), StartError> {
        let world = World::from_config(&self.config, &self.ids)?;
        self.epoch.fetch_add(1, Ordering::Relaxed);
        *self.world_mut() = world;
        *self.contacts() = Contacts::default();
        self.ledger().clear();
        self.faults.remove(None);
        self.outbox.reset();
        self.throughput.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for counter in [&self.posts, &self.accepted, &self.refused, &self.lost] {
            counter.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A running simulator. It ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Handle {
    /// `http://<address>`: the Graph base URL without the version, and the base of the control API.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops accepting, lets running requests end for a moment, then ends deliveries. Undelivered webhooks are lost, as
    /// the simulator keeps everything in memory.
    pub async fn shutdown(mut self) {
        drop(self.stop.take());
        let server = async { while self.tasks.join_next().await.is_some_and(|ended| ended.is_err()) {} };
        // The lanes never end by themselves, so the first task that ends is the server.
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), server).await);
        self.tasks.shutdown().await;
    }
}

/// Starts a simulator in the current tokio runtime.
///
/// # Errors
/// [`StartError`] if a file cannot be read, the address cannot be bound, or the webhook client cannot be built.
pub async fn spawn(config: Config) -> Result<Handle, StartError> {
    let config = config.read_secret_files()?;
    let ids = Ids::new(config.seed);
    let world = World::from_config(&config, &ids)?;
    let mut tasks = JoinSet::new();
    let outbox = Outbox::start(&config, &mut tasks).map_err(StartError::Client)?;
    let listen = |source| StartError::Listen { addr: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let app = Arc::new(App {
        ids,
        faults: Faults::new(config.seed),
        outbox,
        world: RwLock::new(world),
        contacts: Mutex::default(),
        ledger: Mutex::default(),
        throughput: Mutex::default(),
        epoch: AtomicU64::new(0),
        posts: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        config,
    });
    let router = graph::routes().merge(control::routes()).with_state(app);
    let (stop, stopped) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // Small answers must not wait for more bytes; a failure only costs latency.
            drop(stream.set_nodelay(true));
        });
        let stopped = async move { drop(stopped.await) };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
            tracing::error!(error = %error, "the server ended");
        }
    });
    Ok(Handle { addr, stop: Some(stop), tasks })
}
