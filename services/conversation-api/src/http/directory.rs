//! `/v1/directory/…`: numbers (assigned by operators, read by tenants), users and contacts. Each `PUT` replaces the whole entry, each `DELETE` leaves a tombstone.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use connector_contracts::Topic;
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::form::{Formed, LONGEST_NAME, is_name, may_be_looked_for};
use connector_domain::identity::Address;
use connector_domain::ids::{ContactId, OrganizationId, PhoneNumberId, StreamId, UserId, WabaId};
use connector_ports::log::Append;
use connector_runtime::assignment::{self, Assigned};
use serde_json::{Value, json};

use super::auth::{Caller, Operator};
use super::extract::Path;
use super::form::Body;
use super::problem::Problem;
use super::{Api, SETTLE};

fn empty(kind: DirectoryKind, organization_id: OrganizationId) -> DirectoryRecord {
    DirectoryRecord {
        kind,
        organization_id,
        phone_number_id: None,
        waba_id: None,
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    }
}

/// Ids become keys: what is no opaque id is refused with its name.
pub(super) fn check_id(name: &str, id: &impl Formed) -> Result<(), Problem> {
    if id.is_formed() { Ok(()) } else { Err(Problem::field(name, "is no opaque id")) }
}

/// As [`check_id`], for a conversation that is only looked for.
pub(super) fn check_conversation(name: &str, id: &StreamId) -> Result<(), Problem> {
    if may_be_looked_for(id.as_str()) { Ok(()) } else { Err(Problem::field(name, "is no opaque id")) }
}

async fn write(api: &Api, record: &DirectoryRecord, keep: bool) -> Result<StatusCode, Problem> {
    let Some(key) = record.key() else { return Err(Problem::internal()) };
    let traceparent = connector_telemetry::current_traceparent();
    let written = api.platform.emitter(crate::NAME).record(Topic::Directory, &key, record, traceparent.as_deref())?;
    let append = if keep { written } else { Append { value: None, ..written } };
    api.append(append).await?;
    Ok(StatusCode::ACCEPTED)
}

fn shown(record: &DirectoryRecord) -> Value {
    json!({ "phone_number_id": record.phone_number_id, "waba_id": record.waba_id })
}

pub(crate) async fn numbers(State(api): State<Api>, Caller(organization): Caller) -> Result<Json<Value>, Problem> {
    api.numbers.complete(SETTLE).await?;
    let mut own = api.numbers.all();
    own.retain(|record| record.is_of(&organization));
    own.sort_by(|one, other| one.phone_number_id.cmp(&other.phone_number_id));
    Ok(Json(json!({ "numbers": own.iter().map(|record| shown(record)).collect::<Vec<_>>() })))
}

pub(crate) async fn number(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
    let record = api.number(&organization, &number).await?.ok_or_else(|| Problem::not_found("number"))?;
    Ok(Json(shown(&record)))
}

/// Writes a number's entry, unless it is another organization's or somebody else is at it.
async fn assign(api: &Api, record: DirectoryRecord, stays: bool) -> Result<StatusCode, Problem> {
    let platform = &api.platform;
    match assignment::assign(platform.log.as_ref(), &api.numbers, &platform.emitter(crate::NAME), &record, stays)
        .await?
    {
        Assigned::Done => Ok(StatusCode::ACCEPTED),
        Assigned::Taken => Err(Problem::conflict("the number belongs to another organization")),
        Assigned::Contended => {
            Err(Problem::conflict("the number is being assigned by somebody else; look and try again"))
        }
    }
}

pub(crate) async fn put_number(
    State(api): State<Api>,
    _: Operator,
    Path(number): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
    let (organization, waba) = body.read(|form| {
        let (organization, waba) = (form.text("organization_id"), form.text("waba_id"));
        Some((OrganizationId(organization?), WabaId(waba?)))
    })?;
    check_id("organization_id", &organization)?;
    check_id("waba_id", &waba)?;
    let record = DirectoryRecord {
        phone_number_id: Some(number),
        waba_id: Some(waba),
        ..empty(DirectoryKind::Number, organization)
    };
    assign(&api, record, true).await
}

pub(crate) async fn delete_number(
    State(api): State<Api>,
    _: Operator,
    Path(number): Path<String>,
) -> Result<StatusCode, Problem> {
    let number = PhoneNumberId(number);
    check_id("phone_number_id", &number)?;
    let known = api.numbers.newest(&format!("number/{number}"), SETTLE).await?;
    let known = known.ok_or_else(|| Problem::not_found("number"))?;
    assign(&api, DirectoryRecord::clone(&known), false).await
}

pub(crate) async fn put_user(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(user): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let user = UserId(user);
    check_id("user", &user)?;
    let (number, enabled) = body.read(|form| {
        let enabled = form.flag("enabled", true);
        let number = if enabled {
            form.text("phone_number_id")?
        } else {
            form.optional_text("phone_number_id").unwrap_or_default()
        };
        Some((PhoneNumberId(number), enabled))
    })?;
    if enabled && api.number(&organization, &number).await?.is_none() {
        return Err(Problem::field("phone_number_id", "is not a number of this organization"));
    }
    let record = DirectoryRecord {
        phone_number_id: Some(number).filter(|number| !number.as_str().is_empty()),
        user_id: Some(user),
        enabled,
        ..empty(DirectoryKind::User, organization)
    };
    write(&api, &record, true).await
}

pub(crate) async fn delete_user(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = UserId(user);
    check_id("user", &user)?;
    let record = DirectoryRecord { user_id: Some(user), ..empty(DirectoryKind::User, organization) };
    write(&api, &record, false).await
}

fn contact(organization: OrganizationId, user: String, contact: String) -> Result<DirectoryRecord, Problem> {
    let (user, contact) = (UserId(user), ContactId(contact));
    check_id("user", &user)?;
    check_id("contact", &contact)?;
    Ok(DirectoryRecord {
        user_id: Some(user),
        contact_id: Some(contact),
        ..empty(DirectoryKind::Contact, organization)
    })
}

pub(crate) async fn put_contact(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path((user, id)): Path<(String, String)>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let mut record = contact(organization, user, id)?;
    (record.address, record.name) = body.read(|form| {
        let address = Address { phone: form.phone("phone"), bsuid: form.bsuid("bsuid") };
        if address.is_empty() {
            form.wrong("phone", "expected phone or bsuid");
        }
        let name = form.optional_text("name");
        if name.as_ref().is_some_and(|name| !is_name(name)) {
            form.wrong("name", &format!("has more than {LONGEST_NAME} characters"));
        }
        Some((address, name.map(|name| name.as_str().into())))
    })?;
    write(&api, &record, true).await
}

pub(crate) async fn delete_contact(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path((user, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    write(&api, &contact(organization, user, id)?, false).await
}
