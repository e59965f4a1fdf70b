//! Registers metrics and keeps a list of what was registered, from which the reference page is made.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

const PREFIX: &str = "connector";

/// Times of work inside the process and calls nearby: a millisecond to ten seconds.
pub(super) const FAST: Buckets =
    Buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
/// Times that follow a clock or a queue: ten milliseconds to ten minutes.
pub(super) const SLOW: Buckets =
    Buckets(&[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]);

/// The upper bounds of a histogram, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// A gauge of seconds.
pub(super) type Seconds = Gauge<f64, AtomicU64>;
/// Histograms by label.
pub(super) type Histograms<L> = Family<L, Histogram, Buckets>;

/// A set of labels that can say what its values are.
pub(super) trait Labels: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static {
    /// Each label's name and values.
    fn describe() -> Vec<(&'static str, String)>;
}

/// When a person has to look.
#[derive(Debug, Clone, Copy)]
pub(super) enum Alert {
    /// It is 0 while all is well.
    Any,
    /// These values of a label are 0 while all is well.
    AnyOf(&'static str, &'static [&'static str]),
    /// It is above this for five minutes.
    Above(u32),
}

/// What the reference page says about a metric.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) help: &'static str,
    pub(super) alert: Option<Alert>,
}

/// Registers metrics under the common prefix. Names are given without prefix, unit and `_total`.
pub(super) struct Registrar {
    registry: Registry,
    inventory: Vec<Description>,
    alert: Option<Alert>,
}

impl Registrar {
    pub(super) fn new() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), inventory: Vec::new(), alert: None }
    }

    pub(super) fn finish(self) -> (Registry, Vec<Description>) {
        (self.registry, self.inventory)
    }

    /// The metric that is declared next has an alert.
    pub(super) fn alert(&mut self, alert: Alert) -> &mut Self {
        self.alert = Some(alert);
        self
    }

    pub(super) fn counter(&mut self, name: &str, help: &'static str) -> Counter {
        self.plain(name, "counter", help, None, Counter::default())
    }

    pub(super) fn counters<L: Labels>(&mut self, name: &str, help: &'static str) -> Family<L, Counter> {
        self.add(name, "counter", help, None, L::describe(), Family::default())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &'static str) -> Gauge {
        self.plain(name, "gauge", help, None, Gauge::default())
    }

    pub(super) fn gauges<L: Labels>(&mut self, name: &str, help: &'static str) -> Family<L, Gauge> {
        self.add(name, "gauge", help, None, L::describe(), Family::default())
    }

    pub(super) fn seconds(&mut self, name: &str, help: &'static str) -> Seconds {
        self.plain(name, "gauge", help, Some(Unit::Seconds), Gauge::default())
    }

    pub(super) fn seconds_by<L: Labels>(&mut self, name: &str, help: &'static str) -> Family<L, Seconds> {
        self.add(name, "gauge", help, Some(Unit::Seconds), L::describe(), Family::default())
    }

    pub(super) fn histogram(&mut self, name: &str, help: &'static str, buckets: Buckets) -> Histogram {
        self.plain(name, "histogram", help, Some(Unit::Seconds), buckets.new_metric())
    }

    pub(super) fn histograms<L: Labels>(&mut self, name: &str, help: &'static str, buckets: Buckets) -> Histograms<L> {
        let family = Family::new_with_constructor(buckets);
        self.add(name, "histogram", help, Some(Unit::Seconds), L::describe(), family)
    }

    fn plain<M: Metric + Clone>(
        &mut self,
        name: &str,
        kind: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        metric: M,
    ) -> M {
        self.add(name, kind, help, unit, Vec::new(), metric)
    }

    fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        kind: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        labels: Vec<(&'static str, String)>,
        metric: M,
    ) -> M {
        let unit_suffix = if unit.is_some() { "_seconds" } else { "" };
        let total = if kind == "counter" { "_total" } else { "" };
        let (name_in_full, alert) = (format!("{PREFIX}_{name}{unit_suffix}{total}"), self.alert.take());
        self.inventory.push(Description { name: name_in_full, kind, labels, help, alert });
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
            None => self.registry.register(name, help, metric.clone()),
        }
        metric
    }
}
