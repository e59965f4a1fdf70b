//! The world: what exists, which call is being made, and what goes wrong with it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connector_embedded::{Fate, GateSnapshot, MemoryGate, MemoryStore, StoreLog};
use connector_ports::log::{Offset, Record, TopicName, TopicPartition};
use connector_ports::{Clock, Gate, Ids, Log, WhatsApp};
use tokio::sync::watch;

use crate::clock::SimClock;
use crate::gate::SimGate;
use crate::ids::SimIds;
use crate::log::SimLog;
use crate::plan::{Fault, Plan, When};
use crate::random::Random;
use crate::whatsapp::SimWhatsApp;

/// A world with one log, one gate, one clock and one WhatsApp. Clones are the same world. To be used inside a tokio runtime of one
/// thread with paused time; then the same seed, plan and code give the same run.
///
/// What [`SimWorld::log`] and its like give belongs to the present incarnation of the process. After a crash none of its calls
/// returns any more; [`SimWorld::restart`] begins the next incarnation.
#[derive(Clone)]
pub struct SimWorld {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) log: StoreLog<MemoryStore>,
    pub(crate) gate: MemoryGate,
    pub(crate) clock: SimClock,
    ids: SimIds,
    whatsapp: SimWhatsApp,
    control: Mutex<Control>,
    crashed: watch::Sender<bool>,
    pub(crate) values_read: AtomicUsize,
}

struct Control {
    random: Random,
    plan: Plan,
    incarnation: u64,
    trace: Vec<&'static str>,
    snapshots: BTreeMap<u64, GateSnapshot>,
    limiters_away: Option<String>,
    views_away: Option<u32>,
}

/// What a call of a port belongs to.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) shared: Arc<Shared>,
    incarnation: u64,
}

/// How a call fails without and with its effect. `true` asks for the error that leaves open whether the effect happened.
pub(crate) type Failing<E> = fn(point: &'static str, uncertain: bool) -> E;

impl SimWorld {
    /// A world in which nothing goes wrong yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = SimClock::new();
        let store = MemoryStore::new(Arc::new(clock.clone()));
        let mut random = Random::new(seed);
        let control = Control {
            plan: Plan::default(),
            incarnation: 0,
            trace: Vec::new(),
            snapshots: BTreeMap::new(),
            limiters_away: None,
            views_away: None,
            random: Random::new(random.next()),
        };
        Self {
            shared: Arc::new(Shared {
                log: StoreLog::new(store),
                gate: MemoryGate::new(Arc::new(clock.clone())),
                ids: SimIds::new(random.next(), clock.clone()),
                whatsapp: SimWhatsApp::new(random.next(), clock.clone()),
                clock,
                control: Mutex::new(control),
                crashed: watch::Sender::new(false),
                values_read: AtomicUsize::new(0),
            }),
        }
    }

    /// Says what goes wrong from now on.
    #[must_use]
    pub fn with(self, plan: Plan) -> Self {
        self.shared.control().plan = plan;
        self
    }

    /// Adds a crash at a point.
    pub fn crash_at(&self, point: u64, when: When) {
        self.shared.control().plan.at.push((point, Fault::Crash(when)));
    }

    /// The group takes every partition away without asking and gives it out again, now.
    pub fn rebalance(&self) {
        self.shared.log.evict_members();
    }

    /// Limiters whose key begins like this cannot be reached from now on, while the rest of the gate answers; `None`: all can.
    pub fn set_limiters_away(&self, prefix: Option<&str>) {
        self.shared.control().limiters_away = prefix.map(str::to_owned);
    }

    /// The views of this partition cannot be reached from now on, while the rest of the gate answers; `None`: all can.
    pub fn set_views_away(&self, partition: Option<u32>) {
        self.shared.control().views_away = partition;
    }

    fn process(&self) -> Process {
        Process { shared: self.shared.clone(), incarnation: self.shared.control().incarnation }
    }

    /// The log, for the present incarnation.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::new(SimLog { process: self.process() })
    }

    /// The gate, for the present incarnation.
    #[must_use]
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(SimGate { process: self.process() })
    }

    /// WhatsApp, for the present incarnation.
    #[must_use]
    pub fn whatsapp(&self) -> Arc<dyn WhatsApp> {
        Arc::new(crate::whatsapp::Client { process: self.process() })
    }

    /// The clock. Its own methods skew it.
    #[must_use]
    pub fn clock(&self) -> Arc<SimClock> {
        Arc::new(self.shared.clock.clone())
    }

    /// Ids under the seed.
    #[must_use]
    pub fn ids(&self) -> Arc<dyn Ids> {
        Arc::new(self.shared.ids.clone())
    }

    /// The log without faults and points: for tests that set the scene or look at it. It may not be a member of the service's groups.
    #[must_use]
    pub fn calm_log(&self) -> Arc<dyn Log> {
        Arc::new(self.shared.log.clone())
    }

    /// The gate without faults and points, with wipe and snapshots.
    #[must_use]
    pub fn calm_gate(&self) -> &MemoryGate {
        &self.shared.gate
    }

    /// WhatsApp's own side: what it answers, and its ledger.
    #[must_use]
    pub fn whatsapp_side(&self) -> &SimWhatsApp {
        &self.shared.whatsapp
    }

    /// How many points were passed so far.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.shared.control().trace.len() as u64
    }

    /// How many values the gate was asked for so far.
    #[must_use]
    pub fn values_read(&self) -> usize {
        self.shared.values_read.load(Ordering::Relaxed)
    }

    /// The name of every point passed so far, e.g. `log.append`.
    #[must_use]
    pub fn trace(&self) -> Vec<&'static str> {
        self.shared.control().trace.clone()
    }

    /// Returns when the process has crashed and was not restarted yet.
    pub async fn crashed(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.shared.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Begins the next incarnation: members of the former one have left their groups, what it left open is aborted when its
    /// transactional id is taken over, and calls that it still makes never return.
    pub fn restart(&self) {
        self.shared.control().incarnation += 1;
        self.shared.log.forget_members();
        self.shared.crashed.send_replace(false);
    }

    /// Deletes everything below a position, as retention does.
    pub fn delete_below(&self, partition: &TopicPartition, position: Offset) {
        self.shared.log.store().delete_below(partition, position);
    }

    /// Takes the records of a topic out that `keep` refuses, as compaction does.
    pub fn compact(&self, topic: &TopicName, keep: impl Fn(&Record) -> bool) {
        self.shared.log.store().compact(topic, keep);
    }

    /// Empties a topic, as when it is deleted and created again.
    pub fn make_anew(&self, topic: &TopicName) {
        self.shared.log.store().make_anew(topic);
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &TopicName) {
        self.shared.log.store().delete(topic);
    }

    /// The committed records of a topic, in order per partition.
    #[must_use]
    pub fn history(&self, topic: &TopicName) -> Vec<Record> {
        let committed = |(record, fate)| (fate == Fate::Committed).then_some(record);
        self.appended(topic).into_iter().filter_map(committed).collect()
    }

    /// Every record of a topic with what became of its transaction, in order per partition.
    #[must_use]
    pub fn appended(&self, topic: &TopicName) -> Vec<(Record, Fate)> {
        self.shared.log.store().history(topic)
    }
}

