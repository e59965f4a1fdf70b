//! The conversation API: a read model of the log, and HTTP for everything a MultiLine client does.
//!
//! Writes become commands and directory records in their topics; nothing is decided here. Reads come from a read model that
//! follows the log ([`model`]) and asks the domain for the composer state, so that screen and gate cannot disagree.

mod config;
mod http;
pub mod model;
mod pending;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use connector_contracts::Topic;
use connector_host::server::{Server, Work};
use connector_ports::WhatsApp;
use connector_runtime::numbers::is_kept;
use connector_runtime::service::Service;
use connector_runtime::status::Status;
use connector_runtime::table::Table;
use thiserror::Error;
use tokio::net::TcpListener;

pub use config::Config;
use model::ReadModel;
use model::follow::Follower;
use model::sqlite::SqliteModel;

/// The service's name, and the producer of what it writes.
pub const NAME: &str = "conversation-api";

/// Why the API could not start. Another try with the same settings ends the same way, unless somebody frees the address.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The read model's file cannot be used.
    #[error("cannot open the read model")]
    Model(#[from] model::ModelError),
}

/// Binds the address and adds the API to a service. Answers where it listens.
///
/// # Errors
/// See [`StartError`].
pub async fn start(
    config: Config,
    whatsapp: Arc<dyn WhatsApp>,
    service: &mut Service,
) -> Result<SocketAddr, StartError> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    start_on(listener, config, whatsapp, service)
}

/// As [`start`], on a socket that is bound already.
///
/// # Errors
/// See [`StartError`].
pub fn start_on(
    listener: TcpListener,
    config: Config,
    whatsapp: Arc<dyn WhatsApp>,
    service: &mut Service,
) -> Result<SocketAddr, StartError> {
    let address = config.listen;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
    let platform = service.platform().clone();
    let (shutdown, clock, followed) = (service.shutdown(), platform.clock.clone(), platform.clone());
    let stream_key = platform.keys.fingerprint();
    let model: Arc<dyn ReadModel> = Arc::new(SqliteModel::open(config.read_model.as_deref(), &stream_key)?);
    let (follower, changes) = Follower::new(platform.clone(), model.clone());
    let pending = follower.pending();
    let directory = platform.topic(Topic::Directory);
    let numbers = Table::new(platform.log.clone(), platform.clock.clone(), directory, is_kept);
    let templates =
        Table::new(platform.log.clone(), platform.clock.clone(), platform.topic(Topic::Templates), |_| true);
    let api = http::Api {
        writer: Arc::new(write::Writer::new(platform.log.clone())),
        tokens: Arc::new(http::auth::Tokens::new(config.tokens)),
        operators: config.operators.map(|operators| Arc::new(http::auth::Tokens::new(operators))),
        platform,
        model,
        changes,
        numbers: numbers.clone(),
        templates: templates.clone(),
        whatsapp,
        shutdown: shutdown.clone(),
        pending: pending.clone(),
    };

    let status = Status::default();
    let (token, following) = (shutdown.clone(), status.clone());
    service.task("conversation-api", status, async move {
        let waiting = pending.follow(followed, token.clone());
        let tables = async { tokio::join!(numbers.follow(token.clone()), templates.follow(token.clone()), waiting) };
        tokio::join!(follower.run(following, token.clone()), tables);
        Ok(())
    });
    // Answering is possible at once; whether the answers are up to date is the other part's status.
    let status = Status::default();
    let server = Server { listener, router: http::router(api), limits: config.limits, work: Work::FromHead };
    let run = server.run(clock, status.clone(), shutdown);
    service.task("conversation-api-http", status, async move {
        run.await;
        Ok(())
    });
    Ok(address)
}
