//! Commands that were accepted for processing and have no answer yet: their topics from where their readers are, in memory and bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_contracts::{Contract, Topic, decode};
use connector_domain::command::{ConsentCommand, SendMessage};
use connector_domain::event::Recorded;
use connector_domain::ids::{CommandId, OrganizationId};
use connector_domain::time::Timestamp;
use connector_ports::log::{Isolation, Polled, Record, Start, TopicPartition};
use connector_runtime::backoff::Backoff;
use connector_runtime::failure::Failure;
use connector_runtime::platform::{Platform, groups};
use tokio_util::sync::CancellationToken;

/// The newest that are kept, about 150 bytes each.
const MOST: usize = 100_000;

pub(crate) type Key = (OrganizationId, CommandId);

/// The commands that events are about.
pub(crate) fn answers<'a>(events: impl Iterator<Item = &'a Recorded>) -> Vec<Key> {
    let of = |recorded: &Recorded| Some((recorded.envelope.organization_id.clone(), recorded.envelope.command_id?));
    events.filter_map(of).collect()
}

/// Commands without an answer. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<Commands>>);

#[derive(Default)]
struct Commands {
    received: HashMap<Key, Timestamp>,
    order: VecDeque<Key>,
}

impl Pending {
    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command stands in its topic since then.
    pub(crate) fn add(&self, organization: &OrganizationId, command: CommandId, at: Timestamp) {
        let mut commands = self.commands();
        let key = (organization.clone(), command);
        if commands.received.contains_key(&key) {
            return;
        }
        commands.received.insert(key.clone(), at);
        commands.order.push_back(key);
        while commands.received.len() > MOST {
            let Some(oldest) = commands.order.pop_front() else { break };
            commands.received.remove(&oldest);
        }
        if commands.order.len() > 2 * MOST {
            let Commands { received, order } = &mut *commands;
            order.retain(|key| received.contains_key(key));
        }
    }

    /// The log says something about these.
    pub(crate) fn answered(&self, answers: &[Key]) {
        if !answers.is_empty() {
            let mut commands = self.commands();
            for key in answers {
                commands.received.remove(key);
            }
        }
    }

    /// Since when a command waits for its answer.
    pub(crate) fn since(&self, organization: &OrganizationId, command: CommandId) -> Option<Timestamp> {
        self.commands().received.get(&(organization.clone(), command)).copied()
    }

    /// Reads both topics until `shutdown` is cancelled.
    pub(crate) async fn follow(self, platform: Platform, shutdown: CancellationToken) {
        tokio::join!(
            self.follow_one::<SendMessage>(
                &platform,
                Topic::SendCommands,
                groups::SEND_COMMANDS,
                &shutdown,
                |command| { (command.organization_id, command.command_id) }
            ),
            self.follow_one::<ConsentCommand>(
                &platform,
                Topic::ConsentCommands,
                groups::CONSENT_COMMANDS,
                &shutdown,
                |command| (command.organization_id, command.command_id)
            ),
        );
    }

    async fn follow_one<T: Contract>(
        &self,
        platform: &Platform,
        topic: Topic,
        group: &str,
        shutdown: &CancellationToken,
        key: fn(T) -> Key,
    ) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while !shutdown.is_cancelled() {
            let failure = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                failure = self.read::<T>(platform, topic, group, &mut backoff, key) => failure,
            };
            if let Err(failure) = failure {
                tracing::warn!(topic = topic.base_name(), %failure, "what waits for an answer is not known for a moment");
            }
            let wait = backoff.grow();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = platform.clock.sleep(wait) => {}
            }
        }
    }

    async fn read<T: Contract>(
        &self,
        platform: &Platform,
        topic: Topic,
        group: &str,
        backoff: &mut Backoff,
        key: fn(T) -> Key,
    ) -> Result<(), Failure> {
        let name = platform.topic(topic);
        let facts = platform.log.topic(&name).await?;
        let facts = facts.ok_or_else(|| Failure::Later(format!("topic {name} does not exist yet")))?;
        let partitions: Vec<_> = (0..facts.partitions).map(|p| TopicPartition::new(name.clone(), p)).collect();
        // What lies before that is answered.
        let committed = platform.log.committed(&platform.group(group), &partitions).await?;
        let starts = partitions.into_iter().zip(committed);
        let starts = starts.map(|(partition, next)| (partition, next.map_or(Start::Beginning, Start::At))).collect();
        let mut reader = platform.log.assign(starts, Isolation::Committed).await?;
        loop {
            if let Polled::Records(records) = reader.poll(Duration::from_secs(1), 1000).await? {
                backoff.reset();
                records.iter().for_each(|record| self.take(record, key));
            }
        }
    }

    /// What cannot be read is the business of the topic's own reader.
    fn take<T: Contract>(&self, record: &Record, key: fn(T) -> Key) {
        if let Some(Ok(command)) = record.value.as_deref().map(decode::<T>) {
            let (organization, command) = key(command);
            self.add(&organization, command, record.timestamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_no_more() {
        let pending = Pending::default();
        let id = |n: usize| CommandId::derived(&n.to_string());
        for n in 0..MOST + 10 {
            pending.add(&"a".into(), id(n), Timestamp(n as i64));
        }
        assert_eq!(pending.since(&"a".into(), id(9)), None);
        assert_eq!(pending.since(&"a".into(), id(10)), Some(Timestamp(10)));
        assert_eq!(pending.since(&"b".into(), id(10)), None);
        assert_eq!(pending.commands().received.len(), MOST);
    }
}
