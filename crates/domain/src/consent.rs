//! Consent (P6, P9, P15): a state machine per conversation, and the classifier of what people answer.

use serde::{Deserialize, Serialize};

use crate::ids::{CommandId, EventId, Wamid};
use crate::settings::Rules;
use crate::time::Timestamp;

mod defaults;
mod phrases;
mod spelling;
mod words;

pub use phrases::Effort;
pub use words::{
    ConsentVocabulary, ConsentWords, OPT_IN_ACCEPT, OPT_IN_DECLINE, START, STOP, Tap, classify, measured, tapped,
};

/// What a contact's message means for consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Accepts the opt-in.
    Accept,
    /// Declines the opt-in.
    Decline,
    /// STOP in any of the organization's languages.
    Stop,
    /// Stops marketing messages, nothing else.
    StopMarketing,
    /// START in any of the organization's languages.
    Start,
    /// Nothing about consent.
    #[default]
    #[serde(other)]
    Other,
}

/// Where a conversation stands with regard to consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ConsentStatus {
    /// Nobody asked, nobody answered.
    #[default]
    None,
    /// Asked, not answered yet (P9).
    Requested,
    /// The contact accepted.
    Accepted,
    /// The contact declined.
    Declined,
    /// The contact wrote STOP, or an operator revoked.
    OptedOut,
    /// The contact wrote first (P15): replies inside the window, no business-initiated templates.
    Implied,
}

/// The fold of consent.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsentState {
    /// Where it stands.
    pub status: ConsentStatus,
    /// Since when (the `occurred_at` of the event that set it).
    pub since: Option<Timestamp>,
    /// The event that set it; an announcement about another event is stale.
    pub source: Option<EventId>,
    /// When an open request ends without an answer.
    pub expires_at: Option<Timestamp>,
    /// The send command of an open request's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<CommandId>,
    /// When the contact last said what undoes a no: START, or a tap on the opt-in message. Only a later STOP counts, here and to an alias
    /// (R10): webhooks overtake each other, and are read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Timestamp>,
    /// When the contact last accepted in any way, words included. Only a later decline counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
    /// When the contact was last asked. A late answer to it still counts (P9).
    pub asked_at: Option<Timestamp>,
    /// The contact was asked and has not answered, whatever happened otherwise (an import, the end of the request).
    pub unanswered: bool,
    /// No request has reached the contact: the only one, or all of them, failed.
    #[serde(skip_serializing_if = "is_false")]
    pub in_vain: bool,
    /// When the contact was asked, oldest first; the newest [`MOST_ASKS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Timestamp>,
    /// The opt-in messages that WhatsApp took, oldest first; the newest [`MOST_ASKS`]. A tap on any other message is no answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Wamid>,
    /// The contact was asked, and WhatsApp's id of that message is not known (yet).
    #[serde(skip_serializing_if = "is_false")]
    pub untold: bool,
    /// Taps that came while it was not known; the newest [`MOST_EARLY`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub early: Vec<EarlyTap>,
    /// What an open request goes back to when it ends without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BeforeRequest>,
}

/// The requests to one person that are remembered; no limit can be higher.
pub const MOST_ASKS: usize = 16;

/// Taps that are remembered until it is known whether they were on the opt-in message.
pub const MOST_EARLY: usize = 4;

/// A tap on a message that may turn out to be the opt-in message: the contact may be faster than our own word on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyTap {
    /// The message that was tapped.
    pub on: Wamid,
    /// What it answers.
    pub answer: Intent,
    /// The event that tells of it.
    pub id: EventId,
    /// When it was tapped.
    pub at: Timestamp,
}

/// How consent stood before the open request.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BeforeRequest {
    /// `None`, or `Implied` when the contact has written (also: while the request was open).
    pub status: ConsentStatus,
    /// Some earlier request has reached the contact.
    pub reached: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A moment as WhatsApp would tell it, in milliseconds.
const fn whole_seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1000) * 1000
}

impl ConsentState {
    /// The contact declined or opted out: nothing may leave (P9).
    #[must_use]
    pub fn blocked(&self) -> bool {
        matches!(self.status, ConsentStatus::Declined | ConsentStatus::OptedOut)
    }

