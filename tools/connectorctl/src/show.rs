//! One event as one line that a person can read.

use connector_contracts::headers::rfc3339;
use connector_domain::command::{Content, ContentKind};
use connector_domain::event::{Event, Recorded, WindowCause};

/// Time, stream, type, and what happened in a few words. Texts of messages are part of it; phone numbers are not.
#[must_use]
pub fn line(recorded: &Recorded) -> String {
    let envelope = &recorded.envelope;
    let command = envelope.command_id.map(|id| format!("  command {id}")).unwrap_or_default();
    let (at, stream, name) = (rfc3339(envelope.occurred_at), &envelope.stream_id, recorded.event.type_name());
    format!("{at}  {stream}  {name:<28} {}{command}", facts(&recorded.event)).trim_end().to_owned()
}

fn content(content: &Content) -> String {
    match (content.kind, &content.text, &content.template) {
        (ContentKind::Text, Some(text), _) => quoted(text.expose()),
        (ContentKind::Template, _, Some(call)) => {
            let values: Vec<_> = call.body.iter().map(|value| quoted(value.text.expose())).collect();
            format!("template {} ({}) {}", call.name, call.language, values.join(" "))
        }
        (ContentKind::Typing, ..) => "typing".to_owned(),
        (ContentKind::Read, ..) => "marks as read".to_owned(),
        _ => "something that is not supported".to_owned(),
    }
}

/// In quotes and on one line, whatever was written.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// What Meta's notice says about the messaging limit: the tier of a `phone_number_quality_update`, the number of a
/// `business_capability_update`, both under the names of several versions.
fn limits(raw: &str) -> String {
    let notice: serde_json::Value = serde_json::from_str(raw).unwrap_or_default();
    let names = [
        "event",
        "old_limit",
        "current_limit",
        "max_daily_conversations_per_business",
        "max_daily_conversation_per_phone",
    ];
    let told = names.iter().filter_map(|name| match &notice[*name] {
        serde_json::Value::String(word) => Some(format!(" {name} {word}")),
        serde_json::Value::Number(number) => Some(format!(" {name} {number}")),
        _ => None,
    });
    told.collect()
}

const fn window_cause(cause: WindowCause) -> &'static str {
    match cause {
        WindowCause::Message => "message",
        WindowCause::Reply => "reply",
        WindowCause::Reaction => "reaction",
        WindowCause::Call => "call",
        WindowCause::Unknown => "something unknown",
    }
}

fn because(reason: &str, code: Option<i64>) -> String {
    format!("{reason}{}", code.map(|code| format!(" code {code}")).unwrap_or_default())
}

