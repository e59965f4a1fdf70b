//! The read model in SQLite: one connection writes, a few read.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use connector_domain::composer::Situation;
use connector_domain::conversation::closed;
use connector_domain::decide::Reason;
use connector_domain::directory::Enablement;
use connector_domain::ids::{CommandId, EventId, OrganizationId, StreamId, UserId};
use connector_domain::status::MessageState;
use connector_domain::time::Timestamp;
use connector_ports::log::{LogId, Offset};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cursor::{Cursor, Place};
use super::file;
use super::listing;
use super::owner::conversation;
use super::readers::{Readers, Turn};
use super::{Change, EventQuery, Message, ModelError, Outcome, ReadModel, Scope, StoredEvent, Summary, View, fold};

/// A file of another version is built anew from the log.
const VERSION: i64 = 5;

pub(super) const SCHEMA: &str = "
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE offsets (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
    CREATE TABLE events (partition INTEGER NOT NULL, position INTEGER NOT NULL, organization TEXT NOT NULL,
        stream TEXT NOT NULL, type TEXT NOT NULL, event_id TEXT NOT NULL, occurred_at INTEGER NOT NULL,
        recorded_at INTEGER NOT NULL, command_id TEXT, data TEXT NOT NULL, PRIMARY KEY (partition, position)) WITHOUT ROWID;
    CREATE INDEX events_by_id ON events (event_id, stream, organization);
    CREATE INDEX events_by_stream ON events (organization, stream, position);
    CREATE INDEX events_by_organization ON events (organization, partition, position);
    CREATE TABLE conversations (organization TEXT NOT NULL, stream TEXT NOT NULL, canonical TEXT NOT NULL,
        fold TEXT NOT NULL, unread INTEGER NOT NULL DEFAULT 0, ordered_at INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (organization, stream)) WITHOUT ROWID;
    CREATE TABLE owners (stream TEXT PRIMARY KEY, organization TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX conversations_by_canonical ON conversations (organization, canonical);
    CREATE TABLE messages (organization TEXT NOT NULL, id TEXT NOT NULL, stream TEXT NOT NULL, direction TEXT NOT NULL,
        type TEXT NOT NULL, text TEXT, template TEXT, unsupported INTEGER NOT NULL DEFAULT 0, user_id TEXT,
        occurred_at INTEGER NOT NULL, wamid TEXT, reply_to TEXT, recorded_at INTEGER NOT NULL, ordered_at INTEGER NOT NULL,
        partition INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (organization, id)) WITHOUT ROWID;
    CREATE INDEX messages_by_stream ON messages (organization, stream, ordered_at, partition, position);
    CREATE INDEX messages_by_user ON messages (organization, user_id, stream);
    CREATE TABLE outcomes (organization TEXT NOT NULL, command_id TEXT NOT NULL, stream TEXT NOT NULL, state TEXT NOT NULL,
        reason TEXT, field TEXT, remedy TEXT, error_code INTEGER, wamid TEXT, occurred_at INTEGER NOT NULL,
        PRIMARY KEY (organization, command_id)) WITHOUT ROWID;
    CREATE TABLE message_keys (organization TEXT NOT NULL, key TEXT NOT NULL, command_id TEXT NOT NULL,
        PRIMARY KEY (organization, key)) WITHOUT ROWID;
    CREATE TABLE reported (organization TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, error_code INTEGER,
        wamid TEXT, occurred_at INTEGER NOT NULL, PRIMARY KEY (organization, key)) WITHOUT ROWID;
    CREATE TABLE users (organization TEXT NOT NULL, user_id TEXT NOT NULL, fold TEXT NOT NULL,
        PRIMARY KEY (organization, user_id)) WITHOUT ROWID;
    CREATE TABLE contacts (organization TEXT NOT NULL, user_id TEXT NOT NULL, contact_id TEXT NOT NULL,
        conversation TEXT NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (organization, user_id, contact_id)) WITHOUT ROWID;
    CREATE INDEX contacts_by_conversation ON contacts (organization, conversation, user_id);
";

const TABLES: [&str; 10] = [
    "offsets",
    "events",
    "conversations",
    "owners",
    "messages",
    "outcomes",
    "message_keys",
    "reported",
    "users",
    "contacts",
];

/// The read model in a SQLite file or in memory. Clones are the same model.
#[derive(Clone)]
pub struct SqliteModel {
    writer: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
    /// SQLite has found that the file is damaged.
    damaged: Arc<AtomicBool>,
    stream_key: Arc<str>,
    /// Declared last: it is let go of after the connections.
    _lock: Option<Arc<File>>,
}

impl SqliteModel {
    /// Opens the model in a file, or one in memory. A file of another version is emptied, a damaged one is put aside. `stream_key` is the
    /// fingerprint of the secret behind the stream ids.
    ///
    /// # Errors
    /// When the file cannot be used, is somebody else's, or belongs to another secret.
    pub fn open(path: Option<&Path>, stream_key: &str) -> Result<Self, ModelError> {
        let Some(file) = path else { return Self::open_locked(None, None, stream_key) };
        match Self::open_locked(path, Some(file::lock(file)?), stream_key) {
            Err(ModelError::Database(error)) if file::is_damage(&error) => {
                file::put_aside(file)?;
                Self::open_locked(path, Some(file::lock(file)?), stream_key)
            }
            opened => opened,
        }
    }

    fn open_locked(path: Option<&Path>, lock: Option<File>, stream_key: &str) -> Result<Self, ModelError> {
        let writer = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        file::claim(&writer, path)??;
        // The log is the truth: what a crash of the machine loses here is applied again.
        writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;")?;
        let version: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            let drop: String = TABLES.iter().map(|table| format!("DROP TABLE IF EXISTS {table};")).collect();
            let facts = "DROP TABLE IF EXISTS facts;";
            writer
                .execute_batch(&format!("BEGIN; {drop} {facts} {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        }
        for table in TABLES {
            // A look at each: what is damaged is better found now.
            writer.query_row(&format!("SELECT EXISTS (SELECT * FROM {table} LIMIT 1)"), [], |_| Ok(()))?;
        }
        file::keep_stream_key(&writer, stream_key)??;
        writer.set_prepared_statement_cache_capacity(64);
        let writer = Arc::new(Mutex::new(writer));
        let readers = Arc::new(Readers::open(path, &writer)?);
        let damaged = Arc::default();
        Ok(Self { writer, readers, damaged, stream_key: stream_key.into(), _lock: lock.map(Arc::new) })
    }

    /// Empties the whole file, whatever is in it.
    fn begin_anew(connection: &Connection, stream_key: &str) -> Result<(), ModelError> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
        let emptied = connection.execute_batch("VACUUM");
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
        emptied?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        file::claim_again(connection)?;
        file::keep_stream_key(connection, stream_key)??;
        Ok(())
    }

    /// Answers a question about an organization. Its questions are answered one after the other, so that those of others find a connection.
    async fn read<T: Send + 'static>(
        &self,
        organization: &OrganizationId,
        ask: impl FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, ModelError> {
        let turn = self.readers.turn(organization).await;
        self.ask(Some(turn), ask).await
    }

    /// Answers a short question about the model as such.
    async fn look<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, ModelError> {
        self.ask(None, ask).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        turn: Option<Turn>,
        ask: impl FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, ModelError> {
        let answer = self.readers.ask(turn, move |connection| {
            // One transaction for all statements of an answer: they agree about one moment.
            let moment = connection.unchecked_transaction()?;
            ask(&moment)
        });
        self.seen(answer.await)
    }

    async fn write<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, ModelError> + Send + 'static,
    ) -> Result<T, ModelError> {
        let connection = self.writer.clone();
        let run = move || run(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        self.seen(tokio::task::spawn_blocking(run).await.map_err(|_| ModelError::Ended)?)
    }

    fn seen<T>(&self, result: Result<T, ModelError>) -> Result<T, ModelError> {
        if let Err(ModelError::Database(error)) = &result
            && file::is_damage(error)
        {
            self.damaged.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// A serde word (`MessageState`) as a column.
pub(super) fn word<T: Serialize>(value: &T) -> Result<String, ModelError> {
    Ok(serde_json::to_value(value)?.as_str().unwrap_or_default().to_owned())
}

/// A column as a serde word.
pub(super) fn from_word<T: DeserializeOwned>(word: String) -> Result<T, ModelError> {
    Ok(serde_json::from_value(serde_json::Value::String(word))?)
}

/// As [`ReadModel::holder`].
fn holder(db: &Connection, organization: &str, identity: &StreamId, at: Timestamp) -> Result<StreamId, ModelError> {
    let fold = conversation(db, organization, identity.as_str())?;
    Ok(fold.handovers.holder(identity, at).clone())
}

/// The streams of a conversation: itself and its aliases, the canonical one first. Empty when the organization has no such one.
pub(super) fn streams(
    connection: &Connection,
    organization: &str,
    conversation: &str,
) -> Result<Vec<String>, ModelError> {
    let mut path = vec![StreamId(conversation.to_owned())];
    let canonical = loop {
        let Some(at) = path.last() else { return Ok(Vec::new()) };
        let found: Option<String> = connection
            .prepare_cached("SELECT canonical FROM conversations WHERE organization = ? AND stream = ?")?
            .query_row([organization, at.as_str()], |row| row.get(0))
            .optional()?;
        match found.map(StreamId) {
            Some(next) => match closed(&path, &next) {
                // Who links no further names itself.
                Some(least) => break least.0,
                None => path.push(next),
            },
            None if path.len() > 1 => {
                path.pop();
                break path.pop().map(|stream| stream.0).unwrap_or_default();
            }
            None => return Ok(Vec::new()),
        }
    };
    let mut streams = vec![canonical];
    let mut at = 0;
    while let Some(stream) = streams.get(at).cloned() {
        let aliases: Vec<String> = connection
            .prepare_cached(
                "SELECT stream FROM conversations WHERE organization = ? AND canonical = ? ORDER BY stream",
            )?
            .query_map([organization, &stream], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        streams.extend(aliases.into_iter().filter(|alias| !streams.contains(alias)).collect::<Vec<_>>());
        at += 1;
    }
    Ok(streams)
}

fn marks(count: usize) -> String {
    vec!["?"; count].join(",")
}

fn with<'a>(organization: &'a str, streams: &'a [String]) -> Vec<&'a str> {
    std::iter::once(organization).chain(streams.iter().map(String::as_str)).collect()
}

/// Whether the user has a contact in this conversation or wrote in it.
fn concerns(connection: &Connection, organization: &str, user: &str, streams: &[String]) -> Result<bool, ModelError> {
    let marks = marks(streams.len());
    let mut values = with(organization, streams);
    values.push(user);
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM contacts WHERE organization = ? AND conversation IN ({marks}) AND user_id = ?)"
    );
    let contact: bool = connection.prepare_cached(&sql)?.query_row(params_from_iter(&values), |row| row.get(0))?;
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM messages WHERE organization = ? AND stream IN ({marks}) AND user_id = ?)"
    );
    let wrote: bool = connection.prepare_cached(&sql)?.query_row(params_from_iter(&values), |row| row.get(0))?;
    Ok(contact || wrote)
}

const MESSAGE: &str = "SELECT m.id, m.direction, m.type, m.text, m.template, m.unsupported, m.user_id, m.occurred_at,
    o.state, o.reason, o.error_code, COALESCE(o.wamid, m.wamid), m.reply_to, m.recorded_at, m.ordered_at, m.partition, m.position
    FROM messages m LEFT JOIN outcomes o ON o.organization = m.organization AND o.command_id = m.id";

fn message(row: &Row<'_>) -> rusqlite::Result<(Message, Option<String>, Option<String>)> {
    let message = Message {
        place: Place { ordered_at: row.get(14)?, partition: row.get(15)?, offset: Offset(row.get(16)?) },
        recorded_at: row.get(13)?,
        id: row.get(0)?,
        direction: row.get(1)?,
        message_type: row.get(2)?,
        text: row.get(3)?,
        template: None,
        unsupported: row.get(5)?,
        user_id: row.get(6)?,
        occurred_at: row.get(7)?,
        state: None,
        reason: row.get(9)?,
        error_code: row.get(10)?,
        wamid: row.get(11)?,
        reply_to: row.get(12)?,
    };
    Ok((message, row.get(4)?, row.get(8)?))
}

pub(super) fn messages(
    connection: &Connection,
    organization: &str,
    streams: &[String],
    before: Option<Place>,
    limit: usize,
) -> Result<Vec<Message>, ModelError> {
    let sql = format!(
        "{MESSAGE} WHERE m.organization = ? AND m.stream IN ({}) AND (m.ordered_at, m.partition, m.position)
            < (CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER))
         ORDER BY m.ordered_at DESC, m.partition DESC, m.position DESC LIMIT CAST(? AS INTEGER)",
        marks(streams.len())
    );
    let before = before.unwrap_or(Place { ordered_at: i64::MAX, partition: u32::MAX, offset: Offset(i64::MAX) });
    let bounds =
        [before.ordered_at.to_string(), before.partition.to_string(), before.offset.0.to_string(), limit.to_string()];
    let mut values = with(organization, streams);
    values.extend(bounds.iter().map(String::as_str));
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), message)?.collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::with_capacity(rows.len());
    for (mut message, template, state) in rows {
        message.template = template.map(|json| serde_json::from_str(&json)).transpose()?;
        message.state = state.map(from_word::<MessageState>).transpose()?;
        found.push(message);
    }
    found.reverse();
    Ok(found)
}

fn summary(
    connection: &Connection,
    organization: &str,
    user: &str,
    streams: &[String],
) -> Result<Option<Summary>, ModelError> {
    let Some(canonical) = streams.first() else { return Ok(None) };
    let fold = conversation(connection, organization, canonical)?;
    let sql = format!(
        "SELECT SUM(unread) FROM conversations WHERE organization = ? AND stream IN ({})",
        marks(streams.len())
    );
    let values = with(organization, streams);
    let unread: Option<u32> =
        connection.prepare_cached(&sql)?.query_row(params_from_iter(&values), |row| row.get(0))?;
    let sql = format!(
        "SELECT entry FROM contacts WHERE organization = ? AND conversation IN ({}) AND user_id = ? LIMIT 1",
        marks(streams.len())
    );
    let mut of_user = values.clone();
    of_user.push(user);
    let contact: Option<String> =
        connection.prepare_cached(&sql)?.query_row(params_from_iter(of_user), |row| row.get(0)).optional()?;
    Ok(Some(Summary {
        conversation_id: StreamId(canonical.clone()),
        fold,
        contact: contact.map(|entry| serde_json::from_str(&entry)).transpose()?,
        unread: unread.unwrap_or_default(),
        last_message: messages(connection, organization, streams, None, 1)?.pop(),
    }))
}

fn enablement(connection: &Connection, organization: &str, user: &str) -> Result<Enablement, ModelError> {
    let fold: Option<String> = connection
        .prepare_cached("SELECT fold FROM users WHERE organization = ? AND user_id = ?")?
        .query_row([organization, user], |row| row.get(0))
        .optional()?;
    Ok(fold.map(|fold| serde_json::from_str(&fold)).transpose()?.unwrap_or_default())
}

/// The streams of a user's conversations: those of contacts and those written in, with all that is linked to them.
const OF_USER: &str = "WITH RECURSIVE whose(organization, user_id) AS (VALUES (?, ?)), mine(stream) AS (
        SELECT conversation FROM contacts JOIN whose USING (organization, user_id)
        UNION SELECT stream FROM messages JOIN whose USING (organization, user_id)
        UNION SELECT c.stream FROM mine m JOIN conversations c ON c.canonical = m.stream
            AND c.organization = (SELECT organization FROM whose)
        UNION SELECT c.canonical FROM mine m JOIN conversations c ON c.stream = m.stream
            AND c.organization = (SELECT organization FROM whose))
    SELECT stream FROM mine";

