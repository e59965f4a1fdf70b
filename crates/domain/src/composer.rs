//! What a user may do in a conversation right now, as one value that a screen can show (P12).

use serde::{Deserialize, Serialize};

use crate::consent::ConsentStatus;
use crate::conversation::Conversation;
use crate::directory::Enablement;
use crate::settings::Rules;
use crate::time::Timestamp;
use crate::window;

/// Everything a decision about one user and one conversation looks at.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Situation {
    /// The user's enablement.
    pub enablement: Enablement,
    /// Whether the conversation's contact is in the user's contacts.
    pub is_contact: bool,
    /// The conversation.
    pub conversation: Conversation,
}

impl Situation {
    /// Whether the conversation belongs to the number the user writes from (P4). Unknown numbers do not disagree.
    #[must_use]
    pub fn same_number(&self) -> bool {
        match (&self.enablement.phone_number_id, &self.conversation.phone_number_id) {
            (Some(user), Some(conversation)) => user == conversation,
            _ => true,
        }
    }
}

/// Why only templates are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOnlyReason {
    /// The contact has consented but never wrote.
    NeverWrote,
    /// 24 hours passed since the contact's last message (P12).
    WindowExpired,
    /// A template was sent after the window ended; the contact has not replied yet (P14).
    AwaitingReply,
}

/// The composer state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Composer {
    /// Free-form text and templates.
    FreeForm {
        /// Until this moment (already less the safety margin).
        until: Timestamp,
        /// Whether business-initiated templates are possible as well (P15).
        templates: bool,
    },
    /// Only templates (P12, P14).
    TemplateOnly {
        /// Since when.
        since: Option<Timestamp>,
        /// Why.
        reason: TemplateOnlyReason,
    },
    /// The contact has to be asked first (P6).
    OptInRequired {
        /// They were asked as often as is allowed (P9): not before this moment.
        again_at: Option<Timestamp>,
    },
    /// The contact was asked and has not accepted (P9).
    OptInPending {
        /// When.
        asked_at: Option<Timestamp>,
    },
    /// The contact declined or wrote STOP (P9).
    OptedOut,
    /// The organization has not enabled WhatsApp for the user (P1).
    NotEnabled,
    /// The person is not in the user's contacts (P3).
    NotAContact,
}

/// The composer state of a situation. The decision about a send asks the same function, so that a screen that shows this
/// and the gate can never disagree.
///
/// The first that applies: not enabled, not a contact, opted out (or declined), an opt-in that is missing or pending, and
/// only then the window.
#[must_use]
pub fn compose(situation: &Situation, rules: &Rules, now: Timestamp) -> Composer {
    if !situation.enablement.enabled {
        return Composer::NotEnabled;
    }
    if !situation.is_contact || !situation.same_number() {
        return Composer::NotAContact;
    }
    let conversation = &situation.conversation;
    let consent = &conversation.consent;
    let until = conversation.deadline.map(|deadline| window::free_form_until(deadline, rules.margin));
    let open = until.filter(|until| now < *until);
    let opt_in_required = || Composer::OptInRequired { again_at: consent.may_ask_again(rules, now) };
    // Consent that only follows from what the contact wrote holds in the window that they opened by it, not in a later one of a call.
    let implied = || {
        let until = open.filter(|_| in_own_window(conversation, rules))?;
        Some(Composer::FreeForm { until, templates: false })
    };
    match consent.status {
        ConsentStatus::Declined | ConsentStatus::OptedOut => Composer::OptedOut,
        ConsentStatus::None => opt_in_required(),
        ConsentStatus::Requested => {
            let wrote = consent.before.as_ref().is_some_and(|before| before.status == ConsentStatus::Implied);
            let typing = wrote.then(implied).flatten();
            let asked = Composer::OptInPending { asked_at: consent.since };
            typing.unwrap_or_else(|| if consent.is_pending(now) { asked } else { opt_in_required() })
        }
        ConsentStatus::Implied => implied().unwrap_or_else(opt_in_required),
        ConsentStatus::Accepted => match open {
            Some(until) => Composer::FreeForm { until, templates: true },
            None => templates_only(conversation, until),
        },
    }
}

/// Whether the window goes back to something the contact wrote: a call renews such a window, and opens one of another kind after its end.
fn in_own_window(conversation: &Conversation, rules: &Rules) -> bool {
    let both = conversation.last_inbound.zip(conversation.window_since);
    both.is_some_and(|(wrote, opened)| wrote + rules.window > opened)
}

/// Why and since when only templates are possible in a conversation whose contact accepted. `closed_at`: when typing ended.
fn templates_only(conversation: &Conversation, closed_at: Option<Timestamp>) -> Composer {
    let template = conversation.last_template.filter(|sent| closed_at.is_none_or(|closed| *sent >= closed));
    let (since, reason) = match (template, closed_at) {
        (Some(sent), _) => (Some(sent), TemplateOnlyReason::AwaitingReply),
        (None, Some(closed)) => (Some(closed), TemplateOnlyReason::WindowExpired),
        (None, None) => (conversation.consent.since, TemplateOnlyReason::NeverWrote),
    };
    Composer::TemplateOnly { since, reason }
}
