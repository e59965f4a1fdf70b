//! One server process: started, ended by its id, frozen and thawed.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::watchdog::Watchdog;

/// Why a server could not be started or commanded. There is nothing to retry: the text says what to install or to look at.
#[derive(Debug)]
pub struct ServerError(pub String);

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

/// Adds what was attempted to an IO error.
pub(crate) fn failed(what: &str) -> impl FnOnce(io::Error) -> ServerError + '_ {
    move |error| ServerError(format!("cannot {what}: {error}"))
}

/// Ports for servers. The system gives the ones above (from 32768 on, on Linux) to connections on their way out, so that one found free
/// may be taken by the time it is used.
pub(crate) const PORTS: Range<u16> = 10_240..32_768;

/// How many ports were looked at; each process begins elsewhere.
static LOOKED_AT: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id()) >> 1));

/// A TCP port of 127.0.0.1 that nobody listens on at this moment, and another one each time.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, ServerError> {
    let mut taken = None;
    for _ in PORTS {
        let at = LOOKED_AT.fetch_add(1, Ordering::Relaxed) % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(at).unwrap_or_default();
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => taken = Some(error),
        }
    }
    Err(failed("find a free port")(taken.unwrap_or_else(|| io::ErrorKind::AddrInUse.into())))
}

/// Where a server keeps its data: a given folder that stays, or one of its own that goes with it.
#[derive(Debug)]
pub enum Data {
    /// It stays.
    Kept(PathBuf),
    /// It goes with the server.
    Temporary(TempDir),
}

impl Data {
    /// A folder called `prefix` in `kept`, or a temporary one.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn new(kept: Option<&Path>, prefix: &str) -> Result<Self, ServerError> {
        if let Some(folder) = kept {
            let folder = folder.join(prefix);
            fs::create_dir_all(&folder).map_err(failed("create the data folder"))?;
            // Servers change their working folder; a relative path would then mean another place.
            return Ok(Self::Kept(folder.canonicalize().map_err(failed("resolve the data folder"))?));
        }
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let prefix = format!("local-{prefix}-");
        builder.prefix(&prefix);
        let folder =
            if memory.is_dir() { builder.tempdir_in(memory).or_else(|_| builder.tempdir()) } else { builder.tempdir() };
        Ok(Self::Temporary(folder.map_err(failed("create the data folder"))?))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(folder) => folder,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn removed_with_server(&self) -> Option<&Path> {
        match self {
            Self::Kept(_) => None,
            Self::Temporary(folder) => Some(folder.path()),
        }
    }
}

/// A server process and its data.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Option<Child>,
    // Dropped before the data: it kills by the pid file inside.
    _watchdog: Watchdog,
    data: Data,
}

impl Server {
    /// A server that does not run yet.
    pub fn new(name: impl Into<String>, data: Data) -> Result<Self, ServerError> {
        let watchdog = Watchdog::start(&data.path().join("pid"), data.removed_with_server())
            .map_err(failed("start a shell (sh)"))?;
        Ok(Self { name: name.into(), child: None, _watchdog: watchdog, data })
    }

    /// Its data folder. The output of the server is in `output.log` there.
    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    /// Runs the command and waits until `ready` says so.
    pub fn start(
        &mut self,
        mut command: Command,
        within: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<(), ServerError> {
        self.spawn(&mut command)?;
        self.wait_ready(within, ready)
    }

    /// Runs the command.
    pub fn spawn(&mut self, command: &mut Command) -> Result<(), ServerError> {
        let folder = self.folder().to_owned();
        let output =
            File::options().create(true).append(true).open(folder.join("output.log")).map_err(failed("open a log"))?;
        let errors = output.try_clone().map_err(failed("open a log"))?;
        let child = command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| ServerError(format!("cannot run {}: {error}. {}", self.name, hint(&self.name))))?;
        fs::write(folder.join("pid"), child.id().to_string()).map_err(failed("write the pid file"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until `ready` says so; fails early when the process ends by itself.
    pub fn wait_ready(&mut self, within: Duration, ready: impl Fn() -> bool) -> Result<(), ServerError> {
        let deadline = Instant::now() + within;
        while !ready() {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended || Instant::now() > deadline {
                let why = if ended { "ended by itself" } else { "is not ready in time" };
                let output = fs::read_to_string(self.folder().join("output.log")).unwrap_or_default();
                let tail = output.lines().rev().take(20).collect::<Vec<_>>();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                self.kill9();
                return Err(ServerError(format!("{} {why}; its last words:\n{tail}", self.name)));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the process at once, as a crash would. Its data stay.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
            // An id that is free again may soon be somebody else's.
            fs::remove_file(self.folder().join("pid")).ok();
        }
    }

    /// Asks the process to end (SIGTERM) and kills it when it does not within the bound.
    pub fn stop(&mut self, within: Duration) {
        if self.signal("TERM").is_ok() {
            let deadline = Instant::now() + within;
            while Instant::now() < deadline
                && self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
            {
                thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill9();
    }

    /// Sends a signal by name (`STOP`, `CONT`, `TERM`).
    pub fn signal(&self, signal: &str) -> Result<(), ServerError> {
        let Some(child) = &self.child else { return Err(ServerError(format!("{} does not run", self.name))) };
        let status = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status()
            .map_err(failed("run the kill command"))?;
        if status.success() { Ok(()) } else { Err(ServerError(format!("{} cannot be signalled", self.name))) }
    }

    /// Whether the process ended without being asked to.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// The id of the process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn hint(name: &str) -> &'static str {
    if name.starts_with("Redis") {
        "Install it, for example: apt-get install --yes redis-server"
    } else {
        "Install a Java runtime, for example: apt-get install --yes openjdk-17-jre-headless"
    }
}
