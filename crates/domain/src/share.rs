//! A worker's share of a limit when nobody counts for all workers (R6).
//!
//! The time of a number is cut into slots, one for each message that its limit allows, and the slots belong to the partitions in turn. A
//! partition has one owner, so no slot is used twice: all workers together stay within the limit without a word between them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::time::Timestamp;

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

const fn now_micros(now: Timestamp) -> i64 {
    now.as_millis().saturating_mul(1000)
}

/// Rounded up: asking at that moment succeeds.
const fn moment(micros: i64) -> Timestamp {
    Timestamp(micros.saturating_add(999).div_euclid(1000))
}

/// How the time of a number is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Time that one message costs; more than zero.
    pub interval: Duration,
    /// How many may leave at once: so many slots that began are still good.
    pub burst: u32,
    /// Among how many partitions the slots are shared.
    pub partitions: u32,
}

/// What one worker has used of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The last slot that was used, or is not for this worker to use.
    used: i64,
}

impl Slots {
    fn slot(&self, now: Timestamp) -> i64 {
        now_micros(now).div_euclid(micros(self.interval).max(1))
    }

    /// A share from now on: what began before belongs to whoever counted then.
    #[must_use]
    pub fn begin(&self, now: Timestamp) -> Share {
        Share { used: self.slot(now) }
    }

    /// Takes a slot of one of these partitions. `Err`: the moment when the next one begins; nothing was taken.
    ///
    /// # Errors
    /// When none is left now.
    pub fn take(&self, share: &mut Share, owned: &BTreeSet<u32>, now: Timestamp) -> Result<(), Timestamp> {
        let partitions = i64::from(self.partitions.max(1));
        let current = self.slot(now);
        let first = (share.used + 1).max(current - i64::from(self.burst.max(1)) + 1);
        let is_ours = |slot: &i64| u32::try_from(slot.rem_euclid(partitions)).is_ok_and(|of| owned.contains(&of));
        // Without a partition there is no slot, however long one waits.
        let Some(slot) = (first..first.saturating_add(partitions)).find(is_ours) else {
            return Err(now + self.interval * self.partitions.max(1));
        };
        if slot > current {
            return Err(moment(slot.saturating_mul(micros(self.interval).max(1))));
        }
        share.used = slot;
        Ok(())
    }
}

/// The limit of a pair, counted by the only worker that sends to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// When everything taken is paid for, in microseconds since 1970.
    paid_at: i64,
}

impl Owed {
    /// A pair of which it is not known what was taken: everything.
    #[must_use]
    pub fn everything(interval: Duration, burst: u32, now: Timestamp) -> Self {
        Self { paid_at: now_micros(now).saturating_add(micros(interval * burst)) }
    }

    /// Takes one. `Err`: the moment when the next may go; nothing was taken.
    ///
    /// # Errors
    /// When none is left now.
    pub fn take(&mut self, interval: Duration, burst: u32, now: Timestamp) -> Result<(), Timestamp> {
        let allowed_at = self.paid_at.saturating_sub(micros(interval * burst.saturating_sub(1)));
        if now_micros(now) < allowed_at {
            return Err(moment(allowed_at));
        }
        self.paid_at = self.paid_at.max(now_micros(now)).saturating_add(micros(interval));
        Ok(())
    }

    /// Whether there is nothing left to pay: the same as a pair that was never written to.
    #[must_use]
    pub fn is_paid(&self, now: Timestamp) -> bool {
        self.paid_at <= now_micros(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp(1_800_000_000_000);

    fn slots(rate: u32, burst: u32, partitions: u32) -> Slots {
        Slots { interval: Duration::from_secs(1) / rate, burst, partitions }
    }

    #[test]
    fn who_owns_everything_has_the_whole_limit() {
        let slots = slots(80, 8, 6);
        let (owned, mut share) = ((0..6).collect(), slots.begin(NOON));
        let mut taken = 0;
        for millis in 0..10_000 {
            while slots.take(&mut share, &owned, NOON + Duration::from_millis(millis)).is_ok() {
                taken += 1;
            }
        }
        assert_eq!(taken, 799, "the slot in which it began is not its own");
    }

    #[test]
    fn it_says_when_the_next_slot_begins_and_that_one_can_be_taken() {
        let slots = slots(80, 8, 6);
        let (owned, mut share) = (BTreeSet::from([2]), slots.begin(NOON));
        let mut now = NOON;
        let mut taken = Vec::new();
        while taken.len() < 100 {
            match slots.take(&mut share, &owned, now) {
                Ok(()) => taken.push(now),
                Err(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        // Every sixth of 12.5 ms.
        let took = taken[99].since(taken[0]);
        assert!(took >= Duration::from_millis(99 * 75 - 1) && took <= Duration::from_millis(99 * 75 + 1), "{took:?}");
    }

    #[test]
    fn a_pair_of_which_nothing_is_known_begins_with_an_empty_burst() {
        let (interval, burst) = (Duration::from_secs(6), 45);
        let mut owed = Owed::everything(interval, burst, NOON);
        assert_eq!(owed.take(interval, burst, NOON), Err(NOON + interval));
        assert_eq!(owed.take(interval, burst, NOON + interval), Ok(()));
        assert_eq!(owed.take(interval, burst, NOON + interval), Err(NOON + interval * 2));
        let rested = NOON + interval * 60;
        assert!(owed.is_paid(rested));
        assert!((0..45).all(|_| owed.take(interval, burst, rested).is_ok()));
        assert!(owed.take(interval, burst, rested).is_err());
    }

    proptest! {
        /// However many workers share the partitions in whatever way, and whenever each of them asks: in no second leave more than the rate and
        /// the burst.
        #[test]
        fn all_workers_together_stay_within_the_limit(
            rate in prop::sample::select(vec![1_u32, 4, 10, 80, 250, 1000]),
            burst in 1_u32..20,
            owners in prop::collection::vec(0_usize..5, 1..40),
            began in prop::collection::vec(0_u64..3000, 5),
            asks in prop::collection::vec((0_u64..5000, 0_usize..5, 1_usize..30), 1..200),
        ) {
            let slots = slots(rate, burst, u32::try_from(owners.len()).unwrap());
            let owned = |worker| -> BTreeSet<u32> {
                (0..slots.partitions).filter(|p| owners[usize::try_from(*p).unwrap()] == worker).collect()
            };
            let owned: Vec<_> = (0..5).map(owned).collect();
            let mut shares: Vec<_> = began.iter().map(|at| slots.begin(NOON + Duration::from_millis(*at))).collect();
            let mut asks = asks;
            asks.sort_unstable();
            let mut taken = Vec::new();
            for (at, worker, times) in asks {
                let now = NOON + Duration::from_millis(at);
                for _ in 0..times {
                    if at >= began[worker] && slots.take(&mut shares[worker], &owned[worker], now).is_ok() {
                        taken.push(at);
                    }
                }
            }
            for from in &taken {
                let within = taken.iter().filter(|at| (*from..from + 1000).contains(at)).count();
                prop_assert!(within <= usize::try_from(rate + burst).unwrap(), "{within} in a second");
            }
        }
    }
}
