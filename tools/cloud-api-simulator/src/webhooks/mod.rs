//! Webhooks: their shapes, signature and delivery.

pub(crate) mod build;
pub(crate) mod deliver;
pub(crate) mod sign;
pub(crate) mod statuses;

use serde_json::Value;

use crate::ids::mix_str;

/// One change of one webhook, ready to be put into an envelope.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) waba_id: String,
    pub(crate) field: String,
    /// `entry[].time`, which all fields but `messages` have.
    pub(crate) time_s: Option<i64>,
    /// `value`, in the escaped form.
    pub(crate) value: String,
    /// What it is, for the ledger: `message:text`, `status:sent`, `account:<field>`.
    pub(crate) what: String,
    /// Message id it is about.
    pub(crate) about: Option<String>,
    /// Updates of one lane are delivered in order.
    pub(crate) lane: u64,
}

impl Update {
    fn messages(line: &build::Line, person: &build::Person, what: String, wamid: &str, value: &Value) -> Self {
        Self {
            waba_id: line.waba_id.clone(),
            field: "messages".to_owned(),
            time_s: None,
            value: sign::escaped(value),
            what,
            about: Some(wamid.to_owned()),
            lane: mix_str(0, &person.wa_id),
        }
    }

    /// A change of any other field.
    pub(crate) fn account(waba_id: &str, field: &str, value: &Value, time_s: i64) -> Self {
        Self {
            waba_id: waba_id.to_owned(),
            field: field.to_owned(),
            time_s: Some(time_s),
            value: sign::escaped(value),
            what: format!("account:{field}"),
            about: None,
            lane: mix_str(0, waba_id),
        }
    }
}

/// The body of a delivery: neighbours of the same account share an entry.
pub(crate) fn envelope<'a>(updates: impl Iterator<Item = &'a Update>) -> String {
    let mut body = String::from(r#"{"object":"whatsapp_business_account","entry":["#);
    let mut open: Option<(&str, Option<i64>)> = None;
    for update in updates {
        let head = (update.waba_id.as_str(), update.time_s);
        if open == Some(head) {
            body.push(',');
        } else {
            if open.is_some() {
                body.push_str("]},");
            }
            body.push_str(r#"{"id":"#);
            body.push_str(&sign::escaped(&Value::from(head.0)));
            if let Some(time) = head.1 {
                body.push_str(&format!(r#","time":{time}"#));
            }
            body.push_str(r#","changes":["#);
            open = Some(head);
        }
        body.push_str(r#"{"value":"#);
        body.push_str(&update.value);
        body.push_str(r#","field":"#);
        body.push_str(&sign::escaped(&Value::from(update.field.as_str())));
        body.push('}');
    }
    body.push_str(if open.is_some() { "]}]}" } else { "]}" });
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn updates_of_one_account_share_an_entry() {
        let update = |waba, field, time_s| Update { time_s, ..Update::account(waba, field, &json!({"x": "a/b"}), 0) };
        let updates = [update("1", "messages", None), update("1", "messages", None), update("2", "security", Some(9))];
        let body: Value = serde_json::from_str(&envelope(updates.iter())).expect("JSON");
        let change = |field| json!({"value": {"x": "a/b"}, "field": field});
        assert_eq!(
            body,
            json!({"object": "whatsapp_business_account", "entry": [
                {"id": "1", "changes": [change("messages"), change("messages")]},
                {"id": "2", "time": 9, "changes": [change("security")]}]})
        );
    }
}
