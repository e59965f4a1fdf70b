//! Shapes of webhook values, as of 2026 (business-scoped user ids, `contacts` in statuses).

use serde_json::{Map, Value, json};

use super::Update;
use crate::{
    contacts::Contact,
    graph::errors::GraphError,
    world::{Account, Phone},
};

/// The number a webhook is about.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) waba_id: String,
    pub(crate) phone_number_id: String,
    pub(crate) display_phone_number: String,
}

impl Line {
    pub(crate) fn new(account: &Account, phone: &Phone) -> Self {
        Self {
            waba_id: account.id.clone(),
            phone_number_id: phone.id.clone(),
            display_phone_number: phone.display_phone_number.clone(),
        }
    }

    fn value(&self) -> Map<String, Value> {
        let mut value = Map::new();
        value.insert("messaging_product".into(), json!("whatsapp"));
        let metadata =
            json!({"display_phone_number": self.display_phone_number, "phone_number_id": self.phone_number_id});
        value.insert("metadata".into(), metadata);
        value
    }
}

/// How a contact is named in webhooks. The username comes with inbound messages, `delivered` and `read` only.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) wa_id: String,
    user_id: String,
    name: String,
    username: Option<String>,
    hide_number: bool,
}

impl From<&Contact> for Person {
    fn from(contact: &Contact) -> Self {
        Self {
            wa_id: contact.wa_id.clone(),
            user_id: contact.user_id.clone(),
            name: contact.name.clone(),
            username: contact.username.clone(),
            hide_number: contact.hide_number,
        }
    }
}

impl Person {
    fn json(&self, with_username: bool) -> Value {
        let mut profile = json!({"name": self.name});
        if let (true, Some(username)) = (with_username, &self.username) {
            profile["username"] = json!(username);
        }
        let mut contact = json!({"profile": profile, "user_id": self.user_id});
        if !self.hide_number {
            contact["wa_id"] = json!(self.wa_id);
        }
        contact
    }
}

/// A message of a contact. `content` is the object named by the type.
pub(crate) struct Inbound<'a> {
    pub(crate) wamid: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) content: Option<Value>,
    pub(crate) context: Option<&'a str>,
    pub(crate) timestamp_s: i64,
    /// More keys of the message, e.g. `referral` or `errors`.
    pub(crate) extra: Map<String, Value>,
}

/// Webhook of a contact's message. System messages come without `contacts`.
pub(crate) fn inbound(line: &Line, person: &Person, message: Inbound<'_>) -> Update {
    let mut entry = Map::new();
    if let Some(context) = message.context {
        entry.insert("context".into(), json!({"from": line.display_phone_number, "id": context}));
    }
    if !person.hide_number {
        entry.insert("from".into(), json!(person.wa_id));
    }
    entry.insert("from_user_id".into(), json!(person.user_id));
    entry.insert("id".into(), json!(message.wamid));
    entry.insert("timestamp".into(), json!(message.timestamp_s.to_string()));
    entry.insert("type".into(), json!(message.kind));
    if let Some(content) = message.content {
        entry.insert(message.kind.into(), content);
    }
    entry.extend(message.extra);
    let mut value = line.value();
    if message.kind != "system" {
        value.insert("contacts".into(), json!([person.json(true)]));
    }
    value.insert("messages".into(), json!([entry]));
    Update::messages(line, person, format!("message:{}", message.kind), message.wamid, &value.into())
}

/// A message of the business whose statuses are reported.
#[derive(Debug, Clone)]
pub(crate) struct Reported {
    pub(crate) wamid: String,
    pub(crate) opaque: Option<String>,
    /// `service`, `utility`, `marketing`, ...
    pub(crate) category: String,
    /// Addressed by user id instead of phone number.
    pub(crate) by_user_id: bool,
}

/// Webhook of a status; `error` goes with `failed`.
pub(crate) fn status(
    line: &Line,
    person: &Person,
    message: &Reported,
    status: &str,
    timestamp_s: i64,
    error: Option<&GraphError>,
) -> Update {
    let failed = status == "failed";
    let mut entry = Map::new();
    entry.insert("id".into(), json!(message.wamid));
    entry.insert("status".into(), json!(status));
    entry.insert("timestamp".into(), json!(timestamp_s.to_string()));
    let left_out = person.hide_number || (failed && message.by_user_id);
    if !left_out {
        entry.insert("recipient_id".into(), json!(person.wa_id));
    }
    if !failed || message.by_user_id {
        entry.insert("recipient_user_id".into(), json!(person.user_id));
    }
    if let Some(opaque) = &message.opaque {
        entry.insert("biz_opaque_callback_data".into(), json!(opaque));
    }
    if matches!(status, "sent" | "delivered") {
        let service = message.category == "service";
        let kind = if service { "free_customer_service" } else { "regular" };
        let pricing = json!({"billable": !service, "pricing_model": "PMP", "type": kind, "category": message.category});
        entry.insert("pricing".into(), pricing);
    }
    if let Some(error) = error {
        entry.insert("errors".into(), json!([error.webhook()]));
    }
    let mut value = line.value();
    if !failed {
        value.insert("contacts".into(), json!([person.json(status != "sent")]));
    }
    value.insert("statuses".into(), json!([entry]));
    Update::messages(line, person, format!("status:{status}"), &message.wamid, &value.into())
}

