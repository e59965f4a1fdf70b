//! `POST /v1/commands/…`: the command goes into its topic; what becomes of it stands in the log under its id.
//!
//! Only what cannot be written as a command is refused here. Everything the rules refuse is refused by the workers, in the log,
//! where every reader learns of it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use connector_contracts::Topic;
use connector_domain::command::{
    ConsentAction, ConsentCommand, Content, ContentKind, Recipient, SendMessage, SendPolicy, SendPurpose,
};
use connector_domain::decide::Rejection;
use connector_domain::ids::{CommandId, OrganizationId, PhoneNumberId, StreamId, UserId, Wamid};
use connector_domain::time::Timestamp;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::form::{Body, Form};
use super::idempotency::{self, Id, Key};
use super::problem::Problem;

pub(crate) type Accepted = (StatusCode, [(HeaderName, String); 1], Json<Value>);

/// The id of a command before it has one.
fn unnamed() -> CommandId {
    CommandId::derived("")
}

/// What both kinds of command have in common.
struct Common {
    command_id: Option<CommandId>,
    user_id: UserId,
    phone_number_id: PhoneNumberId,
}

fn common(form: &Form<'_>) -> Option<Common> {
    let given = form.optional("command_id", "expected a UUID", |value| value.as_str()?.parse::<CommandId>().ok());
    let (user_id, phone_number_id) = (form.text("user_id"), form.text("phone_number_id"));
    Some(Common { command_id: given, user_id: UserId(user_id?), phone_number_id: PhoneNumberId(phone_number_id?) })
}

fn content(form: &Form<'_>) -> Option<Content> {
    let reply_to = form.optional_text("reply_to").map(Wamid);
    let form = form.object("content")?;
    let empty = Content { kind: ContentKind::Unknown, text: None, preview_url: false, template: None, reply_to };
    let receipt = |kind| Some(Content { kind, reply_to: Some(Wamid(form.text("message_id")?)), ..empty.clone() });
    match form.text("type")?.as_str() {
        "text" => {
            let preview_url = form.flag("preview_url", false);
            let text = form.text("text")?;
            Some(Content { kind: ContentKind::Text, text: Some(text.as_str().into()), preview_url, ..empty })
        }
        "template" => Some(Content { kind: ContentKind::Template, template: Some(form.template_call()?), ..empty }),
        "typing" => receipt(ContentKind::Typing),
        "read" => receipt(ContentKind::Read),
        // Pictures, voice, whatever comes next: refused in the log as `unsupported_content` (P5).
        _ => {
            form.leave_open();
            Some(empty)
        }
    }
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_i64().filter(|millis| *millis >= 0).map(Timestamp)
}

pub(crate) async fn send(
    State(api): State<Api>,
    Caller(organization_id): Caller,
    key: Key,
    body: Body,
) -> Result<Accepted, Problem> {
    let (given, mut command) = body.read(|form| {
        let common = common(form);
        let (recipient, content) = (form.recipient(), content(form));
        let policy: Option<SendPolicy> = form.word("policy", &["at_most_once", "at_least_once"]);
        let not_after = form.optional("not_after", "expected milliseconds since 1970", moment);
        let common = common?;
        Some((
            common.command_id,
            SendMessage {
                command_id: unnamed(),
                organization_id,
                user_id: common.user_id,
                phone_number_id: common.phone_number_id,
                recipient: recipient?,
                content: content?,
                policy: policy.unwrap_or_default(),
                // The opt-in message is queued by the opt-in tracker alone.
                purpose: SendPurpose::Conversation,
                issued_at: api.platform.clock.now(),
                not_after,
            },
        ))
    })?;
    let id = key.id(&api, &command.organization_id, given)?;
    command.command_id = id.command;
    command.check(api.platform.clock.now()).map_err(|refused| at_fault(&refused))?;
    let home = home(&api, &command.organization_id, &command.user_id, &command.phone_number_id, &command.recipient);
    let own = is_own(&api, &command.organization_id, &command.phone_number_id);
    let what = (&home, command.digest());
    let taken = take(&api, Topic::SendCommands, &command.organization_id, &id, what, &command);
    let (own, taken) = tokio::join!(own, taken);
    taken?;
    let shown = if own { shown(&api, &command.organization_id, &command.recipient, home).await } else { None };
    Ok(accepted(command.command_id, shown.as_ref()))
}

