//! One meaning for each of librdkafka's errors.

use connector_ports::log::{LogError, TopicName};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaConfRes, RDKafkaErrorCode as Code};

/// Errors that say: somebody newer owns this.
pub(crate) fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::FencedInstanceId
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::TransactionCoordinatorFenced
    )
}

/// Errors of a connection by which a broker refuses us, or we refuse the broker: a wrong password, a certificate that is not believed.
pub(crate) fn is_refusal(code: Code, reason: &str) -> bool {
    // With TLS 1.3 the client has finished its handshake before the broker looks at its certificate: what the broker thinks of it comes
    // as an alert afterwards, and librdkafka takes that for any broken connection.
    const ALERTS: [&str; 4] = ["alert certificate", "alert bad certificate", "alert unknown ca", "alert access denied"];
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => true,
        Code::BrokerTransportFailure => ALERTS.iter().any(|alert| reason.contains(alert)),
        _ => false,
    }
}

/// Errors for which waiting is useless: misconfiguration or denied access.
pub(crate) fn is_fatal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SSL
            | Code::InvalidConfig
            | Code::InvalidTopic
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::PolicyViolation
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
    )
}

/// Errors that name a topic or partition which is not there.
pub(crate) fn is_unknown_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition)
}

/// Why a client cannot be made. What librdkafka says of a setting repeats its value, which may be a secret: only the name of the setting is told.
pub(crate) fn of_client(error: &KafkaError) -> LogError {
    let reason = match refused_setting(error) {
        Some((name, why)) => format!("the setting {name} {why}"),
        None => error.to_string(),
    };
    LogError::Fatal { reason }
}

/// The setting that librdkafka does not take, and why.
pub(crate) fn refused_setting(error: &KafkaError) -> Option<(&str, &'static str)> {
    let KafkaError::ClientConfig(code, _, name, _) = error else { return None };
    let why = match code {
        RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "is none of librdkafka's",
        _ => "has a value that librdkafka does not take",
    };
    Some((name, why))
}

/// The meaning of an error for a call that changes nothing (a question), about this topic if it is about one.
pub(crate) fn of_question(error: &KafkaError, topic: Option<&TopicName>) -> LogError {
    let reason = error.to_string();
    match (code_of(error), topic) {
        (Some(code), Some(topic)) if is_unknown_topic(code) => LogError::UnknownTopic { topic: topic.clone() },
        (Some(code), _) if is_fenced(code) => LogError::Fenced { reason },
        (Some(code), _) if is_fatal(code) => LogError::Fatal { reason },
        (None, _) => LogError::Fatal { reason },
        _ => LogError::Unavailable { reason },
    }
}

/// The code inside; `None` for errors of configuration and use.
pub(crate) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        KafkaError::Canceled | KafkaError::NoMessageReceived => Some(Code::Fail),
        other => other.rdkafka_error_code(),
    }
}
