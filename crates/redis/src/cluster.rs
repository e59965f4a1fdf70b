//! A connection to a Redis Cluster that finds back from any loss.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::{ConnectionInfo, ErrorKind, RedisError, RedisResult};

use crate::config::RedisConfig;
use crate::probe::Probe;

/// How long nobody may have reached any node before the connection is given up for a new one to the nodes of the settings.
const LOST: Duration = Duration::from_secs(2);

/// The same, when it does not even know a node any more.
const ASTRAY: Duration = Duration::from_millis(100);

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    client: ClusterClient,
    probe: Probe,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    connection: ClusterConnection,
    /// Counts the connections.
    number: u64,
    /// Since when nobody has reached any node by way of this connection.
    failing: Option<Instant>,
}

impl Cluster {
    pub(crate) fn new(nodes: Vec<ConnectionInfo>, config: &RedisConfig) -> RedisResult<Self> {
        // Few attempts, because callers repeat by themselves: an answer that comes late is no use to them.
        let client = ClusterClient::builder(nodes.clone()).retries(2).min_retry_wait(50).max_retry_wait(500).build()?;
        let probe = Probe::new(&nodes, None, config.timeout)?;
        let connection = connect(&client, config.timeout);
        let state = Mutex::new(State { connection, number: 0, failing: None });
        Ok(Self(Arc::new(Shared { client, probe, timeout: config.timeout, state })))
    }

    /// Why none of the nodes of the settings lets us in, if that is so: a client of a cluster only says that it knows none.
    pub(crate) async fn refusal(&self) -> Option<RedisError> {
        self.0.probe.refusal().await
    }

    /// The result of a call on the connection.
    pub(crate) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut ClusterConnection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let (mut connection, number) = self.0.state(|state| (state.connection.clone(), state.number));
        let result = call(&mut connection).await;
        self.0.heard(number, result.as_ref().err());
        match result {
            Err(error) if error.kind() == ErrorKind::ClusterConnectionNotFound => {
                Err(self.0.probe.refusal().await.unwrap_or(error))
            }
            result => result,
        }
    }
}

impl Shared {
    fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A client that has lost all of its nodes goes on asking those it last knew, without a pause and for ever, even if it knows none
    /// any more. It never thinks of the nodes it was told at the beginning. So it is thrown away.
    fn heard(&self, number: u64, error: Option<&RedisError>) {
        let patience = error.and_then(|error| match error.kind() {
            ErrorKind::Io => Some(LOST),
            ErrorKind::ClusterConnectionNotFound => Some(ASTRAY),
            _ => None,
        });
        self.state(|state| {
            if state.number != number {
                return;
            }
            // Whatever else was answered, a node did.
            let Some(patience) = patience else {
                state.failing = None;
                return;
            };
            let since = *state.failing.get_or_insert_with(Instant::now);
            if since.elapsed() >= patience {
                *state = State { connection: connect(&self.client, self.timeout), number: number + 1, failing: None };
            }
        });
    }
}

/// A connection that is made when first used.
fn connect(client: &ClusterClient, timeout: Duration) -> ClusterConnection {
    let settings = ClusterConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
    client.get_pending_async_connection_with_config(settings)
}
