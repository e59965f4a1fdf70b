//! What upstream systems ask for, and what the connector's own topics between its services carry.

use serde::{Deserialize, Serialize};

use crate::identity::Address;
use crate::ids::{
    AttemptId, CommandId, ContactId, OrganizationId, PhoneNumberId, StreamId, Text, UserId, WabaId, Wamid,
};
use crate::settings::Rules;
use crate::time::Timestamp;

mod check;
mod digest;
mod number;

pub use number::{NumberSettings, NumberState};

pub use check::LONGEST_LIFE;

/// What a send command wants to send. Everything but text and templates is refused as `unsupported_content` (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentKind {
    /// Free-form text, up to 4,096 characters.
    Text,
    /// An approved message template.
    Template,
    /// The typing indicator (also marks the contact's message as read).
    Typing,
    /// Marks the contact's message as read.
    Read,
    /// Anything else a publisher may ask for: refused.
    #[serde(other)]
    Unknown,
}

/// One value for a placeholder of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateParameter {
    /// The placeholder's name; `None` for positional templates.
    pub name: Option<String>,
    /// The value.
    pub text: Text,
}

/// The value for a template's button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ButtonParameter {
    /// Position of the button, from 0.
    pub index: i32,
    /// `quick_reply` (the value is the payload), `url` (the suffix, percent-encoded) or `copy_code` (the code).
    pub sub_type: String,
    /// The value.
    pub text: Text,
}

/// A template and what fills it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateCall {
    /// The template's name.
    pub name: String,
    /// Its language, e.g. `en_US`.
    pub language: String,
    /// Values of the header's placeholders.
    #[serde(default)]
    pub header: Vec<TemplateParameter>,
    /// Values of the body's placeholders.
    #[serde(default)]
    pub body: Vec<TemplateParameter>,
    /// Values of the buttons.
    #[serde(default)]
    pub buttons: Vec<ButtonParameter>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Which of the following fields counts.
    pub kind: ContentKind,
    /// The text, for [`ContentKind::Text`].
    pub text: Option<Text>,
    /// Whether WhatsApp shows a preview of the first link.
    #[serde(default)]
    pub preview_url: bool,
    /// The template, for [`ContentKind::Template`].
    pub template: Option<TemplateCall>,
    /// The contact's message that is quoted, marked as read or typed at.
    pub reply_to: Option<Wamid>,
}

impl Content {
    /// A free-form text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { kind: ContentKind::Text, text: Some(text.into()), preview_url: false, template: None, reply_to: None }
    }

    /// A template.
    #[must_use]
    pub fn template(call: TemplateCall) -> Self {
        Self { kind: ContentKind::Template, text: None, preview_url: false, template: Some(call), reply_to: None }
    }
}

/// What to do when WhatsApp's answer to an attempt got lost (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SendPolicy {
    /// After the waiting time, one more attempt.
    AtLeastOnce,
    /// Never send again; the message ends as unconfirmed unless a status settles it.
    #[default]
    #[serde(other)]
    AtMostOnce,
}

/// Why a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SendPurpose {
    /// The organization's opt-in template, queued by the opt-in tracker (P6).
    OptIn,
    /// A user writes to a contact.
    #[default]
    #[serde(other)]
    Conversation,
}

/// Whom a command is about. One of `conversation_id`, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recipient {
    /// A conversation read from the log.
    pub conversation_id: Option<StreamId>,
    /// A phone number or BSUID, as the user's contact list has it.
    #[serde(default)]
    pub address: Address,
}

/// `whatsapp.send.commands.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// The outcome is found in the log under this id.
    pub command_id: CommandId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Who sends.
    pub user_id: UserId,
    /// From which business number.
    pub phone_number_id: PhoneNumberId,
    /// To whom.
    pub recipient: Recipient,
    /// What.
    pub content: Content,
    /// What to do when WhatsApp's answer gets lost.
    #[serde(default)]
    pub policy: SendPolicy,
    /// Why.
    #[serde(default)]
    pub purpose: SendPurpose,
    /// When the publisher issued it.
    pub issued_at: Timestamp,
    /// After this moment it is not sent any more. `None`: 24 hours after `issued_at`.
    pub not_after: Option<Timestamp>,
}

impl SendMessage {
    /// A stable hash of what the command asks for. A repeat under the same command id has the same digest, whenever it was
    /// issued; another digest is a conflict.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::of_send(self)
    }

    /// After this moment the message is not sent any more. A clock from the future cannot extend the default life.
    #[must_use]
    pub fn effective_not_after(&self, rules: &Rules, now: Timestamp) -> Timestamp {
        self.not_after.unwrap_or_else(|| self.issued_at.min(now) + rules.command_life.min(LONGEST_LIFE))
    }
}

