//! Receives Meta's webhooks: what was signed is durable before it is answered with 200.
//!
//! `receiver` answers requests, `intake` reads bodies within the memory there is, [`connector_host::server`] owns the sockets: header
//! timeout, drain, number of connections. Mutual TLS and Meta's address ranges are a matter of the proxy in front.

mod config;
mod intake;
mod receiver;

use std::net::SocketAddr;

use connector_host::server::{Limits, Server, Work};
use connector_runtime::service::Service;
use connector_runtime::status::Status;
use thiserror::Error;
use tokio::net::TcpListener;

pub use config::Config;
pub use receiver::Receiver;

/// The service's name.
pub const SERVICE: &str = "webhook-receiver";

/// Why the receiver cannot start. Nothing to wait for.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is in use, or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Binds the configured address, then adds the server; returns the address that was bound.
///
/// # Errors
/// When the address cannot be bound.
pub async fn start(config: Config, service: &mut Service) -> Result<SocketAddr, StartError> {
    let address = config.listen;
    let bind = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    start_on(listener, config, service);
    Ok(bound)
}

/// Adds the server on a socket that is bound already.
pub fn start_on(listener: TcpListener, config: Config, service: &mut Service) {
    let status = Status::default();
    let platform = service.platform().clone();
    let limits = Limits { connections: config.connections, header_timeout: config.header_timeout, drain: config.drain };
    let clock = platform.clock.clone();
    let router = Receiver::new(config, platform).router();
    // Whoever sends is known only when the whole body is here.
    let server = Server { listener, router, limits, work: Work::FromHandler };
    let run = server.run(clock, status.clone(), service.shutdown());
    service.task(SERVICE, status, async move {
        run.await;
        Ok(())
    });
}
