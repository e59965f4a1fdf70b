//! Settings of Kafka, and the client configurations made from them.

use std::path::PathBuf;
use std::time::Duration;

use connector_ports::log::{Isolation, MAX_RECORD_BYTES};
use connector_settings::{Group, Kind, Reader, Secret, Variable};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error;

const BOOTSTRAP: Variable = Variable::required(
    "KAFKA_BOOTSTRAP_SERVERS",
    Kind::List,
    "Brokers to connect to first, as host:port. The others are learned from them.",
);
const CLIENT_ID: Variable = Variable::with_default(
    "KAFKA_CLIENT_ID",
    Kind::Text,
    "whatsapp-connector",
    "How the broker names this process in its own logs, metrics and quotas.",
);
const SECURITY: Variable = Variable::with_default(
    "KAFKA_SECURITY_PROTOCOL",
    Kind::Choice(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
    "plaintext",
    "Whether connections are encrypted (ssl) and authenticated by SASL.",
);
const SASL_MECHANISM: Variable = Variable::with_default(
    "KAFKA_SASL_MECHANISM",
    Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
    "SCRAM-SHA-512",
    "How SASL proves who we are.",
);
const SASL_USERNAME: Variable =
    Variable::optional("KAFKA_SASL_USERNAME", Kind::Text, "Who we are; needed with the sasl protocols.");
const SASL_PASSWORD: Variable =
    Variable::optional("KAFKA_SASL_PASSWORD", Kind::Text, "The password of the SASL user.").secret();
const SSL_CA: Variable = Variable::optional(
    "KAFKA_SSL_CA_FILE",
    Kind::Path,
    "PEM file of the authorities that may sign the brokers' certificates; the system's when absent.",
);
const SSL_CERTIFICATE: Variable =
    Variable::optional("KAFKA_SSL_CERTIFICATE_FILE", Kind::Path, "PEM file of our certificate, for mutual TLS.");
const SSL_KEY: Variable =
    Variable::optional("KAFKA_SSL_KEY_FILE", Kind::Path, "PEM file of the key of our certificate.");
const SSL_KEY_PASSWORD: Variable =
    Variable::optional("KAFKA_SSL_KEY_PASSWORD", Kind::Text, "The password of that key.").secret();
const SESSION_TIMEOUT: Variable = Variable::with_default(
    "KAFKA_SESSION_TIMEOUT",
    Kind::Duration,
    "30s",
    "After this silence the group gives a member's partitions away. A restart of a named member within it moves nothing.",
);
const MAX_POLL_INTERVAL: Variable = Variable::with_default(
    "KAFKA_MAX_POLL_INTERVAL",
    Kind::Duration,
    "120s",
    "After this time without a poll a worker counts as stuck and loses its partitions. Also the bound for handing \
     partitions back.",
);
const DELIVERY_TIMEOUT: Variable = Variable::with_default(
    "KAFKA_DELIVERY_TIMEOUT",
    Kind::Duration,
    "8s",
    "How long an append is tried while the broker is away. Must be shorter than the transaction timeout.",
);
const TRANSACTION_TIMEOUT: Variable = Variable::with_default(
    "KAFKA_TRANSACTION_TIMEOUT",
    Kind::Duration,
    "10s",
    "When the broker aborts a transaction whose owner went away. Until then committed readers of its partitions wait.",
);
const REQUEST_TIMEOUT: Variable = Variable::with_default(
    "KAFKA_REQUEST_TIMEOUT",
    Kind::Duration,
    "10s",
    "How long one question (end of a partition, committed offset, a topic) may take.",
);
const PROPERTIES: Variable = Variable::optional(
    "KAFKA_PROP_*",
    Kind::Text,
    "Any other setting of librdkafka, dots written as underscores: KAFKA_PROP_LINGER_MS=2. Those on which correctness \
     rests (acks, idempotence, isolation, partitioner, offsets, group and transaction ids) are refused.",
);

/// What may not be passed through: the contract of the port rests on these.
const OURS: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "message.max.bytes",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// How to reach Kafka and how long to wait for it.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Brokers to connect to first, `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// How the broker names this process.
    pub client_id: String,
    /// Encryption and authentication.
    pub security: Security,
    /// After this silence the group gives a member's partitions away.
    pub session_timeout: Duration,
    /// After this time without a poll a worker counts as stuck.
    pub max_poll_interval: Duration,
    /// How long an append is tried while the broker is away.
    pub delivery_timeout: Duration,
    /// When the broker aborts a transaction whose owner went away.
    pub transaction_timeout: Duration,
    /// How long one question may take.
    pub request_timeout: Duration,
    /// Further settings of librdkafka, by its own names. Some of them are passwords and keys.
    pub properties: Vec<(String, Secret)>,
}

