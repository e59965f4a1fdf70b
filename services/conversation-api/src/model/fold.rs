//! What one event of the log changes in the tables of the read model.
//!
//! Statuses and outcomes of one message arrive in any order, and a status may know the message by its wamid, by our attempt, or by
//! both. So what was reported is kept by key (`reported`), every key a message is known by leads to its command (`message_keys`),
//! and whichever comes later joins the two. States only move up (R9).

use connector_domain::command::{ContentKind, SendPurpose};
use connector_domain::decide::Reason;
use connector_domain::directory::{ContactEntry, Enablement};
use connector_domain::event::{
    CallReceived, ContactRemoved, Envelope, Event, MessageAccepted, MessageReceived, MessageStatusChanged, Recorded,
};
use connector_domain::ids::{AttemptId, StreamId, Wamid};
use connector_domain::status::MessageState;
use rusqlite::{Connection, OptionalExtension, params};

use super::cursor::Place;
use super::owner;
use super::sqlite::{from_word, word};
use super::{Change, ModelError, Outcome};

const INBOUND: &str = "inbound";

/// Applies one record, unless it was applied before.
pub(super) fn apply(db: &Connection, change: &Change) -> Result<(), ModelError> {
    let next: Option<i64> = db
        .prepare_cached("SELECT next FROM offsets WHERE partition = ?")?
        .query_row([change.partition], |row| row.get(0))
        .optional()?;
    if next.is_some_and(|next| change.offset.0 < next) {
        return Ok(());
    }
    if let Some(recorded) = &change.recorded
        && !stands(db, recorded)?
    {
        keep(db, change, recorded)?;
        fold(db, change, recorded)?;
    }
    db.prepare_cached("INSERT OR REPLACE INTO offsets (partition, next) VALUES (?, ?)")?
        .execute(params![change.partition, change.offset.next().0])?;
    Ok(())
}

/// Whether this very event was applied before: it is shown, and counted, once.
fn stands(db: &Connection, recorded: &Recorded) -> Result<bool, ModelError> {
    let Envelope { organization_id, stream_id, event_id, .. } = &recorded.envelope;
    let sql = "SELECT EXISTS (SELECT 1 FROM events WHERE event_id = ? AND stream = ? AND organization = ?)";
    Ok(db
        .prepare_cached(sql)?
        .query_row([&event_id.to_string(), stream_id.as_str(), organization_id.as_str()], |row| row.get(0))?)
}

fn keep(db: &Connection, change: &Change, recorded: &Recorded) -> Result<(), ModelError> {
    let envelope = &recorded.envelope;
    db.prepare_cached(
        "INSERT INTO events (partition, position, organization, stream, type, event_id, occurred_at, recorded_at, command_id,
         data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        change.partition,
        change.offset.0,
        envelope.organization_id.as_str(),
        envelope.stream_id.as_str(),
        recorded.event.type_name(),
        envelope.event_id.to_string(),
        envelope.occurred_at.as_millis(),
        envelope.recorded_at.as_millis(),
        envelope.command_id.map(|id| id.to_string()),
        data(&recorded.event)?,
    ])?;
    Ok(())
}

/// The data of an event as JSON.
fn data(event: &Event) -> Result<String, ModelError> {
    macro_rules! to_json {
        ($($name:ident)*) => { match event { $(Event::$name(data) => serde_json::to_string(data)?),* } };
    }
    Ok(connector_domain::with_event_types!(to_json))
}

