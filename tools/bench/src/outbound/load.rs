//! Who writes to whom: numbers, contacts with an open window, and commands to them.

use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Contract, Topic, Topics, encode, encode_event, event_headers};
use connector_domain::command::{
    Content, DirectoryKind, DirectoryRecord, Recipient, SendMessage, SendPolicy, SendPurpose,
};
use connector_domain::consent::Intent;
use connector_domain::event::{Envelope, Event, MessageReceived, Recorded, TimeSource};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{CommandId, ContactId, EventId, PhoneNumber, PhoneNumberId, StreamId, Text, UserId, Wamid};
use connector_domain::time::Timestamp;
use connector_ports::Log;
use connector_ports::log::Append;

use crate::report::Outcome;
use crate::samples::phone;

const ORGANIZATION: &str = "acme";
const WABA: &str = "200000000000001";
/// Ten thousand messages a second over numbers that WhatsApp upgraded to a thousand each, and as many again.
pub(super) const NUMBERS: usize = 20;
pub(super) const CONTACTS: usize = 4_000;
/// Records of one append.
const LOT: usize = 500;

/// The ids of the business numbers.
pub(super) fn numbers() -> Vec<String> {
    (0..NUMBERS).map(|number| format!("1000000000{number:05}")).collect()
}

/// Somebody who wrote a moment ago.
pub(super) struct Contact {
    pub(super) phone: PhoneNumber,
    pub(super) number: PhoneNumberId,
    stream: StreamId,
}

impl Contact {
    /// Whose contact it is: each number has one user.
    fn user(&self) -> UserId {
        user(&self.number)
    }
}

fn user(number: &PhoneNumberId) -> UserId {
    UserId::from(format!("user-{number}").as_str())
}

/// Contacts, spread evenly over the numbers. The key is the one the services are told.
pub(super) fn contacts(keys: &StreamKeys) -> Outcome<Vec<Contact>> {
    let numbers = numbers();
    let contact = |at: usize| {
        let (phone, number) = (PhoneNumber::parse(&phone(at))?, PhoneNumberId::from(numbers[at % NUMBERS].as_str()));
        let stream = keys.by_phone(&number, &phone);
        Ok(Contact { phone, number, stream })
    };
    (0..CONTACTS).map(contact).collect()
}

/// The directory of these people, and the message each of them wrote.
pub(super) async fn prepare(log: &dyn Log, contacts: &[Contact], now: Timestamp) -> Outcome<()> {
    let record = |kind| DirectoryRecord {
        kind,
        organization_id: ORGANIZATION.into(),
        phone_number_id: None,
        waba_id: None,
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    };
    let number = |id: &String| DirectoryRecord {
        phone_number_id: Some(id.as_str().into()),
        waba_id: Some(WABA.into()),
        ..record(DirectoryKind::Number)
    };
    let user = |number: &String| DirectoryRecord {
        phone_number_id: Some(number.as_str().into()),
        user_id: Some(user(&number.as_str().into())),
        enabled: true,
        ..record(DirectoryKind::User)
    };
    let entry = |contact: &Contact| DirectoryRecord {
        user_id: Some(contact.user()),
        contact_id: Some(ContactId(format!("c{}", contact.phone.expose()))),
        address: Address { phone: Some(contact.phone.clone()), bsuid: None },
        ..record(DirectoryKind::Contact)
    };
    let mut records: Vec<DirectoryRecord> = numbers().iter().map(number).collect();
    records.extend(numbers().iter().map(user));
    records.extend(contacts.iter().map(entry));
    let appends = records.iter().map(|record| {
        let key = record.key().ok_or("a record without its ids")?;
        append(Topic::Directory, &key, record)
    });
    write(log, appends.collect::<Outcome<_>>()?).await?;
    write(log, contacts.iter().map(|contact| written(contact, now)).collect::<Outcome<_>>()?).await
}

/// What a contact wrote, as the inbound processor records it: it opens the window.
fn written(contact: &Contact, now: Timestamp) -> Outcome<Append> {
    let wamid = Wamid(format!("wamid.bench{}", contact.phone.expose()));
    let cause_id = format!("{}/{}", contact.number, wamid.as_str());
    let event = Event::from(MessageReceived {
        phone_number_id: contact.number.clone(),
        wamid,
        address: Address { phone: Some(contact.phone.clone()), bsuid: None },
        profile_name: None,
        message_type: "text".to_owned(),
        text: Some("Is the appointment on Thursday still free?".into()),
        unsupported: false,
        reply_to: None,
        intent: Intent::Other,
        answer: Intent::Other,
        window_deadline: Some(now + Duration::from_secs(24 * 3600)),
        raw: Text("{}".to_owned()),
    });
    let envelope = Envelope {
        event_id: EventId::derived(&cause_id),
        event_type: event.type_name().to_owned(),
        schema_version: 1,
        organization_id: ORGANIZATION.into(),
        stream_id: contact.stream.clone(),
        command_id: None,
        cause_id,
        occurred_at: now,
        time_source: TimeSource::Whatsapp,
        recorded_at: now,
        producer: "inbound-processor".to_owned(),
        traceparent: None,
    };
    let recorded = Recorded { envelope, event };
    Ok(Append {
        topic: Topics::default().name(Topic::ConversationEvents).into(),
        partition: None,
        key: Some(Bytes::from(contact.stream.as_str().to_owned())),
        value: Some(encode_event(&recorded)?.into()),
        headers: event_headers(&recorded),
    })
}

/// Commands number `first` to `first + count`, to one contact after the other.
pub(super) fn commands(contacts: &[Contact], first: usize, count: usize, now: Timestamp) -> Outcome<Vec<Append>> {
    let command = |at: usize| {
        let contact = &contacts[at % contacts.len()];
        let command = SendMessage {
            command_id: command_id(at),
            organization_id: ORGANIZATION.into(),
            user_id: contact.user(),
            phone_number_id: contact.number.clone(),
            recipient: Recipient {
                conversation_id: None,
                address: Address { phone: Some(contact.phone.clone()), bsuid: None },
            },
            content: Content::text("Yes, it is. Thursday at ten, second floor. See you then!"),
            policy: SendPolicy::AtMostOnce,
            purpose: SendPurpose::Conversation,
            issued_at: now,
            not_after: None,
        };
        append(Topic::SendCommands, contact.stream.as_str(), &command)
    };
    (first..first + count).map(command).collect()
}

/// The id of a command by its number.
pub(super) fn command_id(number: usize) -> CommandId {
    CommandId::derived(&format!("bench {number}"))
}

fn append<T: Contract>(topic: Topic, key: &str, value: &T) -> Outcome<Append> {
    Ok(Append {
        topic: Topics::default().name(topic).into(),
        partition: None,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(encode(value)?.into()),
        headers: Vec::new(),
    })
}

/// Appends in lots, each waited for.
pub(super) async fn write(log: &dyn Log, records: Vec<Append>) -> Outcome<()> {
    let appender = log.appender().await?;
    for lot in records.chunks(LOT) {
        appender.append(lot.to_vec()).await?;
    }
    Ok(())
}