    /// The contact was asked, and may still answer in time.
    #[must_use]
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.status == ConsentStatus::Requested && self.expires_at.is_none_or(|end| now < end)
    }

    fn set(&mut self, status: ConsentStatus, id: EventId, at: Timestamp) {
        // A no on top of a no is as new as the newer of the two.
        let earlier_no = self.since.filter(|_| self.blocked());
        self.status = status;
        self.since = if self.blocked() { earlier_no.max(Some(at)) } else { Some(at) };
        self.source = Some(id);
        self.expires_at = None;
        self.message = None;
        self.before = None;
    }

    /// What is left of it for another organization that gets the number (P4): a no, and the moment of the last word that undid one, so that a
    /// no which was undone stays so.
    pub(crate) fn handed_over(&self) -> Self {
        let no = if self.blocked() { self.clone() } else { Self::default() };
        let Self { status, since, source, .. } = no;
        Self { status, since, source, agreed: self.agreed, ..Self::default() }
    }

    /// Whether a yes of `at` is not older than the no it would undo. Deliveries overtake each other, and WhatsApp's
    /// timestamps are whole seconds.
    fn not_older(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at.as_millis() >= whole_seconds(since))
    }

    /// The contact wrote (`wrote`) or tapped a button (`tapped`).
    ///
    /// Words count as an answer to the opt-in only where there was a question: a "no" to "shall I call?" is not a decline,
    /// and a "yes" after STOP is not consent, a tap on the old opt-in message is. A question that did not arrive is none; a tap shows
    /// that it did, whatever WhatsApp reported (about another device of the contact, say).
    ///
    /// A no that is older than what undid it has been undone: it was delivered late, or is read again. Within a second the no wins.
    pub(crate) fn answered(&mut self, intent: Intent, tapped: bool, wrote: bool, id: EventId, at: Timestamp) {
        use ConsentStatus as S;
        let intent = match intent {
            Intent::Stop if self.agreed > Some(at) => Intent::Other,
            Intent::Decline if self.agreed.max(self.accepted) > Some(at) => Intent::Other,
            intent => intent,
        };
        let asked = self.asked_at.is_some();
        let heard = asked && (tapped || !self.in_vain);
        let next = match (intent, self.status) {
            (Intent::Stop, S::OptedOut) | (Intent::Decline, S::Declined) => {
                self.since = self.since.max(Some(at));
                None
            }
            (Intent::Stop, _) => Some(S::OptedOut),
            (Intent::Decline, S::OptedOut) => {
                if self.unanswered || tapped {
                    self.since = self.since.max(Some(at));
                }
                None
            }
            (Intent::Decline, _) if self.unanswered || tapped => Some(S::Declined),
            (Intent::Accept, S::Requested) => Some(S::Accepted),
            (Intent::Accept, S::None | S::Implied) if heard => Some(S::Accepted),
            (Intent::Accept, S::Declined) if asked && self.not_older(at) => Some(S::Accepted),
            (Intent::Accept, S::OptedOut) if asked && tapped && self.not_older(at) => Some(S::Accepted),
            (Intent::Start, S::Declined | S::OptedOut) if self.not_older(at) => Some(S::Accepted),
            (_, S::None) if wrote => Some(S::Implied),
            _ => None,
        };
        if matches!(intent, Intent::Stop | Intent::Decline | Intent::Accept) {
            self.unanswered = false;
        }
        if intent == Intent::Start || (intent == Intent::Accept && tapped && asked) {
            self.agreed = self.agreed.max(Some(at));
        }
        if intent == Intent::Accept && heard {
            self.accepted = self.accepted.max(Some(at));
        }
        if let Some(status) = next {
            self.set(status, id, at);
        } else if let Some(before) = self.before.as_mut().filter(|_| wrote) {
            before.status = S::Implied;
        }
    }

    /// A message that is a reply to `on`: what it means, given what it means by itself and what it answers under an opt-in message.
    pub(crate) fn meaning(
        &mut self,
        (intent, answer): (Intent, Intent),
        on: Option<&Wamid>,
        tapped: bool,
        id: EventId,
        at: Timestamp,
    ) -> Intent {
        let under_opt_in = on.is_some_and(|on| self.messages.contains(on));
        match (intent, on) {
            // Words that quote another message speak about that one.
            (Intent::Accept | Intent::Decline, Some(_))
                if !tapped && !under_opt_in && !self.untold && !self.messages.is_empty() =>
            {
                Intent::Other
            }
            (Intent::Other, Some(on)) if tapped && answer != Intent::Other => {
                if under_opt_in {
                    return answer;
                }
                if self.untold {
                    self.early.push(EarlyTap { on: on.clone(), answer, id, at });
                    let surplus = self.early.len().saturating_sub(MOST_EARLY);
                    self.early.drain(..surplus);
                }
                Intent::Other
            }
            (intent, _) => intent,
        }
    }

    /// WhatsApp took the opt-in message under this id. Who tapped it already has answered.
    pub(crate) fn told(&mut self, message: &Wamid) {
        self.untold = false;
        if !self.messages.contains(message) {
            self.messages.push(message.clone());
            let surplus = self.messages.len().saturating_sub(MOST_ASKS);
            self.messages.drain(..surplus);
        }
        for tap in std::mem::take(&mut self.early).into_iter().filter(|tap| tap.on == *message) {
            self.answered(tap.answer, true, true, tap.id, tap.at);
        }
    }

    /// The user asked. Only the contact undoes a no, and who accepted need not be asked again.
    pub(crate) fn requested(&mut self, expires_at: Timestamp, message: Option<CommandId>, id: EventId, at: Timestamp) {
        if matches!(self.status, ConsentStatus::None | ConsentStatus::Implied | ConsentStatus::Requested) {
            let before = self.before.take().filter(|_| self.status == ConsentStatus::Requested);
            let before = before.unwrap_or(BeforeRequest {
                status: if self.status == ConsentStatus::Implied { self.status } else { ConsentStatus::None },
                reached: self.asked_at.is_some() && !self.in_vain,
            });
            self.set(ConsentStatus::Requested, id, at);
            self.before = Some(before);
            self.in_vain = false;
            self.asks.push(at);
            let surplus = self.asks.len().saturating_sub(MOST_ASKS);
            self.asks.drain(..surplus);
            self.expires_at = Some(expires_at);
            self.message = message;
            self.asked_at = Some(at);
            self.unanswered = true;
            self.untold = true;
        }
    }

    /// The request that ends at `expires_at` ended without an answer; stale when it was answered or repeated.
    pub(crate) fn expired(&mut self, expires_at: Timestamp, id: EventId, at: Timestamp) {
        self.end_request(expires_at, id, at);
    }

    /// The message of the request that ends at `expires_at` did not reach the contact; stale when the request was answered or repeated.
    /// A "no" still counts, on the safe side. `left`: it was WhatsApp who refused, so it counts as a request; what never left does not.
    pub(crate) fn failed(&mut self, expires_at: Timestamp, left: bool, id: EventId, at: Timestamp) {
        if let Some(before) = self.end_request(expires_at, id, at) {
            self.in_vain = !before.reached;
            self.untold = false;
            self.early.clear();
            if !left {
                self.asks.pop();
            }
        }
    }

    /// From when on the contact may be asked again, when they were asked as often as is allowed within the period. `None`: they may be
    /// asked now, as far as that goes.
    #[must_use]
    pub fn may_ask_again(&self, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let oldest = self.asks.len().checked_sub(rules.opt_in_limit)?;
        let again = *self.asks.get(oldest)? + rules.opt_in_period;
        (now < again).then_some(again)
    }

    /// The person was asked under another identity, too.
    pub(crate) fn asked_elsewhere(&mut self, asks: &[Timestamp]) {
        self.asks.extend(asks);
        self.asks.sort_unstable();
        self.asks.dedup();
        let surplus = self.asks.len().saturating_sub(MOST_ASKS);
        self.asks.drain(..surplus);
    }

    /// Back to what was before. `None`: there is no such request.
    fn end_request(&mut self, expires_at: Timestamp, id: EventId, at: Timestamp) -> Option<BeforeRequest> {
        if self.status != ConsentStatus::Requested || self.expires_at != Some(expires_at) {
            return None;
        }
        let before = self.before.take().unwrap_or_default();
        self.set(before.status, id, at);
        Some(before)
    }

    /// Consent given elsewhere never undoes the contact's no.
    pub(crate) fn imported(&mut self, id: EventId, at: Timestamp) {
        if matches!(self.status, ConsentStatus::None | ConsentStatus::Implied | ConsentStatus::Requested) {
            self.set(ConsentStatus::Accepted, id, at);
        }
    }

    /// An operator withdrew the consent.
    pub(crate) fn revoked(&mut self, id: EventId, at: Timestamp) {
        let since = self.since.filter(|_| self.blocked()).max(Some(at)).unwrap_or(at);
        if self.status == ConsentStatus::OptedOut {
            self.since = Some(since);
        } else {
            self.set(ConsentStatus::OptedOut, id, since);
            self.unanswered = false;
        }
    }

    /// A no that was said to an alias at `since`: it counts like one that was said here, unless the contact has undone it here. What
    /// allows in other ways (an import, a yes in words, a message) does not stand against it.
    pub(crate) fn carried_over(&mut self, since: Timestamp, id: EventId) {
        let undone = self.agreed.is_some_and(|agreed| agreed.as_millis() >= whole_seconds(since));
        if !undone {
            self.revoked(id, since);
        }
    }
}
