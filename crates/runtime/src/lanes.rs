//! Lanes of one partition: each conversation waits for itself only (R5).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use connector_domain::time::Timestamp;
use connector_ports::log::Record;

/// Which lane of its partition a record belongs to.
pub type LaneKey = u64;

/// What a lane shares with others, e.g. the business number: each of them has the same right to be served.
pub type QueueKey = u64;

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
    of: QueueKey,
    queue: VecDeque<Work>,
    running: bool,
    until: Option<Timestamp>,
}

/// The lanes of one partition.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    ready: HashMap<QueueKey, VecDeque<LaneKey>>,
    /// Those that have ready lanes, in the order in which they are served.
    turns: VecDeque<QueueKey>,
    /// The waits of all lanes that wait.
    wakes: BinaryHeap<Reverse<(Timestamp, LaneKey)>>,
    queued: usize,
    running: usize,
}

impl Lanes {
    /// Puts a record at the end of its lane. A lane stays with the queue of its first record.
    pub fn push(&mut self, key: LaneKey, of: QueueKey, work: Work) {
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { of, ..Lane::default() });
        let of = lane.of;
        let idle = lane.queue.is_empty() && !lane.running && lane.until.is_none();
        lane.queue.push_back(work);
        self.queued += 1;
        if idle {
            self.now_ready(key, of);
        }
    }

    fn now_ready(&mut self, key: LaneKey, of: QueueKey) {
        let ready = self.ready.entry(of).or_default();
        if ready.is_empty() {
            self.turns.push_back(of);
        }
        ready.push_back(key);
    }

    /// The next lane to be served: each queue in its turn, so that one with thousands of lanes keeps none of the others waiting.
    fn next_ready(&mut self) -> Option<LaneKey> {
        let of = self.turns.pop_front()?;
        let ready = self.ready.get_mut(&of)?;
        let key = ready.pop_front();
        if ready.is_empty() {
            self.ready.remove(&of);
        } else {
            self.turns.push_back(of);
        }
        key
    }

    /// Takes work of lanes that are ready: at most `lanes` of them, each with up to `each` records, which then run.
    pub fn take(&mut self, lanes: usize, each: usize) -> Vec<(LaneKey, Vec<Work>)> {
        let mut taken = Vec::new();
        while taken.len() < lanes {
            let Some(key) = self.next_ready() else { break };
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
            let of = lane.of;
            self.now_ready(key, of);
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
        let of = lane.of;
        match until {
            Some(until) => self.wakes.push(Reverse((until, key))),
            None => self.now_ready(key, of),
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
                let of = lane.of;
                self.now_ready(key, of);
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
        !self.turns.is_empty()
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
            lanes.push(key, 0, work(offset));
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
        lanes.push(1, 0, work(10));
        lanes.push(1, 0, work(11));
        let taken = lanes.take(1, 1).remove(0);
        lanes.give_back(1, taken.1, Some(Timestamp(50)));
        lanes.push(1, 0, work(12));
        assert_eq!(lanes.next_wake(), Some(Timestamp(50)));
        lanes.wake(Timestamp(49));
        assert!(!lanes.has_ready());
        lanes.wake(Timestamp(50));
        assert_eq!(offsets(&lanes.take(9, 9)), [10, 11, 12]);
        assert_eq!(lanes.queued(), 0);
    }

    #[test]
    fn a_queue_with_many_lanes_keeps_none_of_the_others_waiting() {
        let mut lanes = Lanes::default();
        for n in 0..1000 {
            lanes.push(n, 1, work(n.cast_signed()));
        }
        for (key, of) in [(2000, 2), (2001, 2), (3000, 3)] {
            lanes.push(key, of, work(i64::try_from(key).expect("small")));
        }
        assert_eq!(offsets(&lanes.take(5, 1)), [0, 2000, 3000, 1, 2001]);
        // A lane that comes back stands behind those of its queue, and its queue has one turn like every other.
        lanes.finish(2000);
        lanes.push(2000, 2, work(2002));
        assert_eq!(offsets(&lanes.take(3, 1)), [2, 2002, 3]);
        assert_eq!((lanes.running(), lanes.queued()), (8 - 1, 1000 - 4));
    }
}
