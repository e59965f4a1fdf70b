//! Callbacks of a consumer. They run on the reader's thread, inside its poll, and only take notes: a callback that waited for work
//! to be finished would wait for the thread it runs on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use connector_ports::log::TopicPartition;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::client::Quiet;
use crate::record;

/// What the group wants.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke { partitions: Vec<TopicPartition>, lost: bool },
}

#[derive(Debug, Default)]
pub(super) struct Context {
    quiet: Quiet,
    rebalances: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    events: AtomicU64,
    end: Mutex<Option<i64>>,
}

impl Context {
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on the group gets what it wants at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Counts what `poll` served without returning it: an empty answer with a changed count does not mean an empty queue.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// The position of the end that `poll` has just told.
    pub(super) fn take_end(&self) -> Option<i64> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the brokers and this reader do not accept each other, if that was the last trouble.
    pub(super) fn refusal(&self) -> Option<String> {
        self.quiet.refusal()
    }

    pub(super) fn may_tell(&self, kind: &str) -> bool {
        self.quiet.may_tell(kind)
    }

    fn count(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.count();
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let KafkaError::Global(RDKafkaErrorCode::PartitionEOF) = error {
            // rdkafka's error for the end of a partition has lost topic and position; the text still has the position.
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end_in(reason);
        } else {
            self.quiet.error(error, reason);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.count();
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let partitions = record::partitions(list);
        if self.is_closing() || partitions.is_empty() {
            hand_over(consumer, assign, list);
            return;
        }
        let rebalance = if assign {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke { partitions, lost: consumer.assignment_lost() }
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.count();
    }
}

/// Tells librdkafka that an assignment or a revocation is done.
pub(super) fn hand_over(consumer: &BaseConsumer<Context>, assign: bool, list: &TopicPartitionList) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let result = match (assign, cooperative) {
        (true, true) => consumer.incremental_assign(list),
        (false, true) => consumer.incremental_unassign(list),
        (true, false) => consumer.assign(list),
        (false, false) => consumer.unassign(),
    };
    if let Err(error) = result {
        tracing::debug!(target: "kafka", %error, assign, "the group had moved on already");
    }
}

/// The position in librdkafka's "… reached end of partition at offset 42 (HighwaterMark 42)".
fn end_in(reason: &str) -> Option<i64> {
    reason.split("at offset ").nth(1)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::end_in;

    #[test]
    fn the_position_of_an_end_is_read_from_its_text() {
        let text = "Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 43)";
        assert_eq!(end_in(text), Some(42));
        assert_eq!(end_in("something else"), None);
    }
}
