//! The settings of the API.

use std::net::SocketAddr;
use std::path::PathBuf;

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
const READ_MODEL_PATH: Variable = Variable::optional(
    "READ_MODEL_PATH",
    Kind::Path,
    "The SQLite file of the read model. Without it the read model is in memory and is built from the log at every start.",
);

/// What is specific to the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// JSON of tokens and organizations; read again when its file changes.
    pub tokens: SecretSource,
    /// The read model's file; `None`: in memory.
    pub read_model: Option<PathBuf>,
}

impl Config {
    /// The variables this reads, for the reference page.
    pub const GROUP: Group = Group {
        title: "Conversation API",
        doc: "The HTTP API for commands, conversations, templates and live updates, and its read model.",
        used_by: &["conversation-api", "connector"],
        variables: &[LISTEN, TOKENS, READ_MODEL_PATH],
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
        let read_model = if reader.is_set(&READ_MODEL_PATH) { reader.path(&READ_MODEL_PATH) } else { None };
        Some(Self { listen: listen?, tokens: tokens?, read_model })
    }
}
