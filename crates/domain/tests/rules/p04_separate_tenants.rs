//! P4: only conversations of the organization's own numbers; nobody reaches another's.

use connector_domain::composer::Composer;
use connector_domain::decide::Reason;
use connector_domain::identity::StreamKeys;

use crate::scenario::{Scenario, address, template};

#[test]
fn a_conversation_of_another_number_is_nobodys_contact() {
    let mut story = Scenario::consented();
    story.situation.conversation.phone_number_id = Some("another-number".into());
    let story = story.shows(&Composer::NotAContact);
    story.when(template()).then_rejects(Reason::NotAContact);
}

#[test]
fn the_same_person_is_another_conversation_for_every_number_and_another_stream_for_every_key() {
    let keys = StreamKeys::new("k1", b"secret");
    let first = keys.conversation(&"one".into(), &address()).expect("has a phone number");
    let second = keys.conversation(&"two".into(), &address()).expect("has a phone number");
    assert_ne!(first, second);
    let other = StreamKeys::new("k1", b"other").conversation(&"one".into(), &address());
    assert_ne!(other, Some(first.clone()));
    assert!(!first.as_str().contains("4917"), "the phone number does not show");
}
