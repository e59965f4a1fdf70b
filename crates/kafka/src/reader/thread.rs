//! The thread of a reader: it alone polls librdkafka, hands records over, and does what the caller and the group ask for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use connector_ports::log::{LogError, Offset, Record, Start, TopicName, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::context::{Context, Rebalance, hand_over};
use super::shared::{Shared, cost};
use crate::error;
use crate::record;

/// librdkafka rings when something comes; this is for what it does not ring for, and for a ring that got lost.
const TICK: Duration = Duration::from_millis(50);
/// Records handed over at once.
const BATCH: usize = 500;
/// Questions the thread asks the broker itself. Repeated when they fail, so short.
const QUESTION: Duration = Duration::from_secs(2);

/// What the caller wants.
#[derive(Debug)]
pub(super) enum Command {
    /// The caller has seen its assignment and set its positions: begin.
    Begin,
    Seek {
        partition: TopicPartition,
        to: Start,
        generation: u64,
    },
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    Release(Vec<TopicPartition>),
    Close(oneshot::Sender<()>),
}

/// What the thread hands over.
#[derive(Debug)]
pub(super) enum Item {
    Assigned(Vec<(TopicPartition, u64)>),
    Revoked(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
    Data(Datum),
    Failed(LogError),
}

/// Something of one partition, in order.
#[derive(Debug)]
pub(super) struct Datum {
    pub(super) partition: TopicPartition,
    pub(super) generation: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Records(Vec<Record>),
    End(Offset),
}

pub(super) struct Thread {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) commands: Receiver<Command>,
    pub(super) items: mpsc::UnboundedSender<Item>,
    pub(super) shared: Arc<Shared>,
    pub(super) max_silence: Duration,
    /// Where a member of a group begins without an offset, unless librdkafka's own reset does it.
    pub(super) start: Option<Start>,
    pub(super) state: State,
}

/// What the thread knows of its partitions.
#[derive(Default)]
pub(super) struct State {
    /// Partitions whose records go to the caller, with the mark they carry.
    pub(super) generations: HashMap<TopicPartition, u64>,
    /// Positions still to be set; nothing of these partitions is handed over until then.
    pub(super) seeks: HashMap<TopicPartition, (Start, u64)>,
    /// Assigned, told to the caller, not begun.
    pub(super) assigning: Vec<TopicPartition>,
    /// The caller has seen `assigning`.
    pub(super) begin: bool,
    /// False for a reader without a group until its partitions are assigned.
    pub(super) member: bool,
    pub(super) paused: HashSet<TopicPartition>,
    /// Revoked: all of them, and those the caller has not released yet.
    pub(super) revoking: Option<(Vec<TopicPartition>, HashSet<TopicPartition>)>,
    pub(super) names: HashMap<String, TopicName>,
}

impl Thread {
    pub(super) fn run(mut self) {
        let closed = loop {
            match self.obey() {
                Some(closed) => break closed,
                None if self.turn() => (),
                None => self.shared.bell.wait(TICK),
            }
        };
        self.close();
        drop(self);
        if let Some(closed) = closed {
            closed.send(()).ok();
        }
    }