pub(crate) async fn consent(
    State(api): State<Api>,
    Caller(organization_id): Caller,
    key: Key,
    body: Body,
) -> Result<Accepted, Problem> {
    const ACTIONS: [&str; 4] = ["request_opt_in", "import", "revoke", "acknowledge_notice"];
    let (given, mut command) = body.read(|form| {
        let common = common(form);
        form.text("action")?;
        let action: Option<ConsentAction> = form.word("action", &ACTIONS);
        let recipient = match action? {
            ConsentAction::AcknowledgeNotice => {
                form.pass_over("recipient");
                Some(Recipient::default())
            }
            _ => form.recipient(),
        };
        if form.optional_object("template").is_some() {
            form.wrong("template", "is a setting of the organization and the number");
        }
        let proof = match action? {
            ConsentAction::Import => form.text("proof"),
            _ => form.optional_text("proof"),
        };
        let common = common?;
        Some((
            common.command_id,
            ConsentCommand {
                command_id: unnamed(),
                organization_id,
                user_id: common.user_id,
                phone_number_id: common.phone_number_id,
                recipient: recipient?,
                action: action?,
                template: None,
                proof: proof.map(|proof| proof.as_str().into()),
                issued_at: api.platform.clock.now(),
            },
        ))
    })?;
    let id = key.id(&api, &command.organization_id, given)?;
    command.command_id = id.command;
    command.check().map_err(|refused| at_fault(&refused))?;
    let home = home(&api, &command.organization_id, &command.user_id, &command.phone_number_id, &command.recipient);
    let own = is_own(&api, &command.organization_id, &command.phone_number_id);
    let what = (&home, command.digest());
    let taken = take(&api, Topic::ConsentCommands, &command.organization_id, &id, what, &command);
    let (own, taken) = tokio::join!(own, taken);
    taken?;
    let shown = if own { shown(&api, &command.organization_id, &command.recipient, home).await } else { None };
    Ok(accepted(command.command_id, shown.as_ref()))
}

/// A field at fault, as the body of a request has it.
fn at_fault(refused: &Rejection) -> Problem {
    let field = match refused.field {
        "content.template.name" => "content.name",
        "content.template.language" => "content.language",
        "content.template" => "content.body",
        "content.reply_to" => "reply_to",
        "" => "command",
        field => field,
    };
    let detail = match field {
        "not_after" => "is before 1970 or more than 6 days from now",
        "issued_at" => "is no moment",
        "proof" | "content.body" | "template" => "is too long",
        _ => "does not have the form of one",
    };
    Problem::field(field, detail)
}

/// Whether the number is the organization's. Of another one's, and of none, nothing is said about the conversations it may have (P4); what
/// cannot be known now is not said either, the outcome says it.
async fn is_own(api: &Api, organization: &OrganizationId, number: &PhoneNumberId) -> bool {
    matches!(api.number(organization, number).await, Ok(Some(_)))
}

/// The stream a command is answered in: the key of its record, so that commands of one conversation keep their order.
fn home(
    api: &Api,
    organization: &OrganizationId,
    user: &UserId,
    number: &PhoneNumberId,
    recipient: &Recipient,
) -> StreamId {
    let keys = &api.platform.keys;
    let named = recipient.conversation_id.clone().or_else(|| keys.conversation(number, &recipient.address));
    named.unwrap_or_else(|| keys.user(organization, user))
}

async fn publish<T: connector_contracts::Contract>(
    api: &Api,
    topic: Topic,
    home: &StreamId,
    command: &T,
) -> Result<(), Problem> {
    let traceparent = connector_telemetry::current_traceparent();
    let emitter = api.platform.emitter(crate::NAME);
    api.append(emitter.record(topic, home.as_str(), command, traceparent.as_deref())?).await
}

/// Writes a command down, unless its id stands for another one. Whatever goes wrong carries the id: the same again is the same command.
async fn take<T: connector_contracts::Contract>(
    api: &Api,
    topic: Topic,
    organization: &OrganizationId,
    id: &Id,
    (home, digest): (&StreamId, u64),
    command: &T,
) -> Result<(), Problem> {
    idempotency::check(api, organization, id, digest).await?;
    publish(api, topic, home, command).await.map_err(|problem| problem.with_command(id.command))?;
    api.pending.add(organization, id.command, api.platform.clock.now());
    Ok(())
}

/// The conversation that a command is about, as far as it can be told now; the outcome says it. Nobody's is none.
async fn shown(api: &Api, organization: &OrganizationId, recipient: &Recipient, home: StreamId) -> Option<StreamId> {
    if recipient.conversation_id.is_some() {
        return Some(home);
    }
    if recipient.address.is_empty() {
        return None;
    }
    super::numbers::addressed(api, organization, home).await.ok()
}

fn accepted(command: CommandId, conversation: Option<&StreamId>) -> Accepted {
    let body = json!({ "command_id": command, "conversation_id": conversation });
    (StatusCode::ACCEPTED, [(header::LOCATION, format!("/v1/commands/{command}"))], Json(body))
}
