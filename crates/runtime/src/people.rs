//! Which conversation continues for a person who is known under several identities (R10).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use connector_domain::conversation::{Conversation, root};
use connector_domain::event::{ConversationLinked, Event, IdentityLearned};
use connector_domain::handover::Handover;
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, EventId, StreamId};
use connector_domain::time::Timestamp;
use futures::future::try_join_all;

use crate::failure::Failure;
use crate::situation::{conversation_key, load, partition_of};
use crate::view::Reading;

/// Aliases of aliases are followed this far; more can only be a circle.
const FARTHEST: usize = 8;

/// What a writer said lately about identities: the views may not have it yet.
#[derive(Clone, Debug, Default)]
pub struct Said {
    handovers: HashMap<StreamId, Vec<Handover>>,
    bsuids: HashMap<StreamId, BTreeSet<Bsuid>>,
}

/// So many streams are kept in [`Said`]; the views have had the time to catch up when it is emptied.
const KEPT: usize = 100_000;

impl Said {
    /// Adds what a batch said.
    pub fn add(&mut self, said: Self) {
        if self.handovers.len() >= KEPT {
            self.handovers.clear();
        }
        for (stream, handovers) in said.handovers {
            self.handovers.entry(stream).or_default().extend(handovers);
        }
        if self.bsuids.len() >= KEPT {
            self.bsuids.clear();
        }
        for (stream, bsuids) in said.bsuids {
            self.bsuids.entry(stream).or_default().extend(bsuids);
        }
    }
}

/// The conversations a batch is about, as the gate has them, and what the batch itself added.
#[derive(Debug, Default)]
pub struct People {
    known: HashMap<StreamId, Conversation>,
    /// What the views may not have. Shared with the writer: it is large, and a batch only reads it.
    before: Arc<Said>,
    /// What the batch says.
    now: Said,
}

/// Which identities of an item name the person of its conversation for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// All of them.
    All,
    /// Not its number, which names one person after the other.
    NotTheNumber,
    /// None: its user id is another person's, too.
    Nothing,
}

/// Which conversation an item belongs to by how it names its person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The stream to go on from.
    pub stream: StreamId,
    /// What the item tells about that conversation.
    pub learns: Learns,
    /// Nobody said so, but the number names somebody else than before: whose it was.
    pub lost_by: Option<StreamId>,
}

/// Two streams found to be one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// `alias` continues in `canonical`. Written by the partition of the alias.
    Into {
        /// The stream that ends here.
        alias: StreamId,
        /// The one that continues.
        canonical: StreamId,
    },
    /// `canonical` learns a further identity. Written by the partition of the canonical stream; the stream `tell`, when there is
    /// one, is told that it continues there.
    Learned {
        /// The one that continues.
        canonical: StreamId,
        /// The stream of the further identity.
        alias: StreamId,
        /// The stream that has to be linked.
        tell: Option<StreamId>,
    },
}

/// The cause of a link: the same two streams are linked once.
fn cause(alias: &StreamId, canonical: &StreamId) -> String {
    format!("{alias}/{canonical}")
}

impl Link {
    /// The id of the event that a repeat of this link is recognised by: the one in the partition of whoever writes it.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        match self {
            Self::Into { alias, canonical } => {
                EventId::derived(&format!("ConversationLinked:{}", cause(alias, canonical)))
            }
            Self::Learned { canonical, alias, .. } => {
                EventId::derived(&format!("IdentityLearned:{}", cause(alias, canonical)))
            }
        }
    }

    /// The events that say so, each with its stream and its cause. `address`: what showed the further identity.
    #[must_use]
    pub fn events(&self, address: &Address) -> Vec<(StreamId, Event, String)> {
        let linked = |alias: &StreamId, canonical: &StreamId| {
            let event = ConversationLinked { canonical: canonical.clone() }.into();
            (alias.clone(), event, cause(alias, canonical))
        };
        match self {
            Self::Into { alias, canonical } => vec![linked(alias, canonical)],
            Self::Learned { canonical, alias, tell } => {
                let learned = IdentityLearned { address: address.clone(), alias: alias.clone() };
                let learned = (canonical.clone(), learned.into(), cause(alias, canonical));
                std::iter::once(learned).chain(tell.iter().map(|tell| linked(tell, canonical))).collect()
            }
        }
    }
}

impl People {
    /// Nobody is read yet; `before`: what this writer said lately.
    #[must_use]
    pub fn beside(before: Arc<Said>) -> Self {
        Self { before, ..Self::default() }
    }

