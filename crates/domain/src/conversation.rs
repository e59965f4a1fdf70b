//! The fold of one conversation: who the contact is, what they consented to, until when free-form text is possible.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{ContentKind, SendPurpose};
use crate::consent::{ConsentState, Intent};
use crate::event::{CallReceived, Event, IdentityPassedOn, MessageReceived};
use crate::handover::{Handovers, is_same};
use crate::identity::Address;
use crate::ids::{EventId, OrganizationId, PhoneNumber, PhoneNumberId, StreamId};
use crate::outcome::MarketingRefusal;
use crate::status::DeliveryStatus;
use crate::time::Timestamp;

/// What decisions need to know about a conversation. Small: it is stored per conversation in the gate.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Conversation {
    /// Whose conversation it is: the organization that had the number when something was last done in it. `None`: it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrganizationId>,
    /// The business number of the conversation.
    pub phone_number_id: Option<PhoneNumberId>,
    /// How WhatsApp addresses the contact.
    pub address: Address,
    /// Set when this stream is only an alias (R10).
    pub canonical: Option<StreamId>,
    /// The stream ids that are aliases of this conversation.
    pub aliases: Vec<StreamId>,
    /// What the contact agreed to.
    pub consent: ConsentState,
    /// The end of the current or last customer service window. Moves forward only.
    pub deadline: Option<Timestamp>,
    /// When the contact last wrote, by WhatsApp's clock.
    pub last_inbound: Option<Timestamp>,
    /// When the window that ends at `deadline` was opened (first message or call after a closed time), for `WindowOpened`.
    pub window_since: Option<Timestamp>,
    /// The last deadline whose expiry stands in the log.
    pub expired: Option<Timestamp>,
    /// When a template was last accepted for sending; free-form text needs a reply after it once the window is over (P14).
    pub last_template: Option<Timestamp>,
    /// The contact stopped marketing messages: in WhatsApp itself, as its switch or a refusal tells, or with "Stop promotions".
    pub marketing_stopped: bool,
    /// When the contact last said so, or the contrary, by WhatsApp's clock: webhooks overtake each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marketing_since: Option<Timestamp>,
    /// When WhatsApp last said that this person gets no marketing message for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marketing_refused: Option<Timestamp>,
    /// Numbers that name somebody else by now: the one this stream follows from, and those the contact gave up (R10).
    #[serde(skip_serializing_if = "Handovers::is_empty")]
    pub handovers: Handovers,
}

/// Where links that were followed over `path` lead on from its end when `next` closes a circle (R10): to the least stream of the circle,
/// whoever asks and wherever they came in. Two links of one pair that are written at the same moment make one. `None`: no circle.
#[must_use]
pub fn closed(path: &[StreamId], next: &StreamId) -> Option<StreamId> {
    let begin = path.iter().position(|stream| stream == next)?;
    path[begin..].iter().min().cloned()
}

/// The stream in which a conversation continues: the one that links no further, or the least of a circle.
#[must_use]
pub fn root(stream: &StreamId, next: impl Fn(&StreamId) -> Option<StreamId>) -> StreamId {
    let mut path = vec![stream.clone()];
    while let Some(linked) = path.last().and_then(&next) {
        if let Some(least) = closed(&path, &linked) {
            return least;
        }
        path.push(linked);
    }
    path.pop().unwrap_or_else(|| stream.clone())
}

/// The conversation `own` as its person left it: with what they said to streams that lead there (R10), directly or over others.
/// `known` has `own`, and whatever is known of its aliases and of where these lead; a stream that `own` calls its alias and that links
/// nowhere yet leads to `own`. Empty when `known` does not have `own`.
#[must_use]
pub fn heeding(own: &StreamId, known: &BTreeMap<StreamId, Conversation>) -> Conversation {
    let mut heard = known.clone();
    let aliases = known.get(own).map(|conversation| conversation.aliases.as_slice()).unwrap_or_default();
    let links: Vec<(&StreamId, &StreamId)> = known
        .iter()
        .filter_map(|(stream, conversation)| {
            let home = || aliases.contains(stream).then_some(own);
            conversation.canonical.as_ref().or_else(home).map(|to| (stream, to))
        })
        .filter(|(from, to)| from != to)
        .collect();
    // A no goes over one link after the other, so after as many rounds as there are links it is where it leads; mostly after one.
    for _ in 0..links.len() {
        let mut moved = false;
        for (from, to) in &links {
            let Some(alias) = heard.get(*from).cloned() else { continue };
            if let Some(conversation) = heard.get_mut(*to) {
                let before = conversation.clone();
                conversation.heed(&alias);
                moved |= *conversation != before;
            }
        }
        if !moved {
            break;
        }
    }
    heard.remove(own).unwrap_or_default()
}