fn fold(db: &Connection, change: &Change, recorded: &Recorded) -> Result<(), ModelError> {
    let envelope = &recorded.envelope;
    let place =
        Place { ordered_at: envelope.recorded_at.as_millis(), partition: change.partition, offset: change.offset };
    match &recorded.event {
        Event::MessageReceived(message) => received(db, place, envelope, message)?,
        Event::CallReceived(call) => called(db, place, envelope, call)?,
        Event::MessageAccepted(accepted) => self::accepted(db, place, envelope, accepted)?,
        Event::MessageSent(sent) => {
            settle(db, envelope, &recorded.event, None)?;
            join(db, envelope, Some(&sent.wamid), Some(sent.attempt_id))?;
        }
        Event::MessageUnconfirmed(unconfirmed) => {
            settle(db, envelope, &recorded.event, None)?;
            join(db, envelope, None, Some(unconfirmed.attempt_id))?;
        }
        Event::MessageFailed(failed) => {
            let why = Why { reason: Some(&failed.reason), error_code: failed.error_code, ..Why::default() };
            settle(db, envelope, &recorded.event, Some(why))?;
            join(db, envelope, None, failed.attempt_id)?;
        }
        Event::MessageRejected(rejected) => {
            let field = Some(rejected.field.as_str()).filter(|field| !field.is_empty());
            let (reason, remedy) = (Some(rejected.reason.as_str()), Some(rejected.remedy.as_str()));
            let why = Why { reason, field, remedy, error_code: None };
            // Another command under a used id is refused as a conflict; what became of the first one stays the outcome (R3).
            let known = command(envelope).map(|id| outcome(db, envelope.organization_id.as_str(), &id)).transpose()?;
            if known.flatten().is_none() || rejected.reason != Reason::Conflict.as_str() {
                settle(db, envelope, &recorded.event, Some(why))?;
            }
        }
        Event::ConversationLinked(_) => linked(db, envelope)?,
        Event::MessageStatusChanged(changed) => status(db, envelope, &recorded.event, changed)?,
        Event::ContactAdded(added) => {
            ensure(db, envelope, &added.conversation_id)?;
            // Its id goes with it: the screen links to the contact.
            let entry = serde_json::json!({
                "contact_id": added.contact_id, "name": added.name, "address": added.address,
            });
            db.prepare_cached(
                "INSERT OR REPLACE INTO contacts (organization, user_id, contact_id, conversation, entry)
                 VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![
                envelope.organization_id.as_str(),
                added.user_id.as_str(),
                added.contact_id.as_str(),
                added.conversation_id.as_str(),
                entry.to_string(),
            ])?;
        }
        Event::ContactRemoved(removed) => {
            let mut entry =
                ContactEntry { conversation_id: contact(db, envelope, removed)?, ..ContactEntry::default() };
            entry.evolve(&recorded.event);
            if entry.conversation_id.is_none() {
                db.prepare_cached("DELETE FROM contacts WHERE organization = ? AND user_id = ? AND contact_id = ?")?
                    .execute(params![
                        envelope.organization_id.as_str(),
                        removed.user_id.as_str(),
                        removed.contact_id.as_str()
                    ])?;
            }
        }
        Event::WhatsAppEnabled(e) => user(db, envelope, e.user_id.as_str(), &recorded.event)?,
        Event::WhatsAppDisabled(e) => user(db, envelope, e.user_id.as_str(), &recorded.event)?,
        Event::ActivationNoticeRaised(e) => user(db, envelope, e.user_id.as_str(), &recorded.event)?,
        Event::ActivationNoticeAcknowledged(e) => {
            user(db, envelope, e.user_id.as_str(), &recorded.event)?;
            done(db, envelope)?;
        }
        Event::OptInRequested(_) | Event::ConsentImported(_) | Event::ConsentRevoked(_) => done(db, envelope)?,
        _ => {}
    }
    if of_conversation(&recorded.event) {
        ensure(db, envelope, &envelope.stream_id)?;
        owner::evolve(db, recorded)?;
    }
    Ok(())
}

/// Whether an event stands in the stream of a conversation, not of a user or a number. Rejections may stand in either.
const fn of_conversation(event: &Event) -> bool {
    !matches!(
        event,
        Event::MessageRejected(_)
            | Event::AccountNotice(_)
            | Event::NumberPaused(_)
            | Event::NumberResumed(_)
            | Event::WhatsAppEnabled(_)
            | Event::WhatsAppDisabled(_)
            | Event::ActivationNoticeRaised(_)
            | Event::ActivationNoticeAcknowledged(_)
            | Event::ContactAdded(_)
            | Event::ContactRemoved(_)
    )
}

fn ensure(db: &Connection, envelope: &Envelope, stream: &StreamId) -> Result<(), ModelError> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO conversations (organization, stream, canonical, fold) VALUES (?1, ?2, ?2, '{}')",
    )?
    .execute([envelope.organization_id.as_str(), stream.as_str()])?;
    Ok(())
}

/// A message as it is shown.
struct Shown<'a> {
    id: &'a str,
    direction: &'static str,
    kind: &'a str,
    text: Option<&'a str>,
    template: Option<String>,
    unsupported: bool,
    user: Option<&'a str>,
    wamid: Option<&'a str>,
    reply_to: Option<&'a Wamid>,
}

