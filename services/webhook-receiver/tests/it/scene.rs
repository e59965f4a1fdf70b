//! A receiver on a free port, over the log of the simulated world or one that a test holds back.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use connector_contracts::{Topic, Topics};
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::clock::SystemClock;
use connector_ports::ids::RandomIds;
use connector_ports::log::{
    Append, Appended, Isolation, LogError, Offset, Record, Start, Subscription, TopicFacts, TopicName, TopicPartition,
    TopicSpec,
};
use connector_ports::{Appender, Clock, Log, Reader, Transactor};
use connector_runtime::platform::Platform;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerError;
use connector_settings::load;
use connector_simulated::SimWorld;
use connector_telemetry::Metrics;
use connector_whatsapp::signature::sign;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use webhook_receiver::Config;

pub(crate) const SECRET: &str = "app secret";
pub(crate) const PREVIOUS: &str = "former app secret";

/// What the log does with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Writes,
    /// Writes, and keeps the acknowledgement to itself.
    Silent,
    Away,
}

/// A log in a mood.
struct Moody {
    inner: Arc<dyn Log>,
    mood: watch::Receiver<Mood>,
}

struct MoodyAppender {
    inner: Box<dyn Appender>,
    mood: watch::Receiver<Mood>,
}

#[async_trait]
impl Appender for MoodyAppender {
    async fn append(&self, records: Vec<Append>) -> Result<Vec<Appended>, LogError> {
        let mut mood = self.mood.clone();
        if *mood.borrow() == Mood::Away {
            return Err(LogError::Unavailable { reason: "a test".to_owned() });
        }
        let appended = self.inner.append(records).await;
        let _ = mood.wait_for(|mood| *mood != Mood::Silent).await;
        appended
    }
}

#[async_trait]
impl Log for Moody {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Reader>, LogError> {
        self.inner.subscribe(subscription).await
    }
    async fn assign(
        &self,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Box<dyn Reader>, LogError> {
        self.inner.assign(partitions, isolation).await
    }
    async fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(MoodyAppender { inner: self.inner.appender().await?, mood: self.mood.clone() }))
    }
    async fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        self.inner.transactor(id).await
    }
    async fn end_offset(&self, partition: &TopicPartition, isolation: Isolation) -> Result<Offset, LogError> {
        self.inner.end_offset(partition, isolation).await
    }
    async fn begin_offset(&self, partition: &TopicPartition) -> Result<Offset, LogError> {
        self.inner.begin_offset(partition).await
    }
    async fn identity(&self, partition: &TopicPartition) -> Result<connector_ports::log::Identity, LogError> {
        self.inner.identity(partition).await
    }
    async fn positions(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<connector_ports::log::Position>>, LogError> {
        self.inner.positions(group, partitions).await
    }
    async fn topic(&self, name: &TopicName) -> Result<Option<TopicFacts>, LogError> {
        self.inner.topic(name).await
    }
    async fn topic_settings(&self, name: &TopicName) -> Result<std::collections::BTreeMap<String, String>, LogError> {
        self.inner.topic_settings(name).await
    }
    async fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.inner.create_topic(spec).await
    }
}

pub(crate) async fn create_topics(world: &SimWorld) {
    let topics = Topics::default();
    for name in [topics.name(Topic::Webhooks), topics.dlq(Topic::Webhooks)] {
        let spec = TopicSpec { name: name.into(), partitions: 3, replication: 1, settings: Vec::new() };
        world.calm_log().create_topic(&spec).await.unwrap();
    }
}

pub(crate) fn platform(world: &SimWorld, log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Platform {
    Platform {
        log,
        gate: world.gate(),
        clock,
        ids: Arc::new(RandomIds),
        topics: Topics::default(),
        partitions: 3,
        keys: StreamKeys::new("t", b"secret"),
        rules: Rules::default(),
        instance: "one".to_owned(),
        metrics: Arc::new(Metrics::new("test", "test")),
    }
}

/// The settings of a receiver with both secrets; an empty value takes one away.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut source: std::collections::HashMap<String, String> = [
        ("WEBHOOK_LISTEN", "127.0.0.1:0"),
        ("WEBHOOK_VERIFY_TOKEN", "token"),
        ("WHATSAPP_APP_SECRET", SECRET),
        ("WHATSAPP_APP_SECRET_PREVIOUS", PREVIOUS),
    ]
    .into_iter()
    .chain(settings.iter().copied())
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    source.retain(|_, value| !value.is_empty());
    load(&source, Config::from).unwrap()
}

pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) mood: watch::Sender<Mood>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) service: JoinHandle<Result<(), WorkerError>>,
    world: SimWorld,
}

impl Scene {
    /// A receiver with both secrets, and these settings.
    pub(crate) async fn new(settings: &[(&str, &str)]) -> Self {
        let world = SimWorld::new(1);
        create_topics(&world).await;
        let (mood, moods) = watch::channel(Mood::Writes);
        let log = Arc::new(Moody { inner: world.calm_log(), mood: moods });
        let platform = platform(&world, log, Arc::new(SystemClock));
        let metrics = platform.metrics.clone();
        let config = config(settings);
        let shutdown = CancellationToken::new();
        let mut service = Service::new(platform, shutdown.clone());
        let address = webhook_receiver::start(config, &mut service).await.unwrap();
        let service = tokio::spawn(service.run());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, http, mood, metrics, shutdown, service, world }
    }

    pub(crate) fn url(&self, query: &str) -> String {
        format!("http://{}/webhooks{query}", self.address)
    }

    pub(crate) fn post(&self, secret: &str, body: impl Into<Vec<u8>>) -> reqwest::RequestBuilder {
        let body = body.into();
        let signature = sign(secret.as_bytes(), &body);
        let request = self.http.post(self.url("")).header("content-type", "application/json; charset=utf-8");
        request.header("X-Hub-Signature-256", signature).body(body)
    }

    pub(crate) async fn status(&self, request: reqwest::RequestBuilder) -> u16 {
        request.send().await.unwrap().status().as_u16()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.world.history(&Topics::default().name(Topic::Webhooks).into())
    }

    pub(crate) fn dead_letters(&self) -> Vec<Record> {
        self.world.history(&Topics::default().dlq(Topic::Webhooks).into())
    }
}

/// A delivery of messages with these ids, all from one person.
pub(crate) fn delivery(ids: &[&str]) -> String {
    let message = |id: &&str| {
        format!(
            r#"{{"from":"15550100042","id":"wamid.{id}","timestamp":"1790000000","type":"text","text":{{"body":"hi"}}}}"#
        )
    };
    let messages: Vec<_> = ids.iter().map(message).collect();
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{
        "metadata":{{"phone_number_id":"2"}},"messages":[{}]}}}}]}}]}}"#,
        messages.join(",")
    )
}
