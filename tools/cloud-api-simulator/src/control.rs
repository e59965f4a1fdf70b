//! The control API: what contacts do, what was counted, and what goes wrong.
//!
//! | route | does |
//! |---|---|
//! | `POST /simulator/contacts/{wa_id}/messages` | the contact writes ([`ContactMessage`]) |
//! | `POST /simulator/contacts/{wa_id}/calls` | the contact calls ([`calls::ContactCall`]) |
//! | `POST /simulator/contacts/{wa_id}/read` | the contact reads everything |
//! | `POST /simulator/contacts/{wa_id}/preferences` | the contact stops or resumes marketing |
//! | `GET`, `PUT /simulator/contacts/{wa_id}` | its screen; change what it is like |
//! | `GET /simulator/ledger`, `/webhooks`, `/stats` | what was counted |
//! | `POST`, `GET`, `DELETE /simulator/faults[/{id}]` | rules of what goes wrong |
//! | `POST /simulator/templates[/{name}/status]` | put a template; change its status |
//! | `PUT /simulator/phones/{phone_number_id}` | change a number |
//! | `POST /simulator/account-event` | any other webhook |
//! | `PUT /simulator/callback`, `POST /simulator/callback/verify` | where webhooks go |
//! | `POST /simulator/reset` | start again |

mod calls;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    App,
    clock::now_ms,
    contacts::{Contact, ContactChange, ScreenMessage},
    faults::Rule,
    ledger::LedgerQuery,
    template::Template,
    webhooks::{
        Update,
        build::{self, Inbound, Line, Person, Reported},
    },
    world::World,
};

/// All routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/simulator/contacts/{wa_id}/messages", post(write))
        .route("/simulator/contacts/{wa_id}/calls", post(calls::call))
        .route("/simulator/contacts/{wa_id}/read", post(read))
        .route("/simulator/contacts/{wa_id}/preferences", post(preferences))
        .route("/simulator/contacts/{wa_id}", get(screen).put(change_contact))
        .route("/simulator/ledger", get(ledger))
        .route("/simulator/webhooks", get(webhooks))
        .route("/simulator/stats", get(stats))
        .route("/simulator/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/simulator/faults/{id}", delete(remove_fault))
        .route("/simulator/templates", post(put_template))
        .route("/simulator/templates/{name}/status", post(template_status))
        .route("/simulator/phones/{phone_number_id}", put(change_phone))
        .route("/simulator/account-event", post(account_event))
        .route("/simulator/callback", put(callback))
        .route("/simulator/callback/verify", post(verify_callback))
        .route("/simulator/reset", post(reset))
}

/// A control request that cannot be done: `{"error": "..."}`.
struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

type Answer = Result<Json<Value>, Refused>;

const NO_NUMBER: Refused = Refused(StatusCode::NOT_FOUND, "no such phone_number_id");
const NO_ACCOUNT: Refused = Refused(StatusCode::NOT_FOUND, "no such waba_id");

/// The number asked for, or the first of the world.
fn line(world: &World, phone_number_id: Option<&str>) -> Result<Line, Refused> {
    let first = || world.accounts.iter().find_map(|account| Some((account, account.phone_numbers.first()?)));
    let found = phone_number_id.map_or_else(first, |id| world.phone(id));
    found.map(|(account, phone)| Line::new(account, phone)).ok_or(NO_NUMBER)
}

/// What a contact writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContactMessage {
    /// The number written to; the first one by default.
    phone_number_id: Option<String>,
    #[serde(rename = "type", default = "text_type")]
    kind: String,
    /// Text, caption, emoji of a reaction, or text of the button tapped.
    text: Option<String>,
    /// Payload of the button tapped.
    payload: Option<String>,
    /// wamid replied to; for a button the template message (by default the latest one with that button).
    context: Option<String>,
    /// Seconds since the epoch; now by default. The window runs from it.
    timestamp: Option<i64>,
    /// The object named by the type, when it is not to be made from the fields above. Needed for unusual types.
    object: Option<Value>,
    /// More keys of the message (`referral`, `errors`, ...).
    #[serde(default)]
    extra: Map<String, Value>,
    /// How often the webhook is sent again although it was acknowledged.
    #[serde(default)]
    duplicates: u8,
}

fn text_type() -> String {
    "text".to_owned()
}

/// Finds the quick reply that is tapped: (message id, payload, text).
fn tapped(contact: &mut Contact, phone_number_id: &str, message: &ContactMessage) -> Option<(String, String, String)> {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
    contact.thread(phone_number_id).messages().rev().find_map(|shown| {
        let (_, filled) = shown.template.as_ref().filter(|_| is(&message.context, &shown.wamid))?;
        let button = filled.buttons.iter().find(|button| {
            button.payload.as_ref().is_some_and(|payload| is(&message.payload, payload))
                && is(&message.text, &button.text)
        })?;
        Some((shown.wamid.clone(), button.payload.clone()?, button.text.clone()))
    })
}

