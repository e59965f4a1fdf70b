//! What the log says, from the read model: conversations, events, messages, outcomes, notices.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use connector_contracts::headers::rfc3339;
use connector_domain::composer::compose;
use connector_domain::ids::{CommandId, OrganizationId, StreamId, UserId};
use connector_domain::status::MessageState;
use connector_runtime::numbers::Numbers;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::directory::{check_conversation, check_id};
use super::extract::{Path, Query, parse_limit};
use super::problem::Problem;
use super::{Api, parse_wait};
use crate::model::cursor::{Cursor, Place};
use crate::model::{EventQuery, Outcome, Scope, Summary};

#[derive(Deserialize)]
pub(crate) struct UserQuery {
    user_id: Option<String>,
    limit: Option<String>,
}

impl UserQuery {
    fn user(&self) -> Result<UserId, Problem> {
        let user = self.user_id.clone().filter(|user| !user.is_empty());
        let user = user.map(UserId).ok_or_else(|| Problem::field("user_id", "is missing"))?;
        check_id("user_id", &user)?;
        Ok(user)
    }
}

fn show(summary: &Summary) -> Value {
    let fold = &summary.fold;
    json!({
        "conversation_id": summary.conversation_id, "channel": "whatsapp", "phone_number_id": fold.phone_number_id,
        "contact": summary.contact, "address": fold.address, "last_message": summary.last_message,
        "unread": summary.unread, "last_activity": summary.last_activity(), "consent": fold.consent.status,
        "deadline": fold.deadline, "aliases": fold.aliases,
    })
}

pub(crate) async fn conversations(
    State(api): State<Api>,
    Caller(organization): Caller,
    Query(query): Query<UserQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = parse_limit(query.limit.as_deref())?;
    let found = api.model.conversations(&organization, &query.user()?, limit).await?;
    Ok(Json(json!({ "conversations": found.iter().map(show).collect::<Vec<_>>() })))
}

pub(crate) async fn conversation(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(id): Path<String>,
    Query(query): Query<UserQuery>,
) -> Result<Json<Value>, Problem> {
    let id = StreamId(id);
    check_conversation("conversation_id", &id)?;
    let found = api.model.view(&organization, &query.user()?, &id).await?;
    let view = found.ok_or_else(|| Problem::not_found("conversation"))?;
    let now = api.platform.clock.now();
    // How often a contact may be asked is set per number and organization.
    let number = view.situation.conversation.phone_number_id.as_ref();
    let settings = number.map(|number| Numbers::of(api.numbers.clone()).settings(number, &organization));
    let rules = settings.unwrap_or_default().rules(&api.platform.rules);
    let composer = compose(&view.situation, &rules, now);
    Ok(Json(json!({ "composer": composer, "now": now, "conversation": view.summary.as_ref().map(show) })))
}

#[derive(Deserialize)]
pub(crate) struct EventsQuery {
    after: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    user_id: Option<String>,
}

/// The id under which the conversation continues, or 404: it does not exist, or it is not this organization's or user's (P4).
async fn allowed(
    api: &Api,
    organization: &OrganizationId,
    user: Option<String>,
    id: String,
) -> Result<StreamId, Problem> {
    let (id, user) = (StreamId(id), user.map(UserId));
    check_conversation("conversation_id", &id)?;
    user.as_ref().map_or(Ok(()), |user| check_id("user_id", user))?;
    let canonical = api.model.canonical(organization, user.as_ref(), &id).await?;
    canonical.ok_or_else(|| Problem::not_found("conversation"))
}

pub(super) fn parse_cursor(field: &str, text: Option<&str>) -> Result<Cursor, Problem> {
    text.unwrap_or_default().parse().map_err(|_| Problem::field(field, "is not a cursor of this API"))
}

