//! Clients that only ask: ends of partitions, committed offsets, topics. They are made once and shared, because connecting costs
//! more than any answer; the calls block and run on tokio's blocking threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_ports::log::{Isolation, LogError};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use crate::client::Quiet;
use crate::config::KafkaConfig;
use crate::error;

impl ConsumerContext for Quiet {}

type Client = Arc<BaseConsumer<Quiet>>;

/// What tells the clients apart: isolation, and the group whose offsets are asked for.
type Key = (bool, Option<String>);

#[derive(Default)]
pub(crate) struct Questions {
    clients: Mutex<HashMap<Key, Client>>,
}

impl Questions {
    /// Asks by way of a client of this isolation and group.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        config: &KafkaConfig,
        isolation: Isolation,
        group: Option<&str>,
        question: impl FnOnce(&BaseConsumer<Quiet>, Duration) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let client = self.client(config, isolation, group)?;
        let within = config.request_timeout;
        let asked = Arc::clone(&client);
        let answer = tokio::task::spawn_blocking(move || {
            // What piled up since the last question.
            serve(&asked);
            let answer = question(&asked, within);
            // Before the client is dropped: why it got no answer.
            serve(&asked);
            answer.map_err(|error| asked.context().explain(error))
        })
        .await
        .map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        if matches!(answer, Err(LogError::Unavailable { .. } | LogError::Fatal { .. })) {
            self.clients().retain(|_, kept| !Arc::ptr_eq(kept, &client));
        }
        // Closing a client of a group takes a while: not on an async worker.
        tokio::task::spawn_blocking(move || drop(client));
        answer
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Key, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, config: &KafkaConfig, isolation: Isolation, group: Option<&str>) -> Result<Client, LogError> {
        let key = (isolation == Isolation::Committed, group.map(str::to_owned));
        let mut clients = self.clients();
        if let Some(client) = clients.get(&key) {
            return Ok(Arc::clone(client));
        }
        let client: BaseConsumer<Quiet> = config
            .questions(isolation, group)
            .create_with_context(Quiet::default())
            .map_err(|error| error::of_client(&error))?;
        let client = Arc::new(client);
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }
}

/// Serves logs and errors until there are none.
fn serve(client: &BaseConsumer<Quiet>) {
    loop {
        let before = client.context().lines();
        if client.poll(Duration::ZERO).is_none() && client.context().lines() == before {
            return;
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        // Closing a client of a group takes a while: not on an async worker.
        let clients = std::mem::take(self.clients.get_mut().unwrap_or_else(PoisonError::into_inner));
        std::thread::spawn(move || drop(clients));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_without_an_answer_is_not_asked_again() {
        let (config, questions) = (KafkaConfig::plaintext("127.0.0.1:1"), Questions::default());
        let ask = async |answer: Result<(), LogError>| {
            let asked = questions.ask(&config, Isolation::Committed, Some("group"), |_, _| answer);
            let (answer, kept) = (asked.await, questions.clients().len());
            (answer.is_ok(), kept)
        };
        assert_eq!(ask(Ok(())).await, (true, 1), "kept for the next question");
        let away = LogError::Unavailable { reason: "timed out".to_owned() };
        assert_eq!(ask(Err(away)).await, (false, 0));
        let unknown = LogError::UnknownTopic { topic: "nothing".into() };
        assert_eq!(ask(Err(unknown)).await, (false, 1), "that is an answer");
    }
}
