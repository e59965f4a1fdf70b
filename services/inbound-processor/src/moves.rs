//! Who has which number and user id from a moment on, written down (R10): what WhatsApp says about it, and what follows from an item.

use std::time::Duration;

use connector_domain::event::{ConversationLinked, IdentityLearned, IdentityPassedOn, IdentityTakenOver};
use connector_domain::handover::Handover;
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{PhoneNumber, PhoneNumberId, StreamId};
use connector_domain::time::Timestamp;
use connector_runtime::failure::Failure;
use connector_runtime::people::{Learns, Link, People};

use crate::handler::Writer;
use crate::meaning::{Meaning, Move};

/// WhatsApp's times are whole seconds. What was written under a number in the second in which its person left it is still theirs.
const SECOND: Duration = Duration::from_secs(1);

/// Writes what an item says about the identities of its person.
pub(crate) struct Mover<'a, 'w> {
    writer: &'a mut Writer<'w>,
    keys: &'a StreamKeys,
    people: &'a mut People,
}

/// A number and the stream that follows from it.
struct Identity {
    stream: StreamId,
    phone: PhoneNumber,
}

impl Identity {
    fn address(&self) -> Address {
        Address { phone: Some(self.phone.clone()), bsuid: None }
    }
}

impl<'a, 'w> Mover<'a, 'w> {
    pub(crate) const fn new(writer: &'a mut Writer<'w>, keys: &'a StreamKeys, people: &'a mut People) -> Self {
        Self { writer, keys, people }
    }

    /// Nobody said so, but somebody else than `loser`, the person of `finder`, wrote or called from their number.
    pub(crate) fn unannounced(&mut self, loser: &StreamId, finder: &StreamId) -> Result<(), Failure> {
        let meaning = self.writer.meaning();
        let Some(phone) = meaning.address.phone.clone() else { return Ok(()) };
        let identity = Identity { stream: meaning.home.clone(), phone };
        self.pass_on(&identity, meaning.occurred_at, finder, loser)
    }

    /// The person said through WhatsApp that they are addressed otherwise from now on. The conversation stays the same; the number they had
    /// names somebody else.
    pub(crate) fn announced(&mut self, person: &StreamId, learns: Learns) -> Result<(), Failure> {
        let meaning = self.writer.meaning();
        let Some(moves) = &meaning.moved_to else { return Ok(()) };
        self.leave(person, moves)?;
        for (n, new) in moves.streams.iter().enumerate() {
            let is_number = moves.by_phone.as_ref() == Some(new);
            if !(is_number && self.take_over(person, moves, new)?) {
                self.learn(person, moves, (n, new), learns)?;
            }
        }
        if let Some(bsuid) = &moves.address.bsuid {
            self.people.has_bsuid(person, bsuid);
        }
        Ok(())
    }

    /// The number that the person had.
    fn leave(&mut self, person: &StreamId, moves: &Move) -> Result<(), Failure> {
        let meaning = self.writer.meaning();
        let known = || self.people.conversation(person).and_then(|conversation| conversation.address.phone.clone());
        let Some(phone) = meaning.address.phone.clone().or_else(known).filter(|_| moves.leaves) else { return Ok(()) };
        let identity = Identity { stream: self.keys.by_phone(&moves.phone_number_id, &phone), phone };
        let since = meaning.occurred_at + SECOND;
        let has = |at: Timestamp| self.people.root(&self.people.holder(&identity.stream, at)) == *person;
        // Told again, or told late, it is known already who has it.
        if moves.by_phone.as_ref() == Some(&identity.stream) || !has(meaning.occurred_at) || !has(since) {
            return Ok(());
        }
        let successor = self.keys.successor(&identity.stream, since);
        self.pass_on(&identity, since, &successor, person)?;
        self.begin(&moves.phone_number_id, &identity.stream, (identity.address(), since), &successor)
    }

    /// The number that the person has now, if it named somebody else before. Whether it did.
    fn take_over(&mut self, person: &StreamId, moves: &Move, stream: &StreamId) -> Result<bool, Failure> {
        let Some(phone) = moves.address.phone.clone() else { return Ok(false) };
        let at = self.writer.meaning().occurred_at;
        let bsuids: Vec<_> = moves.streams.iter().filter(|new| *new != stream).cloned().collect();
        let anothers = self.people.was_anothers(stream, person, &bsuids, at);
        if !anothers && !self.people.was_handed_over(stream) {
            return Ok(false);
        }
        let identity = Identity { stream: stream.clone(), phone };
        if anothers {
            let loser = self.people.root(&self.people.holder(stream, at));
            self.pass_on(&identity, at, person, &loser)?;
        }
        self.begin(&moves.phone_number_id, stream, (moves.address.clone(), at), person)?;
        Ok(true)
    }

    fn pass_on(
        &mut self,
        identity: &Identity,
        since: Timestamp,
        successor: &StreamId,
        loser: &StreamId,
    ) -> Result<(), Failure> {
        let event = IdentityPassedOn {
            identity: identity.stream.clone(),
            address: identity.address(),
            since,
            successor: successor.clone(),
        };
        self.people.passed(Handover::from(&event));
        let mut streams = vec![&identity.stream, loser];
        streams.dedup();
        for stream in streams {
            // One item may hand a number over twice: to who wrote it, and from them to whoever gets it when they leave it.
            let since = since.as_millis();
            let cause = format!("{}/{stream}/{}/{since}", self.writer.meaning().cause_id, identity.stream);
            self.writer.event(event.clone(), stream, cause)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        number: &PhoneNumberId,
        identity: &StreamId,
        (address, since): (Address, Timestamp),
        stream: &StreamId,
    ) -> Result<(), Failure> {
        let (phone_number_id, identity) = (number.clone(), identity.clone());
        let cause = format!("{}/{stream}/{identity}/{}", self.writer.meaning().cause_id, since.as_millis());
        self.writer.event(IdentityTakenOver { phone_number_id, identity, address, since }, stream, cause)
    }

    /// An identity that was nobody else's.
    fn learn(
        &mut self,
        person: &StreamId,
        moves: &Move,
        (n, new): (usize, &StreamId),
        learns: Learns,
    ) -> Result<(), Failure> {
        let Meaning { home, cause_id, .. } = self.writer.meaning();
        // Back to the identity the conversation began with: the other one is the alias then.
        let alias = if new == person && learns == Learns::All { home } else { new };
        if alias == person {
            return Ok(());
        }
        let cause = || if n == 0 { cause_id.clone() } else { format!("{cause_id}/{n}") };
        let learned = IdentityLearned { address: moves.address.clone(), alias: alias.clone() };
        self.writer.event(learned, person, cause())?;
        let root = self.people.root(new);
        let tell = (root != *person).then_some(root);
        if let Some(root) = &tell {
            let linked = ConversationLinked { canonical: person.clone() };
            self.writer.event(linked, root, cause())?;
        }
        self.people.add(&Link::Learned { canonical: person.clone(), alias: alias.clone(), tell });
        Ok(())
    }
}
