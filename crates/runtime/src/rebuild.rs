//! What is known of a view's timers while it is built from the beginning of the log: everything, so nobody need ask the gate.
//!
//! Most timers of a long log come and go again. Only what is left of them is written to the view, in large steps; each of them is exactly
//! the fold up to its position, as every other step is (R1). While the gate takes one in, the log is read on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use connector_ports::gate::{Change, Timer};
use connector_ports::log::Offset;

use crate::failure::Failure;
use crate::view::{OwnedView, Step};

/// Changes written in one step: a tenth of a second of the gate.
const STEP: usize = 30_000;

/// A view on its way up from nothing.
pub(crate) struct Rebuild {
    /// What lies below was committed before: when it is reached there is nothing left to build.
    until: Offset,
    timers: HashMap<String, Known>,
    /// So many of them are not in the view as they are here.
    moved: usize,
    /// Changes that are not about timers.
    others: Vec<Change>,
    writing: Option<Writing>,
}

/// A timer; `None` when there is none.
#[derive(Default)]
struct Known {
    now: Option<Timer>,
    /// As the view has it, once it has taken in what is under way.
    written: Option<Timer>,
}

impl Known {
    fn set(&mut self, now: Option<Timer>, moved: &mut usize) {
        *moved -= usize::from(self.now != self.written);
        self.now = now;
        *moved += usize::from(self.now != self.written);
    }
}

/// A step on its way to the view.
struct Writing {
    next: Offset,
    /// For the case that it has to be sent again.
    changes: Vec<Change>,
    step: Option<Step>,
}

impl Rebuild {
    /// Of an empty view, up to this position.
    pub(crate) fn up_to(until: Offset) -> Self {
        Self { until, timers: HashMap::new(), moved: 0, others: Vec::new(), writing: None }
    }

    /// The timers of keys.
    pub(crate) fn timers(&self, keys: &[String]) -> Vec<Option<Timer>> {
        keys.iter().map(|key| self.timers.get(key)?.now).collect()
    }

    /// Takes changes in.
    pub(crate) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Schedule { key, at, tag } => {
                    self.timers.entry(key).or_default().set(Some(Timer { at, tag }), &mut self.moved);
                }
                Change::Unschedule { key } => {
                    let Entry::Occupied(mut known) = self.timers.entry(key) else { continue };
                    known.get_mut().set(None, &mut self.moved);
                    if known.get().written.is_none() {
                        known.remove();
                    }
                }
                other => self.others.push(other),
            }
        }
    }

    /// Whether it is time to write.
    pub(crate) fn due(&self, at: Offset, known: usize) -> bool {
        self.over(at, known) || self.moved + self.others.len() >= STEP
    }

    /// Whether this is the last step. `known`: as many timers may be known.
    pub(crate) fn over(&self, at: Offset, known: usize) -> bool {
        at >= self.until || self.timers.len() >= known
    }

    /// Begins to write what has moved, when what is under way is there.
    ///
    /// # Errors
    /// As [`Rebuild::written`]; nothing is begun then.
    pub(crate) async fn write(&mut self, view: &mut OwnedView, next: Offset) -> Result<(), Failure> {
        self.written(view).await?;
        let mut changes = std::mem::take(&mut self.others);
        self.timers.retain(|key, known| {
            if known.now != known.written {
                known.written = known.now;
                let key = key.clone();
                changes.push(match known.now {
                    Some(Timer { at, tag }) => Change::Schedule { key, at, tag },
                    None => Change::Unschedule { key },
                });
            }
            known.now.is_some()
        });
        self.moved = 0;
        let step = view.step(next, changes.clone());
        self.writing = Some(Writing { next, changes, step: Some(step) });
        Ok(())
    }

    /// Waits for what is under way.
    ///
    /// # Errors
    /// Those of the gate. What did not get there because it is away is sent again by the next call.
    pub(crate) async fn written(&mut self, view: &mut OwnedView) -> Result<(), Failure> {
        if let Some(writing) = &mut self.writing {
            let again = || view.step(writing.next, writing.changes.clone());
            let step = writing.step.take().unwrap_or_else(again);
            view.stepped(writing.next, step).await?;
            self.writing = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use connector_domain::time::Timestamp;
    use connector_ports::Gate;
    use connector_ports::Log;
    use connector_ports::clock::SystemClock;
    use connector_ports::gate::View;
    use connector_ports::log::{TopicPartition, TopicSpec};
    use connector_simulated::{MemoryGate, MemoryStore, StoreLog};

    fn set(key: &str, at: i64) -> Change {
        Change::Schedule { key: key.to_owned(), at: Timestamp(at), tag: 1 }
    }

    fn unset(key: &str) -> Change {
        Change::Unschedule { key: key.to_owned() }
    }

    #[tokio::test]
    async fn only_what_is_left_is_written_and_everything_is_known() {
        let gate: Arc<dyn Gate> = Arc::new(MemoryGate::new(Arc::new(SystemClock)));
        let log = Arc::new(StoreLog::new(MemoryStore::new(Arc::new(SystemClock))));
        let spec = TopicSpec { name: "t".into(), partitions: 1, replication: 1, settings: Vec::new() };
        log.create_topic(&spec).await.expect("a topic");
        let source = TopicPartition::new("t", 0);
        let mut view = OwnedView::acquire(gate.clone(), log, source, "v").await.expect("a view");
        let keys = ["a", "b", "c"].map(str::to_owned);
        let timer = |at| Some(Timer { at: Timestamp(at), tag: 1 });
        let mut rebuild = Rebuild::up_to(Offset(20));
        let put = Change::Put { key: "o".to_owned(), value: "acme".into() };
        rebuild.take(vec![put.clone(), set("a", 1), set("b", 2), set("a", 3)]);
        rebuild.take(vec![unset("b"), unset("never")]);
        assert_eq!(rebuild.timers(&keys), [timer(3), None, None]);
        assert!(!rebuild.due(Offset(9), 2) && rebuild.due(Offset(20), 2));
        assert!(rebuild.due(Offset(9), 1), "no more may be known");
        rebuild.write(&mut view, Offset(10)).await.expect("begun");
        let changes = &rebuild.writing.as_ref().expect("under way").changes;
        assert_eq!(*changes, [put, set("a", 3)], "of what came and went nothing is written");

        rebuild.take(vec![unset("a"), set("c", 5), set("b", 6)]);
        assert_eq!(rebuild.timers(&keys), [None, timer(6), timer(5)]);
        rebuild.take(vec![set("a", 3)]);
        assert_eq!(rebuild.moved, 2, "a is in the view as it is here");
        rebuild.take(vec![unset("a")]);
        rebuild.write(&mut view, Offset(20)).await.expect("begun");
        rebuild.written(&mut view).await.expect("written");
        assert_eq!(view.applied(), Some(Offset(20)));
        let stored = gate.timers(&View::new("v", 0), &keys).await.expect("timers");
        assert_eq!((stored.applied, stored.answers), (Some(Offset(20)), vec![None, timer(6), timer(5)]));
        assert_eq!(rebuild.timers(&keys), [None, timer(6), timer(5)]);
        assert_eq!(rebuild.timers.len(), 2, "what is gone is not kept");
    }
}
