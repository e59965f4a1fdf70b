//! The events of ordinary conversations, as the services would write them.

use std::time::Duration;

use connector_domain::command::{Content, SendPolicy, SendPurpose};
use connector_domain::consent::Intent;
use connector_domain::event::{
    Envelope, Event, MessageAccepted, MessageReceived, MessageSent, MessageStatusChanged, OptInAccepted,
    OptInRequested, Recorded, TimeSource, WindowCause, WindowOpened,
};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{AttemptId, CommandId, EventId, PhoneNumber, StreamId, Text, Wamid};
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;

/// The business number of everything here.
pub(crate) const NUMBER: &str = "200000000000001";

/// Some day; samples are the same in every run.
const START: Timestamp = Timestamp::from_secs(1_772_323_199);

/// One conversation's part of the stream.
struct Story {
    number: usize,
    stream: StreamId,
    address: Address,
    events: Vec<Recorded>,
}

/// `conversations` conversations of ten events each, interleaved: the index of the conversation, and the event. A contact is asked
/// for consent, taps accept, and a text of the user goes out with its three statuses.
pub(crate) fn mixed(conversations: usize) -> Vec<(usize, Recorded)> {
    let stories: Vec<Story> = (0..conversations).map(Story::tell).collect();
    let length = stories.first().map_or(0, |story| story.events.len());
    let nth = |at: usize| stories.iter().map(move |story| (story.number, story.events[at].clone()));
    (0..length).flat_map(nth).collect()
}

/// The phone number of a contact: from the range kept for fiction.
pub(crate) fn phone(contact: usize) -> String {
    format!("1555{contact:07}")
}

impl Story {
    fn tell(number: usize) -> Self {
        let address = Address { phone: PhoneNumber::parse(&phone(number)).ok(), bsuid: None };
        let keys = StreamKeys::new("k1", b"bench");
        let stream = keys.conversation(&NUMBER.into(), &address).unwrap_or(StreamId(String::new()));
        let mut story = Self { number, stream, address, events: Vec::new() };
        let deadline = START + Duration::from_secs(24 * 3600);
        let asked = OptInRequested {
            user_id: "user-7".into(),
            phone_number_id: NUMBER.into(),
            expires_at: deadline,
            message_id: None,
        };
        story.add(asked);
        story.receive("button", "Yes, write to me", Intent::Accept);
        story.add(OptInAccepted { source: EventId::derived("tap"), how: "button".to_owned() });
        story.add(WindowOpened { deadline, source: EventId::derived("tap"), cause: WindowCause::Reply });
        story.receive(
            "text",
            "Is the appointment on Thursday still free? I could come a little earlier too.",
            Intent::Other,
        );
        story.add(MessageAccepted {
            user_id: "user-7".into(),
            phone_number_id: NUMBER.into(),
            content: Content::text("Yes, it is. Thursday at ten, second floor. See you then!"),
            policy: SendPolicy::default(),
            purpose: SendPurpose::default(),
            not_after: deadline,
        });
        let attempt_id = AttemptId::derived(&format!("attempt/{number}"));
        story.add(MessageSent {
            phone_number_id: NUMBER.into(),
            wamid: story.wamid("out"),
            attempt_id,
            purpose: SendPurpose::Conversation,
        });
        for status in [DeliveryStatus::Sent, DeliveryStatus::Delivered, DeliveryStatus::Read] {
            story.status(status, attempt_id);
        }
        story
    }

    fn wamid(&self, which: &str) -> Wamid {
        Wamid(format!("wamid.HBgLMTU1NTAwMDAwMDA{:07}VAgARGBI{which}QkQ3N0E5RjE4QzY0QkQA", self.number))
    }

    fn receive(&mut self, message_type: &str, text: &str, intent: Intent) {
        let wamid = self.wamid(message_type);
        let raw = format!(
            r#"{{"from":"{}","id":"{}","timestamp":"1772323199","type":"{message_type}","text":{{"body":"{text}"}}}}"#,
            phone(self.number),
            wamid.as_str()
        );
        self.add(MessageReceived {
            phone_number_id: NUMBER.into(),
            wamid,
            address: self.address.clone(),
            profile_name: Some("Ada Example".into()),
            message_type: message_type.to_owned(),
            text: Some(text.into()),
            unsupported: false,
            reply_to: None,
            intent,
            answer: Intent::Other,
            window_deadline: Some(START + Duration::from_secs(24 * 3600 + self.events.len() as u64)),
            raw: Text(raw),
        });
    }

    fn status(&mut self, status: DeliveryStatus, attempt_id: AttemptId) {
        let wamid = self.wamid("out");
        let raw = format!(
            r#"{{"id":"{}","status":"delivered","timestamp":"1772323205","recipient_id":"{}","biz_opaque_callback_data":"{attempt_id}","pricing":{{"billable":false,"pricing_model":"PMP","category":"service","type":"free_customer_service"}}}}"#,
            wamid.as_str(),
            phone(self.number)
        );
        self.add(MessageStatusChanged {
            phone_number_id: NUMBER.into(),
            wamid,
            status,
            attempt_id: Some(attempt_id),
            address: self.address.clone(),
            error_code: None,
            raw: Text(raw),
        });
    }

    fn add(&mut self, event: impl Into<Event>) {
        let event = event.into();
        let cause_id = format!("{NUMBER}/{}/{}", self.stream.as_str(), self.events.len());
        let at = START + Duration::from_secs(self.events.len() as u64);
        let envelope = Envelope {
            event_id: EventId::derived(&cause_id),
            event_type: event.type_name().to_owned(),
            schema_version: 1,
            organization_id: "organization-1".into(),
            stream_id: self.stream.clone(),
            command_id: matches!(event, Event::MessageAccepted(_) | Event::MessageSent(_))
                .then(|| CommandId::derived(&cause_id)),
            cause_id,
            occurred_at: at,
            time_source: TimeSource::Whatsapp,
            recorded_at: at + Duration::from_millis(20),
            producer: "inbound-processor".to_owned(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        };
        self.events.push(Recorded { envelope, event });
    }
}
