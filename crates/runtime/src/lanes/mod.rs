//! Lanes of one partition: each conversation waits for itself only (R5).
//!
//! A lane has its records in hand as long as there is room. What there is no room for is *aside*: only its place is kept, and it is read
//! again when its lane could run. So a backlog that cannot move costs a few bytes a record, and what comes behind it is
//! read all the same.

mod aside;
mod queue;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use connector_domain::time::Timestamp;
use connector_ports::log::Record;

use aside::Aside;
pub use aside::Wanted;
use queue::Queue;

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

/// A lane with records in hand, at work or waiting. One that has nothing but records aside and could run needs no more than its place.
#[derive(Debug, Default)]
struct Lane {
    of: QueueKey,
    /// In hand, in order; what is aside comes behind it.
    hand: VecDeque<Work>,
    /// How many records are at work.
    running: usize,
    until: Option<Timestamp>,
    /// Of the first record aside, when it was handled before.
    round: u32,
}

impl Lane {
    const fn is_idle(&self) -> bool {
        self.running == 0 && self.until.is_none()
    }
}

/// The lanes of one partition.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Most records in hand; `None`: all there are.
    most: Option<usize>,
    lanes: HashMap<LaneKey, Lane>,
    /// All that have records.
    queues: BTreeMap<QueueKey, Queue>,
    /// Those that have ready lanes, in the order in which they are served.
    turns: VecDeque<QueueKey>,
    aside: Aside,
    /// The waits of all lanes that wait.
    wakes: BinaryHeap<Reverse<(Timestamp, LaneKey)>>,
    queued: usize,
    running: usize,
}

impl Lanes {
    /// Lanes that have at most so many records in hand; some more when records come back from work.
    #[must_use]
    pub fn with_room_for(most: usize) -> Self {
        Self { most: Some(most), ..Self::default() }
    }

    /// Puts a record at the end of its lane. A lane stays with the queue of its first record.
    pub fn push(&mut self, key: LaneKey, of: QueueKey, work: Work) {
        let known = self.lanes.get(&key).map(|lane| lane.of).or_else(|| self.aside.first(key).map(|(_, of)| of));
        let of = known.unwrap_or(of);
        self.queues.entry(of).or_default().records += 1;
        if self.is_short_of_room(key, of) {
            self.aside.insert(key, of, work.record.offset);
            if known.is_none() {
                self.now_stalled(key);
            }
            return;
        }
        self.take_in(key, of, work);
    }

