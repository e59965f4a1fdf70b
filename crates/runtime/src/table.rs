//! A compacted topic as a table in memory, for what is small and asked often: numbers and templates.
//!
//! The same question has the same answer, before and after a restart or an error of the reader: the newest record of a key counts and no
//! other (one that cannot be read counts as none, because what it replaced may be compacted away), and what is asked is answered when the
//! table has been read up to the end of the topic as of the question (R2). After an error a new table is read beside the old one and takes
//! its place at the end: so the table never goes back, and what was deleted meanwhile is gone even if its tombstone is gone, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use connector_contracts::{Contract, decode};
use connector_domain::command::DirectoryRecord;
use connector_domain::template::Template;
use connector_ports::log::{Appended, Isolation, Offset, Polled, Record, Start, TopicName, TopicPartition};
use connector_ports::partition::partition_for;
use connector_ports::{Clock, Log};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::handler::Reason;

/// What stands in a compacted topic under a key that follows from itself.
pub trait Entry: Contract + Send + Sync + 'static {
    /// Its key; `None` when it lacks what the key is made of.
    fn slot(&self) -> Option<String>;
}

impl Entry for DirectoryRecord {
    fn slot(&self) -> Option<String> {
        // An id that is none must not become anybody's number or account.
        self.key().filter(|_| self.misformed().is_none())
    }
}

impl Entry for Template {
    fn slot(&self) -> Option<String> {
        Some(Self::key(&self.waba_id, &self.name, &self.language))
    }
}

/// The newest value of each key. Clones share the same table.
pub struct Table<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    topic: TopicName,
    keep: fn(&str) -> bool,
    state: RwLock<State<T>>,
}

struct State<T> {
    values: HashMap<String, Arc<T>>,
    positions: HashMap<u32, Offset>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), positions: HashMap::new() }
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Entry> State<T> {
    fn is_at(&self, ends: &[(u32, Offset)]) -> bool {
        ends.iter().all(|(partition, end)| *end <= self.positions.get(partition).copied().unwrap_or_default())
    }

    fn apply(&mut self, record: &Record, partitions: u32, keep: fn(&str) -> bool) {
        self.positions.insert(record.source.partition, record.offset.next());
        let Some(key) = key_of(record).filter(|key| keep(key)) else { return };
        match entry::<T>(record, partitions) {
            Ok(Some(value)) => {
                self.values.insert(key.to_owned(), Arc::new(value));
            }
            Ok(None) => {
                self.values.remove(key);
            }
            Err(reason) => {
                let Reason { word, detail } = &reason;
                tracing::warn!(source = %record.source, offset = record.offset.0, reason = word, detail, "it counts as none");
                if *word != MISPLACED {
                    self.values.remove(key);
                }
            }
        }
    }
}

/// The reason of a record that stands in another partition than its key's.
const MISPLACED: &str = "misplaced";

fn key_of(record: &Record) -> Option<&str> {
    record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
}

/// What a record of a compacted topic with so many partitions says about its key; `None` when that is gone. Tables skip what is an error
/// here; one worker for each topic brings it to the dead letters.
///
/// # Errors
/// Why it says nothing.
pub fn entry<T: Entry>(record: &Record, partitions: u32) -> Result<Option<T>, Reason> {
    let Some(key) = key_of(record) else { return Err(Reason::new("unknown_key", "the record has no readable key")) };
    // A key has one partition: what stands elsewhere is not compacted with it.
    if partition_for(key.as_bytes(), partitions) != record.source.partition {
        return Err(Reason::new(MISPLACED, "it stands in another partition than its key's"));
    }
    let Some(value) = record.value.as_deref() else { return Ok(None) };
    let value: T = decode(value).map_err(|error| Reason::new(error.reason(), error))?;
    if value.slot().as_deref() == Some(key) {
        Ok(Some(value))
    } else {
        Err(Reason::new("key_mismatch", "the key names something else than the record"))
    }
}

