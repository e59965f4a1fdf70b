//! What a process says about itself: logs and traces through `tracing` ([`init`]), trace context carried across Kafka
//! ([`current_traceparent`], [`span_from`]), and Prometheus metrics ([`Metrics`]).
//!
//! Logs and spans may carry ids; metrics carry closed sets of words only. Phone numbers, message texts and secrets go
//! nowhere: the types that hold them do not print them, and the `testing` feature has the means to check it.

mod config;
mod context;
mod init;
pub mod metrics;
pub mod semconv;

#[cfg(feature = "testing")]
mod capture;

#[cfg(feature = "testing")]
pub use capture::{LogCapture, capture_all_logs, capture_logs};
pub use config::{LogFormat, Otlp, Sampler, TelemetryConfig};
pub use context::{current_traceparent, link_from, span_from};
pub use init::{TelemetryError, TelemetryGuard, init};
pub use metrics::Metrics;
