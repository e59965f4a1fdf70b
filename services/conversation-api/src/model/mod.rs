//! The read model: conversations, messages, commands and users as the log tells them, in a form that answers requests.
//!
//! [`ReadModel`] is the port; [`sqlite::SqliteModel`] its adapter. The model holds nothing that is not in the log: it may be
//! deleted at any time and builds itself again. What belongs to one organization is never answered to another (P4): every
//! question names the organization, and every row is stored under one.

pub mod cursor;
pub mod file;
pub mod fold;
pub mod follow;
mod listing;
mod owner;
mod readers;
pub mod sqlite;

use std::collections::BTreeMap;

use async_trait::async_trait;
use connector_domain::composer::Situation;
use connector_domain::conversation::Conversation;
use connector_domain::directory::Enablement;
use connector_domain::event::Recorded;
use connector_domain::ids::{CommandId, EventId, OrganizationId, StreamId, UserId};
use connector_domain::status::MessageState;
use connector_domain::time::Timestamp;
use connector_ports::log::{LogId, Offset};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use cursor::{Cursor, Place};

/// Why the read model does not answer. Nothing the caller can do.
#[derive(Debug, Error)]
pub enum ModelError {
    /// SQLite refuses.
    #[error("the read model's database refused")]
    Database(#[from] rusqlite::Error),
    /// A row cannot be read or written: a mistake of ours, or a damaged file.
    #[error("a row of the read model is not ours")]
    Row(#[from] serde_json::Error),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// The blocking call was cancelled by the end of the process.
    #[error("the read model has ended")]
    Ended,
}

/// One record of the log on its way into the model. `None`: it could not be decoded, only its position counts.
#[derive(Clone, Debug)]
pub struct Change {
    /// Partition of the log.
    pub partition: u32,
    /// Position in it.
    pub offset: Offset,
    /// The event.
    pub recorded: Option<Recorded>,
}

/// An event as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredEvent {
    /// Where reading goes on after this event; see [`Cursor`].
    pub cursor: String,
    /// The event id.
    pub event_id: String,
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The stream it stands in: an alias of the conversation, perhaps.
    pub stream_id: String,
    /// When it happened, milliseconds since 1970.
    pub occurred_at: i64,
    /// When it was written down, milliseconds since 1970.
    pub recorded_at: i64,
    /// The command it is an outcome of.
    pub command_id: Option<String>,
    /// What happened.
    pub data: Value,
}

/// A message in either direction, as the Messages screen shows it (P10).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Where it stands in the history.
    #[serde(skip)]
    pub place: Place,
    /// When it was written down, milliseconds since 1970.
    #[serde(skip)]
    pub recorded_at: i64,
    /// The wamid of a received message, the command id of a sent one.
    pub id: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Meta's type, or `text` and `template` for outbound ones.
    #[serde(rename = "type")]
    pub message_type: String,
    /// What it says, when it says something.
    pub text: Option<String>,
    /// The template call of an outbound template.
    pub template: Option<Value>,
    /// The contact sent something that is not carried (P5).
    pub unsupported: bool,
    /// Who sent it, for outbound ones.
    pub user_id: Option<String>,
    /// When it was sent or accepted, milliseconds since 1970.
    pub occurred_at: i64,
    /// State of an outbound message.
    pub state: Option<MessageState>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Graph error code of a failure.
    pub error_code: Option<i64>,
    /// Meta's id.
    pub wamid: Option<String>,
    /// The message this one answers.
    pub reply_to: Option<String>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The command.
    pub command_id: String,
    /// How far it got.
    pub state: MessageState,
    /// The stream that answered it; the conversation, unless the command had none.
    pub stream_id: String,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// The field at fault of a refused command.
    pub field: Option<String>,
    /// What can be done about a refusal.
    pub remedy: Option<String>,
    /// Graph error code of a failure.
    pub error_code: Option<i64>,
    /// Meta's id of the message.
    pub wamid: Option<String>,
    /// When the last of this became known, milliseconds since 1970.
    pub occurred_at: i64,
}

