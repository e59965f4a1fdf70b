//! The place where readers and writers are opened, and questions answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connector_ports::log::{
    Appender, Identity, Isolation, Log, LogError, Offset, Position, Reader, Start, Subscription, TopicFacts, TopicName,
    TopicPartition, TopicSpec, Transactor,
};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::appender::KafkaAppender;
use crate::client::Quiet;
use crate::config::KafkaConfig;
use crate::identity::Identities;
use crate::questions::Questions;
use crate::reader::KafkaReader;
use crate::transactor::KafkaTransactor;
use crate::{error, record};

/// Apache Kafka as the log. Connects when first used.
pub struct KafkaLog {
    config: KafkaConfig,
    questions: Questions,
    identities: Identities,
    admin: Mutex<Option<Arc<AdminClient<Quiet>>>>,
}

impl KafkaLog {
    /// The log behind these settings. Does not talk to the broker yet.
    #[must_use]
    pub fn new(config: KafkaConfig) -> Self {
        Self { config, questions: Questions::default(), identities: Identities::default(), admin: Mutex::default() }
    }

    fn admin(&self) -> Result<Arc<AdminClient<Quiet>>, LogError> {
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = &*admin {
            return Ok(Arc::clone(admin));
        }
        let client: AdminClient<Quiet> = self
            .config
            .questions(Isolation::Committed, None)
            .create_with_context(Quiet::default())
            .map_err(|error| error::of_client(&error))?;
        let client = Arc::new(client);
        *admin = Some(Arc::clone(&client));
        Ok(client)
    }