/// Webhook of a contact that stops or resumes marketing.
pub(crate) fn preference(line: &Line, person: &Person, value: &str, timestamp_s: i64) -> Update {
    let mut entry = json!({
        "user_id": person.user_id, "detail": format!("User requested to {value} marketing messages"),
        "category": "marketing_messages", "value": value, "timestamp": timestamp_s,
    });
    if !person.hide_number {
        entry["wa_id"] = json!(person.wa_id);
    }
    let mut body = line.value();
    body.insert("contacts".into(), json!([person.json(true)]));
    body.insert("user_preferences".into(), json!([entry]));
    let update = Update::messages(line, person, "preference".to_owned(), value, &body.into());
    Update { field: "user_preferences".to_owned(), about: None, ..update }
}

/// A call of a contact.
pub(crate) struct Call<'a> {
    pub(crate) id: &'a str,
    pub(crate) timestamp_s: i64,
    /// How long they spoke; `None`: nobody answered.
    pub(crate) seconds: Option<i64>,
}

/// Webhook of a call that a contact makes. `event`: `connect`, or `terminate` for its end.
pub(crate) fn call(line: &Line, person: &Person, call: &Call<'_>, event: &str) -> Update {
    let ended_s = call.timestamp_s.saturating_add(call.seconds.unwrap_or_default());
    let timestamp_s = if event == "connect" { call.timestamp_s } else { ended_s };
    let mut entry = json!({
        "id": call.id, "to": line.display_phone_number, "from_user_id": person.user_id, "event": event,
        "timestamp": timestamp_s.to_string(), "direction": "USER_INITIATED",
    });
    if !person.hide_number {
        entry["from"] = json!(person.wa_id);
    }
    match (event, call.seconds) {
        ("connect", _) => entry["session"] = json!({"sdp_type": "offer", "sdp": "v=0\r\n"}),
        (_, None) => entry["status"] = json!("FAILED"),
        (_, Some(seconds)) => {
            entry["status"] = json!("COMPLETED");
            entry["start_time"] = json!(call.timestamp_s.to_string());
            entry["end_time"] = json!(ended_s.to_string());
            entry["duration"] = json!(seconds);
        }
    }
    let mut value = line.value();
    value.insert("contacts".into(), json!([person.json(true)]));
    value.insert("calls".into(), json!([entry]));
    let update = Update::messages(line, person, format!("call:{event}"), call.id, &value.into());
    Update { field: "calls".to_owned(), ..update }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;

    fn line() -> Line {
        Line {
            waba_id: "1".to_owned(),
            phone_number_id: "2".to_owned(),
            display_phone_number: "15550100001".to_owned(),
        }
    }

    fn person(change: &str) -> Person {
        let mut contacts = crate::contacts::Contacts::default();
        let change = serde_json::from_str(change).expect("a change");
        Person::from(contacts.change("16505551234", change, &Ids::new(1)))
    }

    fn reported() -> Reported {
        let (wamid, opaque) = ("wamid.A".to_owned(), Some("attempt-1".to_owned()));
        Reported { wamid, opaque, category: "utility".to_owned(), by_user_id: false }
    }

    fn value(update: &Update) -> Value {
        serde_json::from_str(&update.value).expect("JSON")
    }

    #[test]
    fn a_delivered_status_names_the_contact_and_echoes_the_callback_data() {
        let person = person(r#"{"name":"Pablo","username":"@pablo","user_id":"US.1"}"#);
        assert_eq!(
            value(&status(&line(), &person, &reported(), "delivered", 1_750_030_073, None)),
            json!({
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": "15550100001", "phone_number_id": "2"},
                "contacts": [{"profile": {"name": "Pablo", "username": "@pablo"}, "wa_id": "16505551234", "user_id": "US.1"}],
                "statuses": [{"id": "wamid.A", "status": "delivered", "timestamp": "1750030073",
                    "recipient_id": "16505551234", "recipient_user_id": "US.1", "biz_opaque_callback_data": "attempt-1",
                    "pricing": {"billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility"}}],
            })
        );
    }

    #[test]
    fn a_failed_status_carries_errors_and_no_contacts() {
        let error = GraphError::new(131_047);
        let value = value(&status(&line(), &person("{}"), &reported(), "failed", 1, Some(&error)));
        assert!(value.get("contacts").is_none());
        assert!(value["statuses"][0].get("recipient_user_id").is_none());
        assert_eq!(value["statuses"][0]["errors"][0]["code"], 131_047);
        assert_eq!(value["statuses"][0]["errors"][0]["title"], "Re-engagement message");
    }

    #[test]
    fn a_hidden_number_is_left_out_not_empty() {
        let message = Inbound {
            wamid: "wamid.B",
            kind: "text",
            content: Some(json!({"body": "hi"})),
            context: None,
            timestamp_s: 1_749_416_383,
            extra: Map::new(),
        };
        let update = inbound(&line(), &person(r#"{"hide_number":true,"user_id":"US.1"}"#), message);
        assert!(!update.value.contains("16505551234"));
        assert_eq!(value(&update)["messages"][0]["from_user_id"], "US.1");
        assert_eq!(value(&update)["messages"][0]["timestamp"], "1749416383");
    }
}
