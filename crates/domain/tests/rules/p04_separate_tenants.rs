//! P4: only conversations of the organization's own numbers; nobody reaches another's.

use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::composer::{Composer, Situation};
use connector_domain::consent::ConsentStatus;
use connector_domain::conversation::Conversation;
use connector_domain::decide::{Acting, NotOwned, Reason, check_owner};
use connector_domain::directory::Enablement;
use connector_domain::identity::StreamKeys;
use connector_domain::ids::{EventId, StreamId};

use crate::scenario::{Fact, Scenario, address, imported, t, template, window_expired, wrote};

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

/// The situation of a user who writes from a number, about a conversation.
fn situation(user: Option<&str>, conversation: Option<&str>) -> Situation {
    Situation {
        enablement: Enablement { enabled: true, phone_number_id: user.map(Into::into), ..Enablement::default() },
        is_contact: true,
        conversation: Conversation { phone_number_id: conversation.map(Into::into), ..Conversation::default() },
    }
}

fn number(organization: &str) -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::Number,
        organization_id: organization.into(),
        phone_number_id: Some("number".into()),
        waba_id: Some("waba".into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Default::default(),
        name: None,
        settings: None,
        state: None,
    }
}

#[test]
fn who_acts_needs_the_number_the_user_and_the_conversation() {
    let keys = StreamKeys::new("k1", b"secret");
    let (organization, phone_number_id) = ("acme".into(), "number".into());
    let id = keys.conversation(&phone_number_id, &address()).expect("a phone number");
    let elsewhere = keys.conversation(&"another".into(), &address()).expect("a phone number");
    let address = address();
    let check = |record: Option<&DirectoryRecord>, situation: &Situation, id: &StreamId, named: bool| {
        let acting = Acting {
            organization_id: &organization,
            phone_number_id: &phone_number_id,
            conversation: Some(id),
            address: named.then_some(&address),
            as_user: true,
        };
        let refused = |refused: NotOwned| (refused.rejection.reason, refused.rejection.field, refused.foreign);
        check_owner(acting, record, situation, &keys).map_err(refused)
    };
    let (own, foreign) = (number("acme"), number("globex"));
    let right = situation(Some("number"), Some("number"));
    assert_eq!(check(Some(&own), &right, &id, false), Ok(()));
    // Somebody else's number and none at all are the same.
    let nothing = Err((Reason::NotEnabled, "phone_number_id", true));
    assert_eq!(check(Some(&foreign), &right, &id, false), nothing);
    assert_eq!(check(None, &right, &id, false), nothing);
    let user = situation(None, Some("number"));
    assert_eq!(check(Some(&own), &user, &id, false), Err((Reason::NotEnabled, "user_id", false)));
    let elsewhere_too = situation(None, Some("another"));
    assert_eq!(check(Some(&own), &elsewhere_too, &id, false), Err((Reason::NotEnabled, "user_id", true)));
    let moved = situation(Some("another"), Some("number"));
    assert_eq!(check(Some(&own), &moved, &id, false), Err((Reason::NotEnabled, "phone_number_id", false)));
    // So are somebody else's conversation and none.
    let nobody = Err((Reason::NotAContact, "recipient", true));
    assert_eq!(check(Some(&own), &situation(Some("number"), Some("another")), &elsewhere, true), nobody);
    assert_eq!(check(Some(&own), &situation(Some("number"), None), &elsewhere, true), nobody);
    assert_eq!(check(Some(&own), &situation(Some("number"), None), &id, false), nobody, "nothing says whose it is");
    assert_eq!(check(Some(&own), &situation(Some("number"), None), &id, true), Ok(()), "the address does");
}

/// A conversation of `acme` in which the contact agreed, wrote, and said whatever else is told.
fn of_acme(further: impl IntoIterator<Item = Fact>) -> Conversation {
    let mut conversation = Conversation::default();
    let facts = [imported(t(0, 1)), wrote(t(0, 3), "hello")].into_iter().chain(further);
    for (n, fact) in facts.enumerate() {
        assert!(conversation.is_entered_by(&"acme".into(), &fact.event));
        conversation.evolve(&fact.event, EventId::derived(&n.to_string()), fact.at);
    }
    conversation
}

#[test]
fn who_gets_a_number_gets_every_no_and_nothing_that_was_allowed_to_its_former_owner() {
    let agreed = of_acme([]);
    assert_eq!(agreed.consent.status, ConsentStatus::Accepted);
    let seen = agreed.clone().seen_by(&"globex".into());
    assert_eq!((seen.consent.status, seen.deadline, seen.blocked()), (ConsentStatus::None, None, false));
    assert_eq!((&seen.address, &seen.phone_number_id), (&agreed.address, &agreed.phone_number_id));
    assert_eq!(agreed.clone().seen_by(&"acme".into()), agreed);

    let stopped = of_acme([wrote(t(0, 4), "STOP")]).seen_by(&"globex".into());
    assert_eq!((stopped.consent.status, stopped.consent.since), (ConsentStatus::OptedOut, Some(t(0, 4))));
    // What was undone stays so: that STOP is read once more.
    let mut again = of_acme([wrote(t(0, 4), "STOP"), wrote(t(0, 5), "START")]).seen_by(&"globex".into());
    assert_eq!(again.consent.status, ConsentStatus::None);
    let late = wrote(t(0, 4), "STOP");
    again.evolve(&late.event, EventId::derived("late"), late.at);
    assert!(!again.blocked());
}

#[test]
fn a_conversation_goes_over_with_what_only_the_owner_of_the_number_can_do() {
    let of_acme_alone = of_acme([]);
    let mut conversation = of_acme_alone.clone();
    let own = wrote(t(1, 0), "hi");
    // What ends something that the new owner has nothing to do with.
    let ends = |deadline| window_expired(deadline).event;
    assert!(!conversation.is_entered_by(&"globex".into(), &ends(t(2, 0))));
    assert_eq!(conversation, of_acme_alone);
    assert!(conversation.is_entered_by(&"globex".into(), &own.event));
    conversation.evolve(&own.event, EventId::derived("own"), own.at);
    assert_eq!(conversation.organization_id, Some("globex".into()));
    assert_eq!(conversation.consent.status, ConsentStatus::Implied);
    let before = conversation.clone();
    assert!(!conversation.is_entered_by(&"acme".into(), &ends(t(24, 3))));
    assert_eq!(conversation, before);
    assert!(conversation.is_entered_by(&"globex".into(), &ends(t(25, 0))));
}
