//! Numbers, profiles, the official (verified) mark, and the app's subscription.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{answer, authorize, errors::GraphError, templates::select};
use crate::{
    App,
    world::{Phone, World},
};

/// Longest value of each text of a profile.
const PROFILE_TEXTS: [(&str, usize); 4] = [("about", 139), ("address", 256), ("description", 512), ("email", 128)];
const VERTICALS: [&str; 22] = [
    "OTHER",
    "AUTO",
    "BEAUTY",
    "APPAREL",
    "EDU",
    "ENTERTAIN",
    "EVENT_PLAN",
    "FINANCE",
    "GROCERY",
    "GOVT",
    "HOTEL",
    "HEALTH",
    "NONPROFIT",
    "PROF_SERVICES",
    "RETAIL",
    "TRAVEL",
    "RESTAURANT",
    "ALCOHOL",
    "ONLINE_GAMBLING",
    "PHYSICAL_GAMBLING",
    "OTC_DRUGS",
    "UNDEFINED",
];
const PHONE_DEFAULTS: &str = "id,display_phone_number,verified_name,quality_rating,code_verification_status";

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Fields {
    fields: Option<String>,
}

type Target = Path<(String, String)>;

fn phone<'a>(world: &'a World, method: &str, id: &str) -> Result<&'a Phone, GraphError> {
    world.phone(id).map(|(_, phone)| phone).ok_or_else(|| GraphError::no_such_object(method, id))
}

fn phone_json(phone: &Phone, callback: Option<&str>, throughput: u32) -> Value {
    json!({
        "id": phone.id, "display_phone_number": phone.display_phone_number, "verified_name": phone.verified_name,
        "quality_rating": phone.quality_rating, "code_verification_status": "VERIFIED", "name_status": "APPROVED",
        "status": if phone.registered { "CONNECTED" } else { "DISCONNECTED" }, "throughput": {"level": phone.level(throughput)},
        "platform_type": "CLOUD_API", "webhook_configuration": {"application": callback},
        "is_official_business_account": phone.is_official(),
        "whatsapp_business_manager_messaging_limit": phone.messaging_limit,
    })
}

fn parse(body: &Bytes) -> Result<Map<String, Value>, GraphError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| GraphError::param("Invalid JSON in the request body"))
}

/// `GET /{phone_number_id}`, `GET /{template_id}` and `GET /{waba_id}`.
pub(crate) async fn node(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    Query(query): Query<Fields>,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let world = app.world();
        if let Some((account, phone)) = world.phone(&id) {
            let callback = account.override_callback_uri.clone().or_else(|| app.outbox.app_callback());
            return Ok(select(
                phone_json(phone, callback.as_deref(), app.config.throughput),
                Some(query.fields.as_deref().unwrap_or(PHONE_DEFAULTS)),
            ));
        }
        if let Some(account) = world.account(&id) {
            return Ok(select(json!({"id": account.id, "name": account.name}), query.fields.as_deref()));
        }
        let template = world.accounts.iter().flat_map(|a| &a.templates).find(|t| t.id.to_string() == id);
        let template = template.ok_or_else(|| GraphError::no_such_object("get", &id))?;
        Ok(select(template.json(), query.fields.as_deref()))
    });
    answer(&app, result)
}

/// `GET /{waba_id}/phone_numbers`.
pub(crate) async fn phone_numbers(
    State(app): State<Arc<App>>,
    Path((version, waba_id)): Target,
    Query(query): Query<Fields>,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let world = app.world();
        let account = world.account(&waba_id).ok_or_else(|| GraphError::no_such_object("get", &waba_id))?;
        let callback = account.override_callback_uri.clone().or_else(|| app.outbox.app_callback());
        let fields = query.fields.as_deref().unwrap_or(PHONE_DEFAULTS);
        let numbers = account.phone_numbers.iter();
        let data: Vec<Value> = numbers
            .map(|phone| select(phone_json(phone, callback.as_deref(), app.config.throughput), Some(fields)))
            .collect();
        Ok(json!({ "data": data }))
    });
    answer(&app, result)
}

/// `GET /{phone_number_id}/whatsapp_business_profile`.
pub(crate) async fn profile(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    Query(query): Query<Fields>,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let mut profile = phone(&app.world(), "get", &id)?.profile.clone();
        if let Some(fields) = &query.fields {
            profile.retain(|key, _| fields.split(',').any(|field| field.trim() == key));
        }
        profile.insert("messaging_product".to_owned(), json!("whatsapp"));
        Ok(json!({"data": [profile]}))
    });
    answer(&app, result)
}

fn check_profile(change: &Map<String, Value>) -> Result<(), GraphError> {
    if change.get("messaging_product").and_then(Value::as_str) != Some("whatsapp") {
        return Err(GraphError::param("The parameter messaging_product is required."));
    }
    for (name, longest) in PROFILE_TEXTS {
        let text = change.get(name).map(|value| value.as_str().map(|text| text.chars().count()));
        let empty_about = name == "about" && text == Some(Some(0));
        if empty_about || text.is_some_and(|length| length.is_none_or(|length| length > longest)) {
            return Err(GraphError::param(format!("Param {name} must be at most {longest} characters long.")));
        }
    }
    if let Some(vertical) = change.get("vertical")
        && !vertical.as_str().is_some_and(|vertical| VERTICALS.contains(&vertical))
    {
        return Err(GraphError::param(format!("Param vertical must be one of {{{}}}", VERTICALS.join(", "))));
    }
    let fits = |site: &Value| site.as_str().is_some_and(|site| site.len() <= 256);
    if let Some(sites) = change.get("websites")
        && !sites.as_array().is_some_and(|sites| sites.len() <= 2 && sites.iter().all(fits))
    {
        return Err(GraphError::param("Param websites must be at most 2 addresses of at most 256 characters."));
    }
    Ok(())
}

