//! Apache Kafka as children: one broker, or three with replication.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Data, Server, ServerError, failed, free_port};
use crate::secured::{PASSWORD, Secured, USER};

const PROPERTIES: &str = include_str!("../../../deploy/local/server.properties");
const LOGGING: &str = include_str!("../../../deploy/local/log4j2.yaml");

/// How long a broker may take until it answers. It needs 4 s on an idle machine; a busy one takes longer.
const START: Duration = Duration::from_secs(60);

/// How often brokers on ports of their own choice are started before that fails.
const STARTS: usize = 3;
/// The words of a broker whose port is taken.
const PORT_TAKEN: &str = "java.net.BindException";

/// Kafka wants an id of 16 bytes in URL-safe base64. All local clusters share one: none ever meets another.
const CLUSTER_ID: &str = "bG9jYWxzdGFja2thZmthMA";

/// How to start Kafka.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// One broker, or three with replication 3 and `min.insync.replicas=2`.
    pub brokers: u16,
    /// The port of the first broker (the next ones follow it); free ones when absent.
    pub port: Option<u16>,
    /// A folder whose data stay; otherwise they lie in memory and go with the servers.
    pub data: Option<PathBuf>,
    /// Heap of each broker in MiB.
    pub heap_mib: u32,
    /// True for a broker that runs for minutes under load, as in a benchmark: its hot code is then optimised fully, which takes a core
    /// for the first minute. Others start sooner and leave the machine to those who test.
    pub long_runs: bool,
    /// More broker settings, after those of `deploy/local/server.properties`.
    pub settings: Vec<(String, String)>,
    /// With these certificates every broker has two more listeners: SASL_SSL with passwords (SCRAM-SHA-512 and PLAIN), and SSL that
    /// wants a client's certificate. The one without encryption stays, for the cluster itself.
    pub secured: Option<Secured>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            port: None,
            data: None,
            heap_mib: 512,
            long_runs: false,
            settings: Vec::new(),
            secured: None,
        }
    }
}

/// One broker. Killed on drop.
#[derive(Debug)]
pub struct KafkaServer {
    server: Server,
    library: PathBuf,
    port: u16,
    /// With passwords, and with a client's certificate.
    secured: Option<(u16, u16)>,
    heap_mib: u32,
    long_runs: bool,
}

/// A Kafka cluster of one or three brokers. Killed on drop.
#[derive(Debug)]
pub struct KafkaCluster {
    brokers: Vec<KafkaServer>,
}

impl KafkaCluster {
    /// Fetches Kafka when needed, starts it and waits until a metadata request names every broker.
    ///
    /// # Errors
    /// Java or Maven is missing, Kafka cannot be fetched, or it did not start; the text has its last words.
    pub fn start(options: &KafkaOptions) -> Result<Self, ServerError> {
        // A port that was free when it was chosen may be somebody's by the time a broker, seconds later, listens on it.
        for _ in 1..STARTS {
            match Self::start_once(options) {
                Err(error) if options.port.is_none() && error.to_string().contains(PORT_TAKEN) => {}
                other => return other,
            }
        }
        Self::start_once(options)
    }

