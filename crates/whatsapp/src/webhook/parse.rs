//! Reads one message or one status. Tolerant: what is unknown is ignored or kept as a word, never a panic.

use connector_domain::command::WebhookItem;
use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, Text, Wamid};
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;
use serde_json::Value;
use thiserror::Error;

use super::json::{self, LONGEST_ID, Who, int, text, timestamp};

/// The field under which Meta tells what happens in conversations that another one answers at the moment.
pub(super) const STANDBY: &str = "standby";

/// Why an item cannot be understood; the same item never can. The word names the cause for the dead letter topic and a
/// metric, and repeats nothing of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the webhook item cannot be understood: {reason}")]
pub struct ParseError {
    /// `not_json`, `not_an_object`, `no_id`, `no_timestamp`, `no_address`, `no_status` or `no_preferences`.
    pub reason: &'static str,
}

/// A message from a person, or what WhatsApp says in a chat in its own name ([`InboundMessage::system`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundMessage {
    /// Meta's id of the message.
    pub wamid: Wamid,
    /// The conversation's other side: the sender, or a stand-in (`group:…`) when it was written in a group.
    pub address: Address,
    /// Who wrote it; differs from `address` in groups only.
    pub sender: Address,
    /// The name in the sender's profile.
    pub profile_name: Option<Text>,
    /// When it was sent, by WhatsApp's clock, in whole seconds.
    pub sent_at: Timestamp,
    /// Meta's `type`, or `unknown` when there is none.
    pub message_type: String,
    /// The text, the title of the button or list row, or the new text of an edit.
    pub text: Option<Text>,
    /// What stands below a picture, a video or a document: the person's words, though the medium is not carried.
    pub caption: Option<Text>,
    /// The payload of a quick reply or the id of an interactive reply, for the consent classifier.
    pub payload: Option<String>,
    /// True when the user can only be told that something arrived (P5).
    pub unsupported: bool,
    /// The message this one answers (`context.id`; may be absent even on button taps).
    pub reply_to: Option<Wamid>,
    /// The earlier message that an edit, a revocation or a reaction is about.
    pub about: Option<Wamid>,
    /// The group it was written in.
    pub group_id: Option<String>,
    /// What WhatsApp reports about the contact, for `system`.
    pub system: Option<SystemChange>,
    /// The advertisement the contact came from.
    pub referral: Option<Referral>,
    /// It was written to somebody else who answers for the number at the moment (field `standby`): the same message may come as our own
    /// later, and whether it opens a window for us is not said.
    pub standby: bool,
    /// Why WhatsApp itself could not carry the message (131051, 131060), for `unsupported`.
    pub error_code: Option<i64>,
}

impl InboundMessage {
    /// Whether the person's message opens or renews the customer service window: anything they send to the number, media
    /// included. Not what WhatsApp says in its own name, not a group, not a change of an earlier message.
    #[must_use]
    pub fn opens_window(&self) -> bool {
        let kind = self.message_type.as_str();
        self.group_id.is_none() && !self.standby && !matches!(kind, "system" | "edit" | "revoke" | "request_welcome")
    }
}

/// A change of a contact's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemChange {
    /// `user_changed_number`, `user_changed_user_id`, `customer_identity_changed` or what Meta invents next.
    pub kind: String,
    /// The new phone number or BSUID. Empty when the address stays.
    pub new_address: Address,
}

/// Where a click-to-WhatsApp contact came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// `ad` or `post`.
    pub source_type: Option<String>,
    /// Meta's id of the advertisement or post.
    pub source_id: Option<String>,
    /// The click id; absent for some placements.
    pub ctwa_clid: Option<String>,
}

/// What WhatsApp reports about a message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundStatus {
    /// Meta's id of the message.
    pub wamid: Wamid,
    /// What it reports.
    pub status: DeliveryStatus,
    /// The same in Meta's own word, which may be a new one.
    pub word: String,
    /// When, by WhatsApp's clock, in whole seconds.
    pub at: Timestamp,
    /// The recipient, or a stand-in (`group:…`) for a group. May be empty: a `failed` status of a message addressed by BSUID
    /// need not say whom it is about.
    pub address: Address,
    /// In groups, the participant it is about: a phone number or BSUID.
    pub participant: Option<String>,
    /// The attempt echoed in `biz_opaque_callback_data`, when it is one of ours.
    pub attempt_id: Option<AttemptId>,
    /// Graph error code of a `failed` status.
    pub error_code: Option<i64>,
    /// As [`InboundMessage::standby`].
    pub standby: bool,
}