async fn write(
    State(app): State<Arc<App>>,
    Path(wa_id): Path<String>,
    Json(mut message): Json<ContactMessage>,
) -> Answer {
    let line = line(&app.world(), message.phone_number_id.as_deref())?;
    let timestamp_s = message.timestamp.unwrap_or_else(|| now_ms() / 1000);
    let wamid = app.ids.wamid(&wa_id);
    let mut contacts = app.contacts();
    let contact = contacts.get_or_create(&wa_id, &app.ids);
    if message.kind == "button" && message.object.is_none() {
        let found = tapped(contact, &line.phone_number_id, &message);
        let free = || Some((message.context.clone()?, message.payload.clone()?, message.text.clone()?));
        let tap = found.or_else(free);
        let (context, payload, text) =
            tap.ok_or(Refused(StatusCode::CONFLICT, "there is no such button on the screen"))?;
        message.object = Some(json!({"payload": payload, "text": text}));
        (message.context, message.text) = (Some(context), Some(text));
    }
    let object = message.object.take().or_else(|| object(&app, &message));
    let person = Person::from(&*contact);
    let thread = contact.thread(&line.phone_number_id);
    // System messages are WhatsApp's, not the contact's: they do not open the window.
    if message.kind != "system" {
        thread.contact_wrote(timestamp_s.saturating_mul(1000));
    }
    let shown = ScreenMessage {
        wamid: wamid.clone(),
        from_contact: true,
        kind: message.kind.clone(),
        text: message.text.clone().unwrap_or_else(|| format!("[{}]", message.kind)),
        template: None,
        context: message.context.clone(),
        opaque: None,
        pricing_category: String::new(),
        timestamp_ms: timestamp_s.saturating_mul(1000),
        status: "sent",
    };
    thread.show(shown, app.config.screen);
    contacts.remember_inbound(&wamid, &wa_id);
    let mut seqs = Vec::new();
    for _ in 0..=message.duplicates {
        // A reaction names its message itself, it is not a reply.
        let context = message.context.as_deref().filter(|_| message.kind != "reaction");
        let (content, extra) = (object.clone(), message.extra.clone());
        let inbound = Inbound { wamid: &wamid, kind: &message.kind, content, context, timestamp_s, extra };
        seqs.push(app.outbox.push(build::inbound(&line, &person, inbound)));
    }
    Ok(Json(json!({"id": wamid, "phone_number_id": line.phone_number_id, "timestamp": timestamp_s, "webhooks": seqs})))
}

/// The object of the usual types.
fn object(app: &App, message: &ContactMessage) -> Option<Value> {
    let text = message.text.as_deref();
    Some(match message.kind.as_str() {
        "text" => json!({"body": text.unwrap_or_default()}),
        "reaction" => json!({"message_id": message.context, "emoji": text.unwrap_or_default()}),
        "interactive" => json!({"type": "button_reply", "button_reply": {"id": message.payload, "title": text}}),
        "location" => json!({"latitude": 37.483, "longitude": -122.149, "name": text}),
        "image" | "video" | "audio" | "document" | "sticker" => {
            let mime_type = match message.kind.as_str() {
                "image" => "image/jpeg",
                "video" => "video/mp4",
                "audio" => "audio/ogg; codecs=opus",
                "sticker" => "image/webp",
                _ => "application/pdf",
            };
            let id = app.ids.node().to_string();
            let mut media =
                json!({"id": id, "mime_type": mime_type, "sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="});
            if let Some(caption) = text {
                media["caption"] = json!(caption);
            }
            media
        }
        _ => return None,
    })
}

async fn read(State(app): State<Arc<App>>, Path(wa_id): Path<String>) -> Answer {
    // Contacts before world, as everywhere: two orders could wait for each other.
    let mut contacts = app.contacts();
    let world = app.world();
    let contact = contacts.get_or_create(&wa_id, &app.ids);
    let person = Person::from(&*contact);
    let numbers: Vec<String> = contact.threads().map(|(id, _)| id.to_owned()).collect();
    let mut read = Vec::new();
    for number in numbers {
        let line = line(&world, Some(&number))?;
        for wamid in contact.thread(&number).contact_reads() {
            if let Some((_, message)) = contact.find(&wamid) {
                let reported = Reported {
                    wamid: wamid.clone(),
                    opaque: message.opaque.clone(),
                    category: message.pricing_category.clone(),
                    by_user_id: false,
                };
                app.outbox.push(build::status(&line, &person, &reported, "read", now_ms() / 1000, None));
            }
            read.push(wamid);
        }
    }
    Ok(Json(json!({ "read": read })))
}

