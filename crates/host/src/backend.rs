//! Which pair of adapters stands behind the ports.

use std::sync::Arc;

use connector_embedded::{EmbeddedConfig, MemoryGate};
use connector_kafka::{KafkaConfig, KafkaLog};
use connector_ports::{Clock, Gate, Log};
use connector_redis::{RedisConfig, RedisGate};
use connector_settings::{Group, Kind, Reader, Variable};
use thiserror::Error;

const BACKEND: Variable = Variable::optional(
    "BACKEND",
    Kind::Choice(&["embedded", "kafka"]),
    "embedded: a SQLite file and memory, for one process (the connector's default). kafka: Apache Kafka and Redis (the default of \
     everything else).",
);

/// The settings of the chosen pair.
#[derive(Clone, Debug)]
pub enum Backend {
    /// SQLite and memory.
    Embedded(EmbeddedConfig),
    /// Kafka, and Redis where a gate is needed.
    Kafka(Box<KafkaConfig>, Option<RedisConfig>),
}

/// What a process accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Either; embedded unless told otherwise.
    Any,
    /// Kafka and Redis: the process shares its topics with others.
    Shared,
    /// Kafka without a gate, or the embedded log: a tool that only reads and writes topics.
    LogOnly,
}

#[derive(Clone, Copy)]
enum Choice {
    Embedded,
    Kafka,
}

impl Backend {
    /// The variable this reads besides those of the adapters, for the reference page.
    pub const GROUP: Group = Group {
        title: "Backend",
        doc: "What stands behind the ports.",
        used_by: &["connector", "connectorctl"],
        variables: &[BACKEND],
    };

    /// Reads the choice and the settings of what was chosen; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>, accepts: Backends) -> Option<Self> {
        let default = if accepts == Backends::Any { Choice::Embedded } else { Choice::Kafka };
        let choice = if reader.is_set(&BACKEND) {
            reader.choice(&BACKEND, &[("embedded", Choice::Embedded), ("kafka", Choice::Kafka)])?
        } else {
            default
        };
        match (choice, accepts) {
            (Choice::Embedded, Backends::Shared) => {
                reader.problem(&BACKEND, "embedded storage serves one process only: run the connector instead");
                None
            }
            (Choice::Embedded, _) => EmbeddedConfig::from(reader).map(Self::Embedded),
            (Choice::Kafka, Backends::LogOnly) => Some(Self::Kafka(Box::new(KafkaConfig::read(reader)?), None)),
            (Choice::Kafka, _) => {
                let kafka = KafkaConfig::read(reader);
                let redis = RedisConfig::read(reader);
                Some(Self::Kafka(Box::new(kafka?), Some(redis?)))
            }
        }
    }

    /// Whether the topics belong to this process alone.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }
}

/// Why a backend cannot be opened. A server that is away is no reason: the adapters wait for it.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The embedded log.
    #[error("the embedded log cannot be opened")]
    Embedded(#[from] connector_embedded::OpenError),
    /// The Redis gate.
    #[error("the gate cannot be opened")]
    Redis(#[source] connector_ports::gate::GateError),
}

/// Log and gate.
pub type Opened = (Arc<dyn Log>, Arc<dyn Gate>);

/// Opens log and gate.
///
/// # Errors
/// When the settings cannot work at all.
pub fn open(backend: &Backend, clock: &Arc<dyn Clock>) -> Result<Opened, OpenError> {
    match backend {
        Backend::Embedded(config) => {
            let log = connector_embedded::open(&config.path, clock.clone())?;
            Ok((Arc::new(log), Arc::new(MemoryGate::new(clock.clone()))))
        }
        Backend::Kafka(kafka, redis) => {
            let log = Arc::new(KafkaLog::new(kafka.as_ref().clone()));
            let gate: Arc<dyn Gate> = match redis {
                Some(redis) => Arc::new(RedisGate::new(redis).map_err(OpenError::Redis)?),
                None => Arc::new(MemoryGate::new(clock.clone())),
            };
            Ok((log, gate))
        }
    }
}
