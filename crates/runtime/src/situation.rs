//! Situations as the gate has them: which keys the `conversations` views use, and how a decision asks for them (R2).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use connector_domain::composer::Situation;
use connector_domain::conversation::{Conversation, closed, heeding};
use connector_domain::directory::ContactEntry;
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{ContactId, OrganizationId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::gate::Snapshot;
use connector_ports::log::Offset;
use connector_ports::partition::partition_for;
use futures::future::try_join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::holding::{Basis, Holding};
use crate::platform::Platform;
use crate::tail::{Moment, Read, Tail};
use crate::view::Reading;

/// The key of a conversation's [`Conversation`], in the partition of its stream.
#[must_use]
pub fn conversation_key(conversation: &StreamId) -> String {
    format!("c:{conversation}")
}

/// The key of a user's [`Enablement`](connector_domain::directory::Enablement), in the partition of the user's stream.
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

/// The key of a [`Membership`], in the partition of the user's stream.
#[must_use]
pub fn membership_key(user: &StreamId, conversation: &StreamId) -> String {
    format!("m:{user}:{conversation}")
}

/// The ids of a user's contact entries that lead to a conversation (JSON list). Whoever is a contact at all is one by one of them.
pub type Membership = BTreeSet<ContactId>;

/// How many buckets the users of a view are in.
pub const BUCKETS: u8 = 128;

/// Somebody the directory has told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The user.
    pub user_id: UserId,
}

/// The key of the users in a bucket (JSON object of [`Person`] by stream): everybody who was ever enabled or had a contact.
#[must_use]
pub fn users_key(bucket: u8) -> String {
    format!("d:{bucket}")
}

/// The bucket of a user.
#[must_use]
pub fn bucket_of(user: &StreamId) -> u8 {
    user.as_str().bytes().fold(0_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte)) % BUCKETS
}

/// The keys under which a conversation's person may be in a user's contacts by another identity (R10): a contact list knows people by the
/// identity they were entered with, which may have become an alias.
#[must_use]
pub fn alias_membership_keys(user: &StreamId, conversation: &Conversation) -> Vec<String> {
    conversation.aliases.iter().map(|alias| membership_key(user, alias)).collect()
}

