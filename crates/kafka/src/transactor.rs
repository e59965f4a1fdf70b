//! Transactions, each transactional id on a thread of its own, because librdkafka's calls block.
//!
//! Three of its habits are worked around here; together they turn 206 ms per transaction into 5 ms:
//! - rdkafka's `flush`, which `commit_transaction` calls first, polls in blocks of 100 ms that do not end early. Nothing is in
//!   flight when we commit: `append` has waited for every delivery report.
//! - `poll` with a timeout does not return at the first event either, but it serves each event at once: rdkafka's own thread polls, and
//!   who waits for delivery reports is woken by the last of them.
//! - After a commit the broker answers CONCURRENT_TRANSACTIONS for a few milliseconds, and librdkafka then sleeps
//!   `retry.backoff.ms` (see the config), or always 20 ms when the first request of the next transaction adds a partition. A
//!   transaction that begins with `hold` does not: its first request adds offsets.

//!
//! A fourth is no matter of time: it lacks the second part of KIP-890, by which a broker tells requests of one transaction from those of the
//! next. One that was repeated (the network was slow, the broker was away for a moment) may arrive once more, in the midst of what comes after
//! it: a commit of half of it. So a producer ends with the transaction in which a call was repeated or took long. What that transaction was
//! is known; the next call is told that the result is unknown, and its caller opens a transactor anew, whose epoch fences whatever is still
//! under way.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector_ports::log::{Append, Appended, Consumed, LogError, Offset, TopicName, TopicPartition, Transactor};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::{mpsc, oneshot};

use crate::client::Quiet;
use crate::config::KafkaConfig;
use crate::{error, record};

/// Before a call that librdkafka could not take is made again.
const NAP: Duration = Duration::from_micros(200);
/// Longest single attempt of a blocking call; it is repeated within its bound.
const ATTEMPT: Duration = Duration::from_secs(2);

type Reply<T> = oneshot::Sender<Result<T, LogError>>;
/// Takes the places of records that are durable.
type Told = mpsc::UnboundedSender<usize>;

enum Call {
    Hold(Consumed, Reply<()>),
    Append(Vec<Append>, Option<Told>, Reply<Vec<Appended>>),
    Commit(Option<Consumed>, Reply<()>),
    Abort(Reply<()>),
}

/// The async half of a transactor.
pub(crate) struct KafkaTransactor {
    calls: Sender<Call>,
}