pub(crate) async fn events(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Value>, Problem> {
    let scope = Scope::Conversation(allowed(&api, &organization, query.user_id.clone(), id).await?);
    page(&api, organization, scope, query).await
}

pub(crate) async fn user_events(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(user): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Value>, Problem> {
    let user = UserId(user);
    check_id("user", &user)?;
    let scope = Scope::Stream(api.platform.keys.user(&organization, &user));
    page(&api, organization, scope, query).await
}

async fn page(
    api: &Api,
    organization: OrganizationId,
    scope: Scope,
    query: EventsQuery,
) -> Result<Json<Value>, Problem> {
    let after = parse_cursor("after", query.after.as_deref())?;
    let wait = parse_wait(query.wait.as_deref())?;
    let limit = parse_limit(query.limit.as_deref())?;
    let question = EventQuery { organization, scope, after, limit };
    let mut patience = api.patience(wait);
    let events = loop {
        let events = api.model.events(&question).await?;
        if !events.is_empty() || !patience.change().await {
            break events;
        }
    };
    let next = events.last().map_or_else(|| question.after.to_string(), |event| event.cursor.clone());
    Ok(Json(json!({ "events": events, "next": next })))
}

#[derive(Deserialize)]
pub(crate) struct MessagesQuery {
    before: Option<String>,
    limit: Option<String>,
    user_id: Option<String>,
}

pub(crate) async fn messages(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(id): Path<String>,
    Query(query): Query<MessagesQuery>,
) -> Result<Json<Value>, Problem> {
    let before = query.before.map(|text| text.parse::<Place>()).transpose();
    let before = before.map_err(|_| Problem::field("before", "is not a cursor of this API"))?;
    let conversation = allowed(&api, &organization, query.user_id, id).await?;
    let limit = parse_limit(query.limit.as_deref())?;
    let messages = api.model.messages(&organization, &conversation, before, limit).await?;
    let first = messages.first().filter(|_| messages.len() == limit);
    let previous = first.map(|message| message.place.to_string());
    Ok(Json(json!({ "messages": messages, "previous": previous })))
}

#[derive(Deserialize)]
pub(crate) struct CommandQuery {
    wait: Option<String>,
    until: Option<String>,
}

fn reached(outcome: &Outcome, until: MessageState) -> bool {
    outcome.state >= until || matches!(outcome.state, MessageState::Failed | MessageState::Rejected)
}

pub(crate) async fn command(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(id): Path<String>,
    Query(query): Query<CommandQuery>,
) -> Result<Response, Problem> {
    let command: CommandId = id.parse().map_err(|_| Problem::field("command_id", "expected a UUID"))?;
    let wait = parse_wait(query.wait.as_deref())?;
    let until: MessageState = match query.until {
        None => MessageState::Accepted,
        Some(word) => serde_json::from_value(Value::String(word))
            .map_err(|_| Problem::field("until", "expected a state such as sent, delivered or read"))?,
    };
    let mut patience = api.patience(wait);
    loop {
        let outcome = api.model.outcome(&organization, command).await?;
        // When the time is over: as far as it is.
        if outcome.as_ref().is_some_and(|outcome| reached(outcome, until)) || !patience.change().await {
            return match outcome {
                Some(mut outcome) => {
                    outcome.field = outcome.field.map(field_of_http);
                    Ok(Json(outcome).into_response())
                }
                None => pending(&api, &organization, command),
            };
        }
    }
}

/// A command that has no answer yet: received, or not known here.
fn pending(api: &Api, organization: &OrganizationId, command: CommandId) -> Result<Response, Problem> {
    let since = api.pending.since(organization, command).ok_or_else(|| Problem::not_found("command"))?;
    let detail = format!("accepted for processing at {}; its outcome is not known yet", rfc3339(since));
    let body = json!({ "command_id": command, "state": "pending", "received_at": since, "detail": detail });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// The log names fields as its schemas do, this API as its bodies do.
fn field_of_http(field: String) -> String {
    match field.as_str() {
        "content.kind" => "content.type".to_owned(),
        "content.reply_to" => "reply_to".to_owned(),
        "content.template" => "content".to_owned(),
        "recipient.address" => "recipient".to_owned(),
        other => match (other.strip_prefix("content.template."), other.strip_prefix("recipient.address.")) {
            (Some(of_template), _) => format!("content.{of_template}"),
            (_, Some(of_address)) => format!("recipient.{of_address}"),
            (None, None) => field,
        },
    }
}

pub(crate) async fn notices(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(user): Path<String>,
) -> Result<Json<Value>, Problem> {
    let user = UserId(user);
    check_id("user", &user)?;
    let enablement = api.model.enablement(&organization, &user).await?;
    let notices: Vec<Value> = if enablement.notice_pending {
        vec![json!({ "kind": "activation", "phone_number_id": enablement.phone_number_id })]
    } else {
        Vec::new()
    };
    Ok(Json(json!({ "enabled": enablement.enabled, "notices": notices })))
}