/// Shows a message at the place of its record. `false`: it is shown already, where it was first.
fn show(db: &Connection, place: Place, envelope: &Envelope, shown: Shown<'_>) -> Result<bool, ModelError> {
    ensure(db, envelope, &envelope.stream_id)?;
    let (organization, stream) = (envelope.organization_id.as_str(), envelope.stream_id.as_str());
    let inserted = db
        .prepare_cached(
            "INSERT OR IGNORE INTO messages (organization, id, stream, direction, type, text, template, unsupported, user_id,
             occurred_at, wamid, reply_to, recorded_at, partition, position, ordered_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, MAX(ordered_at, ?16)
             FROM conversations WHERE organization = ?1 AND stream = ?3",
        )?
        .execute(params![
            organization,
            shown.id,
            stream,
            shown.direction,
            shown.kind,
            shown.text,
            shown.template,
            shown.unsupported,
            shown.user,
            envelope.occurred_at.as_millis(),
            shown.wamid,
            shown.reply_to.map(Wamid::as_str),
            envelope.recorded_at.as_millis(),
            place.partition,
            place.offset.0,
            place.ordered_at,
        ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let unread = i64::from(shown.direction == INBOUND);
    db.prepare_cached(
        "UPDATE conversations SET unread = unread + ?1, ordered_at = MAX(ordered_at, ?2)
         WHERE organization = ?3 AND stream = ?4",
    )?
    .execute(params![unread, place.ordered_at, organization, stream])?;
    Ok(true)
}

fn received(db: &Connection, place: Place, envelope: &Envelope, message: &MessageReceived) -> Result<(), ModelError> {
    let wamid = message.wamid.as_str();
    let shown = Shown {
        id: wamid,
        direction: INBOUND,
        kind: &message.message_type,
        text: message.text.as_ref().map(|text| text.expose()),
        template: None,
        unsupported: message.unsupported,
        user: None,
        wamid: Some(wamid),
        reply_to: message.reply_to.as_ref(),
    };
    show(db, place, envelope, shown)?;
    Ok(())
}

/// A call is shown like what else the connector does not carry (P5). It has no wamid: nothing can quote it or mark it as read.
fn called(db: &Connection, place: Place, envelope: &Envelope, call: &CallReceived) -> Result<(), ModelError> {
    let shown = Shown {
        id: call.call_id.as_str(),
        direction: INBOUND,
        kind: "call",
        text: None,
        template: None,
        unsupported: true,
        user: None,
        wamid: None,
        reply_to: None,
    };
    show(db, place, envelope, shown)?;
    Ok(())
}

fn accepted(db: &Connection, place: Place, envelope: &Envelope, accepted: &MessageAccepted) -> Result<(), ModelError> {
    let content = &accepted.content;
    let kind = match content.kind {
        ContentKind::Text => Some("text"),
        ContentKind::Template => Some("template"),
        ContentKind::Typing | ContentKind::Read | ContentKind::Unknown => None,
    };
    let is_new = match (kind, command(envelope)) {
        (Some(kind), Some(id)) => {
            let shown = Shown {
                id: &id,
                direction: "outbound",
                kind,
                text: content.text.as_ref().map(|text| text.expose()),
                template: content.template.as_ref().map(serde_json::to_string).transpose()?,
                unsupported: false,
                user: Some(accepted.user_id.as_str()),
                wamid: None,
                reply_to: content.reply_to.as_ref(),
            };
            show(db, place, envelope, shown)?
        }
        (None, _) | (_, None) => true,
    };
    // Who answers, or marks as read, has read. The opt-in template is sent by the connector itself.
    if is_new && accepted.purpose == SendPurpose::Conversation {
        db.prepare_cached("UPDATE conversations SET unread = 0 WHERE organization = ? AND stream = ?")?
            .execute([envelope.organization_id.as_str(), envelope.stream_id.as_str()])?;
    }
    settle(db, envelope, &Event::MessageAccepted(accepted.clone()), None)
}

/// A stream that is linked ends here: nothing in it goes behind what the conversation gets from now on, even if a clock of ours was wrong.
fn linked(db: &Connection, envelope: &Envelope) -> Result<(), ModelError> {
    for table in ["messages", "conversations"] {
        db.prepare_cached(&format!(
            "UPDATE {table} SET ordered_at = ?1 WHERE organization = ?2 AND stream = ?3 AND ordered_at > ?1"
        ))?
        .execute(params![
            envelope.recorded_at.as_millis(),
            envelope.organization_id.as_str(),
            envelope.stream_id.as_str()
        ])?;
    }
    Ok(())
}

/// What explains an outcome.
#[derive(Clone, Copy, Default)]
struct Why<'a> {
    reason: Option<&'a str>,
    field: Option<&'a str>,
    remedy: Option<&'a str>,
    error_code: Option<i64>,
}

fn command(envelope: &Envelope) -> Option<String> {
    envelope.command_id.map(|id| id.to_string())
}

/// The outcome of a command as stored.
pub(super) fn outcome(db: &Connection, organization: &str, command: &str) -> Result<Option<Outcome>, ModelError> {
    let found = db
        .prepare_cached(
            "SELECT state, stream, reason, field, remedy, error_code, wamid, occurred_at FROM outcomes
             WHERE organization = ? AND command_id = ?",
        )?
        .query_row([organization, command], |row| {
            let outcome = Outcome {
                command_id: command.to_owned(),
                state: MessageState::Accepted,
                stream_id: row.get(1)?,
                reason: row.get(2)?,
                field: row.get(3)?,
                remedy: row.get(4)?,
                error_code: row.get(5)?,
                wamid: row.get(6)?,
                occurred_at: row.get(7)?,
            };
            Ok((outcome, row.get::<_, String>(0)?))
        })
        .optional()?;
    found.map(|(outcome, state)| Ok(Outcome { state: from_word(state)?, ..outcome })).transpose()
}

/// A command that is no message has been carried out: a notice dismissed, an opt-in requested, a consent imported or revoked.
fn done(db: &Connection, envelope: &Envelope) -> Result<(), ModelError> {
    match command(envelope) {
        Some(id) => advance(db, envelope, &id, MessageState::Accepted, Why::default(), None),
        None => Ok(()),
    }
}

fn settle(db: &Connection, envelope: &Envelope, event: &Event, why: Option<Why<'_>>) -> Result<(), ModelError> {
    match (command(envelope), MessageState::after(None, event)) {
        (Some(id), Some(said)) => advance(db, envelope, &id, said, why.unwrap_or_default(), None),
        _ => Ok(()),
    }
}

/// Moves a command up to `said`, if it is not there or further already.
fn advance(
    db: &Connection,
    envelope: &Envelope,
    command: &str,
    said: MessageState,
    why: Why<'_>,
    wamid: Option<&str>,
) -> Result<(), ModelError> {
    let organization = envelope.organization_id.as_str();
    let known = outcome(db, organization, command)?;
    let before = known.as_ref().map(|known| known.state);
    let state = before.map_or(said, |before| before.max(said));
    let at = envelope.occurred_at.as_millis();
    let at = known.as_ref().map_or(at, |known| if before == Some(state) { known.occurred_at } else { at });
    // A message that arrived after all has no failure to explain.
    let failed = matches!(state, MessageState::Failed | MessageState::Rejected);
    let stands = |text: Option<&str>, stored: fn(&Outcome) -> Option<&String>| {
        failed
            .then(|| text.or_else(|| known.as_ref().and_then(stored).map(String::as_str)).map(str::to_owned))
            .flatten()
    };
    let code = why.error_code.or_else(|| known.as_ref().and_then(|known| known.error_code)).filter(|_| failed);
    let wamid = wamid.map(str::to_owned).or_else(|| known.as_ref().and_then(|known| known.wamid.clone()));
    let stream = known.as_ref().map_or(envelope.stream_id.as_str(), |known| known.stream_id.as_str());
    db.prepare_cached(
        "INSERT OR REPLACE INTO outcomes (organization, command_id, stream, state, reason, field, remedy, error_code, wamid,
         occurred_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        organization,
        command,
        stream,
        word(&state)?,
        stands(why.reason, |known| known.reason.as_ref()),
        stands(why.field, |known| known.field.as_ref()),
        stands(why.remedy, |known| known.remedy.as_ref()),
        code,
        wamid,
        at,
    ])?;
    Ok(())
}

