//! R10: a number that WhatsApp gives to somebody else names one person after the other, and each keeps what is theirs.

use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::conversation::Conversation;
use connector_domain::decide::Reason;
use connector_domain::directory::{ContactEntry, decide_contact};
use connector_domain::event::{IdentityLearned, IdentityPassedOn, IdentityTakenOver};
use connector_domain::handover::{Handover, Handovers};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{Bsuid, EventId, PhoneNumber, StreamId};
use connector_domain::time::Timestamp;

use crate::scenario::{
    Fact, Scenario, address, conversation, enabled, imported, in_contacts, t, template, text, wrote,
};

fn passed_on(since: Timestamp, successor: &str) -> Fact {
    let event = IdentityPassedOn { identity: conversation(), address: address(), since, successor: successor.into() };
    Fact { at: since, event: event.into() }
}

fn taken_over(since: Timestamp) -> Fact {
    let (phone_number_id, identity) = ("number".into(), conversation());
    Fact { at: since, event: IdentityTakenOver { phone_number_id, identity, address: address(), since }.into() }
}

fn new_number() -> Address {
    Address { phone: PhoneNumber::parse("+49 170 9999999").ok(), bsuid: None }
}

fn learned(at: Timestamp, address: Address) -> Fact {
    Fact { at, event: IdentityLearned { address, alias: "k1-new".into() }.into() }
}

fn fold(facts: &[Fact]) -> Conversation {
    let mut conversation = Conversation::default();
    for (n, fact) in facts.iter().enumerate() {
        conversation.evolve(&fact.event, EventId::derived(&n.to_string()), fact.at);
    }
    conversation
}

#[test]
fn a_queued_message_goes_to_where_its_person_is_or_nowhere() {
    let story = Scenario::given([enabled(), in_contacts(), imported(t(0, 1)), wrote(t(0, 2), "hello")]);
    let story = story.when(text("one")).then_accepts();
    let gone = story.clone().and(passed_on(t(1, 0), "k1-next"));
    assert_eq!(gone.clone().dispatching(), [Err(Reason::NumberPassedOn)]);
    let moved = gone.and(learned(t(1, 0), new_number()));
    assert_eq!(moved.situation.conversation.reached_at(&address()), Some(new_number()));
    assert_eq!(moved.dispatching(), [Ok(())]);
    // By the user id alone, when that is all that is known.
    let hidden = Address { phone: None, bsuid: Some(Bsuid("US.2".to_owned())) };
    let hides = story.and(passed_on(t(1, 0), "k1-next")).and(learned(t(1, 0), hidden.clone()));
    assert_eq!(hides.situation.conversation.reached_at(&address()), Some(hidden));
}

#[test]
fn nothing_is_accepted_for_who_gave_up_the_only_number_that_is_known() {
    let story = Scenario::given([enabled(), in_contacts(), imported(t(0, 1)), passed_on(t(1, 0), "k1-next")]);
    story.when(template()).then_rejects(Reason::NumberPassedOn);
}

#[test]
fn a_message_that_was_on_its_way_does_not_bring_the_number_back() {
    let late = fold(&[wrote(t(0, 1), "one"), passed_on(t(1, 0), "k1-next"), wrote(t(0, 2), "two")]);
    assert_eq!(late.address, Address::default());
    assert!(late.last_inbound == Some(t(0, 2)) && late.gave_up(&address().phone.expect("it has one")));
    // Who writes under it again after WhatsApp said that they are back has it again.
    let back = [passed_on(t(1, 0), "k1-next"), passed_on(t(2, 0), conversation().as_str()), taken_over(t(2, 0))];
    assert_eq!(fold(&back).address, address());
    let gone_again = [back.as_slice(), &[passed_on(t(3, 0), "k1-third")]].concat();
    assert_eq!(fold(&gone_again).address, Address::default());
}

#[test]
fn who_turns_out_to_be_the_same_person_has_their_number_again() {
    // Another user id wrote from it, and only then WhatsApp told that it is this person's new one.
    let known = fold(&[wrote(t(0, 1), "one"), passed_on(t(1, 0), "k1-new"), learned(t(1, 0), Address::default())]);
    assert!(!known.gave_up(&address().phone.expect("it has one")));
    let mut again = known;
    let wrote = wrote(t(1, 1), "two");
    again.evolve(&wrote.event, EventId::derived("two"), wrote.at);
    assert_eq!(again.address, address());
}

#[test]
fn told_in_any_order_a_number_names_the_same_people() {
    let moments = [(t(1, 0), "k1-b"), (t(2, 0), "k1-c"), (t(3, 0), conversation().as_str())].map(|(at, successor)| {
        Handover { identity: conversation(), phone: address().phone, since: at, successor: successor.into() }
    });
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut handovers = Handovers::default();
        // Twice, as webhooks come.
        for n in order.into_iter().chain(order) {
            handovers.add(moments[n].clone());
        }
        let identity = conversation();
        let named = [t(0, 59), t(1, 0), t(1, 59), t(2, 0), t(3, 0)].map(|at| handovers.holder(&identity, at).clone());
        let expected: [StreamId; 5] = [identity.clone(), "k1-b".into(), "k1-b".into(), "k1-c".into(), identity.clone()];
        assert_eq!(named, expected);
        assert_eq!(handovers.holder(&"k1-other".into(), t(3, 0)), &StreamId::from("k1-other"));
    }
}

#[test]
fn a_successor_begins_with_nothing_but_the_address() {
    let next = fold(&[taken_over(t(1, 0))]);
    let expected =
        Conversation { phone_number_id: Some("number".into()), address: address(), ..Conversation::default() };
    assert_eq!(next, expected);
    let keys = StreamKeys::new("k1", b"secret");
    let (one, two) = (keys.successor(&conversation(), t(1, 0)), keys.successor(&conversation(), t(2, 0)));
    assert!(one != two && one != conversation());
}

#[test]
fn an_entry_stays_with_its_person_and_a_new_one_names_who_has_the_number_now() {
    let keys = StreamKeys::new("k1", b"secret");
    let number = "number".into();
    let identity = keys.conversation(&number, &address()).expect("an address");
    let mut handovers = Handovers::default();
    let next = keys.successor(&identity, t(1, 0));
    handovers.add(Handover {
        identity: identity.clone(),
        phone: address().phone,
        since: t(1, 0),
        successor: next.clone(),
    });
    let record = |name: &str| DirectoryRecord {
        kind: DirectoryKind::Contact,
        organization_id: "acme".into(),
        phone_number_id: None,
        waba_id: None,
        user_id: Some("ada".into()),
        enabled: false,
        contact_id: Some("bob".into()),
        address: address(),
        name: Some(name.into()),
        settings: None,
        state: None,
    };
    let put = |entry: &mut ContactEntry, name: &str, now: Timestamp| {
        let events = decide_contact(entry, &record(name), &keys, &number, (&handovers, now));
        events.iter().for_each(|event| entry.evolve(event));
        entry.conversation_id.clone()
    };
    let mut old = ContactEntry::default();
    assert_eq!(put(&mut old, "Bob", t(0, 59)), Some(identity.clone()));
    // Written again, and with another name, it is still the same person's.
    assert_eq!(put(&mut old, "Bob", t(1, 1)), Some(identity.clone()));
    assert_eq!(put(&mut old, "Bobby", t(1, 1)), Some(identity));
    let mut new = ContactEntry::default();
    assert_eq!(put(&mut new, "Carol", t(1, 1)), Some(next.clone()));
    assert_eq!(put(&mut new, "Caroline", t(1, 2)), Some(next));
}
