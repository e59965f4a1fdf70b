//! Lanes of one partition: each conversation waits for itself only (R5).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use connector_domain::time::Timestamp;
use connector_ports::log::Record;

/// Which lane of its partition a record belongs to.
pub type LaneKey = u64;

/// A record on its way through a handler.
#[derive(Clone, Debug)]
pub struct Work {
    /// The record.
    pub record: Record,
    /// True when the group had already committed this record: its state has to be rebuilt, but it must have no effect and no
    /// output again. What a handler returns for it is dropped.
    pub replay: bool,
    /// How often it was handled before (after a wait or an effect).
    pub round: u32,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Work>,
    running: bool,
    until: Option<Timestamp>,
}

/// The lanes of one partition.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    ready: VecDeque<LaneKey>,
    /// The waits of all lanes that wait.
    wakes: BinaryHeap<Reverse<(Timestamp, LaneKey)>>,
    queued: usize,
    running: usize,
}

impl Lanes {
    /// Puts a record at the end of its lane.
    pub fn push(&mut self, key: LaneKey, work: Work) {
        let lane = self.lanes.entry(key).or_default();
        if lane.queue.is_empty() && !lane.running && lane.until.is_none() {
            self.ready.push_back(key);
        }
        lane.queue.push_back(work);
        self.queued += 1;
    }

    /// Takes work of lanes that are ready: at most `lanes` of them, each with up to `each` records, which then run.
    pub fn take(&mut self, lanes: usize, each: usize) -> Vec<(LaneKey, Vec<Work>)> {
        let mut taken = Vec::new();
        while taken.len() < lanes {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            let count = lane.queue.len().min(each);
            let work: Vec<_> = lane.queue.drain(..count).collect();
            lane.running = true;
            self.queued -= count;
            self.running += 1;
            taken.push((key, work));
        }
        taken
    }

    /// The lane's work is finished; the next may run.
    pub fn finish(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if std::mem::take(&mut lane.running) {
            self.running -= 1;
        }
        if lane.queue.is_empty() {
            self.lanes.remove(&key);
        } else {
            self.ready.push_back(key);
        }
    }

    /// Gives work back to the head of its lane, which stands still until the moment given (`None`: runs again at once).
    pub fn give_back(&mut self, key: LaneKey, work: Vec<Work>, until: Option<Timestamp>) {
        let lane = self.lanes.entry(key).or_default();
        self.queued += work.len();
        for item in work.into_iter().rev() {
            lane.queue.push_front(item);
        }
        if std::mem::take(&mut lane.running) {
            self.running -= 1;
        }
        lane.until = until;
        match until {
            Some(until) => self.wakes.push(Reverse((until, key))),
            None => self.ready.push_back(key),
        }
    }

    /// Lets the lanes run whose wait is over.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some(Reverse((until, key))) = self.wakes.peek().copied()
            && until <= now
        {
            self.wakes.pop();
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.until = None;
                self.ready.push_back(key);
            }
        }
    }

    /// When the first waiting lane may run again.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.peek().map(|Reverse((until, _))| *until)
    }

    /// Whether any lane may run now.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Records that wait in lanes.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Lanes at work.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_ports::log::{Offset, TopicPartition};

    fn work(offset: i64) -> Work {
        let record = Record {
            source: TopicPartition::new("t", 0),
            offset: Offset(offset),
            key: None,
            value: None,
            headers: vec![],
            timestamp: Timestamp(0),
        };
        Work { record, replay: false, round: 0 }
    }

    fn offsets(taken: &[(LaneKey, Vec<Work>)]) -> Vec<i64> {
        taken.iter().flat_map(|(_, w)| w.iter().map(|w| w.record.offset.0)).collect()
    }

    #[test]
    fn a_lane_at_work_holds_back_its_own_records_only() {
        let mut lanes = Lanes::default();
        for (key, offset) in [(1, 10), (1, 11), (2, 12)] {
            lanes.push(key, work(offset));
        }
        let taken = lanes.take(9, 1);
        assert_eq!(offsets(&taken), [10, 12]);
        lanes.finish(2);
        assert!(lanes.take(9, 1).is_empty());
        lanes.finish(1);
        assert_eq!(offsets(&lanes.take(9, 1)), [11]);
    }

    #[test]
    fn a_waiting_lane_keeps_its_order_and_wakes_in_time() {
        let mut lanes = Lanes::default();
        lanes.push(1, work(10));
        lanes.push(1, work(11));
        let taken = lanes.take(1, 1).remove(0);
        lanes.give_back(1, taken.1, Some(Timestamp(50)));
        lanes.push(1, work(12));
        assert_eq!(lanes.next_wake(), Some(Timestamp(50)));
        lanes.wake(Timestamp(49));
        assert!(!lanes.has_ready());
        lanes.wake(Timestamp(50));
        assert_eq!(offsets(&lanes.take(9, 9)), [10, 11, 12]);
        assert_eq!(lanes.queued(), 0);
    }
}
