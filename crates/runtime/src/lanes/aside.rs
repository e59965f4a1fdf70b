//! Records of which only the place is kept, because there is no room for them: which go, and which are read again.
//!
//! Room is shared by the queues: what has to go belongs to the one that has most in hand, first what is farthest from its turn. A
//! queue that has lanes aside takes nothing new into its hand before them.

use std::collections::BTreeMap;
use std::ops::Bound;

use connector_domain::time::Timestamp;
use connector_ports::log::Offset;

use super::{Lane, LaneKey, Lanes, QueueKey, Work};

/// A reading stretches over so many places for each record it is for.
const STRETCH: i64 = 16;
/// Most records of one lane in a reading.
const OF_A_LANE: usize = 8;

/// Places by lane, each with the queue of the lane.
#[derive(Debug, Default)]
pub(super) struct Aside {
    places: BTreeMap<(LaneKey, Offset), QueueKey>,
    /// Whose records were read last.
    last: Option<QueueKey>,
}

impl Aside {
    pub(super) fn insert(&mut self, key: LaneKey, of: QueueKey, offset: Offset) {
        self.places.insert((key, offset), of);
    }

    /// The first place of a lane, and the lane's queue.
    pub(super) fn first(&self, key: LaneKey) -> Option<(Offset, QueueKey)> {
        self.of(key).next()
    }

    fn of(&self, key: LaneKey) -> impl Iterator<Item = (Offset, QueueKey)> {
        let places = self.places.range((key, Offset(i64::MIN))..=(key, Offset(i64::MAX)));
        places.map(|((_, offset), of)| (*offset, *of))
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

/// Records that are to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose they are.
    pub queue: QueueKey,
    /// Where they stand, in order; at least one.
    pub offsets: Vec<Offset>,
}

impl Lanes {
    /// Whether a new record of this lane cannot be taken in.
    pub(super) fn is_short_of_room(&mut self, key: LaneKey, of: QueueKey) -> bool {
        let Some(most) = self.most else { return false };
        let own = self.queues.get(&of);
        if self.aside.first(key).is_some() || own.is_some_and(|queue| !queue.stalled.is_empty()) {
            return true;
        }
        if self.queued < most {
            return false;
        }
        let own = own.map_or(0, |queue| queue.in_hand);
        if self.lanes.contains_key(&key) {
            return true;
        }
        match self.largest() {
            Some((largest, in_hand)) if in_hand > own + 1 => {
                self.let_go(largest, (in_hand / 4).min(most / 8).max(1), true);
                self.queued >= most
            }
            _ => true,
        }
    }

    /// Which queue has most in hand, and how much.
    fn largest(&self) -> Option<(QueueKey, usize)> {
        let in_hand = self.queues.iter().map(|(key, queue)| (queue.in_hand, *key));
        in_hand.max().filter(|(in_hand, _)| *in_hand > 0).map(|(in_hand, key)| (key, in_hand))
    }

    /// Lets up to `count` records of a queue go, those first that run last: what stands behind another one, then what waits longest,
    /// then (`ready_too`) what is ready. How many went.
    fn let_go(&mut self, of: QueueKey, count: usize, ready_too: bool) -> usize {
        let Some(queue) = self.queues.get(&of) else { return 0 };
        let mut waiting = Vec::new();
        let mut left = count;
        for key in queue.holding.iter().copied().collect::<Vec<_>>() {
            let Some(lane) = self.lanes.get(&key) else { continue };
            let keep = usize::from(lane.running == 0);
            let behind = lane.hand.len().saturating_sub(keep).min(left);
            waiting.extend(lane.until.map(|until| (until, key)));
            left -= self.put_aside(key, behind);
        }
        waiting.sort_unstable();
        for (_, key) in waiting.into_iter().rev() {
            left -= self.put_aside(key, left.min(1));
        }
        while ready_too && left > 0 {
            let Some(key) = self.queues.get_mut(&of).and_then(|queue| queue.ready.pop_back()) else { break };
            left -= self.put_aside(key, 1);
            self.go_on(key);
        }
        if self.queues.get(&of).is_some_and(|queue| queue.ready.is_empty()) {
            self.turns.retain(|turn| *turn != of);
        }
        count - left
    }

