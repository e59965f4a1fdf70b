//! The settings of the API.

use std::net::SocketAddr;
use std::path::PathBuf;

use connector_host::server::Limits;
use connector_settings::{Group, Kind, Reader, SecretSource, Variable};

use crate::http::auth;

const LISTEN: Variable = Variable::with_default(
    "CONVERSATION_API_LISTEN",
    Kind::Address,
    "127.0.0.1:8080",
    "Where the HTTP API listens. TLS is the business of whatever stands in front of it.",
);
const TOKENS: Variable = Variable::required(
    "API_TOKENS",
    Kind::Text,
    "Who may use the API: a JSON object {\"<token>\": \"<organization id>\"}. A token sees its organization only.",
)
.secret();
const OPERATOR_TOKENS: Variable = Variable::optional(
    "OPERATOR_TOKENS",
    Kind::Text,
    "Who may assign numbers and accounts by HTTP: a JSON object {\"<token>\": \"<operator>\"}. Without it that is done by connectorctl.",
)
.secret();
const READ_MODEL_PATH: Variable = Variable::optional(
    "READ_MODEL_PATH",
    Kind::Path,
    "The SQLite file of the read model. Without it the read model is in memory and is built from the log at every start.",
);

const CONNECTIONS: Variable = Variable::with_default(
    "CONVERSATION_API_CONNECTIONS",
    Kind::Number,
    "1024",
    "Connections at a time, streams included. For one more, that one is given up which is idle longest.",
);
const HEADER_TIMEOUT: Variable = Variable::with_default(
    "CONVERSATION_API_HEADER_TIMEOUT",
    Kind::Duration,
    "10s",
    "A client that takes longer for the head of a request, or stays idle for longer, is cut off.",
);

/// What is specific to the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// JSON of tokens and organizations; read again when its file changes.
    pub tokens: SecretSource,
    /// JSON of tokens and operators; read again when its file changes.
    pub operators: Option<SecretSource>,
    /// The read model's file; `None`: in memory.
    pub read_model: Option<PathBuf>,
    /// Of the HTTP server.
    pub limits: Limits,
}

impl Config {
    /// The variables this reads, for the reference page.
    pub const GROUP: Group = Group {
        title: "Conversation API",
        doc: "The HTTP API for commands, conversations, templates and live updates, and its read model.",
        used_by: &["conversation-api", "connector"],
        variables: &[LISTEN, TOKENS, OPERATOR_TOKENS, READ_MODEL_PATH, CONNECTIONS, HEADER_TIMEOUT],
    };

    /// Reads it; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.address(&LISTEN);
        let tokens = reader.secret_source(&TOKENS);
        if let Some(Ok(secret)) = tokens.as_ref().map(SecretSource::current)
            && auth::parse(secret.expose()).is_none()
        {
            reader.problem(
                &TOKENS,
                "expected a JSON object {\"<token>\": \"<organization id>\"} with at least one token",
            );
        }
        let operators = if reader.is_set(&OPERATOR_TOKENS) { reader.secret_source(&OPERATOR_TOKENS) } else { None };
        if let Some(Ok(secret)) = operators.as_ref().map(SecretSource::current)
            && auth::parse(secret.expose()).is_none()
        {
            reader.problem(
                &OPERATOR_TOKENS,
                "expected a JSON object {\"<token>\": \"<operator>\"} with at least one token",
            );
        }
        let read_model = if reader.is_set(&READ_MODEL_PATH) { reader.path(&READ_MODEL_PATH) } else { None };
        let connections = reader.number_in(&CONNECTIONS, 1..=1_000_000);
        let header_timeout = reader.duration(&HEADER_TIMEOUT);
        let limits = Limits { connections: connections?, header_timeout: header_timeout?, ..Limits::default() };
        Some(Self { listen: listen?, tokens: tokens?, operators, read_model, limits })
    }
}
