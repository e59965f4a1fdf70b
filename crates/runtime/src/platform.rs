//! What every service stands on: the ports and the few facts all services must agree about.

use std::sync::Arc;

use connector_contracts::{Topic, Topics};
use connector_domain::identity::StreamKeys;
use connector_domain::settings::Rules;
use connector_ports::log::TopicName;
use connector_ports::{Clock, Gate, Ids, Log};
use connector_telemetry::Metrics;

use crate::emit::Emitter;
use crate::view::Reading;

/// Names of the gate's views. A view's name is part of its keys in Redis: renaming one means rebuilding it.
pub mod views {
    /// Conversations, enablements and contacts as folds of the log. Owner: opt-in-tracker.
    pub const CONVERSATIONS: &str = "conversations";
    /// Ids of recorded webhook items. Owner: inbound-processor.
    pub const INBOUND: &str = "inbound";
    /// Ids of answered send commands. Owner: outbound-sender (admit).
    pub const SEND_COMMANDS: &str = "send-commands";
    /// Ids of answered consent commands. Owner: opt-in-tracker.
    pub const CONSENT_COMMANDS: &str = "consent-commands";
    /// Window timers. Owner: window-timer.
    pub const WINDOWS: &str = "open-windows";
}

/// Names of consumer groups whose position others ask for.
pub mod groups {
    /// Turns the directory into events. Owner: opt-in-tracker.
    pub const DIRECTORY: &str = "opt-in-tracker.directory";
    /// Admission of send commands.
    pub const SEND_COMMANDS: &str = "outbound-sender.admit";
    /// Consent commands.
    pub const CONSENT_COMMANDS: &str = "opt-in-tracker.consent";
}

/// Ports and common facts. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The gate.
    pub gate: Arc<dyn Gate>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Topic names of this installation.
    pub topics: Topics,
    /// Partitions of the co-partitioned topics. For ever.
    pub partitions: u32,
    /// The secret behind stream ids.
    pub keys: StreamKeys,
    /// The numbers the rules depend on.
    pub rules: Rules,
    /// The name of this instance: stable over a restart, unlike any other instance's.
    pub instance: String,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
}

impl Platform {
    /// The name of a topic.
    #[must_use]
    pub fn topic(&self, topic: Topic) -> TopicName {
        self.topics.name(topic).into()
    }

    /// The name of a consumer group in this installation: two installations on one broker differ in their topic prefix, and neither may join
    /// the other's groups. Whoever joins a group, or asks for its position, has its name from here.
    #[must_use]
    pub fn group(&self, name: &str) -> String {
        self.topics.prefixed(name)
    }

    /// An emitter for a service.
    #[must_use]
    pub fn emitter(&self, producer: &'static str) -> Emitter {
        Emitter::new(self.topics.clone(), producer, self.clock.clone()).with(&self.keys)
    }

    /// The `conversations` views, as everybody but their owner reads them.
    #[must_use]
    pub fn conversations(&self) -> Reading {
        let source = self.topic(Topic::ConversationEvents);
        Reading::new(self.gate.clone(), self.log.clone(), views::CONVERSATIONS, source)
    }
}