impl<T: Entry> Table<T> {
    /// A table of the keys that `keep` accepts. Empty until [`Table::follow`] runs.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, topic: TopicName, keep: fn(&str) -> bool) -> Self {
        Self { inner: Arc::new(Inner { log, clock, topic, keep, state: RwLock::default() }) }
    }

    /// The value of a key, as far as the table has been read.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.with(|state| state.values.get(key).cloned())
    }

    /// Every value.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.with(|state| state.values.values().cloned().collect())
    }

    /// Every value whose key begins so.
    #[must_use]
    pub fn all_of(&self, prefix: &str) -> Vec<Arc<T>> {
        self.with(|state| {
            state.values.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, value)| value.clone()).collect()
        })
    }

    fn with<R>(&self, look: impl FnOnce(&State<T>) -> R) -> R {
        look(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        change(&mut self.inner.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The newest value of a key as of this call, or its absence: good enough to decide with (R2).
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn newest(&self, key: &str, within: Duration) -> Result<Option<Arc<T>>, Failure> {
        self.at_end(&[key], within).await?;
        Ok(self.get(key))
    }

    /// Waits until the table has been read up to the end of the topic as of this call, as far as these keys are concerned.
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn at_end(&self, keys: &[impl AsRef<str>], within: Duration) -> Result<(), Failure> {
        if keys.is_empty() {
            return Ok(());
        }
        let partitions = self.partitions().await?;
        let homes: BTreeSet<u32> = keys.iter().map(|key| partition_for(key.as_ref().as_bytes(), partitions)).collect();
        self.wait(homes, within).await
    }

    /// Waits until the whole table has been read up to the end of the topic as of this call: what it has not is not there.
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn complete(&self, within: Duration) -> Result<(), Failure> {
        let partitions = self.partitions().await?;
        self.wait((0..partitions).collect(), within).await
    }

    /// Waits until the table has read a record of its topic that the caller wrote. The end of the topic moves behind a committed record a
    /// little after the commit was answered: [`Table::newest`] may be asked before that.
    ///
    /// # Errors
    /// `Later` when the table does not get there within `within`.
    pub async fn reached(&self, written: &Appended, within: Duration) -> Result<(), Failure> {
        self.wait_for(&[(written.target.partition, written.offset.next())], within).await
    }

    async fn wait(&self, partitions: BTreeSet<u32>, within: Duration) -> Result<(), Failure> {
        let ends = self.ends(partitions).await?;
        self.wait_for(&ends, within).await
    }

    async fn wait_for(&self, ends: &[(u32, Offset)], within: Duration) -> Result<(), Failure> {
        let until = self.inner.clock.now() + within;
        while !self.with(|state| state.is_at(ends)) {
            if self.inner.clock.now() >= until {
                return Err(Failure::Later(format!("the table of {} is behind", self.inner.topic)));
            }
            self.inner.clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn ends(&self, partitions: BTreeSet<u32>) -> Result<Vec<(u32, Offset)>, Failure> {
        let source = |partition: &u32| TopicPartition { topic: self.inner.topic.clone(), partition: *partition };
        let asked: Vec<_> = partitions.iter().map(source).collect();
        let ends = self.inner.log.end_offsets(&asked, Isolation::Committed).await.map_err(Failure::waiting)?;
        Ok(partitions.into_iter().zip(ends).collect())
    }

    async fn partitions(&self) -> Result<u32, Failure> {
        // Their number is for ever, and every one of them has a position once the table was read.
        let known = self.with(|state| state.positions.len());
        if let Ok(known @ 1..) = u32::try_from(known) {
            return Ok(known);
        }
        let missing = || Failure::Later(format!("topic {} does not exist yet", self.inner.topic));
        Ok(self.inner.log.topic(&self.inner.topic).await.map_err(Failure::waiting)?.ok_or_else(missing)?.partitions)
    }

    /// Reads the topic until `shutdown` is cancelled, again from its beginning after a failure.
    pub async fn follow(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while !shutdown.is_cancelled() {
            let failure = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                failure = self.read(&mut backoff) => failure,
            };
            if let Err(failure) = failure {
                tracing::warn!(topic = %self.inner.topic, %failure, "the table waits");
            }
            let wait = backoff.grow();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.inner.clock.sleep(wait) => {}
            }
        }
    }

    async fn read(&self, backoff: &mut Backoff) -> Result<(), Failure> {
        let missing = || Failure::Later(format!("topic {} does not exist yet", self.inner.topic));
        let partitions = self.inner.log.topic(&self.inner.topic).await?.ok_or_else(missing)?.partitions;
        let ends = self.ends((0..partitions).collect()).await?;
        let all = (0..partitions)
            .map(|partition| (TopicPartition { topic: self.inner.topic.clone(), partition }, Start::Beginning))
            .collect();
        let mut reader = self.inner.log.assign(all, Isolation::Committed).await?;
        // Nobody sees the new table before it is complete.
        let mut fresh: Option<State<T>> = Some(State::default());
        loop {
            let polled = reader.poll(Duration::from_secs(1), 1000).await?;
            let apply = |state: &mut State<T>| match polled {
                Polled::Records(records) => {
                    records.iter().for_each(|record| state.apply(record, partitions, self.inner.keep));
                    true
                }
                Polled::CaughtUp(partition, position) => {
                    state.positions.insert(partition.partition, position);
                    false
                }
                Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) | Polled::Idle => false,
            };
            match &mut fresh {
                Some(state) => {
                    if apply(state) {
                        backoff.reset();
                    }
                    let whole = state.positions.len() == partitions as usize && state.is_at(&ends);
                    if whole && let Some(state) = fresh.take() {
                        self.change(|live| *live = state);
                    }
                }
                None => {
                    let mut progress = false;
                    self.change(|live| progress = apply(live));
                    if progress {
                        backoff.reset();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use connector_contracts::encode;
    use connector_domain::command::{DirectoryKind, DirectoryRecord};
    use connector_domain::identity::Address;
    use connector_ports::log::{Append, TopicSpec};
    use connector_simulated::SimWorld;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn a_world() -> SimWorld {
        let world = SimWorld::new(1);
        let spec = TopicSpec { name: "table".into(), partitions: 3, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
        world
    }

    fn a_table(world: &SimWorld) -> Table<DirectoryRecord> {
        Table::new(world.calm_log(), world.clock(), "table".into(), |_| true)
    }

    async fn write(world: &SimWorld, enabled: bool) {
        let record = DirectoryRecord {
            kind: DirectoryKind::Number,
            organization_id: "acme".into(),
            phone_number_id: Some("1".into()),
            waba_id: None,
            user_id: None,
            enabled,
            contact_id: None,
            address: Address::default(),
            name: None,
            settings: None,
            state: None,
        };
        put(world, "number/1", Some(encode(&record).expect("it fits its schema"))).await;
    }

    async fn put(world: &SimWorld, key: &str, value: Option<Vec<u8>>) {
        let append = Append {
            topic: "table".into(),
            partition: None,
            key: Some(Bytes::from(key.to_owned())),
            value: value.map(Bytes::from),
            headers: Vec::new(),
        };
        world.calm_log().appender().await.expect("an appender").append(vec![append]).await.expect("written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_a_newer_one_has_replaced_is_never_the_newest() {
        let world = a_world().await;
        let table = a_table(&world);
        let patience = PATIENCE;
        write(&world, false).await;
        let following = tokio::spawn(table.clone().follow(CancellationToken::new()));
        let old = table.newest("number/1", patience).await.expect("the log is calm").expect("it was written");
        assert!(!old.enabled);
        // The table stands still while its topic goes on.
        following.abort();
        write(&world, true).await;
        assert!(matches!(table.newest("number/1", Duration::ZERO).await, Err(Failure::Later(_))));
        let following = tokio::spawn(table.clone().follow(CancellationToken::new()));
        let new = table.newest("number/1", patience).await.expect("the log is calm").expect("it was written");
        assert!(new.enabled);
        assert!(table.newest("number/2", patience).await.expect("the log is calm").is_none());
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_is_not_there_is_waited_for_also_when_it_was_read_before() {
        let world = SimWorld::new(1);
        let table = a_table(&world);
        assert!(matches!(table.newest("number/1", PATIENCE).await, Err(Failure::Later(_))));
        let spec = TopicSpec { name: "table".into(), partitions: 3, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
        write(&world, true).await;
        let following = tokio::spawn(table.clone().follow(CancellationToken::new()));
        assert!(table.newest("number/1", PATIENCE).await.expect("calm").is_some());
        world.delete(&"table".into());
        for answer in [table.newest("number/1", PATIENCE).await.map(drop), table.complete(PATIENCE).await] {
            assert!(matches!(answer, Err(Failure::Later(_))), "{answer:?}");
        }
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_the_same_before_and_after_a_restart() {
        let world = a_world().await;
        let lasting = a_table(&world);
        let following = tokio::spawn(lasting.clone().follow(CancellationToken::new()));
        let mut answers = Vec::new();
        let contents: [Option<Vec<u8>>; 2] = [Some(b"damaged".to_vec()), None];
        for content in contents {
            write(&world, true).await;
            assert!(lasting.newest("number/1", PATIENCE).await.expect("calm").is_some());
            put(&world, "number/1", content).await;
            let restarted = a_table(&world);
            let beside = tokio::spawn(restarted.clone().follow(CancellationToken::new()));
            answers.push(lasting.newest("number/1", PATIENCE).await.expect("calm"));
            answers.push(restarted.newest("number/1", PATIENCE).await.expect("calm"));
            beside.abort();
        }
        assert!(answers.iter().all(Option::is_none), "what it replaced may be compacted away at any time: {answers:?}");
        write(&world, true).await;
        // Under another key than its own it says nothing.
        let record = lasting.newest("number/1", PATIENCE).await.expect("calm").expect("written");
        put(&world, "number/2", Some(encode(&*record).expect("it fits its schema"))).await;
        assert!(lasting.newest("number/2", PATIENCE).await.expect("calm").is_none());
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_read_again_never_goes_back_and_keeps_nothing_that_is_gone() {
        let world = a_world().await;
        let table = a_table(&world);
        write(&world, false).await;
        write(&world, true).await;
        let following = tokio::spawn(table.clone().follow(CancellationToken::new()));
        assert!(table.newest("number/1", PATIENCE).await.expect("calm").expect("written").enabled);
        following.abort();
        // A number that the topic does not have any more, not even as a tombstone: both were compacted away meanwhile.
        let ghost = table.get("number/1").expect("written");
        table.change(|state| drop(state.values.insert("number/9".to_owned(), ghost)));
        // Read again from its beginning, in which the older record stands: whoever looks on sees the newer one only.
        let table_again = table.clone();
        let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let looking = seen.clone();
        let watch = tokio::spawn(async move {
            loop {
                if let Ok(mut seen) = looking.lock() {
                    seen.insert(table_again.get("number/1").is_some_and(|number| number.enabled));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let following = tokio::spawn(table.clone().follow(CancellationToken::new()));
        put(&world, "number/5", None).await;
        let whole = async {
            while table.get("number/9").is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("what is gone goes");
        watch.abort();
        following.abort();
        assert_eq!(*seen.lock().expect("no panic"), BTreeSet::from([true]));
    }
}
