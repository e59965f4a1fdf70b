//! Records in memory, with Kafka's offsets: the end of a transaction takes a position in each partition it touched, so that offsets
//! have gaps as they do on a broker. Everything happens at the call; no thread and no clock of its own, so that a run can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{
    Identity, Isolation, LogError, LogId, Offset, Position, Record, Start, TopicName, TopicPartition, TopicSpec,
};
use tokio::sync::watch;

use crate::store::{Answer, Fetched, Outcome, Placed, Positions, Session, Store, fenced, ready};

/// A store in memory.
pub struct MemoryStore {
    /// Tells stores apart.
    number: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<TopicName, Vec<Partition>>,
    settings: BTreeMap<TopicName, BTreeMap<String, String>>,
    transactors: HashMap<String, Transactor>,
    transactions: Vec<Fate>,
    groups: HashMap<(String, TopicPartition), Position>,
}

#[derive(Default)]
struct Partition {
    entries: Vec<Entry>,
    /// What stands below was deleted.
    begin: Offset,
    /// First position of each open transaction.
    open: BTreeMap<usize, Offset>,
    /// How often its topic was made anew.
    made: u64,
}

enum Entry {
    Record { record: Record, transaction: Option<usize> },
    Marker,
}

#[derive(Default)]
struct Transactor {
    epoch: u64,
    open: Option<usize>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may still become anything.
    Open,
    /// Visible.
    Committed,
    /// Never visible to committed readers.
    Aborted,
}

impl Partition {
    fn end(&self, isolation: Isolation) -> Offset {
        let end = Offset(i64::try_from(self.entries.len()).unwrap_or(i64::MAX));
        match isolation {
            Isolation::Uncommitted => end,
            Isolation::Committed => self.open.values().min().copied().unwrap_or(end),
        }
    }
}

impl State {
    fn partition(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.topics.get_mut(&partition.topic)?.get_mut(partition.partition as usize)
    }

    fn owner(&mut self, session: &Session) -> Result<&mut Transactor, LogError> {
        let owner = self.transactors.get_mut(&session.id).filter(|owner| owner.epoch == session.epoch);
        owner.ok_or_else(|| fenced(session))
    }

    fn end_transaction(&mut self, transaction: usize, fate: Fate) {
        self.transactions[transaction] = fate;
        for partition in self.topics.values_mut().flatten() {
            if partition.open.remove(&transaction).is_some() {
                partition.entries.push(Entry::Marker);
            }
        }
    }

    fn store(&mut self, positions: Positions) {
        for (partition, position) in positions.positions {
            self.groups.insert((positions.group.clone(), partition), position);
        }
    }
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(0)
}

impl MemoryStore {
    /// An empty store. The clock stamps the records.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        Self { number, clock, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Every record ever appended to a topic with what became of its transaction, in order per partition. For checkers.
    #[must_use]
    pub fn history(&self, topic: &TopicName) -> Vec<(Record, Fate)> {
        let state = self.state();
        let entries = state.topics.get(topic).into_iter().flatten().flat_map(|partition| &partition.entries);
        let records = entries.filter_map(|entry| match entry {
            Entry::Record { record, transaction: None } => Some((record.clone(), Fate::Committed)),
            Entry::Record { record, transaction: Some(transaction) } => {
                Some((record.clone(), state.transactions[*transaction]))
            }
            Entry::Marker => None,
        });
        records.collect()
    }

    /// The names of all topics, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicName> {
        self.state().topics.keys().cloned().collect()
    }

    /// Deletes everything below a position, as retention does. For tests.
    pub fn delete_below(&self, partition: &TopicPartition, position: Offset) {
        if let Some(partition) = self.state().partition(partition) {
            partition.begin = position.max(partition.begin).min(partition.end(Isolation::Uncommitted));
        }
    }

    /// Takes the committed records of a topic out that `keep` refuses, as compaction does: positions stay. For tests.
    pub fn compact(&self, topic: &TopicName, keep: impl Fn(&Record) -> bool) {
        let state = &mut *self.state();
        for entry in state.topics.get_mut(topic).into_iter().flatten().flat_map(|partition| &mut partition.entries) {
            if matches!(entry, Entry::Record { record, .. } if !keep(record)) {
                *entry = Entry::Marker;
            }
        }
    }

    /// Empties a topic, as when it is deleted and created again; positions of groups stay. For tests.
    pub fn make_anew(&self, topic: &TopicName) {
        if let Some(partitions) = self.state().topics.get_mut(topic) {
            for partition in partitions {
                *partition = Partition { made: partition.made + 1, ..Partition::default() };
            }
        }
        self.notify();
    }

    /// Deletes a topic; positions of groups stay. For tests.
    pub fn delete(&self, topic: &TopicName) {
        self.state().topics.remove(topic);
        self.notify();
    }

    fn try_append(&self, records: Vec<Placed>, session: Option<&Session>) -> Result<Vec<Offset>, LogError> {
        let now = self.clock.now();
        let state = &mut *self.state();
        if let Some(session) = session {
            state.owner(session)?;
        }
        for record in &records {
            if state.partition(&record.target).is_none() {
                return Err(LogError::UnknownTopic { topic: record.target.topic.clone() });
            }
        }
        let mut transaction = None;
        if let Some(session) = session.filter(|_| !records.is_empty()) {
            let fresh = state.transactions.len();
            let open = *state.owner(session)?.open.get_or_insert(fresh);
            if open == fresh {
                state.transactions.push(Fate::Open);
            }
            transaction = Some(open);
        }
        let mut offsets = Vec::with_capacity(records.len());
        for Placed { target, key, value, headers } in records {
            let Some(partition) = state.partition(&target) else { continue };
            let offset = partition.end(Isolation::Uncommitted);
            if let Some(transaction) = transaction {
                partition.open.entry(transaction).or_insert(offset);
            }
            let record = Record { source: target, offset, key, value, headers, timestamp: now };
            partition.entries.push(Entry::Record { record, transaction });
            offsets.push(offset);
        }
        Ok(offsets)
    }

    fn try_finish(&self, session: &Session, outcome: Outcome) -> Result<(), LogError> {
        let state = &mut *self.state();
        let open = state.owner(session)?.open.take();
        let fate = if matches!(outcome, Outcome::Commit(_)) { Fate::Committed } else { Fate::Aborted };
        if let Some(transaction) = open {
            state.end_transaction(transaction, fate);
        }
        if let Outcome::Commit(Some(positions)) = outcome {
            state.store(positions);
        }
        Ok(())
    }

    fn try_fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max: usize,
        isolation: Isolation,
    ) -> Result<Fetched, LogError> {
        let state = &mut *self.state();
        let transactions = std::mem::take(&mut state.transactions);
        let found = state.partition(partition).map(|partition| {
            let end = partition.end(isolation);
            let (mut records, mut next) = (Vec::new(), from.max(partition.begin));
            while next < end && records.len() < max {
                if let Entry::Record { record, transaction } = &partition.entries[index(next)] {
                    let aborted = transaction.is_some_and(|transaction| transactions[transaction] == Fate::Aborted);
                    if !aborted || isolation == Isolation::Uncommitted {
                        records.push(record.clone());
                    }
                }
                next = next.next();
            }
            Fetched { records, next }
        });
        state.transactions = transactions;
        found.ok_or_else(|| LogError::UnknownTopic { topic: partition.topic.clone() })
    }

    fn since(&self, partition: &TopicPartition, moment: Timestamp) -> Option<Offset> {
        let mut state = self.state();
        let partition = state.partition(partition)?;
        partition.entries.iter().skip(index(partition.begin)).find_map(|entry| match entry {
            Entry::Record { record, .. } if record.timestamp >= moment => Some(record.offset),
            _ => None,
        })
    }
}