fn facts(event: &Event) -> String {
    match event {
        Event::MessageReceived(e) => {
            let said = e.text.as_ref().map(|text| quoted(text.expose()));
            let unsupported = if e.unsupported { " (unsupported)" } else { "" };
            format!("contact: {}{unsupported}", said.unwrap_or_else(|| format!("[{}]", e.message_type)))
        }
        Event::CallReceived(e) => format!("contact called, window until {}", rfc3339(e.window_deadline)),
        Event::MessageStatusChanged(e) => {
            let code = e.error_code.map(|code| format!(" code {code}")).unwrap_or_default();
            // Only the status: a wamid is case-sensitive.
            let status = format!("{:?}", e.status).to_lowercase();
            format!("{status}{code}  {}", e.wamid)
        }
        Event::IdentityLearned(e) => format!("also known as {}", e.alias),
        Event::ConversationLinked(e) => format!("goes on as {}", e.canonical),
        Event::IdentityPassedOn(e) => format!("{} is {} from {} on", e.identity, e.successor, rfc3339(e.since)),
        Event::IdentityTakenOver(e) => format!("took over {} at {}", e.identity, rfc3339(e.since)),
        Event::MarketingPreferenceChanged(e) => format!("marketing {}", if e.stopped { "stopped" } else { "resumed" }),
        Event::AccountNotice(e) => format!("account {}: {}{}", e.waba_id, e.field, limits(e.raw.expose())),
        Event::MessageAccepted(e) => format!("{}: {}", e.user_id, content(&e.content)),
        Event::MessageRejected(e) => format!("{}: {} {}", e.user_id, e.reason, e.field),
        Event::MessageSent(e) => e.wamid.to_string(),
        Event::MessageFailed(e) => because(&e.reason, e.error_code),
        Event::MessageUnconfirmed(e) => format!("attempt {}: {}", e.attempt_id, e.observed),
        Event::NumberPaused(e) => format!("number {} code {}", e.phone_number_id, e.error_code),
        Event::NumberResumed(e) => format!("number {}", e.phone_number_id),
        Event::OptInRequested(e) => format!("{} asked, until {}", e.user_id, rfc3339(e.expires_at)),
        Event::OptInAccepted(e) => format!("by {}", e.how),
        Event::OptedOut(e) => format!("by {}", e.how),
        Event::ConsentImported(e) => format!("by {}", e.by),
        Event::ConsentRevoked(e) => format!("by {}", e.by),
        Event::OptOutCarriedOver(e) => {
            let what = if e.marketing_only { "marketing stopped" } else { "opted out" };
            format!("{what} as {} at {}", e.alias, rfc3339(e.since))
        }
        Event::WindowOpened(e) => format!("until {} by {}", rfc3339(e.deadline), window_cause(e.cause)),
        Event::WindowClosingSoon(e) => format!("at {}", rfc3339(e.deadline)),
        Event::WindowExpired(e) => format!("at {}", rfc3339(e.deadline)),
        Event::WhatsAppEnabled(e) => format!("{} on number {}", e.user_id, e.phone_number_id),
        Event::WhatsAppDisabled(e) => e.user_id.to_string(),
        Event::ActivationNoticeRaised(e) => e.user_id.to_string(),
        Event::ActivationNoticeAcknowledged(e) => e.user_id.to_string(),
        Event::ContactAdded(e) => format!("{} of {}: conversation {}", e.contact_id, e.user_id, e.conversation_id),
        Event::ContactRemoved(e) => format!("{} of {}: conversation {}", e.contact_id, e.user_id, e.conversation_id),
        Event::OptInFailed(e) => because(&e.reason, e.error_code),
        Event::OptInDeclined(_) | Event::OptInExpired(_) | Event::OptedBackIn(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_domain::event::{Envelope, MessageAccepted, TimeSource};
    use connector_domain::ids::{CommandId, EventId};
    use connector_domain::time::Timestamp;

    #[test]
    fn a_notice_about_the_messaging_limit_says_the_limit_and_no_phone_number() {
        let upgrade = r#"{"display_phone_number":"15550783881","event":"UPGRADE","current_limit":"TIER_10K"}"#;
        assert_eq!(limits(upgrade), " event UPGRADE current_limit TIER_10K");
        let capability = r#"{"max_daily_conversations_per_business":2000,"max_phone_numbers_per_waba":25}"#;
        assert_eq!(limits(capability), " max_daily_conversations_per_business 2000");
        assert_eq!((limits("no json"), limits("{}")), (String::new(), String::new()));
    }

    #[test]
    fn a_message_is_one_line_with_who_and_what() {
        let accepted = MessageAccepted {
            user_id: "ann".into(),
            phone_number_id: "1".into(),
            content: Content::text("two\nlines"),
            policy: Default::default(),
            purpose: Default::default(),
            not_after: Timestamp(0),
        };
        let envelope = Envelope {
            event_id: EventId::derived("e"),
            event_type: "MessageAccepted".to_owned(),
            schema_version: 1,
            organization_id: "o".into(),
            stream_id: "k1-ab".into(),
            cause_id: "c".to_owned(),
            command_id: Some(CommandId::derived("c")),
            occurred_at: Timestamp(0),
            time_source: TimeSource::Connector,
            recorded_at: Timestamp(0),
            producer: "p".to_owned(),
            traceparent: None,
        };
        let line = line(&Recorded { envelope, event: accepted.into() });
        assert!(line.starts_with("1970-01-01T00:00:00.000Z  k1-ab  MessageAccepted"), "{line}");
        assert!(line.contains(r#"ann: "two\nlines"  command "#), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