/// Encryption and authentication. `Debug` never shows a secret.
#[derive(Clone, Debug)]
pub struct Security {
    /// librdkafka's `security.protocol`.
    pub protocol: &'static str,
    /// SASL mechanism, user and password.
    pub sasl: Option<(&'static str, String, Secret)>,
    /// PEM file of the accepted authorities.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The password of the key.
    pub key_password: Option<Secret>,
}

impl KafkaConfig {
    /// Every variable of this concern.
    pub const VARIABLES: &'static [Variable] = &[
        BOOTSTRAP,
        CLIENT_ID,
        SECURITY,
        SASL_MECHANISM,
        SASL_USERNAME,
        SASL_PASSWORD,
        SSL_CA,
        SSL_CERTIFICATE,
        SSL_KEY,
        SSL_KEY_PASSWORD,
        SESSION_TIMEOUT,
        MAX_POLL_INTERVAL,
        DELIVERY_TIMEOUT,
        TRANSACTION_TIMEOUT,
        REQUEST_TIMEOUT,
        PROPERTIES,
    ];

    /// For the reference page.
    pub const GROUP: Group = Group {
        title: "Kafka",
        doc: "The log: where Kafka is and how the connector proves who it is. Not read with the embedded backend.",
        used_by: &[],
        variables: Self::VARIABLES,
    };

