//! Damaged commands: whoever published them learns of it under their id.

use connector_contracts::{decode, encode, salvage};
use connector_domain::command::{
    ConsentAction, ConsentCommand, Content, Recipient, SendMessage, SendPolicy, SendPurpose, TemplateCall,
};
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, CommandId, PhoneNumber};
use connector_domain::time::Timestamp;

fn send() -> SendMessage {
    SendMessage {
        command_id: CommandId::derived("c"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient {
            conversation_id: Some("k1-00000000000000000000000000000000".into()),
            address: Address { phone: PhoneNumber::parse("491701234567").ok(), bsuid: Some(Bsuid("DE.1".to_owned())) },
        },
        content: Content {
            text: Some("hello".into()),
            reply_to: Some("wamid.1".into()),
            ..Content::template(template())
        },
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::Conversation,
        issued_at: Timestamp(1_700_000_000_000),
        not_after: Some(Timestamp(1_700_000_100_000)),
    }
}

fn template() -> TemplateCall {
    TemplateCall {
        name: "greeting".to_owned(),
        language: "en".to_owned(),
        header: vec![],
        body: vec![],
        buttons: vec![],
    }
}

fn consent() -> ConsentCommand {
    ConsentCommand {
        command_id: CommandId::derived("c"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient::default(),
        action: ConsentAction::Import,
        template: Some(template()),
        proof: Some("form 7".into()),
        issued_at: Timestamp(1_700_000_000_000),
    }
}

#[test]
fn what_cannot_be_decoded_is_named_by_its_field() {
    let whole = encode(&send()).expect("it fits");
    assert_eq!(salvage::<SendMessage>(&whole).map(|found| found.field), Some(""));
    let with = |old: &str, new: &str| {
        assert_eq!(old.len(), new.len());
        let at = whole.windows(old.len()).position(|window| window == old.as_bytes()).expect("it is there");
        let mut record = whole.clone();
        record[at..at + old.len()].copy_from_slice(new.as_bytes());
        record
    };
    let field = |record: &[u8]| salvage::<SendMessage>(record).map(|found| found.field);
    assert_eq!(field(&with("491701234567", "no digits at")), Some("recipient.phone"));
    for (text, expected) in [
        ("greeting", "content.template.name"),
        ("hello", "content.text"),
        ("ada", "user_id"),
        ("DE.1", "recipient.bsuid"),
    ] {
        let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is there");
        let mut record = whole.clone();
        record[at] = 0xff;
        assert!(decode::<SendMessage>(&record).is_err(), "{text}");
        assert_eq!(field(&record), Some(expected));
    }
    let found = salvage::<SendMessage>(&whole[..whole.len() - 1]).expect("its id is readable");
    assert_eq!((found.command_id, found.field), (CommandId::derived("c"), "not_after"));
    assert_eq!((found.organization_id.as_deref(), found.user_id.as_deref()), (Some("acme"), Some("ada")));
    let whole = encode(&consent()).expect("it fits");
    let cut = salvage::<ConsentCommand>(&whole[..whole.len() - 4]).map(|found| found.field);
    assert_eq!(cut, Some("issued_at"));
}

#[test]
fn however_much_is_there_the_id_is_found_or_nothing_is() {
    let whole = encode(&send()).expect("it fits");
    // Ten bytes of frame, the length, 36 characters.
    let id_ends = 10 + 1 + 36;
    for length in 0..whole.len() {
        let found = salvage::<SendMessage>(&whole[..length]);
        assert_eq!(found.is_some(), length >= id_ends, "{length}");
        if let Some(found) = found {
            assert_eq!(found.command_id, CommandId::derived("c"));
            assert_ne!(found.field, "", "{length} bytes");
        }
    }
    let mut unreadable = whole.clone();
    unreadable[11] = b'?';
    assert_eq!(salvage::<SendMessage>(&unreadable), None);
    assert_eq!(salvage::<ConsentCommand>(&whole), None, "another contract");
    assert_eq!(salvage::<SendMessage>(b""), None);
    let mut unknown = whole;
    unknown[2] ^= 1;
    assert_eq!(salvage::<SendMessage>(&unknown), None, "a schema nobody knows");
}
