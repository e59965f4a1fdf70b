//! The sockets: how many, how slow a client may be, and how they are closed without losing an accepted request.

use std::sync::Arc;
use std::time::Duration;

use connector_runtime::platform::Platform;
use connector_runtime::status::Status;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::receiver::Receiver;

/// Largest head of a request. Meta's are below 2 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// How often the loop says that it is alive.
const PULSE: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is cancelled, then waits for accepted requests.
pub(crate) async fn run(
    listener: TcpListener,
    config: Config,
    platform: Platform,
    shutdown: CancellationToken,
    status: Status,
) {
    let clock = platform.clock.clone();
    let drain = config.drain;
    let places = Arc::new(Semaphore::new(config.connections));
    let mut http = http1::Builder::new();
    // Also ends connections that stay idle between two requests.
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(MAX_HEAD);
    let router = Receiver::new(config, platform).router();
    let connections = GracefulShutdown::new();
    let mut pulse = tokio::time::interval(PULSE);
    status.set_ready();
    loop {
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = pulse.tick() => {
                status.alive(clock.now());
                continue;
            }
            place = places.clone().acquire_owned() => place,
        };
        // The semaphore is never closed.
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            _ = pulse.tick() => {
                status.alive(clock.now());
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually out of file descriptors: others have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that went away or was too slow is its own affair.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    status.set_draining();
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!("requests were not finished in time");
    }
}
