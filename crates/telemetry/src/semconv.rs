//! Names of span attributes, after the OpenTelemetry semantic conventions for messaging (schema 1.42, status
//! Development; <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>).
//!
//! `tracing` wants field names as literals in its macros (`"messaging.system" = semconv::KAFKA`); the constants are for
//! everything that sets attributes by name and for tests. The record key is never an attribute: it identifies a
//! conversation.

/// The messaging system; always [`KAFKA`].
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`], whichever adapter stands behind the port.
pub const KAFKA: &str = "kafka";
/// What is being done, one of the `OPERATION_…` values.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Records are handed to the broker.
pub const OPERATION_SEND: &str = "send";
/// Records are taken from the broker.
pub const OPERATION_RECEIVE: &str = "receive";
/// Records are worked on.
pub const OPERATION_PROCESS: &str = "process";
/// Offsets are committed.
pub const OPERATION_SETTLE: &str = "settle";
/// The topic.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// The partition, as text.
pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// The consumer group.
pub const MESSAGING_CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
/// The offset of a record in its partition.
pub const MESSAGING_KAFKA_OFFSET: &str = "messaging.kafka.offset";
/// How many records a batch holds. Spans of batches link to the traces of their records instead of joining one of them.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// The kind of failure, a word of a closed set.
pub const ERROR_TYPE: &str = "error.type";
/// The record header that carries the trace context (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