impl KafkaTransactor {
    /// Takes over the transactional id.
    pub(crate) async fn open(config: KafkaConfig, id: String) -> Result<Self, LogError> {
        let (calls, receiver) = channel();
        let (opened, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-transactor".to_owned())
            .spawn(move || match Work::open(&config, &id) {
                Ok(mut work) => {
                    opened.send(Ok(())).ok();
                    work.serve(&receiver);
                }
                Err(error) => {
                    opened.send(Err(error)).ok();
                }
            })
            .map_err(|error| LogError::Fatal { reason: format!("cannot start a thread: {error}") })?;
        result.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(Self { calls })
    }

    async fn call<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(call(reply)).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> LogError {
    LogError::Uncertain { reason: "the transactor's thread has ended".to_owned() }
}

#[async_trait]
impl Transactor for KafkaTransactor {
    async fn hold(&mut self, consumed: Consumed) -> Result<(), LogError> {
        self.call(|reply| Call::Hold(consumed, reply)).await
    }

    async fn append(&mut self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.call(|reply| Call::Append(records, None, reply)).await
    }

    /// The broker acknowledges one partition after the other.
    async fn append_each(
        &mut self,
        records: Vec<Append>,
        durable: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Appended>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (told, mut news) = mpsc::unbounded_channel();
        let mut all = pin!(self.call(|reply| Call::Append(records, Some(told), reply)));
        let result = loop {
            tokio::select! {
                biased;
                Some(place) = news.recv() => durable(place),
                result = &mut all => break result,
            }
        };
        while let Ok(place) = news.try_recv() {
            durable(place);
        }
        result
    }

    async fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        self.call(|reply| Call::Commit(consumed, reply)).await
    }

    async fn abort(&mut self) -> Result<(), LogError> {
        self.call(Call::Abort).await
    }
}

/// Delivery reports of the append under way.
#[derive(Default)]
struct Reports {
    quiet: Quiet,
    state: Mutex<Delivered>,
    complete: Condvar,
}

#[derive(Default)]
struct Delivered {
    /// Of which append; reports of an older one are late and no longer wanted.
    append: u64,
    missing: usize,
    told: Option<Told>,
    results: Vec<Option<Result<(i32, i64), RDKafkaErrorCode>>>,
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, Delivered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the last report of the append under way; false when it has not come until then.
    fn all_there(&self, deadline: Instant) -> bool {
        let bound = deadline.saturating_duration_since(Instant::now());
        let waited = self.complete.wait_timeout_while(self.state(), bound, |delivered| delivered.missing > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.missing == 0
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<(u64, usize)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (append, index) = *opaque;
        let mut delivered = self.state();
        if delivered.append == append
            && let Some(slot) = delivered.results.get_mut(index)
            && slot.is_none()
        {
            let result = match result {
                Ok(message) => Ok((message.partition(), message.offset())),
                Err((error, _)) => Err(error::code_of(error).unwrap_or(RDKafkaErrorCode::Fail)),
            };
            *slot = Some(result);
            if let (Ok(_), Some(told)) = (result, &delivered.told) {
                told.send(index).ok();
            }
            delivered.missing -= 1;
            if delivered.missing == 0 {
                self.complete.notify_one();
            }
        }
    }
}

/// Why this transactor cannot be used any more.
#[derive(Clone)]
enum End {
    Fenced(String),
    Uncertain(String),
}

impl End {
    fn error(&self) -> LogError {
        match self.clone() {
            Self::Fenced(reason) => LogError::Fenced { reason },
            Self::Uncertain(reason) => LogError::Uncertain { reason },
        }
    }
}

/// The blocking half.
struct Work {
    producer: ThreadedProducer<Reports>,
    delivery_timeout: Duration,
    transaction_timeout: Duration,
    request_timeout: Duration,
    known: HashSet<TopicName>,
    open: bool,
    /// A call of this transaction was repeated: the producer ends with it.
    repeated: bool,
    end: Option<End>,
}

impl Work {
    fn open(config: &KafkaConfig, id: &str) -> Result<Self, LogError> {
        let producer: ThreadedProducer<Reports> = config
            .transactional(id)
            .create_with_context(Reports::default())
            .map_err(|error| error::of_client(&error))?;
        let work = Self {
            producer,
            delivery_timeout: config.delivery_timeout,
            transaction_timeout: config.transaction_timeout,
            request_timeout: config.request_timeout,
            known: HashSet::new(),
            open: false,
            repeated: false,
            end: None,
        };
        let deadline = Instant::now() + work.request_timeout;
        loop {
            match work.producer.init_transactions(ATTEMPT) {
                Ok(()) => return Ok(work),
                Err(error) => {
                    let code = error::code_of(&error).unwrap_or(RDKafkaErrorCode::Fail);
                    let reason = error.to_string();
                    if error::is_fatal(code) {
                        return Err(LogError::Fatal { reason });
                    }
                    if error::is_fenced(code) {
                        return Err(LogError::Fenced { reason });
                    }
                    if Instant::now() > deadline {
                        return Err(work.producer.context().quiet.explain(LogError::Unavailable { reason }));
                    }
                }
            }
        }
    }

    fn serve(&mut self, calls: &Receiver<Call>) {
        while let Ok(call) = calls.recv() {
            match call {
                Call::Hold(consumed, reply) => drop(reply.send(self.hold(consumed))),
                Call::Append(records, told, reply) => {
                    let appended = self.append(&records, told);
                    // Late reports are told to nobody.
                    self.producer.context().state().told = None;
                    drop(reply.send(appended));
                }
                Call::Commit(consumed, reply) => drop(reply.send(self.commit(consumed))),
                Call::Abort(reply) => drop(reply.send(self.abort())),
            }
        }
        if self.open && self.end.is_none() {
            // Readers need not wait until the broker finds out. Failing is fine: then it will.
            self.abort_within(ATTEMPT).ok();
        }
    }

    fn alive(&self) -> Result<(), LogError> {
        self.end.as_ref().map_or(Ok(()), |end| Err(end.error()))
    }

