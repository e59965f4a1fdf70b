//! How a worker is doing, for the health endpoints.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Clock;

/// How often a loop that waits says that it is alive.
const PULSE: Duration = Duration::from_secs(5);

/// Shared between a worker and the health endpoints.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ready: AtomicBool,
    draining: AtomicBool,
    alive_at: AtomicI64,
}

impl Status {
    /// The loop went round.
    pub fn alive(&self, now: Timestamp) {
        self.0.alive_at.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Waits for something outside: for the log, the gate, WhatsApp, or until it is asked again. That is going round, too, however long it
    /// takes: an orchestrator that ends a process for it turns an outage into a restart loop. What a loop does by itself is not waiting.
    pub async fn waiting<T>(&self, clock: &dyn Clock, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let done = loop {
            self.alive(clock.now());
            tokio::select! {
                biased;
                done = &mut work => break done,
                () = clock.sleep(PULSE) => {}
            }
        };
        self.alive(clock.now());
        done
    }

    /// The first assignment is there and its state was read.
    pub fn set_ready(&self) {
        self.0.ready.store(true, Ordering::Relaxed);
    }

    /// The worker finishes what it has and ends.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Assigned, state read, and not on the way out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed) && !self.0.draining.load(Ordering::Relaxed)
    }

    /// When the loop last went round.
    #[must_use]
    pub fn alive_at(&self) -> Timestamp {
        Timestamp(self.0.alive_at.load(Ordering::Relaxed))
    }
}
