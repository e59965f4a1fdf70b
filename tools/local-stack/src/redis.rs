//! Redis as a child.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::{Data, Server, ServerError, free_port};

/// How to start Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The port; a free one when absent.
    pub port: Option<u16>,
    /// A folder whose data stay; otherwise they lie in memory and go with the server.
    pub data: Option<PathBuf>,
    /// Whether data survive a restart (an append-only file, synced every second).
    pub persistent: bool,
}

/// A running Redis. Killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    server: Server,
    port: u16,
    persistent: bool,
}

impl RedisServer {
    /// Starts Redis and waits until it answers PING.
    ///
    /// # Errors
    /// `redis-server` is not installed, or it did not start; the text has its last words.
    pub fn start(options: &RedisOptions) -> Result<Self, ServerError> {
        let data = Data::new(options.data.as_deref(), "redis")?;
        let port = match options.port {
            Some(port) => port,
            None => free_port()?,
        };
        let mut redis =
            Self { server: Server::new("Redis (redis-server)", data)?, port, persistent: options.persistent };
        redis.run()?;
        Ok(redis)
    }

    fn run(&mut self) -> Result<(), ServerError> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--daemonize", "no", "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--appendonly", if self.persistent { "yes" } else { "no" }]);
        let port = self.port;
        self.server.start(command, Duration::from_secs(10), || ping(port))
    }

    /// The value of `REDIS_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
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
        self.run()
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

fn ping(port: u16) -> bool {
    let answer = || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    };
    answer().unwrap_or(false)
}
