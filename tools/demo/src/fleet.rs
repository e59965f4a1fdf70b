//! The processes: started, watched, killed, started again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local_stack::{
    Data, KafkaCluster, KafkaOptions, PASSWORD, RedisNodes, RedisOptions, Secured, Server, ServerError, free_port,
};

use crate::settings::Settings;

/// What the fleet stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One process, SQLite and memory.
    Embedded,
    /// Each service its own process, on Apache Kafka and Redis.
    Kafka,
}

/// The services of a fleet on Kafka.
const SERVICES: [&str; 7] = [
    "webhook-receiver",
    "inbound-processor",
    "outbound-sender",
    "opt-in-tracker",
    "window-timer",
    "template-catalog",
    "conversation-api",
];

/// Environment variables with their values.
pub type Environment = Vec<(&'static str, String)>;

/// One process of the connector. Several may be instances of the same program.
#[derive(Clone, Debug)]
pub struct Member {
    /// How the fleet calls it, and its `INSTANCE`.
    pub name: &'static str,
    /// The program it runs.
    pub program: &'static str,
    /// Settings of its own.
    pub settings: Environment,
}

impl Member {
    /// The only instance of a program.
    #[must_use]
    pub const fn only(program: &'static str) -> Self {
        Self { name: program, program, settings: Vec::new() }
    }

    /// One of several instances of a program.
    #[must_use]
    pub const fn instance(program: &'static str, name: &'static str) -> Self {
        Self { name, program, settings: Vec::new() }
    }
}

/// What a fleet consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it stands on.
    pub backend: Backend,
    /// Length of the customer service window.
    pub window: Duration,
    /// The processes of the connector, in the order in which they are stopped.
    pub members: Vec<Member>,
    /// Kafka brokers, 1 or 3.
    pub brokers: u16,
    /// True when the brokers work long enough to be worth optimising.
    pub long_runs: bool,
    /// Masters of a Redis Cluster, three or more; one is a Redis of its own.
    pub redis_masters: usize,
    /// Kafka and Redis with TLS and passwords.
    pub secured: Option<Secured>,
    /// Redis wants a password, without being encrypted.
    pub redis_password: bool,
    /// Settings of all members, over those of the demo.
    pub settings: Environment,
    /// Settings of the simulator, over those of the demo.
    pub simulator: Environment,
}

impl Plan {
    /// The demo's: every service once.
    #[must_use]
    pub fn new(backend: Backend, window: Duration) -> Self {
        let members = match backend {
            Backend::Embedded => vec![Member::only("connector")],
            Backend::Kafka => SERVICES.map(Member::only).to_vec(),
        };
        Self {
            backend,
            window,
            members,
            brokers: 1,
            long_runs: false,
            redis_masters: 1,
            secured: None,
            redis_password: false,
            settings: Vec::new(),
            simulator: Vec::new(),
        }
    }
}

/// Why the fleet could not be started or commanded.
#[derive(Debug)]
pub struct FleetError(pub String);

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FleetError {}

impl From<ServerError> for FleetError {
    fn from(error: ServerError) -> Self {
        Self(error.to_string())
    }
}

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);

struct Process {
    server: Server,
    admin: u16,
}

/// Everything that runs. Dropping it ends every process.
pub struct Fleet {
    plan: Plan,
    settings: Settings,
    folder: PathBuf,
    binaries: PathBuf,
    processes: BTreeMap<&'static str, Process>,
    // Dropped last: the services go before the servers they stand on.
    stack: Option<(KafkaCluster, RedisNodes)>,
}

impl Fleet {
    /// The demo's fleet, see [`Fleet::start_plan`].
    ///
    /// # Errors
    /// When a program is missing or does not become ready; the text holds its last words.
    pub async fn start(backend: Backend, binaries: &Path, folder: &Path, window: Duration) -> Result<Self, FleetError> {
        Self::start_plan(Plan::new(backend, window), binaries, folder).await
    }

