//! What the log says happened. One struct per event type; [`Event`] is any of them.
//!
//! An event never depends on a setting that may change later: the deadline of a window and the intent of a message stand
//! in the event. When it happened stands in the envelope (`occurred_at`) and reaches a fold as an argument.
//!
//! Four writers append, each its own types. Announcements (`OptInAccepted`, `OptedOut`, `WindowOpened`, `WindowExpired` …)
//! name the event or the deadline they speak about, and a fold ignores one that is no longer true (R8).

use serde::{Deserialize, Serialize};

use crate::command::{Content, SendPolicy, SendPurpose};
use crate::consent::Intent;
use crate::identity::Address;
use crate::ids::{
    AttemptId, CallId, CommandId, ContactId, EventId, OrganizationId, PhoneNumberId, StreamId, Text, UserId, WabaId,
    Wamid,
};
use crate::status::DeliveryStatus;
use crate::time::Timestamp;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }

            impl From<$name> for Event {
                fn from(event: $name) -> Self {
                    Self::$name(event)
                }
            }
        )*

        /// Any event of the log.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name)),*
        }

        impl Event {
            /// The event type as the log spells it.
            #[must_use]
            pub const fn type_name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),* }
            }
        }

        /// Which type an event is of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "they are those of the events")]
        pub enum EventKind {
            $($name),*
        }

        impl EventKind {
            /// The type that the log spells like this; `None` for one that this build does not know.
            #[must_use]
            pub fn of(type_name: &str) -> Option<Self> {
                match type_name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        /// Every event type, in the order of the catalogue.
        pub const EVENT_TYPES: &[&str] = &[$(stringify!($name)),*];

        /// Calls a macro with every event type: `with_event_types!(callback)` becomes `callback!(A B C …)`.
        #[macro_export]
        macro_rules! with_event_types {
            ($callback:ident) => { $callback! { $($name)* } };
        }
    };
}