impl Conversation {
    /// Folds one event of this conversation's stream, which happened at `at` (its envelope's `occurred_at`) and has the id `id`.
    /// Total: any event in any order is taken, foreign ones change nothing.
    ///
    /// Four writers append in any interleaving. The contact's own message moves the window and the consent right here;
    /// what the tracker and the timer announce about it later changes nothing any more (R8).
    pub fn evolve(&mut self, event: &Event, id: EventId, at: Timestamp) {
        match event {
            Event::MessageReceived(message) => self.received(message, id, at),
            Event::CallReceived(call) => self.called(call, at),
            Event::MessageAccepted(accepted) => {
                self.number(&accepted.phone_number_id);
                if accepted.content.kind == ContentKind::Template {
                    self.last_template = self.last_template.max(Some(at));
                }
            }
            Event::MessageSent(sent) if sent.purpose == SendPurpose::OptIn => self.consent.told(&sent.wamid),
            Event::MessageFailed(failed) => self.refused(failed.error_code, at),
            Event::MessageStatusChanged(status) if status.status == DeliveryStatus::Failed => {
                self.refused(status.error_code, at);
            }
            Event::OptInRequested(requested) => {
                self.number(&requested.phone_number_id);
                self.consent.requested(requested.expires_at, requested.message_id, id, at);
            }
            Event::OptInExpired(expired) => self.consent.expired(expired.expires_at, id, at),
            Event::OptInFailed(failed) => self.consent.failed(failed.expires_at, failed.error_code.is_some(), id, at),
            Event::ConsentImported(_) => self.consent.imported(id, at),
            Event::ConsentRevoked(_) => self.consent.revoked(id, at),
            Event::OptOutCarriedOver(no) if no.marketing_only => self.marketing(true, no.since),
            Event::OptOutCarriedOver(no) => self.consent.carried_over(no.since, id),
            Event::WindowExpired(expired) if self.deadline == Some(expired.deadline) => {
                self.expired = Some(expired.deadline);
            }
            Event::MarketingPreferenceChanged(preference) => self.marketing(preference.stopped, at),
            Event::IdentityLearned(learned) => {
                // The newer knowledge wins: WhatsApp normalises numbers, and people change them.
                self.readdressed(&learned.address);
                if !self.aliases.contains(&learned.alias) {
                    self.aliases.push(learned.alias.clone());
                }
            }
            Event::ConversationLinked(linked) => self.canonical = Some(linked.canonical.clone()),
            Event::IdentityPassedOn(passed) => self.passed_on(passed),
            Event::IdentityTakenOver(taken) => {
                self.number(&taken.phone_number_id);
                // It may have been handed on again already.
                if self.handovers.of(&taken.identity).all(|handover| handover.since <= taken.since) {
                    self.readdressed(&taken.address);
                }
            }
            _ => {}
        }
    }

    /// What is left of a conversation for another organization that gets the number (P4): who the person is, and every no that they said to
    /// the number. Nothing that the person allowed the former owner is allowed to the next one, and none of their windows is.
    #[must_use]
    pub fn handed_over(&self, to: &OrganizationId) -> Self {
        Self {
            organization_id: Some(to.clone()),
            phone_number_id: self.phone_number_id.clone(),
            address: self.address.clone(),
            canonical: self.canonical.clone(),
            aliases: self.aliases.clone(),
            consent: self.consent.handed_over(),
            marketing_stopped: self.marketing_stopped,
            marketing_since: self.marketing_since,
            marketing_refused: self.marketing_refused,
            handovers: self.handovers.clone(),
            ..Self::default()
        }
    }

    /// The conversation as an organization has it that has the number now, whoever had it when something was last done in it.
    #[must_use]
    pub fn seen_by(self, organization: &OrganizationId) -> Self {
        if self.is_of_another(organization) { self.handed_over(organization) } else { self }
    }

    fn is_of_another(&self, organization: &OrganizationId) -> bool {
        self.organization_id.as_ref().is_some_and(|owner| owner != organization)
    }

