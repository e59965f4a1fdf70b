//! The settings of logs and traces.

use std::collections::HashMap;

use connector_settings::{Group, Kind, Reader, Secret, Variable};
use tracing_subscriber::EnvFilter;

const RUST_LOG: Variable = Variable::with_default(
    "RUST_LOG",
    Kind::Text,
    "info",
    "Which log lines are written, in the syntax of tracing's EnvFilter, e.g. `info,connector_kafka=debug`. \
     Does not affect traces.",
);
const LOG_FORMAT: Variable = Variable::with_default(
    "LOG_FORMAT",
    Kind::Choice(&["text", "json"]),
    "text",
    "How a log line is written to standard error.",
);
const ENDPOINT: Variable = Variable::optional(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    Kind::Url,
    "The OpenTelemetry collector (OTLP over HTTP, protobuf), e.g. `http://collector:4318`. Without it no traces are made.",
);
const HEADERS: Variable = Variable::optional(
    "OTEL_EXPORTER_OTLP_HEADERS",
    Kind::List,
    "Headers for the collector, `name=value` separated by commas, e.g. an API key.",
)
.secret();
const SERVICE_NAME: Variable = Variable::optional(
    "OTEL_SERVICE_NAME",
    Kind::Text,
    "`service.name` of the traces. Without it the name of the service.",
);
const RESOURCE: Variable = Variable::optional(
    "OTEL_RESOURCE_ATTRIBUTES",
    Kind::List,
    "More attributes of the traces' resource, `name=value` separated by commas.",
);
const SAMPLER: Variable = Variable::with_default(
    "OTEL_TRACES_SAMPLER",
    Kind::Choice(&[
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ]),
    "parentbased_always_on",
    "Which traces are kept; `parentbased` follows the decision of whoever began the trace.",
);
const SAMPLER_ARG: Variable = Variable::with_default(
    "OTEL_TRACES_SAMPLER_ARG",
    Kind::Number,
    "1",
    "The share of traces to keep, from 0 to 1, for the `traceidratio` samplers.",
);

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Follow the decision of the trace's beginning where there is one.
    pub parent_based: bool,
    /// The share of traces begun here that is kept, 0 to 1.
    pub ratio: f64,
}

/// Where traces go.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The collector's address without `/v1/traces`.
    pub endpoint: String,
    /// `name=value` separated by commas.
    pub headers: Option<Secret>,
    /// `service.name` where it differs from the name of the service.
    pub service_name: Option<String>,
    /// More resource attributes, in order.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampler: Sampler,
}

/// The settings of logs and traces of a process.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// A filter that was checked to parse.
    pub filter: String,
    /// How a log line is written.
    pub format: LogFormat,
    /// Where traces go; `None` makes no traces.
    pub otlp: Option<Otlp>,
}

impl TelemetryConfig {
    /// The variables this config is made of.
    pub const VARIABLES: &[Variable] =
        &[RUST_LOG, LOG_FORMAT, ENDPOINT, HEADERS, SERVICE_NAME, RESOURCE, SAMPLER, SAMPLER_ARG];

    /// The section of the configuration page.
    pub const GROUP: Group = Group {
        title: "Logs and traces",
        doc: "Logs go to standard error, traces to an OpenTelemetry collector. The names are OpenTelemetry's own.",
        used_by: &[],
        variables: Self::VARIABLES,
    };

    /// Reads the settings; `None` when there is a problem, which the reader keeps.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let filter = reader.text(&RUST_LOG);
        if let Some(Err(error)) = filter.as_ref().map(EnvFilter::try_new) {
            reader.problem(
                &RUST_LOG,
                format!("is not a filter ({error}); expected something like info,connector_kafka=debug"),
            );
        }
        let format = reader.choice(&LOG_FORMAT, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let otlp = Self::otlp(reader);
        Some(Self { filter: filter?, format: format?, otlp: otlp? })
    }

    fn otlp(reader: &mut Reader<'_>) -> Option<Option<Otlp>> {
        // Everything is read, with or without an endpoint: a wrong value is worth telling before it is needed.
        let headers = reader.secret(&HEADERS);
        if headers.as_ref().is_some_and(|headers| pairs(headers.expose().split(',')).is_none()) {
            reader.problem(&HEADERS, "the value is not understood; expected name=value separated by commas");
        }
        let resource = reader.list(&RESOURCE).unwrap_or_default();
        let resource = pairs(resource.iter().map(String::as_str));
        if resource.is_none() {
            reader.problem(&RESOURCE, "the value is not understood; expected name=value separated by commas");
        }
        let ratio = reader.number_in(&SAMPLER_ARG, 0.0..=1.0);
        // (parent based, the share: `None` stands for the one of the argument)
        let sampler = reader.choice(
            &SAMPLER,
            &[
                ("parentbased_always_on", (true, Some(1.0))),
                ("parentbased_always_off", (true, Some(0.0))),
                ("parentbased_traceidratio", (true, None)),
                ("always_on", (false, Some(1.0))),
                ("always_off", (false, Some(0.0))),
                ("traceidratio", (false, None)),
            ],
        );
        let service_name = reader.text(&SERVICE_NAME);
        let set = reader.is_set(&ENDPOINT);
        let endpoint = reader.url_with(&ENDPOINT, &["http", "https"]);
        let (parent_based, fixed) = sampler?;
        let sampler = Sampler { parent_based, ratio: fixed.or(ratio)? };
        let resource = resource?;
        match endpoint {
            Some(endpoint) => Some(Some(Otlp { endpoint, headers, service_name, resource, sampler })),
            None if set => None,
            None => Some(None),
        }
    }
}

impl Otlp {
    /// The headers by name.
    pub(crate) fn header_map(&self) -> HashMap<String, String> {
        let headers = self.headers.as_ref().and_then(|headers| pairs(headers.expose().split(',')));
        headers.unwrap_or_default().into_iter().collect()
    }
}

/// Reads `name=value` pieces; `None` when one of them is not.
fn pairs<'a>(pieces: impl Iterator<Item = &'a str>) -> Option<Vec<(String, String)>> {
    pieces
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (name, value) = piece.split_once('=')?;
            (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_settings::load;

    #[test]
    fn without_settings_there_are_text_logs_at_info_and_no_traces() {
        let config = load(&[], TelemetryConfig::from).unwrap();
        assert_eq!((config.filter.as_str(), config.format), ("info", LogFormat::Text));
        assert!(config.otlp.is_none());
    }

    #[test]
    fn an_endpoint_turns_traces_on() {
        let source = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test, team=a"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("LOG_FORMAT", "json"),
        ];
        let config = load(&source, TelemetryConfig::from).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.format, LogFormat::Json);
        let otlp = config.otlp.unwrap();
        assert_eq!(otlp.endpoint, "http://collector:4318");
        assert_eq!(otlp.header_map()["api-key"], "hunter2");
        assert_eq!(otlp.resource.len(), 2);
        assert_eq!(otlp.sampler, Sampler { parent_based: false, ratio: 0.25 });
    }

    #[test]
    fn all_problems_are_told_and_no_header_among_them() {
        let source = [
            ("RUST_LOG", "connector=loud"),
            ("LOG_FORMAT", "xml"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        let problems = load(&source, TelemetryConfig::from).unwrap_err();
        assert_eq!(problems.0.len(), 7, "{problems}");
        assert!(!problems.to_string().contains("hunter2"));
    }
}
