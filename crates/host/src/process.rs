//! From the environment to an exit code.

use std::future::pending;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::clock::SystemClock;
use connector_ports::ids::RandomIds;
use connector_ports::log::TopicSpec;
use connector_ports::{Clock, Log, Retry};
use connector_runtime::platform::Platform;
use connector_runtime::provision;
use connector_runtime::service::Service;
use connector_runtime::stream_key::{self, StreamKeyError};
use connector_settings::{Env, Reader, load};
use connector_telemetry::{Metrics, TelemetryConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{Parts, bind, serve_admin};
use crate::backend::{Backend, Backends, open};
use crate::config::HostConfig;

/// Why a process did not start or ended: for people, printed with its causes.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// The process was told something it cannot work with (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;

/// How often a start says what it waits for.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Runs a process: reads all settings, opens the backend, starts what `start` adds to the service, and ends on SIGTERM or Ctrl-C
/// within its bound. Exit code 64 for settings (every problem is listed), 1 for a failure, 0 after a drain.
pub fn run<C>(
    name: &'static str,
    accepts: Backends,
    config: impl FnOnce(&mut Reader<'_>) -> Option<C>,
    start: impl AsyncFnOnce(C, &mut Service) -> Result<(), StartError>,
) -> ExitCode {
    let settings = load(&Env, |reader| {
        let telemetry = TelemetryConfig::from(reader);
        let host = HostConfig::from(reader);
        let backend = Backend::from(reader, accepts);
        let own = config(reader);
        Some((telemetry?, host?, backend?, own?))
    });
    let (telemetry, host, backend, own) = match settings {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&format!("{name} cannot start:\n{problems}"));
            return ExitCode::from(USAGE);
        }
    };
    let guard = match connector_telemetry::init(&telemetry, name, &host.instance) {
        Ok(guard) => guard,
        Err(error) => {
            complain(&format!("{name} cannot start: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{name} cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(live(name, host, backend, own, start));
    // Threads that wait for a broker that is away must not hold the process back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let code = match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "{name} ends");
            ExitCode::FAILURE
        }
    };
    drop(guard);
    code
}

async fn live<C>(
    name: &'static str,
    host: HostConfig,
    backend: Backend,
    own: C,
    start: impl AsyncFnOnce(C, &mut Service) -> Result<(), StartError>,
) -> Result<(), StartError> {
    let listener = bind(host.admin).await?;
    tracing::info!(service = name, admin = %listener.local_addr()?, instance = host.instance, "starting");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (log, gate) = open(&backend, &clock)?;
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), option_env!("GIT_REVISION").unwrap_or("unknown")));
    // Health is answered from the first moment: waiting for a broker is being alive, and not being ready.
    let (parts, admin_stop) = (Parts::starting(), CancellationToken::new());
    let admin = tokio::spawn(serve_admin(listener, parts.clone(), clock.clone(), metrics.clone(), admin_stop.clone()));
    let shutdown = CancellationToken::new();
    let platform = Platform {
        log: log.clone(),
        gate,
        clock: clock.clone(),
        ids: Arc::new(RandomIds),
        topics: host.topics.clone(),
        partitions: host.partitions,
        keys: host.keys.clone(),
        rules: host.rules.clone(),
        instance: format!("{name}.{}", host.instance),
        metrics,
    };
    let mut service = Service::new(platform.clone(), shutdown.clone());

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ready = topics_are_there(log.as_ref(), &host, &backend, clock.as_ref()) => ready?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    let in_log = tokio::select! {
        in_log = patiently(clock.as_ref(), "the log", async || stream_key::check_log(&platform).await) => in_log?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // Whoever can do without the gate for now goes on without it; nobody decides anything without it.
    let mut gate_checked = pin!(async {
        let checked = patiently(clock.as_ref(), "the gate", async || stream_key::check_gate(&platform, in_log).await);
        match checked.await {
            Ok(()) => pending().await,
            Err(error) => error,
        }
    });
    start(own, &mut service).await?;

    parts.started(service.statuses());
    let mut running = tokio::spawn(service.run());
    let end = tokio::select! {
        end = &mut running => end,
        error = &mut gate_checked => return Err(error),
        _ = terminate.recv() => drain(name, host.drain, &shutdown, &mut running, &mut terminate, &mut interrupt).await?,
        _ = interrupt.recv() => drain(name, host.drain, &shutdown, &mut running, &mut terminate, &mut interrupt).await?,
    };
    admin_stop.cancel();
    admin.abort();
    Ok(end??)
}

