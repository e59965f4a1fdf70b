//! Settings of Redis.

use std::path::PathBuf;
use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Secret, Variable};

const URL: Variable = Variable::required(
    "REDIS_URL",
    Kind::Url,
    "Where Redis is: redis://[user[:password]@]host:port[/database], or rediss:// for TLS. Of a cluster one or more nodes, separated by \
     commas.",
)
.secret();
const PASSWORD: Variable =
    Variable::optional("REDIS_PASSWORD", Kind::Text, "The password, when it does not stand in the URL.").secret();
const CA: Variable = Variable::optional(
    "REDIS_CA_FILE",
    Kind::Path,
    "PEM file of the authorities that may sign the certificate of Redis; the system's when absent. Not for a cluster, which is \
     believed by the system's authorities only (SSL_CERT_FILE names others).",
);
const CERTIFICATE: Variable = Variable::optional(
    "REDIS_CERTIFICATE_FILE",
    Kind::Path,
    "PEM file of our certificate, for mutual TLS. Not for a cluster.",
);
const CERTIFICATE_KEY: Variable = Variable::optional(
    "REDIS_CERTIFICATE_KEY_FILE",
    Kind::Path,
    "PEM file of the key of our certificate (PKCS #8, without a password).",
);
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
    /// PEM file of the accepted authorities; the system's when absent.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How long one call or one attempt to connect may take.
    pub timeout: Duration,
    /// Stands before every key.
    pub prefix: String,
}

impl RedisConfig {
    /// Every variable of this concern.
    pub const VARIABLES: &'static [Variable] =
        &[URL, CLUSTER, PASSWORD, CA, CERTIFICATE, CERTIFICATE_KEY, TIMEOUT, PREFIX];

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
            ca: None,
            certificate: None,
            timeout: Duration::from_secs(2),
            prefix: "whatsapp-connector".to_owned(),
        }
    }

    /// Reads the settings; problems stay with the reader.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.secret(&URL);
        let cluster = reader.flag(&CLUSTER);
        if let Some(url) = &url {
            let nodes: Vec<&str> = url.expose().split(',').map(str::trim).collect();
            if nodes.iter().all(|node| reader.has_scheme(&URL, node, &["redis", "rediss"])) {
                if nodes.len() > 1 && cluster == Some(false) {
                    reader.problem(&URL, "names several nodes; expected one, or REDIS_CLUSTER=true");
                }
                if nodes.iter().any(|node| node.starts_with("rediss://") != nodes[0].starts_with("rediss://")) {
                    reader.problem(&URL, "names nodes with and without TLS; expected all alike");
                }
            }
        }
        let password = reader.secret(&PASSWORD);
        let ca = reader.file(&CA);
        let certificate = reader.file(&CERTIFICATE).zip(reader.file(&CERTIFICATE_KEY));
        if reader.is_set(&CERTIFICATE) != reader.is_set(&CERTIFICATE_KEY) {
            reader.problem(&CERTIFICATE, "and REDIS_CERTIFICATE_KEY_FILE belong together; expected both or none");
        }
        for variable in [&CA, &CERTIFICATE].into_iter().filter(|variable| reader.is_set(variable)).collect::<Vec<_>>() {
            if cluster == Some(true) {
                reader.problem(
                    variable,
                    "cannot be used with REDIS_CLUSTER; expected the authority among the system's (SSL_CERT_FILE)",
                );
            } else if url.as_ref().is_some_and(|url| !url.expose().starts_with("rediss://")) {
                reader.problem(variable, "is set, and REDIS_URL has no TLS; expected a URL that begins with rediss://");
            }
        }
        let timeout = reader.duration(&TIMEOUT);
        let prefix = reader.text(&PREFIX);
        if prefix.as_ref().is_some_and(|prefix| prefix.contains(['{', '}'])) {
            reader.problem(&PREFIX, "contains a brace; expected none, they decide where a cluster keeps a key");
        }
        Some(Self { url: url?, cluster: cluster?, password, ca, certificate, timeout: timeout?, prefix: prefix? })
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
        for (url, told) in [
            ("http://redis:6379", "REDIS_URL: cannot be reached by \"http\"; expected redis:// or rediss://"),
            ("redis://a:1,redis://b:1", "REDIS_URL: names several nodes"),
        ] {
            let problems = connector_settings::load(&[("REDIS_URL", url)], RedisConfig::read).expect_err(url);
            assert!(problems.to_string().contains(told), "{problems}");
        }
        let nothing: [(&str, &str); 0] = [];
        let problems = connector_settings::load(&nothing, RedisConfig::read).unwrap_err();
        assert!(problems.to_string().contains("REDIS_URL: is missing (or REDIS_URL_FILE)"), "{problems}");
    }

    #[test]
    fn certificates_are_for_one_redis_with_tls() {
        let told = |settings: &[(&'static str, &'static str)]| {
            let settings: std::collections::HashMap<String, String> =
                settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            connector_settings::load(&settings, RedisConfig::read).expect_err("nobody can use these").to_string()
        };
        let missing = told(&[("REDIS_URL", "rediss://redis"), ("REDIS_CA_FILE", "/nowhere/ca.pem")]);
        assert!(missing.contains("REDIS_CA_FILE: the file /nowhere/ca.pem cannot be read"), "{missing}");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let plain = told(&[("REDIS_URL", "redis://redis"), ("REDIS_CA_FILE", file), ("REDIS_CERTIFICATE_FILE", file)]);
        assert!(plain.contains("REDIS_CA_FILE: is set, and REDIS_URL has no TLS"), "{plain}");
        assert!(plain.contains("REDIS_CERTIFICATE_FILE: and REDIS_CERTIFICATE_KEY_FILE belong together"), "{plain}");
        let cluster =
            told(&[("REDIS_URL", "rediss://a,rediss://b"), ("REDIS_CLUSTER", "true"), ("REDIS_CA_FILE", file)]);
        assert!(cluster.contains("REDIS_CA_FILE: cannot be used with REDIS_CLUSTER"), "{cluster}");
    }
}
