//! What lanes share: whose turn it is, and how much of it is in hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::Offset;

use super::LaneKey;

/// Between two readings for which room has to be made.
const PACE: Duration = Duration::from_secs(1);
/// Longest time after which a queue that does not move is looked at again.
const LONGEST: Duration = Duration::from_secs(60);

/// The lanes of one queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Records that are not finished.
    pub(super) records: usize,
    /// Those that wait in hand.
    pub(super) in_hand: usize,
    /// Lanes at work.
    pub(super) at_work: usize,
    /// Lanes that have them.
    pub(super) holding: BTreeSet<LaneKey>,
    /// Lanes that may run, in the order in which they became ready.
    pub(super) ready: VecDeque<LaneKey>,
    /// Lanes that could run if their first record were in hand, by its place.
    pub(super) stalled: BTreeMap<Offset, LaneKey>,
    pub(super) pace: Pace,
}

/// When records of a queue are read again: as long as they get finished at once, else at growing intervals. A number that is paused
/// has a backlog that would be read for nothing.
#[derive(Debug)]
pub(super) struct Pace {
    last: Timestamp,
    /// Room had to be made for what was read last.
    crowded: bool,
    delay: Duration,
    moved: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last: Timestamp::EPOCH, crowded: false, delay: Duration::ZERO, moved: true }
    }
}

impl Pace {
    pub(super) fn is_due(&self, crowded: bool, now: Timestamp) -> bool {
        let pace = if crowded || self.crowded { PACE } else { Duration::ZERO };
        let delay = if self.moved { pace } else { self.delay.max(PACE) };
        self.last == Timestamp::EPOCH || self.last + delay <= now
    }

    /// Records are read again.
    pub(super) fn read(&mut self, crowded: bool, now: Timestamp) {
        self.delay = if self.moved { Duration::ZERO } else { (self.delay * 2).clamp(PACE, LONGEST) };
        (self.last, self.crowded, self.moved) = (now, crowded, false);
    }
}

impl Queue {
    /// A lane has so many more records in hand.
    pub(super) fn holds(&mut self, key: LaneKey, records: usize) {
        self.in_hand += records;
        self.holding.insert(key);
    }

    /// A lane has so many records less in hand, and none (`empty`).
    pub(super) fn lets_go(&mut self, key: LaneKey, records: usize, empty: bool) {
        self.in_hand -= records;
        if empty {
            self.holding.remove(&key);
        }
    }

    /// So many records came to their end.
    pub(super) fn finished(&mut self, records: usize) {
        self.records -= records;
        self.pace.moved |= records > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_move_is_read_again_at_growing_intervals() {
        let mut pace = Pace::default();
        let mut now = Timestamp(1_000_000);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let from = now;
            while !pace.is_due(true, now) {
                now = now + Duration::from_secs(1);
            }
            waits.push(now.since(from).as_secs());
            pace.read(true, now);
        }
        assert_eq!(waits, [0, 1, 1, 2, 4, 8, 16, 32, 60]);
        pace.moved = true;
        assert!(!pace.is_due(true, now) && pace.is_due(true, now + PACE), "room is made once a second");
        pace.read(false, now + PACE);
        pace.moved = true;
        assert!(pace.is_due(false, now + PACE), "where there is room nothing is waited for");
    }
}