    /// Does what the caller asked for; `Some` when it is to end.
    fn obey(&mut self) -> Option<Option<oneshot::Sender<()>>> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin) => self.state.begin = true,
                Ok(Command::Seek { partition, to, generation }) => {
                    if self.state.generations.contains_key(&partition) {
                        self.state.seeks.insert(partition, (to, generation));
                    }
                }
                Ok(Command::Pause(partitions)) => {
                    self.quietly("pause", self.consumer.pause(&record::list(&partitions)));
                    self.state.paused.extend(partitions);
                }
                Ok(Command::Resume(partitions)) => {
                    self.state.paused.retain(|partition| !partitions.contains(partition));
                    let ours: Vec<_> =
                        partitions.into_iter().filter(|one| self.state.generations.contains_key(one)).collect();
                    self.quietly("resume", self.consumer.resume(&record::list(&ours)));
                }
                Ok(Command::Release(partitions)) => self.release(&partitions),
                Ok(Command::Close(closed)) => return Some(Some(closed)),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => return Some(None),
            }
        }
    }

    /// One round of polling; false when there is nothing to do for now.
    fn turn(&mut self) -> bool {
        self.assign();
        self.seek();
        // A caller that takes nothing, or is stuck, must lose its partitions: without polls librdkafka leaves the group.
        if self.shared.is_full() || self.shared.silence() > self.max_silence {
            return false;
        }
        let mut batch: Vec<Datum> = Vec::new();
        // Records come in runs of one partition.
        let mut run: Option<(TopicPartition, Option<u64>)> = None;
        let mut count = 0;
        let mut more = true;
        let consumer = Arc::clone(&self.consumer);
        while more && count < BATCH {
            let before = consumer.context().events();
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    count += 1;
                    let (topic, number) = (message.topic(), message.partition());
                    let goes_on = run.as_ref().is_some_and(|(source, _)| {
                        source.topic.as_str() == topic && record::partition_number(source.partition) == number
                    });
                    if !goes_on {
                        let source = self.source(topic, number);
                        let generation = self.current(&source);
                        run = Some((source, generation));
                    }
                    if let Some((source, Some(generation))) = &run {
                        let record = record::record(&message, source.clone());
                        self.shared.sent(cost(&record));
                        match batch.last_mut() {
                            Some(Datum { partition, what: What::Records(records), .. }) if partition == source => {
                                records.push(record);
                            }
                            _ => {
                                let (partition, generation) = (source.clone(), *generation);
                                batch.push(Datum { partition, generation, what: What::Records(vec![record]) });
                            }
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    count += 1;
                    batch.extend(self.ends(partition));
                }
                Some(Err(error)) => self.failed(&error),
                None => more = consumer.context().events() != before,
            }
            if let Some(rebalance) = consumer.context().next_rebalance() {
                batch.drain(..).for_each(|datum| self.hand(Item::Data(datum)));
                self.rebalance(rebalance);
                run = None;
            }
        }
        batch.into_iter().for_each(|datum| self.hand(Item::Data(datum)));
        more
    }

    fn hand(&self, item: Item) {
        // Without a receiver the caller is gone, and the thread ends at the next command.
        self.items.send(item).ok();
    }

    /// The mark of a partition whose records go to the caller right now.
    fn current(&self, partition: &TopicPartition) -> Option<u64> {
        if self.state.seeks.contains_key(partition) {
            return None;
        }
        self.state.generations.get(partition).copied()
    }

    fn source(&mut self, topic: &str, partition: i32) -> TopicPartition {
        let name = match self.state.names.get(topic) {
            Some(name) => name.clone(),
            None => {
                let name = TopicName::from(topic);
                self.state.names.insert(topic.to_owned(), name.clone());
                name
            }
        };
        TopicPartition { topic: name, partition: u32::try_from(partition).unwrap_or(0) }
    }

    /// The ends of partitions that were reached. librdkafka names the number of the partition and a position, not the topic.
    fn ends(&self, number: i32) -> Vec<Datum> {
        let told = self.consumer.context().take_end();
        let positions = self.consumer.position().map(|list| list.to_topic_map()).unwrap_or_default();
        let mut candidates = Vec::new();
        for (partition, generation) in &self.state.generations {
            if record::partition_number(partition.partition) != number || self.state.seeks.contains_key(partition) {
                continue;
            }
            let position = match positions.get(&(partition.topic.as_str().to_owned(), number)) {
                Some(rdkafka::Offset::Offset(position)) => Some(*position),
                _ => None,
            };
            // Nothing read yet, or read up to the told end (control records counted).
            if told.is_none() || position.is_none() || position == told {
                candidates.push((partition, *generation, told.or(position), position.is_some()));
            }
        }
        let only = candidates.len() == 1;
        let mut ends = Vec::new();
        for (partition, generation, end, read) in candidates {
            let Some(end) = end else { continue };
            // Several topics with this partition number may stand at this position: ask whose end it is.
            let is_end = |visible: i64| if read { visible <= end } else { visible == end };
            if only || self.visible_end(partition).is_some_and(is_end) {
                ends.push(Datum { partition: partition.clone(), generation, what: What::End(Offset(end)) });
            }
        }
        ends
    }

    fn visible_end(&self, partition: &TopicPartition) -> Option<i64> {
        let number = record::partition_number(partition.partition);
        self.consumer.fetch_watermarks(partition.topic.as_str(), number, QUESTION).ok().map(|(_, high)| high)
    }

    fn failed(&self, error: &KafkaError) {
        let Some(code) = error::code_of(error) else {
            self.hand(Item::Failed(LogError::Fatal { reason: error.to_string() }));
            return;
        };
        let reason = error.to_string();
        if let Some(refusal) = self.consumer.context().refusal()
            && error::is_refusal(code, &refusal)
        {
            // One broker of several may be the only one: whoever else can be asked decides. The context has told it.
            if self.consumer.fetch_metadata(None, QUESTION).is_err() {
                self.hand(Item::Failed(LogError::Fatal { reason: refusal }));
            }
        } else if error::is_fenced(code) {
            self.hand(Item::Failed(LogError::Fenced { reason }));
        } else if error::is_fatal(code) || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            self.hand(Item::Failed(LogError::Fatal { reason }));
        } else if self.consumer.context().may_tell(&reason) {
            tracing::warn!(target: "kafka", reason, "reading is interrupted; it goes on by itself");
        }
    }

    fn rebalance(&mut self, rebalance: Rebalance) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let marked: Vec<_> = partitions.iter().map(|one| (one.clone(), self.shared.new_generation())).collect();
                self.state.generations.extend(marked.iter().cloned());
                self.state.paused.retain(|paused| !partitions.contains(paused));
                self.state.assigning = partitions;
                self.state.begin = false;
                self.hand(Item::Assigned(marked));
            }
            Rebalance::Revoke { partitions, lost } => {
                for partition in &partitions {
                    self.state.generations.remove(partition);
                    self.state.seeks.remove(partition);
                    self.state.paused.remove(partition);
                }
                if lost {
                    self.unassign(&partitions);
                    self.hand(Item::Lost(partitions));
                } else {
                    self.quietly("pause", self.consumer.pause(&record::list(&partitions)));
                    self.state.revoking = Some((partitions.clone(), partitions.iter().cloned().collect()));
                    self.hand(Item::Revoked(partitions));
                }
            }
        }
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        if let Some((all, waiting)) = &mut self.state.revoking {
            waiting.retain(|partition| !partitions.contains(partition));
            if waiting.is_empty() {
                // All at once: the first call of this kind tells librdkafka that the revocation is done.
                let all = std::mem::take(all);
                self.state.revoking = None;
                self.unassign(&all);
            }
        }
    }

    /// librdkafka never forgets by itself that the application paused a partition: one that comes back would not be read.
    fn unassign(&self, partitions: &[TopicPartition]) {
        let list = record::list(partitions);
        self.quietly("resume", self.consumer.resume(&list));
        hand_over(&self.consumer, false, &list);
    }

    /// Begins the partitions that were assigned, at the positions that were set in between.
    fn assign(&mut self) {
        if self.state.assigning.is_empty() || !self.state.begin {
            return;
        }
        match self.starting_points() {
            Ok(list) => {
                if self.state.member {
                    hand_over(&self.consumer, true, &list);
                } else if let Err(error) = self.consumer.assign(&list) {
                    self.failed(&error);
                }
                for partition in std::mem::take(&mut self.state.assigning) {
                    if let Some((_, generation)) = self.state.seeks.remove(&partition) {
                        self.state.generations.insert(partition, generation);
                    }
                }
                let paused = record::list(&self.state.paused);
                if paused.count() > 0 {
                    self.quietly("pause", self.consumer.pause(&paused));
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn starting_points(&self) -> Result<TopicPartitionList, KafkaError> {
        let committed = match self.start {
            Some(_) => self.consumer.committed_offsets(record::list(&self.state.assigning), QUESTION)?.to_topic_map(),
            None => HashMap::new(),
        };
        let mut list = TopicPartitionList::new();
        for partition in &self.state.assigning {
            let number = record::partition_number(partition.partition);
            let known = committed.get(&(partition.topic.as_str().to_owned(), number));
            let known = matches!(known, Some(rdkafka::Offset::Offset(_)));
            let start = self.state.seeks.get(partition).map(|(start, _)| *start);
            let start = start.or(if known { None } else { self.start });
            let offset = match start {
                Some(start) => self.resolve(partition, start)?,
                None => rdkafka::Offset::Invalid,
            };
            list.add_partition_offset(partition.topic.as_str(), number, offset)?;
        }
        Ok(list)
    }

    fn resolve(&self, partition: &TopicPartition, start: Start) -> Result<rdkafka::Offset, KafkaError> {
        if let Some(offset) = record::plain_start(start) {
            return Ok(offset);
        }
        let Start::Since(moment) = start else { return Ok(rdkafka::Offset::Beginning) };
        let number = record::partition_number(partition.partition);
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(
            partition.topic.as_str(),
            number,
            rdkafka::Offset::Offset(moment.as_millis().max(0)),
        )?;
        let answer = self.consumer.offsets_for_times(asked, QUESTION)?;
        let offset = match answer.elements().first() {
            Some(element) => {
                element.error()?;
                element.offset()
            }
            None => rdkafka::Offset::End,
        };
        Ok(if offset == rdkafka::Offset::Invalid { rdkafka::Offset::End } else { offset })
    }

    /// Sets positions. What cannot be set yet is tried again in the next turn.
    fn seek(&mut self) {
        let waiting: Vec<_> = self.state.seeks.iter().map(|(partition, seek)| (partition.clone(), *seek)).collect();
        for (partition, (to, generation)) in waiting {
            if self.state.assigning.contains(&partition) {
                continue;
            }
            let done = self.resolve(&partition, to).and_then(|offset| {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(
                    partition.topic.as_str(),
                    record::partition_number(partition.partition),
                    offset,
                )?;
                let list = self.consumer.seek_partitions(list, QUESTION)?;
                list.elements().iter().try_for_each(|element| element.error())
            });
            match done {
                Ok(()) => {
                    self.state.seeks.remove(&partition);
                    self.state.generations.insert(partition, generation);
                }
                Err(error) => self.quietly("seek", Err(error)),
            }
        }
    }

    fn quietly(&self, what: &str, result: Result<(), KafkaError>) {
        if let Err(error) = result {
            tracing::debug!(target: "kafka", %error, what, "not possible right now");
        }
    }

    /// Gives everything back and leaves.
    fn close(&mut self) {
        self.consumer.context().close();
        if !self.state.assigning.is_empty() && self.state.member {
            // librdkafka waits for the answer to its assignment before it lets go.
            hand_over(&self.consumer, true, &record::list(&self.state.assigning));
        }
        if let Some((all, _)) = self.state.revoking.take() {
            hand_over(&self.consumer, false, &record::list(all.iter()));
        }
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            match rebalance {
                Rebalance::Assign(partitions) => hand_over(&self.consumer, true, &record::list(&partitions)),
                Rebalance::Revoke { partitions, .. } => hand_over(&self.consumer, false, &record::list(&partitions)),
            }
        }
        if self.consumer.close_queue().is_ok() {
            // Faster than the loop in its own drop, which polls in steps of 100 ms, and not without end as that one.
            let deadline = std::time::Instant::now() + QUESTION;
            while !self.consumer.closed() && std::time::Instant::now() < deadline {
                self.consumer.poll(Duration::from_millis(5));
            }
        }
    }
}
