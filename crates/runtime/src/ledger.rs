//! The offset ledger of one partition: work may finish in any order, only the contiguous frontier is committed.

use std::collections::BTreeMap;

use connector_domain::time::Timestamp;
use connector_ports::log::Offset;

#[derive(Debug)]
struct Open {
    /// Where the record before it stands, whatever became of that.
    before: Option<Offset>,
    written: Timestamp,
}

/// Delivered records of one partition, in order, and which of them are not finished. Those that are need no memory, however many stand
/// behind one that is not.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<Offset, Open>,
    newest: Option<Offset>,
    frontier: Option<Offset>,
    reported: Option<Offset>,
    end: Option<Offset>,
}

impl Ledger {
    /// A ledger of a partition of which everything below `committed` is committed already.
    #[must_use]
    pub fn from_committed(committed: Option<Offset>) -> Self {
        Self { reported: committed, ..Self::default() }
    }

    /// Everything below this position is finished; `None` before the first record.
    #[must_use]
    pub const fn frontier(&self) -> Option<Offset> {
        self.frontier
    }

    /// A record that was written at this moment was delivered. Offsets must rise; a repeat of an older one is ignored and answered
    /// with `false`.
    pub fn delivered(&mut self, offset: Offset, written: Timestamp) -> bool {
        if self.newest.is_some_and(|newest| offset <= newest) || self.frontier.is_some_and(|f| offset < f) {
            return false;
        }
        if self.frontier.is_none() {
            self.frontier = Some(offset);
        }
        self.open.insert(offset, Open { before: self.newest, written });
        self.newest = Some(offset);
        true
    }

    /// A record is finished. Unknown offsets are ignored.
    pub fn finished(&mut self, offset: Offset) {
        let first = self.open.first_key_value().map(|(first, _)| *first);
        if self.open.remove(&offset).is_none() {
            return;
        }
        if first == Some(offset) {
            let last_finished = match self.open.first_key_value() {
                Some((_, next)) => next.before,
                None => self.newest,
            };
            self.frontier = self.frontier.max(last_finished.map(Offset::next));
        }
        self.settle();
    }

    /// The end of the partition was reached: everything visible below `position` has been delivered.
    pub fn caught_up(&mut self, position: Offset) {
        self.end = Some(position);
        self.settle();
    }

    fn settle(&mut self) {
        if self.open.is_empty() && self.end > self.frontier {
            self.frontier = self.end;
        }
    }

    /// The position to commit, when it moved since [`Ledger::committed`] was last told.
    #[must_use]
    pub fn pending(&self) -> Option<Offset> {
        if self.frontier > self.reported { self.frontier } else { None }
    }

    /// The position to commit once everything up to this record is finished, when that moves what was committed.
    #[must_use]
    pub fn pending_after(&self, last: Offset) -> Option<Offset> {
        let all = self.open.last_key_value().is_none_or(|(offset, _)| *offset <= last);
        let frontier = if all { self.end.max(Some(last.next())) } else { Some(last.next()) };
        if frontier > self.reported { frontier } else { None }
    }

    /// Everything below this position was read, as far as is known.
    #[must_use]
    pub fn read(&self) -> Option<Offset> {
        self.newest.map(Offset::next).max(self.frontier).or(self.reported)
    }

    /// The position that stands or may be committed; `None` when neither is known.
    #[must_use]
    pub fn position(&self) -> Option<Offset> {
        self.frontier.max(self.reported)
    }

    /// The position was committed.
    pub fn committed(&mut self, position: Offset) {
        self.reported = self.reported.max(Some(position));
    }

    /// When the oldest unfinished record was written.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.first_key_value().map(|(_, open)| open.written)
    }

    /// Number of delivered records that are not finished.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Over how many places the delivered records stretch of which the first is not finished: so much is read again by the next owner.
    #[must_use]
    pub fn span(&self) -> usize {
        let newest = self.newest.map_or(0, |newest| newest.next().0);
        usize::try_from(newest - self.frontier.map_or(newest, |frontier| frontier.0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_will_be_pending_is_known_before_it_is_finished() {
        let mut ledger = Ledger::from_committed(Some(Offset(3)));
        for offset in [3, 4, 7] {
            assert!(ledger.delivered(Offset(offset), Timestamp(0)));
        }
        ledger.caught_up(Offset(9));
        assert_eq!(ledger.pending_after(Offset(4)), Some(Offset(5)));
        assert_eq!(ledger.pending_after(Offset(7)), Some(Offset(9)), "the end is passed with the last record");
        assert_eq!(ledger.position(), Some(Offset(3)));

        let mut replayed = Ledger::from_committed(Some(Offset(9)));
        assert!(replayed.delivered(Offset(4), Timestamp(0)));
        assert_eq!(replayed.pending_after(Offset(4)), None, "nothing goes back");
        assert_eq!(replayed.position(), Some(Offset(9)));
    }

    #[test]
    fn a_gap_holds_the_frontier_back() {
        let mut ledger = Ledger::default();
        for offset in [3, 4, 7] {
            assert!(ledger.delivered(Offset(offset), Timestamp(0)));
        }
        ledger.finished(Offset(4));
        assert_eq!(ledger.pending(), Some(Offset(3)));
        ledger.finished(Offset(3));
        assert_eq!(ledger.pending(), Some(Offset(5)));
        ledger.committed(Offset(5));
        assert_eq!(ledger.pending(), None);
        ledger.caught_up(Offset(9));
        assert_eq!(ledger.pending(), None, "7 is still open");
        ledger.finished(Offset(7));
        assert_eq!(ledger.pending(), Some(Offset(9)), "control records behind the last one are passed");
    }

    #[test]
    fn a_record_delivered_twice_is_taken_once() {
        let mut ledger = Ledger::default();
        assert!(ledger.delivered(Offset(1), Timestamp(0)));
        ledger.finished(Offset(1));
        assert!(!ledger.delivered(Offset(1), Timestamp(0)));
        assert!(!ledger.delivered(Offset(0), Timestamp(0)));
    }

    proptest! {
        #[test]
        fn the_frontier_never_passes_an_unfinished_record(order in proptest::sample::subsequence((0..40_i64).collect::<Vec<_>>(), 0..40).prop_shuffle()) {
            let mut ledger = Ledger::default();
            for offset in 0..40 {
                ledger.delivered(Offset(offset * 2), Timestamp(0));
            }
            let mut done = std::collections::BTreeSet::new();
            for offset in order {
                ledger.finished(Offset(offset * 2));
                done.insert(offset * 2);
                let first_open = (0..40).map(|o| o * 2).find(|o| !done.contains(o)).unwrap_or(80);
                prop_assert!(ledger.pending().unwrap_or_default().0 <= first_open);
            }
            prop_assert_eq!(ledger.open(), 40 - done.len());
            let below = (0..40).take_while(|o| done.contains(&(o * 2))).count();
            prop_assert_eq!(ledger.frontier(), Some(if below == 0 { Offset(0) } else { Offset(2 * i64::try_from(below).unwrap() - 1) }));
            prop_assert_eq!(ledger.span(), if below == 0 { 79 } else { 80 - 2 * below });
        }
    }
}
