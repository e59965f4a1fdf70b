//! Starts logs and traces for a process.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, Otlp, TelemetryConfig};

/// How long the end of a process waits for the collector to take the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Logs have one destination in a process, whoever asks first decides. The one static outside tests.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Why logs and traces could not be started. Retry: no, the settings are wrong.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is not a filter; [`TelemetryConfig::from`] finds this earlier.
    #[error("the log filter is not understood")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of traces refused its settings.
    #[error("the exporter of traces cannot be built")]
    Exporter(#[from] ExporterBuildError),
}

/// Keeps traces going; its drop hands the last spans to the collector, for at most three seconds. Hold it until the end of
/// `main`.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Starts logs on standard error, and traces when the config names a collector. `service` and `instance` become
/// `service.name` and `service.instance.id` of the traces.
///
/// A process does this once. Another call (several services in one process, several tests in one binary) changes nothing
/// and returns a guard that does nothing.
///
/// # Errors
/// [`TelemetryError`] when filter or exporter refuse their settings. A collector that is away is no error.
pub fn init(config: &TelemetryConfig, service: &str, instance: &str) -> Result<TelemetryGuard, TelemetryError> {
    if STARTED.swap(true, Ordering::SeqCst) {
        return Ok(TelemetryGuard { provider: None });
    }
    let started = start(config, service, instance);
    if started.is_err() {
        STARTED.store(false, Ordering::SeqCst);
    }
    started
}

/// A client of a Redis Cluster whose nodes are away writes a line for each of its attempts, some hundred thousand a second. Our adapter says
/// that Redis is away. And rdkafka closes the queue of a consumer that is dropped though we have closed it before, and calls the answer an
/// error. A filter that names the same target wins.
const CHATTY: &str = "redis::cluster_handling=off,rdkafka::consumer::base_consumer=off";

fn start(config: &TelemetryConfig, service: &str, instance: &str) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::try_new(format!("{CHATTY},{}", config.filter))?;
    let provider = config.otlp.as_ref().map(|otlp| tracer_provider(otlp, service, instance)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("connector"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(traced_targets())
    });
    let logs = match config.format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    // Somebody else may have set a subscriber (a test that captures logs): theirs stays, and nothing of ours runs.
    match tracing_subscriber::registry().with(traces).with(logs).try_init() {
        Ok(()) => Ok(TelemetryGuard { provider }),
        Err(_) => Ok(TelemetryGuard { provider: None }),
    }
}

/// Spans of the connector at info; nothing of the HTTP client that exports them, which would trace its own exports.
fn traced_targets() -> Targets {
    [
        "hyper",
        "hyper_util",
        "reqwest",
        "h2",
        "opentelemetry",
        "opentelemetry_sdk",
        "opentelemetry_otlp",
        "opentelemetry-otlp",
    ]
    .into_iter()
    .fold(Targets::new().with_default(LevelFilter::INFO), |targets, target| {
        targets.with_target(target, LevelFilter::OFF)
    })
}

fn tracer_provider(otlp: &Otlp, service: &str, instance: &str) -> Result<SdkTracerProvider, TelemetryError> {
    // The batch processor runs on a plain thread, where an async client panics and spans vanish silently. Hence the
    // blocking client, chosen by the feature of opentelemetry-otlp in the workspace.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", otlp.endpoint))
        .with_headers(otlp.header_map())
        .build()?;
    let own = [
        KeyValue::new("service.name", otlp.service_name.clone().unwrap_or_else(|| service.to_owned())),
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let given = otlp.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    // Later attributes win: OTEL_SERVICE_NAME stands above OTEL_RESOURCE_ATTRIBUTES, as the specification says.
    let resource = Resource::builder_empty().with_attributes(given.chain(own)).build();
    let root = Sampler::TraceIdRatioBased(otlp.sampler.ratio);
    let sampler = if otlp.sampler.parent_based { Sampler::ParentBased(Box::new(root)) } else { root };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).with_sampler(sampler).build())
}
