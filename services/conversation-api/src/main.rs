//! Commands in, conversations out, over HTTP.

use std::process::ExitCode;
use std::sync::Arc;

use connector_host::Backends;
use connector_settings::Reader;
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use conversation_api::Config;

fn main() -> ExitCode {
    connector_host::run("conversation-api", Backends::Shared, settings, async |(graph, own), service| {
        let whatsapp = Arc::new(GraphClient::new(graph)?);
        conversation_api::start(own, whatsapp, service).await?;
        Ok(())
    })
}

/// Both are read before either is missed, so that every problem is reported.
fn settings(reader: &mut Reader<'_>) -> Option<(GraphConfig, Config)> {
    let (graph, own) = (GraphConfig::from(reader), Config::from(reader));
    Some((graph?, own?))
}
