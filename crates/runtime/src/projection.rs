//! The views of a handler that projects the log: one for each of its partitions, what waits to be applied, timers that are due.
//!
//! A view moves with the frontier of committed work, never ahead of it, so that every value in it stands at the position beside it
//! (R1). A timer that fires is only held against the log as it was *after* the timer was due (R8): its key is claimed, the end of the
//! log is noted, and it is given out when the view has applied everything up to there. Under load a view hardly ever stands at the end
//! of the log as it is right now; waiting for that would starve the timers of a busy partition.
//!
//! **Once.** What a timer leads to is committed with offsets of the group, so an owner that lost its place writes nothing any more. The
//! end that is noted counts what is not committed yet, so a new owner has seen what the former one wrote at the last moment. What this
//! owner proposed itself is remembered until it is seen in the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::audit::Owned;
use crate::failure::Failure;
use crate::handler::TakeUp;
use crate::platform::Platform;
use crate::rebuild::Rebuild;
use crate::view::OwnedView;
use bytes::Bytes;
use connector_contracts::Topic;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Change, Claim, Due, Timer, View};
use connector_ports::log::{Isolation, Offset, TopicName, TopicPartition};
use connector_ports::{Gate, Log};
use connector_telemetry::Metrics;
use futures::future::{join_all, try_join_all};

/// A claimed timer is not handed out again before this. A new owner need not wait for it; what an owner proposed in its own life is
/// remembered beside it.
const LEASE: Duration = Duration::from_secs(2);

/// Timers in hand, over all partitions: what one transaction takes well.
const IN_HAND: usize = 6_000;

/// Timers that were due within this time are claimed beside the oldest, so that a backlog does not hold them up.
const LIVE: Duration = Duration::from_secs(2);

/// How often they are looked for: with a long backlog that takes the gate some milliseconds.
const LIVE_EVERY: Duration = Duration::from_millis(250);

/// How often a partition without known timers is asked for some: leases end without telling anybody.
const RECHECK: Duration = Duration::from_secs(2);

/// How often it is made sure that the views are still there, and a part of each is looked through. An idle partition would not notice a
/// wipe by itself, and whoever waits for it to catch up (R2) would wait for ever.
const VERIFY: Duration = Duration::from_secs(1);

/// Timers that are kept in memory at most while views are built, over all partitions: some 130 bytes each. With more of them the gate is
/// asked again.
const KNOWN: usize = 2_400_000;

/// A key that no view has: reading it tells the position alone.
const NO_KEY: &str = "-";

/// One partition.
struct Held {
    view: OwnedView,
    /// Folded and not yet applied.
    pending: Vec<Change>,
    /// When asking for due timers makes sense again.
    wake: Timestamp,
    /// When asking for those that were due just now makes sense again.
    live_at: Timestamp,
    claimed: Option<Claimed>,
    /// Proposed to the log and not seen there yet, by key.
    proposed: HashMap<String, Timestamp>,
    /// How far the view was looked through.
    inspected: u64,
    /// While it is built from the beginning of the log.
    rebuild: Option<Rebuild>,
}

/// Timers in hand.
struct Claimed {
    /// A moment at which all of them were due.
    at: Timestamp,
    due: Vec<Due>,
    /// The end of the log at that moment.
    barrier: Offset,
}

/// Timers of a partition that are given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The partition.
    pub partition: u32,
    /// The view has applied what the log had at this moment. What has become due later must not be decided on it.
    pub claimed_at: Timestamp,
    /// The timers, oldest first.
    pub due: Vec<Due>,
}

/// The views called `name` of all partitions held.
pub struct Projection {
    gate: Arc<dyn Gate>,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    name: &'static str,
    source: TopicName,
    held: BTreeMap<u32, Held>,
    verify_at: Timestamp,
    timers_only: bool,
    owned: Owned,
}

impl Projection {
    /// Projects the log into the views called `name`.
    #[must_use]
    pub fn new(platform: &Platform, name: &'static str) -> Self {
        Self {
            gate: platform.gate.clone(),
            log: platform.log.clone(),
            metrics: platform.metrics.clone(),
            name,
            source: platform.topic(Topic::ConversationEvents),
            held: BTreeMap::new(),
            verify_at: Timestamp::EPOCH,
            timers_only: false,
            owned: Owned::default(),
        }
    }

    /// The partitions held, for whoever compares their views with the log.
    #[must_use]
    pub fn owned(&self) -> Owned {
        self.owned.clone()
    }

    /// Whoever folds asks for nothing but [`Projection::timers_of`]: a view that was lost is built in large steps then.
    #[must_use]
    pub const fn timers_only(mut self) -> Self {
        self.timers_only = true;
        self
    }