    fn start_once(options: &KafkaOptions) -> Result<Self, ServerError> {
        let library = library()?;
        let count = options.brokers.max(1);
        let mut ports = Vec::new();
        for index in 0..count {
            let port = match options.port {
                Some(first) => first + index,
                None => free_port()?,
            };
            ports.push((port, free_port()?));
        }
        let voters: Vec<String> =
            ports.iter().zip(1..).map(|((_, controller), node)| format!("{node}@127.0.0.1:{controller}")).collect();
        let mut brokers = Vec::new();
        for ((port, controller), node) in ports.into_iter().zip(1..) {
            let data = Data::new(options.data.as_deref(), &format!("kafka-{node}"))?;
            let server = Server::new(format!("Kafka broker {node} (java)"), data)?;
            let properties = PROPERTIES
                .replace("@NODE@", &node.to_string())
                .replace("@VOTERS@", &voters.join(","))
                .replace("@PORT@", &port.to_string())
                .replace("@CONTROLLER_PORT@", &controller.to_string())
                .replace("@DATA@", &server.folder().join("log").display().to_string())
                .replace("@REPLICATION@", if count >= 3 { "3" } else { "1" })
                .replace("@IN_SYNC@", if count >= 3 { "2" } else { "1" });
            let mut settings = options.settings.clone();
            let secured = match &options.secured {
                Some(secured) => {
                    let ports = (free_port()?, free_port()?);
                    settings.extend(encryption(secured, (port, controller), ports));
                    Some(ports)
                }
                None => None,
            };
            let extra: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            fs::write(server.folder().join("server.properties"), properties + &extra)
                .map_err(failed("write settings"))?;
            fs::write(server.folder().join("log4j2.yaml"), LOGGING).map_err(failed("write settings"))?;
            let (library, heap_mib, long_runs) = (library.clone(), options.heap_mib, options.long_runs);
            let broker = KafkaServer { server, library, port, secured, heap_mib, long_runs };
            broker.format()?;
            brokers.push(broker);
        }
        // All at once: a controller quorum needs its majority before any of them gets ready.
        for broker in &mut brokers {
            broker.spawn()?;
        }
        for broker in &mut brokers {
            broker.wait_ready(usize::from(count))?;
        }
        Ok(Self { brokers })
    }

    /// The value of `KAFKA_BOOTSTRAP_SERVERS`: without encryption, or SASL_SSL when it is secured.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.addresses(|broker| broker.secured.map_or(broker.port, |(passwords, _)| passwords))
    }

    /// The listeners that want a client's certificate; nothing when it is not secured.
    #[must_use]
    pub fn mutual_servers(&self) -> String {
        self.addresses(|broker| broker.secured.map_or(0, |(_, certificates)| certificates))
    }

    /// The listeners without encryption.
    #[must_use]
    pub fn plaintext_servers(&self) -> String {
        self.addresses(|broker| broker.port)
    }

    fn addresses(&self, port: impl Fn(&KafkaServer) -> u16) -> String {
        let ports = self.brokers.iter().map(port).filter(|port| *port != 0);
        ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// Changes settings of a topic, or of all brokers when none is named, as `kafka-configs.sh --alter` does. The others stay.
    ///
    /// # Errors
    /// Kafka refuses; the text has its words.
    pub fn configure(&self, topic: Option<&str>, settings: &[(&str, &str)]) -> Result<(), ServerError> {
        let Some(broker) = self.brokers.first() else { return Ok(()) };
        let entity = match topic {
            Some(topic) => vec!["--entity-type", "topics", "--entity-name", topic],
            None => vec!["--entity-type", "brokers", "--entity-default"],
        };
        let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut command = Command::new("java");
        command.arg("-cp").arg(broker.library.join("*")).arg("kafka.admin.ConfigCommand");
        command.args(["--bootstrap-server", &self.plaintext_servers(), "--alter", "--add-config", &settings.join(",")]);
        run_to_its_end(command.args(entity), "change its settings")
    }

    /// How many brokers it has.
    #[must_use]
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// A broker, from 0.
    ///
    /// # Panics
    /// When there is no such broker.
    pub fn broker(&mut self, index: usize) -> &mut KafkaServer {
        &mut self.brokers[index]
    }

    /// Ends all brokers in good order, so that they need no recovery when they come back to kept data.
    pub fn stop(mut self) {
        for broker in &mut self.brokers {
            broker.server.stop(Duration::from_secs(10));
        }
    }
}