type Found = (u32, i64, StoredEvent);

fn event(row: &Row<'_>) -> rusqlite::Result<(Found, String)> {
    let event = StoredEvent {
        cursor: String::new(),
        stream_id: row.get(2)?,
        event_type: row.get(3)?,
        event_id: row.get(4)?,
        occurred_at: row.get(5)?,
        recorded_at: row.get(6)?,
        command_id: row.get(7)?,
        data: serde_json::Value::Null,
    };
    Ok(((row.get(0)?, row.get(1)?, event), row.get(8)?))
}

/// Events behind a cursor: in each partition in the order of the log, the partitions merged by `recorded_at`. The merge depends on
/// nothing but the log, so pages of different replicas fit together.
fn events(connection: &Connection, query: &EventQuery) -> Result<Vec<StoredEvent>, ModelError> {
    let organization = query.organization.as_str();
    let streams = match &query.scope {
        Scope::Organization => Vec::new(),
        Scope::Conversation(id) => streams(connection, organization, id.as_str())?,
        Scope::Stream(id) => vec![id.0.clone()],
        Scope::User { user, own } => vec![own.0.clone(), organization.to_owned(), user.0.clone()],
    };
    let among = match &query.scope {
        Scope::Organization => String::new(),
        Scope::User { .. } => format!("AND (stream = ? OR stream IN ({OF_USER}))"),
        Scope::Conversation(_) | Scope::Stream(_) if streams.is_empty() => return Ok(Vec::new()),
        Scope::Conversation(_) | Scope::Stream(_) => format!("AND stream IN ({})", marks(streams.len())),
    };
    let of_all = with(organization, &streams);
    let partitions: Vec<u32> = connection
        .prepare_cached("SELECT partition FROM offsets")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT partition, position, stream, type, event_id, occurred_at, recorded_at, command_id, data FROM events
         WHERE organization = ? {among} AND partition = CAST(? AS INTEGER) AND position >= CAST(? AS INTEGER)
         ORDER BY position LIMIT CAST(? AS INTEGER)"
    );
    let mut queues = Vec::new();
    for partition in partitions {
        let bounds = [partition.to_string(), query.after.next(partition).0.to_string(), query.limit.to_string()];
        let values = of_all.iter().copied().chain(bounds.iter().map(String::as_str));
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), event)?.collect::<Result<Vec<_>, _>>()?;
        queues.push(rows.into_iter().peekable());
    }
    let mut cursor = query.after.clone();
    let mut merged = Vec::new();
    while merged.len() < query.limit {
        let heads = queues.iter_mut().enumerate();
        let first = heads
            .filter_map(|(at, queue)| {
                queue.peek().map(|((partition, _, event), _)| (event.recorded_at, *partition, at))
            })
            .min();
        let Some(((partition, position, mut event), data)) =
            first.and_then(|(_, _, at)| queues.get_mut(at)).and_then(Iterator::next)
        else {
            break;
        };
        cursor.pass(partition, Offset(position));
        event.cursor = cursor.to_string();
        event.data = serde_json::from_str(&data)?;
        merged.push(event);
    }
    Ok(merged)
}