type Running<E> = tokio::task::JoinHandle<Result<(), E>>;

async fn drain<E>(
    name: &'static str,
    bound: Duration,
    shutdown: &CancellationToken,
    running: &mut Running<E>,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> Result<Result<Result<(), E>, tokio::task::JoinError>, StartError> {
    tracing::info!(service = name, "draining");
    shutdown.cancel();
    tokio::select! {
        end = running => Ok(end),
        () = tokio::time::sleep(bound) => Err("the drain took longer than its bound".into()),
        _ = terminate.recv() => Err("ended by a second signal".into()),
        _ = interrupt.recv() => Err("ended by a second signal".into()),
    }
}

/// Creates the topics of an embedded log; waits for those of a shared one, and refuses other partition counts. What waiting does not
/// cure, as a wrong password, ends the process.
async fn topics_are_there(
    log: &dyn Log,
    host: &HostConfig,
    backend: &Backend,
    clock: &dyn Clock,
) -> Result<(), StartError> {
    let specs: Vec<TopicSpec> = provision::specs(&host.topics, host.partitions, 1);
    if backend.is_embedded() {
        let checked = provision::apply(log, &specs).await?;
        if let Some(refusal) = provision::refusal(&checked) {
            return Err(refusal.into());
        }
        // The file knows its topics; how long their records are kept it learns at each start.
        for spec in &specs {
            log.create_topic(spec).await?;
        }
        return Ok(());
    }
    let mut said: Option<Timestamp> = None;
    loop {
        let tell = said.is_none_or(|last| clock.now().since(last) >= TOLD_AGAIN);
        if tell {
            said = Some(clock.now());
        }
        match provision::check(log, &specs).await {
            Ok(checked) => {
                if let Some(refusal) = provision::refusal(&checked) {
                    return Err(refusal.into());
                }
                let missing = checked.iter().filter(|topic| !topic.usable()).count();
                if missing == 0 {
                    for topic in &checked {
                        topic.deviations().for_each(|told| tracing::warn!(topic = %topic.name, "{told}"));
                    }
                    return Ok(());
                }
                if tell {
                    tracing::warn!(missing, "waiting for topics: run connectorctl topics apply");
                }
            }
            Err(error) if error.retry() == Retry::Never => return Err(error.into()),
            Err(error) if tell => tracing::warn!(%error, "waiting for the log"),
            Err(_) => {}
        }
        clock.sleep(Duration::from_millis(500)).await;
    }
}

/// Asks again until there is an answer. What waiting does not cure ends it.
async fn patiently<T>(
    clock: &dyn Clock,
    whom: &str,
    ask: impl AsyncFn() -> Result<T, StreamKeyError>,
) -> Result<T, StartError> {
    let mut said: Option<Timestamp> = None;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let retry = match &error {
            StreamKeyError::Another { .. } => Retry::Never,
            StreamKeyError::Log(error) => error.retry(),
            StreamKeyError::Gate(error) => error.retry(),
        };
        if retry == Retry::Never {
            return Err(error.into());
        }
        if said.is_none_or(|last| clock.now().since(last) >= TOLD_AGAIN) {
            said = Some(clock.now());
            tracing::warn!(%error, "waiting for {whom}");
        }
        clock.sleep(Duration::from_millis(500)).await;
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Before logging works, and where it cannot.
fn complain(text: &str) {
    use std::io::Write;
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