    /// A config for brokers without encryption, everything else at its default.
    #[must_use]
    pub fn plaintext(bootstrap_servers: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.split(',').map(str::to_owned).collect(),
            client_id: "whatsapp-connector".to_owned(),
            security: Security { protocol: "plaintext", sasl: None, ca: None, certificate: None, key_password: None },
            session_timeout: Duration::from_secs(30),
            max_poll_interval: Duration::from_secs(120),
            delivery_timeout: Duration::from_secs(8),
            transaction_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            properties: Vec::new(),
        }
    }

    /// Reads the settings; problems stay with the reader.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let bootstrap_servers = reader.list(&BOOTSTRAP);
        let client_id = reader.text(&CLIENT_ID);
        let security = read_security(reader);
        let session_timeout = reader.duration(&SESSION_TIMEOUT);
        let max_poll_interval = reader.duration(&MAX_POLL_INTERVAL);
        let delivery_timeout = reader.duration(&DELIVERY_TIMEOUT);
        let transaction_timeout = reader.duration(&TRANSACTION_TIMEOUT);
        let request_timeout = reader.duration(&REQUEST_TIMEOUT);
        if let (Some(delivery), Some(transaction)) = (delivery_timeout, transaction_timeout)
            && delivery >= transaction
        {
            reader.problem(&DELIVERY_TIMEOUT, "is not shorter than KAFKA_TRANSACTION_TIMEOUT; expected a shorter one");
        }
        if let (Some(session), Some(poll)) = (session_timeout, max_poll_interval)
            && poll < session
        {
            reader.problem(&MAX_POLL_INTERVAL, "is shorter than KAFKA_SESSION_TIMEOUT; expected at least as much");
        }
        for server in bootstrap_servers.iter().flatten() {
            // An address without a port would be asked at 9092, a URL nowhere.
            let port = server.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(port))) if !host.is_empty() && !host.contains("//") && port > 0) {
                reader.problem(&BOOTSTRAP, "has an entry that is no address; expected host:port, separated by commas");
                break;
            }
        }
        // librdkafka's own bounds.
        for (variable, duration, longest) in [
            (&SESSION_TIMEOUT, session_timeout, 3_600),
            (&MAX_POLL_INTERVAL, max_poll_interval, 86_400),
            (&TRANSACTION_TIMEOUT, transaction_timeout, 900),
            (&DELIVERY_TIMEOUT, delivery_timeout, 900),
            (&REQUEST_TIMEOUT, request_timeout, 300),
        ] {
            if duration.is_some_and(|duration| duration > Duration::from_secs(longest)) {
                reader.problem(variable, format!("is too long; expected {longest}s at most"));
            } else if duration.is_some_and(|duration| duration < Duration::from_secs(1)) {
                reader.problem(variable, "is too short; expected 1s or more");
            }
        }
        let mut properties = Vec::new();
        for (name, value) in reader.family(&PROPERTIES) {
            let name = name.to_ascii_lowercase().replace('_', ".");
            if OURS.contains(&name.as_str()) {
                reader
                    .problem(&PROPERTIES, format!("{name} cannot be changed: the connector's correctness rests on it"));
            } else if let Some(problem) = refused(&name, &value) {
                reader.problem(&PROPERTIES, problem);
            } else {
                properties.push((name, Secret::new(value)));
            }
        }
        Some(Self {
            bootstrap_servers: bootstrap_servers?,
            client_id: client_id?,
            security: security?,
            session_timeout: session_timeout?,
            max_poll_interval: max_poll_interval?,
            delivery_timeout: delivery_timeout?,
            transaction_timeout: transaction_timeout?,
            request_timeout: request_timeout?,
            properties,
        })
    }

    /// What every client has.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Whatever this process logs: why a broker hangs up is told in a line, see `Quiet`.
        config.set_log_level(RDKafkaLogLevel::Info);
        config
            .set("bootstrap.servers", self.bootstrap_servers.join(","))
            .set("client.id", &self.client_id)
            .set("security.protocol", self.security.protocol)
            .set("socket.keepalive.enable", "true")
            // Small records wait for nobody.
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("allow.auto.create.topics", "false");
        if let Some((mechanism, user, password)) = &self.security.sasl {
            config.set("sasl.mechanism", *mechanism).set("sasl.username", user).set("sasl.password", password.expose());
        }
        if let Some(ca) = &self.security.ca {
            config.set("ssl.ca.location", ca.display().to_string());
        }
        if let Some((certificate, key)) = &self.security.certificate {
            config.set("ssl.certificate.location", certificate.display().to_string());
            config.set("ssl.key.location", key.display().to_string());
        }
        if let Some(password) = &self.security.key_password {
            config.set("ssl.key.password", password.expose());
        }
        config
    }

    fn passed_through(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value.expose());
        }
        config
    }

    /// A client that only asks. `group` is needed to ask for a group's offsets.
    pub(crate) fn questions(&self, isolation: Isolation, group: Option<&str>) -> ClientConfig {
        let mut config = self.client();
        config.set("isolation.level", isolation_level(isolation)).set("enable.auto.commit", "false");
        if let Some(group) = group {
            config.set("group.id", group);
        }
        self.passed_through(config)
    }

    /// A reader. `member` is the name of a static member.
    pub(crate) fn reader(&self, group: &str, member: Option<&str>, isolation: Isolation, reset: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("isolation.level", isolation_level(isolation))
            .set("auto.offset.reset", reset)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", (self.session_timeout.as_millis() / 6).clamp(100, 1_000).to_string())
            .set("max.poll.interval.ms", self.max_poll_interval.as_millis().to_string())
            // Prefetch: enough to keep a worker busy, little enough for many readers in one process.
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.message.max.bytes", "262144")
            .set("fetch.max.bytes", "8388608")
            .set("receive.message.max.bytes", "100000000")
            // How long a partition that was just assigned or resumed may wait for the fetch under way.
            .set("fetch.wait.max.ms", "50")
            // The default of one second shows as hiccups when the prefetch queue is small.
            .set("fetch.queue.backoff.ms", "20")
            .set("check.crcs", "true");
        if let Some(member) = member {
            config.set("group.instance.id", member);
        }
        self.passed_through(config)
    }

    /// A producer without a transaction.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "0")
            // Not more than every topic takes (`MIN_TOPIC_BYTES`).
            .set("batch.size", "1000000")
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            .set("message.timeout.ms", self.delivery_timeout.as_millis().to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("topic.metadata.propagation.max.ms", "3000");
        self.passed_through(config)
    }

    /// A producer with transactions.
    pub(crate) fn transactional(&self, id: &str) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string())
            // The broker answers CONCURRENT_TRANSACTIONS while it still writes the markers of the transaction before; the
            // default of 100 ms would then be the time of every commit. Not faster, and doubling up to the default second: with 1 ms and
            // at most 10, positions of a transactor that was given up when its broker died stayed pending in some runs of `make chaos`.
            .set("retry.backoff.ms", "2");
        config
    }
}

/// What librdkafka has against a setting.
fn refused(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    let error = config.create_native_config().err()?;
    let (name, why) = error::refused_setting(&error)?;
    let variable = name.to_ascii_uppercase().replace('.', "_");
    Some(format!("KAFKA_PROP_{variable}: the setting {name} {why}"))
}

