//! The conversations of one stream, which belongs to whoever has the number: each organization sees its own.

use connector_domain::conversation::Conversation;
use connector_domain::event::Recorded;
use rusqlite::{Connection, OptionalExtension, params};

use super::ModelError;

/// Folds an event into the conversation of its organization.
pub(super) fn evolve(db: &Connection, recorded: &Recorded) -> Result<(), ModelError> {
    let envelope = &recorded.envelope;
    let (organization, stream) = (envelope.organization_id.as_str(), envelope.stream_id.as_str());
    let mut fold = stored(db, organization, stream)?;
    let is_theirs = match other_owner(db, organization, stream)? {
        None => fold.is_entered_by(&envelope.organization_id, &recorded.event),
        Some(owner) => {
            // Who gets the number begins anew, with what is left of the conversation of who had it (P4).
            let mut taken = stored(db, &owner, stream)?;
            taken.is_entered_by(&envelope.organization_id, &recorded.event);
            let is_theirs = taken.organization_id.as_ref() == Some(&envelope.organization_id);
            if is_theirs {
                // How the person is addressed the former owner knew, and keeps to themselves: shown is what the next one learns.
                fold = Conversation { address: fold.address, ..taken };
            }
            is_theirs
        }
    };
    if is_theirs {
        db.prepare_cached(
            "INSERT INTO owners (stream, organization) VALUES (?, ?) ON CONFLICT (stream)
             DO UPDATE SET organization = excluded.organization WHERE organization <> excluded.organization",
        )?
        .execute([stream, organization])?;
    }
    fold.evolve(&recorded.event, envelope.event_id, envelope.occurred_at);
    let canonical = fold.canonical.clone().unwrap_or_else(|| envelope.stream_id.clone());
    db.prepare_cached("UPDATE conversations SET fold = ?, canonical = ? WHERE organization = ? AND stream = ?")?
        .execute(params![serde_json::to_string(&fold)?, canonical.as_str(), organization, stream])?;
    Ok(())
}

/// The conversation as an organization sees it: its own while it has the number. Before it has done anything with a number that it got from
/// another one, what is left of theirs, but not how they addressed the person; after it gave the number away, what is left of its own (P4).
pub(super) fn conversation(
    connection: &Connection,
    organization: &str,
    stream: &str,
) -> Result<Conversation, ModelError> {
    let own = stored(connection, organization, stream)?;
    let Some(owner) = other_owner(connection, organization, stream)? else { return Ok(own) };
    let address = own.address.clone();
    let of = if own.organization_id.is_some() { own } else { stored(connection, &owner, stream)? };
    Ok(Conversation { address, ..of.handed_over(&organization.into()) })
}

/// Who had the number of a conversation when something was last done in it, if that was another organization.
fn other_owner(connection: &Connection, organization: &str, stream: &str) -> Result<Option<String>, ModelError> {
    Ok(connection
        .prepare_cached("SELECT organization FROM owners WHERE stream = ? AND organization <> ?")?
        .query_row(params![stream, organization], |row| row.get(0))
        .optional()?)
}

/// The fold of a stream as stored; the empty one when there is none.
fn stored(connection: &Connection, organization: &str, stream: &str) -> Result<Conversation, ModelError> {
    let fold: Option<String> = connection
        .prepare_cached("SELECT fold FROM conversations WHERE organization = ? AND stream = ?")?
        .query_row(params![organization, stream], |row| row.get(0))
        .optional()?;
    Ok(fold.map(|fold| serde_json::from_str(&fold)).transpose()?.unwrap_or_default())
}
