//! Appends without a transaction: one idempotent producer, shared by many callers, whose records leave together.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connector_ports::log::{Append, Appended, Appender, LogError, Offset, TopicName, TopicPartition};
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::client::Quiet;
use crate::config::KafkaConfig;
use crate::transactor::find_topic;
use crate::{error, record};

pub(crate) struct KafkaAppender {
    /// `None` only while dropping.
    producer: Option<Arc<ThreadedProducer<Reports>>>,
    known: RwLock<HashSet<TopicName>>,
    delivery_timeout: Duration,
}

impl KafkaAppender {
    pub(crate) fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let producer: ThreadedProducer<Reports> =
            config.producer().create_with_context(Reports::default()).map_err(|error| error::of_client(&error))?;
        Ok(Self {
            producer: Some(Arc::new(producer)),
            known: RwLock::default(),
            delivery_timeout: config.delivery_timeout,
        })
    }

    fn producer(&self) -> Result<&Arc<ThreadedProducer<Reports>>, LogError> {
        self.producer.as_ref().ok_or_else(|| LogError::Fatal { reason: "the appender is closed".to_owned() })
    }

    /// Asks for topics not seen before: a missing one is known at once, and the first record need not wait for metadata.
    async fn find_topics(&self, records: &[Append]) -> Result<(), LogError> {
        let unknown: HashSet<TopicName> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let topics = records.chunk_by(|one, next| one.topic == next.topic).map(|same| &same[0].topic);
            topics.filter(|topic| !known.contains(*topic)).cloned().collect()
        };
        for topic in unknown {
            let producer = Arc::clone(self.producer()?);
            let (asked, within) = (topic.clone(), self.delivery_timeout);
            let find = move || {
                find_topic(producer.client(), &asked, within).map_err(|error| producer.context().quiet.explain(error))
            };
            tokio::task::spawn_blocking(find)
                .await
                .map_err(|error| LogError::Unavailable { reason: error.to_string() })??;
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(topic);
        }
        Ok(())
    }

    async fn send(&self, record: &Append, call: &Arc<Call>, index: usize, deadline: Instant) -> Result<(), LogError> {
        loop {
            // Made anew for each attempt: headers of librdkafka must not be held across an await.
            let code = {
                let opaque = Box::new(Waiting { call: Arc::clone(call), index });
                let mut base = BaseRecord::with_opaque_to(record.topic.as_str(), opaque);
                base.partition = record.partition.map(record::partition_number);
                base.key = record.key.as_deref();
                base.payload = record.value.as_deref();
                base.headers = record::headers(record);
                match self.producer()?.send::<[u8], [u8]>(base) {
                    Ok(()) => return Ok(()),
                    Err((error, _)) => error::code_of(&error).unwrap_or(RDKafkaErrorCode::Fail),
                }
            };
            if code != RDKafkaErrorCode::QueueFull {
                return Err(not_delivered(code, record));
            }
            if Instant::now() > deadline {
                return Err(LogError::Unavailable { reason: "the queue to the broker is full".to_owned() });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl Appender for KafkaAppender {
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        record::check(&records)?;
        self.find_topics(&records).await?;
        let deadline = Instant::now() + self.delivery_timeout;
        let (done, all) = oneshot::channel();
        let call = Arc::new(Call {
            missing: AtomicUsize::new(records.len()),
            results: Mutex::new((vec![None; records.len()], Some(done))),
        });
        for (index, record) in records.iter().enumerate() {
            self.send(record, &call, index, deadline).await?;
        }
        // librdkafka reports every record within its own timeout; the bound is for a report that never comes.
        let results = match tokio::time::timeout(self.delivery_timeout * 2, all).await {
            Ok(Ok(results)) => results,
            _ => return Err(LogError::Uncertain { reason: "no delivery report within the bound".to_owned() }),
        };
        let refused = results
            .iter()
            .zip(&records)
            .filter(|(result, _)| matches!(result, Some(Err(RDKafkaErrorCode::MessageSizeTooLarge))));
        if let Some(error) = record::too_large(refused.map(|(_, record)| record)) {
            return Err(error);
        }
        results
            .into_iter()
            .zip(&records)
            .map(|(result, record)| match result {
                Some(Ok((partition, offset))) => Ok(Appended {
                    target: TopicPartition::new(record.topic.clone(), u32::try_from(partition).unwrap_or(0)),
                    offset: Offset(offset),
                }),
                Some(Err(code)) => Err(self.producer()?.context().quiet.add_trouble(not_delivered(code, record))),
                None => Err(LogError::Uncertain { reason: "a delivery report is missing".to_owned() }),
            })
            .collect()
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        // Flushes and joins a thread: not on an async worker.
        let producer = self.producer.take();
        std::thread::spawn(move || drop(producer));
    }
}

fn not_delivered(code: RDKafkaErrorCode, record: &Append) -> LogError {
    let reason = code.to_string();
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            LogError::TooLarge { topic: record.topic.clone(), bytes: record.size() }
        }
        code if error::is_unknown_topic(code) => LogError::UnknownTopic { topic: record.topic.clone() },
        code if error::is_fatal(code) => LogError::Fatal { reason },
        _ => LogError::Unavailable { reason },
    }
}

type Results = Vec<Option<Result<(i32, i64), RDKafkaErrorCode>>>;

/// One call of `append`.
struct Call {
    missing: AtomicUsize,
    results: Mutex<(Results, Option<oneshot::Sender<Results>>)>,
}

/// One record of a call.
struct Waiting {
    call: Arc<Call>,
    index: usize,
}

#[derive(Default)]
struct Reports {
    quiet: Quiet,
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
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error::code_of(error).unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let mut results = waiting.call.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = results.0.get_mut(waiting.index) {
            *slot = Some(result);
        }
        if waiting.call.missing.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = results.1.take()
        {
            done.send(std::mem::take(&mut results.0)).ok();
        }
    }
}
