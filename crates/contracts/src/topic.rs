//! The topics, declared once. The services, `connectorctl topics`, the chart and the documentation all read this.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A topic of the connector. Each one has a dead-letter topic beside it ([`Topics::dlq`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// What Meta delivered, one record per item ([`connector_domain::command::WebhookItem`]).
    Webhooks,
    /// What upstream systems want sent ([`connector_domain::command::SendMessage`]).
    SendCommands,
    /// What upstream systems ask about consent ([`connector_domain::command::ConsentCommand`]).
    ConsentCommands,
    /// Numbers, users and contacts ([`connector_domain::command::DirectoryRecord`]).
    Directory,
    /// Accepted messages on their way out ([`connector_domain::command::Dispatch`]).
    Dispatch,
    /// Attempts to send ([`connector_domain::command::JournalEntry`]).
    DispatchJournal,
    /// The log: the truth ([`connector_domain::event::Recorded`]).
    ConversationEvents,
    /// Message templates ([`connector_domain::template::Template`]).
    Templates,
}

/// How long the broker keeps the records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// For ever (`retention.ms=-1`).
    Forever,
    /// This many days, then deleted.
    Days(u32),
    /// The newest record of each key (`cleanup.policy=compact`).
    Compacted,
}

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

impl Retention {
    /// Kafka's `cleanup.policy`.
    #[must_use]
    pub const fn cleanup_policy(self) -> &'static str {
        match self {
            Self::Forever | Self::Days(_) => "delete",
            Self::Compacted => "compact",
        }
    }

    /// Kafka's `delete.retention.ms`, in milliseconds, of a compacted topic: how long a tombstone is kept for those who have not read it. A
    /// month, the longest outage that is provided for without comparing whole tables.
    #[must_use]
    pub const fn delete_retention_ms(self) -> Option<i64> {
        match self {
            Self::Compacted => Some(30 * MILLIS_PER_DAY),
            Self::Forever | Self::Days(_) => None,
        }
    }

    /// Kafka's `retention.ms`, in milliseconds; -1 is for ever.
    #[must_use]
    pub const fn retention_ms(self) -> i64 {
        match self {
            Self::Forever | Self::Compacted => -1,
            Self::Days(days) => days as i64 * MILLIS_PER_DAY,
        }
    }
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 8] = [
        Self::Webhooks,
        Self::SendCommands,
        Self::ConsentCommands,
        Self::Directory,
        Self::Dispatch,
        Self::DispatchJournal,
        Self::ConversationEvents,
        Self::Templates,
    ];

    /// The name without the prefix of an installation.
    #[must_use]
    pub const fn base_name(self) -> &'static str {
        match self {
            Self::Webhooks => "whatsapp.webhooks.v1",
            Self::SendCommands => "whatsapp.send.commands.v1",
            Self::ConsentCommands => "whatsapp.consent.commands.v1",
            Self::Directory => "whatsapp.directory.v1",
            Self::Dispatch => "whatsapp.dispatch.v1",
            Self::DispatchJournal => "whatsapp.dispatch.journal.v1",
            Self::ConversationEvents => "whatsapp.conversation.events.v1",
            Self::Templates => "whatsapp.templates.v1",
        }
    }

    /// The name in an installation. A prefix ends up in front of a dot; an empty one leaves no trace.
    #[must_use]
    pub fn name(self, prefix: &str) -> String {
        Topics::new(prefix).prefixed(self.base_name())
    }

    /// How long its records are kept.
    ///
    /// Webhooks outlive Meta's own retries (7 days) by a week. The journal must outlive every attempt that can still be
    /// settled by a status.
    #[must_use]
    pub const fn retention(self) -> Retention {
        match self {
            Self::ConversationEvents => Retention::Forever,
            Self::Directory | Self::Templates => Retention::Compacted,
            Self::Webhooks => Retention::Days(14),
            Self::SendCommands | Self::ConsentCommands | Self::Dispatch | Self::DispatchJournal => Retention::Days(7),
        }
    }

    /// How long records of its dead-letter topic are kept: long enough for somebody to look and redrive.
    #[must_use]
    pub const fn dlq_retention(self) -> Retention {
        Retention::Days(30)
    }

    /// True for the topics that must have the same number of partitions, because the worker of one partition leans on the same
    /// partition of the log (its memory of what was answered, the situation it decides on).
    #[must_use]
    pub const fn co_partitioned(self) -> bool {
        !matches!(self, Self::Directory | Self::Templates)
    }

    /// What the key of a record is.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Webhooks => "chosen by the receiver so that the items of one conversation share a partition",
            Self::SendCommands => "chosen by the publisher; the same for messages that must keep their order",
            Self::ConsentCommands => "chosen by the publisher; the same for commands that must keep their order",
            Self::Directory => "number/…, user/…, contact/…, organization/… or number-state/…, see DirectoryRecord",
            Self::Dispatch | Self::DispatchJournal => "conversation_id",
            Self::ConversationEvents => "stream_id",
            Self::Templates => "waba_id/name/language",
        }
    }

    /// Folder and name of the schema of its records; for the log the folder of the event types.
    #[must_use]
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks/WebhookItem",
            Self::SendCommands => "commands/SendMessage",
            Self::ConsentCommands => "commands/ConsentCommand",
            Self::Directory => "directory/DirectoryRecord",
            Self::Dispatch => "dispatch/Dispatch",
            Self::DispatchJournal => "dispatch/JournalEntry",
            Self::ConversationEvents => "events",
            Self::Templates => "templates/Template",
        }
    }

    /// The topic of a name in an installation with this prefix, dead-letter names included; `None` for a foreign name.
    #[must_use]
    pub fn parse(name: &str, prefix: &str) -> Option<Self> {
        let name = name.strip_suffix(DLQ_SUFFIX).unwrap_or(name);
        Self::ALL.into_iter().find(|topic| topic.name(prefix) == name)
    }
}