#[derive(Debug, Deserialize)]
struct Preference {
    phone_number_id: Option<String>,
    /// `stop` or `resume`.
    value: String,
}

async fn preferences(
    State(app): State<Arc<App>>,
    Path(wa_id): Path<String>,
    Json(preference): Json<Preference>,
) -> Answer {
    if preference.value != "stop" && preference.value != "resume" {
        return Err(Refused(StatusCode::BAD_REQUEST, "value must be stop or resume"));
    }
    let line = line(&app.world(), preference.phone_number_id.as_deref())?;
    let mut contacts = app.contacts();
    let contact = contacts.get_or_create(&wa_id, &app.ids);
    contact.marketing_stopped = preference.value == "stop";
    let update = build::preference(&line, &Person::from(&*contact), &preference.value, now_ms() / 1000);
    Ok(Json(json!({"webhooks": [app.outbox.push(update)]})))
}

fn contact_json(app: &App, contact: &Contact) -> Value {
    let world = app.world();
    let now = now_ms();
    let mut conversations: Vec<Value> = contact
        .threads()
        .filter_map(|(id, thread)| {
            let (account, phone) = world.phone(id)?;
            Some(json!({
                "phone_number_id": id, "waba_id": account.id,
                "sender": {"name": phone.verified_name, "phone_number": phone.display_phone_number,
                    "verified": phone.is_official(), "profile": phone.profile},
                "window": {"open": thread.window_open(now, app.config.window),
                    "closes_ms": thread.window_closes_ms(app.config.window)},
                "messages": thread.messages().map(ScreenMessage::json).collect::<Vec<_>>(),
            }))
        })
        .collect();
    conversations.sort_by(|a, b| a["phone_number_id"].as_str().cmp(&b["phone_number_id"].as_str()));
    json!({
        "wa_id": contact.wa_id, "user_id": contact.user_id, "name": contact.name, "username": contact.username,
        "hide_number": contact.hide_number, "unreachable": contact.unreachable,
        "marketing_stopped": contact.marketing_stopped, "conversations": conversations,
    })
}

async fn screen(State(app): State<Arc<App>>, Path(wa_id): Path<String>) -> Answer {
    let contacts = app.contacts();
    let contact = contacts.get(&wa_id).ok_or(Refused(StatusCode::NOT_FOUND, "no such contact yet"))?;
    Ok(Json(contact_json(&app, contact)))
}

async fn change_contact(
    State(app): State<Arc<App>>,
    Path(wa_id): Path<String>,
    Json(change): Json<ContactChange>,
) -> Json<Value> {
    let mut contacts = app.contacts();
    let contact = contacts.change(&wa_id, change, &app.ids);
    Json(contact_json(&app, contact))
}

async fn ledger(State(app): State<Arc<App>>, Query(query): Query<LedgerQuery>) -> Json<Value> {
    Json(app.ledger().report(&query))
}

#[derive(Debug, Deserialize)]
struct WebhookQuery {
    #[serde(default)]
    since: u64,
    /// Only those about this message id.
    id: Option<String>,
    limit: Option<usize>,
}

async fn webhooks(State(app): State<Arc<App>>, Query(query): Query<WebhookQuery>) -> Json<Value> {
    Json(app.outbox.report(query.since, query.id.as_deref(), query.limit.unwrap_or(usize::MAX)))
}

async fn stats(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.stats())
}

async fn faults(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"faults": app.faults.list()}))
}

/// One rule or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rules {
    Many(Vec<Rule>),
    One(Box<Rule>),
}

async fn add_faults(State(app): State<Arc<App>>, Json(rules): Json<Rules>) -> Json<Value> {
    let rules = match rules {
        Rules::Many(rules) => rules,
        Rules::One(rule) => vec![*rule],
    };
    let ids: Vec<u64> = rules.into_iter().map(|rule| app.faults.add(rule)).collect();
    Json(json!({ "ids": ids }))
}

async fn clear_faults(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"removed": app.faults.remove(None)}))
}