/// `POST /{phone_number_id}/whatsapp_business_profile`.
pub(crate) async fn change_profile(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let change = parse(&body)?;
        let mut world = app.world_mut();
        let phone = world.phone_mut(&id).ok_or_else(|| GraphError::no_such_object("post", &id))?;
        check_profile(&change)?;
        for (key, value) in change {
            match key.as_str() {
                "about" | "address" | "description" | "email" | "websites" | "vertical" => {
                    phone.profile.insert(key, value);
                }
                "profile_picture_handle" => {
                    let url = format!("https://pps.whatsapp.example/{}", app.ids.node());
                    phone.profile.insert("profile_picture_url".to_owned(), json!(url));
                }
                _ => {}
            }
        }
        Ok(json!({"success": true}))
    });
    answer(&app, result)
}

fn official(phone: &Phone) -> Value {
    let message = match phone.oba_status.as_str() {
        "APPROVED" => "Your Official Business Account has been approved",
        "PENDING" => "Your Official Business Account application is under review",
        "REJECTED" => "Your Official Business Account application has been rejected",
        "CANCELLED" => "Official Business Account application has been cancelled",
        _ => "No Official Business Account application has been submitted",
    };
    json!({"id": phone.id, "oba_status": phone.oba_status, "status_message": message})
}

/// `GET /{phone_number_id}/official_business_account`.
pub(crate) async fn official_account(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| Ok(official(phone(&app.world(), "get", &id)?)));
    answer(&app, result)
}

/// `POST /{phone_number_id}/official_business_account`: an application; `PUT /simulator/phones/{id}` decides it.
pub(crate) async fn request_official_account(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let mut world = app.world_mut();
        let phone = world.phone_mut(&id).ok_or_else(|| GraphError::no_such_object("post", &id))?;
        if !phone.is_official() {
            phone.oba_status = "PENDING".to_owned();
        }
        Ok(json!({
            "success": true, "message": "Official Business Account application submitted successfully",
            "updated_status": official(phone), "tracking_id": format!("oba_req_{:016x}", app.ids.node()),
        }))
    });
    answer(&app, result)
}

/// `GET /{waba_id}/subscribed_apps`.
pub(crate) async fn subscribed_apps(
    State(app): State<Arc<App>>,
    Path((version, waba_id)): Target,
    headers: HeaderMap,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let world = app.world();
        let account = world.account(&waba_id).ok_or_else(|| GraphError::no_such_object("get", &waba_id))?;
        let data = json!({
            "override_callback_uri": account.override_callback_uri,
            "whatsapp_business_api_data": {"id": "1", "name": "Simulated app", "link": "https://www.facebook.com/games/?app_id=1"},
        });
        Ok(json!({"data": if account.subscribed { vec![data] } else { Vec::new() }}))
    });
    answer(&app, result)
}

/// `POST /{waba_id}/subscribed_apps`, with an override of the callback if the receiver proves itself.
pub(crate) async fn subscribe(
    State(app): State<Arc<App>>,
    Path((version, waba_id)): Target,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = authorize(&app, &version, &headers).and_then(|()| {
        app.world().account(&waba_id).ok_or_else(|| GraphError::no_such_object("post", &waba_id))?;
        parse(&body)
    });
    let change = match checked {
        Ok(change) => change,
        Err(error) => return answer(&app, Err(error)),
    };
    let text = |name: &str| change.get(name).and_then(Value::as_str).map(str::to_owned);
    let callback = text("override_callback_uri");
    if let Some(url) = &callback {
        let challenge = app.ids.node().to_string();
        if !app.outbox.verify(url, &text("verify_token").unwrap_or_default(), &challenge).await {
            let message = "(#2200) Callback verification failed: the response does not match the challenge";
            return answer(&app, Err(GraphError::new(2200).message(message)));
        }
    }
    if let Some(account) = app.world_mut().account_mut(&waba_id) {
        account.subscribed = true;
        account.override_callback_uri.clone_from(&callback);
    }
    app.outbox.set_callback(&waba_id, callback);
    answer(&app, Ok(json!({"success": true})))
}

/// `POST /{phone_number_id}/register`.
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    Path((version, id)): Target,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let result = authorize(&app, &version, &headers).and_then(|()| {
        let pin = parse(&body)?.get("pin").and_then(Value::as_str).map(str::len);
        if pin != Some(6) {
            return Err(GraphError::param("The parameter pin is required and must have 6 digits."));
        }
        let mut world = app.world_mut();
        world.phone_mut(&id).ok_or_else(|| GraphError::no_such_object("post", &id))?.registered = true;
        Ok(json!({"success": true}))
    });
    answer(&app, result)
}
