//! The log with faults at every call.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use connector_ports::log::{
    Append, Appended, Consumed, Identity, Isolation, LogError, Membership, Offset, Polled, Position, Start,
    Subscription, TopicFacts, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::{Appender, Log, Reader, Transactor};

use tokio::sync::Mutex;

use crate::world::Process;

pub(crate) struct SimLog {
    pub(crate) process: Process,
}

/// For calls whose result can be unknown.
fn uncertain(point: &'static str, uncertain: bool) -> LogError {
    let reason = format!("simulated at {point}");
    if uncertain { LogError::Uncertain { reason } } else { LogError::Unavailable { reason } }
}

/// For calls that change nothing.
fn unavailable(point: &'static str, _: bool) -> LogError {
    LogError::Unavailable { reason: format!("simulated at {point}") }
}

impl SimLog {
    fn log(&self) -> &impl Log {
        &self.process.shared.log
    }
}

#[async_trait]
impl Log for SimLog {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        let inner = self.process.call("log.subscribe", unavailable, self.log().subscribe(subscription)).await?;
        Ok(Box::new(SimReader { process: self.process.clone(), inner: Mutex::new(inner) }))
    }

    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        let inner = self.process.call("log.assign", unavailable, self.log().assign(partitions, isolation)).await?;
        Ok(Box::new(SimReader { process: self.process.clone(), inner: Mutex::new(inner) }))
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        let inner = self.process.call("log.appender", unavailable, self.log().appender()).await?;
        Ok(Box::new(SimAppender { process: self.process.clone(), inner }))
    }

    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        let inner = self.process.call("log.transactor", uncertain, self.log().transactor(id)).await?;
        Ok(Box::new(SimTransactor { process: self.process.clone(), inner }))
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        self.process.call("log.end_offset", unavailable, self.log().end_offset(partition, isolation)).await
    }

    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        self.process.call("log.begin_offset", unavailable, self.log().begin_offset(partition)).await
    }

    async fn end_offsets(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, LogError> {
        self.process.call("log.end_offsets", unavailable, self.log().end_offsets(partitions, isolation)).await
    }

    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError> {
        self.process.call("log.identity", unavailable, self.log().identity(partition)).await
    }

    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.process.call("log.positions", unavailable, self.log().positions(group, partitions)).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        self.process.call("log.topic", unavailable, self.log().topic(name)).await
    }

    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError> {
        self.process.call("log.topic_settings", unavailable, self.log().topic_settings(name)).await
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.process.call("log.create_topic", uncertain, self.log().create_topic(spec)).await
    }
}

struct SimReader {
    process: Process,
    /// A reader need not be `Sync`; this makes it so for [`Reader::membership`], which borrows it shared.
    inner: Mutex<Box<dyn Reader>>,
}

#[async_trait]
impl Reader for SimReader {
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError> {
        self.process.alive().await;
        if self.process.stumbles() {
            return Err(unavailable("log.poll", false));
        }
        let polled = self.inner.get_mut().poll(wait, max).await;
        self.process.alive().await;
        // What brings nothing to do is no point: there would be no end of them.
        let point = match &polled {
            Ok(Polled::Idle | Polled::CaughtUp(..)) | Err(_) => return polled,
            Ok(Polled::Records(_)) => "log.poll.records",
            Ok(Polled::Assigned(_)) => "log.poll.assigned",
            Ok(Polled::Revoked(_)) => "log.poll.revoked",
            Ok(Polled::Lost(_)) => "log.poll.lost",
        };
        self.process.delivered(point).await;
        polled
    }

    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError> {
        self.process.call("log.seek", unavailable, self.inner.get_mut().seek(partition, to)).await
    }

    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.process.alive().await;
        self.inner.get_mut().pause(partitions).await
    }

    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.process.alive().await;
        self.inner.get_mut().resume(partitions).await
    }

    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.process.call("log.commit", uncertain, self.inner.get_mut().commit(positions)).await
    }

    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.process.call("log.release", uncertain, self.inner.get_mut().release(partitions)).await
    }

    async fn membership(&self) -> Result<Membership, LogError> {
        self.process.alive().await;
        self.inner.lock().await.membership().await
    }

    async fn close(self: Box<Self>) {
        self.process.alive().await;
        self.inner.into_inner().close().await;
    }
}

struct SimAppender {
    process: Process,
    inner: Box<dyn Appender>,
}

#[async_trait]
impl Appender for SimAppender {
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.process.call("log.append", uncertain, self.inner.append(records)).await
    }
}

struct SimTransactor {
    process: Process,
    inner: Box<dyn Transactor>,
}

#[async_trait]
impl Transactor for SimTransactor {
    async fn hold(&mut self, consumed: Consumed) -> Result<(), LogError> {
        self.process.call("transactor.hold", uncertain, self.inner.hold(consumed)).await
    }

    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        self.process.call("transactor.append", uncertain, self.inner.append(records)).await
    }

    /// In two halves, so that something can go wrong between them.
    async fn append_each(
        &mut self,
        mut records: Vec<Append>,
        durable: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Appended>, LogError> {
        let second = records.split_off(records.len().div_ceil(2));
        let (first, mut appended) = (records.len(), self.append(records).await?);
        (0..first).for_each(&mut *durable);
        if !second.is_empty() {
            appended.extend(self.append(second).await?);
            (first..appended.len()).for_each(durable);
        }
        Ok(appended)
    }

    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        self.process.call("transactor.commit", uncertain, self.inner.commit(consumed)).await
    }

    async fn abort(&mut self) -> Result<(), LogError> {
        self.process.call("transactor.abort", uncertain, self.inner.abort()).await
    }
}
