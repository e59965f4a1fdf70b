//! `/v1/directory/…`: numbers, users and contacts. Each `PUT` replaces the whole entry, each `DELETE` leaves a tombstone.

use axum::extract::State;
use axum::http::StatusCode;
use connector_contracts::Topic;
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::identity::Address;
use connector_domain::ids::{ContactId, OrganizationId, PhoneNumberId, UserId, WabaId};
use connector_ports::log::Append;

use super::auth::Caller;
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

/// A slash in an id would make the keys of two entries the same.
fn check_ids(ids: &[(&str, &str)]) -> Result<(), Problem> {
    match ids.iter().find(|(_, id)| id.is_empty() || id.contains('/')) {
        Some((name, _)) => Err(Problem::field(name, "must not be empty and must not contain a slash")),
        None => Ok(()),
    }
}

async fn write(api: &Api, record: &DirectoryRecord, keep: bool) -> Result<StatusCode, Problem> {
    let Some(key) = record.key() else { return Err(Problem::internal()) };
    let traceparent = connector_telemetry::current_traceparent();
    let written = api.platform.emitter(crate::NAME).record(Topic::Directory, &key, record, traceparent.as_deref())?;
    let append = if keep { written } else { Append { value: None, ..written } };
    api.append(append).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(crate) async fn put_number(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(number): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    check_ids(&[("phone_number_id", &number)])?;
    let waba_id = body.read(|form| form.text("waba_id"))?;
    let known = api.numbers.settled(&format!("number/{number}"), SETTLE).await?;
    // Somebody else's number is as good as none (P4): taking it over would show its conversations to another organization.
    if known.is_some_and(|known| known.organization_id != organization) {
        return Err(Problem::not_found("number"));
    }
    let record = DirectoryRecord {
        phone_number_id: Some(PhoneNumberId(number)),
        waba_id: Some(WabaId(waba_id)),
        ..empty(DirectoryKind::Number, organization)
    };
    write(&api, &record, true).await
}

pub(crate) async fn put_user(
    State(api): State<Api>,
    Caller(organization): Caller,
    Path(user): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    check_ids(&[("user", &user)])?;
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
        user_id: Some(UserId(user)),
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
    check_ids(&[("user", &user)])?;
    let record = DirectoryRecord { user_id: Some(UserId(user)), ..empty(DirectoryKind::User, organization) };
    write(&api, &record, false).await
}

fn contact(organization: OrganizationId, user: String, contact: String) -> Result<DirectoryRecord, Problem> {
    check_ids(&[("user", &user), ("contact", &contact)])?;
    Ok(DirectoryRecord {
        user_id: Some(UserId(user)),
        contact_id: Some(ContactId(contact)),
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
        Some((address, form.optional_text("name").map(|name| name.as_str().into())))
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
