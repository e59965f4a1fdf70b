//! What the loop tells about itself: metrics per group, and one span per batch that links the traces of its records.

use std::collections::HashMap;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{Record, TopicName, TopicPartition};
use connector_telemetry::metrics::{Rebalance, TransactionResult, Word, Worker};
use connector_telemetry::{link_from, semconv};
use tracing::Span;

use super::partitions::Partitions;
use crate::failure::Failure;
use crate::lanes::Work;

/// How often the backlog is reported.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Meters {
    worker: Worker,
    topics: HashMap<TopicName, Word>,
    reported: Timestamp,
}

impl Meters {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker, topics: HashMap::new(), reported: Timestamp::EPOCH }
    }

    fn topic(&mut self, topic: &TopicName) -> Word {
        self.topics.entry(topic.clone()).or_insert_with(|| Word::from(topic.as_str())).clone()
    }

    pub(crate) fn polled(&mut self, records: &[Record]) {
        for same in records.chunk_by(|a, b| a.source.topic == b.source.topic) {
            let topic = self.topic(&same[0].source.topic);
            self.worker.polled(&topic, same.len() as u64);
        }
    }

    pub(crate) fn batch(&self, took: Duration) {
        self.worker.batch_finished(took);
    }

    pub(crate) fn handled(&mut self, partition: &TopicPartition) {
        let topic = self.topic(&partition.topic);
        self.worker.handled(&topic, 1);
    }

    pub(crate) fn dead_lettered(&mut self, partition: &TopicPartition, reason: &'static str) {
        let topic = self.topic(&partition.topic);
        self.worker.dead_lettered(&topic, reason);
    }

    pub(crate) fn lost(&mut self, partition: &TopicPartition, records: i64) {
        let topic = self.topic(&partition.topic);
        self.worker.lost(&topic, records.unsigned_abs());
    }

    pub(crate) fn made_anew(&mut self, partition: &TopicPartition) {
        let topic = self.topic(&partition.topic);
        self.worker.made_anew(&topic);
    }

    pub(crate) fn transaction(&self, result: &Result<(), Failure>, took: Duration) {
        let result = match result {
            Ok(()) => TransactionResult::Committed,
            Err(Failure::Fenced(_)) => TransactionResult::Fenced,
            Err(Failure::Reinitialise(_) | Failure::Later(_)) => TransactionResult::Uncertain,
            Err(Failure::Fatal(_)) => TransactionResult::Aborted,
        };
        self.worker.transaction_ended(result, took);
    }

    pub(crate) fn rebalanced(&self, kind: Rebalance, assigned: usize) {
        self.worker.rebalanced(kind, assigned);
    }

    pub(crate) fn paused(&self, partitions: usize) {
        self.worker.paused(partitions);
    }

    pub(crate) fn forget(&mut self, partition: &TopicPartition) {
        let topic = self.topic(&partition.topic);
        self.worker.forget(&topic, partition.partition);
    }

    /// Once a second: what is delivered and not finished, and how old the oldest of it is.
    pub(crate) fn backlog(&mut self, partitions: &Partitions, now: Timestamp) {
        if now.since(self.reported) < EVERY {
            return;
        }
        self.reported = now;
        let waiting = partitions.iter().map(|(_, partition)| (partition.lanes.queued(), partition.lanes.aside()));
        let (in_hand, aside) = waiting.fold((0, 0), |(a, b), (in_hand, aside)| (a + in_hand, b + aside));
        self.worker.waiting(in_hand, aside);
        for (name, partition) in partitions.iter() {
            let oldest = partition.ledger.oldest().map_or(Duration::ZERO, |written| now.since(written));
            let topic = self.topic(&name.topic);
            self.worker.backlog(&topic, name.partition, partition.ledger.open() as u64, oldest);
        }
    }
}

/// The span of a batch. Its records come from many traces, so they are linked and none is the parent.
pub(crate) fn batch_span(group: &str, work: &[Work]) -> Span {
    let topic = work.first().map_or("", |work| work.record.source.topic.as_str());
    let span = tracing::info_span!(
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        { semconv::MESSAGING_SYSTEM } = semconv::KAFKA,
        { semconv::MESSAGING_OPERATION_TYPE } = semconv::OPERATION_PROCESS,
        { semconv::MESSAGING_DESTINATION_NAME } = topic,
        { semconv::MESSAGING_CONSUMER_GROUP_NAME } = group,
        { semconv::MESSAGING_BATCH_MESSAGE_COUNT } = work.len(),
    );
    if !span.is_disabled() {
        let parents = work.iter().filter_map(|work| work.record.header(semconv::TRACEPARENT));
        link_from(parents.filter_map(|value| std::str::from_utf8(value).ok()), &span);
    }
    span
}