fn keys(wamid: Option<&Wamid>, attempt: Option<AttemptId>) -> Vec<String> {
    wamid.map(|id| format!("w:{id}")).into_iter().chain(attempt.map(|id| format!("a:{id}"))).collect()
}

/// A message is known by these keys from now on: what was reported under them before is about it.
fn join(
    db: &Connection,
    envelope: &Envelope,
    wamid: Option<&Wamid>,
    attempt: Option<AttemptId>,
) -> Result<(), ModelError> {
    let (organization, Some(command)) = (envelope.organization_id.as_str(), command(envelope)) else { return Ok(()) };
    if let Some(wamid) = wamid {
        advance(db, envelope, &command, MessageState::Accepted, Why::default(), Some(wamid.as_str()))?;
    }
    for key in keys(wamid, attempt) {
        db.prepare_cached("INSERT OR REPLACE INTO message_keys (organization, key, command_id) VALUES (?, ?, ?)")?
            .execute([organization, &key, &command])?;
        let reported = db
            .prepare_cached("SELECT state, error_code, wamid FROM reported WHERE organization = ? AND key = ?")?
            .query_row([organization, &key], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<String>>(2)?))
            })
            .optional()?;
        if let Some((state, error_code, wamid)) = reported {
            let why = Why { error_code, reason: error_code.map(|_| "whatsapp"), ..Why::default() };
            advance(db, envelope, &command, from_word(state)?, why, wamid.as_deref())?;
        }
    }
    Ok(())
}

