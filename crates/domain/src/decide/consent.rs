//! Consent commands (P6, P9) and what the opt-in tracker announces about the contact's answers.

use super::send::{check_contact, check_enabled, check_recipient};
use crate::command::{
    ConsentAction, ConsentCommand, Content, LONGEST_LIFE, SendMessage, SendPolicy, SendPurpose, TemplateCall,
};
use crate::composer::Situation;
use crate::consent::{ConsentStatus, Intent};
use crate::conversation::Conversation;
use crate::decide::{Reason, Rejection};
use crate::directory::decide_acknowledge;
use crate::event::{
    ConsentImported, ConsentRevoked, Event, MessageReceived, OptInAccepted, OptInDeclined, OptInExpired,
    OptInRequested, OptOutCarriedOver, OptedBackIn, OptedOut,
};
use crate::ids::{CommandId, EventId, StreamId};
use crate::settings::Rules;
use crate::time::Timestamp;

/// What follows from a consent command.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConsentDecision {
    /// What the log gets.
    pub events: Vec<Event>,
    /// The opt-in message to queue, with `purpose` opt-in and the id it was decided with.
    pub send: Option<SendMessage>,
}

/// Decides about a consent command. `default_template` is the opt-in template of the number or its organization, `message_id` the
/// [id of the message](crate::identity::StreamKeys::opt_in_message) that a request leads to.
///
/// # Errors
/// The first rule that refuses it.
pub fn decide_consent(
    situation: &Situation,
    command: &ConsentCommand,
    default_template: Option<&TemplateCall>,
    message_id: CommandId,
    rules: &Rules,
    now: Timestamp,
) -> Result<ConsentDecision, Rejection> {
    let events = match command.action {
        ConsentAction::AcknowledgeNotice => vec![decide_acknowledge(&situation.enablement, &command.user_id)?],
        ConsentAction::RequestOptIn => {
            return request(situation, command, default_template, message_id, rules, now);
        }
        ConsentAction::Import => vec![import(situation, command)?],
        // Taking consent away is never refused: it can only make the connector quieter.
        ConsentAction::Revoke => {
            check_recipient(&command.recipient)?;
            vec![ConsentRevoked { by: command.user_id.clone() }.into()]
        }
        ConsentAction::Unknown => return Err(Reason::Invalid.at("action")),
    };
    Ok(ConsentDecision { events, send: None })
}

fn request(
    situation: &Situation,
    command: &ConsentCommand,
    default_template: Option<&TemplateCall>,
    message_id: CommandId,
    rules: &Rules,
    now: Timestamp,
) -> Result<ConsentDecision, Rejection> {
    // How the organization asks is the organization's, not the publisher's (P6).
    if command.template.is_some() {
        return Err(Reason::Invalid.at("template"));
    }
    check_enabled(situation, &command.phone_number_id)?;
    check_recipient(&command.recipient)?;
    check_contact(situation)?;
    let consent = &situation.conversation.consent;
    match consent.status {
        ConsentStatus::Declined | ConsentStatus::OptedOut => return Err(Reason::OptedOut.at("")),
        ConsentStatus::Accepted => return Err(Reason::OptInNotNeeded.at("action")),
        ConsentStatus::Requested if consent.is_pending(now) => {
            return Err(Reason::OptInNotNeeded.at("action"));
        }
        ConsentStatus::None | ConsentStatus::Implied | ConsentStatus::Requested => {}
    }
    if consent.may_ask_again(rules, now).is_some() {
        return Err(Reason::OptInLimit.at("action"));
    }
    let template = default_template.ok_or(Reason::Invalid.at("template"))?;
    let expires_at = now + rules.opt_in_answer;
    let send = SendMessage {
        command_id: message_id,
        organization_id: command.organization_id.clone(),
        user_id: command.user_id.clone(),
        phone_number_id: command.phone_number_id.clone(),
        recipient: command.recipient.clone(),
        content: Content::template(template.clone()),
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::OptIn,
        issued_at: now,
        not_after: Some(expires_at.min(now + rules.command_life.min(LONGEST_LIFE))),
    };
    let requested = OptInRequested {
        user_id: command.user_id.clone(),
        phone_number_id: command.phone_number_id.clone(),
        expires_at,
        message_id: Some(send.command_id),
    };
    Ok(ConsentDecision { events: vec![requested.into()], send: Some(send) })
}

