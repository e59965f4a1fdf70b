//! `/livez`, `/readyz` and `/metrics`.
//!
//! Alive: every loop went round, or waits for something outside, within a minute. Ready: every part has its partitions and has read its state, and nothing drains.
//! Neither asks Kafka or Redis: an absent broker must not make an orchestrator kill the fleet.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_runtime::status::Status;
use connector_telemetry::{Metrics, metrics};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{Limits, Server, Work};

/// A loop that has not gone round for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Probes and scrapes at a time.
const CONNECTIONS: usize = 64;

/// The parts of the process, as far as they exist: before the service has started there is one that is not ready.
#[derive(Clone)]
pub(crate) struct Parts(Arc<RwLock<Vec<(&'static str, Status)>>>);

impl Parts {
    /// A process that is starting: alive, not ready.
    pub(crate) fn starting() -> Self {
        Self(Arc::new(RwLock::new(vec![("the start", Status::default())])))
    }

    /// The service has started.
    pub(crate) fn started(&self, parts: Vec<(&'static str, Status)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = parts;
    }

    /// Names of the parts for which `good` does not hold.
    fn without(&self, good: impl Fn(&Status) -> bool) -> Vec<&'static str> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, status)| !good(status)).map(|(name, _)| *name).collect()
    }
}

#[derive(Clone)]
struct Facts {
    parts: Parts,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Serves until `shutdown` is cancelled.
pub(crate) async fn serve_admin(
    listener: TcpListener,
    parts: Parts,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let facts = Facts { parts, clock: clock.clone(), metrics };
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(facts);
    let limits = Limits { connections: CONNECTIONS, drain: Duration::from_secs(1), ..Limits::default() };
    // Its own status is nobody's.
    let server = Server { listener, router, limits, work: Work::FromHead };
    server.run(clock, Status::default(), shutdown).await;
}

/// Binds the address, so that a port in use is found before anything else starts.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn livez(State(facts): State<Facts>) -> (StatusCode, String) {
    let now = facts.clock.now();
    // A part without a loop never says when it went round: it is alive as long as the process is.
    let stuck = |status: &Status| {
        let last = status.alive_at();
        last > Timestamp::EPOCH && now.since(last) > STUCK
    };
    answer(&facts.parts, |status| !stuck(status), "stuck")
}

async fn readyz(State(facts): State<Facts>) -> (StatusCode, String) {
    answer(&facts.parts, Status::is_ready, "not ready")
}

fn answer(parts: &Parts, good: impl Fn(&Status) -> bool, bad: &str) -> (StatusCode, String) {
    let named = parts.without(good);
    if named.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{bad}: {}\n", named.join(", ")))
    }
}

async fn render(State(facts): State<Facts>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], facts.metrics.encode())
}