    /// Keeps only the places of the last `count` records that a lane has in hand. How many went.
    fn put_aside(&mut self, key: LaneKey, count: usize) -> usize {
        let Some(lane) = self.lanes.get_mut(&key) else { return 0 };
        let gone = lane.hand.split_off(lane.hand.len() - count.min(lane.hand.len()));
        if let Some(first) = gone.front() {
            lane.round = first.round;
        }
        for work in &gone {
            self.aside.insert(key, lane.of, work.record.offset);
        }
        self.queued -= gone.len();
        if let Some(queue) = self.queues.get_mut(&lane.of).filter(|_| !gone.is_empty()) {
            queue.lets_go(key, gone.len(), lane.hand.is_empty());
        }
        gone.len()
    }

    /// What is to be read again now, if anything: of each queue in its turn. A queue that has enough that is ready, or does not move,
    /// is left alone for a while.
    pub fn wanted(&mut self, now: Timestamp) -> Option<Wanted> {
        let most = self.most?;
        let room = most.saturating_sub(self.queued);
        let crowded = room < most.div_ceil(8);
        let enough = most.div_ceil(4);
        let after = self.aside.last.map_or(Bound::Unbounded, Bound::Excluded);
        let before = self.aside.last.map_or(Bound::Excluded(QueueKey::MIN), Bound::Included);
        let rounds = self.queues.range((after, Bound::Unbounded)).chain(self.queues.range((Bound::Unbounded, before)));
        let mut due = rounds.filter(|(_, queue)| {
            !queue.stalled.is_empty() && queue.ready.len() < enough && queue.pace.is_due(crowded, now)
        });
        let of = *due.next()?.0;
        let queue = self.queues.get_mut(&of)?;
        let many = if crowded { most.div_ceil(8) } else { room.min(enough) };
        let first = queue.stalled.first_key_value()?.0.0;
        let reach = Offset(first.saturating_add(STRETCH * i64::try_from(many).unwrap_or(i64::MAX / STRETCH)));
        let mut offsets = Vec::new();
        for key in queue.stalled.range(..=reach).map(|(_, key)| *key) {
            if offsets.len() >= many {
                break;
            }
            let of_lane = self.aside.of(key).map(|(offset, _)| offset);
            offsets.extend(of_lane.take_while(|offset| *offset <= reach).take(OF_A_LANE));
        }
        offsets.truncate(many);
        offsets.sort_unstable();
        queue.pace.read(crowded, now);
        self.aside.last = Some(of);
        Some(Wanted { queue: of, offsets })
    }

    /// Makes room for `count` records of a queue that were read again.
    pub fn make_room(&mut self, of: QueueKey, count: usize) {
        let Some(most) = self.most else { return };
        while self.queued + count > most {
            let Some((largest, _)) = self.largest() else { return };
            if self.let_go(largest, self.queued + count - most, largest != of) == 0 {
                return;
            }
        }
    }

    /// A record that was aside was read again. What is not wanted any more, or finds no room, is dropped.
    pub fn returned(&mut self, key: LaneKey, mut work: Work) {
        let offset = work.record.offset;
        let first = self.aside.first(key).filter(|(first, _)| *first == offset);
        let Some((_, of)) = first.filter(|_| self.most.is_none_or(|most| self.queued < most)) else { return };
        self.aside.places.remove(&(key, offset));
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { of, ..Lane::default() });
        work.round = std::mem::take(&mut lane.round);
        if let Some(queue) = self.queues.get_mut(&of) {
            queue.stalled.remove(&offset);
        }
        self.take_in(key, of, work);
    }
}
