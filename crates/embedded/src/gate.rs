//! The gate in memory. It is empty after a start; its users read the log again from the position they find in it (R1).

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::gate::{
    Change, Claim, Due, Epoch, GateError, Grant, Limit, Ownership, Register, Reservation, Snapshot, Timer, View,
};
use connector_ports::log::{LogId, Offset};
use connector_ports::{Clock, Gate};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limiter::Limiters;

/// A gate in the memory of this process. Cheap to clone; clones are the same gate.
#[derive(Clone)]
pub struct MemoryGate {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    views: HashMap<View, Projection>,
    limiters: Limiters,
    registers: Registers,
    /// Greatest epoch ever given out. Not part of what a wipe loses.
    last_epoch: u64,
}

/// Which partitions were told to a register: by its name and its teller.
type Told = HashMap<(&'static str, &'static str), BTreeSet<u32>>;

/// What is reserved, by register and id.
#[derive(Clone, Default)]
struct Registers {
    told: Told,
    ids: HashMap<(&'static str, Bytes), (u64, Timestamp)>,
    by_end: BTreeSet<(Timestamp, &'static str, Bytes)>,
}

impl Registers {
    fn reserve(&mut self, name: &'static str, reservation: &Reservation) -> u64 {
        let key = (name, reservation.id.clone());
        if let Some((digest, _)) = self.ids.get(&key) {
            return *digest;
        }
        self.tell(name, reservation);
        reservation.digest
    }

    /// Whatever was reserved before.
    fn tell(&mut self, name: &'static str, reservation: &Reservation) {
        let key = (name, reservation.id.clone());
        let before = self.ids.insert(key, (reservation.digest, reservation.until));
        if let Some((_, until)) = before {
            self.by_end.remove(&(until, name, reservation.id.clone()));
        }
        self.by_end.insert((reservation.until, name, reservation.id.clone()));
    }

    fn forget(&mut self, now: Timestamp) {
        while self.by_end.first().is_some_and(|(until, ..)| *until < now) {
            if let Some((_, name, id)) = self.by_end.pop_first() {
                self.ids.remove(&(name, id));
            }
        }
    }
}

/// The content of one view.
#[derive(Clone, Default)]
struct Projection {
    applied: Option<Offset>,
    log: Option<LogId>,
    epoch: u64,
    values: HashMap<String, Bytes>,
    marks: HashMap<Bytes, (u64, Timestamp)>,
    marks_by_end: BTreeSet<(Timestamp, Bytes)>,
    timers: HashMap<String, Held>,
    waiting: BTreeSet<(Timestamp, String)>,
    leased: BTreeSet<(Timestamp, String)>,
}

#[derive(Clone, Copy)]
struct Held {
    timer: Timer,
    leased_until: Option<Timestamp>,
}

/// All views of a gate at one moment, for [`MemoryGate::restore`].
#[derive(Clone)]
pub struct GateSnapshot(HashMap<View, Projection>, Registers);

impl Projection {
    fn change(&mut self, change: Change) {
        match change {
            Change::Put { key, value } => {
                self.values.insert(key, value);
            }
            Change::Delete { key } => {
                self.values.remove(&key);
            }
            Change::Mark { id, digest, until } => {
                if let Some((_, before)) = self.marks.insert(id.clone(), (digest, until)) {
                    self.marks_by_end.remove(&(before, id.clone()));
                }
                self.marks_by_end.insert((until, id));
            }
            Change::Schedule { key, at, tag } => {
                self.unschedule(&key);
                self.waiting.insert((at, key.clone()));
                self.timers.insert(key, Held { timer: Timer { at, tag }, leased_until: None });
            }
            Change::Unschedule { key } => self.unschedule(&key),
            Change::Projects { log } => self.log = Some(log),
        }
    }

    fn unschedule(&mut self, key: &str) {
        match self.timers.remove(key) {
            Some(Held { leased_until: Some(until), .. }) => self.leased.remove(&(until, key.to_owned())),
            Some(Held { timer, leased_until: None }) => self.waiting.remove(&(timer.at, key.to_owned())),
            None => false,
        };
    }

    fn forget_marks(&mut self, now: Timestamp) {
        while self.marks_by_end.first().is_some_and(|(until, _)| *until < now) {
            if let Some((_, id)) = self.marks_by_end.pop_first() {
                self.marks.remove(&id);
            }
        }
    }

    /// Leases that end at this moment or before it are over.
    fn free(&mut self, until: Timestamp) {
        while self.leased.first().is_some_and(|(end, _)| *end <= until) {
            let Some((_, key)) = self.leased.pop_first() else { break };
            if let Some(held) = self.timers.get_mut(&key) {
                held.leased_until = None;
                self.waiting.insert((held.timer.at, key));
            }
        }
    }

    fn claim(&mut self, claim: Claim) -> Vec<Due> {
        let Claim { since, now, lease, limit } = claim;
        self.free(now);
        let wanted = self.waiting.range((since, String::new())..).take_while(|(at, _)| *at <= now).take(limit);
        let wanted: Vec<_> = wanted.cloned().collect();
        let mut due = Vec::with_capacity(wanted.len());
        for waiting in wanted {
            self.waiting.remove(&waiting);
            let (at, key) = waiting;
            let Some(held) = self.timers.get_mut(&key) else { continue };
            held.leased_until = Some(now + lease);
            self.leased.insert((now + lease, key.clone()));
            due.push(Due { key, at, tag: held.timer.tag });
        }
        due
    }
}

impl MemoryGate {
    /// An empty gate. The clock tells when marks may be forgotten, and makes epochs grow over a restart.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view, if it has no newer owner than `epoch`.
    fn owned<T>(&self, view: &View, epoch: Epoch, act: impl FnOnce(&mut Projection) -> T) -> Result<T, GateError> {
        let mut state = self.state();
        let projection = state.views.entry(view.clone()).or_default();
        if epoch.0 < projection.epoch {
            return Err(GateError::Fenced { view: view.clone() });
        }
        Ok(act(projection))
    }

    fn ask<T>(&self, view: &View, answer: impl Fn(&Projection) -> Vec<Option<T>>) -> Snapshot<T> {
        let state = self.state();
        let empty = Projection::default();
        let projection = state.views.get(view).unwrap_or(&empty);
        Snapshot { applied: projection.applied, log: projection.log.clone(), answers: answer(projection) }
    }

    /// Loses one view with its position and owner.
    pub fn wipe_view(&self, view: &View) {
        self.state().views.remove(view);
    }

    /// Loses the registers.
    pub fn wipe_registers(&self) {
        self.state().registers = Registers::default();
    }

    /// Loses everything, limiters included.
    pub fn wipe(&self) {
        let mut state = self.state();
        state.views.clear();
        state.limiters = Limiters::default();
        state.registers = Registers::default();
    }

    /// Changes a view without its owner's knowledge, as somebody with his hands in the store does: position and owner stay.
    pub fn by_hand(&self, view: &View, change: Change) {
        if let Some(projection) = self.state().views.get_mut(view) {
            projection.change(change);
        }
    }

    /// All views as they are.
    #[must_use]
    pub fn snapshot(&self) -> GateSnapshot {
        let state = self.state();
        GateSnapshot(state.views.clone(), state.registers.clone())
    }

    /// Goes back to an earlier state of all views, their owners included, as a failover to a replica that lags does.
    pub fn restore(&self, snapshot: &GateSnapshot) {
        let mut state = self.state();
        state.views.clone_from(&snapshot.0);
        state.registers.clone_from(&snapshot.1);
    }
}

#[async_trait]
impl Gate for MemoryGate {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        let mut state = self.state();
        state.last_epoch = now.max(state.last_epoch + 1);
        let epoch = state.last_epoch;
        let projection = state.views.entry(view.clone()).or_default();
        projection.epoch = epoch;
        projection.free(Timestamp(i64::MAX));
        Ok(Ownership { epoch: Epoch(epoch), applied: projection.applied, log: projection.log.clone() })
    }

    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError> {
        let now = self.clock.now();
        self.owned(view, epoch, |projection| {
            if projection.applied != expected {
                return Err(GateError::Conflict { view: view.clone(), actual: projection.applied });
            }
            // After a wipe nobody is known: whoever applies first is the owner, and still fences those before it.
            projection.epoch = epoch.0;
            projection.applied = Some(next);
            projection.forget_marks(now);
            changes.into_iter().for_each(|change| projection.change(change));
            Ok(())
        })?
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        Ok(self.ask(view, |projection| keys.iter().map(|key| projection.values.get(key).cloned()).collect()))
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        let digest = |projection: &Projection, id| projection.marks.get(id).map(|(digest, _)| *digest);
        Ok(self.ask(view, |projection| ids.iter().map(|id| digest(projection, id)).collect()))
    }

    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError> {
        Ok(self
            .ask(view, |projection| keys.iter().map(|key| projection.timers.get(key).map(|held| held.timer)).collect()))
    }

    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError> {
        self.owned(view, epoch, |projection| projection.claim(claim))
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        let state = self.state();
        Ok(state.views.get(view).and_then(|projection| projection.waiting.first()).map(|(at, _)| *at))
    }

    /// Nobody but this process can change its memory.
    async fn inspect(&self, _: &View, _: u64) -> Result<u64, GateError> {
        Ok(0)
    }

    async fn discard(&self, view: &View) -> Result<(), GateError> {
        if let Some(projection) = self.state().views.get_mut(view) {
            *projection = Projection { epoch: projection.epoch, ..Projection::default() };
        }
        Ok(())
    }

    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError> {
        let now = self.clock.now();
        let registers = &mut self.state().registers;
        registers.forget(now);
        let told = registers.told.get(&(register.name, register.teller)).map_or(0, BTreeSet::len);
        let digests = ids.iter().map(|reservation| registers.reserve(register.name, reservation)).collect();
        Ok((told >= register.partitions as usize).then_some(digests))
    }

    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        let registers = &mut self.state().registers;
        for reservation in ids {
            registers.tell(register.name, reservation);
        }
        if complete {
            registers.told.entry((register.name, register.teller)).or_default().insert(partition);
        }
        Ok(())
    }

    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        Ok(self.state().registers.told.get(&(register.name, register.teller)).cloned().unwrap_or_default())
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        let mut state = self.state();
        Ok(limits.iter().map(|limit| state.limiters.take(limit, now)).collect())
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        self.state().limiters.give_back(limit);
        Ok(())
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        self.state().limiters.hold(limit_key, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use super::*;

    struct Hand(AtomicI64);

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }

