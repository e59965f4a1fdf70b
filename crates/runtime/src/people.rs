//! Which conversation continues for a person who is known under several identities (R10).

use std::collections::{BTreeMap, HashMap};

use connector_domain::conversation::{Conversation, root};
use connector_domain::event::{ConversationLinked, Event, IdentityLearned};
use connector_domain::identity::Address;
use connector_domain::ids::{EventId, StreamId};
use futures::future::try_join_all;

use crate::failure::Failure;
use crate::situation::{conversation_key, load, partition_of};
use crate::view::Reading;

/// Aliases of aliases are followed this far; more can only be a circle.
const FARTHEST: usize = 8;

/// The conversations a batch is about, as the gate has them, and what the batch itself added.
#[derive(Debug, Default)]
pub struct People {
    known: HashMap<StreamId, Conversation>,
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
        People { known: known.iter().map(|(id, to, aliases)| ((*id).into(), conversation(*to, aliases))).collect() }
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