    fn append(&mut self, records: &[Append], told: Option<Told>) -> Result<Vec<Appended>, LogError> {
        self.alive()?;
        record::check(records)?;
        self.find_topics(records)?;
        self.begin()?;
        let deadline = Instant::now() + self.delivery_timeout + ATTEMPT;
        let append = {
            let mut delivered = self.producer.context().state();
            delivered.append += 1;
            delivered.missing = records.len();
            delivered.told = told;
            delivered.results = vec![None; records.len()];
            delivered.append
        };
        for (index, record) in records.iter().enumerate() {
            self.send(record, append, index, deadline)?;
        }
        if !self.producer.context().all_there(deadline) {
            return Err(self.uncertain("no delivery report within the bound".to_owned()));
        }
        let results = std::mem::take(&mut self.producer.context().state().results);
        let refused = results
            .iter()
            .zip(records)
            .filter(|(result, _)| matches!(result, Some(Err(RDKafkaErrorCode::MessageSizeTooLarge))));
        if let Some(error) = record::too_large(refused.map(|(_, record)| record)) {
            return Err(self.fatal().unwrap_or(error));
        }
        let mut appended = Vec::with_capacity(records.len());
        for (result, record) in results.into_iter().zip(records) {
            match result {
                Some(Ok((partition, offset))) => appended.push(Appended {
                    target: TopicPartition::new(record.topic.clone(), u32::try_from(partition).unwrap_or(0)),
                    offset: Offset(offset),
                }),
                Some(Err(code)) => return Err(self.not_delivered(code, record)),
                None => return Err(self.uncertain("a delivery report is missing".to_owned())),
            }
        }
        Ok(appended)
    }

    /// Asks for topics not seen before: a missing one is known at once, and the first record need not wait for metadata.
    fn find_topics(&mut self, records: &[Append]) -> Result<(), LogError> {
        for record in records {
            if !self.known.contains(&record.topic) {
                find_topic(self.producer.client(), &record.topic, self.request_timeout)?;
                self.known.insert(record.topic.clone());
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        if !self.open {
            self.producer.begin_transaction().map_err(|error| self.broken(&error))?;
            self.open = true;
        }
        Ok(())
    }

    fn send(&mut self, record: &Append, append: u64, index: usize, deadline: Instant) -> Result<(), LogError> {
        let mut base = BaseRecord::with_opaque_to(record.topic.as_str(), Box::new((append, index)));
        base.partition = record.partition.map(record::partition_number);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.headers = record::headers(record);
        loop {
            match self.producer.send::<[u8], [u8]>(base) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if Instant::now() < deadline =>
                {
                    base = again;
                    std::thread::sleep(NAP);
                }
                Err((error, _)) => {
                    let code = error::code_of(&error).unwrap_or(RDKafkaErrorCode::Fail);
                    return Err(self.not_delivered(code, record));
                }
            }
        }
    }

    fn commit(&mut self, consumed: Option<Consumed>) -> Result<(), LogError> {
        self.alive()?;
        let consumed = consumed.filter(|consumed| !consumed.positions.is_empty());
        if !self.open && consumed.is_none() {
            return Ok(());
        }
        if let Some(consumed) = consumed {
            self.hold(consumed)?;
        }
        let deadline = Instant::now() + self.transaction_timeout + ATTEMPT;
        self.settle(deadline);
        self.repeat(deadline, |producer| producer.commit_transaction(ATTEMPT))?;
        self.closed();
        Ok(())
    }

    /// The coordinator of the group refuses a stale generation (KIP-447), and keeps offsets that are pending in a transaction from
    /// everybody who reads them with `read_committed` (UNSTABLE_OFFSET_COMMIT).
    fn hold(&mut self, consumed: Consumed) -> Result<(), LogError> {
        self.alive()?;
        let Some(membership) = consumed.membership.0.downcast_ref::<ConsumerGroupMetadata>() else {
            return Err(LogError::Fatal { reason: "this membership is not of a Kafka reader".to_owned() });
        };
        let list = record::positions(&consumed.positions)?;
        self.begin()?;
        let deadline = Instant::now() + self.transaction_timeout + ATTEMPT;
        self.repeat(deadline, |producer| producer.send_offsets_to_transaction(&list, membership, ATTEMPT))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.alive()?;
        if !self.open {
            return Ok(());
        }
        self.abort_within(self.transaction_timeout)
    }

    fn abort_within(&mut self, bound: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + bound;
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.settle(deadline);
        self.repeat(deadline, |producer| producer.abort_transaction(ATTEMPT))?;
        self.closed();
        Ok(())
    }

    /// The transaction is over, and with it a producer whose requests may still be under way.
    fn closed(&mut self) {
        self.open = false;
        if std::mem::take(&mut self.repeated) {
            let reason = "a call of the transaction before was repeated: a new producer goes on";
            tracing::warn!(target: "kafka", reason);
            self.end = Some(End::Uncertain(reason.to_owned()));
        }
    }

    /// Waits until nothing is in flight, so that no flush finds anything to wait for.
    fn settle(&self, deadline: Instant) {
        while self.producer.flush(Duration::ZERO).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }

    /// Repeats a call as long as librdkafka says that this is safe.
    fn repeat(
        &mut self,
        deadline: Instant,
        call: impl Fn(&ThreadedProducer<Reports>) -> Result<(), KafkaError>,
    ) -> Result<(), LogError> {
        let began = Instant::now();
        let mut again = false;
        let result = loop {
            match call(&self.producer) {
                Ok(()) => break Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    again = true;
                    std::thread::sleep(NAP);
                }
                Err(error) => break Err(self.broken(&error)),
            }
        };
        // librdkafka repeats by itself, too, when a connection breaks.
        let troubled = self.producer.context().quiet.troubled_since(began);
        self.repeated |= again || troubled || began.elapsed() >= ATTEMPT;
        result
    }