/// A conversation in the list (P10).
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its id, never an alias.
    pub conversation_id: StreamId,
    /// Its fold.
    pub fold: Conversation,
    /// The contact's entry in the user's list.
    pub contact: Option<Value>,
    /// Messages of the contact since the user last read or wrote.
    pub unread: u32,
    /// The last message in either direction, in the order of the log.
    pub last_message: Option<Message>,
}

impl Summary {
    /// When the last message came or went, milliseconds since 1970. Not later than it was written down, whatever it says itself.
    #[must_use]
    pub fn last_activity(&self) -> Option<i64> {
        self.last_message.as_ref().map(|message| message.occurred_at.min(message.recorded_at))
    }
}

/// A conversation and what the composer of one user needs to know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// What decisions look at.
    pub situation: Situation,
    /// `None` when the user has nothing to do with this conversation.
    pub summary: Option<Summary>,
}

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the organization.
    Organization,
    /// A conversation, its aliases included.
    Conversation(StreamId),
    /// One stream, a user's for example.
    Stream(StreamId),
    /// The conversations of a user, aliases included, and the user's own stream.
    User {
        /// The user.
        user: UserId,
        /// The user's own stream.
        own: StreamId,
    },
}

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Of which organization.
    pub organization: OrganizationId,
    /// Of what in it.
    pub scope: Scope,
    /// Behind which position.
    pub after: Cursor,
    /// At most.
    pub limit: usize,
}

/// The questions of the API. Answers are as new as [`ReadModel::positions`] says.
#[async_trait]
pub trait ReadModel: Send + Sync {
    /// Applies records of the log and moves to behind them, all in one transaction. What was applied before is skipped.
    async fn apply(&self, changes: Vec<Change>) -> Result<(), ModelError>;

    /// The next position in each partition.
    async fn positions(&self) -> Result<Cursor, ModelError>;

    /// Forgets everything: the log is another one than before, or the model is damaged.
    async fn reset(&self) -> Result<(), ModelError>;

    /// Whether it was found damaged. Nothing but [`ReadModel::reset`] helps then.
    fn is_damaged(&self) -> bool;

    /// The logs of which [`ReadModel::positions`] are, as far as they were kept.
    async fn logs(&self) -> Result<BTreeMap<u32, LogId>, ModelError>;

    /// Keeps of which log a partition is.
    async fn keep_log(&self, partition: u32, log: &LogId) -> Result<(), ModelError>;

    /// The conversations with a user's contacts or messages, those whose last message was written down last first.
    async fn conversations(
        &self,
        organization: &OrganizationId,
        user: &UserId,
        limit: usize,
    ) -> Result<Vec<Summary>, ModelError>;

    /// A conversation for a user; `None` when the organization has no such conversation.
    async fn view(
        &self,
        organization: &OrganizationId,
        user: &UserId,
        conversation: &StreamId,
    ) -> Result<Option<View>, ModelError>;

    /// The id under which a conversation continues; `None` when the organization has no such conversation, or when `user` is given
    /// and has nothing to do with it.
    async fn canonical(
        &self,
        organization: &OrganizationId,
        user: Option<&UserId>,
        conversation: &StreamId,
    ) -> Result<Option<StreamId>, ModelError>;

    /// The stream of whoever has the address that a stream follows from at a moment, as far as it is known: that stream, until its number
    /// was handed over (R10).
    async fn holder(
        &self,
        organization: &OrganizationId,
        identity: &StreamId,
        at: Timestamp,
    ) -> Result<StreamId, ModelError>;

    /// Events in order. Order within a partition is that of the log; between aliases in different partitions it is by `recorded_at`.
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, ModelError>;

    /// The last `limit` messages before a place, in the order of the log (see [`Place`]).
    async fn messages(
        &self,
        organization: &OrganizationId,
        conversation: &StreamId,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Message>, ModelError>;

    /// What became of a command; `None` while nothing is known of it.
    async fn outcome(&self, organization: &OrganizationId, command: CommandId) -> Result<Option<Outcome>, ModelError>;

    /// The ids of the events that answered a command, without refusals of other commands under its id.
    async fn answers(&self, organization: &OrganizationId, command: CommandId) -> Result<Vec<EventId>, ModelError>;

    /// The enablement of a user.
    async fn enablement(&self, organization: &OrganizationId, user: &UserId) -> Result<Enablement, ModelError>;
}