    /// Starts everything and waits until it is ready. `binaries` is the folder of the built programs, `folder` takes data and logs.
    ///
    /// # Errors
    /// When a program is missing or does not become ready; the text holds its last words.
    pub async fn start_plan(plan: Plan, binaries: &Path, folder: &Path) -> Result<Self, FleetError> {
        let no_folder = |error| FleetError(format!("cannot create the demo's folder: {error}"));
        std::fs::create_dir_all(folder).map_err(no_folder)?;
        // Every process has a working folder of its own: a relative path would mean another place to each.
        let folder = &folder.canonicalize().map_err(no_folder)?;
        let settings = Settings::new(folder, plan.window)?;
        // A demo starts from nothing.
        for name in ["log.sqlite", "log.sqlite-wal", "log.sqlite-shm"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        let (brokers, long_runs, secured) = (plan.brokers, plan.long_runs, plan.secured.clone());
        let options = KafkaOptions { brokers, long_runs, secured, ..KafkaOptions::default() };
        let (masters, password) = (plan.redis_masters, plan.redis_password);
        let redis = RedisOptions { secured: options.secured.clone(), password, ..RedisOptions::default() };
        let stack = match plan.backend {
            Backend::Embedded => None,
            Backend::Kafka => Some(blocking(move || start_stack(&options, masters, redis)).await??),
        };
        let mut fleet = Self {
            plan,
            settings,
            folder: folder.to_owned(),
            binaries: binaries.to_owned(),
            processes: BTreeMap::new(),
            stack,
        };
        fleet.start_simulator().await?;
        if fleet.plan.backend == Backend::Kafka {
            fleet.apply_topics()?;
        }
        for name in fleet.services() {
            fleet.spawn(name)?;
        }
        for name in fleet.services() {
            fleet.wait_ready(name).await?;
        }
        Ok(fleet)
    }

    /// The processes of the connector in this fleet.
    #[must_use]
    pub fn services(&self) -> Vec<&'static str> {
        self.plan.members.iter().map(|member| member.name).collect()
    }

    /// Addresses, secrets and durations.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where Kafka and Redis are, when the fleet stands on them.
    #[must_use]
    pub fn servers(&self) -> Option<(String, String)> {
        self.stack.as_ref().map(|(kafka, redis)| (kafka.bootstrap_servers(), redis.url()))
    }

    /// The servers, for tests that kill them.
    pub fn stack(&mut self) -> Option<&mut (KafkaCluster, RedisNodes)> {
        self.stack.as_mut()
    }

