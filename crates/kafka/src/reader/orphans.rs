//! Partitions that nobody reads, and what brings them back.
//!
//! A cooperative group moves a partition in two steps: its old owner gives it back and joins again, and only that second rebalance
//! gives it to the new one. An owner that dies in between and comes back under its static name gets what it has left without any
//! rebalance (the coordinator's "static member … will not trigger rebalance"), so the second step never comes and the partition
//! belongs to nobody, however healthy everybody is. Whoever has joined under a name therefore looks once whether every partition
//! has an owner. If not, a nameless member joins for a moment: a newcomer makes the group share everything out anew.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::{Duration, Instant};

use connector_ports::log::{Isolation, TopicName};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::shared::Shared;
use crate::client::Quiet;
use crate::config::KafkaConfig;

/// How often the group is looked at until it is at rest.
const LOOK: Duration = Duration::from_secs(1);
/// How often in a row the same partitions have no owner before something is done: a worker may be finishing what it has in hand.
const PATIENCE: u32 = 3;
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// How long the nameless member waits for its share.
const JOIN: Duration = Duration::from_secs(20);

type Client = BaseConsumer<Quiet>;
type Partitions = HashSet<(String, i32)>;

/// Looks after the group of a reader in a thread of its own, until the group is whole or the reader is gone.
pub(super) fn watch(config: KafkaConfig, group: String, topics: Vec<TopicName>, reader: Weak<Shared>) {
    let work = move || {
        if let Err(error) = look(&config, &group, &topics, &reader) {
            tracing::debug!(target: "kafka", %error, group, "cannot tell whether every partition has an owner");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kafka-orphans".to_owned()).spawn(work) {
        tracing::warn!(target: "kafka", %error, "cannot start a thread");
    }
}

fn look(config: &KafkaConfig, group: &str, topics: &[TopicName], reader: &Weak<Shared>) -> KafkaResult<()> {
    let client: Client = config.questions(Isolation::Committed, None).create_with_context(Quiet::default())?;
    let (mut before, mut seen) = (Partitions::new(), 0);
    loop {
        std::thread::sleep(LOOK);
        if reader.strong_count() == 0 {
            return Ok(());
        }
        let owned = match owned(&client, group) {
            Ok(Some(owned)) => owned,
            // Between two generations, or the broker is away: later.
            Ok(None) | Err(_) => continue,
        };
        let Ok(mut orphans) = all(&client, topics) else { continue };
        orphans.retain(|partition| !owned.contains(partition));
        if orphans.is_empty() {
            return Ok(());
        }
        seen = if orphans == before { seen + 1 } else { 1 };
        if seen >= PATIENCE {
            tracing::warn!(target: "kafka", group, count = orphans.len(), "partitions have no owner; the group shares out anew");
            nudge(config, group, topics)?;
            seen = 0;
        }
        before = orphans;
    }
}

/// Every partition of the topics.
fn all(client: &Client, topics: &[TopicName]) -> KafkaResult<Partitions> {
    let mut partitions = Partitions::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic.as_str()), QUESTION)?;
        for found in metadata.topics() {
            partitions.extend(found.partitions().iter().map(|one| (topic.as_str().to_owned(), one.id())));
        }
    }
    Ok(partitions)
}

/// What the members of the group own; `None` while the group is not at rest.
fn owned(client: &Client, group: &str) -> KafkaResult<Option<Partitions>> {
    let groups = client.fetch_group_list(Some(group), QUESTION)?;
    let Some(group) = groups.groups().iter().find(|found| found.name() == group) else { return Ok(None) };
    if group.state() != "Stable" {
        return Ok(None);
    }
    let assigned = group.members().iter().filter_map(|member| assignment(member.assignment().unwrap_or_default()));
    Ok(Some(assigned.flatten().collect()))
}

/// Joins without a name, so that the group notices, and leaves again.
fn nudge(config: &KafkaConfig, group: &str, topics: &[TopicName]) -> KafkaResult<()> {
    let config = config.reader(group, None, Isolation::Committed, "earliest");
    let guest: Client = config.create_with_context(Quiet::default())?;
    let topics: Vec<_> = topics.iter().map(TopicName::as_str).collect();
    guest.subscribe(&topics)?;
    let deadline = Instant::now() + JOIN;
    while Instant::now() < deadline && guest.assignment()?.count() == 0 {
        // What it reads is somebody else's, and is committed by nobody.
        drop(guest.poll(Duration::from_millis(50)));
    }
    Ok(())
}

/// Reads a member's assignment: version, topics, and the partitions of each, all big endian (Kafka's consumer protocol).
fn assignment(bytes: &[u8]) -> Option<Partitions> {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let mut number = |width: usize| {
        let bytes = take(width)?;
        Some((bytes.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte)), bytes))
    };
    let mut partitions = Partitions::new();
    number(2)?;
    let (topics, _) = number(4)?;
    for _ in 0..topics {
        let (length, _) = number(2)?;
        let (_, name) = number(usize::try_from(length).ok()?)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        let (count, _) = number(4)?;
        for _ in 0..count {
            let (partition, _) = number(4)?;
            partitions.insert((name.clone(), i32::try_from(partition).ok()?));
        }
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_its_partitions() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\x00\x02bc\x00\x00\x00\x01\x00\x00\x01\x00\xff\xff\xff\xff";
        let expected = [("a".to_owned(), 0), ("a".to_owned(), 5), ("bc".to_owned(), 256)];
        assert_eq!(assignment(bytes), Some(Partitions::from(expected)));
        assert_eq!(assignment(&bytes[..20]), None);
        assert_eq!(assignment(b""), None);
    }
}
