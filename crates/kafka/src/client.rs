//! What librdkafka tells aside: to the log of this process, but not a hundred times a minute; and the last trouble is remembered,
//! because a call that fails by it only says that time has passed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connector_ports::log::LogError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error;

/// One kind of trouble is told once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// How long a trouble explains what fails after it. librdkafka repeats an unchanged one every 30 s only.
const RECENT: Duration = Duration::from_secs(45);

/// What a broker that hangs up on the first request may mean.
const GREETING: &str = ": a listener that wants another KAFKA_SECURITY_PROTOCOL does so";

/// The context of every client: logs with restraint.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    told: Mutex<HashMap<String, Instant>>,
    trouble: Mutex<Option<Trouble>>,
    lines: AtomicU64,
}

/// Why a connection failed.
#[derive(Clone, Debug)]
struct Trouble {
    at: Instant,
    reason: String,
    refused: bool,
}

impl Quiet {
    /// Counts what librdkafka wanted to log: an empty poll with a changed count does not mean an empty queue.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

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

    fn trouble(&self) -> Option<Trouble> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.filter(|trouble| trouble.at.elapsed() < RECENT)
    }

    /// Whether a connection failed after this moment.
    pub(crate) fn troubled_since(&self, moment: Instant) -> bool {
        self.trouble().is_some_and(|trouble| trouble.at >= moment)
    }

    fn remember(&self, reason: &str, refused: bool) {
        let trouble = Trouble { at: Instant::now(), reason: reason.to_owned(), refused };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    /// Why the brokers and we do not accept each other, if that was the last trouble.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.trouble().filter(|trouble| trouble.refused).map(|trouble| trouble.reason)
    }

    /// What a failed call of this client that any broker could have answered means: nobody to be reached is one thing, nobody who
    /// accepts us another.
    pub(crate) fn explain(&self, error: LogError) -> LogError {
        match (error, self.refusal()) {
            (LogError::Unavailable { .. }, Some(reason)) => LogError::Fatal { reason },
            (error, _) => self.add_trouble(error),
        }
    }

    /// The same meaning, with the last trouble: for a call that one certain broker has to answer.
    pub(crate) fn add_trouble(&self, error: LogError) -> LogError {
        match (error, self.trouble()) {
            (LogError::Unavailable { reason }, Some(trouble)) => {
                LogError::Unavailable { reason: format!("{reason}; {}", trouble.reason) }
            }
            (error, _) => error,
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        // To librdkafka a broker that hangs up is worth a line and no error.
        if facility == "FAIL" && self.refusal().is_none() {
            let reason = message.split_once("]: ").map_or(message, |(_, reason)| reason);
            let greeting = if reason.contains("APIVERSION_QUERY") { GREETING } else { "" };
            self.remember(&format!("{reason}{greeting}"), false);
        }
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
        let code = match &error {
            KafkaError::Global(Code::PartitionEOF) => return,
            KafkaError::Global(code) => *code,
            _ => Code::Fail,
        };
        let refused = error::is_refusal(code, reason);
        if code != Code::AllBrokersDown {
            self.remember(reason, refused);
        }
        let kind = error.to_string();
        if !self.may_tell(&kind) {
            return;
        }
        if refused {
            tracing::error!(target: "kafka", error = kind, reason, "Kafka and this process do not accept each other");
        } else {
            tracing::warn!(target: "kafka", error = kind, reason, "trouble with Kafka; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_the_waiting_and_any_other_trouble_explains_it() {
        let quiet = Quiet::default();
        let away = || LogError::Unavailable { reason: "timed out".to_owned() };
        assert_eq!(quiet.explain(away()).to_string(), "the log is not available: timed out");
        quiet.error(KafkaError::Global(Code::Authentication), "a wrong password");
        quiet.error(KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(quiet.explain(away()).to_string(), "the log cannot be used: a wrong password");
        assert_eq!(quiet.add_trouble(away()).to_string(), "the log is not available: timed out; a wrong password");
        quiet.log(RDKafkaLogLevel::Info, "FAIL", "[thrd:a]: a:9092: Disconnected");
        assert!(quiet.refusal().is_some(), "a line that follows is no news");
        quiet.error(KafkaError::Global(Code::BrokerTransportFailure), "Connection refused");
        assert_eq!(quiet.explain(away()).to_string(), "the log is not available: timed out; Connection refused");
        quiet.log(RDKafkaLogLevel::Info, "FAIL", "[thrd:a]: a:9092: Disconnected");
        assert_eq!(quiet.explain(away()).to_string(), "the log is not available: timed out; a:9092: Disconnected");
    }
}
