//! The promises of R4, each broken on purpose by something put between the sender and its ports or its loop. The checker of
//! `crashes.rs` has to notice each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::Topic;
use connector_domain::command::NumberState;
use connector_domain::ids::{OrganizationId, PhoneNumberId, WabaId};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, Transport};
use connector_domain::template::Template;
use connector_ports::log::{
    Append, Appended, Consumed, Identity, Isolation, LogError, Membership, Offset, Polled, Position, Record, Start,
    Subscription, TopicFacts, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::whatsapp::{BusinessProfile, Outbound, WhatsAppError};
use connector_ports::{Appender, Log, Reader, Transactor, WhatsApp};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Order, Step, TakeUp};
use connector_runtime::lanes::{LaneKey, QueueKey, Work};
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;
use outbound_sender::Config;
use outbound_sender::admit::Admit;
use outbound_sender::dispatch::Dispatcher;
use outbound_sender::tables::Tables;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The attempt is written down when its answer is there.
    JournalAfterSend,
    /// An answer that says nothing is taken for a refusal that may be tried again.
    RetryOnServerErrors,
    /// Who lost a partition does not hear of it, and nobody refuses what it writes.
    NoFencing,
    /// The loop forgets what came of the first attempt of each message, as when it has to leave its group. No promise of the sender's:
    /// nothing may be violated.
    ForgottenAnswers,
}

/// The sender as `outbound_sender::start` makes it, but for the mutation.
pub(crate) fn start(mutation: Option<Mutation>, config: Config, whatsapp: Arc<dyn WhatsApp>, service: &mut Service) {
    if !matches!(mutation, Some(Mutation::JournalAfterSend | Mutation::ForgottenAnswers)) {
        let careless = mutation == Some(Mutation::RetryOnServerErrors);
        let whatsapp = if careless { Arc::new(Careless(whatsapp)) } else { whatsapp };
        return outbound_sender::start(config, whatsapp, service);
    }
    let platform = service.platform().clone();
    let tables = Tables::new(&platform);
    tables.follow(service);
    let spec = |name: &'static str, topic: Topic| {
        WorkerSpec::new(name, name.to_owned(), vec![platform.topic(topic)], platform.instance.clone())
    };
    service.worker(spec("outbound-sender.admit", Topic::SendCommands), Admit::new(&platform, tables.clone()));
    let dispatcher = Dispatcher::new(&platform, &config, whatsapp, tables);
    let spec = spec("outbound-sender.dispatch", Topic::Dispatch);
    if mutation == Some(Mutation::JournalAfterSend) {
        service.worker(spec, JournalAfter { inner: dispatcher, held: HashMap::new() });
    } else {
        service.worker(spec, Forgetful { inner: dispatcher, forgotten: HashSet::new() });
    }
}

/// The log of a process that knows no fence.
pub(crate) fn unfenced(log: Arc<dyn Log>) -> Arc<dyn Log> {
    Arc::new(Unfenced(log))
}

struct JournalAfter<H> {
    inner: H,
    /// What should have been written before the effect, by the record's place.
    held: HashMap<(TopicPartition, Offset), Vec<Append>>,
}

fn place(work: &Work) -> (TopicPartition, Offset) {
    (work.record.source.clone(), work.record.offset)
}

#[async_trait]
impl<H: Handler> Handler for JournalAfter<H> {
    type Fact = H::Fact;

    fn order(&self) -> Order {
        self.inner.order()
    }

    fn lane(&self, record: &Record) -> LaneKey {
        self.inner.lane(record)
    }

    fn queue(&self, record: &Record) -> QueueKey {
        self.inner.queue(record)
    }

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.inner.assigned(partition, committed).await
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.inner.revoked(partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<Self::Fact>>, Failure> {
        let mut steps = self.inner.handle(work).await?;
        for (work, step) in work.iter().zip(&mut steps) {
            if let Step::Effect { journal, .. } = step {
                self.held.insert(place(work), std::mem::take(journal));
            }
        }
        Ok(steps)
    }

    async fn conclude(&mut self, work: &Work, fact: Self::Fact) -> Result<Step<Self::Fact>, Failure> {
        let mut step = self.inner.conclude(work, fact).await?;
        if let Step::Done(appends) | Step::Wait { appends, .. } = &mut step {
            let late = self.held.remove(&place(work)).unwrap_or_default();
            appends.splice(0..0, late);
        }
        Ok(step)
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.inner.committed(appended, positions).await
    }
}

struct Forgetful<H> {
    inner: H,
    forgotten: HashSet<(TopicPartition, Offset)>,
}

#[async_trait]
impl<H: Handler> Handler for Forgetful<H> {
    type Fact = H::Fact;

    fn order(&self) -> Order {
        self.inner.order()
    }

    fn lane(&self, record: &Record) -> LaneKey {
        self.inner.lane(record)
    }

