//! The generic cell rate algorithm in microseconds, with holds.

use std::collections::HashMap;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::gate::{Grant, Limit};

/// Limiters that are out of date are dropped whenever this many new ones have come.
const SWEEP_EVERY: usize = 4096;

#[derive(Default)]
pub(crate) struct Limiters {
    limiters: HashMap<String, Limiter>,
    sweep_at: usize,
}

#[derive(Clone, Copy, Default)]
struct Limiter {
    /// Theoretical arrival time in microseconds: when everything taken is paid for.
    paid_at: i64,
    /// Nothing goes before this, in microseconds since 1970.
    held_until: i64,
}

const fn micros(moment: Timestamp) -> i64 {
    moment.as_millis().saturating_mul(1000)
}

fn cost(limit: &Limit) -> i64 {
    cost_of(limit.interval, 1)
}

fn cost_of(interval: Duration, times: u32) -> i64 {
    i64::try_from(interval.as_micros().saturating_mul(u128::from(times))).unwrap_or(i64::MAX)
}

impl Limiters {
    pub(crate) fn take(&mut self, limit: &Limit, now: Timestamp) -> Grant {
        self.sweep(now);
        let limiter = self.limiters.entry(limit.key.clone()).or_default();
        let tolerance = cost_of(limit.interval, limit.burst.saturating_sub(1));
        let allowed_at = limiter.paid_at.saturating_sub(tolerance).max(limiter.held_until);
        if micros(now) < allowed_at {
            // Rounded up: asking at that moment succeeds.
            return Grant::NotBefore(Timestamp(allowed_at.saturating_add(999).div_euclid(1000)));
        }
        limiter.paid_at = limiter.paid_at.max(micros(now)).saturating_add(cost(limit));
        Grant::Granted
    }

    pub(crate) fn give_back(&mut self, limit: &Limit) {
        if let Some(limiter) = self.limiters.get_mut(&limit.key) {
            limiter.paid_at = limiter.paid_at.saturating_sub(cost(limit));
        }
    }

    pub(crate) fn hold(&mut self, key: &str, until: Timestamp) {
        let limiter = self.limiters.entry(key.to_owned()).or_default();
        limiter.held_until = limiter.held_until.max(micros(until));
    }

    fn sweep(&mut self, now: Timestamp) {
        if self.limiters.len() > self.sweep_at {
            self.limiters.retain(|_, limiter| limiter.paid_at.max(limiter.held_until) > micros(now));
            self.sweep_at = self.limiters.len() + SWEEP_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiters_that_are_paid_off_are_forgotten() {
        let mut limiters = Limiters::default();
        let limit = |n: usize| Limit { key: n.to_string(), interval: Duration::from_secs(1), burst: 1 };
        for n in 0..100_000 {
            let now = Timestamp(i64::try_from(n).expect("small"));
            assert_eq!(limiters.take(&limit(n), now), Grant::Granted);
        }
        // A thousand are still being paid for.
        assert!(limiters.limiters.len() < 2 * SWEEP_EVERY + 1000, "{}", limiters.limiters.len());
    }
}