/// So many entries of one person are read at once. Usually there is one.
const ENTRIES_AT_ONCE: usize = 16;

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
/// wherever it stands. Asks nothing for conversations without links. What was read for each is added to what was read for it before.
async fn heed(
    reading: &Reading,
    partitions: u32,
    conversations: Vec<(&StreamId, &mut Conversation, &mut Vec<Read>)>,
) -> Result<(), Failure> {
    let linked = conversations.into_iter().filter(|(_, conversation, _)| related(conversation).next().is_some());
    let mut linked: Vec<_> = linked.collect();
    let mut known: BTreeMap<StreamId, Conversation> =
        linked.iter().map(|(stream, conversation, _)| ((*stream).clone(), (**conversation).clone())).collect();
    let mut seen: BTreeMap<StreamId, Read> = BTreeMap::new();
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
            let Snapshot { applied, answers, .. } = reading.glance(partition, &keys).await?;
            for (stream, stored) in streams.into_iter().zip(answers) {
                seen.insert(stream.clone(), Read { stream: stream.clone(), partition, applied });
                known.insert(stream, load(stored.as_ref())?);
            }
        }
    }
    for (stream, conversation, read) in &mut linked {
        let mut around = BTreeMap::new();
        let mut next = vec![*stream];
        while let Some(at) = next.pop() {
            if let Some(found) = known.get(at).filter(|_| !around.contains_key(at)) {
                around.insert(at.clone(), found.clone());
                read.extend(seen.get(at).cloned());
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
    /// When it was named by the address it follows from, and not by its id: whoever has that address then is meant (R10).
    pub addressed_at: Option<Timestamp>,
}

/// The partitions whose views know a situation: that of the conversation, and that of the user.
pub type Place = [u32; 2];

/// A situation as views have it, and what was read for it.
#[derive(Default)]
struct Found {
    situation: Situation,
    read: Vec<Read>,
}

/// Values by their keys, and the positions at which each partition had them.
#[derive(Default)]
struct Values {
    values: BTreeMap<String, Option<Bytes>>,
    applied: BTreeMap<u32, Option<Offset>>,
}

impl Values {
    fn get(&self, key: &str) -> Option<&Bytes> {
        self.values.get(key).and_then(Option::as_ref)
    }

    fn read(&self, stream: &StreamId, partition: u32) -> Read {
        Read { stream: stream.clone(), partition, applied: self.applied.get(&partition).copied().flatten() }
    }
}

/// Asks the gate for situations, and says which of them can be decided on (R2). Clones share what they know of the log.
#[derive(Clone)]
pub struct Situations {
    reading: Reading,
    tail: Tail,
    keys: StreamKeys,
    partitions: u32,
}

impl Situations {
    /// On a platform.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        Self {
            reading: platform.conversations(),
            tail: Tail::new(platform),
            keys: platform.keys.clone(),
            partitions: platform.partitions,
        }
    }

    /// Whose views are asked, as long as nothing leads elsewhere.
    #[must_use]
    pub fn place(&self, question: &Question) -> Place {
        [self.home(&question.conversation_id), self.home(&self.user(question))]
    }

    /// As [`Tail::rest`].
    ///
    /// # Errors
    /// When the log is away.
    pub async fn rest(&self) -> Result<(), Failure> {
        self.tail.rest().await
    }

    fn home(&self, stream: &StreamId) -> u32 {
        partition_of(stream, self.partitions)
    }

    fn user(&self, question: &Question) -> StreamId {
        self.keys.user(&question.organization_id, &question.user_id)
    }

    /// The situations as the views have them, whatever they lack: nothing may be decided on these.
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn now(&self, questions: &[Question]) -> Result<Vec<Situation>, Failure> {
        Ok(self.as_read(questions).await?.into_iter().map(|found| found.situation).collect())
    }

    /// The situations of the conversations in which those of the questions continue (R10), as the views have them; the questions name these
    /// afterwards. `None`: something that matters is known to lack already. Nothing may be decided on the others, neither to accept nor to refuse,
    /// before they are found to [hold](Situations::holding).
    ///
    /// # Errors
    /// When the gate is away.
    pub async fn found(&self, questions: &mut [Question]) -> Result<(Vec<Option<Situation>>, Basis), Failure> {
        let found = self.followed(questions).await?;
        let (mut situations, mut basis) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
        for (Found { situation, read }, Question { organization_id, user_id, .. }) in found.into_iter().zip(questions) {
            let lacks = self.tail.knows_more(organization_id, user_id, &read);
            situations.push((!lacks).then_some(situation));
            basis.push((organization_id.clone(), user_id.clone(), read));
        }
        Ok((situations, Basis(basis)))
    }

    /// Asks whether situations that were [found](Situations::found) have everything that matters, up to the ends of log and directory as of
    /// this call.
    #[must_use]
    pub fn holding(&self, basis: Basis) -> Holding {
        Holding::ask(self.tail.clone(), basis)
    }

    /// The situations of the conversations in which those of the questions continue (R10); the questions name these afterwards. A circle
    /// of links continues in its least stream. `None`: something that matters is in the log, or in the directory, and not in the views.
    /// Nothing may be decided then, neither to accept nor to refuse.
    ///
    /// # Errors
    /// When gate or log are away.
    pub async fn settled(&self, questions: &mut [Question]) -> Result<Vec<Option<Situation>>, Failure> {
        self.settled_behind(questions, &BTreeMap::new()).await
    }

    /// The same for who has written into partitions of the log up to these positions: a broker may answer a commit a little before the end
    /// of the log moves behind it.
    ///
    /// # Errors
    /// As [`Situations::settled`].
    pub async fn settled_behind(
        &self,
        questions: &mut [Question],
        own: &BTreeMap<u32, Offset>,
    ) -> Result<Vec<Option<Situation>>, Failure> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let partitions: Vec<u32> = questions.iter().flat_map(|question| self.place(question)).collect();
        let (moment, found) = futures::try_join!(self.tail.moment(partitions), self.followed(questions))?;
        let users = questions.iter().map(|question| (&question.organization_id, &question.user_id));
        let told = self.tail.told_of(&moment, users).await?;
        let settled = self.are_settled(moment, own, &found).await?;
        let both = found.into_iter().zip(settled.into_iter().zip(told));
        Ok(both.map(|(found, (settled, told))| (settled && told).then_some(found.situation)).collect())
    }

    async fn are_settled(
        &self,
        mut moment: Moment,
        own: &BTreeMap<u32, Offset>,
        found: &[Found],
    ) -> Result<Vec<bool>, Failure> {
        let read: Vec<Read> = found.iter().flat_map(|found| found.read.iter().cloned()).collect();
        self.tail.further(&mut moment, read.iter().map(|read| read.partition)).await?;
        for (partition, own) in own {
            moment.not_before(*partition, *own);
        }
        let mut answers = self.tail.settled(&moment, &read).await?.into_iter();
        // All of them are looked at: each takes its own answers.
        Ok(found
            .iter()
            .map(|found| found.read.iter().fold(true, |all, _| answers.next().unwrap_or(false) && all))
            .collect())
    }

    async fn followed(&self, questions: &mut [Question]) -> Result<Vec<Found>, Failure> {
        let mut found = self.as_read(questions).await?;
        let mut paths: Vec<Option<Vec<StreamId>>> =
            questions.iter().map(|question| Some(vec![question.conversation_id.clone()])).collect();
        for _ in 0..FARTHEST {
            let mut linked = Vec::new();
            for (at, question) in questions.iter_mut().enumerate() {
                let conversation = &found[at].situation.conversation;
                let asked = &question.conversation_id;
                let held = question.addressed_at.take().map(|at| conversation.handovers.holder(asked, at));
                let next = held.filter(|held| *held != asked).or(conversation.canonical.as_ref()).cloned();
                let Some(canonical) = next else { continue };
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
            for (at, further) in linked.into_iter().zip(self.as_read(&asked).await?) {
                let way = std::mem::take(&mut found[at].read);
                found[at] = further;
                found[at].read.extend(way);
            }
        }
        Ok(found)
    }

    /// As the views have it now.
    async fn as_read(&self, questions: &[Question]) -> Result<Vec<Found>, Failure> {
        let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let cells: Vec<_> = questions.iter().map(|question| self.cells(question)).collect();
        for (partition, key) in cells.iter().flatten() {
            by_partition.entry(*partition).or_default().push(key.clone());
        }
        let values = self.values(by_partition).await?;
        let found = |(question, cells): (&Question, &[(u32, String); 3])| {
            let situation = situation(&question.organization_id, cells, |key| values.get(key))?;
            let [conversation, user, _] = cells;
            let read =
                vec![values.read(&question.conversation_id, conversation.0), values.read(&self.user(question), user.0)];
            Ok::<_, Failure>(Found { situation, read })
        };
        let mut found = questions.iter().zip(&cells).map(found).collect::<Result<Vec<_>, _>>()?;
        self.by_aliases(questions, &mut found).await?;
        let of = questions.iter().zip(&mut found).map(|(question, Found { situation, read })| {
            (&question.conversation_id, &mut situation.conversation, read)
        });
        heed(&self.reading, self.partitions, of.collect()).await?;
        Ok(found)
    }

    fn cells(&self, question: &Question) -> [(u32, String); 3] {
        let user = self.user(question);
        let home = self.home(&user);
        [
            (self.home(&question.conversation_id), conversation_key(&question.conversation_id)),
            (home, enablement_key(&user)),
            (home, membership_key(&user, &question.conversation_id)),
        ]
    }

    /// All partitions at once: each is a question to the gate.
    async fn values(&self, by_partition: BTreeMap<u32, Vec<String>>) -> Result<Values, Failure> {
        let mut values = Values::default();
        let asked = by_partition.into_iter().map(async |(partition, keys)| {
            let snapshot = self.reading.glance(partition, &keys).await?;
            Ok::<_, Failure>((partition, keys, snapshot))
        });
        for (partition, keys, Snapshot { applied, answers, .. }) in try_join_all(asked).await? {
            values.applied.insert(partition, applied);
            values.values.extend(keys.into_iter().zip(answers));
        }
        Ok(values)
    }

    /// Who is no contact by the conversation's own id may be one by an alias.
    async fn by_aliases(&self, questions: &[Question], all: &mut [Found]) -> Result<(), Failure> {
        let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut asked = Vec::new();
        for (at, (question, Found { situation, .. })) in questions.iter().zip(all.iter()).enumerate() {
            if !situation.is_contact && !situation.conversation.aliases.is_empty() {
                let user = self.user(question);
                let keys = alias_membership_keys(&user, &situation.conversation);
                by_partition.entry(self.home(&user)).or_default().extend(keys.clone());
                asked.push((at, user, keys));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let values = self.values(by_partition).await?;
        for (at, user, keys) in asked {
            for key in keys {
                all[at].situation.is_contact |= !load::<Membership>(values.get(&key))?.is_empty();
            }
            let home = self.home(&user);
            all[at].read.push(values.read(&user, home));
        }
        Ok(())
    }

    /// How the contact list of the question's user addresses the person of a conversation: for people of whom the conversation itself knows
    /// no address, because they never wrote. Reads the entries that lead there, however long the list is.
    ///
    /// # Errors
    /// `Later` when the list cannot be decided on; when gate or log are away.
    pub async fn listed_address(
        &self,
        question: &Question,
        conversation: &Conversation,
    ) -> Result<Option<Address>, Failure> {
        let user = self.user(question);
        let mut keys = alias_membership_keys(&user, conversation);
        keys.push(membership_key(&user, &question.conversation_id));
        let mut contacts = Membership::new();
        for stored in self.settled_values(&user, keys).await? {
            contacts.append(&mut load(stored.as_ref())?);
        }
        let keys: Vec<_> = contacts.iter().map(|contact| contact_key(&user, contact)).collect();
        let is_theirs = |id: &StreamId| *id == question.conversation_id || conversation.aliases.contains(id);
        for keys in keys.chunks(ENTRIES_AT_ONCE) {
            for stored in self.settled_values(&user, keys.to_vec()).await? {
                let entry: ContactEntry = load(stored.as_ref())?;
                if entry.conversation_id.as_ref().is_some_and(is_theirs) && !entry.address.is_empty() {
                    return Ok(Some(entry.address));
                }
            }
        }
        Ok(None)
    }

    /// Values of one stream that have everything the log says about it.
    ///
    /// # Errors
    /// `Later` when they have not; when gate or log are away.
    pub async fn settled_values(&self, stream: &StreamId, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Failure> {
        let partition = self.home(stream);
        let (moment, snapshot) =
            futures::try_join!(self.tail.moment([partition]), self.reading.glance(partition, &keys))?;
        let read = Read { stream: stream.clone(), partition, applied: snapshot.applied };
        if self.tail.settled(&moment, &[read]).await? != [true] {
            return Err(Failure::Later(format!("view {partition} lacks what the log says about a stream")));
        }
        Ok(snapshot.answers)
    }
}

fn situation<'a>(
    organization: &OrganizationId,
    cells: &[(u32, String); 3],
    value: impl Fn(&str) -> Option<&'a Bytes>,
) -> Result<Situation, Failure> {
    let [conversation, enablement, membership] = cells;
    Ok(Situation {
        conversation: load::<Conversation>(value(&conversation.1))?.seen_by(organization),
        enablement: load(value(&enablement.1))?,
        is_contact: !load::<Membership>(value(&membership.1))?.is_empty(),
    })
}