events! {
    /// The contact wrote, tapped a button, or sent something the connector does not carry (P5).
    MessageReceived {
        /// The business number that received it.
        phone_number_id: PhoneNumberId,
        /// Meta's id of the message.
        wamid: Wamid,
        /// Who sent it, as the webhook knew them.
        address: Address,
        /// The name in the sender's WhatsApp profile.
        profile_name: Option<Text>,
        /// Meta's `type`: `text`, `image`, `button`, … or whatever they invent next.
        message_type: String,
        /// The text, the button's title or the list row's title. `None` for unsupported content.
        text: Option<Text>,
        /// True when the user is only told that something unsupported arrived.
        unsupported: bool,
        /// The message this one answers.
        reply_to: Option<Wamid>,
        /// What the message means for consent, classified when it was recorded.
        #[serde(default)]
        intent: Intent,
        /// What a tap on a button answers if `reply_to` is an opt-in message; `other` for everything that says it by itself.
        #[serde(default)]
        answer: Intent,
        /// When the customer service window that this message opens or renews ends. `None` when it opens none.
        window_deadline: Option<Timestamp>,
        /// The item exactly as Meta sent it (JSON).
        raw: Text,
    }
    /// The contact called the business number. Answered or not, that opens or renews the customer service window, and nothing else: it says
    /// nothing about consent. What the item tells about the connection (network addresses of the caller among it) is not kept here.
    CallReceived {
        /// The business number that was called.
        phone_number_id: PhoneNumberId,
        /// Meta's id of the call.
        call_id: CallId,
        /// Who called, as the webhook knew them.
        address: Address,
        /// When the customer service window that this call opens or renews ends.
        window_deadline: Timestamp,
    }
    /// WhatsApp reported what became of a message. Every raw status is kept; the projection is a lattice (R9).
    MessageStatusChanged {
        /// The business number that sent the message.
        phone_number_id: PhoneNumberId,
        /// Meta's id of the message.
        wamid: Wamid,
        /// What WhatsApp reported.
        status: DeliveryStatus,
        /// The attempt that the status echoes, when it is one of ours (`biz_opaque_callback_data`).
        attempt_id: Option<AttemptId>,
        /// The recipient, as the webhook knew them.
        address: Address,
        /// Graph error code of a `failed` status.
        error_code: Option<i64>,
        /// The item exactly as Meta sent it (JSON).
        raw: Text,
    }
    /// A further way to address the contact of this conversation was learned (R10).
    IdentityLearned {
        /// Everything known about the address by now.
        address: Address,
        /// The stream id under which the contact would otherwise be found by the newly learned identity.
        alias: StreamId,
    }
    /// This stream is an alias: what concerns it is recorded under `canonical` from here on (R10).
    ConversationLinked {
        /// The conversation that continues.
        canonical: StreamId,
    }
    /// A phone number does not name the person of a conversation any more: whoever is met under it from `since` on is somebody else, or the
    /// person of another conversation (R10). It stands in the stream of the number, and in the conversation that loses it.
    IdentityPassedOn {
        /// The stream id that follows from the number.
        identity: StreamId,
        /// The number.
        address: Address,
        /// The first moment at which it names somebody else, by WhatsApp's clock.
        since: Timestamp,
        /// The conversation with whoever has it from then on.
        successor: StreamId,
    }
    /// The person of this conversation, whoever that is, has a phone number that named another conversation before (R10).
    IdentityTakenOver {
        /// The business number of the conversation.
        phone_number_id: PhoneNumberId,
        /// The stream id that follows from the number.
        identity: StreamId,
        /// How the person is addressed from then on, as far as it is known.
        address: Address,
        /// From when on, by WhatsApp's clock.
        since: Timestamp,
    }
    /// The contact told WhatsApp to stop or resume marketing messages (`user_preferences`).
    MarketingPreferenceChanged {
        /// The business number concerned.
        phone_number_id: PhoneNumberId,
        /// True for `stop`.
        stopped: bool,
        /// The item exactly as Meta sent it (JSON).
        raw: Text,
    }
    /// Meta said something about the account, a number or a template that no message stream owns.
    AccountNotice {
        /// The WhatsApp Business Account concerned.
        waba_id: WabaId,
        /// The webhook field, e.g. `account_update`.
        field: String,
        /// The value exactly as Meta sent it (JSON).
        raw: Text,
    }
    /// A send command passed every rule and is queued for its conversation.
    MessageAccepted {
        /// Who sends.
        user_id: UserId,
        /// From which business number.
        phone_number_id: PhoneNumberId,
        /// What will be sent.
        content: Content,
        /// What to do when WhatsApp's answer gets lost.
        #[serde(default)]
        policy: SendPolicy,
        /// Why it is sent.
        #[serde(default)]
        purpose: SendPurpose,
        /// After this moment it is not sent any more.
        not_after: Timestamp,
    }
    /// A command was refused; nothing left.
    MessageRejected {
        /// Who wanted to send.
        user_id: UserId,
        /// Machine-readable reason, one of the words of the rules (`window_closed`, `opt_in_required`, …).
        reason: String,
        /// The field at fault, as a path into the command. Empty when no field is.
        field: String,
        /// What can be done about it, one sentence.
        remedy: String,
    }
    /// WhatsApp took the message. Delivery is reported by [`MessageStatusChanged`].
    MessageSent {
        /// From which business number.
        phone_number_id: PhoneNumberId,
        /// Meta's id of the message.
        wamid: Wamid,
        /// The attempt that got through.
        attempt_id: AttemptId,
        /// Why it was sent: a tap on an opt-in message is an answer.
        #[serde(default)]
        purpose: SendPurpose,
    }
    /// An accepted message will not be sent (any more); the contact has not got it from us.
    MessageFailed {
        /// Machine-readable reason: a word of the rules for a withdrawal, else the class of WhatsApp's refusal.
        reason: String,
        /// Graph error code, when WhatsApp refused.
        error_code: Option<i64>,
        /// The last attempt, when there was one.
        attempt_id: Option<AttemptId>,
    }
    /// WhatsApp's answer got lost: the message may or may not have left. A later status settles it (R4).
    MessageUnconfirmed {
        /// The attempt whose fate is unknown.
        attempt_id: AttemptId,
        /// What was observed: `timeout`, `reset`, `crash`, `server_error`, `unreadable`.
        observed: String,
    }
    /// Sending from a number is held back because of a configuration or account problem.
    NumberPaused {
        /// The number.
        phone_number_id: PhoneNumberId,
        /// Graph error code.
        error_code: i64,
    }
    /// WhatsApp answers again for a paused number.
    NumberResumed {
        /// The number.
        phone_number_id: PhoneNumberId,
    }
    /// The user confirmed; the organization's opt-in template was queued (P6).
    OptInRequested {
        /// Who asked.
        user_id: UserId,
        /// From which business number.
        phone_number_id: PhoneNumberId,
        /// The request ends without an answer at this moment.
        expires_at: Timestamp,
        /// The send command of the opt-in message: the only one that may go out as it.
        message_id: Option<CommandId>,
    }
    /// The contact accepted (P9).
    OptInAccepted {
        /// The event that carried the answer.
        source: EventId,
        /// `button`, `text` or `import`.
        how: String,
    }
    /// The contact declined (P9).
    OptInDeclined {
        /// The event that carried the answer.
        source: EventId,
    }
    /// The request was not answered in time.
    OptInExpired {
        /// The `expires_at` of the request that ended.
        expires_at: Timestamp,
    }
    /// The opt-in message did not get to the contact: consent is what it was before the request, and the user may ask again.
    OptInFailed {
        /// The `expires_at` of the request that ended.
        expires_at: Timestamp,
        /// The event that tells of the failure.
        source: EventId,
        /// Machine-readable: the reason in `source`, or `undelivered` when WhatsApp took the message and reported its failure later.
        reason: String,
        /// Graph error code, when WhatsApp refused.
        error_code: Option<i64>,
    }
    /// The contact wrote STOP, or an operator revoked the consent.
    OptedOut {
        /// The event that carried it.
        source: EventId,
        /// `stop_word`, `revoked`, or `linked` (said to an alias of the conversation).
        how: String,
    }
    /// The contact wrote START after having opted out or declined.
    OptedBackIn {
        /// The event that carried it.
        source: EventId,
    }
    /// Consent was given elsewhere and imported with its proof.
    ConsentImported {
        /// Where and how it was given, as the importer stated it.
        proof: Text,
        /// Who imported it.
        by: UserId,
    }
    /// An operator withdrew the consent of a contact.
    ConsentRevoked {
        /// Who did it.
        by: UserId,
    }
    /// The contact's no to what is an alias of this conversation counts here, too (R10), unless they wrote START or tapped the opt-in
    /// message here since.
    OptOutCarriedOver {
        /// The stream in which the no stands.
        alias: StreamId,
        /// When the no was said.
        since: Timestamp,
        /// Only marketing messages are stopped.
        marketing_only: bool,
    }
    /// The customer service window opened or was renewed after having been closed.
    WindowOpened {
        /// When it ends.
        deadline: Timestamp,
        /// The event that opened it.
        source: EventId,
        /// What the contact did.
        #[serde(default)]
        cause: WindowCause,
    }
    /// The window ends soon.
    WindowClosingSoon {
        /// When it ends.
        deadline: Timestamp,
    }
    /// The contact has not replied in time (P12). True only while the window's deadline is still this one (R8).
    WindowExpired {
        /// The deadline that passed.
        deadline: Timestamp,
    }
    /// The organization enabled WhatsApp for a user (P1).
    WhatsAppEnabled {
        /// The user.
        user_id: UserId,
        /// The number the user writes from.
        phone_number_id: PhoneNumberId,
    }
    /// The organization took WhatsApp away from a user (P1).
    WhatsAppDisabled {
        /// The user.
        user_id: UserId,
    }
    /// The user has to be told once that the feature has been activated (P2).
    ActivationNoticeRaised {
        /// The user.
        user_id: UserId,
    }
    /// The user dismissed the activation notice; it never comes back (P2).
    ActivationNoticeAcknowledged {
        /// The user.
        user_id: UserId,
    }
    /// A person was put into a user's contacts (P3).
    ContactAdded {
        /// Whose contact list.
        user_id: UserId,
        /// The entry.
        contact_id: ContactId,
        /// The conversation with that person.
        conversation_id: StreamId,
        /// How WhatsApp addresses the person.
        address: Address,
        /// The name in the contact list.
        name: Option<Text>,
    }
    /// A person was taken out of a user's contacts (P3).
    ContactRemoved {
        /// Whose contact list.
        user_id: UserId,
        /// The entry.
        contact_id: ContactId,
        /// The conversation with that person.
        conversation_id: StreamId,
    }
}

