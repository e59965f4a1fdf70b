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
    values: HashMap<String, Arc<T>>,
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
        self.inner.state.read().ok()?.values.get(key).cloned()
    }

    /// Every value.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner.state.read().map(|state| state.values.values().cloned().collect()).unwrap_or_default()
    }

    /// The value of a key, after the table has been read up to the end of the topic as of this call: absent means absent.
    ///
    /// # Errors
    /// `Later` when the table does not catch up within `within`.
    pub async fn settled(&self, key: &str, within: Duration) -> Result<Option<Arc<T>>, Failure> {
        if let Some(value) = self.get(key) {
            return Ok(Some(value));
        }
        let partitions = self.partitions().await?;
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let source = TopicPartition { topic: self.inner.topic.clone(), partition };
            ends.push((partition, self.inner.log.end_offset(&source, Isolation::Committed).await?));
        }
        let until = self.inner.clock.now() + within;
        loop {
            let settled = self.inner.state.read().is_ok_and(|state| {
                ends.iter().all(|(p, end)| *end <= state.positions.get(p).copied().unwrap_or_default())
            });
            if settled {
                return Ok(self.get(key));
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
                                state.values.insert(key.to_owned(), Arc::new(value));
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
