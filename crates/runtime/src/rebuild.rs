//! What is known of a view's timers while it is built from the beginning of the log: everything, so nobody need ask the gate.
//!
//! Most timers of a long log come and go again. Only what is left of them is written to the view, in large steps; each of them is exactly
//! the fold up to its position, as every other step is (R1).

use std::collections::HashMap;

use connector_ports::gate::{Change, Timer};
use connector_ports::log::Offset;

/// Changes written in one step: a tenth of a second of the gate.
const STEP: usize = 30_000;

/// A view on its way up from nothing.
#[derive(Debug)]
pub(crate) struct Rebuild {
    /// What lies below was committed before: when it is reached there is nothing left to build.
    until: Offset,
    timers: HashMap<String, Timer>,
    /// Keys whose timers are not in the view as they are here.
    moved: HashMap<String, Option<Timer>>,
    /// Changes that are not about timers.
    others: Vec<Change>,
}

impl Rebuild {
    /// Of an empty view, up to this position.
    pub(crate) fn up_to(until: Offset) -> Self {
        Self { until, timers: HashMap::new(), moved: HashMap::new(), others: Vec::new() }
    }

    /// The timers of keys.
    pub(crate) fn timers(&self, keys: &[String]) -> Vec<Option<Timer>> {
        keys.iter().map(|key| self.timers.get(key).copied()).collect()
    }

    /// Takes changes in.
    pub(crate) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Schedule { key, at, tag } => {
                    self.timers.insert(key.clone(), Timer { at, tag });
                    self.moved.insert(key, Some(Timer { at, tag }));
                }
                Change::Unschedule { key } => {
                    self.timers.remove(&key);
                    self.moved.insert(key, None);
                }
                other => self.others.push(other),
            }
        }
    }

    /// Whether it is time to write.
    pub(crate) fn due(&self, at: Offset, known: usize) -> bool {
        self.over(at, known) || self.moved.len() + self.others.len() >= STEP
    }

    /// Whether this is the last step. `known`: as many timers may be known.
    pub(crate) fn over(&self, at: Offset, known: usize) -> bool {
        at >= self.until || self.timers.len() >= known
    }

    /// What has to be written.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let change = |(key, timer): (&String, &Option<Timer>)| match timer {
            Some(Timer { at, tag }) => Change::Schedule { key: key.clone(), at: *at, tag: *tag },
            None => Change::Unschedule { key: key.clone() },
        };
        self.others.iter().cloned().chain(self.moved.iter().map(change)).collect()
    }

    /// It is written.
    pub(crate) fn written(&mut self) {
        self.moved.clear();
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_domain::time::Timestamp;

    #[test]
    fn only_what_is_left_is_written_and_everything_is_known() {
        let mut rebuild = Rebuild::up_to(Offset(10));
        let set = |key: &str, at| Change::Schedule { key: key.to_owned(), at: Timestamp(at), tag: 1 };
        let put = Change::Put { key: "o".to_owned(), value: "acme".into() };
        rebuild.take(vec![put.clone(), set("a", 1), set("b", 2), set("a", 3)]);
        rebuild.take(vec![Change::Unschedule { key: "b".to_owned() }]);
        let timer = Timer { at: Timestamp(3), tag: 1 };
        assert_eq!(rebuild.timers(&["a".to_owned(), "b".to_owned()]), [Some(timer), None]);
        assert!(!rebuild.due(Offset(9), 2) && rebuild.due(Offset(10), 2));
        assert!(rebuild.due(Offset(9), 1), "no more may be known");
        let changes = rebuild.changes();
        assert_eq!(changes.len(), 3, "{changes:?}");
        assert!([put, set("a", 3), Change::Unschedule { key: "b".to_owned() }].iter().all(|one| changes.contains(one)));
        rebuild.written();
        assert!(rebuild.changes().is_empty());
        assert_eq!(rebuild.timers(&["a".to_owned()]), [Some(timer)]);
    }
}