/// What a consent command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentAction {
    /// Send the organization's opt-in template (P6).
    RequestOptIn,
    /// Consent was given elsewhere; `proof` says where.
    Import,
    /// An operator withdraws the consent.
    Revoke,
    /// The user dismisses the activation notice (P2). Needs no recipient.
    AcknowledgeNotice,
    /// Written by a newer publisher: refused.
    #[serde(other)]
    Unknown,
}

/// `whatsapp.consent.commands.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentCommand {
    /// The outcome is found in the log under this id.
    pub command_id: CommandId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Who asks.
    pub user_id: UserId,
    /// Which business number.
    pub phone_number_id: PhoneNumberId,
    /// About whom.
    pub recipient: Recipient,
    /// What is asked for.
    pub action: ConsentAction,
    /// Refused: which template asks is a setting of the organization and the number.
    pub template: Option<TemplateCall>,
    /// Proof of a consent given elsewhere.
    pub proof: Option<Text>,
    /// When the publisher issued it.
    pub issued_at: Timestamp,
}

impl ConsentCommand {
    /// A stable hash of what the command asks for, see [`SendMessage::digest`].
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::of_consent(self)
    }
}

/// `whatsapp.dispatch.v1`: an accepted message on its way to WhatsApp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The command it comes from.
    pub command_id: CommandId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Who sends.
    pub user_id: UserId,
    /// From which business number.
    pub phone_number_id: PhoneNumberId,
    /// The conversation, also the key of the record.
    pub conversation_id: StreamId,
    /// How WhatsApp addresses the recipient.
    pub address: Address,
    /// What is sent.
    pub content: Content,
    /// What to do when WhatsApp's answer gets lost.
    #[serde(default)]
    pub policy: SendPolicy,
    /// Why it is sent.
    #[serde(default)]
    pub purpose: SendPurpose,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// After this moment it is not sent any more.
    pub not_after: Timestamp,
}

/// What a journal entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalKind {
    /// The POST is about to be made. Durable before its first byte leaves.
    Attempted,
    /// The fate of the attempt is known, or known to be unknown.
    Concluded,
    /// The request provably never left: the attempt does not count.
    Withdrawn,
    /// Written by a newer version.
    #[serde(other)]
    Unknown,
}

/// `whatsapp.dispatch.journal.v1`: physical facts about attempts, true whether or not their transaction commits (R4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// What this entry says.
    pub kind: JournalKind,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Counts the attempts of a command, from 1.
    pub attempt_no: i32,
    /// The command.
    pub command_id: CommandId,
    /// The conversation, also the key of the record.
    pub conversation_id: StreamId,
    /// The sending number.
    pub phone_number_id: PhoneNumberId,
    /// When, by our clock.
    pub at: Timestamp,
    /// For [`JournalKind::Concluded`]: `sent`, `failed`, `retry` or `unconfirmed`.
    pub conclusion: Option<String>,
    /// Meta's id of the message, when known.
    pub wamid: Option<Wamid>,
}

/// What a directory record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryKind {
    /// A business number of an organization.
    Number,
    /// A user of an organization.
    User,
    /// An entry in a user's contact list.
    Contact,
    /// What is set for an organization.
    Organization,
    /// What WhatsApp reports about a business number; written by the connector.
    NumberState,
    /// Written by a newer version.
    #[serde(other)]
    Unknown,
}

/// `whatsapp.directory.v1` (compacted): a tombstone under the same key takes it away.
///
/// Keys: `number/<phone_number_id>`, `user/<organization>/<user>`, `contact/<organization>/<user>/<contact>`,
/// `organization/<organization>`, `number-state/<phone_number_id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRecord {
    /// Which of the optional fields count.
    pub kind: DirectoryKind,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The business number (of a number record, or the one a user writes from).
    pub phone_number_id: Option<PhoneNumberId>,
    /// The account of a number record.
    pub waba_id: Option<WabaId>,
    /// The user of a user or contact record.
    pub user_id: Option<UserId>,
    /// Whether WhatsApp is enabled, of a user record (P1).
    #[serde(default)]
    pub enabled: bool,
    /// The entry of a contact record.
    pub contact_id: Option<ContactId>,
    /// How WhatsApp addresses the contact.
    #[serde(default)]
    pub address: Address,
    /// The name in the contact list.
    pub name: Option<Text>,
    /// What is set for a number or an organization.
    #[serde(default)]
    pub settings: Option<NumberSettings>,
    /// What WhatsApp reports about a number.
    #[serde(default)]
    pub state: Option<NumberState>,
}

