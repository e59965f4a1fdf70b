//! Creating topics, and checking those that are there, from the one declaration of [`Topics::listing`].

use std::collections::BTreeMap;
use std::fmt;

use connector_contracts::Topics;
use connector_contracts::topic::{DLQ_SUFFIX, TopicDeclaration};
use connector_ports::Log;
use connector_ports::log::{LogError, MAX_RECORD_BYTES, MAX_TOPIC_BYTES, MIN_TOPIC_BYTES, TopicName, TopicSpec};

/// What was found about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as it should be.
    Right,
    /// Some of its settings are not those that were declared.
    Differs(Vec<Deviation>),
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

/// A setting that is not as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Its name.
    pub setting: String,
    /// The value it has.
    pub found: String,
    /// The value it should have.
    pub wanted: String,
    /// Whether something is lost, or kept in another way than the services rely on. Nobody works on such a topic.
    pub dangerous: bool,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has {}={} where {} is declared", self.setting, self.found, self.wanted)
    }
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
    pub fn usable(&self) -> bool {
        match &self.finding {
            Finding::Right | Finding::Created => true,
            Finding::Differs(deviations) => !deviations.iter().any(|deviation| deviation.dangerous),
            Finding::Missing | Finding::WrongPartitions { .. } => false,
        }
    }

    /// The settings that are not as declared.
    pub fn deviations(&self) -> impl Iterator<Item = &Deviation> {
        let deviations = match &self.finding {
            Finding::Differs(deviations) => deviations.as_slice(),
            Finding::Right | Finding::Missing | Finding::Created | Finding::WrongPartitions { .. } => &[],
        };
        deviations.iter()
    }
}

/// Every topic and dead letter topic as it should be. All have the same number of partitions: one worker reads the same partition
/// of several topics, and a dead letter keeps the partition number of its original.
#[must_use]
pub fn specs(topics: &Topics, partitions: u32, replication: u16) -> Vec<TopicSpec> {
    let declared = topics.listing().into_iter();
    declared
        .map(|topic| TopicSpec {
            settings: settings(&topic, replication)
                .into_iter()
                .chain(topic.delete_retention_ms.map(|ms| ("delete.retention.ms".to_owned(), ms.to_string())))
                .collect(),
            name: topic.name.into(),
            partitions,
            replication,
        })
        .collect()
}

fn settings(topic: &TopicDeclaration, replication: u16) -> Vec<(String, String)> {
    let (cleanup_policy, retention_ms) = (topic.cleanup_policy.as_str(), topic.retention_ms);
    // The largest delivery that WhatsApp sends (3 MiB) may be a single item. A dead letter is a whole record and a bit.
    let most = if topic.dlq { MAX_RECORD_BYTES } else { MAX_TOPIC_BYTES };
    let mut settings = vec![
        ("cleanup.policy".to_owned(), cleanup_policy.to_owned()),
        ("retention.ms".to_owned(), retention_ms.to_string()),
        ("max.message.bytes".to_owned(), most.to_string()),
    ];
    if cleanup_policy == "delete" && retention_ms == -1 {
        settings.push(("retention.bytes".to_owned(), "-1".to_owned()));
    }
    if replication >= 3 {
        // With `acks=all` an acknowledged record then survives the loss of any one broker.
        settings.push(("min.insync.replicas".to_owned(), "2".to_owned()));
    }
    settings
}

