//! P3: a user can message only people in their contacts.

use connector_domain::command::{ContentKind, DirectoryKind, DirectoryRecord};
use connector_domain::composer::Composer;
use connector_domain::decide::Reason;
use connector_domain::directory::{ContactEntry, Contacts, decide_contact, decide_contact_removed};
use connector_domain::event::Event;
use connector_domain::handover::Handovers;
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::PhoneNumber;

use crate::scenario::{
    Scenario, ask, enabled, import, imported, in_contacts, of_kind, out_of_contacts, t, template, text, wrote,
};

#[test]
fn a_stranger_cannot_be_messaged() {
    let story = Scenario::given([enabled(), wrote(t(1, 0), "hello")]).shows(&Composer::NotAContact);
    let story = story.when(text("hi")).then_rejects(Reason::NotAContact);
    story.when(ask()).then_rejects(Reason::NotAContact);
}

#[test]
fn a_contact_who_was_removed_gets_nothing_any_more() {
    let story = Scenario::given([enabled(), in_contacts(), imported(t(0, 1))]);
    let story = story.when(template()).then_accepts().and(out_of_contacts(t(0, 2)));
    let story = story.when(template()).then_rejects(Reason::NotAContact);
    assert_eq!(story.dispatching(), [Err(Reason::NotAContact)]);
}

#[test]
fn a_stranger_is_not_even_told_that_their_message_was_read() {
    let story = Scenario::given([enabled(), wrote(t(1, 0), "hello")]);
    story.when(of_kind(ContentKind::Read)).then_rejects(Reason::NotAContact);
}

#[test]
fn a_recipient_has_to_be_named() {
    let nobody = text("hi").with_send(|command| command.recipient.conversation_id = None);
    Scenario::consented().when(nobody).then_rejects_field(Reason::Invalid, "recipient");
}

/// As it comes from a topic, where nobody has looked at it.
fn published(phone: &str) -> Address {
    Address { phone: Some(serde_json::from_value(phone.into()).expect("it is never an error")), bsuid: None }
}

#[test]
fn a_recipient_who_is_named_by_what_is_no_phone_number_is_refused_by_the_field() {
    for phone in ["+999 1234567", "0170 1234567", "+49 1", "ada", "+1 555 010"] {
        let somebody = text("hi").with_send(|command| {
            command.recipient.conversation_id = None;
            command.recipient.address = published(phone);
        });
        Scenario::consented().when(somebody).then_rejects_field(Reason::Invalid, "recipient.phone");
        let somebody = import("paper").with_consent(|command| {
            command.recipient.conversation_id = None;
            command.recipient.address = published(phone);
        });
        Scenario::consented().when(somebody).then_rejects_field(Reason::Invalid, "recipient.phone");
    }
}

#[test]
fn a_number_leads_to_one_conversation_however_and_by_whomever_it_is_written() {
    let keys = StreamKeys::new("k1", b"secret");
    let id = |address: &Address| keys.conversation(&"number".into(), address);
    let read = |phone: &str| id(&Address { phone: PhoneNumber::parse(phone).ok(), bsuid: None });
    let by_whatsapp = |phone: &str| id(&Address { phone: PhoneNumber::from_whatsapp(phone).ok(), bsuid: None });
    for (whatsapp, spellings) in [
        ("442079460958", ["+44 (0)20 7946 0958", "4402079460958", "0044 20 7946 0958"]),
        ("491701234567", ["+49 170 1234567", "+49 (0)170/1234567", "+491701234567"]),
        ("22545000000", ["+225 07 45 00 00 00", "2250745000000", "+225 45 00 00 00"]),
        ("22997000000", ["+229 01 97 00 00 00", "2290197000000", "+229 97000000"]),
        ("5215512345678", ["+52 55 1234 5678", "+52 1 55 1234 5678", "525512345678"]),
    ] {
        assert!(by_whatsapp(whatsapp).is_some());
        for spelling in spellings {
            assert_eq!(read(spelling), by_whatsapp(whatsapp), "as the API reads {spelling}");
            assert_eq!(id(&published(spelling)), by_whatsapp(whatsapp), "as Kafka has {spelling}");
        }
    }
    assert_eq!(id(&published("ada")), None, "nobody's is no conversation");
}

