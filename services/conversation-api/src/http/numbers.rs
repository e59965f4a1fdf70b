//! What belongs to a business number: the profile that contacts see (P8), and the conversations it can have.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use connector_domain::identity::Address;
use connector_domain::ids::PhoneNumberId;
use connector_ports::whatsapp::BusinessProfile;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::extract::Path;
use super::form::Body;
use super::problem::Problem;

pub(crate) async fn profile(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    let number = PhoneNumberId(number);
    api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    let profile = api.whatsapp.profile(&number).await?;
    Ok(Json(json!({
        "about": profile.about, "address": profile.address, "description": profile.description, "email": profile.email,
        "websites": profile.websites, "vertical": profile.vertical, "picture_url": profile.picture_url,
        "official": profile.official,
    })))
}

pub(crate) async fn put_profile(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let number = PhoneNumberId(number);
    let profile = body.read(|form| {
        // The limits are WhatsApp's; it counts characters.
        let text = |name: &str, most: usize| {
            let text = form.optional_text(name);
            if text.as_ref().is_some_and(|text| text.chars().count() > most) {
                form.wrong(name, &format!("has more than {most} characters"));
            }
            text
        };
        let websites: Vec<String> = form.list("websites", "expected a list of texts");
        if websites.len() > 2 || websites.iter().any(|site| site.chars().count() > 256) {
            form.wrong("websites", "expected up to two, of up to 256 characters");
        }
        Some(BusinessProfile {
            about: text("about", 139),
            address: text("address", 256),
            description: text("description", 512),
            email: text("email", 128),
            websites,
            vertical: form.optional_text("vertical"),
            ..BusinessProfile::default()
        })
    })?;
    api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    api.whatsapp.set_profile(&number, &profile).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn resolve(
    State(api): State<Api>,
    Caller(organization): Caller,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let (number, address) = body.read(|form| {
        let address = Address { phone: form.phone("phone"), bsuid: form.bsuid("bsuid") };
        if address.is_empty() {
            form.wrong("phone", "expected phone or bsuid");
        }
        Some((PhoneNumberId(form.text("phone_number_id")?), address))
    })?;
    api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    let Some(id) = api.platform.keys.conversation(&number, &address) else { return Err(Problem::internal()) };
    // What was linked goes on under another id (R10).
    let canonical = api.model.canonical(&organization, None, &id).await?;
    Ok(Json(json!({ "conversation_id": canonical.unwrap_or(id) })))
}
