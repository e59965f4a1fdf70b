//! Prometheus metrics of a process, all declared in this module.
//!
//! One [`Metrics`] per process, passed around in an `Arc` and never a static, so that two copies of a process can run in
//! one test. Labels are closed sets of words: enums where the words are ours here, `&'static str` where they belong to
//! the domain (a reason for a rejection). No label ever names a user, a contact or a conversation.
//!
//! [`Metrics::encode`] answers `GET /metrics`; [`Metrics::render_reference`] is the page `docs/reference/metrics.md`.

mod alerts;
mod families;
mod labels;
mod registrar;

pub use families::{Api, Consumer, Gate, Inbound, Outbound, Timers, Webhook, Worker};
pub use labels::{
    AuditResult, Delivery, InboundOutcome, ItemKind, Rebalance, TransactionResult, VerdictClass, WindowTransition, Word,
};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use labels::BuildLabels;
use registrar::{Description, Registrar};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    /// The consume loop, by worker.
    pub consumer: Consumer,
    /// Admission and dispatch of messages.
    pub outbound: Outbound,
    /// Deliveries from Meta.
    pub webhook: Webhook,
    /// Items taken from deliveries.
    pub inbound: Inbound,
    /// The projection in Redis.
    pub gate: Gate,
    /// Windows and their deadlines.
    pub timers: Timers,
    /// HTTP requests.
    pub api: Api,
    registry: Registry,
    inventory: Vec<Description>,
}

impl Metrics {
    /// Declares every metric, and sets `connector_build_info` to the version and revision (commit) of the program.
    pub fn new(version: &'static str, revision: &'static str) -> Self {
        let mut registrar = Registrar::new();
        let build = registrar.gauges::<BuildLabels>("build_info", "Always 1; its labels say what is running");
        build.get_or_create(&BuildLabels { version, revision }).set(1);
        let consumer = Consumer::new(&mut registrar);
        let outbound = Outbound::new(&mut registrar);
        let webhook = Webhook::new(&mut registrar);
        let inbound = Inbound::new(&mut registrar);
        let gate = Gate::new(&mut registrar);
        let timers = Timers::new(&mut registrar);
        let api = Api::new(&mut registrar);
        let (registry, inventory) = registrar.finish();
        Self { consumer, outbound, webhook, inbound, gate, timers, api, registry, inventory }
    }

    /// The metrics as they are now, in the OpenMetrics text format, see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut page = String::new();
        // Fails only when writing fails, and a String always takes more.
        let _ = text::encode(&mut page, &self.registry);
        page
    }

    /// The reference page of all metrics, in Markdown. Ends with one line end.
    pub fn render_reference(&self) -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             Every service answers `GET /metrics` in the OpenMetrics text format. A metric of a part that a service does not\n\
             have stays at zero or absent. Times are in seconds. No label names a user, a contact or a conversation.\n\n\
             This page is generated from the declarations in the code.\n\n\
             | Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n",
        );
        for description in &self.inventory {
            let labels = if description.labels.is_empty() {
                "none".to_owned()
            } else {
                let labels = description.labels.iter().map(|(name, values)| format!("`{name}`: {values}"));
                labels.collect::<Vec<_>>().join("; ")
            };
            let Description { name, kind, help, alert, .. } = description;
            let alert = alert.map(|alert| format!(" {}.", alerts::words(alert))).unwrap_or_default();
            page.push_str(&format!("| `{name}` | {kind} | {labels} | {help}.{alert} |\n"));
        }
        page
    }

    /// The rules of Prometheus for everything that a person has to look at, `deploy/prometheus/alerts.yaml`.
    #[must_use]
    pub fn render_alerts(&self) -> String {
        alerts::render(&self.inventory)
    }
}