    fn queue(&self, record: &Record) -> QueueKey {
        self.inner.queue(record)
    }

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.inner.assigned(partition, committed).await
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.inner.revoked(partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<Self::Fact>>, Failure> {
        self.inner.handle(work).await
    }

    async fn conclude(&mut self, work: &Work, fact: Self::Fact) -> Result<Step<Self::Fact>, Failure> {
        if self.forgotten.insert(place(work)) {
            return Err(Failure::Reinitialise("forgotten on purpose".to_owned()));
        }
        self.inner.conclude(work, fact).await
    }

    async fn committed(
        &mut self,
        appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.inner.committed(appended, positions).await
    }
}

struct Careless(Arc<dyn WhatsApp>);

#[async_trait]
impl WhatsApp for Careless {
    fn longest_send(&self) -> Duration {
        self.0.longest_send()
    }

    async fn send(&self, outbound: &Outbound) -> Exchange {
        let exchange = self.0.send(outbound).await;
        match exchange.answer {
            Answer::Http { status: 500.., .. } => {
                Exchange { left: BytesLeft::No, answer: Answer::Transport(Transport::Other) }
            }
            _ => exchange,
        }
    }

    async fn templates(&self, organization: &OrganizationId, waba: &WabaId) -> Result<Vec<Template>, WhatsAppError> {
        self.0.templates(organization, waba).await
    }

    async fn number_state(&self, number: &PhoneNumberId) -> Result<NumberState, WhatsAppError> {
        self.0.number_state(number).await
    }

    async fn profile(&self, number: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError> {
        self.0.profile(number).await
    }

    async fn set_profile(&self, number: &PhoneNumberId, profile: &BusinessProfile) -> Result<(), WhatsAppError> {
        self.0.set_profile(number, profile).await
    }
}

struct Unfenced(Arc<dyn Log>);

#[async_trait]
impl Log for Unfenced {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        let inner = self.0.subscribe(subscription).await?;
        let membership = inner.membership().await?;
        Ok(Box::new(Deaf { membership, inner: Mutex::new(inner), deaf_until: None }))
    }

    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.0.assign(partitions, isolation).await
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.0.appender().await
    }

    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        Ok(Box::new(Unheld { inner: self.0.transactor(id).await?, free: self.0.appender().await?, fenced: false }))
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        self.0.end_offset(partition, isolation).await
    }

    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        self.0.begin_offset(partition).await
    }

    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError> {
        self.0.identity(partition).await
    }

    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        self.0.positions(group, partitions).await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        self.0.topic(name).await
    }

    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError> {
        self.0.topic_settings(name).await
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.0.create_topic(spec).await
    }
}

/// How long nothing of the group is heard after partitions were lost.
const DEAF: Duration = Duration::from_secs(5);

/// A reader that does not say that partitions are lost.
struct Deaf {
    /// A reader need not be `Sync`; this makes it so for [`Reader::membership`], which borrows this one shared.
    inner: Mutex<Box<dyn Reader>>,
    membership: Membership,
    deaf_until: Option<Instant>,
}

#[async_trait]
impl Reader for Deaf {
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError> {
        if self.deaf_until.is_some_and(|until| Instant::now() < until) {
            tokio::time::sleep(wait).await;
            return Ok(Polled::Idle);
        }
        match self.inner.get_mut().poll(wait, max).await? {
            Polled::Lost(_) => {
                self.deaf_until = Some(Instant::now() + DEAF);
                Ok(Polled::Idle)
            }
            Polled::Assigned(partitions) => {
                self.membership = self.inner.get_mut().membership().await?;
                Ok(Polled::Assigned(partitions))
            }
            polled => Ok(polled),
        }
    }

    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError> {
        self.inner.get_mut().seek(partition, to).await
    }

    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.get_mut().pause(partitions).await
    }

    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.get_mut().resume(partitions).await
    }

    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.inner.get_mut().commit(positions).await
    }

    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.get_mut().release(partitions).await
    }

    async fn membership(&self) -> Result<Membership, LogError> {
        Ok(self.membership.clone())
    }

    async fn close(self: Box<Self>) {
        self.inner.into_inner().close().await;
    }
}

/// A transactor that writes all the same when it is refused as a former owner.
struct Unheld {
    inner: Box<dyn Transactor>,
    free: Box<dyn Appender>,
    fenced: bool,
}

impl Unheld {
    fn unheard(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        match result {
            Err(LogError::Fenced { .. }) => {
                self.fenced = true;
                Ok(())
            }
            other => other,
        }
    }
}

#[async_trait]
impl Transactor for Unheld {
    async fn hold(&mut self, consumed: Consumed) -> Result<(), LogError> {
        let held = self.inner.hold(consumed).await;
        self.unheard(held)
    }

    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        if self.fenced { self.free.append(records).await } else { self.inner.append(records).await }
    }

    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        let committed = self.inner.commit(consumed).await;
        let committed = self.unheard(committed);
        self.fenced = false;
        committed
    }

    async fn abort(&mut self) -> Result<(), LogError> {
        self.inner.abort().await
    }
}
