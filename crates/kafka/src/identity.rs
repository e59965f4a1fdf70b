//! Which log the partitions of a topic are.
//!
//! librdkafka does not tell topic ids (KIP-516) to its Rust binding. What stands for one is what cannot be the same in another topic: the
//! cluster's id and the first record with the moment it was written. A topic that is kept for ever keeps its first record.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use connector_ports::log::{
    Identity, Isolation, LogError, LogId, Offset, Polled, Reader, Start, TopicName, TopicPartition,
};
use tokio::sync::Mutex;

use crate::config::KafkaConfig;
use crate::questions::Questions;
use crate::reader::KafkaReader;

/// Whoever takes partitions over asks for one after the other: for so long one answer is for all of them.
const FRESH: Duration = Duration::from_secs(2);

/// One poll.
const TICK: Duration = Duration::from_millis(100);

/// Of the partitions of a topic.
type OfTopic = BTreeMap<u32, Identity>;

#[derive(Default)]
pub(crate) struct Identities(Mutex<HashMap<TopicName, (Instant, OfTopic)>>);

impl Identities {
    pub(crate) async fn ask(
        &self,
        config: &KafkaConfig,
        questions: &Questions,
        partition: &TopicPartition,
        partitions: u32,
    ) -> Result<Identity, LogError> {
        let mut kept = self.0.lock().await;
        let found = kept.get(&partition.topic).filter(|(at, _)| at.elapsed() < FRESH);
        // What is unwritten now may be written in a moment.
        match found.and_then(|(_, identities)| identities.get(&partition.partition)) {
            Some(Identity::Unwritten) | None => {}
            Some(known) => return Ok(known.clone()),
        }
        let asked = Instant::now();
        let identities = read(config, questions, &partition.topic, partitions).await?;
        let identity = identities.get(&partition.partition).cloned();
        kept.insert(partition.topic.clone(), (asked, identities));
        identity.ok_or_else(|| LogError::UnknownTopic { topic: partition.topic.clone() })
    }
}

async fn read(
    config: &KafkaConfig,
    questions: &Questions,
    topic: &TopicName,
    partitions: u32,
) -> Result<OfTopic, LogError> {
    let cluster = questions
        .ask(config, Isolation::Committed, None, |client, within| {
            let away = || LogError::Unavailable { reason: "the id of the cluster was not told".to_owned() };
            rdkafka::consumer::Consumer::client(client).fetch_cluster_id(within).ok_or_else(away)
        })
        .await?;
    let all = (0..partitions).map(|number| (TopicPartition::new(topic.clone(), number), Start::Beginning)).collect();
    // What was aborted counts: it stays where it is, and is the first for ever.
    let mut reader = Box::new(KafkaReader::assign(config, all, Isolation::Uncommitted, false)?);
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + config.request_timeout;
    let result = loop {
        if found.len() >= partitions as usize {
            break Ok(found);
        }
        if Instant::now() > deadline {
            break Err(LogError::Unavailable { reason: format!("the first records of {topic} were not told in time") });
        }
        match reader.poll(TICK, 1000).await {
            Ok(Polled::Records(records)) => {
                for record in records {
                    let number = record.source.partition;
                    found.entry(number).or_insert_with(|| match record.offset {
                        Offset(0) => {
                            Identity::Known(LogId::from(format!("{cluster}:{number}:{}", record.timestamp.as_millis())))
                        }
                        first => Identity::BeginningLost { first },
                    });
                }
            }
            Ok(Polled::CaughtUp(source, end)) => {
                // Positions without a record: what was there is gone, or has been the end of a transaction only.
                found.entry(source.partition).or_insert(match end {
                    Offset(0) => Identity::Unwritten,
                    first => Identity::BeginningLost { first },
                });
            }
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    reader.close().await;
    result
}
