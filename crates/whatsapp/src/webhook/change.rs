//! Reads what is neither a message nor a status: templates, numbers, accounts, preferences, calls.

use connector_domain::command::WebhookItem;
use connector_domain::identity::Address;
use connector_domain::ids::{CallId, Text, Wamid};
use connector_domain::time::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{BY_PERSON, Who, int, text, timestamp};
use super::parse::{ParseError, contact, id, object};

/// The template a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRef {
    /// Its name.
    pub name: String,
    /// Its language as the Graph API spells it (`en_US`); some webhooks write `en-US`.
    pub language: String,
}

/// A person's wish about marketing messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The person.
    pub address: Address,
    /// True for `stop`; `resume` and `signup` lift it.
    pub stopped: bool,
    /// When, by WhatsApp's clock. The delivery's arrival when the item does not say.
    pub at: Timestamp,
    /// What is recorded of this person, as Meta wrote it: the item, or the person's entry when the item names others too.
    pub raw: Text,
    /// The item is about this person and nobody else.
    pub alone: bool,
}

/// A call of a person to the business number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Meta's id of the call: the same in everything that is told of it.
    pub call_id: CallId,
    /// Who called.
    pub address: Address,
    /// When, by WhatsApp's clock, in whole seconds: when it began, as far as the item says.
    pub at: Timestamp,
}

/// A change as far as the connector acts on it. The raw item has the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `message_template_status_update`
    TemplateStatus {
        /// The template.
        template: TemplateRef,
        /// `APPROVED`, `REJECTED`, `PAUSED`, …
        status: String,
        /// Why, unless Meta says `NONE`.
        reason: Option<String>,
        /// `MARKETING`, `UTILITY` or `AUTHENTICATION`, when it says so.
        category: Option<String>,
    },
    /// `message_template_quality_update`
    TemplateQuality {
        /// The template.
        template: TemplateRef,
        /// `GREEN`, `YELLOW`, `RED` or `UNKNOWN`.
        quality: String,
    },
    /// `template_category_update`
    TemplateCategory {
        /// The template.
        template: TemplateRef,
        /// Its category as of this webhook; an announced one is not in force yet and stands in the raw item.
        category: Option<String>,
        /// True when the change is only announced, not done.
        announced: bool,
    },
    /// `message_template_components_update`: the texts have changed, the catalogue has to be read again.
    TemplateComponents {
        /// The template.
        template: TemplateRef,
    },
    /// `phone_number_quality_update`
    PhoneQuality {
        /// `THROUGHPUT_UPGRADE`, `FLAGGED`, …
        event: String,
        /// Messaging limit, e.g. `TIER_1K`, under its new or its old name.
        limit: Option<String>,
    },
    /// `phone_number_name_update`
    PhoneName {
        /// `APPROVED`, `REJECTED`, …
        decision: String,
    },
    /// `account_update`
    AccountUpdate {
        /// `ACCOUNT_RESTRICTION`, `DISABLED_UPDATE`, …
        event: String,
        /// What may no longer be done, for `ACCOUNT_RESTRICTION`.
        restrictions: Vec<String>,
    },
    /// `account_alerts`
    AccountAlert {
        /// What it is about, e.g. `OBA_APPROVED`.
        alert: Option<String>,
        /// `INFORMATIONAL`, `WARNING`, `CRITICAL`.
        severity: Option<String>,
    },
    /// `user_preferences`: what persons said about marketing. Empty when the item is about other categories.
    UserPreferences(Vec<Preference>),
    /// `calls`: a person called, or that call ended. What the business did itself is not among them.
    Call(Call),
    /// `smb_message_echoes`: what the business itself typed in the app of a coexistence number.
    Echoes(Vec<Wamid>),
    /// `history`: messages from before the number joined.
    History,
    /// `errors[]` of the `messages` field: a failure that belongs to no message.
    Errors(Vec<i64>),
    /// Anything else.
    Other {
        /// The field's name; may be empty.
        field: String,
    },
}