fn isolation_level(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    }
}

fn read_security(reader: &mut Reader<'_>) -> Option<Security> {
    let protocol = reader.choice(
        &SECURITY,
        &[("plaintext", "plaintext"), ("ssl", "ssl"), ("sasl_plaintext", "sasl_plaintext"), ("sasl_ssl", "sasl_ssl")],
    );
    let mechanism = reader.choice(
        &SASL_MECHANISM,
        &[("PLAIN", "PLAIN"), ("SCRAM-SHA-256", "SCRAM-SHA-256"), ("SCRAM-SHA-512", "SCRAM-SHA-512")],
    );
    let username = reader.text(&SASL_USERNAME);
    let password = reader.secret(&SASL_PASSWORD);
    let ca = reader.file(&SSL_CA);
    let certificate = reader.file(&SSL_CERTIFICATE);
    let key = reader.file(&SSL_KEY);
    let key_password = reader.secret(&SSL_KEY_PASSWORD);
    let sasl = if protocol.is_some_and(|protocol| protocol.starts_with("sasl")) {
        if username.is_none() {
            reader.problem(&SASL_USERNAME, "is missing; expected with the sasl protocols");
        }
        if password.is_none() && !reader.is_set(&SASL_PASSWORD) {
            reader
                .problem(&SASL_PASSWORD, "is missing (or KAFKA_SASL_PASSWORD_FILE); expected with the sasl protocols");
        }
        mechanism.zip(username).zip(password).map(|((mechanism, user), password)| (mechanism, user, password))
    } else {
        None
    };
    if let Some(protocol) = protocol {
        // Somebody who sets these means to be protected by them.
        let sasl: [&Variable; 3] = [&SASL_MECHANISM, &SASL_USERNAME, &SASL_PASSWORD];
        let ssl: [&Variable; 4] = [&SSL_CA, &SSL_CERTIFICATE, &SSL_KEY, &SSL_KEY_PASSWORD];
        let unused = [(protocol.starts_with("sasl"), &sasl[..], "sasl"), (protocol.ends_with("ssl"), &ssl[..], "ssl")];
        for (used, variables, kind) in unused {
            for variable in variables.iter().filter(|_| !used) {
                if reader.is_set(variable) {
                    let expected =
                        format!("is set, and KAFKA_SECURITY_PROTOCOL is {protocol}; expected one with {kind}");
                    reader.problem(variable, expected);
                }
            }
        }
    }
    if reader.is_set(&SSL_CERTIFICATE) != reader.is_set(&SSL_KEY) {
        reader.problem(&SSL_CERTIFICATE, "and KAFKA_SSL_KEY_FILE belong together; expected both or none");
    }
    Some(Security { protocol: protocol?, sasl, ca, certificate: certificate.zip(key), key_password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &[(&'static str, &'static str)]) -> Result<KafkaConfig, String> {
        let source: std::collections::HashMap<String, String> =
            source.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        connector_settings::load(&source, KafkaConfig::read).map_err(|problems| problems.to_string())
    }

    #[test]
    fn other_settings_of_the_client_pass_through_under_their_own_names() {
        let config = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2"), ("KAFKA_PROP_LINGER_MS", "2")]).unwrap();
        assert_eq!(config.producer().get("linger.ms"), Some("2"));
        assert_eq!(config.producer().get("bootstrap.servers"), Some("a:1,b:2"));
    }

    #[test]
    fn what_correctness_rests_on_cannot_be_passed_through() {
        let error = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_PROP_ACKS", "1")]).unwrap_err();
        assert!(error.contains("acks cannot be changed"), "{error}");
    }

    #[test]
    fn addresses_and_times_that_cannot_work_are_told() {
        for wrong in ["a", "a:", ":9092", "kafka://a:9092", "a:0", "a:99999", "a:9092,b"] {
            let error = read(&[("KAFKA_BOOTSTRAP_SERVERS", wrong)]).unwrap_err();
            assert!(error.contains("KAFKA_BOOTSTRAP_SERVERS: has an entry that is no address"), "{wrong}: {error}");
        }
        assert!(read(&[("KAFKA_BOOTSTRAP_SERVERS", "[::1]:9092,kafka-0.kafka:9093")]).is_ok());
        let error = read(&[
            ("KAFKA_BOOTSTRAP_SERVERS", "a:1"),
            ("KAFKA_SESSION_TIMEOUT", "0s"),
            ("KAFKA_REQUEST_TIMEOUT", "10ms"),
            ("KAFKA_TRANSACTION_TIMEOUT", "1h"),
        ])
        .unwrap_err();
        for told in [
            "KAFKA_SESSION_TIMEOUT: is nothing",
            "KAFKA_REQUEST_TIMEOUT: is too short",
            "KAFKA_TRANSACTION_TIMEOUT: is too long",
        ] {
            assert!(error.contains(told), "{told}: {error}");
        }
    }

    #[test]
    fn sasl_needs_a_user_and_a_password_and_never_shows_it() {
        let error = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl")]).unwrap_err();
        assert!(error.contains("KAFKA_SASL_USERNAME") && error.contains("KAFKA_SASL_PASSWORD"), "{error}");
        let config = read(&[
            ("KAFKA_BOOTSTRAP_SERVERS", "a:1"),
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("KAFKA_SASL_USERNAME", "u"),
            ("KAFKA_SASL_PASSWORD", "hunter2"),
        ])
        .unwrap();
        assert_eq!(config.client().get("sasl.password"), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_passes_through_may_be_a_secret() {
        let config =
            read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_PROP_SSL_KEYSTORE_PASSWORD", "hunter2")]).unwrap();
        assert_eq!(config.producer().get("ssl.keystore.password"), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    }

    #[test]
    fn a_setting_that_the_client_does_not_take_is_refused_by_its_name_and_never_shown() {
        for (name, value) in [
            ("KAFKA_PROP_SASL_PASWORD", "hunter2"),
            ("KAFKA_PROP_LINGER_MS", "hunter2"),
            ("KAFKA_PROP_SSL_KEY_PEM_", "x"),
        ] {
            let error = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), (name, value)]).unwrap_err();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_client_that_cannot_be_made_never_shows_the_value_of_a_setting() {
        let mut config = KafkaConfig::plaintext("a:1");
        config.properties.push(("sasl.pasword".to_owned(), Secret::new("hunter2")));
        let Err(error) = crate::appender::KafkaAppender::open(&config) else { panic!("it was made") };
        let error = error.to_string();
        assert!(error.contains("sasl.pasword") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_setting_of_security_that_the_protocol_does_not_use_is_told() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (protocol, name, value) in [
            ("plaintext", "KAFKA_SASL_MECHANISM", "PLAIN"),
            ("plaintext", "KAFKA_SASL_USERNAME", "u"),
            ("plaintext", "KAFKA_SASL_PASSWORD", "hunter2"),
            ("plaintext", "KAFKA_SSL_CA_FILE", file),
            ("plaintext", "KAFKA_SSL_KEY_PASSWORD", "hunter2"),
            ("ssl", "KAFKA_SASL_USERNAME", "u"),
            ("sasl_plaintext", "KAFKA_SSL_CA_FILE", file),
        ] {
            let error =
                read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_SECURITY_PROTOCOL", protocol), (name, value)])
                    .unwrap_err();
            let told = format!("{name}: is set, and KAFKA_SECURITY_PROTOCOL is {protocol}");
            assert!(error.contains(&told) && !error.contains("hunter2"), "{error}");
        }
        let pair = [("KAFKA_SSL_CERTIFICATE_FILE", file), ("KAFKA_SSL_KEY_FILE", file), ("KAFKA_SSL_CA_FILE", file)];
        let with = |protocol| {
            read(
                &[&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_SECURITY_PROTOCOL", protocol)][..], &pair[..]].concat(),
            )
        };
        assert!(with("ssl").is_ok());
        assert!(with("plaintext").is_err());
    }

    #[test]
    fn files_that_are_not_there_are_told_with_their_variables() {
        let error = read(&[
            ("KAFKA_BOOTSTRAP_SERVERS", "a:1"),
            ("KAFKA_SSL_CA_FILE", "/nowhere/ca.pem"),
            ("KAFKA_SSL_CERTIFICATE_FILE", "/nowhere/client.pem"),
        ])
        .unwrap_err();
        for told in ["KAFKA_SSL_CA_FILE: the file", "KAFKA_SSL_CERTIFICATE_FILE: the file", "KAFKA_SSL_KEY_FILE belong"]
        {
            assert!(error.contains(told), "{told}: {error}");
        }
    }

    #[test]
    fn a_delivery_must_end_before_its_transaction() {
        let error = read(&[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("KAFKA_DELIVERY_TIMEOUT", "10s")]).unwrap_err();
        assert!(error.contains("KAFKA_TRANSACTION_TIMEOUT"), "{error}");
    }
}
