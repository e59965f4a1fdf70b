//! What librdkafka tells aside: to the log of this process, but not a hundred times a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// One kind of trouble is told once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// The context of every client: logs with restraint.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    told: Mutex<HashMap<String, Instant>>,
}

impl Quiet {
    /// Whether this kind of trouble was not told for a while.
    pub(crate) fn may_tell(&self, kind: &str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(kind).is_some_and(|last| now.duration_since(*last) < QUIET) {
            return false;
        }
        told.insert(kind.to_owned(), now);
        true
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "kafka", facility, message);
            }
            // The facility (FAIL, REQTMOUT, …) is the kind; the text names a broker and an attempt.
            _ if self.may_tell(facility) => tracing::warn!(target: "kafka", facility, message),
            _ => tracing::debug!(target: "kafka", facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let KafkaError::Global(rdkafka::types::RDKafkaErrorCode::PartitionEOF) = error {
            return;
        }
        let kind = error.to_string();
        if self.may_tell(&kind) {
            tracing::warn!(target: "kafka", error = kind, reason, "trouble with Kafka; it is tried again");
        }
    }
}
