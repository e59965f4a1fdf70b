//! Which events can change a decision about the stream they stand in (R2). Whoever decides on a projection that is behind the log has to
//! know whether what it has not applied matters.

use crate::event::EventKind;

/// Whether an event of this type, with this error code of WhatsApp in it, may lead to another decision about a send, a consent command or
/// a contact. A type that this build does not know may.
#[must_use]
pub fn bears_on_decisions(event_type: &str, error_code: Option<i64>) -> bool {
    let Some(kind) = EventKind::of(event_type) else { return true };
    match kind {
        EventKind::MessageReceived
        | EventKind::CallReceived
        | EventKind::IdentityLearned
        | EventKind::ConversationLinked
        | EventKind::IdentityPassedOn
        | EventKind::IdentityTakenOver
        | EventKind::MarketingPreferenceChanged
        | EventKind::MessageFailed
        | EventKind::OptInRequested
        | EventKind::OptInAccepted
        | EventKind::OptInDeclined
        | EventKind::OptInExpired
        | EventKind::OptInFailed
        | EventKind::OptedOut
        | EventKind::OptedBackIn
        | EventKind::ConsentImported
        | EventKind::ConsentRevoked
        | EventKind::OptOutCarriedOver
        | EventKind::WindowExpired
        | EventKind::WhatsAppEnabled
        | EventKind::WhatsAppDisabled
        | EventKind::ActivationNoticeRaised
        | EventKind::ActivationNoticeAcknowledged
        | EventKind::ContactAdded
        | EventKind::ContactRemoved => true,
        // The bulk of the log. What a failure says about consent it says by its code.
        EventKind::MessageStatusChanged => error_code.is_some(),
        // What the connector itself did, or only says about what stands elsewhere.
        EventKind::MessageAccepted
        | EventKind::MessageRejected
        | EventKind::MessageSent
        | EventKind::MessageUnconfirmed
        | EventKind::WindowOpened
        | EventKind::WindowClosingSoon
        | EventKind::AccountNotice
        | EventKind::NumberPaused
        | EventKind::NumberResumed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_contact_or_an_operator_says_bears_on_decisions_and_what_the_connector_did_does_not() {
        for said in ["MessageReceived", "ConsentRevoked", "ContactRemoved", "WhatsAppDisabled", "FromALaterBuild"] {
            assert!(bears_on_decisions(said, None), "{said}");
        }
        for done in ["MessageAccepted", "MessageSent", "WindowOpened", "MessageStatusChanged"] {
            assert!(!bears_on_decisions(done, None), "{done}");
        }
        assert!(bears_on_decisions("MessageStatusChanged", Some(131_050)));
    }
}
