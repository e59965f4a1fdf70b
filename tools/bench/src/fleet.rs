//! The services as their users run them: release builds, each its own process, on real Kafka and Redis.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::identity::Address;
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::Log;
use connector_ports::log::Append;
use connector_runtime::provision;
use local_stack::{KafkaCluster, KafkaOptions, RedisOptions, RedisServer};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::http::Connection;
use crate::report::{Outcome, Report, folder, millis};
use crate::samples::NUMBER;
use crate::{end_to_end, kafka, rss, warm};

pub(crate) const PARTITIONS: u32 = 6;
const READY_WITHIN: Duration = Duration::from_secs(30);
pub(crate) const STREAM_SECRET: &str = "bench stream secret of 32 bytes or more";
pub(crate) const APP_SECRET: &str = "bench app secret";
/// The services a message passes through on its way into the log, and the one that folds it.
pub(crate) const INBOUND: [&str; 3] = ["webhook-receiver", "inbound-processor", "opt-in-tracker"];
/// Every program of the product. The last one has all the others inside, on embedded storage.
const ALL: [&str; 8] = [
    "webhook-receiver",
    "inbound-processor",
    "opt-in-tracker",
    "window-timer",
    "outbound-sender",
    "template-catalog",
    "conversation-api",
    "connector",
];

/// Everything that needs Kafka: one transaction, the services at rest, a message on its way.
pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    let transactions = report.wants("kafka_txn_ms_p50");
    let at_rest = report.wants("rss_idle_mb") || report.wants("start_to_ready_ms");
    let end_to_end = report.wants("end_to_end_ms");
    if !transactions && !at_rest && !end_to_end {
        return Ok(());
    }
    let programs: &[&str] = if at_rest {
        &ALL
    } else if end_to_end {
        &INBOUND
    } else {
        &[]
    };
    let programs = programs.iter().filter_map(|name| report.attempt(name, program(name)).map(|path| (*name, path)));
    let programs: Vec<(&'static str, PathBuf)> = programs.collect();

    let servers = spawn_blocking(Servers::start).await??;
    let log = KafkaLog::new(KafkaConfig::plaintext(&servers.kafka.bootstrap_servers()));
    if transactions || end_to_end {
        warm::broker(report, &servers.kafka.bootstrap_servers()).await?;
    }
    if transactions {
        // Topics of their own: the services would wonder about these records.
        let topics = Topics::new("bench");
        warm::provision(&log, &topics).await?;
        let outcome = kafka::measure(report, &log, &topics).await;
        report.attempt("kafka_txn_ms_p50", outcome);
    }
    if programs.is_empty() {
        return Ok(());
    }
    let topics = Topics::default();
    provision::apply(&log, &provision::specs(&topics, PARTITIONS, 1)).await?;
    register_number(&log, &topics).await?;

    let mut fleet = Vec::new();
    for (name, program) in &programs {
        let started = servers.start_service(name, program, &[]).await;
        fleet.extend(report.attempt(name, started));
    }
    if at_rest {
        rss::measure(report, &fleet).await;
    }
    let (inbound, others): (Vec<_>, Vec<_>) = fleet.into_iter().partition(|service| INBOUND.contains(&service.name));
    others.into_iter().for_each(Service::stop);
    if end_to_end {
        let outcome = end_to_end::measure(report, &log, &topics, &inbound).await;
        report.attempt("end_to_end_ms", outcome);
    }
    inbound.into_iter().for_each(Service::stop);
    Ok(())
}

/// The number that everything is sent to belongs to somebody, else its messages are dead letters.
pub(crate) async fn register_number(log: &dyn Log, topics: &Topics) -> Outcome<()> {
    let record = DirectoryRecord {
        kind: DirectoryKind::Number,
        organization_id: "organization-1".into(),
        phone_number_id: Some(NUMBER.into()),
        waba_id: Some("100000000000001".into()),
        user_id: None,
        enabled: false,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    };
    let append = Append {
        topic: topics.name(Topic::Directory).into(),
        partition: None,
        key: record.key().map(Bytes::from),
        value: Some(encode(&record)?.into()),
        headers: Vec::new(),
    };
    log.appender().await?.append(vec![append]).await?;
    Ok(())
}

