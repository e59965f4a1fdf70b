//! Where the Graph API is, and how long it may take.

use std::time::Duration;

use connector_settings::{Group, Kind, Reader, SecretSource, Variable};

const BASE_URL: Variable = Variable::with_default(
    "GRAPH_BASE_URL",
    Kind::Url,
    "https://graph.facebook.com",
    "Where the Graph API is, without a version. The simulator has its own.",
);
const VERSION: Variable = Variable::with_default(
    "GRAPH_VERSION",
    Kind::Text,
    "v26.0",
    "Version of the Graph API, a segment of the path. Meta removes versions after about two years.",
);
const TOKEN: Variable = Variable::required(
    "GRAPH_TOKEN",
    Kind::Text,
    "Access token with whatsapp_business_messaging and whatsapp_business_management. A file is read again when it changes.",
)
.secret();
const TIMEOUT: Variable = Variable::with_default(
    "GRAPH_TIMEOUT",
    Kind::Duration,
    "10s",
    "How long one request may take, connecting and reading the answer included. A send without an answer stays unconfirmed.",
);
const CONNECT_TIMEOUT: Variable = Variable::with_default(
    "GRAPH_CONNECT_TIMEOUT",
    Kind::Duration,
    "3s",
    "How long connecting may take. Nothing has been sent when it runs out.",
);
const POOL_SIZE: Variable = Variable::with_default(
    "GRAPH_POOL_SIZE",
    Kind::Number,
    "32",
    "How many idle connections are kept for the next request.",
);
const POOL_IDLE: Variable = Variable::with_default(
    "GRAPH_POOL_IDLE",
    Kind::Duration,
    "15s",
    "How long an idle connection is kept. Shorter than the server keeps it: a send on a connection that the server is just \
     closing ends as unconfirmed.",
);

/// The variables of this concern.
pub const GRAPH: Group = Group {
    title: "Graph API",
    doc: "How WhatsApp's Cloud API is reached.",
    used_by: &["outbound-sender", "template-catalog", "conversation-api", "connector"],
    variables: &[BASE_URL, VERSION, TOKEN, TIMEOUT, CONNECT_TIMEOUT, POOL_SIZE, POOL_IDLE],
};

/// How the Graph API is reached.
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// Scheme, host and perhaps a path, without a slash at the end.
    pub base_url: String,
    /// `vNN.N`
    pub version: String,
    /// The access token; asked for at every request.
    pub token: SecretSource,
    /// The whole request.
    pub timeout: Duration,
    /// Connecting.
    pub connect_timeout: Duration,
    /// Idle connections kept per host.
    pub pool_size: usize,
    /// How long they are kept.
    pub pool_idle: Duration,
}

impl GraphConfig {
    /// Reads the variables of [`GRAPH`]; `None` leaves problems in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let base_url = reader.url_with(&BASE_URL, &["https", "http"]);
        let version = reader.text(&VERSION);
        let token = reader.secret_source(&TOKEN);
        let timeout = reader.duration(&TIMEOUT);
        let connect_timeout = reader.duration(&CONNECT_TIMEOUT);
        let pool_size = reader.number(&POOL_SIZE);
        let pool_idle = reader.duration(&POOL_IDLE);
        if let Some(version) = &version
            && !is_version(version)
        {
            reader.problem(&VERSION, "expected a version such as v26.0");
        }
        if let Some(url) = &base_url
            && url.contains(['?', '#'])
        {
            reader.problem(&BASE_URL, "has a query or a fragment; expected scheme, host and perhaps a path");
        }
        Some(Self {
            base_url: base_url?,
            version: version?,
            token: token?,
            timeout: timeout?,
            connect_timeout: connect_timeout?,
            pool_size: pool_size?,
            pool_idle: pool_idle?,
        })
    }
}

fn is_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('v').and_then(|rest| rest.split_once('.')).is_some_and(|(a, b)| digits(a) && digits(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_settings::load;

    #[test]
    fn only_the_token_has_to_be_set() {
        let config = load(&[("GRAPH_TOKEN", "t")], GraphConfig::from).unwrap();
        assert_eq!((config.base_url.as_str(), config.version.as_str()), ("https://graph.facebook.com", "v26.0"));
        assert_eq!(config.timeout, Duration::from_secs(10));
        assert!(!format!("{config:?}").contains("\"t\""));
        assert!(load(&[("GRAPH_VERSION", "v26.0")], GraphConfig::from).is_err());
    }

    #[test]
    fn a_version_that_would_be_another_path_is_refused() {
        for version in ["26.0", "v26", "v26.0/me", "v.0", "../v1.0"] {
            let source = [("GRAPH_TOKEN", "t"), ("GRAPH_VERSION", version)];
            assert!(load(&source, GraphConfig::from).is_err(), "{version}");
        }
    }
}