async fn remove_fault(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Json<Value> {
    Json(json!({"removed": app.faults.remove(Some(id))}))
}

#[derive(Debug, Deserialize)]
struct PutTemplate {
    waba_id: Option<String>,
    #[serde(flatten)]
    template: Template,
}

async fn put_template(State(app): State<Arc<App>>, Json(put): Json<PutTemplate>) -> Answer {
    let mut world = app.world_mut();
    let account = world.account_or_first(put.waba_id.as_deref()).ok_or(NO_ACCOUNT)?;
    let id = account.upsert(put.template, &app.ids);
    Ok(Json(json!({"id": id.to_string(), "waba_id": account.id})))
}

#[derive(Debug, Deserialize)]
struct TemplateStatus {
    waba_id: Option<String>,
    /// All languages of the name by default.
    language: Option<String>,
    /// `APPROVED`, `PAUSED`, `DISABLED`, `REJECTED`, `DELETED`, ...
    status: String,
    reason: Option<String>,
}

/// Changes the status and tells it by webhook. `DELETED` removes the template.
async fn template_status(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(change): Json<TemplateStatus>,
) -> Answer {
    let mut world = app.world_mut();
    let account = world.account_or_first(change.waba_id.as_deref()).ok_or(NO_ACCOUNT)?;
    let is = |t: &Template| t.name == name && change.language.as_ref().is_none_or(|language| &t.language == language);
    let mut seqs = Vec::new();
    for template in account.templates.iter_mut().filter(|t| is(t)) {
        template.status.clone_from(&change.status);
        template.rejected_reason.clone_from(&change.reason);
        let value = json!({
            "event": change.status, "message_template_id": template.id, "message_template_name": template.name,
            "message_template_language": template.language, "message_template_category": template.category,
            "reason": change.reason.as_deref().unwrap_or("NONE"),
        });
        let now = now_ms() / 1000;
        seqs.push(app.outbox.push(Update::account(&account.id, "message_template_status_update", &value, now)));
    }
    if seqs.is_empty() {
        return Err(Refused(StatusCode::NOT_FOUND, "no such template"));
    }
    if change.status == "DELETED" {
        account.templates.retain(|t| !is(t));
    }
    Ok(Json(json!({ "webhooks": seqs })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhoneChange {
    verified_name: Option<String>,
    registered: Option<bool>,
    quality_rating: Option<String>,
    /// `STANDARD` or `HIGH`.
    throughput: Option<String>,
    /// `TIER_250` and so on.
    messaging_limit: Option<String>,
    /// `APPROVED` gives the verified mark.
    oba_status: Option<String>,
}

async fn change_phone(State(app): State<Arc<App>>, Path(id): Path<String>, Json(change): Json<PhoneChange>) -> Answer {
    let mut world = app.world_mut();
    let phone = world.phone_mut(&id).ok_or(NO_NUMBER)?;
    phone.registered = change.registered.unwrap_or(phone.registered);
    phone.throughput = change.throughput.or(phone.throughput.take());
    let texts = [
        (&mut phone.verified_name, change.verified_name),
        (&mut phone.quality_rating, change.quality_rating),
        (&mut phone.messaging_limit, change.messaging_limit),
        (&mut phone.oba_status, change.oba_status),
    ];
    for (place, value) in texts {
        *place = value.unwrap_or_else(|| std::mem::take(place));
    }
    Ok(Json(json!({"id": phone.id, "verified_name": phone.verified_name, "registered": phone.registered,
        "quality_rating": phone.quality_rating, "oba_status": phone.oba_status})))
}

#[derive(Debug, Deserialize)]
struct AccountEvent {
    waba_id: Option<String>,
    field: String,
    value: Value,
}

async fn account_event(State(app): State<Arc<App>>, Json(event): Json<AccountEvent>) -> Answer {
    let mut world = app.world_mut();
    let account = world.account_or_first(event.waba_id.as_deref()).ok_or(NO_ACCOUNT)?;
    let update = Update::account(&account.id, &event.field, &event.value, now_ms() / 1000);
    // Only the messages field comes without a time.
    let update = if event.field == "messages" { Update { time_s: None, ..update } } else { update };
    Ok(Json(json!({"webhooks": [app.outbox.push(update)]})))
}

#[derive(Debug, Deserialize)]
struct Callback {
    /// `null` takes the receiver away: webhooks wait.
    url: Option<String>,
}

async fn callback(State(app): State<Arc<App>>, Json(callback): Json<Callback>) -> Json<Value> {
    app.outbox.set_callback("", callback.url);
    Json(json!({"success": true}))
}

/// The verification request Meta makes when a callback URL is saved.
async fn verify_callback(State(app): State<Arc<App>>) -> Answer {
    let none = Refused(StatusCode::CONFLICT, "there is no callback URL");
    let url = app.outbox.app_callback().ok_or(none)?;
    let challenge = app.ids.node().to_string();
    let verified = app.outbox.verify(&url, app.config.verify_token.expose(), &challenge).await;
    Ok(Json(json!({ "verified": verified })))
}

async fn reset(State(app): State<Arc<App>>) -> Answer {
    let failed = |_| Refused(StatusCode::INTERNAL_SERVER_ERROR, "the world file can no longer be read");
    app.reset().map_err(failed)?;
    Ok(Json(json!({"success": true})))
}