impl Shared {
    pub(crate) const fn whatsapp(&self) -> &SimWhatsApp {
        &self.whatsapp
    }

    pub(crate) fn is_away(&self, limiter: &str) -> bool {
        self.control().limiters_away.as_ref().is_some_and(|prefix| limiter.starts_with(prefix))
    }

    pub(crate) fn has_views(&self, partition: u32) -> bool {
        self.control().views_away != Some(partition)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn is_dead(&self) -> bool {
        *self.shared.crashed.borrow() || self.shared.control().incarnation != self.incarnation
    }

    /// Never returns when the process is dead.
    pub(crate) async fn alive(&self) {
        if self.is_dead() {
            pending().await
        }
    }

    async fn die<T>(&self) -> T {
        self.shared.crashed.send_replace(true);
        pending().await
    }

    /// Passes a point: carries out what happens to the world, gives what happens to the call.
    fn pass(&self, point: &'static str) -> Option<Fault> {
        let mut control = self.shared.control();
        let number = control.trace.len() as u64;
        control.trace.push(point);
        let noise = control.plan.noise;
        let mut faults: Vec<Fault> = Vec::new();
        for (per_mille, fault) in [
            (noise.rebalance, Fault::Rebalance),
            (noise.wipe_gate, Fault::WipeGate),
            (noise.crash_before, Fault::Crash(When::Before)),
            (noise.crash_after, Fault::Crash(When::After)),
            (noise.fail_before, Fault::Fail(When::Before)),
            (noise.fail_after, Fault::Fail(When::After)),
        ] {
            if control.random.happens(per_mille) {
                faults.push(fault);
            }
        }
        faults.extend(control.plan.at.iter().filter(|(at, _)| *at == number).map(|(_, fault)| *fault));
        if control.plan.at.iter().any(|(_, fault)| *fault == Fault::RollBackGate { to: number }) {
            let snapshot = self.shared.gate.snapshot();
            control.snapshots.insert(number, snapshot);
        }
        let mut of_the_call = None;
        for fault in faults {
            match fault {
                Fault::Rebalance => self.shared.log.evict_members(),
                Fault::WipeGate => self.shared.gate.wipe(),
                Fault::RollBackGate { to } => {
                    if let Some(snapshot) = control.snapshots.get(&to) {
                        self.shared.gate.restore(snapshot);
                    }
                }
                Fault::Crash(_) | Fault::Fail(_) | Fault::Slow(_) => of_the_call = of_the_call.or(Some(fault)),
            }
        }
        of_the_call
    }

    fn tosses(&self) -> bool {
        self.shared.control().random.below(2) == 0
    }

    fn waits(&self) -> u64 {
        self.shared.control().random.below(3)
    }

    /// A call of a port with everything that may go wrong with it.
    pub(crate) async fn call<T, E>(
        &self,
        point: &'static str,
        failing: Failing<E>,
        effect: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.alive().await;
        // Other tasks come in between, under the seed.
        for _ in 0..self.waits() {
            tokio::task::yield_now().await;
        }
        self.alive().await;
        let fault = self.pass(point);
        match fault {
            Some(Fault::Crash(When::Before)) => return self.die().await,
            Some(Fault::Fail(When::Before)) => return Err(failing(point, self.tosses())),
            Some(Fault::Slow(time)) => {
                self.shared.clock.sleep(time).await;
                self.alive().await;
            }
            _ => {}
        }
        let result = effect.await;
        match fault {
            Some(Fault::Crash(When::After)) => self.die().await,
            Some(Fault::Fail(When::After)) => Err(failing(point, true)),
            _ => {
                self.alive().await;
                result
            }
        }
    }

    /// A point behind an effect that must not be taken back, e.g. a poll: only a crash can come in between. Never waits otherwise.
    pub(crate) async fn delivered(&self, point: &'static str) {
        if let Some(Fault::Crash(_)) = self.pass(point) {
            self.die().await
        }
    }

    /// Whether a call fails at random without being a point.
    pub(crate) fn stumbles(&self) -> bool {
        let mut control = self.shared.control();
        let per_mille = control.plan.noise.fail_before;
        control.random.happens(per_mille)
    }
}
