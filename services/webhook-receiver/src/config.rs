//! What the receiver can be told.

use std::net::SocketAddr;
use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Secret, Variable};
use connector_whatsapp::signature::Verifier;

use crate::SERVICE;

const LISTEN: Variable =
    Variable::with_default("WEBHOOK_LISTEN", Kind::Address, "127.0.0.1:8081", "Where Meta's webhooks arrive.");
const PATH: Variable = Variable::with_default(
    "WEBHOOK_PATH",
    Kind::Text,
    "/webhooks",
    "The path of the callback URL. It begins with a slash.",
);
const VERIFY_TOKEN: Variable = Variable::optional(
    "WEBHOOK_VERIFY_TOKEN",
    Kind::Text,
    "The token Meta shows when the callback URL is set up. Without it no set-up is confirmed.",
)
.secret();
const APP_SECRET: Variable = Variable::optional(
    "WHATSAPP_APP_SECRET",
    Kind::Text,
    "The app secret that deliveries are signed with. Without it nothing is believed, and Meta is asked to come again.",
)
.secret();
const APP_SECRET_PREVIOUS: Variable = Variable::optional(
    "WHATSAPP_APP_SECRET_PREVIOUS",
    Kind::Text,
    "The former app secret, while it is being rotated: deliveries signed with either are believed.",
)
.secret();
const MAX_BODY: Variable = Variable::with_default(
    "WEBHOOK_MAX_BODY_BYTES",
    Kind::Number,
    "3145728",
    "Largest delivery that is taken: Meta sends up to 3 MiB. An item of it must fit into a record (4 MiB).",
);
const MEMORY: Variable = Variable::with_default(
    "WEBHOOK_MEMORY_BYTES",
    Kind::Number,
    "134217728",
    "Memory for deliveries, taken as their bytes arrive; at work each has three times its size, and at least 64 KiB. When it is used up, \
     the body that has been arriving longest is given up, and when there is none the answer is 503.",
);
const CONNECTIONS: Variable = Variable::with_default(
    "WEBHOOK_CONNECTIONS",
    Kind::Number,
    "2048",
    "Connections at a time. For one more, that one is given up whose client keeps it waiting longest.",
);
const HEADER_TIMEOUT: Variable = Variable::with_default(
    "WEBHOOK_HEADER_TIMEOUT",
    Kind::Duration,
    "10s",
    "A client that takes longer for the head of a request, or stays idle for longer, is cut off.",
);
const BODY_TIMEOUT: Variable = Variable::with_default(
    "WEBHOOK_BODY_TIMEOUT",
    Kind::Duration,
    "10s",
    "A client that takes longer for the body of a request is cut off.",
);
const ACK_TIMEOUT: Variable = Variable::with_default(
    "WEBHOOK_ACK_TIMEOUT",
    Kind::Duration,
    "10s",
    "When the broker has not acknowledged a delivery by then the answer is 503, and Meta comes again.",
);
const DRAIN: Variable = Variable::with_default(
    "WEBHOOK_DRAIN_TIMEOUT",
    Kind::Duration,
    "20s",
    "How long accepted requests may take after SIGTERM.",
);

/// What the receiver can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The path of the callback URL.
    pub path: String,
    /// What Meta has to show at set-up.
    pub verify_token: Option<Secret>,
    /// The app secrets.
    pub verifier: Verifier,
    /// Bytes of the largest body.
    pub max_body: usize,
    /// Bytes for deliveries at work.
    pub memory: usize,
    /// Connections at a time.
    pub connections: usize,
    /// For the head of a request.
    pub header_timeout: Duration,
    /// For the body of a request.
    pub body_timeout: Duration,
    /// For the broker.
    pub ack_timeout: Duration,
    /// For accepted requests at the end.
    pub drain: Duration,
}

impl Config {
    /// The variables this reads.
    pub const VARIABLES: &[Variable] = &[
        LISTEN,
        PATH,
        VERIFY_TOKEN,
        APP_SECRET,
        APP_SECRET_PREVIOUS,
        MAX_BODY,
        MEMORY,
        CONNECTIONS,
        HEADER_TIMEOUT,
        BODY_TIMEOUT,
        ACK_TIMEOUT,
        DRAIN,
    ];

    /// The variables, for the reference page.
    pub const GROUP: Group = Group {
        title: "Webhooks",
        doc: "Where Meta delivers, and what is believed. TLS, mutual TLS and address lists are a matter of the proxy in front.",
        used_by: &[SERVICE, "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves problems behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.address(&LISTEN);
        let path = reader.text(&PATH);
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(['{', '}', '?', '#'])) {
            reader.problem(&PATH, "is no path; expected one such as /webhooks");
        }
        let verify_token = reader.secret(&VERIFY_TOKEN);
        let current = reader.secret_source(&APP_SECRET);
        let previous = reader.secret_source(&APP_SECRET_PREVIOUS);
        let max_body = reader.number_in(&MAX_BODY, 1024..=64 * 1024 * 1024);
        let memory = reader.number_in(&MEMORY, 1024 * 1024..=1 << 40);
        let connections = reader.number_in(&CONNECTIONS, 1..=1_000_000);
        let header_timeout = reader.duration(&HEADER_TIMEOUT);
        let body_timeout = reader.duration(&BODY_TIMEOUT);
        let ack_timeout = reader.duration(&ACK_TIMEOUT);
        let drain = reader.duration(&DRAIN);
        if let (Some(max_body), Some(memory)) = (max_body, memory)
            && memory < 3 * max_body
        {
            reader.problem(&MEMORY, "is too small; expected three times WEBHOOK_MAX_BODY_BYTES or more");
        }
        Some(Self {
            listen: listen?,
            path: path?,
            verify_token,
            verifier: Verifier::new(current, previous),
            max_body: max_body?,
            memory: memory?,
            connections: connections?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            ack_timeout: ack_timeout?,
            drain: drain?,
        })
    }
}
