//! What every process of the fleet has to be told.

use std::net::SocketAddr;
use std::time::Duration;

use connector_contracts::Topics;
use connector_domain::consent::MOST_ASKS;
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::gate::MAX_TAG;
use connector_settings::{Group, Kind, Reader, Variable};

const INSTANCE: Variable = Variable::with_default(
    "INSTANCE",
    Kind::Text,
    "0",
    "Name of this instance, stable over a restart and unlike any other instance's of the same service (the pod's name). A \
     restarted instance takes its partitions and its open transaction over at once.",
);
const ADMIN_LISTEN: Variable = Variable::with_default(
    "ADMIN_LISTEN",
    Kind::Address,
    "127.0.0.1:0",
    "Where /livez, /readyz and /metrics are served. Port 0 takes a free one and logs it.",
);
const TOPIC_PREFIX: Variable =
    Variable::optional("TOPIC_PREFIX", Kind::Text, "Stands in front of every topic name, with a dot between them.");
const PARTITIONS: Variable = Variable::with_default(
    "PARTITIONS",
    Kind::Number,
    "6",
    "Partitions of the topics. For ever: the key decides the partition. Production: 60. A topic with another count is refused.",
);
const STREAM_KEY_ID: Variable = Variable::with_default(
    "STREAM_KEY_ID",
    Kind::Text,
    "k1",
    "Names the stream secret (up to 16 of a to z and 0 to 9); stands in front of every conversation id.",
);
const STREAM_SECRET: Variable = Variable::required(
    "STREAM_SECRET",
    Kind::Text,
    "The secret that turns phone numbers into conversation ids, 32 bytes or more. The same for every process, for ever: with another \
     one the connector does not find its conversations again, and does not start.",
)
.secret();
const WINDOW_LENGTH: Variable = Variable::with_default(
    "WINDOW_LENGTH",
    Kind::Duration,
    "24h",
    "Length of the customer service window. WhatsApp's is 24 hours; a demo shortens it. Deadlines stand in events, so a change \
     concerns new windows only.",
);
const WINDOW_MARGIN: Variable = Variable::with_default(
    "WINDOW_MARGIN",
    Kind::Duration,
    "60s",
    "Free-form sends stop this long before the deadline: clocks differ and requests take time.",
);
const WINDOW_CLOSING_SOON: Variable = Variable::with_default(
    "WINDOW_CLOSING_SOON",
    Kind::List,
    "1h",
    "Leads at which WindowClosingSoon is published, separated by commas.",
);
const OPT_IN_ANSWER: Variable = Variable::with_default(
    "OPT_IN_ANSWER",
    Kind::Duration,
    "7d",
    "An opt-in request ends without an answer after this long.",
);
const OPT_IN_LIMIT: Variable = Variable::with_default(
    "OPT_IN_LIMIT",
    Kind::Number,
    "3",
    "A contact is asked for the opt-in this often within OPT_IN_PERIOD, 1 to 16. Requests that never left do not count.",
);
const OPT_IN_PERIOD: Variable = Variable::with_default(
    "OPT_IN_PERIOD",
    Kind::Duration,
    "30d",
    "The period of OPT_IN_LIMIT, back from each request.",
);
const MARKETING_HOLD: Variable = Variable::with_default(
    "MARKETING_HOLD",
    Kind::Duration,
    "24h",
    "Marketing templates to a contact are refused this long after WhatsApp refused one for now (131049, 130472).",
);
const COMMAND_LIFE: Variable = Variable::with_default(
    "COMMAND_LIFE",
    Kind::Duration,
    "24h",
    "How long a send command without not_after may wait.",
);
const UNCONFIRMED_WAIT: Variable = Variable::with_default(
    "UNCONFIRMED_WAIT",
    Kind::Duration,
    "15m",
    "How long an attempt whose answer got lost waits for a status before an at_least_once command is sent once more.",
);
const DRAIN: Variable = Variable::with_default(
    "DRAIN",
    Kind::Duration,
    "25s",
    "How long the process may take to end after SIGTERM. A second signal ends it at once.",
);

/// HMAC-SHA-256 is worth as much as its key, up to this.
const SHORTEST_SECRET: usize = 32;

/// It stands in every stream id.
const LONGEST_KEY_ID: usize = 16;

/// Kafka takes names of 249 bytes; the longest of ours has 35, and a transactional id has the prefix, too.
const LONGEST_PREFIX: usize = 200;

/// A timer's tag tells them apart.
const MOST_LEADS: usize = MAX_TAG as usize;

/// The common settings.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Name of this instance.
    pub instance: String,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// Topic names.
    pub topics: Topics,
    /// Partitions of the topics.
    pub partitions: u32,
    /// The secret behind stream ids.
    pub keys: StreamKeys,
    /// The numbers the rules depend on.
    pub rules: Rules,
    /// Bound of the shutdown.
    pub drain: Duration,
}

