//! Numbers that WhatsApp gives to somebody else (R10): a stream id names a conversation for ever, an address names whoever has it at a moment.

use serde::{Deserialize, Serialize};

use crate::event::IdentityPassedOn;
use crate::ids::{PhoneNumber, StreamId};
use crate::phone::one_form;
use crate::time::Timestamp;

/// One moment at which a number began to name somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The stream id that follows from the number.
    pub identity: StreamId,
    /// The number.
    #[serde(default)]
    pub phone: Option<PhoneNumber>,
    /// The first moment at which it names somebody else.
    pub since: Timestamp,
    /// The conversation with whoever has it from then on.
    pub successor: StreamId,
}

impl From<&IdentityPassedOn> for Handover {
    fn from(passed: &IdentityPassedOn) -> Self {
        Self {
            identity: passed.identity.clone(),
            phone: passed.address.phone.clone(),
            since: passed.since,
            successor: passed.successor.clone(),
        }
    }
}

/// What is known about numbers that were handed over: in the stream of a number all of its moments, in a conversation those it lost numbers at.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handovers(Vec<Handover>);

impl Handovers {
    /// Of what nobody ever handed over.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Nothing was ever handed over.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a moment; the one that was told first counts when two agree about it. Told in any order they are the same.
    pub fn add(&mut self, handover: Handover) {
        let place = |known: &Handover| (&known.identity, known.since) < (&handover.identity, handover.since);
        let at = self.0.partition_point(place);
        let same = |known: &Handover| known.identity == handover.identity && known.since == handover.since;
        if !self.0.get(at).is_some_and(same) {
            self.0.insert(at, handover);
        }
    }

    /// The moments of an identity, in order.
    pub fn of<'a, 'b>(&'a self, identity: &'b StreamId) -> impl DoubleEndedIterator<Item = &'a Handover> + use<'a, 'b> {
        self.0.iter().filter(move |handover| handover.identity == *identity)
    }

    /// The conversation with whoever has the identity at a moment: its own, until it was handed over.
    #[must_use]
    pub fn holder<'a>(&'a self, identity: &'a StreamId, at: Timestamp) -> &'a StreamId {
        self.of(identity).rfind(|handover| handover.since <= at).map_or(identity, |handover| &handover.successor)
    }

    /// Where the conversations with all who ever had one of the identities go on.
    pub fn successors(&self) -> impl Iterator<Item = &StreamId> {
        self.0.iter().map(|handover| &handover.successor)
    }

    /// Whether this number, however it is written, was handed over to another conversation than `own` ones.
    pub(crate) fn gave_up(&self, phone: &PhoneNumber, own: &[StreamId]) -> bool {
        self.0.iter().any(|handover| {
            handover.phone.as_ref().is_some_and(|known| is_same(known, phone)) && !own.contains(&handover.successor)
        })
    }
}

/// Whether two numbers are one, however they are written.
pub(crate) fn is_same(one: &PhoneNumber, other: &PhoneNumber) -> bool {
    one_form(one.expose()) == one_form(other.expose())
}
