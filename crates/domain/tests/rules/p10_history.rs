//! P10: every message and change is an event; a command has one outcome that can be read from them.

use connector_domain::command::SendPurpose;
use connector_domain::decide::Reason;
use connector_domain::event::{Event, MessageFailed, MessageSent, MessageStatusChanged, MessageUnconfirmed};
use connector_domain::identity::Address;
use connector_domain::ids::AttemptId;
use connector_domain::status::{DeliveryStatus, MessageState};

use crate::scenario::{HOUR, Scenario, t, text, wrote};

#[test]
fn the_same_command_again_is_a_repeat_and_another_content_under_its_id_a_conflict() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    let story = story.when(text("hi").under("c1")).then_accepts();
    let story = story.at(t(1, 5)).when(text("hi").under("c1")).then_records(&[]);
    let story = story.when(text("ho").under("c1")).then_rejects(Reason::Conflict);
    story.when(text("hi").under("c2")).then_accepts();
}

#[test]
fn a_command_that_waited_too_long_is_not_sent() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    let late = text("hi").with_send(|command| command.not_after = Some(t(0, 59)));
    let story = story.when(late).then_rejects(Reason::Expired);
    let soon = text("hi").with_send(|command| command.not_after = Some(t(1, 30)));
    let story = story.when(soon).then_accepts().at(t(1, 30) + HOUR);
    assert_eq!(story.dispatching(), [Err(Reason::Expired)]);
}

#[test]
fn the_history_of_a_message_folds_to_its_state_in_any_order() {
    let attempt_id = AttemptId::derived("attempt");
    let status = |status| {
        Event::from(MessageStatusChanged {
            phone_number_id: "number".into(),
            wamid: "wamid.out".into(),
            status,
            attempt_id: Some(attempt_id),
            address: Address::default(),
            error_code: None,
            raw: "{}".into(),
        })
    };
    let taken = Event::from(MessageSent {
        phone_number_id: "number".into(),
        wamid: "wamid.out".into(),
        attempt_id,
        purpose: SendPurpose::Conversation,
    });
    let lost = Event::from(MessageUnconfirmed { attempt_id, observed: "timeout".to_owned() });
    let failed =
        Event::from(MessageFailed { reason: "permanent".to_owned(), error_code: Some(131_026), attempt_id: None });
    let fold = |events: &[&Event]| events.iter().fold(None, |state, event| MessageState::after(state, event));
    let delivered = status(DeliveryStatus::Delivered);
    assert_eq!(fold(&[&taken, &delivered]), Some(MessageState::Delivered));
    assert_eq!(fold(&[&delivered, &taken]), Some(MessageState::Delivered));
    assert_eq!(fold(&[&lost]), Some(MessageState::Unconfirmed));
    assert_eq!(fold(&[&lost, &status(DeliveryStatus::Sent)]), Some(MessageState::Sent));
    assert_eq!(fold(&[&status(DeliveryStatus::Sent), &lost]), Some(MessageState::Sent));
    assert_eq!(fold(&[&taken, &failed]), Some(MessageState::Failed));
    assert_eq!(fold(&[]), None);
}
