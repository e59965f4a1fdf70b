//! Slots for lanes at work, over all partitions: whoever is slow must not have them all.

use std::collections::HashMap;

use super::partitions::Partitions;
use crate::lanes::QueueKey;

/// A queue may have so many times as many lanes at work as slots are free (dynamic thresholds, as switches share their buffers): alone it
/// gets four of five slots, two slow ones get eight of nine, and one that has nothing at work finds a free slot.
const TIMES: usize = 4;

/// The slots as they are taken.
pub(super) struct Slots {
    free: usize,
    running: HashMap<QueueKey, usize>,
}

impl Slots {
    pub(super) fn new(at_once: usize, partitions: &Partitions) -> Self {
        let mut running: HashMap<QueueKey, usize> = HashMap::new();
        for (of, lanes) in partitions.iter().flat_map(|(_, partition)| partition.lanes.at_work()) {
            *running.entry(of).or_default() += lanes;
        }
        Self { free: at_once.saturating_sub(running.values().sum()), running }
    }

    pub(super) const fn free(&self) -> usize {
        self.free
    }

    /// Whether a lane of this queue may begin.
    pub(super) fn are_for(&self, of: QueueKey) -> bool {
        self.running.get(&of).copied().unwrap_or(0) < TIMES * self.free
    }

    /// Takes one for a lane of this queue, if it may begin.
    pub(super) fn take(&mut self, of: QueueKey) -> bool {
        let may = self.are_for(of);
        if may {
            self.free -= 1;
            *self.running.entry(of).or_default() += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many slots each of so many greedy queues gets.
    fn shared(at_once: usize, queues: u64) -> Vec<usize> {
        let mut slots = Slots { free: at_once, running: HashMap::new() };
        while (0..queues).filter(|of| slots.take(*of)).count() > 0 {}
        (0..queues).map(|of| slots.running.get(&of).copied().unwrap_or(0)).collect()
    }

    #[test]
    fn a_queue_alone_leaves_one_of_five_slots() {
        assert_eq!(shared(256, 1), [205]);
        assert_eq!(shared(1, 1), [1], "with one slot there is nothing to leave");
    }

    #[test]
    fn greedy_queues_get_the_same_and_leave_some() {
        assert_eq!(shared(256, 2), [114, 114]);
        let many = shared(256, 10);
        assert!(many.iter().all(|got| (24..=26).contains(got)) && many.iter().sum::<usize>() < 256, "{many:?}");
    }
}
