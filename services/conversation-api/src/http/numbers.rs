//! What belongs to a business number: the profile that contacts see (P8), and the conversations it can have.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use connector_domain::command::DirectoryRecord;
use connector_domain::identity::Address;
use connector_domain::ids::{OrganizationId, PhoneNumberId, StreamId};
use connector_ports::whatsapp::BusinessProfile;
use connector_runtime::numbers::Numbers;
use serde_json::{Value, json};

use super::auth::Caller;
use super::directory::check_id;
use super::extract::Path;
use super::form::Body;
use super::problem::Problem;
use super::{Api, SETTLE};
use crate::model::ModelError;

/// A number with what is set for it and what WhatsApp reports about it.
fn show(api: &Api, record: &DirectoryRecord) -> Option<Value> {
    let id = record.phone_number_id.as_ref()?;
    let known = Numbers::of(api.numbers.clone());
    let (settings, state) = (known.settings(id, &record.organization_id), known.state(id));
    let template = settings.opt_in_template.as_ref();
    Some(json!({
        "phone_number_id": id, "waba_id": record.waba_id,
        "settings": {
            "opt_in_template": template.map(|call| json!({ "name": call.name, "language": call.language })),
            "opt_in_limit": settings.opt_in_limit, "opt_in_period_ms": settings.opt_in_period,
            "number_rate": settings.number_rate,
        },
        "whatsapp": {
            "messaging_limit": state.messaging_limit, "contacts_per_day": state.contacts_per_day(),
            "throughput": state.throughput, "messages_per_second": state.fastest(),
            "quality_rating": state.quality_rating, "status": state.status,
        },
    }))
}

pub(crate) async fn list(State(api): State<Api>, Caller(organization): Caller) -> Result<Json<Value>, Problem> {
    // What was not read yet must not look like what is not there.
    api.numbers.complete(SETTLE).await?;
    let mut numbers = api.numbers.all_of("number/");
    numbers.retain(|record| record.organization_id == organization);
    numbers.sort_by(|a, b| a.phone_number_id.cmp(&b.phone_number_id));
    let shown: Vec<_> = numbers.iter().filter_map(|record| show(&api, record)).collect();
    Ok(Json(json!({ "numbers": shown })))
}

pub(crate) async fn number(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
    let record = api.number(&organization, &number).await?;
    let shown = record.and_then(|record| show(&api, &record));
    shown.map(Json).ok_or_else(|| Problem::not_found("number"))
}

pub(crate) async fn profile(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
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
    check_id("phone_number_id", &number)?;
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
            vertical: text("vertical", 64),
            ..BusinessProfile::default()
        })
    })?;
    api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    api.whatsapp.set_profile(&number, &profile).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The conversation with whoever has the address by now that a stream follows from: numbers are handed over, and what was linked goes on
/// under another id (R10).
pub(super) async fn addressed(
    api: &Api,
    organization: &OrganizationId,
    identity: StreamId,
) -> Result<StreamId, ModelError> {
    let held = api.model.holder(organization, &identity, api.platform.clock.now()).await?;
    let canonical = api.model.canonical(organization, None, &held).await?;
    Ok(canonical.unwrap_or(held))
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
    check_id("phone_number_id", &number)?;
    api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    let Some(id) = api.platform.keys.conversation(&number, &address) else { return Err(Problem::internal()) };
    let id = addressed(&api, &organization, id).await?;
    Ok(Json(json!({ "conversation_id": id })))
}