    /// Takes a partition's view over, and says where the log has to be read from.
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn acquire(&mut self, partition: u32, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        let source = TopicPartition { topic: self.source.clone(), partition };
        let view = OwnedView::acquire(self.gate.clone(), self.log.clone(), source, self.name).await?;
        let applied = view.applied();
        if committed > Some(Offset(0)) {
            match applied {
                None => self.metrics.gate.rebuilt(),
                Some(_) if applied < committed => self.metrics.gate.healed(),
                Some(_) => {}
            }
        }
        let held = Held {
            view,
            pending: Vec::new(),
            wake: Timestamp::EPOCH,
            live_at: Timestamp::EPOCH,
            claimed: None,
            proposed: HashMap::new(),
            inspected: 0,
            rebuild: committed.filter(|until| self.timers_only && applied.is_none() && until.0 > 0).map(Rebuild::up_to),
        };
        self.held.insert(partition, held);
        self.owned.add(partition);
        Ok(applied.map_or(TakeUp::Beginning, TakeUp::At))
    }

    /// Empties a partition's view, because it was built under other rules, and takes it over anew.
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn discard(&mut self, partition: u32, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.gate.discard(&View::new(self.name, partition)).await?;
        self.acquire(partition, committed).await
    }

    /// Forgets a partition.
    pub fn forget(&mut self, partition: u32) {
        self.held.remove(&partition);
        self.owned.remove(partition);
    }

    fn held(&mut self, partition: u32) -> Result<&mut Held, Failure> {
        let name = self.name;
        self.held.get_mut(&partition).ok_or_else(|| missing(name, partition))
    }

    /// The values of keys, exactly at the position of the view.
    ///
    /// # Errors
    /// `Reinitialise` when the view is not held, or was wiped or rolled back.
    pub async fn read(&mut self, partition: u32, keys: &[String]) -> Result<Vec<Option<Bytes>>, Failure> {
        self.held(partition)?.view.read(keys).await
    }

    /// The timers of keys in several partitions, as they are after everything that was kept and committed.
    ///
    /// # Errors
    /// As [`Projection::read`].
    pub async fn timers_of(&self, keys: &[(u32, &[String])]) -> Result<Vec<Vec<Option<Timer>>>, Failure> {
        try_join_all(keys.iter().map(async |(partition, keys)| {
            let held = self.held.get(partition).ok_or_else(|| missing(self.name, *partition))?;
            match &held.rebuild {
                Some(rebuild) => Ok(rebuild.timers(keys)),
                None => held.view.timers(keys).await,
            }
        }))
        .await
    }

    /// Keeps what a batch changes until its transaction is committed.
    ///
    /// # Errors
    /// `Reinitialise` when the view is not held.
    pub fn keep(&mut self, partition: u32, changes: Vec<Change>) -> Result<(), Failure> {
        self.held(partition)?.pending = changes;
        Ok(())
    }

    /// Applies what was kept: everything below these positions is committed.
    ///
    /// # Errors
    /// `Reinitialise` when a view was wiped or rolled back, `Fenced` when it has a newer owner.
    pub async fn committed(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), Failure> {
        let next: BTreeMap<u32, Offset> = positions.iter().map(|(source, next)| (source.partition, *next)).collect();
        if let Some(partition) = next.keys().find(|partition| !self.held.contains_key(partition)) {
            return Err(missing(self.name, *partition));
        }
        let (metrics, known) = (&self.metrics, self.known());
        let moved = self.held.iter_mut().filter_map(|(partition, held)| Some((held, *next.get(partition)?)));
        // None is broken off: what came of it would not be known.
        join_all(moved.map(|(held, next)| held.apply(next, known, metrics))).await.into_iter().collect()
    }

    /// Moves a view past what it has nothing to fold from (control records), for those who wait until it is caught up (R2).
    ///
    /// # Errors
    /// As [`Projection::committed`].
    pub async fn caught_up(&mut self, partition: u32, position: Offset) -> Result<(), Failure> {
        let metrics = self.metrics.clone();
        // There is nothing left to build, wherever the group once stood.
        self.held(partition)?.apply(position, 0, &metrics).await
    }

    /// Timers of a partition that may be kept in memory while its view is built.
    fn known(&self) -> usize {
        KNOWN / self.held.len().max(1)
    }

    /// Makes sure, once in a while, that every view stands where it was left and holds what was put into it.
    ///
    /// # Errors
    /// `Reinitialise` when one was wiped, rolled back or damaged.
    pub async fn verify(&mut self, now: Timestamp) -> Result<(), Failure> {
        if now < self.verify_at {
            return Ok(());
        }
        let gate = &self.gate;
        // One that is being built is looked at by the next step.
        let built = self.held.values_mut().filter(|held| held.rebuild.is_none());
        try_join_all(built.map(async |held| {
            held.inspected = gate.inspect(held.view.view(), held.inspected).await?;
            held.view.read(&[NO_KEY.to_owned()]).await
        }))
        .await?;
        self.verify_at = now + VERIFY;
        Ok(())
    }

