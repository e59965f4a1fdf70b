//! Turning what happened into records of the log, and wire types into records of their topics.

use std::sync::Arc;

use bytes::Bytes;
use connector_contracts::headers::STREAM_KEY;
use connector_contracts::{Contract, Topic, Topics, encode, encode_event, event_headers};
use connector_domain::event::{Envelope, Event, Recorded, TimeSource};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::{CommandId, EventId, OrganizationId, StreamId};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{Append, TopicName};

use crate::failure::Failure;

/// What an event comes from: everything of the envelope that the writer does not know by itself.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The stream the event belongs to.
    pub stream_id: StreamId,
    /// Names the cause: the same cause gives the same event id (R3).
    pub cause_id: String,
    /// The command that led here.
    pub command_id: Option<CommandId>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// By whose clock.
    pub time_source: TimeSource,
    /// Trace context of the cause.
    pub traceparent: Option<String>,
}

/// Writes for one service.
#[derive(Clone)]
pub struct Emitter {
    topics: Topics,
    producer: &'static str,
    clock: Arc<dyn Clock>,
    stream_key: Option<Bytes>,
}

impl Emitter {
    /// An emitter of a service.
    #[must_use]
    pub fn new(topics: Topics, producer: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { topics, producer, clock, stream_key: None }
    }

    /// Says in the log which secret its stream ids are made with.
    #[must_use]
    pub fn with(mut self, keys: &StreamKeys) -> Self {
        self.stream_key = Some(keys.fingerprint().into());
        self
    }

    /// The topics of this installation.
    #[must_use]
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The name of a topic in this installation.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> TopicName {
        self.topics.name(topic).into()
    }

    /// The event as it will stand in the log. Its id follows from its type and cause (R3).
    #[must_use]
    pub fn recorded(&self, event: impl Into<Event>, cause: &Cause) -> Recorded {
        let event = event.into();
        let envelope = Envelope {
            event_id: event_id(event.type_name(), &cause.cause_id),
            event_type: event.type_name().to_owned(),
            schema_version: 1,
            organization_id: cause.organization_id.clone(),
            stream_id: cause.stream_id.clone(),
            cause_id: cause.cause_id.clone(),
            command_id: cause.command_id,
            occurred_at: cause.occurred_at,
            time_source: cause.time_source,
            recorded_at: self.clock.now(),
            producer: self.producer.to_owned(),
            traceparent: cause.traceparent.clone(),
        };
        Recorded { envelope, event }
    }

    /// A record of the log.
    ///
    /// # Errors
    /// Only when an event does not fit its schema, which is a mistake of ours.
    pub fn event(&self, recorded: &Recorded) -> Result<Append, Failure> {
        let mut headers = event_headers(recorded);
        headers.extend(self.stream_key.iter().map(|key| (STREAM_KEY.into(), Some(key.clone()))));
        Ok(Append {
            topic: self.topic(Topic::ConversationEvents),
            partition: None,
            key: Some(Bytes::from(recorded.envelope.stream_id.as_str().to_owned())),
            value: Some(encode_event(recorded)?.into()),
            headers,
        })
    }

    /// A record of the log, from an event and its cause.
    ///
    /// # Errors
    /// As [`Emitter::event`].
    pub fn emit(&self, event: impl Into<Event>, cause: &Cause) -> Result<Append, Failure> {
        self.event(&self.recorded(event, cause))
    }

    /// A record of one of the other topics.
    ///
    /// # Errors
    /// Only when the value does not fit its schema, which is a mistake of ours.
    pub fn record<T: Contract>(
        &self,
        topic: Topic,
        key: &str,
        value: &T,
        traceparent: Option<&str>,
    ) -> Result<Append, Failure> {
        let trace =
            traceparent.map(|t| (connector_contracts::headers::TRACEPARENT.into(), Some(Bytes::from(t.to_owned()))));
        Ok(Append {
            topic: self.topic(topic),
            partition: None,
            key: Some(Bytes::from(key.to_owned())),
            value: Some(encode(value)?.into()),
            headers: trace.into_iter().collect(),
        })
    }
}

/// The id of an event follows from its type and its cause (R3).
#[must_use]
pub fn event_id(event_type: &str, cause_id: &str) -> EventId {
    EventId::derived(&format!("{event_type}:{cause_id}"))
}

/// The longest trace context that is passed on: W3C's has 55 characters, and what a later version adds behind them.
const LONGEST_TRACEPARENT: usize = 128;

/// The trace context a record carries. What is none is not passed on: it would stand in every event that the record leads to.
#[must_use]
pub fn traceparent(record: &connector_ports::log::Record) -> Option<String> {
    let value = record.header(connector_contracts::headers::TRACEPARENT)?;
    let formed = value.len() <= LONGEST_TRACEPARENT
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    formed.then(|| std::str::from_utf8(value).ok().map(str::to_owned)).flatten()
}