/// Reads the value of a change. What lacks the keys of its field is [`Change::Other`]: nobody acts on it, and it is kept.
///
/// # Errors
/// When it is not a JSON object, preferences that name nobody, or a person's call without id, time or caller: what a person did must not get
/// lost unseen.
pub fn parse_change(item: &WebhookItem) -> Result<Change, ParseError> {
    let value = object(item)?;
    let known = match item.field.as_str() {
        // Meta's own example of a quality update carries the name of the status field: the keys decide.
        "message_template_status_update" | "message_template_quality_update" => {
            template_quality(&value).or_else(|| template_status(&value))
        }
        "template_category_update" => template_category(&value),
        "message_template_components_update" => {
            template(&value).map(|template| Change::TemplateComponents { template })
        }
        "phone_number_quality_update" => text(&value["event"]).map(|event| Change::PhoneQuality {
            event,
            limit: text(&value["max_daily_conversations_per_business"]).or_else(|| text(&value["current_limit"])),
        }),
        "phone_number_name_update" => text(&value["decision"]).map(|decision| Change::PhoneName { decision }),
        "account_update" => text(&value["event"]).map(|event| Change::AccountUpdate {
            event,
            restrictions: elements(&value["restriction_info"]).filter_map(|r| text(&r["restriction_type"])).collect(),
        }),
        "account_alerts" => Some(account_alert(&value)),
        "user_preferences" => Some(Change::UserPreferences(preferences(&value, item)?)),
        "calls" => call(&value, item)?.map(Change::Call),
        "smb_message_echoes" => Some(Change::Echoes(
            elements(&value["message_echoes"]).filter_map(|echo| text(&echo["id"])).map(Wamid).collect(),
        )),
        "history" => Some(Change::History),
        "messages" if value["errors"].is_array() => {
            Some(Change::Errors(elements(&value["errors"]).filter_map(|error| int(&error["code"])).collect()))
        }
        _ => None,
    };
    Ok(known.unwrap_or_else(|| Change::Other { field: item.field.clone() }))
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn template(value: &Value) -> Option<TemplateRef> {
    Some(TemplateRef {
        name: text(&value["message_template_name"])?,
        language: text(&value["message_template_language"])?.replace('-', "_"),
    })
}

fn template_status(value: &Value) -> Option<Change> {
    Some(Change::TemplateStatus {
        template: template(value)?,
        status: text(&value["event"])?,
        reason: text(&value["reason"]).filter(|reason| reason != "NONE"),
        category: text(&value["message_template_category"]),
    })
}

fn template_quality(value: &Value) -> Option<Change> {
    Some(Change::TemplateQuality { template: template(value)?, quality: text(&value["new_quality_score"])? })
}

fn template_category(value: &Value) -> Option<Change> {
    let correct = text(&value["correct_category"]);
    Some(Change::TemplateCategory {
        template: template(value)?,
        announced: correct.is_some(),
        // An announcement names today's category as `new_category` and the coming one as `correct_category`.
        category: text(&value["new_category"]),
    })
}

fn account_alert(value: &Value) -> Change {
    // The documentation nests these under `alert_info`; older samples have them at the top.
    let info = if value["alert_info"].is_object() { &value["alert_info"] } else { value };
    Change::AccountAlert { alert: text(&info["alert_type"]), severity: text(&info["alert_severity"]) }
}

/// `None`: a call of the business, or something else about calls.
fn call(value: &Value, item: &WebhookItem) -> Result<Option<Call>, ParseError> {
    if value["direction"] != BY_PERSON || !matches!(value["event"].as_str(), Some("connect" | "terminate")) {
        return Ok(None);
    }
    let call_id = id(&value["id"]).map(CallId).ok_or(ParseError { reason: "no_id" })?;
    // The end of a call says when it had begun, if anybody answered; a window must not be taken for longer than it is.
    let at = timestamp(&value["start_time"]).filter(|_| value["event"] == "terminate");
    let at = at.or_else(|| timestamp(&value["timestamp"])).ok_or(ParseError { reason: "no_timestamp" })?;
    let address = Who::of(value).caller(&Who::of(&contact(item)));
    if address.is_empty() {
        return Err(ParseError { reason: "no_address" });
    }
    Ok(Some(Call { call_id, address, at }))
}

/// The entries where they lie in the item.
#[derive(Deserialize)]
struct Entries<'a> {
    #[serde(borrow)]
    user_preferences: Vec<&'a RawValue>,
}

fn preferences(value: &Value, item: &WebhookItem) -> Result<Vec<Preference>, ParseError> {
    let none = ParseError { reason: "no_preferences" };
    let entries = value["user_preferences"].as_array().filter(|entries| !entries.is_empty()).ok_or(none)?;
    let whole = serde_json::from_str::<Entries<'_>>(item.raw.expose()).ok();
    let whole = whole.filter(|whole| whole.user_preferences.len() == entries.len());
    // What only a patient reader can read is written again as it was read.
    let alone = entries.len() == 1;
    let raw = |n: usize, entry: &Value| match &whole {
        _ if alone => item.raw.clone(),
        Some(whole) => Text::from(whole.user_preferences[n].get()),
        None => Text(entry.to_string()),
    };
    // A category that Meta invents next is no word about marketing.
    let about_marketing = |entry: &Value| entry["category"].as_str().is_none_or(|word| word == "marketing_messages");
    let read = |(n, entry): (usize, &Value)| {
        let address = Who::of(entry).contact();
        let stopped = entry["value"].as_str()? == "stop";
        let at = timestamp(&entry["timestamp"]).unwrap_or(item.received_at);
        (!address.is_empty()).then(|| Preference { address, stopped, at, raw: raw(n, entry), alone })
    };
    let entries = entries.iter().enumerate().filter(|(_, entry)| about_marketing(entry));
    entries.map(|entry| read(entry).ok_or(none)).collect()
}