/// What a dead-letter topic has behind the name of its topic.
pub const DLQ_SUFFIX: &str = ".dlq";

/// The topics of one installation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Topics {
    /// Stands in front of every name; empty for none.
    pub prefix: String,
}

impl Topics {
    /// The topics under a prefix (`TOPIC_PREFIX`), with or without its dot at the end.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: Topic) -> String {
        topic.name(&self.prefix)
    }

    /// A consumer group or another name that must not be shared between installations.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> String {
        match self.prefix.trim_end_matches('.') {
            "" => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        }
    }

    /// The name of a topic's dead-letter topic.
    #[must_use]
    pub fn dlq(&self, topic: Topic) -> String {
        format!("{}{DLQ_SUFFIX}", self.name(topic))
    }

    /// Every topic and dead-letter topic with what a broker has to know, for tools and the chart.
    #[must_use]
    pub fn listing(&self) -> Vec<TopicDeclaration> {
        Topic::ALL
            .into_iter()
            .flat_map(|topic| {
                let declare = |name: String, dlq: bool, retention: Retention| TopicDeclaration {
                    topic,
                    name,
                    dlq,
                    cleanup_policy: retention.cleanup_policy().to_owned(),
                    retention_ms: retention.retention_ms(),
                    delete_retention_ms: retention.delete_retention_ms(),
                    // A dead letter keeps key and partition number of its original.
                    co_partitioned: topic.co_partitioned(),
                    key: topic.key().to_owned(),
                    schema: topic.schema().to_owned(),
                };
                [
                    declare(self.name(topic), false, topic.retention()),
                    declare(self.dlq(topic), true, topic.dlq_retention()),
                ]
            })
            .collect()
    }
}

/// One line of [`Topics::listing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDeclaration {
    /// Which topic.
    pub topic: Topic,
    /// Its name in this installation.
    pub name: String,
    /// True for its dead-letter topic.
    pub dlq: bool,
    /// Kafka's `cleanup.policy`.
    pub cleanup_policy: String,
    /// Kafka's `retention.ms`; -1 is for ever.
    pub retention_ms: i64,
    /// Kafka's `delete.retention.ms`, of compacted topics.
    pub delete_retention_ms: Option<i64>,
    /// See [`Topic::co_partitioned`].
    pub co_partitioned: bool,
    /// See [`Topic::key`].
    pub key: String,
    /// See [`Topic::schema`].
    pub schema: String,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_prefix_once_and_are_found_again() {
        for prefix in ["", "acme", "acme."] {
            let topics = Topics::new(prefix);
            for topic in Topic::ALL {
                assert_eq!(Topic::parse(&topics.name(topic), prefix), Some(topic));
                assert_eq!(Topic::parse(&topics.dlq(topic), prefix), Some(topic));
            }
        }
        assert_eq!(Topics::new("acme.").name(Topic::Webhooks), "acme.whatsapp.webhooks.v1");
        assert_eq!(Topics::new("").dlq(Topic::Dispatch), "whatsapp.dispatch.v1.dlq");
        assert_eq!(Topic::parse("whatsapp.webhooks.v1", "acme"), None);
    }

    #[test]
    fn every_name_is_one_that_kafka_takes() {
        for declaration in Topics::new("acme").listing() {
            let name = declaration.name;
            assert!(name.len() <= 249, "{name}");
            // Dots and underscores collide in Kafka's metric names; the connector uses dots.
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'), "{name}");
        }
    }

    #[test]
    fn the_log_is_kept_for_ever_and_tables_are_compacted() {
        let listing = Topics::default().listing();
        let of =
            |name: &str| listing.iter().find(|d| d.name == name).map(|d| (d.cleanup_policy.as_str(), d.retention_ms));
        assert_eq!(of("whatsapp.conversation.events.v1"), Some(("delete", -1)));
        assert_eq!(of("whatsapp.directory.v1"), Some(("compact", -1)));
        assert_eq!(of("whatsapp.webhooks.v1"), Some(("delete", 14 * MILLIS_PER_DAY)));
        assert_eq!(of("whatsapp.directory.v1.dlq"), Some(("delete", 30 * MILLIS_PER_DAY)));
        assert_eq!(listing.len(), 2 * Topic::ALL.len());
    }
}