impl Store for MemoryStore {
    fn create_topic(&self, spec: &TopicSpec) -> Answer<()> {
        let fresh = || (0..spec.partitions).map(|_| Partition::default()).collect();
        {
            let state = &mut *self.state();
            state.topics.entry(spec.name.clone()).or_insert_with(fresh);
            state.settings.insert(spec.name.clone(), spec.settings.iter().cloned().collect());
        }
        self.notify();
        ready(Ok(()))
    }

    fn settings(&self, topic: &TopicName) -> BTreeMap<String, String> {
        self.state().settings.get(topic).cloned().unwrap_or_default()
    }

    fn identity(&self, partition: &TopicPartition) -> Option<Identity> {
        let made = self.state().partition(partition)?.made;
        Some(Identity::Known(LogId::from(format!("{}:{partition}:{made}", self.number))))
    }

    fn partitions(&self, topic: &TopicName) -> Option<u32> {
        self.state().topics.get(topic).map(|partitions| u32::try_from(partitions.len()).unwrap_or(u32::MAX))
    }

    fn append(&self, records: Vec<Placed>, session: Option<&Session>) -> Answer<Vec<Offset>> {
        let result = self.try_append(records, session);
        self.notify();
        ready(result)
    }

    fn take_over(&self, id: &str) -> Answer<Session> {
        let state = &mut *self.state();
        let transactor = state.transactors.entry(id.to_owned()).or_default();
        transactor.epoch += 1;
        let session = Session { id: id.to_owned(), epoch: transactor.epoch };
        if let Some(open) = transactor.open.take() {
            state.end_transaction(open, Fate::Aborted);
        }
        self.notify();
        ready(Ok(session))
    }

    fn finish(&self, session: &Session, outcome: Outcome) -> Answer<()> {
        let result = self.try_finish(session, outcome);
        self.notify();
        ready(result)
    }

    /// Nothing: as on a broker, the transaction stays open until the next owner comes.
    fn abandon(&self, _session: &Session) {}

    fn commit_positions(&self, positions: Positions) -> Answer<()> {
        self.state().store(positions);
        ready(Ok(()))
    }

    fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Answer<Vec<Option<Position>>> {
        let state = self.state();
        let position = |partition: &TopicPartition| state.groups.get(&(group.to_owned(), partition.clone())).copied();
        ready(Ok(partitions.iter().map(position).collect()))
    }

    fn end(&self, partition: &TopicPartition, isolation: Isolation) -> Option<Offset> {
        self.state().partition(partition).map(|partition| partition.end(isolation))
    }

    fn begin(&self, partition: &TopicPartition) -> Option<Offset> {
        self.state().partition(partition).map(|partition| partition.begin)
    }

    fn fetch(&self, partition: &TopicPartition, from: Offset, max: usize, isolation: Isolation) -> Answer<Fetched> {
        ready(self.try_fetch(partition, from, max, isolation))
    }

    fn resolve(&self, partition: &TopicPartition, start: Start, isolation: Isolation) -> Answer<Offset> {
        let Some(end) = self.end(partition, isolation) else {
            return ready(Err(LogError::UnknownTopic { topic: partition.topic.clone() }));
        };
        ready(Ok(match start {
            Start::Beginning => self.begin(partition).unwrap_or_default(),
            Start::End => end,
            Start::At(offset) => offset,
            Start::Since(moment) => self.since(partition, moment).map_or(end, |offset| offset.min(end)),
        }))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
