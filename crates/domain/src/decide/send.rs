//! Whether a message may be sent: when its command is admitted, and again right before each attempt.

use crate::command::{Content, ContentKind, Dispatch, Recipient, SendMessage, SendPurpose};
use crate::composer::{Composer, Situation, compose};
use crate::consent::ConsentStatus;
use crate::decide::{Reason, Rejection};
use crate::event::MessageAccepted;
use crate::identity::Address;
use crate::ids::{CommandId, PhoneNumberId};
use crate::settings::Rules;
use crate::template::{self, Template};
use crate::time::Timestamp;

/// WhatsApp's limit for the body of a text message.
pub(crate) const MAX_TEXT: usize = 4096;

/// Length of a text in UTF-16 units, the larger of the two ways in which WhatsApp may count its 4,096 characters.
#[must_use]
pub fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Decides about a send command. `template` is the catalogue's entry for the command's template, if there is one.
///
/// # Errors
/// The first rule that refuses it: enablement, contact, content, life time, consent, window, template.
pub fn decide_send(
    situation: &Situation,
    command: &SendMessage,
    template: Option<&Template>,
    rules: &Rules,
    now: Timestamp,
) -> Result<MessageAccepted, Rejection> {
    let not_after = command.effective_not_after(rules, now);
    check_enabled(situation, &command.phone_number_id)?;
    check_recipient(&command.recipient)?;
    let (id, purpose) = (command.command_id, command.purpose);
    let message = Message { id, content: &command.content, purpose, not_after };
    message.check(situation, template, rules, now)?;
    check_reached(situation, &command.recipient.address)?;
    Ok(MessageAccepted {
        user_id: command.user_id.clone(),
        phone_number_id: command.phone_number_id.clone(),
        content: command.content.clone(),
        policy: command.policy,
        purpose: command.purpose,
        not_after,
    })
}

/// Decides again, right before an attempt, whether an accepted message may still leave: a decline or a STOP beats messages
/// that are queued (P9), and so does the end of the window.
///
/// # Errors
/// The first rule that refuses it now.
pub fn decide_dispatch(
    situation: &Situation,
    dispatch: &Dispatch,
    template: Option<&Template>,
    rules: &Rules,
    now: Timestamp,
) -> Result<(), Rejection> {
    check_enabled(situation, &dispatch.phone_number_id)?;
    let (id, purpose) = (dispatch.command_id, dispatch.purpose);
    let message = Message { id, content: &dispatch.content, purpose, not_after: dispatch.not_after };
    message.check(situation, template, rules, now)?;
    check_reached(situation, &dispatch.address)
}

/// R10: whoever has the contact's number by now has agreed to nothing, and answers for nobody else.
fn check_reached(situation: &Situation, given: &Address) -> Result<(), Rejection> {
    let conversation = &situation.conversation;
    if conversation.handovers.is_empty() || conversation.reached_at(given).is_some() {
        return Ok(());
    }
    Err(Reason::NumberPassedOn.at("recipient"))
}

/// P1: enabled, and for this number.
pub(super) fn check_enabled(situation: &Situation, number: &PhoneNumberId) -> Result<(), Rejection> {
    if !situation.enablement.enabled {
        return Err(Reason::NotEnabled.at("user_id"));
    }
    if situation.enablement.phone_number_id.as_ref().is_some_and(|enabled| enabled != number) {
        return Err(Reason::NotEnabled.at("phone_number_id"));
    }
    Ok(())
}

pub(super) fn check_recipient(recipient: &Recipient) -> Result<(), Rejection> {
    if recipient.conversation_id.is_some() {
        return Ok(());
    }
    if recipient.address.is_empty() {
        return Err(Reason::Invalid.at("recipient"));
    }
    // Publishers write numbers as they like; one that cannot be anybody's is refused by its field.
    if recipient.address.phone.as_ref().is_some_and(|phone| !phone.is_possible()) {
        return Err(Reason::Invalid.at("recipient.phone"));
    }
    Ok(())
}

/// P3, and P4: nobody's contact through another number.
pub(super) fn check_contact(situation: &Situation) -> Result<(), Rejection> {
    if situation.is_contact && situation.same_number() { Ok(()) } else { Err(Reason::NotAContact.at("recipient")) }
}

/// What admission and dispatch check alike.
struct Message<'a> {
    id: CommandId,
    content: &'a Content,
    purpose: SendPurpose,
    not_after: Timestamp,
}

