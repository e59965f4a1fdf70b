//! What bears on decisions (R2), held against what the folds make of every event there is.

use std::collections::BTreeSet;

use connector_contracts::{decode_event, glimpse};
use connector_domain::bearing::bears_on_decisions;
use connector_domain::command::{Content, Dispatch, SendPolicy, SendPurpose, TemplateCall};
use connector_domain::composer::Situation;
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::decide::{Rejection, decide_dispatch};
use connector_domain::directory::Enablement;
use connector_domain::event::{EVENT_TYPES, Event, MessageSent, Recorded};
use connector_domain::identity::Address;
use connector_domain::ids::{CommandId, OrganizationId};
use connector_domain::settings::Rules;
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::samples::{Style, any_value, current, sample, text_for, to_record};

const NOW: Timestamp = Timestamp(1_772_323_199_123);

/// Events of every type, with whether they bear on decisions as whoever reads the log finds it.
fn each(mut look: impl FnMut(&Recorded, bool)) {
    let mut seen = BTreeSet::new();
    for file in current().filter(|file| file.subject.starts_with("events/")) {
        let mut look = |record: &[u8]| {
            let recorded = decode_event(record).expect("decodes");
            let glimpse = glimpse(record).expect("can be looked at");
            seen.insert(glimpse.event_type);
            look(&recorded, bears_on_decisions(glimpse.event_type, glimpse.error_code));
        };
        // No enum of the contracts has more symbols than this.
        for style in (0..12).map(Style::Full).chain([Style::Minimal]) {
            look(&to_record(file.subject, &sample(&file.schema, style)).expect("encodes"));
        }
        let mut runner = TestRunner::new(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() });
        let values = any_value(&file.schema);
        for _ in 0..64 {
            let value = values.new_tree(&mut runner).expect("a value").current();
            look(&to_record(file.subject, &value).expect("encodes"));
        }
    }
    assert_eq!(seen, EVENT_TYPES.iter().copied().collect());
}

/// What the connector itself did moves a conversation and decides nothing about the next message: else each would wait for the one before
/// to be applied. That this is so, `what_does_not_bear_changes_no_decision` shows.
const fn is_our_own_doing(event: &Event) -> bool {
    matches!(event, Event::MessageAccepted(_) | Event::MessageSent(_))
}

#[test]
fn what_moves_a_conversation_bears_on_decisions() {
    let mut opt_ins = 0;
    each(|Recorded { event, .. }, bears| {
        let moves = Conversation::is_moved_by(event);
        opt_ins += usize::from(matches!(event, Event::MessageSent(MessageSent { purpose: SendPurpose::OptIn, .. })));
        assert!(bears || !moves || is_our_own_doing(event), "{event:?}");
    });
    assert!(opt_ins > 0, "a MessageSent of an opt-in was among them");
}

/// Conversations of the organization and the number, in every state of consent, with and without a window.
fn conversations() -> Vec<Conversation> {
    use ConsentStatus::{Accepted, Declined, Implied, None, OptedOut, Requested};
    let mut all = Vec::new();
    for status in [None, Requested, Accepted, Declined, OptedOut, Implied] {
        for deadline in [Option::None, Some(NOW - HOUR), Some(NOW + HOUR)] {
            let open = status == Requested;
            let consent = ConsentState {
                status,
                since: Some(NOW - 2 * HOUR),
                expires_at: open.then_some(NOW + HOUR),
                asked_at: open.then_some(NOW - 2 * HOUR),
                asks: if open { vec![NOW - 2 * HOUR] } else { Vec::new() },
                untold: open,
                ..ConsentState::default()
            };
            all.push(Conversation {
                organization_id: Some("acme".into()),
                phone_number_id: Some(text_for("phone_number_id").as_str().into()),
                consent,
                deadline,
                last_inbound: deadline.map(|_| NOW - 2 * HOUR),
                ..Conversation::default()
            });
        }
    }
    all
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// What is decided about every kind of message.
fn decisions(conversation: &Conversation) -> Vec<Result<(), Rejection>> {
    let organization = OrganizationId::from("acme");
    let situation = Situation {
        enablement: Enablement { enabled: true, ..Enablement::default() },
        is_contact: true,
        conversation: conversation.clone().seen_by(&organization),
    };
    let call =
        TemplateCall { name: "hello".into(), language: "en".into(), header: vec![], body: vec![], buttons: vec![] };
    let of = |content: Content, purpose| Dispatch {
        command_id: CommandId::derived("next"),
        organization_id: organization.clone(),
        user_id: "ada".into(),
        phone_number_id: text_for("phone_number_id").as_str().into(),
        conversation_id: "conversation".into(),
        address: Address::default(),
        content,
        policy: SendPolicy::default(),
        purpose,
        accepted_at: NOW,
        not_after: NOW + HOUR,
    };
    let template = |category: &str| Template {
        waba_id: "waba".into(),
        organization_id: organization.clone(),
        name: "hello".into(),
        language: "en".into(),
        status: "APPROVED".into(),
        category: category.into(),
        parameter_format: "POSITIONAL".into(),
        header_format: None,
        header: None,
        body: "Hello".into(),
        footer: None,
        buttons: vec![],
        other_components: vec![],
    };
    let mut decided = vec![decide_dispatch(
        &situation,
        &of(Content::text("text"), SendPurpose::Conversation),
        None,
        &Rules::default(),
        NOW,
    )];
    for category in ["UTILITY", "MARKETING"] {
        for purpose in [SendPurpose::Conversation, SendPurpose::OptIn] {
            let dispatch = of(Content::template(call.clone()), purpose);
            decided.push(decide_dispatch(&situation, &dispatch, Some(&template(category)), &Rules::default(), NOW));
        }
    }
    decided
}

#[test]
fn what_does_not_bear_changes_no_decision() {
    let conversations = conversations();
    let before: Vec<_> = conversations.iter().map(decisions).collect();
    let organization = OrganizationId::from("acme");
    each(|Recorded { envelope, event }, bears| {
        let mut enablement = Enablement { enabled: true, ..Enablement::default() };
        enablement.evolve(event);
        assert!(bears || enablement == Enablement { enabled: true, ..Enablement::default() }, "{event:?}");
        for (conversation, before) in conversations.iter().zip(&before) {
            let mut after = conversation.clone();
            if after.is_entered_by(&organization, event) {
                after.evolve(event, envelope.event_id, envelope.occurred_at);
            }
            assert!(
                Conversation::is_moved_by(event) || after == *conversation,
                "the fold says it is not moved by {event:?}"
            );
            assert!(bears || decisions(&after) == *before, "{event:?} after {conversation:?}");
        }
    });
}
