//! A connection to one Redis that finds back from any loss.

use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, RedisResult};

use crate::probe::Probe;

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Single(Arc<Shared>);

struct Shared {
    client: Client,
    config: ConnectionManagerConfig,
    probe: Probe,
    state: Mutex<State>,
}

struct State {
    connection: ConnectionManager,
    /// Counts the connections.
    number: u64,
}

impl Single {
    /// Connects when first used.
    pub(crate) fn new(client: Client, config: ConnectionManagerConfig, probe: Probe) -> RedisResult<Self> {
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        let state = Mutex::new(State { connection, number: 0 });
        Ok(Self(Arc::new(Shared { client, config, probe, state })))
    }

    /// Why Redis does not let us in, if it has said so.
    pub(crate) async fn refusal(&self) -> Option<RedisError> {
        self.0.probe.refusal().await
    }

    /// The number of the database.
    pub(crate) fn database(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }

    /// The result of a call on the connection.
    pub(crate) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut ConnectionManager) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let (mut connection, number) = self.0.state(|state| (state.connection.clone(), state.number));
        let result = call(&mut connection).await;
        if result.as_ref().is_err_and(is_kept) {
            self.0.begin_anew(number);
        }
        result
    }
}

impl Shared {
    fn state<T>(&self, of: impl FnOnce(&mut State) -> T) -> T {
        of(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next call connects again, unless another one has seen to that.
    fn begin_anew(&self, number: u64) {
        self.state(|state| {
            if state.number == number
                && let Ok(connection) =
                    ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())
            {
                *state = State { connection, number: number + 1 };
            }
        });
    }
}

/// Whether the client keeps this error and gives it for an answer from now on: it connects again after errors of the network only, not when a
/// connection came about and Redis had a no for us (no free place, loading), however long ago that was.
fn is_kept(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || error.to_string().contains("refused to switch database")
}
