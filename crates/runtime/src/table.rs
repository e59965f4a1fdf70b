//! A compacted topic as a table in memory, for what is small and asked often: numbers and templates.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use connector_contracts::{Contract, decode};
use connector_ports::log::{Isolation, Offset, Polled, Start, TopicName, TopicPartition};
use connector_ports::{Clock, Log};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::Failure;

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
    /// With the partition each was read in: a newer one comes in the same.
    values: HashMap<String, (u32, Arc<T>)>,
    positions: HashMap<u32, Offset>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Contract + Send + Sync + 'static> Table<T> {
    /// A table of the keys that `keep` accepts. Empty until [`Table::follow`] runs.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, topic: TopicName, keep: fn(&str) -> bool) -> Self {
        let state = RwLock::new(State { values: HashMap::new(), positions: HashMap::new() });
        Self { inner: Arc::new(Inner { log, clock, topic, keep, state }) }
    }

    /// The value of a key, as far as the table has been read.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.inner.state.read().ok()?.values.get(key).map(|(_, value)| value.clone())
    }

    /// Every value.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner
            .state
            .read()
            .map(|state| state.values.values().map(|(_, value)| value.clone()).collect())
            .unwrap_or_default()
    }

    /// Every value whose key begins so.
    #[must_use]
    pub fn all_of(&self, prefix: &str) -> Vec<Arc<T>> {
        let Ok(state) = self.inner.state.read() else { return Vec::new() };
        let of = state.values.iter().filter(|(key, _)| key.starts_with(prefix));
        of.map(|(_, (_, value))| value.clone()).collect()
    }

    /// The value of a key; absent means absent: the table has been read up to the end of the topic as of this call.
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn settled(&self, key: &str, within: Duration) -> Result<Option<Arc<T>>, Failure> {
        match self.get(key) {
            Some(value) => Ok(Some(value)),
            None => self.newest(key, within).await,
        }
    }

    /// The newest value of a key as of this call, or its absence: good enough to refuse with (R2).
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn newest(&self, key: &str, within: Duration) -> Result<Option<Arc<T>>, Failure> {
        let home =
            self.inner.state.read().ok().and_then(|state| state.values.get(key).map(|(partition, _)| *partition));
        let asked = match home {
            Some(partition) => vec![partition],
            None => (0..self.partitions().await?).collect(),
        };
        let mut ends = Vec::new();
        for partition in asked {
            let source = TopicPartition { topic: self.inner.topic.clone(), partition };
            ends.push((partition, self.inner.log.end_offset(&source, Isolation::Committed).await?));
        }
        let until = self.inner.clock.now() + within;
        loop {
            if let Ok(state) = self.inner.state.read() {
                let read = |(p, end): &(u32, Offset)| *end <= state.positions.get(p).copied().unwrap_or_default();
                if ends.iter().all(read) {
                    return Ok(state.values.get(key).map(|(_, value)| value.clone()));
                }
            }
            if self.inner.clock.now() >= until {
                return Err(Failure::Later(format!("the table of {} is behind", self.inner.topic)));
            }
            self.inner.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    async fn partitions(&self) -> Result<u32, Failure> {
        let missing = || Failure::Later(format!("topic {} does not exist yet", self.inner.topic));
        Ok(self.inner.log.topic(&self.inner.topic).await?.ok_or_else(missing)?.partitions)
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
        let partitions = self.partitions().await?;
        let all = (0..partitions)
            .map(|partition| (TopicPartition { topic: self.inner.topic.clone(), partition }, Start::Beginning))
            .collect();
        let mut reader = self.inner.log.assign(all, Isolation::Committed).await?;
        loop {
            match reader.poll(Duration::from_secs(1), 1000).await? {
                Polled::Records(records) => {
                    backoff.reset();
                    let Ok(mut state) = self.inner.state.write() else { return Ok(()) };
                    for record in records {
                        state.positions.insert(record.source.partition, record.offset.next());
                        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                        let Some(key) = key.filter(|key| (self.inner.keep)(key)) else { continue };
                        match record.value.as_deref().map(decode::<T>) {
                            None => {
                                state.values.remove(key);
                            }
                            Some(Ok(value)) => {
                                let partition = record.source.partition;
                                state.values.insert(key.to_owned(), (partition, Arc::new(value)));
                            }
                            Some(Err(error)) => {
                                tracing::warn!(source = %record.source, offset = record.offset.0, %error, "skipped");
                            }
                        }
                    }
                }
                Polled::CaughtUp(partition, position) => {
                    if let Ok(mut state) = self.inner.state.write() {
                        state.positions.insert(partition.partition, position);
                    }
                }
                _ => {}
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
        let append = Append {
            topic: "table".into(),
            partition: None,
            key: Some(Bytes::from_static(b"number/1")),
            value: Some(encode(&record).expect("it fits its schema").into()),
            headers: Vec::new(),
        };
        world.calm_log().appender().await.expect("an appender").append(vec![append]).await.expect("written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_a_newer_one_has_replaced_is_never_the_newest() {
        let world = SimWorld::new(1);
        let spec = TopicSpec { name: "table".into(), partitions: 3, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.expect("a topic");
        let table: Table<DirectoryRecord> = Table::new(world.calm_log(), world.clock(), "table".into(), |_| true);
        let patience = Duration::from_secs(5);
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
}
