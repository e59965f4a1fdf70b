//! Creating topics, and checking those that are there, from the one declaration of [`Topics::listing`].

use connector_contracts::Topics;
use connector_ports::Log;
use connector_ports::log::{LogError, TopicName, TopicSpec};

/// What every topic takes in one record or batch: the largest delivery that WhatsApp sends (3 MiB) may be a single item.
const MAX_MESSAGE_BYTES: usize = 4_194_304;

/// What was found about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as it should be.
    Right,
    /// It is not there.
    Missing,
    /// It was not there and has been created.
    Created,
    /// It has another number of partitions. Nothing changes that: keys would move to other partitions and lose their order.
    WrongPartitions {
        /// How many it has.
        found: u32,
        /// How many it should have.
        wanted: u32,
    },
}

/// One topic and what was found about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The topic.
    pub name: TopicName,
    /// What was found.
    pub finding: Finding,
}

impl Checked {
    /// Whether the installation can work with this topic as it is now.
    #[must_use]
    pub const fn usable(&self) -> bool {
        matches!(self.finding, Finding::Right | Finding::Created)
    }
}

/// Every topic and dead letter topic as it should be. All have the same number of partitions: one worker reads the same partition
/// of several topics, and a dead letter keeps the partition number of its original.
#[must_use]
pub fn specs(topics: &Topics, partitions: u32, replication: u16) -> Vec<TopicSpec> {
    let declared = topics.listing().into_iter();
    declared
        .map(|topic| TopicSpec {
            name: topic.name.into(),
            partitions,
            replication,
            settings: settings(&topic.cleanup_policy, topic.retention_ms, replication),
        })
        .collect()
}

fn settings(cleanup_policy: &str, retention_ms: i64, replication: u16) -> Vec<(String, String)> {
    let mut settings = vec![
        ("cleanup.policy".to_owned(), cleanup_policy.to_owned()),
        ("retention.ms".to_owned(), retention_ms.to_string()),
        ("max.message.bytes".to_owned(), MAX_MESSAGE_BYTES.to_string()),
    ];
    if replication >= 3 {
        // With `acks=all` an acknowledged record then survives the loss of any one broker.
        settings.push(("min.insync.replicas".to_owned(), "2".to_owned()));
    }
    settings
}

/// Looks at every topic and changes nothing.
///
/// # Errors
/// When the log is away.
pub async fn check(log: &dyn Log, specs: &[TopicSpec]) -> Result<Vec<Checked>, LogError> {
    let mut checked = Vec::with_capacity(specs.len());
    for spec in specs {
        let finding = match log.topic(&spec.name).await? {
            None => Finding::Missing,
            Some(facts) if facts.partitions == spec.partitions => Finding::Right,
            Some(facts) => Finding::WrongPartitions { found: facts.partitions, wanted: spec.partitions },
        };
        checked.push(Checked { name: spec.name.clone(), finding });
    }
    Ok(checked)
}

/// Creates what is missing. When any topic has a wrong number of partitions nothing is created at all: an installation that is
/// half of one size and half of another would be worse than none.
///
/// # Errors
/// When the log is away. What was created until then stays; the same call again does the rest.
pub async fn apply(log: &dyn Log, specs: &[TopicSpec]) -> Result<Vec<Checked>, LogError> {
    let mut checked = check(log, specs).await?;
    if checked.iter().any(|topic| matches!(topic.finding, Finding::WrongPartitions { .. })) {
        return Ok(checked);
    }
    for (topic, spec) in checked.iter_mut().zip(specs) {
        if topic.finding == Finding::Missing {
            log.create_topic(spec).await?;
            topic.finding = Finding::Created;
        }
    }
    Ok(checked)
}
