//! Approved templates, from WhatsApp into their topic.

use std::process::ExitCode;
use std::sync::Arc;

use connector_host::Backends;
use connector_settings::Reader;
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use template_catalog::Config;

fn main() -> ExitCode {
    connector_host::run("template-catalog", Backends::Shared, settings, async |(graph, own), service| {
        let whatsapp = Arc::new(GraphClient::new(graph)?);
        template_catalog::start(own, whatsapp, service);
        Ok(())
    })
}

/// Both are read before either is missed, so that every problem is reported.
fn settings(reader: &mut Reader<'_>) -> Option<(GraphConfig, Config)> {
    let (graph, own) = (GraphConfig::from(reader), Config::from(reader));
    Some((graph?, own?))
}