/// Why nobody can work on these topics, however long they wait; every reason at once. What is missing may come.
#[must_use]
pub fn refusal(checked: &[Checked]) -> Option<String> {
    let mut reasons = Vec::new();
    for Checked { name, finding } in checked {
        match finding {
            Finding::WrongPartitions { found, wanted } => {
                reasons.push(format!("topic {name} has {found} partitions where PARTITIONS says {wanted}"));
            }
            Finding::Differs(deviations) => {
                let dangerous = deviations.iter().filter(|deviation| deviation.dangerous);
                reasons.extend(dangerous.map(|deviation| format!("topic {name} {deviation}")));
            }
            Finding::Right | Finding::Missing | Finding::Created => {}
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// The settings of a topic that are not those of its declaration.
fn deviations(spec: &TopicSpec, told: &BTreeMap<String, String>) -> Vec<Deviation> {
    let deviates = |(setting, wanted): &(String, String)| {
        let found = told.get(setting).filter(|found| !same(setting, found, wanted))?;
        let dangerous = is_dangerous(spec, setting, found, wanted);
        Some(Deviation { setting: setting.clone(), found: found.clone(), wanted: wanted.clone(), dangerous })
    };
    spec.settings.iter().filter_map(deviates).collect()
}

fn same(setting: &str, found: &str, wanted: &str) -> bool {
    // More than was asked for is as good.
    let at_least = matches!(setting, "max.message.bytes" | "min.insync.replicas" | "delete.retention.ms");
    found == wanted || (at_least && number(found) >= number(wanted))
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// What deletes records that are relied upon, keeps them in another way, or does not take them.
fn is_dangerous(spec: &TopicSpec, setting: &str, found: &str, wanted: &str) -> bool {
    // Not even a batch of small records fits, and no dead letter that tells so.
    if setting == "max.message.bytes" {
        return number(found).is_none_or(|found| usize::try_from(found).is_ok_and(|found| found < MIN_TOPIC_BYTES));
    }
    // They are looked at by people, who come in time or not.
    if spec.name.as_str().ends_with(DLQ_SUFFIX) {
        return false;
    }
    match setting {
        "cleanup.policy" => true,
        // -1 is for ever. Where only the newest of each key is kept, age deletes nothing.
        "retention.ms" | "retention.bytes" => {
            let compacted = spec.settings.iter().any(|(name, value)| name == "cleanup.policy" && value == "compact");
            let longer = number(found) == Some(-1) || (number(wanted) != Some(-1) && number(found) > number(wanted));
            !compacted && !longer
        }
        _ => false,
    }
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
            Some(facts) if facts.partitions == spec.partitions => match log.topic_settings(&spec.name).await {
                Ok(told) => match deviations(spec, &told) {
                    deviations if deviations.is_empty() => Finding::Right,
                    deviations => Finding::Differs(deviations),
                },
                // It may be that we are not allowed to ask; that the topic is there was answered just now.
                Err(error @ LogError::Fatal { .. }) => {
                    tracing::warn!(topic = %spec.name, %error, "the settings of this topic cannot be compared");
                    Finding::Right
                }
                Err(error) => return Err(error),
            },
            Some(facts) => Finding::WrongPartitions { found: facts.partitions, wanted: spec.partitions },
        };
        checked.push(Checked { name: spec.name.clone(), finding });
    }
    Ok(checked)
}

/// Creates what is missing. When any topic cannot be worked on (a wrong number of partitions, a setting that loses records) nothing is created at all: an installation that is
/// half of one size and half of another would be worse than none. Settings of topics that are there are not changed.
///
/// # Errors
/// When the log is away. What was created until then stays; the same call again does the rest.
pub async fn apply(log: &dyn Log, specs: &[TopicSpec]) -> Result<Vec<Checked>, LogError> {
    let mut checked = check(log, specs).await?;
    if refusal(&checked).is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(topic: &str, changed: &[(&str, &str)]) -> Checked {
        let specs = specs(&Topics::default(), 6, 3);
        let spec = specs.iter().find(|spec| spec.name.as_str() == topic).expect("it is declared");
        let mut told: BTreeMap<String, String> = spec.settings.iter().cloned().collect();
        told.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Checked { name: spec.name.clone(), finding: Finding::Differs(deviations(spec, &told)) }
    }

    #[test]
    fn what_loses_records_is_refused_and_the_rest_is_told() {
        const LOG: &str = "whatsapp.conversation.events.v1";
        for (topic, setting, value, refused) in [
            (LOG, "retention.ms", "3600000", true),
            (LOG, "retention.bytes", "1000000000", true),
            (LOG, "cleanup.policy", "compact", true),
            (LOG, "cleanup.policy", "compact,delete", true),
            (LOG, "max.message.bytes", "1048588", false),
            (LOG, "max.message.bytes", "1048587", true),
            ("whatsapp.webhooks.v1.dlq", "max.message.bytes", "4194304", false),
            ("whatsapp.webhooks.v1.dlq", "max.message.bytes", "1000000", true),
            (LOG, "min.insync.replicas", "1", false),
            ("whatsapp.templates.v1", "cleanup.policy", "delete", true),
            ("whatsapp.directory.v1", "cleanup.policy", "compact,delete", true),
            ("whatsapp.directory.v1", "retention.ms", "604800000", false),
            ("whatsapp.dispatch.journal.v1", "retention.ms", "3600000", true),
            ("whatsapp.webhooks.v1", "retention.ms", "-1", false),
            ("whatsapp.webhooks.v1.dlq", "retention.ms", "3600000", false),
        ] {
            let checked = found(topic, &[(setting, value)]);
            assert_eq!(checked.deviations().count(), 1, "{topic} {setting}");
            assert_eq!(refusal(std::slice::from_ref(&checked)).is_some(), refused, "{topic} {setting}={value}");
            assert_eq!(checked.usable(), !refused, "{topic} {setting}={value}");
        }
        for more in [("max.message.bytes", "8388608"), ("min.insync.replicas", "3")] {
            assert_eq!(found(LOG, &[more]).deviations().count(), 0, "{more:?}: more is as good");
        }
        let all =
            [found(LOG, &[("retention.ms", "1")]), found("whatsapp.templates.v1", &[("cleanup.policy", "delete")])];
        let told = refusal(&all).expect("refused");
        for part in [
            "topic whatsapp.conversation.events.v1 has retention.ms=1 where -1 is declared",
            "topic whatsapp.templates.v1 has cleanup.policy=delete where compact is declared",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