fn status(
    db: &Connection,
    envelope: &Envelope,
    event: &Event,
    changed: &MessageStatusChanged,
) -> Result<(), ModelError> {
    let organization = envelope.organization_id.as_str();
    let keys = keys(Some(&changed.wamid), changed.attempt_id);
    let mut commands = Vec::new();
    for key in &keys {
        let before: Option<String> = db
            .prepare_cached("SELECT state FROM reported WHERE organization = ? AND key = ?")?
            .query_row([organization, key], |row| row.get(0))
            .optional()?;
        let before = before.map(from_word::<MessageState>).transpose()?;
        let Some(state) = MessageState::after(before, event) else { continue };
        db.prepare_cached(
            "INSERT INTO reported (organization, key, state, error_code, wamid, occurred_at) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (organization, key) DO UPDATE SET state = excluded.state,
             error_code = COALESCE(excluded.error_code, error_code)",
        )?
        .execute(params![
            organization,
            key,
            word(&state)?,
            changed.error_code,
            changed.wamid.as_str(),
            envelope.occurred_at.as_millis(),
        ])?;
        let command: Option<String> = db
            .prepare_cached("SELECT command_id FROM message_keys WHERE organization = ? AND key = ?")?
            .query_row([organization, key], |row| row.get(0))
            .optional()?;
        commands.extend(command);
    }
    commands.dedup();
    let Some(said) = MessageState::after(None, event) else { return Ok(()) };
    for command in commands {
        let why =
            Why { error_code: changed.error_code, reason: changed.error_code.map(|_| "whatsapp"), ..Why::default() };
        advance(db, envelope, &command, said, why, Some(changed.wamid.as_str()))?;
        // The other key leads to the same message from now on.
        for key in &keys {
            db.prepare_cached("INSERT OR IGNORE INTO message_keys (organization, key, command_id) VALUES (?, ?, ?)")?
                .execute([organization, key, &command])?;
        }
    }
    Ok(())
}

fn user(db: &Connection, envelope: &Envelope, user: &str, event: &Event) -> Result<(), ModelError> {
    let organization = envelope.organization_id.as_str();
    let fold: Option<String> = db
        .prepare_cached("SELECT fold FROM users WHERE organization = ? AND user_id = ?")?
        .query_row([organization, user], |row| row.get(0))
        .optional()?;
    let mut fold: Enablement = fold.map(|fold| serde_json::from_str(&fold)).transpose()?.unwrap_or_default();
    fold.evolve(event);
    db.prepare_cached("INSERT OR REPLACE INTO users (organization, user_id, fold) VALUES (?, ?, ?)")?.execute([
        organization,
        user,
        &serde_json::to_string(&fold)?,
    ])?;
    Ok(())
}

fn contact(db: &Connection, envelope: &Envelope, removed: &ContactRemoved) -> Result<Option<StreamId>, ModelError> {
    let found: Option<String> = db
        .prepare_cached("SELECT conversation FROM contacts WHERE organization = ? AND user_id = ? AND contact_id = ?")?
        .query_row(
            params![envelope.organization_id.as_str(), removed.user_id.as_str(), removed.contact_id.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(found.map(StreamId))
}
