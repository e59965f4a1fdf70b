//! Calls of contacts. Nobody speaks: what counts is what WhatsApp tells the business of them, and that they open the window.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, line};
use crate::{
    App,
    clock::now_ms,
    webhooks::build::{self, Call, Person},
};

/// How a contact calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContactCall {
    /// The number called; the first one by default.
    phone_number_id: Option<String>,
    /// Seconds since the epoch; now by default. The window runs from it.
    timestamp: Option<i64>,
    /// How long they spoke, in seconds. Nobody answered when it is not given.
    seconds: Option<i64>,
    /// How often each webhook is sent again although it was acknowledged.
    #[serde(default)]
    duplicates: u8,
}

/// The contact calls; the business is told of the call and of its end.
pub(super) async fn call(
    State(app): State<Arc<App>>,
    Path(wa_id): Path<String>,
    Json(call): Json<ContactCall>,
) -> Answer {
    let line = line(&app.world(), call.phone_number_id.as_deref())?;
    let timestamp_s = call.timestamp.unwrap_or_else(|| now_ms() / 1000);
    let id = app.ids.wamid(&wa_id).replacen("wamid.", "wacid.", 1);
    let mut contacts = app.contacts();
    let contact = contacts.get_or_create(&wa_id, &app.ids);
    contact.thread(&line.phone_number_id).contact_wrote(timestamp_s.saturating_mul(1000));
    let person = Person::from(&*contact);
    let told = Call { id: &id, timestamp_s, seconds: call.seconds };
    let mut seqs = Vec::new();
    for event in ["connect", "terminate"] {
        for _ in 0..=call.duplicates {
            seqs.push(app.outbox.push(build::call(&line, &person, &told, event)));
        }
    }
    Ok(Json(json!({"id": id, "phone_number_id": line.phone_number_id, "timestamp": timestamp_s, "webhooks": seqs})))
}