    /// The file a process logs into.
    #[must_use]
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("output.log")
    }

    /// Name, process id and admin address of every process.
    #[must_use]
    pub fn processes(&self) -> Vec<(&'static str, Option<u32>, String)> {
        let admin = |process: &Process| format!("http://127.0.0.1:{}", process.admin);
        self.processes.iter().map(|(name, process)| (*name, process.server.pid(), admin(process))).collect()
    }

    /// The environment of a process of the connector, as a person would set it.
    #[must_use]
    pub fn environment(&self, admin: u16) -> Vec<(&'static str, String)> {
        let mut environment = self.settings.environment();
        environment.push(("ADMIN_LISTEN", format!("127.0.0.1:{admin}")));
        match self.servers() {
            None => environment.push(("BACKEND", "embedded".to_owned())),
            Some((kafka, redis)) => {
                environment.push(("BACKEND", "kafka".to_owned()));
                environment.push(("KAFKA_BOOTSTRAP_SERVERS", kafka));
                environment.push(("REDIS_URL", redis));
                environment.push(("REDIS_CLUSTER", (self.plan.redis_masters > 1).to_string()));
            }
        }
        if self.plan.redis_password {
            environment.push(("REDIS_PASSWORD", PASSWORD.to_owned()));
        }
        environment.extend(self.plan.secured.iter().flat_map(Secured::environment));
        environment.extend(self.plan.settings.iter().cloned());
        environment
    }

    async fn start_simulator(&mut self) -> Result<(), FleetError> {
        let name = "cloud-api-simulator";
        let mut command = self.command(name);
        command.envs(self.settings.simulator_environment()).envs(self.plan.simulator.iter().cloned());
        let mut server = Server::new(name, Data::new(Some(&self.folder), name)?)?;
        server.spawn(&mut command)?;
        self.processes.insert(name, Process { server, admin: 0 });
        let url = format!("{}/simulator/stats", self.settings.simulator_url());
        self.wait_for(name, &url).await
    }

    /// Creates the topics that are not there (`connectorctl topics apply`).
    ///
    /// # Errors
    /// When the program is missing, or Kafka refuses.
    pub fn apply_topics(&self) -> Result<(), FleetError> {
        let output = self
            .command("connectorctl")
            .envs(self.environment(0))
            .env("REPLICATION", self.plan.brokers.to_string())
            .args(["topics", "apply"])
            .output()
            .map_err(|error| FleetError(format!("cannot run connectorctl: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(FleetError(format!("connectorctl topics apply failed: {words}")))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.env_clear();
        for inherited in ["PATH", "RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(inherited) {
                command.env(inherited, value);
            }
        }
        command
    }

    /// Starts a service, again or for the first time, without waiting.
    ///
    /// # Errors
    /// When the program is missing, or the plan has no such member.
    pub fn spawn(&mut self, name: &'static str) -> Result<(), FleetError> {
        let member = self.plan.members.iter().find(|member| member.name == name).cloned();
        let member = member.ok_or_else(|| FleetError(format!("there is no member {name}")))?;
        let admin = match self.processes.get(name) {
            Some(process) => process.admin,
            None => free_port()?,
        };
        let mut command = self.command(member.program);
        command.envs(self.environment(admin)).env("INSTANCE", member.name).envs(member.settings);
        if !self.processes.contains_key(name) {
            let server = Server::new(name, Data::new(Some(&self.folder), name)?)?;
            self.processes.insert(name, Process { server, admin });
        }
        let Some(process) = self.processes.get_mut(name) else { return Ok(()) };
        process.server.spawn(&mut command)?;
        Ok(())
    }

    /// Waits until a service says that it is ready.
    ///
    /// # Errors
    /// When it does not within a minute, or ends.
    pub async fn wait_ready(&mut self, name: &'static str) -> Result<(), FleetError> {
        let Some(process) = self.processes.get(name) else {
            return Err(FleetError(format!("{name} was not started")));
        };
        let url = format!("http://127.0.0.1:{}/readyz", process.admin);
        self.wait_for(name, &url).await
    }

    async fn wait_for(&mut self, name: &str, url: &str) -> Result<(), FleetError> {
        let client = reqwest::Client::new();
        let ready = async {
            loop {
                let answer = client.get(url).timeout(Duration::from_secs(2)).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(READY, ready).await.is_ok() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log_of(name)).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        Err(FleetError(format!("{name} is not ready; its last words:\n{}", tail.join("\n"))))
    }

    /// Kills a process as a crash would.
    pub fn kill9(&mut self, name: &str) {
        if let Some(process) = self.processes.get_mut(name) {
            process.server.kill9();
        }
    }

    /// Freezes a process (SIGSTOP): its connections stay open, and it believes that no time passes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, name: &str) -> Result<(), FleetError> {
        self.signal(name, "STOP")
    }

    /// Thaws a process (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self, name: &str) -> Result<(), FleetError> {
        self.signal(name, "CONT")
    }

    fn signal(&self, name: &str, signal: &str) -> Result<(), FleetError> {
        let process = self.processes.get(name).ok_or_else(|| FleetError(format!("{name} was not started")))?;
        Ok(process.server.signal(signal)?)
    }

    /// Asks a process to end (SIGTERM) and waits for it; kills it when it does not within the bound.
    pub fn end(&mut self, name: &str, within: Duration) {
        if let Some(process) = self.processes.get_mut(name) {
            process.server.stop(within);
        }
    }

    /// Starts every process again that ended without being asked to, and names them.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn revive(&mut self) -> Result<Vec<&'static str>, FleetError> {
        let services = self.services();
        let mut revived = Vec::new();
        for name in services {
            if self.processes.get_mut(name).is_some_and(|process| process.server.has_ended()) {
                self.spawn(name)?;
                revived.push(name);
            }
        }
        Ok(revived)
    }

    /// Ends every process in the order of its work: receivers first, servers last.
    pub fn stop(&mut self) {
        for name in self.services() {
            self.end(name, Duration::from_secs(10));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FleetError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| FleetError(error.to_string()))
}

fn start_stack(
    kafka: &KafkaOptions,
    masters: usize,
    redis: RedisOptions,
) -> Result<(KafkaCluster, RedisNodes), FleetError> {
    let redis = RedisNodes::start(masters, redis)?;
    let kafka = KafkaCluster::start(kafka)?;
    Ok((kafka, redis))
}