impl DirectoryRecord {
    /// Whether this is the record of a number of the organization (P4).
    #[must_use]
    pub fn is_of(&self, organization: &OrganizationId) -> bool {
        self.kind == DirectoryKind::Number && self.organization_id == *organization
    }

    /// The key of this record's slot in the compacted topic; `None` when a needed id is missing.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        let organization = &self.organization_id;
        match self.kind {
            DirectoryKind::Number => Some(format!("number/{}", self.phone_number_id.as_ref()?)),
            DirectoryKind::User => Some(format!("user/{organization}/{}", self.user_id.as_ref()?)),
            DirectoryKind::Contact => {
                Some(format!("contact/{organization}/{}/{}", self.user_id.as_ref()?, self.contact_id.as_ref()?))
            }
            DirectoryKind::Organization => Some(format!("organization/{organization}")),
            DirectoryKind::NumberState => Some(format!("number-state/{}", self.phone_number_id.as_ref()?)),
            DirectoryKind::Unknown => None,
        }
    }
}

/// What a webhook item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// An element of `messages[]`.
    Message,
    /// An element of `statuses[]`.
    Status,
    /// An element of `calls[]`, a whole `value` of another field, or what fits none of these.
    Change,
    /// Written by a newer version.
    #[serde(other)]
    Unknown,
}

/// `whatsapp.webhooks.v1`: one item of a delivery that Meta signed, with the facts of the delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookItem {
    /// What `raw` is.
    pub kind: WebhookKind,
    /// The change's field, e.g. `messages`.
    pub field: String,
    /// `entry[].id`.
    pub waba_id: WabaId,
    /// `metadata.phone_number_id`, when there is one.
    pub phone_number_id: Option<PhoneNumberId>,
    /// The item, JSON as Meta sent it.
    pub raw: Text,
    /// The element of `contacts[]` that belongs to the item, JSON as Meta sent it.
    pub contact: Option<Text>,
    /// `entry[].time`, when there is one: account webhooks carry it. The same in every repetition of an update, another one when the same
    /// thing happens again.
    #[serde(default)]
    pub entry_time: Option<Timestamp>,
    /// When the delivery arrived.
    pub received_at: Timestamp,
    /// One id per delivery.
    pub delivery_id: String,
}

/// A [`WebhookItem`] for whoever only writes it: its texts stay where they lie, in the body of their delivery. Not `Debug`: it shows them.
#[derive(Clone, Copy)]
pub struct WebhookItemRef<'a> {
    /// As [`WebhookItem::kind`].
    pub kind: WebhookKind,
    /// As [`WebhookItem::field`].
    pub field: &'a str,
    /// As [`WebhookItem::waba_id`].
    pub waba_id: &'a str,
    /// As [`WebhookItem::phone_number_id`].
    pub phone_number_id: Option<&'a PhoneNumberId>,
    /// As [`WebhookItem::raw`].
    pub raw: &'a str,
    /// As [`WebhookItem::contact`].
    pub contact: Option<&'a str>,
    /// As [`WebhookItem::entry_time`].
    pub entry_time: Option<Timestamp>,
    /// As [`WebhookItem::received_at`].
    pub received_at: Timestamp,
    /// As [`WebhookItem::delivery_id`].
    pub delivery_id: &'a str,
}

impl<'a> From<&'a WebhookItem> for WebhookItemRef<'a> {
    fn from(item: &'a WebhookItem) -> Self {
        Self {
            kind: item.kind,
            field: &item.field,
            waba_id: item.waba_id.as_str(),
            phone_number_id: item.phone_number_id.as_ref(),
            raw: item.raw.expose(),
            contact: item.contact.as_ref().map(Text::expose),
            entry_time: item.entry_time,
            received_at: item.received_at,
            delivery_id: &item.delivery_id,
        }
    }
}

impl From<WebhookItemRef<'_>> for WebhookItem {
    fn from(item: WebhookItemRef<'_>) -> Self {
        Self {
            kind: item.kind,
            field: item.field.to_owned(),
            waba_id: WabaId(item.waba_id.to_owned()),
            phone_number_id: item.phone_number_id.cloned(),
            raw: Text::from(item.raw),
            contact: item.contact.map(Text::from),
            entry_time: item.entry_time,
            received_at: item.received_at,
            delivery_id: item.delivery_id.to_owned(),
        }
    }
}