    /// Takes note of whose event comes next, before it is folded. `false`: it is not to be folded, it ends what a former owner of the number
    /// began.
    pub fn is_entered_by(&mut self, organization: &OrganizationId, event: &Event) -> bool {
        if !self.is_of_another(organization) {
            self.organization_id.get_or_insert_with(|| organization.clone());
            return true;
        }
        match event {
            // Nobody does this without having the number.
            Event::MessageReceived(_)
            | Event::CallReceived(_)
            | Event::MessageAccepted(_)
            | Event::OptInRequested(_)
            | Event::ConsentImported(_)
            | Event::ConsentRevoked(_)
            | Event::MarketingPreferenceChanged(_) => {
                *self = self.handed_over(organization);
                true
            }
            // Who a person is, and a no, counts whoever tells of it.
            _ => matches!(
                event,
                Event::IdentityLearned(_)
                    | Event::IdentityPassedOn(_)
                    | Event::IdentityTakenOver(_)
                    | Event::ConversationLinked(_)
                    | Event::OptOutCarriedOver(_)
            ),
        }
    }

    /// Where a message to the contact goes, when `given` is how they were addressed when it was accepted: to where they are now. `None` when
    /// they gave that up, and nothing else is known: whoever has it now is somebody else (R10).
    #[must_use]
    pub fn reached_at(&self, given: &Address) -> Option<Address> {
        if !self.address.is_empty() {
            return Some(self.address.clone());
        }
        let phone = given.phone.clone().filter(|phone| !self.gave_up(phone));
        Some(Address { phone, bsuid: given.bsuid.clone() }).filter(|address| !address.is_empty())
    }

    /// Whether the contact gave this number up, so that it names somebody else.
    #[must_use]
    pub fn gave_up(&self, phone: &PhoneNumber) -> bool {
        let has_it = self.address.phone.as_ref().is_some_and(|own| is_same(own, phone));
        !has_it && self.handovers.gave_up(phone, &self.aliases)
    }

    /// When the contact, or the business with them, is first known to have said anything.
    #[must_use]
    pub fn begun(&self) -> Option<Timestamp> {
        [self.consent.since, self.window_since, self.last_template].into_iter().flatten().min()
    }

