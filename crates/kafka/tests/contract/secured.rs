//! The log over encrypted connections: what comes in with the right certificate and password, and what becomes of everybody else.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::log::{
    Append, Isolation, LogError, Polled, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};
use connector_ports::{Log, Retry};
use connector_testkit::contract::log::LogWorld;
use connector_testkit::servers::{KafkaCluster, KafkaOptions, PASSWORD, Secured, unique};
use connector_testkit::wait;

/// What is set, as a person would set it.
type Settings = Vec<(&'static str, String)>;

/// A broker with encrypted listeners that the tests of this binary share.
struct World {
    passwords: String,
    certificates: String,
    secured: Secured,
}

impl World {
    async fn shared() -> &'static Self {
        static SHARED: OnceLock<(KafkaCluster, World)> = OnceLock::new();
        let start = || {
            let secured = Secured::new().expect("certificates");
            let options = KafkaOptions { secured: Some(secured.clone()), heap_mib: 256, ..KafkaOptions::default() };
            let cluster = KafkaCluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
            let (passwords, certificates) = (cluster.bootstrap_servers(), cluster.mutual_servers());
            (cluster, Self { passwords, certificates, secured })
        };
        tokio::task::spawn_blocking(move || &SHARED.get_or_init(start).1).await.expect("no panic")
    }

    fn settings(&self) -> Settings {
        let mut settings = self.secured.environment();
        settings.push(("KAFKA_BOOTSTRAP_SERVERS", self.passwords.clone()));
        settings
    }
}

fn with(mut settings: Settings, name: &'static str, value: impl Into<String>) -> Settings {
    settings.retain(|(other, _)| *other != name);
    settings.push((name, value.into()));
    settings
}

fn without(mut settings: Settings, prefix: &str) -> Settings {
    settings.retain(|(name, _)| !name.starts_with(prefix));
    settings
}

fn config(settings: Settings) -> KafkaConfig {
    let settings: std::collections::HashMap<String, String> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = connector_settings::load(&settings, KafkaConfig::read).expect("settings");
    let config =
        KafkaConfig { session_timeout: Duration::from_secs(6), delivery_timeout: Duration::from_secs(3), ..config };
    assert!(!format!("{config:?}").contains(PASSWORD), "the settings show the password");
    config
}

fn log(settings: Settings) -> Arc<dyn Log> {
    Arc::new(KafkaLog::new(config(settings)))
}

/// SCRAM-SHA-512, the default mechanism, over TLS.
struct Passwords(Arc<dyn Log>);

impl Passwords {
    async fn start() -> Self {
        Self(log(World::shared().await.settings()))
    }
}

#[async_trait]
impl LogWorld for Passwords {
    async fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0)
    }
}

