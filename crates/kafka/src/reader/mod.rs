//! A reader: the async half. The other half is a thread that polls librdkafka ([`thread`]).
//!
//! Records travel in a channel together with the *generation* of their partition: a number that changes at every assignment and
//! every seek. What arrives with an older one is dropped here, so that neither a seek nor a revocation has to wait for the
//! channel to run empty.

mod context;
mod orphans;
pub(crate) mod shared;
mod thread;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector_ports::log::{
    Isolation, LogError, Membership, Offset, Polled, Reader, Record, Start, Subscription, TopicPartition,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::config::KafkaConfig;
use crate::{error, record};
use context::Context;
use shared::{Shared, cost};
use thread::{Command, Datum, Item, State, Thread, What};

/// How long closing may take for the caller; the thread may need longer when the broker is away.
const CLOSE: Duration = Duration::from_secs(5);

/// A fetch that finds nothing is answered after this time, in milliseconds, and only then the end is told: behind the last record stands the
/// marker of its transaction, and librdkafka tells of an end with the answer behind it.
const PROMPT_FETCH_WAIT: &str = "3";

pub(crate) struct KafkaReader {
    /// Kept alive by the thread alone: whoever lets go last must be free to block.
    consumer: Weak<BaseConsumer<Context>>,
    commands: Sender<Command>,
    items: mpsc::UnboundedReceiver<Item>,
    shared: Arc<Shared>,
    request_timeout: Duration,
    inbox: Inbox,
}

/// What arrived and was not delivered yet.
#[derive(Default)]
struct Inbox {
    /// Delivered before any record, so that a revocation is heard at once.
    news: VecDeque<Result<Polled, LogError>>,
    data: VecDeque<Datum>,
    /// Of paused partitions, for when they are resumed.
    held: HashMap<TopicPartition, VecDeque<Datum>>,
    /// The generation that counts.
    generations: HashMap<TopicPartition, u64>,
    paused: HashSet<TopicPartition>,
    /// The caller was told of an assignment; with its next poll reading begins.
    begin: bool,
    /// Why this member was thrown out for good. librdkafka says so once.
    expelled: Option<String>,
}

impl KafkaReader {
    pub(crate) fn subscribe(config: &KafkaConfig, subscription: &Subscription) -> Result<Self, LogError> {
        let reset = if subscription.start == Start::End { "latest" } else { "earliest" };
        let client = config.reader(&subscription.group, subscription.member.as_deref(), Isolation::Committed, reset);
        let start = match subscription.start {
            Start::Beginning | Start::End => None,
            other => Some(other),
        };
        let consumer = Self::client(&client)?;
        let topics: Vec<&str> = subscription.topics.iter().map(|topic| topic.as_str()).collect();
        consumer.0.subscribe(&topics).map_err(|error| error::of_question(&error, None))?;
        let reader = Self::spawn(consumer, config, start, State { member: true, ..State::default() })?;
        if subscription.member.is_some() {
            let Subscription { group, topics, .. } = subscription.clone();
            orphans::watch(config.clone(), group, topics, Arc::downgrade(&reader.shared));
        }
        Ok(reader)
    }

    pub(crate) fn assign(
        config: &KafkaConfig,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
        prompt: bool,
    ) -> Result<Self, LogError> {
        // librdkafka wants a group for its consumer queue; this one is never joined and nothing is committed for it.
        let mut client = config.reader("connector.no-group", None, isolation, "earliest");
        if prompt {
            client.set("fetch.wait.max.ms", PROMPT_FETCH_WAIT);
        }
        let consumer = Self::client(&client)?;
        let mut state = State { begin: true, ..State::default() };
        for (partition, start) in partitions {
            let generation = consumer.1.new_generation();
            state.generations.insert(partition.clone(), generation);
            state.seeks.insert(partition.clone(), (start, generation));
            state.assigning.push(partition);
        }
        Self::spawn(consumer, config, None, state)
    }

