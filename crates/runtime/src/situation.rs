//! Situations as the gate has them: which keys the `conversations` views use, and how a decision asks for them (R2).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::conversation::Conversation;
use connector_domain::directory::{ContactEntry, Enablement};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::{ContactId, OrganizationId, StreamId, UserId};
use connector_ports::partition::partition_for;
use futures::future::try_join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::platform::Platform;
use crate::view::Reading;

/// The key of a conversation's [`Conversation`], in the partition of its stream.
#[must_use]
pub fn conversation_key(conversation: &StreamId) -> String {
    format!("c:{conversation}")
}

/// The key of a user's [`Enablement`], in the partition of the user's stream.
#[must_use]
pub fn enablement_key(user: &StreamId) -> String {
    format!("u:{user}")
}

/// The key of a [`ContactEntry`] by its id, in the partition of the user's stream.
#[must_use]
pub fn contact_key(user: &StreamId, contact: &ContactId) -> String {
    format!("e:{user}:{contact}")
}

/// The key of the ids of a user's contact entries (JSON list), in the partition of the user's stream.
#[must_use]
pub fn contact_list_key(user: &StreamId) -> String {
    format!("l:{user}")
}

/// The key of the number of a user's contact entries that lead to a conversation (JSON integer), in the partition of the user's stream.
#[must_use]
pub fn membership_key(user: &StreamId, conversation: &StreamId) -> String {
    format!("m:{user}:{conversation}")
}

/// The partition of a stream in the co-partitioned topics and in the views.
#[must_use]
pub fn partition_of(stream: &StreamId, partitions: u32) -> u32 {
    partition_for(stream.as_str().as_bytes(), partitions)
}

/// A fold as it is stored.
///
/// # Errors
/// Never for the folds of the domain; the type says so for others.
pub fn store<T: Serialize>(fold: &T) -> Result<Bytes, Failure> {
    serde_json::to_vec(fold).map(Bytes::from).map_err(|error| Failure::Fatal(error.to_string()))
}

/// A stored fold; an absent one is the empty fold.
///
/// # Errors
/// `Reinitialise` when the bytes are not ours: the view is rebuilt then.
pub fn load<T: DeserializeOwned + Default>(stored: Option<&Bytes>) -> Result<T, Failure> {
    let Some(bytes) = stored else { return Ok(T::default()) };
    serde_json::from_slice(bytes).map_err(|_| Failure::Reinitialise("a stored fold cannot be read".to_owned()))
}

/// Whose situation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The user.
    pub user_id: UserId,
    /// The conversation.
    pub conversation_id: StreamId,
}

/// Asks the gate for situations.
#[derive(Clone)]
pub struct Situations {
    reading: Reading,
    keys: StreamKeys,
    partitions: u32,
}

impl Situations {
    /// On a platform.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        Self { reading: platform.conversations(), keys: platform.keys.clone(), partitions: platform.partitions }
    }

    fn cells(&self, question: &Question) -> [(u32, String); 3] {
        let user = self.keys.user(&question.organization_id, &question.user_id);
        let home = partition_of(&user, self.partitions);
        [
            (partition_of(&question.conversation_id, self.partitions), conversation_key(&question.conversation_id)),
            (home, enablement_key(&user)),
            (home, membership_key(&user, &question.conversation_id)),
        ]
    }

    /// The situations as they are now; they may be behind the log, so nobody may be refused for good because of them.
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn now(&self, questions: &[Question]) -> Result<Vec<Situation>, Failure> {
        let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let cells: Vec<_> = questions.iter().map(|question| self.cells(question)).collect();
        for (partition, key) in cells.iter().flatten() {
            by_partition.entry(*partition).or_default().push(key.clone());
        }
        let mut values = BTreeMap::new();
        // All partitions at once: each is a question to the gate.
        let asked = by_partition.into_iter().map(async |(partition, keys)| {
            let snapshot = self.reading.now(partition, &keys).await?;
            Ok::<_, Failure>(keys.into_iter().zip(snapshot.answers))
        });
        for answered in try_join_all(asked).await? {
            values.extend(answered);
        }
        cells.iter().map(|cells| situation(cells, |key| values.get(key).and_then(Option::as_ref))).collect()
    }

    /// The situation after the views have applied the log up to its end as of this call: what it refuses is refused.
    ///
    /// # Errors
    /// `Later` when a view does not catch up within `within`.
    pub async fn settled(&self, question: &Question, within: Duration) -> Result<Situation, Failure> {
        let cells = self.cells(question);
        let [conversation, enablement, membership] = cells.clone();
        let mut values = BTreeMap::new();
        let stored = self.reading.caught_up(conversation.0, std::slice::from_ref(&conversation.1), within).await?;
        values.extend([conversation.1].into_iter().zip(stored));
        let keys = [enablement.1, membership.1];
        let stored = self.reading.caught_up(enablement.0, &keys, within).await?;
        values.extend(keys.into_iter().zip(stored));
        situation(&cells, |key| values.get(key).and_then(Option::as_ref))
    }

    /// The entry of a user's contact list after its view has caught up.
    ///
    /// # Errors
    /// As [`Situations::settled`].
    pub async fn settled_contact(
        &self,
        user: &StreamId,
        contact: &ContactId,
        within: Duration,
    ) -> Result<ContactEntry, Failure> {
        let stored = self.settled_value(user, contact_key(user, contact), within).await?;
        load(stored.as_ref())
    }

    /// The enablement of a user after its view has caught up.
    ///
    /// # Errors
    /// As [`Situations::settled`].
    pub async fn settled_enablement(&self, user: &StreamId, within: Duration) -> Result<Enablement, Failure> {
        load(self.settled_value(user, enablement_key(user), within).await?.as_ref())
    }

    /// A conversation after its view has caught up.
    ///
    /// # Errors
    /// As [`Situations::settled`].
    pub async fn settled_conversation(&self, id: &StreamId, within: Duration) -> Result<Conversation, Failure> {
        load(self.settled_value(id, conversation_key(id), within).await?.as_ref())
    }

    async fn settled_value(&self, stream: &StreamId, key: String, within: Duration) -> Result<Option<Bytes>, Failure> {
        let partition = partition_of(stream, self.partitions);
        Ok(self.reading.caught_up(partition, &[key], within).await?.into_iter().next().flatten())
    }
}

fn situation<'a>(cells: &[(u32, String); 3], value: impl Fn(&str) -> Option<&'a Bytes>) -> Result<Situation, Failure> {
    let [conversation, enablement, membership] = cells;
    Ok(Situation {
        conversation: load(value(&conversation.1))?,
        enablement: load(value(&enablement.1))?,
        is_contact: load::<u32>(value(&membership.1))? > 0,
    })
}
