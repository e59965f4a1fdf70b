//! The log of the fleet, read and written without any of its services.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_contracts::{Contract, Topic, Topics, decode, decode_event, encode};
use connector_domain::command::{DirectoryRecord, JournalEntry};
use connector_domain::event::Recorded;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::log::{Append, Appender, Isolation, Offset, Record, Start, TopicPartition};
use connector_ports::{Log as _, Retry};
use connector_runtime::failure::Failure;
use connector_runtime::replay::replay;

use crate::Outcome;

/// How long a write is repeated while brokers are away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes like an upstream system: again until it is acknowledged, so perhaps twice.
pub struct Publisher {
    log: KafkaLog,
    appender: Box<dyn Appender>,
    patience: Duration,
}

impl Publisher {
    /// Connects when first used.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn open(bootstrap_servers: &str) -> Outcome<Self> {
        let log = KafkaLog::new(KafkaConfig::plaintext(bootstrap_servers));
        let appender = log.appender().await?;
        Ok(Self { log, appender, patience: PATIENCE })
    }

    /// Repeats a write for so long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Publishes records with their keys, and waits until all of them are durable.
    ///
    /// # Errors
    /// When brokers are away for longer than a minute ([`Publisher::patient`]), or refuse.
    pub async fn publish<T: Contract>(&mut self, topic: Topic, records: &[(String, T)]) -> Outcome<()> {
        let append = |(key, value): &(String, T)| {
            Ok(Append {
                topic: Topics::default().name(topic).into(),
                partition: None,
                key: Some(Bytes::from(key.clone())),
                value: Some(encode(value)?.into()),
                headers: Vec::new(),
            })
        };
        self.append(records.iter().map(append).collect::<Outcome<_>>()?).await
    }

    /// Appends records as they are, and waits until all of them are durable.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn append(&mut self, appends: Vec<Append>) -> Outcome<()> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.appender.append(appends.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.retry() == Retry::Never || Instant::now() > deadline => return Err(error.into()),
                Err(error) => {
                    if error.retry() == Retry::Reinitialise {
                        self.appender = self.log.appender().await?;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Publishes directory records under their own keys.
    ///
    /// # Errors
    /// As [`Publisher::publish`], or when a record lacks an id.
    pub async fn register(&mut self, records: Vec<DirectoryRecord>) -> Outcome<()> {
        let keyed = |record: DirectoryRecord| Ok((record.key().ok_or("a record without its ids")?, record));
        let keyed: Vec<_> = records.into_iter().map(keyed).collect::<Outcome<_>>()?;
        self.publish(Topic::Directory, &keyed).await
    }
}

/// Reads the log further each time it is asked.
pub struct Log {
    log: KafkaLog,
    partitions: u32,
    next: BTreeMap<u32, Offset>,
    /// Every event so far: in order per partition.
    events: Vec<Recorded>,
}

impl Log {
    /// The log of these brokers, of which nothing has been read.
    #[must_use]
    pub fn new(bootstrap_servers: &str, partitions: u32) -> Self {
        let log = KafkaLog::new(KafkaConfig::plaintext(bootstrap_servers));
        Self { log, partitions, next: BTreeMap::new(), events: Vec::new() }
    }

    /// Reads what was added and returns all of it: committed events, in order per partition and so per stream.
    ///
    /// # Errors
    /// When brokers are away, or something in the log is no event.
    pub async fn events(&mut self) -> Outcome<&[Recorded]> {
        for number in 0..self.partitions {
            let partition = TopicPartition::new(Topics::default().name(Topic::ConversationEvents), number);
            let from = self.next.get(&number).copied().map_or(Start::Beginning, Start::At);
            let events = &mut self.events;
            let each = |record: Record| {
                let event = decode_event(record.value.as_deref().unwrap_or_default());
                events.push(event.map_err(|error| Failure::Fatal(error.to_string()))?);
                Ok(())
            };
            let next = replay(&self.log, &partition, from, Isolation::Committed, each).await;
            self.next.insert(number, next.map_err(|failure| format!("the log cannot be read: {failure:?}"))?);
        }
        Ok(&self.events)
    }

    /// Every entry of the journal of attempts, whether or not its transaction was committed.
    ///
    /// # Errors
    /// As [`Log::events`].
    pub async fn journal(&self) -> Outcome<Vec<JournalEntry>> {
        let mut entries = Vec::new();
        for number in 0..self.partitions {
            let partition = TopicPartition::new(Topics::default().name(Topic::DispatchJournal), number);
            let each = |record: Record| {
                let entry = decode(record.value.as_deref().unwrap_or_default());
                entries.push(entry.map_err(|error| Failure::Fatal(error.to_string()))?);
                Ok(())
            };
            let read = replay(&self.log, &partition, Start::Beginning, Isolation::Uncommitted, each).await;
            read.map_err(|failure| format!("the journal cannot be read: {failure:?}"))?;
        }
        Ok(entries)
    }

    /// Where a group stands that has not read everything, and what of the log is hidden behind an open transaction, by partition.
    ///
    /// # Errors
    /// When brokers are away.
    pub async fn unfinished(&self, group: &str, topic: Topic) -> Outcome<Vec<String>> {
        let mut lines = Vec::new();
        for number in 0..self.partitions {
            let input = TopicPartition::new(Topics::default().name(topic), number);
            let done = self.log.committed(group, std::slice::from_ref(&input)).await?.first().copied().flatten();
            let end = self.log.end_offset(&input, Isolation::Committed).await?;
            let all = self.log.end_offset(&input, Isolation::Uncommitted).await?;
            if done.unwrap_or_default() < all || end < all {
                lines.push(format!("{input}: {group} at {done:?}, visible to {end:?} of {all:?}"));
            }
            let output = TopicPartition::new(Topics::default().name(Topic::ConversationEvents), number);
            let visible = self.log.end_offset(&output, Isolation::Committed).await?;
            let written = self.log.end_offset(&output, Isolation::Uncommitted).await?;
            if visible < written {
                lines.push(format!("{output}: visible to {visible:?} of {written:?}"));
            }
        }
        Ok(lines)
    }

    /// Reads until `holds` says so of all events.
    ///
    /// # Errors
    /// When that does not happen within `patience`: the text says what was waited for.
    pub async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&[Recorded]) -> bool,
    ) -> Outcome<()> {
        let deadline = Instant::now() + patience;
        while !holds(self.events().await?) {
            if Instant::now() > deadline {
                return Err(format!("waited {patience:?} in vain for {what}").into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}