/// Reads an element of `messages[]`.
///
/// # Errors
/// When it has no id, no time or no sender.
pub fn parse_message(item: &WebhookItem) -> Result<InboundMessage, ParseError> {
    let message = object(item)?;
    let contact = contact(item);
    let wamid = wamid(&message["id"]).ok_or(ParseError { reason: "no_id" })?;
    let sent_at = timestamp(&message["timestamp"]).ok_or(ParseError { reason: "no_timestamp" })?;
    let (who, known) = (Who::of(&message), Who::of(&contact));
    let address = who.message(&known);
    if address.is_empty() {
        return Err(ParseError { reason: "no_address" });
    }
    let message_type = message["type"].as_str().unwrap_or("unknown").to_owned();
    let (words, payload) = words(&message, &message_type);
    let about = match message_type.as_str() {
        "edit" | "revoke" => self::wamid(&message[message_type.as_str()]["original_message_id"]),
        "reaction" => self::wamid(&message["reaction"]["message_id"]),
        _ => None,
    };
    Ok(InboundMessage {
        wamid,
        sender: who.sender(&known),
        address,
        profile_name: text(&contact["profile"]["name"]).map(Text),
        sent_at,
        unsupported: words.is_none() && message_type != "system",
        text: words.map(Text),
        caption: caption(&message, &message_type).map(Text),
        payload,
        reply_to: self::wamid(&message["context"]["id"]),
        about,
        group_id: text(&message["group_id"]),
        system: system(&message, &message_type),
        referral: referral(&message["referral"]),
        error_code: int(&message["errors"][0]["code"]),
        standby: item.field == STANDBY,
        message_type,
    })
}

/// Reads an element of `statuses[]`. `conversation` and `pricing` are left to the raw item.
///
/// # Errors
/// When it has no id, no time or no status.
pub fn parse_status(item: &WebhookItem) -> Result<InboundStatus, ParseError> {
    let status = object(item)?;
    let word = status["status"].as_str().ok_or(ParseError { reason: "no_status" })?;
    let participant = ["recipient_participant_id", "recipient_participant_user_id"];
    Ok(InboundStatus {
        wamid: wamid(&status["id"]).ok_or(ParseError { reason: "no_id" })?,
        status: delivery(word),
        word: word.to_owned(),
        at: timestamp(&status["timestamp"]).ok_or(ParseError { reason: "no_timestamp" })?,
        address: Who::of(&status).status(&Who::of(&contact(item))),
        participant: participant.into_iter().find_map(|field| id(&status[field])),
        attempt_id: status["biz_opaque_callback_data"].as_str().and_then(|opaque| opaque.parse().ok()),
        error_code: int(&status["errors"][0]["code"]),
        standby: item.field == STANDBY,
    })
}

pub(super) fn object(item: &WebhookItem) -> Result<Value, ParseError> {
    match json::read(item.raw.expose()) {
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err(ParseError { reason: "not_an_object" }),
        None => Err(ParseError { reason: "not_json" }),
    }
}

/// The contact is an extra: one that cannot be read must not cost the message.
pub(super) fn contact(item: &WebhookItem) -> Value {
    item.contact.as_ref().and_then(|contact| json::read(contact.expose())).unwrap_or_default()
}

fn wamid(value: &Value) -> Option<Wamid> {
    id(value).map(Wamid)
}

pub(super) fn id(value: &Value) -> Option<String> {
    text(value).filter(|id| id.len() <= LONGEST_ID)
}

/// What the person said, and the machine-readable side of a tap.
fn words(message: &Value, message_type: &str) -> (Option<String>, Option<String>) {
    let said = |value: &Value| value.as_str().map(str::to_owned);
    match message_type {
        "text" => (said(&message["text"]["body"]), None),
        "button" => {
            let button = &message["button"];
            (said(&button["text"]).or_else(|| said(&button["payload"])), said(&button["payload"]))
        }
        "interactive" => {
            let interactive = &message["interactive"];
            match interactive["type"].as_str() {
                Some(kind @ ("button_reply" | "list_reply")) => {
                    let reply = &interactive[kind];
                    (said(&reply["title"]).or_else(|| said(&reply["id"])), said(&reply["id"]))
                }
                _ => (None, None),
            }
        }
        "edit" => (said(&message["edit"]["message"]["text"]["body"]), None),
        _ => (None, None),
    }
}

/// The words below a medium, whatever Meta calls its next one. An edit holds the message anew, with a type of its own.
fn caption(message: &Value, message_type: &str) -> Option<String> {
    match message_type {
        "edit" => {
            let new = &message["edit"]["message"];
            text(&new[new["type"].as_str()?]["caption"])
        }
        medium => text(&message[medium]["caption"]),
    }
}

fn system(message: &Value, message_type: &str) -> Option<SystemChange> {
    if message_type != "system" {
        return None;
    }
    let system = &message["system"];
    Some(SystemChange {
        kind: text(&system["type"]).unwrap_or_else(|| "unknown".to_owned()),
        new_address: json::moved_to(system),
    })
}

fn referral(referral: &Value) -> Option<Referral> {
    referral.is_object().then(|| Referral {
        source_type: text(&referral["source_type"]),
        source_id: text(&referral["source_id"]),
        ctwa_clid: text(&referral["ctwa_clid"]),
    })
}

fn delivery(status: &str) -> DeliveryStatus {
    match status {
        "sent" => DeliveryStatus::Sent,
        "delivered" => DeliveryStatus::Delivered,
        "read" => DeliveryStatus::Read,
        "played" => DeliveryStatus::Played,
        "failed" => DeliveryStatus::Failed,
        "deleted" => DeliveryStatus::Deleted,
        "warning" => DeliveryStatus::Warning,
        _ => DeliveryStatus::Unknown,
    }
}