    fn take_in(&mut self, key: LaneKey, of: QueueKey, work: Work) {
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { of, ..Lane::default() });
        let was_idle = lane.hand.is_empty() && lane.is_idle();
        lane.hand.push_back(work);
        self.queued += 1;
        self.queues.entry(of).or_default().holds(key, 1);
        if was_idle {
            self.now_ready(key, of);
        }
    }

    fn now_ready(&mut self, key: LaneKey, of: QueueKey) {
        let queue = self.queues.entry(of).or_default();
        if queue.ready.is_empty() {
            self.turns.push_back(of);
        }
        queue.ready.push_back(key);
    }

    /// The lane could run if its first record were in hand.
    fn now_stalled(&mut self, key: LaneKey) {
        if let Some((first, of)) = self.aside.first(key) {
            self.queues.entry(of).or_default().stalled.insert(first, key);
        }
    }

    /// An idle lane: what becomes of it.
    fn go_on(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get(&key) else { return };
        let of = lane.of;
        if !lane.hand.is_empty() {
            self.now_ready(key, of);
            return;
        }
        let has_more = self.aside.first(key).is_some();
        if !has_more || lane.round == 0 {
            self.lanes.remove(&key);
        }
        if has_more {
            self.now_stalled(key);
        }
    }

    /// The next lane to be served: each queue in its turn, so that one with thousands of lanes keeps none of the others waiting.
    /// One that may not begin anything now does not lose its turn.
    fn next_ready(&mut self, mut may: impl FnMut(QueueKey) -> bool) -> Option<LaneKey> {
        let next = self.turns.iter().position(|of| may(*of))?;
        let of = self.turns.remove(next)?;
        let queue = self.queues.get_mut(&of)?;
        let key = queue.ready.pop_front();
        if !queue.ready.is_empty() {
            self.turns.push_back(of);
        }
        key
    }

    /// Takes work of lanes that are ready: at most `lanes` of them, each with up to `each` records, which then run. `may` is asked before a
    /// lane of a queue begins.
    pub fn take(
        &mut self,
        lanes: usize,
        each: usize,
        mut may: impl FnMut(QueueKey) -> bool,
    ) -> Vec<(LaneKey, Vec<Work>)> {
        let mut taken = Vec::new();
        while taken.len() < lanes {
            let Some(key) = self.next_ready(&mut may) else { break };
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            let count = lane.hand.len().min(each);
            let work: Vec<_> = lane.hand.drain(..count).collect();
            lane.running = count;
            self.queued -= count;
            self.running += 1;
            let (of, empty) = (lane.of, lane.hand.is_empty());
            let queue = self.queues.entry(of).or_default();
            queue.lets_go(key, count, empty);
            queue.at_work += 1;
            taken.push((key, work));
        }
        taken
    }

    /// Takes up to so many records of lanes that are ready, each with as many as there is room for.
    pub fn take_many(&mut self, records: usize) -> Vec<(LaneKey, Vec<Work>)> {
        let (mut taken, mut room) = (Vec::new(), records);
        while room > 0 {
            let mut next = self.take(1, room, |_| true);
            let Some((key, work)) = next.pop() else { break };
            room -= work.len();
            taken.push((key, work));
        }
        taken
    }

    /// So many records of the lane's work are finished, and it does not work any more.
    fn finished(&mut self, key: LaneKey, left: usize) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let ran = std::mem::take(&mut lane.running);
        self.running -= usize::from(ran > 0);
        let of = lane.of;
        if let Some(queue) = self.queues.get_mut(&of) {
            queue.finished(ran.saturating_sub(left));
            queue.at_work -= usize::from(ran > 0);
            if queue.records == 0 {
                self.queues.remove(&of);
            }
        }
    }

    /// The lane's work is finished; the next may run.
    pub fn finish(&mut self, key: LaneKey) {
        self.finished(key, 0);
        self.go_on(key);
    }

    /// Gives work back to the head of its lane, which stands still until the moment given (`None`: runs again at once).
    pub fn give_back(&mut self, key: LaneKey, work: Vec<Work>, until: Option<Timestamp>) {
        self.finished(key, work.len());
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let of = lane.of;
        self.queued += work.len();
        self.queues.entry(of).or_default().holds(key, work.len());
        for item in work.into_iter().rev() {
            lane.hand.push_front(item);
        }
        lane.until = until;
        match until {
            Some(until) => self.wakes.push(Reverse((until, key))),
            None => self.go_on(key),
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
                self.go_on(key);
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

    /// Whether a lane may run now of a queue that `may`.
    #[must_use]
    pub fn has_ready_of(&self, may: impl Fn(QueueKey) -> bool) -> bool {
        self.turns.iter().any(|of| may(*of))
    }

    /// Records in hand that wait in lanes.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Records of which only the place is kept.
    #[must_use]
    pub fn aside(&self) -> usize {
        self.aside.len()
    }

    /// Lanes at work.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// How many lanes each queue has at work.
    pub(crate) fn at_work(&self) -> impl Iterator<Item = (QueueKey, usize)> {
        self.queues.iter().map(|(of, queue)| (*of, queue.at_work)).filter(|(_, lanes)| *lanes > 0)
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
        let taken = lanes.take(9, 1, |_| true);
        assert_eq!(offsets(&taken), [10, 12]);
        lanes.finish(2);
        assert!(lanes.take(9, 1, |_| true).is_empty());
        lanes.finish(1);
        assert_eq!(offsets(&lanes.take(9, 1, |_| true)), [11]);
    }

    #[test]
    fn a_waiting_lane_keeps_its_order_and_wakes_in_time() {
        let mut lanes = Lanes::default();
        lanes.push(1, 0, work(10));
        lanes.push(1, 0, work(11));
        let taken = lanes.take(1, 1, |_| true).remove(0);
        lanes.give_back(1, taken.1, Some(Timestamp(50)));
        lanes.push(1, 0, work(12));
        assert_eq!(lanes.next_wake(), Some(Timestamp(50)));
        lanes.wake(Timestamp(49));
        assert!(!lanes.has_ready());
        lanes.wake(Timestamp(50));
        assert_eq!(offsets(&lanes.take(9, 9, |_| true)), [10, 11, 12]);
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
        assert_eq!(offsets(&lanes.take(5, 1, |_| true)), [0, 2000, 3000, 1, 2001]);
        // A lane that comes back stands behind those of its queue, and its queue has one turn like every other.
        lanes.finish(2000);
        lanes.push(2000, 2, work(2002));
        assert_eq!(offsets(&lanes.take(3, 1, |_| true)), [2, 2002, 3]);
        assert_eq!((lanes.running(), lanes.queued()), (8 - 1, 1000 - 4));
    }

    /// Reads again what is wanted.
    fn recall(lanes: &mut Lanes, now: Timestamp, lane_of: impl Fn(i64) -> LaneKey) -> usize {
        let Some(Wanted { queue, offsets }) = lanes.wanted(now) else { return 0 };
        lanes.make_room(queue, offsets.len());
        for offset in &offsets {
            lanes.returned(lane_of(offset.0), work(offset.0));
        }
        offsets.len()
    }

    #[test]
    fn behind_a_queue_that_does_not_move_another_one_finds_room() {
        const MOST: usize = 100;
        let mut lanes = Lanes::with_room_for(MOST);
        let lane_of = |n: i64| n.cast_unsigned();
        let later = Timestamp(3_600_000);
        // A paused number with ten thousand conversations.
        for n in 0..10_000 {
            lanes.push(lane_of(n), 1, work(n));
            for (key, work) in lanes.take(8, 1, |_| true) {
                lanes.give_back(key, work, Some(later));
            }
        }
        let mut read_again = 0;
        for n in 10_000..20_000 {
            let now = Timestamp(n);
            lanes.push(lane_of(n), 2, work(n));
            let taken = lanes.take(8, 1, |_| true);
            let others = taken.iter().filter(|(_, work)| work[0].record.offset.0 >= 10_000).count();
            assert_eq!(others, 1, "it is served at once");
            for (key, work) in taken {
                if work[0].record.offset.0 >= 10_000 {
                    lanes.finish(key);
                } else {
                    lanes.give_back(key, work, Some(later));
                }
            }
            read_again += recall(&mut lanes, now, lane_of);
            assert!(lanes.queued() <= MOST + 8, "{}", lanes.queued());
        }
        assert!(read_again < 100, "{read_again} records were read for nothing in ten seconds");
        // It moves again.
        let (mut now, mut done) = (later, 0);
        while done < 10_000 {
            lanes.wake(now);
            recall(&mut lanes, now, lane_of);
            for (key, _) in lanes.take(8, 1, |_| true) {
                lanes.finish(key);
                done += 1;
            }
            now = now + std::time::Duration::from_millis(10);
            assert!(now.since(later).as_secs() < 120, "{done} in two minutes");
        }
        assert_eq!((lanes.queued(), lanes.aside(), lanes.queues.len(), lanes.lanes.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_queue_within_its_share_loses_nothing_to_one_beyond_it() {
        let mut lanes = Lanes::with_room_for(16);
        for n in 0_i64..16 {
            lanes.push(n.cast_unsigned(), 1, work(n));
        }
        for n in 16_i64..20 {
            lanes.push(n.cast_unsigned(), 2, work(n));
        }
        assert_eq!(lanes.queues[&2].in_hand, 4);
        for n in 20_i64..90 {
            lanes.push(n.cast_unsigned(), 1, work(n));
        }
        assert_eq!((lanes.queues[&2].in_hand, lanes.queued() <= 16), (4, true));
    }

    proptest::proptest! {
        /// Whatever comes in whatever order, no lane is overtaken by its own records, none is forgotten, and memory is bounded.
        #[test]
        fn lanes_keep_their_order_and_forget_nothing(
            most in 1_usize..12,
            steps in proptest::collection::vec((0_u8..6, 0_u64..7, 0_u64..40), 1..200),
        ) {
            let mut lanes = Lanes::with_room_for(most);
            let mut pushed: Vec<LaneKey> = Vec::new();
            let mut done: HashMap<LaneKey, Vec<i64>> = HashMap::new();
            let mut at_work: Vec<(LaneKey, Vec<Work>)> = Vec::new();
            let mut now = Timestamp(1);
            let drain = std::iter::repeat_n([(1, 0, 4), (2, 0, 0), (4, 0, 39), (5, 0, 0)], 3000).flatten();
            for (step, key, n) in steps.into_iter().chain(drain) {
                match step {
                    0 => {
                        // The queue of a record may change in the middle of its lane.
                        let of = if n == 0 { 9 } else { key % 3 };
                        lanes.push(key, of, work(i64::try_from(pushed.len()).unwrap()));
                        pushed.push(key);
                    }
                    1 => at_work.extend(lanes.take(usize::try_from(n % 5).unwrap().min(4 - at_work.len()), 1, |_| true)),
                    2 => for (key, work) in at_work.drain(..) {
                        done.entry(key).or_default().extend(work.iter().map(|work| work.record.offset.0));
                        lanes.finish(key);
                    },
                    3 => for (key, work) in at_work.drain(..) {
                        let until = (n % 3 != 0).then(|| now + std::time::Duration::from_millis(n * 100));
                        lanes.give_back(key, work, until);
                    },
                    4 => {
                        now = now + std::time::Duration::from_millis(n * 50);
                        lanes.wake(now);
                    }
                    _ => {
                        recall(&mut lanes, now, |offset| pushed[usize::try_from(offset).unwrap()]);
                    }
                }
                proptest::prop_assert!(lanes.queued() + at_work.len() <= most + 4, "{} in hand", lanes.queued());
                let in_hand: usize = lanes.lanes.values().map(|lane| lane.hand.len()).sum();
                proptest::prop_assert_eq!(lanes.queued(), in_hand);
            }
            for (key, offsets) in &done {
                let all = pushed.iter().enumerate().filter(|(_, of)| *of == key).map(|(at, _)| i64::try_from(at).unwrap());
                proptest::prop_assert_eq!(offsets, &all.collect::<Vec<_>>());
            }
            proptest::prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), pushed.len());
            proptest::prop_assert_eq!((lanes.aside(), lanes.queues.len(), lanes.lanes.len()), (0, 0, 0));
        }
    }
}