impl KafkaServer {
    fn format(&self) -> Result<(), ServerError> {
        let mut command = Command::new("java");
        command
            .arg("-cp")
            .arg(self.library.join("*"))
            .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
            .arg(self.server.folder().join("server.properties"));
        if self.secured.is_some() {
            // Users of SCRAM stand in the metadata; the first of them can only get there with the first format.
            command.args(["--add-scram", &format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")]);
        }
        run_to_its_end(&mut command, "format its data folder")
    }

    fn spawn(&mut self) -> Result<(), ServerError> {
        let mut command = Command::new("java");
        command.args([format!("-Xms{}m", self.heap_mib), format!("-Xmx{}m", self.heap_mib)]);
        let machine: &[&str] =
            if self.long_runs { &["-XX:+UseG1GC"] } else { &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] };
        command.args(machine);
        command.args(["-Dlog4j2.configurationFile=log4j2.yaml", "-cp"]);
        command.arg(self.library.join("*"));
        command.args(["kafka.Kafka", "server.properties"]);
        self.server.spawn(&mut command)
    }

    fn wait_ready(&mut self, brokers: usize) -> Result<(), ServerError> {
        let port = self.port;
        self.server.wait_ready(START, || brokers_known_to(port).is_ok_and(|known| known >= brokers))
    }

    /// Ends it as a crash would. Its data stay.
    pub fn kill9(&mut self) {
        self.server.kill9();
    }

    /// Kills it if it runs and starts it again on the same port and data. Returns when it answers.
    ///
    /// # Errors
    /// It did not start; the text has its last words.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.server.kill9();
        self.spawn()?;
        self.wait_ready(1)
    }

    /// Kills it if it runs and starts it again on the same port without its data, as on a new volume. Only for a cluster of one broker. Returns
    /// when it answers.
    ///
    /// # Errors
    /// As [`KafkaServer::restart`].
    pub fn restart_without_data(&mut self) -> Result<(), ServerError> {
        self.server.kill9();
        fs::remove_dir_all(self.server.folder().join("log")).map_err(failed("remove the data"))?;
        self.format()?;
        self.restart()
    }

    /// Freezes the process (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.server.signal("STOP")
    }

    /// Thaws it (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<(), ServerError> {
        self.server.signal("CONT")
    }

    /// The id of the process, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }
}

/// Runs a program of Kafka.
fn run_to_its_end(command: &mut Command, purpose: &str) -> Result<(), ServerError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run java; install a Java runtime of version 17 or newer"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(ServerError(format!("Kafka cannot {purpose}:\n{words}")))
}

/// The settings of the encrypted listeners, after those of `deploy/local/server.properties`: of a name that stands twice the last counts.
fn encryption(
    secured: &Secured,
    (plain, controller): (u16, u16),
    (passwords, certificates): (u16, u16),
) -> Vec<(String, String)> {
    let clients = format!(
        "PLAINTEXT://127.0.0.1:{plain},PASSWORDS://127.0.0.1:{passwords},CERTIFICATES://127.0.0.1:{certificates}"
    );
    let module = "org.apache.kafka.common.security";
    [
        ("listeners", format!("{clients},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", clients),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORDS:SASL_SSL,CERTIFICATES:SSL".to_owned(),
        ),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", secured.server_store().display().to_string()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", secured.ca().display().to_string()),
        ("listener.name.certificates.ssl.client.auth", "required".to_owned()),
        ("listener.name.passwords.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512".to_owned()),
        (
            "listener.name.passwords.plain.sasl.jaas.config",
            format!("{module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
        ),
        (
            "listener.name.passwords.scram-sha-512.sasl.jaas.config",
            format!("{module}.scram.ScramLoginModule required;"),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The folder with Kafka's jars, fetched when needed.
fn library() -> Result<PathBuf, ServerError> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = repository.canonicalize().map_err(failed("find the repository"))?;
    let output = Command::new(repository.join("deploy/local/fetch-kafka.sh"))
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run deploy/local/fetch-kafka.sh"))?;
    if !output.status.success() {
        return Err(ServerError(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(repository.join(".local/kafka/lib"))
}

/// How many brokers the one on this port knows, by a Metadata request (version 1) without topics. An open port alone says
/// nothing: it accepts connections long before the broker is registered.
fn brokers_known_to(port: u16) -> io::Result<usize> {
    // length, api key 3, version 1, correlation id 1, client id of length 0, no topics
    const REQUEST: &[u8] = &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(REQUEST)?;
    // length, correlation id, number of brokers
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let count = u32::from_be_bytes([answer[8], answer[9], answer[10], answer[11]]);
    Ok(usize::try_from(count).unwrap_or(0))
}