fn record(phone: &str, name: &str) -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::Contact,
        organization_id: "acme".into(),
        phone_number_id: None,
        waba_id: None,
        user_id: Some("ada".into()),
        enabled: false,
        contact_id: Some("bob".into()),
        address: Address { phone: PhoneNumber::parse(phone).ok(), bsuid: None },
        name: Some(name.into()),
        settings: None,
        state: None,
    }
}

fn apply(entry: &mut ContactEntry, events: &[Event]) -> Vec<&'static str> {
    for event in events {
        entry.evolve(event);
    }
    events.iter().map(Event::type_name).collect()
}

#[test]
fn an_entry_follows_its_record() {
    let keys = StreamKeys::new("k1", b"secret");
    let number = "number".into();
    let mut entry = ContactEntry::default();
    let events = decide_contact(&entry, &record("4917012345", "Bob"), &keys, &number, (&Handovers::default(), t(0, 0)));
    assert_eq!(apply(&mut entry, &events), ["ContactAdded"]);
    assert!(
        decide_contact(&entry, &record("+49 170 12345", "Bob"), &keys, &number, (&Handovers::default(), t(0, 0)))
            .is_empty(),
        "the same number"
    );

    let before = entry.conversation_id.clone();
    let events =
        decide_contact(&entry, &record("4917012345", "Bobby"), &keys, &number, (&Handovers::default(), t(0, 0)));
    assert_eq!(apply(&mut entry, &events), ["ContactAdded"]);
    assert_eq!(entry.conversation_id, before, "a new name is the same conversation");

    let events =
        decide_contact(&entry, &record("4917099999", "Bobby"), &keys, &number, (&Handovers::default(), t(0, 0)));
    assert_eq!(apply(&mut entry, &events), ["ContactRemoved", "ContactAdded"]);
    assert_ne!(entry.conversation_id, before, "a new phone number is another conversation");

    let events = decide_contact(
        &entry,
        &record("4917099999", "Bobby"),
        &keys,
        &"second".into(),
        (&Handovers::default(), t(0, 0)),
    );
    assert_eq!(apply(&mut entry, &events), ["ContactRemoved", "ContactAdded"]);

    let events = decide_contact(
        &entry,
        &record("not a number", "Bobby"),
        &keys,
        &"second".into(),
        (&Handovers::default(), t(0, 0)),
    );
    assert_eq!(apply(&mut entry, &events), ["ContactRemoved"]);
    assert!(decide_contact_removed(&entry, &"ada".into(), &"bob".into()).is_empty(), "removed only once");
}

#[test]
fn two_entries_for_one_person_are_removed_one_by_one() {
    let keys = StreamKeys::new("k1", b"secret");
    let number = "number".into();
    let mut contacts = Contacts::default();
    let twin = DirectoryRecord { contact_id: Some("robert".into()), ..record("4917012345", "Robert") };
    for entry in [record("4917012345", "Bob"), twin] {
        for event in decide_contact(&ContactEntry::default(), &entry, &keys, &number, (&Handovers::default(), t(0, 0)))
        {
            contacts.evolve(&event);
        }
    }
    let ids: Vec<_> = contacts.entries.keys().cloned().collect();
    let conversation = contacts.entries[&ids[0]].conversation_id.clone().expect("leads somewhere");
    for (id, still) in ids.iter().zip([true, false]) {
        let events = decide_contact_removed(&contacts.entries[id], &"ada".into(), id);
        contacts.evolve(&events[0]);
        assert_eq!(contacts.contains(&conversation), still);
    }
}