/// Kafka and Redis. Killed on drop, by their own crate.
pub(crate) struct Servers {
    pub(crate) kafka: KafkaCluster,
    pub(crate) redis: RedisServer,
    /// For what `connector` keeps.
    home: TempDir,
}

impl Servers {
    pub(crate) fn start() -> Outcome<Self> {
        eprintln!("starting Kafka and Redis");
        let home = tempfile::Builder::new().prefix("fleet-").tempdir_in(folder()?)?;
        let redis = RedisServer::start(&RedisOptions::default())?;
        let kafka = KafkaCluster::start(&KafkaOptions { long_runs: true, ..KafkaOptions::default() })?;
        Ok(Self { kafka, redis, home })
    }

    /// Starts a service and waits until it is ready.
    ///
    /// `more`: further settings.
    pub(crate) async fn start_service(
        &self,
        name: &'static str,
        program: &Path,
        more: &[(&str, &str)],
    ) -> Outcome<Service> {
        let (admin, listen) = (free_address()?, free_address()?);
        let output = folder()?.join(format!("{name}.log"));
        let file = File::create(&output)?;
        let mut command = Command::new(program);
        // Nothing of the caller's own settings gets in.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
            .env("INSTANCE", "bench")
            .env("ADMIN_LISTEN", admin.to_string())
            .env("PARTITIONS", PARTITIONS.to_string())
            .env("STREAM_SECRET", STREAM_SECRET)
            .env("WEBHOOK_LISTEN", listen.to_string())
            .env("WHATSAPP_APP_SECRET", APP_SECRET)
            .env("WEBHOOK_VERIFY_TOKEN", "bench verify token")
            .env("CONVERSATION_API_LISTEN", free_address()?.to_string())
            .env("API_TOKENS", r#"{"bench":"organization-1"}"#)
            .env("READ_MODEL_PATH", self.home.path().join(format!("{name}.sqlite")))
            // Nobody answers there: the bench sends nothing.
            .env("GRAPH_BASE_URL", "http://127.0.0.1:9")
            .env("GRAPH_TOKEN", "bench")
            .env("DRAIN", "5s")
            .envs(more.iter().copied());
        if name == "connector" {
            command.env("BACKEND", "embedded").env("LOG_PATH", self.home.path().join("log.sqlite"));
        } else {
            command.env("BACKEND", "kafka");
            command.env("KAFKA_BOOTSTRAP_SERVERS", self.kafka.bootstrap_servers()).env("REDIS_URL", self.redis.url());
        }
        command.current_dir(self.home.path()).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let mut service = Service { name, child: command.spawn()?, listen, start_to_ready: Duration::ZERO };
        while !is_ready(admin).await {
            let last_words = || {
                std::fs::read_to_string(&output)
                    .unwrap_or_default()
                    .lines()
                    .rev()
                    .take(3)
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            if let Some(status) = service.child.try_wait()? {
                return Err(format!("it ended with {status}: {}", last_words()).into());
            }
            if started.elapsed() > READY_WITHIN {
                return Err(format!("it is not ready after {READY_WITHIN:?}: {}", last_words()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.start_to_ready = started.elapsed();
        eprintln!("  {name} is ready after {:.0} ms", millis(service.start_to_ready));
        Ok(service)
    }
}

pub(crate) async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(admin).await else { return false };
    connection.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
}

pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, local_stack::free_port()?).into())
}

/// A running service. Killed on drop.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    child: Child,
    /// Where it listens for others than operators, if it does.
    pub(crate) listen: SocketAddr,
    /// From its start until `/readyz` said so.
    pub(crate) start_to_ready: Duration,
}

impl Service {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and kills it when it does not.
    pub(crate) fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(6);
        while asked.is_ok() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where a program lies: beside this one, built with it.
pub(crate) fn program(name: &str) -> Outcome<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if program.is_file() { Ok(program) } else { Err(format!("{name} is not built: make bench does").into()) }
}