    /// The meaning of a failed transaction call, in the order librdkafka asks for: fatal, abortable, anything else.
    fn broken(&mut self, error: &KafkaError) -> LogError {
        let code = error::code_of(error).unwrap_or(RDKafkaErrorCode::Fail);
        let (fatal, abortable) = match error {
            KafkaError::Transaction(error) => (error.is_fatal(), error.txn_requires_abort()),
            _ => (false, false),
        };
        let reason = error.to_string();
        if let Some(error) = self.fatal() {
            return error;
        }
        if error::is_fenced(code) {
            if fatal {
                self.end = Some(End::Fenced(reason.clone()));
            }
            return LogError::Fenced { reason };
        }
        if error::is_fatal(code) {
            return LogError::Fatal { reason };
        }
        if abortable && !fatal {
            return LogError::Aborted { reason };
        }
        self.uncertain(reason)
    }

    /// The meaning of a record that was not delivered.
    fn not_delivered(&mut self, code: RDKafkaErrorCode, record: &Append) -> LogError {
        let reason = code.to_string();
        if let Some(error) = self.fatal() {
            return error;
        }
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => {
                LogError::TooLarge { topic: record.topic.clone(), bytes: record.size() }
            }
            code if error::is_unknown_topic(code) => LogError::UnknownTopic { topic: record.topic.clone() },
            code if error::is_fenced(code) => {
                self.end = Some(End::Fenced(reason.clone()));
                LogError::Fenced { reason }
            }
            code if error::is_fatal(code) => LogError::Fatal { reason },
            RDKafkaErrorCode::MessageTimedOut => self.uncertain(reason),
            _ => LogError::Aborted { reason },
        }
    }

    /// librdkafka gave this producer up: it says so by a fatal error behind whatever error the call itself got.
    fn fatal(&mut self) -> Option<LogError> {
        let (code, reason) = self.producer.client().fatal_error()?;
        let end = if error::is_fenced(code) { End::Fenced(reason) } else { End::Uncertain(reason) };
        let error = end.error();
        self.end = Some(end);
        Some(error)
    }

    fn uncertain(&mut self, reason: String) -> LogError {
        self.end = Some(End::Uncertain(reason.clone()));
        LogError::Uncertain { reason }
    }
}

/// Makes a client learn a topic.
pub(crate) fn find_topic<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &TopicName,
    within: Duration,
) -> Result<(), LogError> {
    let metadata =
        client.fetch_metadata(Some(topic.as_str()), within).map_err(|error| error::of_question(&error, Some(topic)))?;
    let found = metadata.topics().first().is_some_and(|found| {
        let unknown = found.error().is_some_and(|code| error::is_unknown_topic(code.into()));
        !unknown && !found.partitions().is_empty()
    });
    if found { Ok(()) } else { Err(LogError::UnknownTopic { topic: topic.clone() }) }
}