    fn client(config: &ClientConfig) -> Result<(BaseConsumer<Context>, Arc<Shared>), LogError> {
        let mut consumer: BaseConsumer<Context> =
            config.create_with_context(Context::default()).map_err(|error| error::of_client(&error))?;
        let shared = Arc::new(Shared::new());
        let bell = Arc::clone(&shared.bell);
        consumer.set_nonempty_callback(move || bell.ring());
        Ok((consumer, shared))
    }

    fn spawn(
        (consumer, shared): (BaseConsumer<Context>, Arc<Shared>),
        config: &KafkaConfig,
        start: Option<Start>,
        state: State,
    ) -> Result<Self, LogError> {
        let consumer = Arc::new(consumer);
        let (commands, receiver) = channel();
        let (sender, items) = mpsc::unbounded_channel();
        let inbox = Inbox { generations: state.generations.clone(), ..Inbox::default() };
        let reader = Self {
            consumer: Arc::downgrade(&consumer),
            commands,
            items,
            shared: Arc::clone(&shared),
            request_timeout: config.request_timeout,
            inbox,
        };
        let max_silence = config.max_poll_interval;
        let thread = Thread { consumer, commands: receiver, items: sender, shared, max_silence, start, state };
        std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| LogError::Fatal { reason: format!("cannot start a thread: {error}") })?;
        Ok(reader)
    }

    fn command(&self, command: Command) {
        // A thread that ended has said why through its items.
        self.commands.send(command).ok();
        self.shared.bell.ring();
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Context>>, LogError> {
        self.consumer.upgrade().ok_or_else(|| LogError::Fatal { reason: "the reader's thread has ended".to_owned() })
    }
}

impl Inbox {
    fn take_in(&mut self, item: Item) {
        match item {
            Item::Assigned(marked) => {
                let partitions: Vec<_> = marked.iter().map(|(partition, _)| partition.clone()).collect();
                partitions.iter().for_each(|partition| self.forget(partition));
                self.generations.extend(marked);
                self.news.push_back(Ok(Polled::Assigned(partitions)));
            }
            Item::Revoked(partitions) => {
                partitions.iter().for_each(|partition| self.forget(partition));
                self.news.push_back(Ok(Polled::Revoked(partitions)));
            }
            Item::Lost(partitions) => {
                partitions.iter().for_each(|partition| self.forget(partition));
                self.news.push_back(Ok(Polled::Lost(partitions)));
            }
            Item::Data(datum) => self.data.push_back(datum),
            Item::Failed(error) => self.news.push_back(Err(error)),
        }
    }

    fn forget(&mut self, partition: &TopicPartition) {
        self.generations.remove(partition);
        self.paused.remove(partition);
        self.held.remove(partition);
    }

    /// The next thing to deliver.
    fn next(&mut self, max: usize, shared: &Shared) -> Option<Result<Polled, LogError>> {
        if let Some(news) = self.news.pop_front() {
            self.begin |= matches!(news, Ok(Polled::Assigned(_)));
            if let Err(LogError::Fenced { reason }) = &news {
                self.expelled = Some(reason.clone());
            }
            return Some(news);
        }
        if let Some(reason) = self.expelled.clone() {
            return Some(Err(LogError::Fenced { reason }));
        }
        let max = max.max(1);
        let mut out: Vec<Record> = Vec::new();
        while out.len() < max
            && let Some(mut datum) = self.data.pop_front()
        {
            let stale = self.generations.get(&datum.partition) != Some(&datum.generation);
            if stale || self.paused.contains(&datum.partition) {
                if let What::Records(records) = &datum.what {
                    shared.taken(records.iter().map(cost).sum());
                }
                if !stale {
                    self.held.entry(datum.partition.clone()).or_default().push_back(datum);
                }
                continue;
            }
            match &mut datum.what {
                What::End(end) if out.is_empty() => return Some(Ok(Polled::CaughtUp(datum.partition, *end))),
                What::End(_) => {
                    self.data.push_front(datum);
                    break;
                }
                What::Records(records) => {
                    let fit = records.len().min(max - out.len());
                    let rest = records.split_off(fit);
                    shared.taken(records.iter().map(cost).sum());
                    out.append(records);
                    if !rest.is_empty() {
                        datum.what = What::Records(rest);
                        self.data.push_front(datum);
                    }
                }
            }
        }
        if out.is_empty() { None } else { Some(Ok(Polled::Records(out))) }
    }

