//! Situations as the gate has them: which keys the `conversations` views use, and how a decision asks for them (R2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::conversation::{Conversation, closed, heeding};
use connector_domain::directory::{ContactEntry, Enablement};
use connector_domain::identity::{Address, StreamKeys};
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

/// The keys under which a conversation's person may be in a user's contacts by another identity (R10): a contact list knows people by the
/// identity they were entered with, which may have become an alias.
#[must_use]
pub fn alias_membership_keys(user: &StreamId, conversation: &Conversation) -> Vec<String> {
    conversation.aliases.iter().map(|alias| membership_key(user, alias)).collect()
}

/// So many entries of a contact list are read at once.
const ENTRIES_AT_ONCE: usize = 1_000;

/// Links are followed this far, one question after the other; a circle ends earlier.
pub const FARTHEST: usize = 8;

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

/// The streams a conversation may hear of: its aliases, and where it continues.
fn related(conversation: &Conversation) -> impl Iterator<Item = &StreamId> {
    conversation.aliases.iter().chain(&conversation.canonical)
}

/// Adds to conversations what their persons said to streams that lead there (R10) and what may not have been carried over yet: a no counts
/// wherever it stands. Asks nothing for conversations without links. `within`: waits that long for views that are behind the log.
///
/// # Errors
/// When the gate is away; `Later` when a view does not catch up in time.
pub async fn heed(
    reading: &Reading,
    partitions: u32,
    conversations: Vec<(&StreamId, &mut Conversation)>,
    within: Option<Duration>,
) -> Result<(), Failure> {
    let linked = conversations.into_iter().filter(|(_, conversation)| related(conversation).next().is_some());
    let mut linked: Vec<_> = linked.collect();
    let mut known: BTreeMap<StreamId, Conversation> =
        linked.iter().map(|(stream, conversation)| ((*stream).clone(), (**conversation).clone())).collect();
    for _ in 0..FARTHEST {
        let unknown = known.values().flat_map(related).filter(|stream| !known.contains_key(*stream));
        let unknown: BTreeSet<StreamId> = unknown.cloned().collect();
        if unknown.is_empty() {
            break;
        }
        let mut by_partition: BTreeMap<u32, Vec<StreamId>> = BTreeMap::new();
        for stream in unknown {
            by_partition.entry(partition_of(&stream, partitions)).or_default().push(stream);
        }
        for (partition, streams) in by_partition {
            let keys: Vec<_> = streams.iter().map(conversation_key).collect();
            let answers = match within {
                Some(within) => reading.caught_up(partition, &keys, within).await?,
                None => reading.now(partition, &keys).await?.answers,
            };
            for (stream, stored) in streams.into_iter().zip(answers) {
                known.insert(stream, load(stored.as_ref())?);
            }
        }
    }
    for (stream, conversation) in &mut linked {
        let mut around = BTreeMap::new();
        let mut next = vec![*stream];
        while let Some(at) = next.pop() {
            if let Some(found) = known.get(at).filter(|_| !around.contains_key(at)) {
                around.insert(at.clone(), found.clone());
                next.extend(related(found));
            }
        }
        **conversation = heeding(stream, &around);
    }
    Ok(())
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

/// The partitions whose views know a situation: that of the conversation, and that of the user.
pub type Place = [u32; 2];

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

    /// Whose views are asked, as long as nothing leads elsewhere.
    #[must_use]
    pub fn place(&self, question: &Question) -> Place {
        let user = self.keys.user(&question.organization_id, &question.user_id);
        [partition_of(&question.conversation_id, self.partitions), partition_of(&user, self.partitions)]
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
        let values = self.values(by_partition).await?;
        let read = |cells| situation(cells, |key| values.get(key).and_then(Option::as_ref));
        let mut situations = cells.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        self.by_aliases(questions, &mut situations).await?;
        let of = questions.iter().zip(&mut situations);
        let of = of.map(|(question, found)| (&question.conversation_id, &mut found.conversation)).collect();
        heed(&self.reading, self.partitions, of, None).await?;
        Ok(situations)
    }

    /// All partitions at once: each is a question to the gate.
    async fn values(
        &self,
        by_partition: BTreeMap<u32, Vec<String>>,
    ) -> Result<BTreeMap<String, Option<Bytes>>, Failure> {
        let mut values = BTreeMap::new();
        let asked = by_partition.into_iter().map(async |(partition, keys)| {
            let snapshot = self.reading.now(partition, &keys).await?;
            Ok::<_, Failure>(keys.into_iter().zip(snapshot.answers))
        });
        for answered in try_join_all(asked).await? {
            values.extend(answered);
        }
        Ok(values)
    }

    /// Who is no contact by the conversation's own id may be one by an alias.
    async fn by_aliases(&self, questions: &[Question], situations: &mut [Situation]) -> Result<(), Failure> {
        let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut asked = Vec::new();
        for (at, (question, situation)) in questions.iter().zip(situations.iter()).enumerate() {
            if !situation.is_contact && !situation.conversation.aliases.is_empty() {
                let user = self.keys.user(&question.organization_id, &question.user_id);
                let keys = alias_membership_keys(&user, &situation.conversation);
                by_partition.entry(partition_of(&user, self.partitions)).or_default().extend(keys.clone());
                asked.push((at, keys));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let values = self.values(by_partition).await?;
        for (at, keys) in asked {
            for key in keys {
                situations[at].is_contact |= load::<u32>(values.get(&key).and_then(Option::as_ref))? > 0;
            }
        }
        Ok(())
    }

    /// The situations of the conversations in which those of the questions continue (R10), as [`Situations::now`]; the questions name
    /// these afterwards. A circle of links continues in its least stream.
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn followed(&self, questions: &mut [Question]) -> Result<Vec<Situation>, Failure> {
        let mut situations = self.now(questions).await?;
        let mut paths: Vec<Option<Vec<StreamId>>> =
            questions.iter().map(|question| Some(vec![question.conversation_id.clone()])).collect();
        for _ in 0..FARTHEST {
            let mut linked = Vec::new();
            for (at, question) in questions.iter_mut().enumerate() {
                let Some(canonical) = situations[at].conversation.canonical.clone() else { continue };
                let Some(path) = paths[at].as_mut() else { continue };
                if let Some(least) = closed(path, &canonical) {
                    question.conversation_id = least;
                    paths[at] = None;
                } else {
                    question.conversation_id = canonical.clone();
                    path.push(canonical);
                }
                linked.push(at);
            }
            if linked.is_empty() {
                break;
            }
            let asked: Vec<_> = linked.iter().map(|at| questions[*at].clone()).collect();
            for (at, situation) in linked.into_iter().zip(self.now(&asked).await?) {
                situations[at] = situation;
            }
        }
        Ok(situations)
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
        let known: Conversation = load(values.values().next().and_then(Option::as_ref))?;
        let user = self.keys.user(&question.organization_id, &question.user_id);
        let aliases = alias_membership_keys(&user, &known);
        let keys: Vec<_> = [enablement.1, membership.1].into_iter().chain(aliases.iter().cloned()).collect();
        let stored = self.reading.caught_up(enablement.0, &keys, within).await?;
        values.extend(keys.into_iter().zip(stored));
        let value = |key: &str| values.get(key).and_then(Option::as_ref);
        let mut found = situation(&cells, value)?;
        for alias in aliases {
            found.is_contact |= load::<u32>(value(&alias))? > 0;
        }
        let of = vec![(&question.conversation_id, &mut found.conversation)];
        heed(&self.reading, self.partitions, of, Some(within)).await?;
        Ok(found)
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

    /// How the contact list of the question's user addresses the person of a conversation, after its view has caught up. Reads the whole
    /// list: for people of whom the conversation itself knows no address, because they never wrote.
    ///
    /// # Errors
    /// As [`Situations::settled`].
    pub async fn listed_address(
        &self,
        question: &Question,
        conversation: &Conversation,
        within: Duration,
    ) -> Result<Option<Address>, Failure> {
        let user = self.keys.user(&question.organization_id, &question.user_id);
        let listed = self.settled_value(&user, contact_list_key(&user), within).await?;
        let contacts: BTreeSet<ContactId> = load(listed.as_ref())?;
        let keys: Vec<_> = contacts.iter().map(|contact| contact_key(&user, contact)).collect();
        let is_theirs = |id: &StreamId| *id == question.conversation_id || conversation.aliases.contains(id);
        for keys in keys.chunks(ENTRIES_AT_ONCE) {
            for stored in self.reading.caught_up(partition_of(&user, self.partitions), keys, within).await? {
                let entry: ContactEntry = load(stored.as_ref())?;
                if entry.conversation_id.as_ref().is_some_and(is_theirs) && !entry.address.is_empty() {
                    return Ok(Some(entry.address));
                }
            }
        }
        Ok(None)
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