/// What the contact did that opened a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowCause {
    /// Wrote, or sent something else: a picture, a place, what the connector does not carry.
    Message,
    /// Tapped a button, chose from a list or filled in a form.
    Reply,
    /// Reacted to a message.
    Reaction,
    /// Called, and was answered or not.
    Call,
    /// Not told, or something that a newer version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Where the time of an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeSource {
    /// WhatsApp's timestamp of the contact's message or of the status (whole seconds).
    Whatsapp,
    /// The connector's own clock.
    Connector,
    /// A source written by a newer version.
    #[serde(other)]
    Unknown,
}

/// What stands around every event in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Derived from the cause, so that a repeat is recognisable (R3).
    pub event_id: EventId,
    /// The name of the event type, as in [`EVENT_TYPES`].
    pub event_type: String,
    /// Version of the event type's schema, from 1.
    pub schema_version: i32,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The conversation (or user, or number) the event belongs to; also the key of the record.
    pub stream_id: StreamId,
    /// What led to this event: the id of a webhook item, a command, a deadline or another event.
    pub cause_id: String,
    /// The command this event is an outcome of.
    pub command_id: Option<CommandId>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// By whose clock.
    pub time_source: TimeSource,
    /// When the connector wrote it down.
    pub recorded_at: Timestamp,
    /// The service that wrote it.
    pub producer: String,
    /// W3C trace context of the cause.
    pub traceparent: Option<String>,
}

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What stands around it.
    pub envelope: Envelope,
    /// What happened.
    pub event: Event,
}
