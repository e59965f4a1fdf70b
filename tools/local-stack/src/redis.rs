//! Redis as a child.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::full::Full;
use crate::process::{Data, PORTS, Server, ServerError, failed, free_port};
use crate::secured::{PASSWORD, Secured, USER};

/// How long a command that looks through everything may take.
const WHOLE: Duration = Duration::from_secs(30);

/// What Redis calls the file with its data.
const DUMP: &str = "dump.rdb";

/// How to start Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The port; a free one when absent.
    pub port: Option<u16>,
    /// A folder whose data stay; otherwise they lie in memory and go with the server.
    pub data: Option<PathBuf>,
    /// Whether data survive a restart (an append-only file, synced every second).
    pub persistent: bool,
    /// Whether it is to become a node of a Redis Cluster, see [`RedisServer::form_cluster`].
    pub cluster: bool,
    /// With these certificates it has a second port, with TLS, and both ports want the password. A certificate of the client is not asked
    /// for, but checked when it is shown.
    pub secured: Option<Secured>,
    /// Whether it wants the password without being encrypted.
    pub password: bool,
}

/// What a Redis had in it at some time. Counts them, so that a later one does not take the place of an earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dump(usize);

/// A running Redis. Killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    server: Server,
    port: u16,
    /// The encrypted port, and with what.
    secured: Option<(u16, Secured)>,
    password: bool,
    persistent: bool,
    cluster: bool,
    dumps: usize,
}

impl RedisServer {
    /// Starts Redis and waits until it answers PING.
    ///
    /// # Errors
    /// `redis-server` is not installed, or it did not start; the text has its last words.
    pub fn start(options: &RedisOptions) -> Result<Self, ServerError> {
        let data = Data::new(options.data.as_deref(), "redis")?;
        let free = if options.cluster { free_cluster_port } else { free_port };
        let port = options.port.map_or_else(free, Ok)?;
        let secured = match &options.secured {
            Some(secured) => Some((free()?, secured.clone())),
            None => None,
        };
        let mut redis = Self {
            server: Server::new("Redis (redis-server)", data)?,
            port,
            secured,
            password: options.password,
            persistent: options.persistent,
            cluster: options.cluster,
            dumps: 0,
        };
        redis.run()?;
        Ok(redis)
    }

