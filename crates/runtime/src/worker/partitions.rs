//! The partitions a worker owns: lanes, ledger, and whether they are on their way out.

use std::collections::BTreeMap;

use connector_domain::time::Timestamp;
use connector_ports::log::{Landmark, Offset, Position, Record, TopicPartition};

use crate::lanes::{LaneKey, Lanes, QueueKey, Wanted, Work};
use crate::ledger::Ledger;

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) lanes: Lanes,
    pub(crate) ledger: Ledger,
    /// Records below this position were committed before: they are replayed, not done again.
    pub(crate) replay_below: Offset,
    /// Tells the results of an earlier ownership from those of this one.
    pub(crate) incarnation: u64,
    pub(crate) paused: bool,
    /// Set when the group wants it back: no new work, and given back at this moment at the latest.
    pub(crate) revoked_until: Option<Timestamp>,
    /// The end was reached here and the handler has not been told.
    pub(crate) caught_up: Option<Offset>,
    /// By which the topic of these positions is known again. It moves on only when it was found to stand ([`super::gone`]).
    pub(crate) landmark: Option<Landmark>,
    /// The newest record that was read.
    pub(crate) newest: Option<Landmark>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    owned: BTreeMap<TopicPartition, Partition>,
    incarnations: u64,
    /// Most records in hand per partition; `None`: as many as are read.
    most: Option<usize>,
    /// Whose records were read again last.
    read_again: Option<TopicPartition>,
}

impl Partitions {
    /// Partitions that put records aside when they have so many in hand.
    pub(crate) fn with_room_for(most: usize) -> Self {
        Self { most: Some(most), ..Self::default() }
    }

    pub(crate) fn insert(&mut self, partition: TopicPartition, committed: Option<Position>) {
        self.incarnations += 1;
        let landmark = committed.and_then(|committed| committed.landmark);
        let committed = committed.map(|committed| committed.next);
        let state = Partition {
            lanes: self.most.map_or_else(Lanes::default, Lanes::with_room_for),
            ledger: Ledger::from_committed(committed),
            replay_below: committed.unwrap_or(Offset(0)),
            incarnation: self.incarnations,
            paused: false,
            revoked_until: None,
            caught_up: None,
            landmark,
            newest: None,
        };
        self.owned.insert(partition, state);
    }

    pub(crate) fn remove(&mut self, partition: &TopicPartition) -> bool {
        self.owned.remove(partition).is_some()
    }

    pub(crate) fn get(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.owned.get(partition)
    }

    pub(crate) fn get_mut(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.owned.get_mut(partition)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Partition)> {
        self.owned.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&TopicPartition, &mut Partition)> {
        self.owned.iter_mut()
    }

    pub(crate) fn names(&self) -> Vec<TopicPartition> {
        self.owned.keys().cloned().collect()
    }

    /// Whether a position of any partition is known.
    pub(crate) fn known(&self) -> bool {
        self.owned.values().any(|partition| partition.ledger.frontier().is_some())
    }

    /// Takes a record in, unless its partition is not ours or on its way out.
    pub(crate) fn push(&mut self, record: Record, (lane, queue): (LaneKey, QueueKey)) {
        let Some(partition) = self.owned.get_mut(&record.source) else { return };
        if partition.revoked_until.is_none() && partition.ledger.delivered(record.offset, record.timestamp) {
            partition.caught_up = None;
            let read = Landmark { offset: record.offset, written: record.timestamp };
            partition.newest = Some(read);
            partition.landmark.get_or_insert(read);
            let replay = record.offset < partition.replay_below;
            partition.lanes.push(lane, queue, Work { record, replay, round: 0 });
        }
    }

    /// Records that are aside and should be read again now, if any, with the incarnation of their partition. Each partition has its
    /// turn.
    pub(crate) fn wanted(&mut self, now: Timestamp) -> Option<(TopicPartition, u64, Wanted)> {
        let last = self.read_again.take();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (name, partition) in self.owned.iter_mut().filter(|(_, p)| p.revoked_until.is_none() && p.lanes.aside() > 0)
        {
            let later = last.as_ref().is_none_or(|last| name > last);
            if later { first.push((name, partition)) } else { second.push((name, partition)) }
        }
        let mut all = first.into_iter().chain(second);
        let wanted = |(name, partition): (&TopicPartition, &mut Partition)| {
            let wanted = partition.lanes.wanted(now)?;
            Some((name.clone(), partition.incarnation, wanted))
        };
        let found = all.find_map(wanted);
        self.read_again = found.as_ref().map(|(name, ..)| name.clone()).or(last);
        found
    }