fn import(situation: &Situation, command: &ConsentCommand) -> Result<Event, Rejection> {
    check_enabled(situation, &command.phone_number_id)?;
    check_recipient(&command.recipient)?;
    check_contact(situation)?;
    let proof = command.proof.as_ref().filter(|proof| !proof.expose().trim().is_empty());
    let proof = proof.ok_or(Reason::Invalid.at("proof"))?;
    match situation.conversation.consent.status {
        ConsentStatus::Declined | ConsentStatus::OptedOut => Err(Reason::OptedOut.at("")),
        ConsentStatus::Accepted => Err(Reason::OptInNotNeeded.at("action")),
        ConsentStatus::None | ConsentStatus::Implied | ConsentStatus::Requested => {
            Ok(ConsentImported { proof: proof.clone(), by: command.user_id.clone() }.into())
        }
    }
}

/// Whether event `id` is what set the consent of `after`, and set it to something else than it was.
fn changed_by(before: &Conversation, after: &Conversation, id: EventId) -> bool {
    after.consent.source == Some(id) && before.consent.status != after.consent.status
}

/// What the tracker announces after the contact's message `id` turned `before` into `after`.
#[must_use]
pub fn announce(before: &Conversation, after: &Conversation, id: EventId, received: &MessageReceived) -> Vec<Event> {
    if !changed_by(before, after, id) {
        return Vec::new();
    }
    if after.consent.status == ConsentStatus::Accepted && received.intent == Intent::Start {
        return vec![OptedBackIn { source: id }.into()];
    }
    let tapped = matches!(received.message_type.as_str(), "button" | "interactive");
    answer(after.consent.status, id, if tapped { "button" } else { "text" }).into_iter().collect()
}

/// The announcement of what the contact said in event `source`.
fn answer(status: ConsentStatus, source: EventId, how: &str) -> Option<Event> {
    match status {
        ConsentStatus::Accepted => Some(OptInAccepted { source, how: how.to_owned() }.into()),
        ConsentStatus::Declined => Some(OptInDeclined { source }.into()),
        ConsentStatus::OptedOut => Some(OptedOut { source, how: "stop_word".to_owned() }.into()),
        ConsentStatus::None | ConsentStatus::Requested | ConsentStatus::Implied => None,
    }
}

/// What the tracker has to write into the stream in which the conversation `own` continues, after an event turned `before` into `after`:
/// the contact's no, when it, or the link, is new (R10). It names the moment of the no, so carried over twice it changes nothing.
#[must_use]
pub fn carry_over(before: &Conversation, after: &Conversation, own: &StreamId) -> Option<(StreamId, Vec<Event>)> {
    let canonical = after.canonical.as_ref().filter(|canonical| *canonical != own)?;
    let consent = |c: &Conversation| c.consent.since.filter(|_| c.blocked());
    let marketing = |c: &Conversation| c.marketing_since.filter(|_| c.marketing_stopped);
    let linked = before.canonical != after.canonical;
    let event = |(now, was, marketing_only): (Option<Timestamp>, Option<Timestamp>, bool)| {
        let since = now.filter(|_| linked || now != was)?;
        Some(OptOutCarriedOver { alias: own.clone(), since, marketing_only }.into())
    };
    let noes = [(consent(after), consent(before), false), (marketing(after), marketing(before), true)];
    let events: Vec<Event> = noes.into_iter().filter_map(event).collect();
    (!events.is_empty()).then(|| (canonical.clone(), events))
}

/// What the tracker announces after its own event `id` (`ConsentImported`, `ConsentRevoked`, `OptOutCarriedOver`) turned `before` into `after`;
/// or after the sender's word on the opt-in message did, which the contact had tapped already.
#[must_use]
pub fn announce_ordered(before: &Conversation, after: &Conversation, id: EventId, event: &Event) -> Vec<Event> {
    match event {
        Event::MessageSent(_) if before.consent.status != after.consent.status => {
            let told = after.consent.source.and_then(|tap| answer(after.consent.status, tap, "button"));
            told.into_iter().collect()
        }
        _ if !changed_by(before, after, id) => Vec::new(),
        Event::ConsentImported(_) => vec![OptInAccepted { source: id, how: "import".to_owned() }.into()],
        Event::ConsentRevoked(_) => vec![OptedOut { source: id, how: "revoked".to_owned() }.into()],
        Event::OptOutCarriedOver(_) => vec![OptedOut { source: id, how: "linked".to_owned() }.into()],
        _ => Vec::new(),
    }
}

/// The end of an unanswered opt-in request, when a timer for `expires_at` fires at `now`. `None` when it was answered or
/// repeated meanwhile, or when the timer is early.
#[must_use]
pub fn decide_opt_in_expiry(conversation: &Conversation, expires_at: Timestamp, now: Timestamp) -> Option<Event> {
    let consent = &conversation.consent;
    let due = consent.status == ConsentStatus::Requested && consent.expires_at == Some(expires_at) && now >= expires_at;
    due.then(|| OptInExpired { expires_at }.into())
}