impl Message<'_> {
    fn check(
        &self,
        situation: &Situation,
        template: Option<&Template>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        check_contact(situation)?;
        self.check_content()?;
        if now > self.not_after {
            return Err(Reason::Expired.at("not_after"));
        }
        match (self.content.kind, self.purpose) {
            (ContentKind::Template, SendPurpose::OptIn) => {
                opt_in_possible(situation, self.id, now)?;
                self.check_template(situation, template, rules, now)
            }
            (ContentKind::Template, SendPurpose::Conversation) => {
                templates_possible(situation, rules, now)?;
                self.check_template(situation, template, rules, now)
            }
            (_, SendPurpose::OptIn) => Err(Reason::Invalid.at("purpose")),
            (ContentKind::Text, SendPurpose::Conversation) => text_possible(&compose(situation, rules, now)),
            // Receipts say nothing to the contact that needs consent, but there must be a message they are about.
            (ContentKind::Typing | ContentKind::Read, _) => match situation.conversation.last_inbound {
                Some(_) => Ok(()),
                None => Err(Reason::Invalid.at("content.reply_to")),
            },
            (ContentKind::Unknown, _) => Err(Reason::UnsupportedContent.at("content.kind")),
        }
    }

    fn check_content(&self) -> Result<(), Rejection> {
        match self.content.kind {
            ContentKind::Text => match self.content.text.as_ref().map(|text| text.expose()) {
                Some(text) if !text.trim().is_empty() && utf16_len(text) <= MAX_TEXT => Ok(()),
                _ => Err(Reason::Invalid.at("content.text")),
            },
            ContentKind::Template if self.content.template.is_none() => Err(Reason::Invalid.at("content.template")),
            ContentKind::Typing | ContentKind::Read if self.content.reply_to.is_none() => {
                Err(Reason::Invalid.at("content.reply_to"))
            }
            ContentKind::Template | ContentKind::Typing | ContentKind::Read => Ok(()),
            ContentKind::Unknown => Err(Reason::UnsupportedContent.at("content.kind")),
        }
    }

    fn check_template(
        &self,
        situation: &Situation,
        template: Option<&Template>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let Some(call) = &self.content.template else { return Err(Reason::Invalid.at("content.template")) };
        let Some(template) = template else { return Err(Reason::TemplateNotSendable.at("content.template.name")) };
        template::check(template, call)?;
        if template.category.eq_ignore_ascii_case("MARKETING") {
            marketing_possible(situation, rules, now)?;
        }
        Ok(())
    }
}

/// The refusal of a composer state in which a person can write nothing at all.
fn closed(composer: &Composer) -> Option<Rejection> {
    match composer {
        Composer::NotEnabled => Some(Reason::NotEnabled.at("user_id")),
        Composer::NotAContact => Some(Reason::NotAContact.at("recipient")),
        Composer::OptedOut => Some(Reason::OptedOut.at("")),
        Composer::OptInRequired { .. } => Some(Reason::OptInRequired.at("")),
        Composer::OptInPending { .. } => Some(Reason::OptInPending.at("")),
        Composer::FreeForm { .. } | Composer::TemplateOnly { .. } => None,
    }
}

fn text_possible(composer: &Composer) -> Result<(), Rejection> {
    match closed(composer) {
        Some(rejection) => Err(rejection),
        None if matches!(composer, Composer::TemplateOnly { .. }) => Err(Reason::WindowClosed.at("")),
        None => Ok(()),
    }
}

fn templates_possible(situation: &Situation, rules: &Rules, now: Timestamp) -> Result<(), Rejection> {
    let composer = compose(situation, rules, now);
    match closed(&composer) {
        Some(rejection) => Err(rejection),
        // P15: who only wrote first has not agreed to templates.
        None if matches!(composer, Composer::FreeForm { templates: false, .. }) => {
            let pending = situation.conversation.consent.is_pending(now);
            Err(if pending { Reason::OptInPending } else { Reason::OptInRequired }.at(""))
        }
        None => Ok(()),
    }
}

/// What the contact, or WhatsApp for them, said about marketing.
fn marketing_possible(situation: &Situation, rules: &Rules, now: Timestamp) -> Result<(), Rejection> {
    let conversation = &situation.conversation;
    let stopped = Reason::MarketingStopped.at("content.template.name");
    if conversation.marketing_stopped {
        return Err(stopped);
    }
    match conversation.marketing_refused.map(|refused| refused + rules.marketing_hold) {
        Some(until) if now < until => {
            let remedy = format!("WhatsApp delivers no marketing message to this contact for now: wait until {until}.");
            Err(Rejection { remedy: remedy.into(), ..stopped })
        }
        _ => Ok(()),
    }
}

/// The opt-in template itself leaves only while its request is open, and only as the message that the tracker queued for it (P6): nobody
/// else says that a message is one.
fn opt_in_possible(situation: &Situation, id: CommandId, now: Timestamp) -> Result<(), Rejection> {
    let consent = &situation.conversation.consent;
    match consent.status {
        ConsentStatus::Requested if consent.is_pending(now) => {
            if consent.message == Some(id) {
                Ok(())
            } else {
                Err(Reason::Invalid.at("purpose"))
            }
        }
        ConsentStatus::Accepted => Err(Reason::OptInNotNeeded.at("purpose")),
        ConsentStatus::Declined | ConsentStatus::OptedOut => Err(Reason::OptedOut.at("")),
        ConsentStatus::None | ConsentStatus::Implied | ConsentStatus::Requested => {
            Err(Reason::OptInRequired.at("purpose"))
        }
    }
}
