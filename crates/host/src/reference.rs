//! The page that documents every setting, made from the declarations themselves.

use connector_embedded::EmbeddedConfig;
use connector_kafka::KafkaConfig;
use connector_redis::RedisConfig;
use connector_settings::{Group, render_reference};
use connector_telemetry::TelemetryConfig;
use connector_whatsapp::graph::GRAPH;

use crate::backend::Backend;
use crate::config::HostConfig;

/// The settings that this crate reads for every process, and those of the adapters.
#[must_use]
pub fn groups() -> Vec<Group> {
    vec![
        HostConfig::GROUP,
        Backend::GROUP,
        KafkaConfig::GROUP,
        RedisConfig::GROUP,
        EmbeddedConfig::GROUP,
        GRAPH,
        TelemetryConfig::GROUP,
    ]
}

/// `docs/reference/configuration.md`. `own` are the groups of the services.
#[must_use]
pub fn page(own: &[Group]) -> String {
    let mut all = groups();
    all.extend(own.iter().cloned());
    render_reference(&all)
}