    /// Makes room for records that were read again; `None` when their partition is not the same any more.
    pub(crate) fn make_room(
        &mut self,
        name: &TopicPartition,
        incarnation: u64,
        of: QueueKey,
        count: usize,
    ) -> Option<()> {
        let partition = self.owned.get_mut(name).filter(|partition| partition.incarnation == incarnation)?;
        partition.lanes.make_room(of, count);
        Some(())
    }

    /// Takes in a record that was read again.
    pub(crate) fn returned(&mut self, record: Record, lane: LaneKey) {
        if let Some(partition) = self.owned.get_mut(&record.source) {
            let replay = record.offset < partition.replay_below;
            partition.lanes.returned(lane, Work { record, replay, round: 0 });
        }
    }

    pub(crate) fn caught_up(&mut self, partition: &TopicPartition, position: Offset) {
        // On its way out it takes no records any more: the end is behind some that nobody has handled.
        if let Some(partition) = self.owned.get_mut(partition).filter(|partition| partition.revoked_until.is_none()) {
            partition.ledger.caught_up(position);
            partition.caught_up = Some(position);
        }
    }

    pub(crate) fn revoke(&mut self, partitions: &[TopicPartition], until: Timestamp) {
        for partition in partitions {
            if let Some(partition) = self.owned.get_mut(partition) {
                partition.revoked_until = Some(until);
            }
        }
    }

    /// No partition takes new work any more.
    pub(crate) fn revoke_all(&mut self) {
        for partition in self.owned.values_mut() {
            partition.revoked_until = Some(Timestamp(i64::MAX));
        }
    }

    /// Partitions that are wanted back and have nothing running, or no time left.
    pub(crate) fn to_hand_back(&self, now: Timestamp) -> Vec<TopicPartition> {
        let over = |p: &Partition| p.revoked_until.is_some_and(|until| p.lanes.running() == 0 || until <= now);
        let draining = |p: &Partition| p.revoked_until == Some(Timestamp(i64::MAX));
        self.owned.iter().filter(|(_, p)| over(p) && !draining(p)).map(|(name, _)| name.clone()).collect()
    }

    /// Partitions that the group wants back, whatever runs in them.
    pub(crate) fn wanted_back(&self) -> Vec<TopicPartition> {
        let wanted = |p: &Partition| p.revoked_until.is_some_and(|until| until != Timestamp(i64::MAX));
        self.owned.iter().filter(|(_, p)| wanted(p)).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn wake(&mut self, now: Timestamp) {
        for partition in self.owned.values_mut() {
            partition.lanes.wake(now);
        }
    }

    fn working(&self) -> impl Iterator<Item = &Partition> {
        self.owned.values().filter(|p| p.revoked_until.is_none())
    }

    /// Those that have work which may run now.
    pub(crate) fn ready(&self) -> Vec<TopicPartition> {
        let ready = self.owned.iter().filter(|(_, p)| p.revoked_until.is_none() && p.lanes.has_ready());
        ready.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.working().any(|p| p.lanes.has_ready())
    }

    /// Whether there is work that may run now of a queue that `may`.
    pub(crate) fn has_ready_of(&self, may: impl Fn(QueueKey) -> bool) -> bool {
        self.working().any(|p| p.lanes.has_ready_of(&may))
    }

    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        self.working().filter_map(|p| p.lanes.next_wake()).min()
    }

    pub(crate) fn running(&self) -> usize {
        self.owned.values().map(|p| p.lanes.running()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_in_any_more_is_not_passed_either() {
        let name = TopicPartition::new("t", 0);
        let record = |offset| Record {
            source: name.clone(),
            offset: Offset(offset),
            key: None,
            value: None,
            headers: vec![],
            timestamp: Timestamp(0),
        };
        let mut partitions = Partitions::default();
        partitions.insert(name.clone(), None);
        partitions.push(record(4), (0, 0));
        partitions.get_mut(&name).expect("ours").ledger.finished(Offset(4));
        partitions.revoke_all();
        partitions.push(record(5), (0, 0));
        partitions.caught_up(&name, Offset(6));
        assert_eq!(partitions.get(&name).expect("ours").ledger.frontier(), Some(Offset(5)));
    }
}
