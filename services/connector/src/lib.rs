//! Every service in one process: the default for one machine.

use std::error::Error;
use std::sync::Arc;

use connector_runtime::service::Service;
use connector_settings::{Group, Reader};
use connector_whatsapp::graph::{GraphClient, GraphConfig};

/// The settings of every service.
#[derive(Debug)]
pub struct Config {
    graph: GraphConfig,
    receiver: webhook_receiver::Config,
    inbound: inbound_processor::Config,
    outbound: outbound_sender::Config,
    tracker: opt_in_tracker::Config,
    timer: window_timer::Config,
    catalog: template_catalog::Config,
    api: conversation_api::Config,
}

/// The settings that belong to a service of its own, for the reference page.
pub const GROUPS: &[Group] = &[
    webhook_receiver::Config::GROUP,
    inbound_processor::Config::GROUP,
    outbound_sender::Config::GROUP,
    opt_in_tracker::Config::GROUP,
    window_timer::Config::GROUP,
    template_catalog::Config::GROUP,
    conversation_api::Config::GROUP,
];

impl Config {
    /// Reads all of them; `None` leaves problems behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let graph = GraphConfig::from(reader);
        let receiver = webhook_receiver::Config::from(reader);
        let inbound = inbound_processor::Config::from(reader);
        let outbound = outbound_sender::Config::from(reader);
        let tracker = opt_in_tracker::Config::from(reader);
        let timer = window_timer::Config::from(reader);
        let catalog = template_catalog::Config::from(reader);
        let api = conversation_api::Config::from(reader);
        Some(Self {
            graph: graph?,
            receiver: receiver?,
            inbound: inbound?,
            outbound: outbound?,
            tracker: tracker?,
            timer: timer?,
            catalog: catalog?,
            api: api?,
        })
    }
}

/// Adds every service.
///
/// # Errors
/// When an address is taken or the HTTP client cannot be built.
pub async fn start(config: Config, service: &mut Service) -> Result<(), Box<dyn Error + Send + Sync>> {
    let whatsapp = Arc::new(GraphClient::new(config.graph)?);
    webhook_receiver::start(config.receiver, service).await?;
    inbound_processor::start(config.inbound, service);
    outbound_sender::start(config.outbound, whatsapp.clone(), service);
    opt_in_tracker::start(config.tracker, service);
    window_timer::start(config.timer, service);
    template_catalog::start(config.catalog, whatsapp.clone(), service);
    conversation_api::start(config.api, whatsapp, service).await?;
    Ok(())
}