    fn resume(&mut self, partition: &TopicPartition, shared: &Shared) {
        self.paused.remove(partition);
        for datum in self.held.remove(partition).unwrap_or_default().into_iter().rev() {
            if let What::Records(records) = &datum.what {
                shared.sent(records.iter().map(cost).sum());
            }
            self.data.push_front(datum);
        }
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError> {
        self.shared.polled();
        if std::mem::take(&mut self.inbox.begin) {
            self.command(Command::Begin);
        }
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            while let Ok(item) = self.items.try_recv() {
                self.inbox.take_in(item);
            }
            if let Some(polled) = self.inbox.next(max, &self.shared) {
                return polled;
            }
            // Timers have a granularity of a millisecond: one that is over is waited for as well.
            if wait.is_zero() {
                return Ok(Polled::Idle);
            }
            match tokio::time::timeout_at(deadline, self.items.recv()).await {
                Ok(Some(item)) => self.inbox.take_in(item),
                Ok(None) => return Err(LogError::Fatal { reason: "the reader's thread has ended".to_owned() }),
                Err(_) => return Ok(Polled::Idle),
            }
        }
    }

    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError> {
        // Not ours (any more): the news are on their way to the caller.
        if let Some(mark) = self.inbox.generations.get_mut(partition) {
            let generation = self.shared.new_generation();
            *mark = generation;
            self.inbox.held.remove(partition);
            self.command(Command::Seek { partition: partition.clone(), to, generation });
        }
        Ok(())
    }

    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let ours: Vec<_> = partitions.iter().filter(|one| self.inbox.generations.contains_key(*one)).cloned().collect();
        self.inbox.paused.extend(ours.iter().cloned());
        self.command(Command::Pause(ours));
        Ok(())
    }

    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        partitions.iter().for_each(|partition| self.inbox.resume(partition, &self.shared));
        self.command(Command::Resume(partitions.to_vec()));
        Ok(())
    }

    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        if positions.is_empty() {
            return Ok(());
        }
        let consumer = self.consumer()?;
        let positions: Vec<_> = positions.iter().map(|(partition, next)| (partition.clone(), (*next).into())).collect();
        let list = record::positions(&positions)?;
        let deadline = Instant::now() + self.request_timeout;
        let committed = tokio::task::spawn_blocking(move || {
            loop {
                match consumer.commit(&list, CommitMode::Sync) {
                    // The group is between two generations: it takes commits again in a moment.
                    Err(error)
                        if error::code_of(&error) == Some(RDKafkaErrorCode::RebalanceInProgress)
                            && Instant::now() < deadline =>
                    {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    result => return result,
                }
            }
        })
        .await
        .map_err(|error| LogError::Uncertain { reason: error.to_string() })?;
        committed.map_err(|error| error::of_question(&error, None))
    }

    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.command(Command::Release(partitions.to_vec()));
        Ok(())
    }

    async fn membership(&self) -> Result<Membership, LogError> {
        let metadata = self.consumer()?.group_metadata();
        let metadata = metadata.ok_or_else(|| LogError::Fatal { reason: "this reader is in no group".to_owned() })?;
        Ok(Membership(Arc::new(metadata)))
    }

    async fn close(self: Box<Self>) {
        let (closed, done) = oneshot::channel();
        self.command(Command::Close(closed));
        if tokio::time::timeout(CLOSE, done).await.is_err() {
            tracing::warn!(target: "kafka", "a reader is slow to close; it goes on in the background");
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        let (closed, _) = oneshot::channel();
        self.command(Command::Close(closed));
    }
}