    /// The number of partitions and whether each has a leader; `None` when the topic does not exist.
    async fn ask_topic(&self, name: &TopicName) -> Result<Option<(u32, bool)>, LogError> {
        record::check_topic(name)?;
        let name = name.clone();
        self.questions
            .ask(&self.config, Isolation::Committed, None, move |client, within| {
                let metadata = match client.fetch_metadata(Some(name.as_str()), within) {
                    Ok(metadata) => metadata,
                    Err(error) => match error::of_question(&error, Some(&name)) {
                        LogError::UnknownTopic { .. } => return Ok(None),
                        error => return Err(error),
                    },
                };
                let Some(topic) = metadata.topics().first() else { return Ok(None) };
                if let Some(code) = topic.error().map(RDKafkaErrorCode::from) {
                    let error = rdkafka::error::KafkaError::MetadataFetch(code);
                    return match error::of_question(&error, Some(&name)) {
                        LogError::UnknownTopic { .. } => Ok(None),
                        error => Err(error),
                    };
                }
                let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
                Ok(Some((u32::try_from(topic.partitions().len()).unwrap_or(0), led)))
            })
            .await
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        subscription.topics.iter().try_for_each(record::check_topic)?;
        Ok(Box::new(KafkaReader::subscribe(&self.config, &subscription)?))
    }

    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        partitions.iter().try_for_each(|(partition, _)| record::check_topic(&partition.topic))?;
        Ok(Box::new(KafkaReader::assign(&self.config, partitions, isolation, false)?))
    }

    async fn follow(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        partitions.iter().try_for_each(|(partition, _)| record::check_topic(&partition.topic))?;
        Ok(Box::new(KafkaReader::assign(&self.config, partitions, isolation, true)?))
    }

    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(KafkaAppender::open(&self.config)?))
    }

    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        Ok(Box::new(KafkaTransactor::open(self.config.clone(), id.to_owned()).await?))
    }

    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        record::check_topic(&partition.topic)?;
        let partition = partition.clone();
        self.questions
            .ask(&self.config, isolation, None, move |client, within| {
                // With read_committed the broker answers the last stable offset instead of the high watermark.
                let number = record::partition_number(partition.partition);
                match client.fetch_watermarks(partition.topic.as_str(), number, within) {
                    Ok((_, high)) => Ok(Offset(high)),
                    Err(error) => Err(error::of_question(&error, Some(&partition.topic))),
                }
            })
            .await
    }

    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        record::check_topic(&partition.topic)?;
        let partition = partition.clone();
        self.questions
            .ask(&self.config, Isolation::Uncommitted, None, move |client, within| {
                let number = record::partition_number(partition.partition);
                match client.fetch_watermarks(partition.topic.as_str(), number, within) {
                    Ok((low, _)) => Ok(Offset(low)),
                    Err(error) => Err(error::of_question(&error, Some(&partition.topic))),
                }
            })
            .await
    }

    async fn end_offsets(&self, partitions: &[TopicPartition], isolation: Isolation) -> Result<Vec<Offset>, LogError> {
        partitions.iter().try_for_each(|partition| record::check_topic(&partition.topic))?;
        let partitions = partitions.to_vec();
        self.questions
            .ask(&self.config, isolation, None, move |client, within| {
                // The end as a moment in time: one request to each broker, whose answers are the last stable offsets with read_committed.
                let failed = |error: &KafkaError| error::of_question(error, partitions.first().map(|one| &one.topic));
                let mut asked = record::list(&partitions);
                asked.set_all_offsets(rdkafka::Offset::End).map_err(|error| failed(&error))?;
                let answer = client.offsets_for_times(asked, within).map_err(|error| failed(&error))?;
                partitions.iter().map(|partition| end_of(&answer, partition)).collect()
            })
            .await
    }

    async fn identity(&self, partition: &TopicPartition) -> Result<Identity, LogError> {
        let missing = || LogError::UnknownTopic { topic: partition.topic.clone() };
        let (partitions, _) = self.ask_topic(&partition.topic).await?.ok_or_else(missing)?;
        self.identities.ask(&self.config, &self.questions, partition, partitions).await
    }

    async fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<Position>>, LogError> {
        let partitions = partitions.to_vec();
        self.questions
            .ask(&self.config, Isolation::Committed, Some(group), move |client, within| {
                let answer = client
                    .committed_offsets(record::list(&partitions), within)
                    .map_err(|error| error::of_question(&error, partitions.first().map(|one| &one.topic)))?;
                partitions.iter().map(|partition| committed_of(&answer, partition)).collect()
            })
            .await
    }

    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        Ok(self.ask_topic(name).await?.map(|(partitions, _)| TopicFacts { partitions }))
    }

    async fn topic_settings(&self, name: &TopicName) -> Result<BTreeMap<String, String>, LogError> {
        record::check_topic(name)?;
        let options = AdminOptions::new().request_timeout(Some(self.config.request_timeout));
        let admin = self.admin()?;
        let explain = |error| admin.inner().context().explain(error::of_question(&error, Some(name)));
        let answers =
            admin.describe_configs([&ResourceSpecifier::Topic(name.as_str())], &options).await.map_err(explain)?;
        let mut settings = BTreeMap::new();
        for answer in answers {
            let answer = answer.map_err(|code| explain(rdkafka::error::KafkaError::AdminOp(code)))?;
            settings.extend(answer.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
        }
        // Every topic has settings; of one that is not there nothing is told, and no error.
        if settings.is_empty() && self.ask_topic(name).await?.is_none() {
            return Err(LogError::UnknownTopic { topic: name.clone() });
        }
        Ok(settings)
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        record::check_topic(&spec.name)?;
        let replication = TopicReplication::Fixed(i32::from(spec.replication));
        let mut topic = NewTopic::new(spec.name.as_str(), record::partition_number(spec.partitions), replication);
        for (name, value) in &spec.settings {
            topic = topic.set(name, value);
        }
        let within = self.config.request_timeout;
        let options = AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within));
        let admin = self.admin()?;
        let results = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|error| admin.inner().context().explain(error::of_question(&error, None)))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => (),
                Err((_, code)) => {
                    let error = rdkafka::error::KafkaError::AdminOp(code);
                    return Err(error::of_question(&error, None));
                }
            }
        }
        // The controller has answered; the brokers hear of it a moment later.
        let deadline = tokio::time::Instant::now() + within;
        while !self.ask_topic(&spec.name).await?.is_some_and(|(_, led)| led) {
            if tokio::time::Instant::now() > deadline {
                return Err(LogError::Unavailable { reason: format!("topic {} has no leaders yet", spec.name) });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// What an answer says of one partition. A partition can fail by itself (such as `UNSTABLE_OFFSET_COMMIT`): that is not "never
/// committed", which would send its reader back to the beginning.
fn committed_of(answer: &TopicPartitionList, partition: &TopicPartition) -> Result<Option<Position>, LogError> {
    let number = record::partition_number(partition.partition);
    let unanswered = || LogError::Unavailable { reason: format!("no committed position of {partition} was told") };
    let told = answer.find_partition(partition.topic.as_str(), number).ok_or_else(unanswered)?;
    told.error().map_err(|error| error::of_question(&error, Some(&partition.topic)))?;
    match told.offset() {
        rdkafka::Offset::Offset(offset) => {
            Ok(Some(Position { next: Offset(offset), landmark: record::landmark_of(&told) }))
        }
        rdkafka::Offset::Invalid => Ok(None),
        _ => Err(unanswered()),
    }
}

/// What an answer says of the end of one partition.
fn end_of(answer: &TopicPartitionList, partition: &TopicPartition) -> Result<Offset, LogError> {
    let number = record::partition_number(partition.partition);
    let unanswered = || LogError::Unavailable { reason: format!("no end of {partition} was told") };
    let told = answer.find_partition(partition.topic.as_str(), number).ok_or_else(unanswered)?;
    told.error().map_err(|error| error::of_question(&error, Some(&partition.topic)))?;
    match told.offset() {
        rdkafka::Offset::Offset(offset) => Ok(Offset(offset)),
        _ => Err(unanswered()),
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // Joins a thread: not on an async worker.
        let admin = self.admin.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        std::thread::spawn(move || drop(admin));
    }
}