    /// Claims timers that are due, oldest first, and gives out those whose views have meanwhile applied everything the log had when
    /// they were due. They are given out again until [`Projection::resolved`] is called.
    ///
    /// # Errors
    /// When log or gate are away, or a view has a newer owner.
    pub async fn due(&mut self, now: Timestamp) -> Result<Vec<Given>, Failure> {
        let limit = (IN_HAND / self.held.len().max(1)).max(50);
        let (gate, log, source) = (&self.gate, &self.log, &self.source);
        let ready = try_join_all(self.held.iter_mut().map(async |(partition, held)| {
            // While the view is built its timers are those of long ago.
            if held.rebuild.is_none() && held.claimed.is_none() && held.wake <= now {
                let source = TopicPartition { topic: source.clone(), partition: *partition };
                // In this order: a timer that is lost between two calls would wait for the end of its lease.
                let barrier = log.end_offset(&source, Isolation::Uncommitted).await?;
                held.claim(gate.as_ref(), now, limit, barrier).await?;
            }
            let ready = held.claimed.as_ref().filter(|claimed| held.view.applied() >= Some(claimed.barrier));
            if ready.is_some() {
                // That nothing was changed behind our back: what this owner moved since is not among them any more.
                held.view.read(&[NO_KEY.to_owned()]).await?;
            }
            let give =
                |claimed: &Claimed| Given { partition: *partition, claimed_at: claimed.at, due: claimed.due.clone() };
            Ok::<_, Failure>(ready.map(give))
        }))
        .await?;
        Ok(ready.into_iter().flatten().collect())
    }

    /// Whether timers are in hand: looking again soon makes sense.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.held.values().any(|held| held.claimed.is_some())
    }

    /// Whether a timer was not proposed to the log already. It is remembered as proposed until its change is seen in the log, so that
    /// a lease that ends early makes no second event.
    ///
    /// # Errors
    /// `Reinitialise` when the view is not held.
    pub fn propose(&mut self, partition: u32, key: &str, at: Timestamp) -> Result<bool, Failure> {
        let proposed = &mut self.held(partition)?.proposed;
        Ok(proposed.insert(key.to_owned(), at) != Some(at))
    }

    /// The timers that were given out for a partition are dealt with.
    pub fn resolved(&mut self, partition: u32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.claimed = None;
        }
    }

    /// When the oldest timer in hand was due.
    #[must_use]
    pub fn oldest_due(&self) -> Option<Timestamp> {
        self.held.values().filter_map(|held| held.claimed.as_ref()?.due.iter().map(|due| due.at).min()).min()
    }
}

fn missing(name: &str, partition: u32) -> Failure {
    Failure::Reinitialise(format!("view {name}/{partition} is not held"))
}

impl Held {
    /// Applies what is pending. Done again after a failure it comes to the same end. While the view is built, up to `known` timers are kept
    /// in memory.
    async fn apply(&mut self, next: Offset, known: usize, metrics: &Metrics) -> Result<(), Failure> {
        let applied = match &mut self.rebuild {
            Some(rebuild) => {
                rebuild.take(std::mem::take(&mut self.pending));
                if !rebuild.due(next, known) {
                    return Ok(());
                }
                let mut applied = rebuild.write(&mut self.view, next).await;
                if applied.is_ok() && rebuild.over(next, known) {
                    applied = rebuild.written(&mut self.view).await;
                    if applied.is_ok() {
                        self.rebuild = None;
                    }
                }
                applied
            }
            // Kept until it has worked: the call is repeated when the gate is away.
            None => self.view.apply(next, self.pending.clone()).await,
        };
        if let Err(failure) = applied {
            match failure {
                Failure::Reinitialise(_) => metrics.gate.conflict(),
                Failure::Fenced(_) => metrics.gate.fenced(),
                Failure::Later(_) | Failure::Fatal(_) => {}
            }
            return Err(failure);
        }
        let mut moved = HashSet::new();
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Schedule { key, at, .. } => {
                    self.proposed.remove(&key);
                    self.wake = self.wake.min(at);
                    moved.insert(key);
                }
                Change::Unschedule { key } => {
                    self.proposed.remove(&key);
                    moved.insert(key);
                }
                Change::Put { .. } | Change::Delete { .. } | Change::Mark { .. } | Change::Projects { .. } => {}
            }
        }
        // They have lost their lease: they are given out again in their own time.
        if let Some(claimed) = &mut self.claimed {
            claimed.due.retain(|due| !moved.contains(&due.key));
        }
        Ok(())
    }

    async fn claim(&mut self, gate: &dyn Gate, now: Timestamp, limit: usize, barrier: Offset) -> Result<(), Failure> {
        let (view, epoch) = (self.view.view(), self.view.epoch());
        let mut due = gate.claim_due(view, epoch, Claim { since: Timestamp::EPOCH, now, lease: LEASE, limit }).await?;
        let behind = due.len() == limit && due.last().is_some_and(|newest| newest.at < now - LIVE);
        if behind && now >= self.live_at {
            self.live_at = now + LIVE_EVERY;
            let live = Claim { since: now - LIVE, now, lease: LEASE, limit: limit / 2 };
            due.extend(gate.claim_due(view, epoch, live).await?);
        }
        if due.is_empty() {
            let next = gate.next_due(view).await?;
            self.wake = next.unwrap_or(now + RECHECK).min(now + RECHECK);
        } else {
            self.claimed = Some(Claimed { at: now, due, barrier });
        }
        Ok(())
    }
}