    /// The contact declined or opted out: nothing may leave (P9).
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.consent.blocked()
    }

    /// What was said to `alias`, which leads here (R10), and stands in no event of this stream yet: its no, as if it had been carried
    /// over, and how often the person was asked there. For decisions, which must not wait until it is.
    pub fn heed(&mut self, alias: &Self) {
        self.consent.asked_elsewhere(&alias.consent.asks);
        if let Some((since, id)) = alias.consent.since.zip(alias.consent.source).filter(|_| alias.blocked()) {
            self.consent.carried_over(since, id);
        }
        if let Some(since) = alias.marketing_since.filter(|_| alias.marketing_stopped) {
            self.marketing(true, since);
        }
        self.marketing_refused = self.marketing_refused.max(alias.marketing_refused);
    }

    /// Whether [`Conversation::evolve`] may make something else of a conversation because of this event.
    #[must_use]
    pub const fn is_moved_by(event: &Event) -> bool {
        const fn refused(code: Option<i64>) -> bool {
            matches!(code, Some(code) if MarketingRefusal::of(code).is_some())
        }
        match event {
            Event::MessageReceived(_)
            | Event::CallReceived(_)
            | Event::MessageAccepted(_)
            | Event::OptInRequested(_)
            | Event::OptInExpired(_)
            | Event::OptInFailed(_)
            | Event::ConsentImported(_)
            | Event::ConsentRevoked(_)
            | Event::OptOutCarriedOver(_)
            | Event::WindowExpired(_)
            | Event::MarketingPreferenceChanged(_)
            | Event::IdentityLearned(_)
            | Event::IdentityPassedOn(_)
            | Event::IdentityTakenOver(_)
            | Event::ConversationLinked(_) => true,
            Event::MessageSent(sent) => matches!(sent.purpose, SendPurpose::OptIn),
            Event::MessageFailed(failed) => refused(failed.error_code),
            Event::MessageStatusChanged(status) => {
                matches!(status.status, DeliveryStatus::Failed) && refused(status.error_code)
            }
            Event::AccountNotice(_)
            | Event::MessageRejected(_)
            | Event::MessageUnconfirmed(_)
            | Event::NumberPaused(_)
            | Event::NumberResumed(_)
            | Event::OptInAccepted(_)
            | Event::OptInDeclined(_)
            | Event::OptedOut(_)
            | Event::OptedBackIn(_)
            | Event::WindowOpened(_)
            | Event::WindowClosingSoon(_)
            | Event::WhatsAppEnabled(_)
            | Event::WhatsAppDisabled(_)
            | Event::ActivationNoticeRaised(_)
            | Event::ActivationNoticeAcknowledged(_)
            | Event::ContactAdded(_)
            | Event::ContactRemoved(_) => false,
        }
    }

    /// A message of ours was refused with this code, at once or later.
    fn refused(&mut self, code: Option<i64>, at: Timestamp) {
        match code.and_then(MarketingRefusal::of) {
            Some(MarketingRefusal::Stopped) => self.marketing(true, at),
            Some(MarketingRefusal::ForNow) => self.marketing_refused = self.marketing_refused.max(Some(at)),
            None => {}
        }
    }

    fn marketing(&mut self, stopped: bool, at: Timestamp) {
        if self.marketing_since <= Some(at) {
            self.marketing_stopped = stopped;
            self.marketing_since = Some(at);
        }
    }

    /// The contact is addressed like this from now on; what is not said stays.
    fn readdressed(&mut self, address: &Address) {
        let older = std::mem::replace(&mut self.address, address.clone());
        self.address.learn(&older);
    }

    /// A number names somebody else from a moment on. Whoever lost it is not addressed by it any more, unless that was before they got it.
    fn passed_on(&mut self, passed: &IdentityPassedOn) {
        self.handovers.add(passed.into());
        let is_newest = self.handovers.of(&passed.identity).all(|handover| handover.since <= passed.since);
        let lost = |own: &PhoneNumber| passed.address.phone.as_ref().is_some_and(|phone| is_same(own, phone));
        if is_newest && self.address.phone.as_ref().is_some_and(lost) {
            self.address.phone = None;
        }
    }

    /// Fills what is not known of the address. A message may have been on its way while its number was given up.
    fn learn(&mut self, address: &Address) {
        let phone = address.phone.clone().filter(|phone| !self.gave_up(phone));
        self.address.learn(&Address { phone, bsuid: address.bsuid.clone() });
    }

    fn number(&mut self, number: &PhoneNumberId) {
        self.phone_number_id.get_or_insert_with(|| number.clone());
    }

    fn received(&mut self, message: &MessageReceived, id: EventId, at: Timestamp) {
        self.number(&message.phone_number_id);
        self.learn(&message.address);
        // What opens no window was not written by the contact (`system`), so it is no reply and implies nothing.
        let wrote = message.window_deadline.is_some();
        if wrote {
            self.last_inbound = self.last_inbound.max(Some(at));
        }
        if let Some(deadline) = message.window_deadline {
            self.open_until(deadline, at);
        }
        let tapped = matches!(message.message_type.as_str(), "button" | "interactive");
        let said = (message.intent, message.answer);
        let intent = self.consent.meaning(said, message.reply_to.as_ref(), tapped, id, at);
        self.consent.answered(intent, tapped, wrote, id, at);
        match intent {
            Intent::StopMarketing => self.marketing(true, at),
            // Whoever wants to be written to again says nothing about what; WhatsApp has its own switch, and refuses if that is off.
            Intent::Start => self.marketing(false, at),
            Intent::Accept | Intent::Decline | Intent::Stop | Intent::Other => {}
        }
    }

    /// A call is no message: it moves the window alone. Whoever calls has not asked to be written to, so consent stays what it is, `implied`
    /// included (P6, P9, P15), and there is nothing that could be marked as read.
    fn called(&mut self, call: &CallReceived, at: Timestamp) {
        self.number(&call.phone_number_id);
        self.learn(&call.address);
        self.open_until(call.window_deadline, at);
    }

    /// The contact did something at `at` that opens the window until `deadline`, or renews it.
    fn open_until(&mut self, deadline: Timestamp, at: Timestamp) {
        if Some(deadline) > self.deadline {
            let closed = self.deadline.is_none_or(|old| at >= old || self.expired == Some(old));
            if closed {
                self.window_since = Some(at);
            }
            self.deadline = Some(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_their_end_and_a_circle_has_one_root_from_everywhere() {
        let links = [("a", "b"), ("b", "c"), ("x", "z"), ("z", "y"), ("y", "x"), ("w", "z"), ("s", "s")];
        let next = |from: &StreamId| links.iter().find(|(link, _)| *link == from.as_str()).map(|(_, to)| (*to).into());
        for (from, to) in
            [("a", "c"), ("b", "c"), ("c", "c"), ("x", "x"), ("y", "x"), ("z", "x"), ("w", "x"), ("s", "s")]
        {
            assert_eq!(root(&from.into(), next), to.into(), "{from}");
        }
    }
}
