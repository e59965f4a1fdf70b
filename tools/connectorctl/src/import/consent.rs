//! Consent given (or withdrawn) elsewhere, as commands of `whatsapp.consent.commands.v1`.

use std::collections::BTreeSet;

use bytes::Bytes;
use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{ConsentAction, ConsentCommand, Recipient};
use connector_domain::ids::{CommandId, OrganizationId, PhoneNumberId, StreamId, Text, UserId};
use connector_domain::time::Timestamp;
use connector_ports::Ids;
use connector_ports::log::Append;
use uuid::Uuid;

use super::known::Known;
use super::rows::Row;
use super::{address, organization};
use crate::Failed;

/// The fields of an entry.
pub(super) const FIELDS: &[&str] =
    &["id", "action", "organization", "user", "phone_number_id", "conversation", "phone", "bsuid", "proof"];

/// Checks entries and makes commands of the good ones.
pub(super) fn records(
    rows: &mut [Row],
    known: &Known,
    default: Option<&str>,
    topics: &Topics,
    ids: &dyn Ids,
    now: Timestamp,
) -> Result<Vec<Append>, Failed> {
    let mut used = BTreeSet::new();
    let mut appends = Vec::new();
    for row in rows {
        let Some(command) = command(row, known, default, ids, now) else { continue };
        if !used.insert(command.command_id) {
            row.wrong("id", "is used twice");
            continue;
        }
        appends.push(Append {
            topic: topics.name(Topic::ConsentCommands).into(),
            partition: None,
            key: Some(Bytes::from(command.command_id.to_string())),
            value: Some(encode(&command)?.into()),
            headers: vec![],
        });
    }
    Ok(appends)
}

fn command(
    row: &mut Row,
    known: &Known,
    default: Option<&str>,
    ids: &dyn Ids,
    now: Timestamp,
) -> Option<ConsentCommand> {
    if !row.problems.is_empty() {
        return None;
    }
    let action = match row.get("action") {
        None | Some("import") => ConsentAction::Import,
        Some("revoke") => ConsentAction::Revoke,
        Some(_) => {
            row.wrong("action", "is neither import nor revoke");
            return None;
        }
    };
    let id = match row.get("id").map(Uuid::parse_str) {
        None => ids.fresh(),
        Some(Ok(id)) => id,
        Some(Err(_)) => {
            row.wrong("id", "is not a UUID");
            return None;
        }
    };
    let organization_id = organization(row, default)?;
    let user_id = row.id("user")?;
    let user = known.users.get(&(organization_id.clone(), user_id.clone()));
    // An operator who withdraws need not be a user of WhatsApp; who vouches for a consent does.
    if action == ConsentAction::Import && user.is_none_or(Option::is_none) {
        row.wrong("user", "is not an enabled user of this organization");
    }
    let number = row.optional_id("phone_number_id").or_else(|| user.cloned().flatten());
    match &number {
        None => row.wrong("phone_number_id", "is missing"),
        Some(number) if !known.is_number_of(number, &organization_id) => {
            row.wrong("phone_number_id", "is not a number of this organization");
        }
        Some(_) => {}
    }
    let conversation_id = row.optional_id("conversation").map(StreamId);
    let address = if conversation_id.is_some() && row.get("phone").or(row.get("bsuid")).is_none() {
        connector_domain::identity::Address::default()
    } else {
        address(row)
    };
    let proof = match action {
        ConsentAction::Import => row.text("proof"),
        _ => row.get("proof").map(str::to_owned),
    };
    if !row.problems.is_empty() {
        return None;
    }
    Some(ConsentCommand {
        command_id: CommandId(id),
        organization_id: OrganizationId(organization_id),
        user_id: UserId(user_id),
        phone_number_id: PhoneNumberId(number?),
        recipient: Recipient { conversation_id, address },
        action,
        template: None,
        proof: proof.map(Text),
        issued_at: now,
    })
}
