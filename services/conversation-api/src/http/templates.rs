//! `/v1/templates`: what WhatsApp approved for the organization, and what the contact will read (P13).

use axum::Json;
use axum::extract::State;
use connector_domain::decide::Rejection;
use connector_domain::ids::{OrganizationId, PhoneNumberId};
use connector_domain::template::{self, Obstacle, Template, TemplateButton};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::directory::check_id;
use super::extract::Query;
use super::form::Body;
use super::problem::Problem;
use super::{Api, SETTLE};

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    phone_number_id: Option<String>,
}

async fn waba(api: &Api, organization: &OrganizationId, number: Option<String>) -> Result<String, Problem> {
    let number = number.ok_or_else(|| Problem::field("phone_number_id", "is missing"))?;
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
    let record = api.number(organization, &number).await?;
    let waba = record.and_then(|record| record.waba_id.clone());
    waba.map(|waba| waba.0).ok_or_else(|| Problem::not_found("number"))
}

/// A refusal as the list and the preview show it; `why` names what keeps the template from being sent at all.
fn refusal(refused: &Rejection, obstacle: Option<Obstacle>) -> Value {
    json!({
        "reason": refused.reason.as_str(), "field": refused.field, "remedy": refused.remedy,
        "why": obstacle.map(Obstacle::as_str),
    })
}

fn button(button: &TemplateButton) -> Value {
    let takes = button.takes();
    json!({
        "type": button.kind, "text": button.text, "url": button.url,
        "sub_type": takes.map(|takes| takes.sub_type), "required": takes.is_some_and(|takes| takes.required),
    })
}

fn show(template: &Template) -> Value {
    let obstacle = template::obstacle(template);
    json!({
        "name": template.name, "language": template.language, "status": template.status, "category": template.category,
        "sendable": obstacle.is_none(), "refusal": obstacle.map(|found| refusal(&found.rejection(), obstacle)),
        "parameter_format": template.parameter_format, "header_format": template.header_format,
        "header": template.header, "body": template.body, "footer": template.footer,
        "buttons": template.buttons.iter().map(button).collect::<Vec<_>>(),
        "placeholders": {
            "header": template.header.as_deref().map(template::placeholders).unwrap_or_default(),
            "body": template::placeholders(&template.body),
        },
    })
}

pub(crate) async fn list(
    State(api): State<Api>,
    Caller(organization): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let waba = waba(&api, &organization, query.phone_number_id).await?;
    api.templates.complete(SETTLE).await?;
    let mut templates = api.templates.all();
    // An account may be several organizations'; each of them has its templates.
    templates.retain(|template| template.waba_id.as_str() == waba);
    templates.sort_by(|a, b| (&a.name, &a.language).cmp(&(&b.name, &b.language)));
    Ok(Json(json!({ "templates": templates.iter().map(|template| show(template)).collect::<Vec<_>>() })))
}

pub(crate) async fn preview(
    State(api): State<Api>,
    Caller(organization): Caller,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let (number, call) = body.read(|form| {
        let (number, call) = (form.text("phone_number_id"), form.template_call());
        Some((number?, call?))
    })?;
    let waba = waba(&api, &organization, Some(number)).await?;
    let key = format!("{waba}/{}/{}", call.name, call.language);
    let found = api.templates.newest(&key, SETTLE).await?;
    let template = found.ok_or_else(|| Problem::not_found("template"))?;
    // A half-filled form has a preview, too; whether it could be sent is said beside it.
    let refused = template::check(&template, &call).err();
    Ok(Json(json!({
        "text": template::preview(&template, &call),
        "sendable": refused.is_none(),
        "refusal": refused.map(|refused| refusal(&refused, template::obstacle(&template))),
    })))
}
