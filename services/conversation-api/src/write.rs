//! Appending to the log on behalf of a request: acknowledged or refused within a bound.

use std::sync::Arc;
use std::time::Duration;

use connector_ports::log::{Append, LogError};
use connector_ports::{Appender, Log};
use tokio::sync::Mutex;

/// Somebody waits for the answer; the log's own bounds are longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Appends with an appender that is opened when it is first needed, and anew after it failed.
pub(crate) struct Writer {
    log: Arc<dyn Log>,
    appender: Mutex<Option<Arc<dyn Appender>>>,
}

impl Writer {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self { log, appender: Mutex::default() }
    }

    /// Appends one record and waits until it is durable.
    pub(crate) async fn append(&self, append: Append) -> Result<(), LogError> {
        let attempt = async {
            let appender = self.appender().await?;
            appender.append(vec![append]).await
        };
        let result = match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(LogError::Uncertain { reason: "no acknowledgement in time".to_owned() }),
        };
        if result.is_err() {
            *self.appender.lock().await = None;
        }
        result
    }

    async fn appender(&self) -> Result<Arc<dyn Appender>, LogError> {
        let mut open = self.appender.lock().await;
        if let Some(appender) = open.as_ref() {
            return Ok(appender.clone());
        }
        let appender: Arc<dyn Appender> = self.log.appender().await?.into();
        *open = Some(appender.clone());
        Ok(appender)
    }
}