    fn run(&mut self) -> Result<(), ServerError> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--daemonize", "no", "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--appendonly", if self.persistent { "yes" } else { "no" }]);
        // For going back to an old dump, see `RedisServer::go_back`.
        command.args(["--dbfilename", DUMP, "--enable-debug-command", "local"]);
        if self.cluster {
            // It knows its cluster again after a restart, and goes on serving its own slots while others are away.
            let nodes = self.server.folder().join("nodes.conf");
            command.args([
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ]);
            command.arg("--cluster-config-file").arg(nodes);
        }
        if let Some((tls_port, secured)) = &self.secured {
            let (certificate, key) = secured.server();
            command.args(["--tls-port", &tls_port.to_string(), "--tls-auth-clients", "optional"]);
            command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
            command.arg("--tls-ca-cert-file").arg(secured.ca());
            command.args(["--tls-cluster", if self.cluster { "yes" } else { "no" }]);
            // One with a name, beside the user without one, who is for clients that know a password only.
            command.args(["--user", USER, "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
        }
        if self.is_locked() {
            command.args(["--requirepass", PASSWORD]);
        }
        let door = self.door();
        self.server.start(command, Duration::from_secs(10), || ping(door))
    }

    /// Makes masters of these nodes, each with its share of the slots, and waits until all of them say that it is so.
    ///
    /// # Errors
    /// `redis-cli` is not installed, or it did not succeed; the text has its last words.
    pub fn form_cluster(nodes: &[Self]) -> Result<(), ServerError> {
        let port = |node: &Self| node.secured.as_ref().map_or(node.port, |(port, _)| *port);
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", port(node)));
        let mut create = Command::new("redis-cli");
        if let Some((_, secured)) = nodes.first().and_then(|node| node.secured.as_ref()) {
            create.args(["--tls", "--pass", PASSWORD, "--no-auth-warning", "--cacert"]).arg(secured.ca());
        }
        create.args(["--cluster", "create"]).args(addresses).arg("--cluster-yes");
        let output = create.output().map_err(|error| ServerError(format!("cannot run redis-cli: {error}")))?;
        if !output.status.success() {
            return Err(ServerError(format!("no cluster: {}", String::from_utf8_lossy(&output.stdout))));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !nodes.iter().all(|node| answer(node.door(), "CLUSTER INFO\r\n").contains("cluster_state:ok")) {
            if Instant::now() > deadline {
                return Err(ServerError("the nodes do not become a cluster".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The value of `REDIS_URL`, without the password.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.secured {
            Some((port, _)) => format!("rediss://127.0.0.1:{port}/"),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    /// Where commands of this process go.
    fn door(&self) -> Door {
        Door { port: self.port, locked: self.is_locked() }
    }

    const fn is_locked(&self) -> bool {
        self.password || self.secured.is_some()
    }

    /// Has no place for another client, as at `maxclients`: who is connected is thrown out, and whoever comes is answered
    /// `-ERR max number of clients reached`, to whatever it asks. Redis itself says so before it is asked and hangs up, so that a client
    /// reads the words or finds the connection broken, as it happens; here everybody reads them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn fill(&self) -> Result<Full, ServerError> {
        let (mut inside, port) = (self.door().enter(WHOLE).map_err(failed("command Redis"))?, free_port()?);
        order(&mut inside, &format!("CONFIG SET port {port}"))?;
        // Answered with their number.
        say(&mut inside, "CLIENT KILL TYPE normal SKIPME yes\r\n").map_err(failed("command Redis"))?;
        Full::stand_at(self.port, inside)
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.server.kill9();
    }

    /// Kills it if it runs and starts it again on the same port; without `persistent` it comes back empty.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.server.kill9();
        fs::remove_file(self.server.folder().join(DUMP)).ok();
        self.run()
    }

    /// Kills it if it runs and starts it again with what it had in it then.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn restart_from(&mut self, dump: Dump) -> Result<(), ServerError> {
        self.server.kill9();
        self.lay_out(dump)?;
        self.run()
    }

    /// Forgets everything (`FLUSHALL`) and keeps its connections.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn flush(&self) -> Result<(), ServerError> {
        self.order("FLUSHALL")
    }

    /// A field of a hash, if it is a short text.
    ///
    /// # Errors
    /// When it does not answer, or there is none.
    pub fn hash_field(&self, key: &str, field: &str) -> Result<String, ServerError> {
        let answer = answer(self.door(), &format!("HGET {key} {field}\r\n"));
        let text = answer.strip_prefix('$').and_then(|rest| rest.split("\r\n").nth(1)).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| ServerError("Redis has no such field".to_owned()))
    }

    /// Keeps what it has in it.
    ///
    /// # Errors
    /// When it does not answer, or the disk is full.
    pub fn dump(&mut self) -> Result<Dump, ServerError> {
        self.order("SAVE")?;
        self.dumps += 1;
        let (dump, folder) = (Dump(self.dumps), self.server.folder());
        fs::rename(folder.join(DUMP), folder.join(dump.file())).map_err(failed("keep a dump"))?;
        Ok(dump)
    }

    /// Has in it what it had then, from one moment to the next, and keeps its connections: what a failover to a replica that lagged
    /// behind looks like.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn go_back(&self, dump: Dump) -> Result<(), ServerError> {
        self.lay_out(dump)?;
        self.order("DEBUG RELOAD NOSAVE")
    }

    /// Puts a dump where Redis looks for its data.
    fn lay_out(&self, dump: Dump) -> Result<(), ServerError> {
        let folder = self.server.folder();
        fs::copy(folder.join(dump.file()), folder.join(DUMP)).map_err(failed("restore a dump"))?;
        Ok(())
    }

    /// A command that has to answer OK.
    fn order(&self, command: &str) -> Result<(), ServerError> {
        let mut inside = self.door().enter(WHOLE).map_err(failed("command Redis"))?;
        order(&mut inside, command)
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

impl Dump {
    fn file(self) -> String {
        format!("dump-{}.rdb", self.0)
    }
}

/// A port of a cluster's node: the nodes speak among themselves on the one that is greater by 10,000.
fn free_cluster_port() -> Result<u16, ServerError> {
    // The port of the bus must be one for servers, too: every second one is too high for that.
    for _ in PORTS {
        let port = free_port()?;
        let bus = port.saturating_add(10_000);
        if PORTS.contains(&bus) && TcpListener::bind(("127.0.0.1", bus)).is_ok() {
            return Ok(port);
        }
    }
    Err(ServerError("there are no two free ports for a node of a cluster".to_owned()))
}

/// A port without encryption, and whether it wants the password.
#[derive(Clone, Copy)]
struct Door {
    port: u16,
    locked: bool,
}

fn ping(door: Door) -> bool {
    answer(door, "PING\r\n").starts_with("+PONG")
}

/// The beginning of what it answers to an inline command; nothing when it does not.
fn answer(door: Door, command: &str) -> String {
    ask(door, command, Duration::from_millis(500)).unwrap_or_default()
}

/// The beginning of what it answers to an inline command.
fn ask(door: Door, command: &str, within: Duration) -> std::io::Result<String> {
    say(&mut door.enter(within)?, command)
}

impl Door {
    /// A connection, let in.
    fn enter(self, within: Duration) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(within))?;
        if self.locked {
            stream.write_all(format!("AUTH {PASSWORD}\r\n").as_bytes())?;
            // +OK, and a refusal is longer: then the rest of it is the answer.
            stream.read_exact(&mut [0; 5])?;
        }
        Ok(stream)
    }
}

/// A command that has to answer OK.
pub(crate) fn order(inside: &mut TcpStream, command: &str) -> Result<(), ServerError> {
    let answer = say(inside, &format!("{command}\r\n")).map_err(failed("command Redis"))?;
    if answer.starts_with("+OK") {
        return Ok(());
    }
    Err(ServerError(format!("Redis answers to {command}: {}", answer.trim_end())))
}

/// The beginning of the answer to an inline command.
fn say(stream: &mut TcpStream, command: &str) -> std::io::Result<String> {
    stream.write_all(command.as_bytes())?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