        async fn sleep(&self, _: Duration) {}
    }

    #[tokio::test]
    async fn a_mark_is_forgotten_after_its_time_and_not_before() {
        let clock = Arc::new(Hand(AtomicI64::new(0)));
        let gate = MemoryGate::new(clock.clone());
        let view = View::new("marks", 0);
        let epoch = gate.acquire(&view).await.expect("acquire").epoch;
        let mark = |until| Change::Mark { id: Bytes::from_static(b"id"), digest: 7, until: Timestamp(until) };
        let recall = async || gate.recall(&view, &[Bytes::from_static(b"id")]).await.expect("recall").answers[0];
        gate.apply(&view, epoch, None, Offset(1), vec![mark(1000)]).await.expect("apply");
        gate.apply(&view, epoch, Some(Offset(1)), Offset(2), vec![mark(2000)]).await.expect("it is kept longer");
        clock.0.store(2000, Ordering::Relaxed);
        gate.apply(&view, epoch, Some(Offset(2)), Offset(3), vec![]).await.expect("apply");
        assert_eq!(recall().await, Some(7));
        clock.0.store(2001, Ordering::Relaxed);
        gate.apply(&view, epoch, Some(Offset(3)), Offset(4), vec![]).await.expect("apply");
        assert_eq!(recall().await, None);
    }
}