    /// What the batch said.
    #[must_use]
    pub fn said(self) -> Said {
        self.now
    }

    /// Reads these streams and the ones they continue in, one question per partition and step.
    ///
    /// # Errors
    /// When the gate is away or a stored conversation cannot be read.
    pub async fn read(&mut self, reading: &Reading, partitions: u32, mut wanted: Vec<StreamId>) -> Result<(), Failure> {
        for _ in 0..FARTHEST {
            let mut by_partition: BTreeMap<u32, Vec<StreamId>> = BTreeMap::new();
            wanted.sort();
            wanted.dedup();
            for stream in wanted.drain(..).filter(|stream| !self.known.contains_key(stream)) {
                by_partition.entry(partition_of(&stream, partitions)).or_default().push(stream);
            }
            let asked = by_partition.into_iter().map(async |(partition, streams)| {
                let keys: Vec<_> = streams.iter().map(conversation_key).collect();
                // As it is now is enough: an alias that is not known yet is recorded under its own stream, which is linked later.
                let snapshot = reading.glance(partition, &keys).await?;
                Ok::<_, Failure>(streams.into_iter().zip(snapshot.answers))
            });
            for answered in try_join_all(asked).await? {
                for (stream, stored) in answered {
                    let conversation: Conversation = load(stored.as_ref())?;
                    wanted.extend(conversation.canonical.clone());
                    wanted.extend(conversation.handovers.successors().cloned());
                    wanted
                        .extend(self.before.handovers.get(&stream).into_iter().flatten().map(|h| h.successor.clone()));
                    self.known.insert(stream, conversation);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Whether it is settled that these identities belong to the conversation that `own` continues in.
    #[must_use]
    pub fn knows_all(&self, own: &StreamId, identities: &[StreamId]) -> bool {
        let root = self.root(own);
        identities.iter().all(|alias| *alias == root || self.has_alias(&root, alias))
    }

    /// Where a stream continues: itself, when it is no alias; the same for everybody in a circle.
    #[must_use]
    pub fn root(&self, stream: &StreamId) -> StreamId {
        root(stream, |at| self.known.get(at).and_then(|conversation| conversation.canonical.clone()))
    }

    /// Whether a stream is somebody: a conversation, or an alias of one.
    #[must_use]
    pub fn is_anybody(&self, stream: &StreamId) -> bool {
        self.is_known(stream) || self.root(stream) != *stream
    }

    /// The moments at which an identity was handed over, in order.
    fn handovers(&self, identity: &StreamId) -> Vec<&Handover> {
        let stored = self.known.get(identity).into_iter().flat_map(|conversation| conversation.handovers.of(identity));
        let said = [&*self.before, &self.now].into_iter().filter_map(|said| said.handovers.get(identity)).flatten();
        let mut all: Vec<&Handover> = stored.chain(said).collect();
        all.sort_by_key(|handover| handover.since);
        all.dedup_by_key(|handover| handover.since);
        all
    }

    /// The stream of whoever has an identity at a moment, as far as that is known: its own, until it was handed over.
    #[must_use]
    pub fn holder(&self, identity: &StreamId, at: Timestamp) -> StreamId {
        let handovers = self.handovers(identity);
        let held = handovers.into_iter().rfind(|handover| handover.since <= at);
        held.map_or_else(|| identity.clone(), |handover| handover.successor.clone())
    }

    /// Whether an identity ever was handed over.
    #[must_use]
    pub fn was_handed_over(&self, identity: &StreamId) -> bool {
        !self.handovers(identity).is_empty()
    }

    /// Whether an identity was handed over later than at a moment.
    fn is_handed_over_after(&self, identity: &StreamId, at: Timestamp) -> bool {
        self.handovers(identity).last().is_some_and(|handover| handover.since > at)
    }

    /// The conversation of a stream, as it was read.
    #[must_use]
    pub fn conversation(&self, stream: &StreamId) -> Option<&Conversation> {
        self.known.get(stream)
    }

    /// Whether a conversation has had a message in either direction, or consent.
    fn has_spoken(&self, stream: &StreamId) -> bool {
        self.known.get(stream).is_some_and(|conversation| {
            conversation.last_inbound.is_some() || conversation.deadline.is_some() || conversation.begun().is_some()
        })
    }

    /// Whether the person of a conversation is known to have another business-scoped user id than this one, whose stream is `stream`. Who
    /// gets a new one keeps the conversation: the former ones are its aliases.
    fn is_another(&self, conversation: &StreamId, bsuid: &Bsuid, stream: &StreamId) -> bool {
        if conversation == stream || self.has_alias(conversation, stream) {
            return false;
        }
        let stored = self.known.get(conversation).and_then(|conversation| conversation.address.bsuid.as_ref());
        let said = [&*self.before, &self.now].into_iter().filter_map(|said| said.bsuids.get(conversation)).flatten();
        let mut theirs = stored.into_iter().chain(said).peekable();
        theirs.peek().is_some() && !theirs.any(|known| known == bsuid)
    }

    /// Whether a person had an identity before it was handed over, the last time.
    fn had(&self, identity: &StreamId, person: &StreamId) -> bool {
        let handovers = self.handovers(identity);
        let Some((_, earlier)) = handovers.split_last() else { return false };
        let before = earlier.iter().map(|handover| &handover.successor).chain([identity]);
        before.into_iter().any(|stream| self.root(stream) == *person)
    }

    /// Whose an item is that happened at `at`. A user id says more than a number, which may have been given to somebody else: with another
    /// user id than the one known under the number it is another person's, and nobody's answer counts for the other (R10).
    #[must_use]
    pub fn whose(&self, home: &StreamId, bsuid: Option<(&Bsuid, &StreamId)>, at: Timestamp) -> Whose {
        let held = self.holder(home, at);
        let by_number = Whose { stream: held.clone(), learns: self.learns(home), lost_by: None };
        let Some((bsuid, own)) = bsuid.filter(|(_, own)| *own != home) else { return by_number };
        let there = self.root(&held);
        let person = self.is_anybody(own).then(|| self.root(own));
        if person.as_ref() == Some(&there) {
            return by_number;
        }
        let another = self.is_another(&there, bsuid, own);
        let returns = person.as_ref().is_some_and(|person| self.had(home, person));
        if !another && !returns {
            return by_number;
        }
        let heard = self.known.get(&there).and_then(|conversation| conversation.last_inbound);
        let is_news = !returns && heard < Some(at) && !self.is_handed_over_after(home, at);
        Whose {
            stream: person.unwrap_or_else(|| own.clone()),
            learns: Learns::NotTheNumber,
            lost_by: is_news.then_some(there),
        }
    }

    fn learns(&self, home: &StreamId) -> Learns {
        if self.was_handed_over(home) { Learns::NotTheNumber } else { Learns::All }
    }

    /// Whose a status is: a message to somebody is theirs, also when it is told after they gave the number up; only of who was written to
    /// under it since then there can be another. A status alone hands no number over.
    #[must_use]
    pub fn whose_status(&self, home: &StreamId, bsuid: Option<(&Bsuid, &StreamId)>, at: Timestamp) -> Whose {
        let held = self.holder(home, at);
        let stream = if self.has_spoken(&self.root(&held)) { held } else { home.clone() };
        let there = self.root(&stream);
        let another = bsuid.is_some_and(|(bsuid, own)| self.is_another(&there, bsuid, own));
        let learns = if another { Learns::Nothing } else { self.learns(home) };
        Whose { stream, learns, lost_by: None }
    }

    /// Whether a number that `person` gets at `at`, and that was another stream's, was somebody else's until then. It was not when they wrote
    /// from it before WhatsApp said that they have it.
    #[must_use]
    pub fn was_anothers(&self, identity: &StreamId, person: &StreamId, bsuids: &[StreamId], at: Timestamp) -> bool {
        let there = self.root(&self.holder(identity, at));
        if there == *person {
            return false;
        }
        if self.was_handed_over(identity) {
            return true;
        }
        let Some(conversation) = self.known.get(&there) else { return false };
        if bsuids.iter().any(|own| *own == there || conversation.aliases.contains(own)) {
            return false;
        }
        // Without a user id only the time tells.
        !bsuids.is_empty() && conversation.address.bsuid.is_some()
            || conversation.begun().is_some_and(|begun| begun <= at)
    }

    /// The batch has said that an identity is somebody else's.
    pub fn passed(&mut self, handover: Handover) {
        self.now.handovers.entry(handover.identity.clone()).or_default().push(handover);
    }

    /// The batch has recorded that the person of a conversation has this user id.
    pub fn has_bsuid(&mut self, conversation: &StreamId, bsuid: &Bsuid) {
        self.now.bsuids.entry(conversation.clone()).or_default().insert(bsuid.clone());
    }

    fn is_known(&self, stream: &StreamId) -> bool {
        self.known.get(stream).is_some_and(|conversation| *conversation != Conversation::default())
    }

    fn has_alias(&self, stream: &StreamId, alias: &StreamId) -> bool {
        self.known.get(stream).is_some_and(|conversation| conversation.aliases.contains(alias))
    }

    /// The stream in which an item of `own` (at the partition of `own`) belongs, and the link that has to be written for that: the
    /// first known identity continues, and a new one becomes its alias.
    #[must_use]
    pub fn place(&self, own: &StreamId, identities: &[StreamId]) -> (StreamId, Option<Link>) {
        let root = self.root(own);
        if root != *own || self.is_known(own) {
            return (root, None);
        }
        let earlier = identities.iter().map(|stream| self.root(stream)).find(|root| root != own && self.is_known(root));
        match earlier {
            Some(canonical) => (canonical.clone(), Some(Link::Into { alias: own.clone(), canonical })),
            None => (root, None),
        }
    }

    /// What the conversation `canonical` has to learn about the identities of an item whose own stream is `own`.
    #[must_use]
    pub fn learn(&self, canonical: &StreamId, own: &StreamId, identities: &[StreamId]) -> Vec<Link> {
        let mut links = Vec::new();
        for alias in std::iter::once(own).chain(identities) {
            if alias == canonical || self.has_alias(canonical, alias) {
                continue;
            }
            let root = self.root(alias);
            // The item's own stream was linked by its own partition when the item was sent on.
            let tell = (alias != own && root != *canonical).then_some(root);
            links.push(Link::Learned { canonical: canonical.clone(), alias: alias.clone(), tell });
        }
        links
    }

    /// The batch has written this link: what follows in it counts on it.
    pub fn add(&mut self, link: &Link) {
        match link {
            Link::Into { alias, canonical } => self.link(alias, canonical),
            Link::Learned { canonical, alias, tell } => {
                self.known.entry(canonical.clone()).or_default().aliases.push(alias.clone());
                if let Some(tell) = tell {
                    self.link(tell, canonical);
                }
            }
        }
    }

    fn link(&mut self, alias: &StreamId, canonical: &StreamId) {
        self.known.entry(alias.clone()).or_default().canonical = Some(canonical.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(known: &[(&str, Option<&str>, &[&str])]) -> People {
        let conversation = |canonical: Option<&str>, aliases: &[&str]| Conversation {
            phone_number_id: Some("n".into()),
            canonical: canonical.map(StreamId::from),
            aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
            ..Conversation::default()
        };
        let known = known.iter().map(|(id, to, aliases)| ((*id).into(), conversation(*to, aliases))).collect();
        People { known, ..People::default() }
    }

    #[test]
    fn aliases_are_followed_and_a_circle_has_one_root() {
        let people =
            people(&[("a", Some("b"), &[]), ("b", Some("c"), &[]), ("x", Some("y"), &[]), ("y", Some("x"), &[])]);
        assert_eq!(people.root(&"a".into()), "c".into());
        assert_eq!(people.root(&"new".into()), "new".into());
        assert_eq!(people.root(&"x".into()), "x".into());
        assert_eq!(people.root(&"y".into()), "x".into());
        assert_eq!(people.place(&"y".into(), &["x".into()]), ("x".into(), None), "nothing is linked anew");
    }

    #[test]
    fn the_identity_known_first_continues() {
        let people = people(&[("bsuid", None, &[])]);
        let (stream, link) = people.place(&"phone".into(), &["bsuid".into()]);
        assert_eq!(stream, "bsuid".into());
        assert_eq!(link, Some(Link::Into { alias: "phone".into(), canonical: "bsuid".into() }));
        assert_eq!(people.place(&"phone".into(), &["other".into()]), ("phone".into(), None));
        // The conversation that continues learns the phone; the phone's own stream is linked already.
        let learned = people.learn(&"bsuid".into(), &"phone".into(), &["bsuid".into()]);
        assert_eq!(learned, [Link::Learned { canonical: "bsuid".into(), alias: "phone".into(), tell: None }]);
    }

    #[test]
    fn what_is_known_or_written_in_this_batch_is_not_learned_again() {
        let mut people = people(&[("phone", None, &[])]);
        let learn = |people: &People| people.learn(&"phone".into(), &"phone".into(), &["bsuid".into()]);
        let first = learn(&people);
        assert!(matches!(&first[..], [Link::Learned { tell: Some(tell), .. }] if *tell == "bsuid".into()));
        people.add(&first[0]);
        assert!(learn(&people).is_empty());
        assert_eq!(people.root(&"bsuid".into()), "phone".into());
    }
}
