//! Settings of Redis.

use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Secret, Variable};

const URL: Variable = Variable::required(
    "REDIS_URL",
    Kind::Url,
    "Where Redis is: redis://[user[:password]@]host:port[/database], or rediss:// for TLS with the system's authorities. Of a cluster \
     one or more nodes, separated by commas.",
)
.secret();
const PASSWORD: Variable =
    Variable::optional("REDIS_PASSWORD", Kind::Text, "The password, when it does not stand in the URL.").secret();
const CLUSTER: Variable =
    Variable::with_default("REDIS_CLUSTER", Kind::Flag, "false", "Whether REDIS_URL names nodes of a Redis Cluster.");
const TIMEOUT: Variable = Variable::with_default(
    "REDIS_TIMEOUT",
    Kind::Duration,
    "2s",
    "How long one call, or one attempt to connect, may take. After that the gate counts as away, and the call is repeated.",
);
const PREFIX: Variable = Variable::with_default(
    "REDIS_KEY_PREFIX",
    Kind::Text,
    "whatsapp-connector",
    "Stands before every key, so that others can use the same Redis.",
);

/// How to reach Redis and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://…` or `rediss://…`.
    pub url: Secret,
    /// Whether the URL names nodes of a cluster, separated by commas.
    pub cluster: bool,
    /// The password, when it is not in the URL.
    pub password: Option<Secret>,
    /// How long one call or one attempt to connect may take.
    pub timeout: Duration,
    /// Stands before every key.
    pub prefix: String,
}

impl RedisConfig {
    /// Every variable of this concern.
    pub const VARIABLES: &'static [Variable] = &[URL, CLUSTER, PASSWORD, TIMEOUT, PREFIX];

    /// For the reference page.
    pub const GROUP: Group = Group {
        title: "Redis",
        doc: "The gate: projections of the log that workers share, timers and limiters. Not read with the embedded backend.",
        used_by: &[],
        variables: Self::VARIABLES,
    };

    /// A config for this URL, everything else at its default.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: Secret::new(url),
            cluster: false,
            password: None,
            timeout: Duration::from_secs(2),
            prefix: "whatsapp-connector".to_owned(),
        }
    }

    /// Reads the settings; problems stay with the reader.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.secret(&URL);
        let cluster = reader.flag(&CLUSTER);
        let password = reader.secret(&PASSWORD);
        let timeout = reader.duration(&TIMEOUT);
        let prefix = reader.text(&PREFIX);
        if prefix.as_ref().is_some_and(|prefix| prefix.contains(['{', '}'])) {
            reader.problem(&PREFIX, "contains a brace; expected none, they decide where a cluster keeps a key");
        }
        Some(Self { url: url?, cluster: cluster?, password, timeout: timeout?, prefix: prefix? })
    }
}

#[cfg(test)]
mod tests {
    use super::RedisConfig;

    #[test]
    fn the_url_is_a_secret_and_needed() {
        let config = connector_settings::load(&[("REDIS_URL", "redis://:hunter2@redis:6379/0")], RedisConfig::read);
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        assert!(config.is_ok());
        let nothing: [(&str, &str); 0] = [];
        let problems = connector_settings::load(&nothing, RedisConfig::read).unwrap_err();
        assert!(problems.to_string().contains("REDIS_URL: is missing (or REDIS_URL_FILE)"), "{problems}");
    }
}