impl HostConfig {
    /// The variables this reads, for the reference page.
    pub const GROUP: Group = Group {
        title: "Every process",
        doc: "What all services must be told alike.",
        used_by: &["every service", "connector"],
        variables: &[
            INSTANCE,
            ADMIN_LISTEN,
            TOPIC_PREFIX,
            PARTITIONS,
            STREAM_KEY_ID,
            STREAM_SECRET,
            WINDOW_LENGTH,
            WINDOW_MARGIN,
            WINDOW_CLOSING_SOON,
            OPT_IN_ANSWER,
            OPT_IN_LIMIT,
            OPT_IN_PERIOD,
            MARKETING_HOLD,
            COMMAND_LIFE,
            UNCONFIRMED_WAIT,
            DRAIN,
        ],
    };

    /// Reads it; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let instance = reader.text(&INSTANCE);
        let admin = reader.address(&ADMIN_LISTEN);
        let prefix = reader.text(&TOPIC_PREFIX).unwrap_or_default();
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(of_a_name) || prefix.starts_with('.') {
            reader.problem(
                &TOPIC_PREFIX,
                "is no beginning of a topic's name; expected up to 200 letters, digits, dots, hyphens and underscores",
            );
        }
        let topics = Topics::new(&prefix);
        let partitions = reader.number_in(&PARTITIONS, 1_u32..=10_000);
        let key_id = reader.text(&STREAM_KEY_ID);
        let of_an_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if key_id.as_ref().is_some_and(|id| id.len() > LONGEST_KEY_ID || !id.bytes().all(of_an_id)) {
            reader.problem(&STREAM_KEY_ID, "is no name of a secret; expected up to 16 of a to z and 0 to 9");
        }
        let secret = reader.secret(&STREAM_SECRET);
        if secret.as_ref().is_some_and(|secret| secret.expose().len() < SHORTEST_SECRET) {
            reader.problem(&STREAM_SECRET, "is too short to keep phone numbers secret; expected 32 bytes or more");
        }
        let rules = rules(reader);
        let drain = reader.duration(&DRAIN);
        Some(Self {
            instance: instance?,
            admin: admin?,
            topics,
            partitions: partitions?,
            keys: StreamKeys::new(&key_id?, secret?.expose().as_bytes()),
            rules: rules?,
            drain: drain?,
        })
    }
}

/// The numbers the rules depend on; `None` leaves a problem behind in the reader.
pub fn rules(reader: &mut Reader<'_>) -> Option<Rules> {
    let window = reader.duration(&WINDOW_LENGTH);
    let margin = reader.duration_or_zero(&WINDOW_MARGIN);
    let leads = reader.list(&WINDOW_CLOSING_SOON);
    let opt_in_answer = reader.duration(&OPT_IN_ANSWER);
    let opt_in_limit = reader.number_in(&OPT_IN_LIMIT, 1..=MOST_ASKS);
    let opt_in_period = reader.duration(&OPT_IN_PERIOD);
    let marketing_hold = reader.duration(&MARKETING_HOLD);
    let command_life = reader.duration(&COMMAND_LIFE);
    let unconfirmed_wait = reader.duration(&UNCONFIRMED_WAIT);
    let mut closing_soon = Vec::new();
    for lead in leads.iter().flatten() {
        match connector_settings::parse_duration(lead) {
            Some(lead) if lead.is_zero() || window.is_some_and(|window| lead >= window) => {
                reader.problem(
                    &WINDOW_CLOSING_SOON,
                    "has a lead that is no part of the window; expected more than nothing and less than WINDOW_LENGTH",
                );
            }
            Some(lead) if closing_soon.contains(&lead) => {
                reader.problem(&WINDOW_CLOSING_SOON, "has a lead twice; expected each once");
            }
            Some(lead) => closing_soon.push(lead),
            None => reader.problem(&WINDOW_CLOSING_SOON, "expects durations such as 1h,15m"),
        }
    }
    if closing_soon.len() > MOST_LEADS {
        reader.problem(&WINDOW_CLOSING_SOON, format!("has too many leads; expected {MOST_LEADS} at most"));
    }
    if let (Some(window), Some(margin)) = (window, margin)
        && margin >= window
    {
        reader.problem(&WINDOW_MARGIN, "must be shorter than WINDOW_LENGTH");
    }
    leads?;
    Some(Rules {
        window: window?,
        margin: margin?,
        closing_soon,
        opt_in_answer: opt_in_answer?,
        opt_in_limit: opt_in_limit?,
        opt_in_period: opt_in_period?,
        marketing_hold: marketing_hold?,
        command_life: command_life?,
        unconfirmed_wait: unconfirmed_wait?,
    })
}
