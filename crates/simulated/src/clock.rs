//! Virtual time: tokio's, which stands still on a paused runtime until every task waits, and then jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use tokio::time::Instant;

/// Where every simulated world begins: 2027-01-15T08:00:00Z.
pub const BEGINNING: Timestamp = Timestamp(1_800_000_000_000);

/// The clock of a simulated world. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    began: Instant,
    skew_millis: Arc<AtomicI64>,
}

impl SimClock {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), skew_millis: Arc::default() }
    }

    /// Makes the clock wrong by this many milliseconds, either way. Waiting is not affected.
    pub fn skew(&self, millis: i64) {
        self.skew_millis.store(millis, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let right = BEGINNING + self.began.elapsed();
        Timestamp(right.as_millis().saturating_add(self.skew_millis.load(Ordering::Relaxed)))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