// What each kind of client does on its connections: append, transact, fence, ask, join and leave.
connector_testkit::contract_tests! {
    [#[tokio::test(flavor = "multi_thread", worker_threads = 2)]] log Passwords::start().await,
    records_come_back_as_they_were_written
    a_missing_topic_is_named_as_such
    open_transactions_are_hidden_from_committed_readers_only
    a_commit_covers_all_topics_and_the_consumed_positions
    a_newer_transactor_fences_the_appends_of_the_older
    a_stale_membership_cannot_commit
    a_second_member_gets_its_share_after_release
    a_static_member_gets_its_partitions_back
}

/// Writes one record and reads it back.
async fn goes_through(log: &dyn Log) {
    let topic = TopicName::from(unique("secured"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: Vec::new() };
    log.create_topic(&spec).await.expect("create a topic");
    let appender = log.appender().await.expect("appender");
    appender.append(vec![record(&topic)]).await.expect("append");
    let partition = TopicPartition::new(topic, 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(reader.poll(Duration::from_millis(100), 1).await.expect("poll"), Polled::Records(_)) {
        assert!(Instant::now() < deadline, "no record came");
    }
    reader.close().await;
}

fn record(topic: &TopicName) -> Append {
    let value = Some(Bytes::from_static(b"value"));
    Append { topic: topic.clone(), partition: Some(0), key: None, value, headers: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_password_over_tls_comes_in() {
    let settings = with(World::shared().await.settings(), "KAFKA_SASL_MECHANISM", "PLAIN");
    goes_through(log(settings).as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_the_client_comes_in_where_it_is_wanted_and_nobody_without_one() {
    let world = World::shared().await;
    let settings = with(without(world.settings(), "KAFKA_SASL"), "KAFKA_SECURITY_PROTOCOL", "ssl");
    let settings = with(settings, "KAFKA_BOOTSTRAP_SERVERS", &world.certificates);
    let (certificate, key) = world.secured.client();
    let shown = with(settings.clone(), "KAFKA_SSL_CERTIFICATE_FILE", certificate.display().to_string());
    goes_through(log(with(shown, "KAFKA_SSL_KEY_FILE", key.display().to_string())).as_ref()).await;
    refused(settings, "certificate").await;
}

/// What a call ends with. A broker that has just started may be too slow for a first answer.
async fn ended<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, LogError>) -> LogError {
    let ended = async || match call().await {
        Ok(_) => panic!("{what} came in"),
        Err(LogError::Unavailable { .. }) => None,
        Err(error) => Some(error),
    };
    wait::until(what, Duration::from_secs(20), ended).await
}

/// Nothing is written or read, whoever asks learns that waiting is useless and why, and no secret is told.
async fn refused(settings: Settings, why: &str) {
    let config = KafkaConfig { request_timeout: Duration::from_secs(2), ..config(settings) };
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(2), ..config };
    let log = KafkaLog::new(config);
    let topic = TopicName::from("any");
    let subscription =
        Subscription { group: unique("group"), topics: vec![topic.clone()], member: None, start: Start::Beginning };
    let mut reader = log.subscribe(subscription).await.expect("subscribe");
    let appender = log.appender().await.expect("appender");
    let read = async || match reader.poll(Duration::from_millis(100), 1).await {
        Ok(Polled::Idle) => Err(LogError::Unavailable { reason: "nothing came".to_owned() }),
        other => other,
    };
    let errors = tokio::join!(
        ended("a question", async || log.topic(&topic).await),
        ended("an append", async || appender.append(vec![record(&topic)]).await),
        ended("a transactor", async || log.transactor("any").await),
        ended("a reader", read),
    );
    for error in <[LogError; 4]>::from(errors) {
        assert_eq!(error.retry(), Retry::Never, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains(PASSWORD) && !error.to_string().contains("guessed"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_for_good() {
    let settings = with(World::shared().await.settings(), "KAFKA_SASL_PASSWORD", "guessed-password");
    tokio::join!(
        refused(with(settings.clone(), "KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"), "uthentication failed"),
        refused(with(settings, "KAFKA_SASL_MECHANISM", "PLAIN"), "uthentication failed"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_another_authority_is_not_believed() {
    let other = Secured::new().expect("certificates");
    let settings = with(World::shared().await.settings(), "KAFKA_SSL_CA_FILE", other.ca().display().to_string());
    refused(settings, "certificate verify failed").await;
}

/// Most clients meet an address that refuses them before the one that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_that_refuses_is_no_reason_to_give_up() {
    let world = World::shared().await;
    let refusing = world.certificates.replace("127.0.0.1", "localhost");
    let servers = [&world.certificates, &refusing, &world.passwords].map(String::as_str).join(",");
    goes_through(log(with(world.settings(), "KAFKA_BOOTSTRAP_SERVERS", servers)).as_ref()).await;
}

/// To the client this looks like a broker that hangs up, which waiting may cure: but the reason is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_tls_gets_nowhere_and_says_what_may_be_wrong() {
    let settings = without(without(World::shared().await.settings(), "KAFKA_S"), "REDIS");
    let log = KafkaLog::new(KafkaConfig { request_timeout: Duration::from_secs(2), ..config(settings) });
    let error = log.topic(&TopicName::from("any")).await.expect_err("it speaks another language");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("KAFKA_SECURITY_PROTOCOL"), "{error}");
}

/// A broker that is away for a moment is no refusal: everything goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_is_found_again() {
    let secured = Secured::new().expect("certificates");
    let options = KafkaOptions { secured: Some(secured.clone()), heap_mib: 256, ..KafkaOptions::default() };
    let start = move || KafkaCluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
    let mut kafka = tokio::task::spawn_blocking(start).await.expect("no panic");
    let settings = with(secured.environment(), "KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers());
    let log = log(settings);
    let topic = TopicName::from(unique("secured"));
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, settings: Vec::new() };
    log.create_topic(&spec).await.expect("create a topic");
    let partition = TopicPartition::new(topic.clone(), 0);
    let mut reader = log.assign(vec![(partition, Start::Beginning)], Isolation::Committed).await.expect("assign");
    let appender = log.appender().await.expect("appender");
    appender.append(vec![record(&topic)]).await.expect("append");
    let mut read = 0;
    for expected in 1..=2 {
        let deadline = Instant::now() + Duration::from_secs(30);
        while read < expected {
            if let Polled::Records(records) = reader.poll(Duration::from_millis(100), 10).await.expect("poll") {
                read += records.len();
            }
            assert!(Instant::now() < deadline, "{read} records came");
        }
        if expected == 1 {
            let restart = move || {
                kafka.broker(0).restart().expect("restart");
                kafka
            };
            kafka = tokio::task::spawn_blocking(restart).await.expect("no panic");
            wait::until("an append that works again", Duration::from_secs(30), async || {
                match appender.append(vec![record(&topic)]).await {
                    Ok(_) => Some(()),
                    Err(LogError::Unavailable { .. }) => None,
                    Err(error) => panic!("{error}"),
                }
            })
            .await;
        }
    }
    reader.close().await;
    drop(kafka);
}
