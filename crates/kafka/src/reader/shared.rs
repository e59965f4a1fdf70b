//! What the two halves of a reader share: the bell that wakes the thread, and how much is under way between them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use connector_ports::log::Record;

/// Bytes that may be under way to the caller. Beyond that the thread reads no more, and librdkafka's own queue fills up.
const LIMIT: usize = 8 * 1024 * 1024;

/// A bell: rings are remembered until somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for a ring, or until the time is over.
    pub(crate) fn wait(&self, time: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) =
            self.changed.wait_timeout_while(rung, time, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bell: std::sync::Arc<Bell>,
    under_way: AtomicUsize,
    generations: AtomicU64,
    last_poll: Mutex<Instant>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            bell: std::sync::Arc::default(),
            under_way: AtomicUsize::new(0),
            generations: AtomicU64::new(0),
            last_poll: Mutex::new(Instant::now()),
        }
    }

    /// Marks one continuous stretch of reading of a partition. What carries an older mark is stale.
    pub(super) fn new_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) >= LIMIT
    }

    pub(super) fn sent(&self, cost: usize) {
        self.under_way.fetch_add(cost, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, cost: usize) {
        let before = self.under_way.fetch_sub(cost, Ordering::Relaxed);
        if before >= LIMIT && before.saturating_sub(cost) < LIMIT {
            self.bell.ring();
        }
    }

    pub(super) fn polled(&self) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the caller has not polled.
    pub(super) fn silence(&self) -> Duration {
        self.last_poll.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// What a record counts against the limit.
pub(super) fn cost(record: &Record) -> usize {
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len())).sum();
    256 + record.key.as_ref().map_or(0, |key| key.len())
        + record.value.as_ref().map_or(0, |value| value.len())
        + headers
}