#[async_trait]
impl ReadModel for SqliteModel {
    async fn apply(&self, changes: Vec<Change>) -> Result<(), ModelError> {
        self.write(move |connection| {
            let transaction = connection.unchecked_transaction()?;
            for change in &changes {
                fold::apply(&transaction, change)?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    async fn positions(&self) -> Result<Cursor, ModelError> {
        self.look(|connection| {
            let mut statement = connection.prepare_cached("SELECT partition, next FROM offsets")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, Offset(row.get(1)?))))?;
            Ok(Cursor(rows.collect::<Result<_, _>>()?))
        })
        .await
    }

    async fn reset(&self) -> Result<(), ModelError> {
        let (stream_key, damaged) = (self.stream_key.clone(), self.damaged.load(Ordering::Relaxed));
        self.write(move |connection| {
            if damaged {
                return Self::begin_anew(connection, &stream_key);
            }
            let delete: String = TABLES.iter().map(|table| format!("DELETE FROM {table};")).collect();
            Ok(connection
                .execute_batch(&format!("BEGIN; {delete} DELETE FROM facts WHERE name <> 'stream_key'; COMMIT;"))?)
        })
        .await?;
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    async fn logs(&self) -> Result<BTreeMap<u32, LogId>, ModelError> {
        self.look(|connection| {
            let mut statement = connection.prepare_cached("SELECT name, value FROM facts WHERE name LIKE 'log/%'")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let mut logs = BTreeMap::new();
            for row in rows {
                let (name, id) = row?;
                let partition = name.strip_prefix("log/").and_then(|partition| partition.parse().ok());
                logs.extend(partition.map(|partition| (partition, LogId::from(id))));
            }
            Ok(logs)
        })
        .await
    }

    async fn keep_log(&self, partition: u32, log: &LogId) -> Result<(), ModelError> {
        let (name, id) = (format!("log/{partition}"), log.as_str().to_owned());
        self.write(move |connection| {
            connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)", [name, id])?;
            Ok(())
        })
        .await
    }

    async fn conversations(
        &self,
        organization: &OrganizationId,
        user: &UserId,
        limit: usize,
    ) -> Result<Vec<Summary>, ModelError> {
        let (of, organization, user) = (organization, organization.0.clone(), user.0.clone());
        self.read(of, move |connection| {
            let mut summaries = Vec::with_capacity(limit);
            for streams in listing::latest(connection, &organization, &user, limit)? {
                summaries.extend(summary(connection, &organization, &user, &streams)?);
            }
            Ok(summaries)
        })
        .await
    }

    async fn view(
        &self,
        organization: &OrganizationId,
        user: &UserId,
        conversation: &StreamId,
    ) -> Result<Option<View>, ModelError> {
        let of = organization;
        let (organization, user, conversation) = (organization.0.clone(), user.0.clone(), conversation.0.clone());
        self.read(of, move |connection| {
            let streams = streams(connection, &organization, &conversation)?;
            let Some(found) = summary(connection, &organization, &user, &streams)? else { return Ok(None) };
            let situation = Situation {
                enablement: enablement(connection, &organization, &user)?,
                is_contact: found.contact.is_some(),
                conversation: found.fold.clone(),
            };
            let concerned = concerns(connection, &organization, &user, &streams)?;
            Ok(Some(View { situation, summary: concerned.then_some(found) }))
        })
        .await
    }

    async fn canonical(
        &self,
        organization: &OrganizationId,
        user: Option<&UserId>,
        conversation: &StreamId,
    ) -> Result<Option<StreamId>, ModelError> {
        let (of, organization, conversation) = (organization, organization.0.clone(), conversation.0.clone());
        let user = user.map(|user| user.0.clone());
        self.read(of, move |connection| {
            let streams = streams(connection, &organization, &conversation)?;
            if let Some(user) = user
                && !streams.is_empty()
                && !concerns(connection, &organization, &user, &streams)?
            {
                return Ok(None);
            }
            Ok(streams.into_iter().next().map(StreamId))
        })
        .await
    }

    async fn holder(
        &self,
        organization: &OrganizationId,
        identity: &StreamId,
        at: Timestamp,
    ) -> Result<StreamId, ModelError> {
        let (of, organization, identity) = (organization, organization.0.clone(), identity.clone());
        self.read(of, move |connection| holder(connection, &organization, &identity, at)).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, ModelError> {
        let question = query.clone();
        self.read(&query.organization, move |connection| events(connection, &question)).await
    }

    async fn messages(
        &self,
        organization: &OrganizationId,
        conversation: &StreamId,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Message>, ModelError> {
        let (of, organization, conversation) = (organization, organization.0.clone(), conversation.0.clone());
        self.read(of, move |connection| {
            let streams = streams(connection, &organization, &conversation)?;
            messages(connection, &organization, &streams, before, limit)
        })
        .await
    }

    async fn outcome(&self, organization: &OrganizationId, command: CommandId) -> Result<Option<Outcome>, ModelError> {
        let (of, organization, command) = (organization, organization.0.clone(), command.to_string());
        self.read(of, move |connection| fold::outcome(connection, &organization, &command)).await
    }

    async fn answers(&self, organization: &OrganizationId, command: CommandId) -> Result<Vec<EventId>, ModelError> {
        let (of, organization, command) = (organization, organization.0.clone(), command.to_string());
        self.read(of, move |connection| {
            let Some(outcome) = fold::outcome(connection, &organization, &command)? else { return Ok(Vec::new()) };
            let mut statement = connection.prepare_cached(
                "SELECT event_id FROM events WHERE organization = ? AND stream = ? AND command_id = ?
                 AND COALESCE(json_extract(data, '$.reason'), '') <> ?",
            )?;
            let conflict = Reason::Conflict.as_str();
            let ids = statement
                .query_map([&organization, &outcome.stream_id, &command, conflict], |row| row.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
        })
        .await
    }

    async fn enablement(&self, organization: &OrganizationId, user: &UserId) -> Result<Enablement, ModelError> {
        let (of, organization, user) = (organization, organization.0.clone(), user.0.clone());
        self.read(of, move |connection| enablement(connection, &organization, &user)).await
    }
}
