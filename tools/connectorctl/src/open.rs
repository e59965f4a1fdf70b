//! The log that the environment names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topics;
use connector_host::{Backend, Backends};
use connector_ports::clock::SystemClock;
use connector_ports::log::{Isolation, LogError, Polled, Record, Start, TopicName, TopicPartition};
use connector_ports::{Clock, Log};
use connector_settings::{Env, Kind, Variable, load};

use crate::Failed;

const TOPIC_PREFIX: Variable =
    Variable::optional("TOPIC_PREFIX", Kind::Text, "Stands in front of every topic name, with a dot between them.");

/// The topics of the installation, without opening anything.
pub(crate) fn topics() -> Result<Topics, Failed> {
    Ok(load(&Env, |reader| {
        let prefix = if reader.is_set(&TOPIC_PREFIX) { reader.text(&TOPIC_PREFIX)? } else { String::new() };
        Some(Topics::new(&prefix))
    })?)
}

/// The log of the installation.
pub(crate) fn log() -> Result<Arc<dyn Log>, Failed> {
    let backend = load(&Env, |reader| Backend::from(reader, Backends::LogOnly))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (log, _gate) = connector_host::open(&backend, &clock)?;
    Ok(log)
}

/// Polls in a row that may bring nothing before the end is reached: a reader waits for its broker for ever, a person does not.
const SILENT: u32 = 60;

/// How long nothing has come.
#[derive(Default)]
pub(crate) struct Silence(u32);

impl Silence {
    /// What came, unless nothing has come for too long.
    pub(crate) fn heard(&mut self, polled: Polled) -> Result<Polled, Failed> {
        self.0 = if polled == Polled::Idle { self.0 + 1 } else { 0 };
        if self.0 >= SILENT {
            let reason = "nothing came for half a minute, and the end was not reached".to_owned();
            return Err(Failed::Log(LogError::Unavailable { reason }));
        }
        Ok(polled)
    }
}

/// Every record of a topic from its beginning to its end, each partition in order.
pub(crate) async fn each_record(
    log: &dyn Log,
    name: &TopicName,
    mut take: impl FnMut(&Record) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let Some(facts) = log.topic(name).await? else { return Err(Failed::NotFound(format!("there is no topic {name}"))) };
    let mut behind: BTreeSet<u32> = (0..facts.partitions).collect();
    let starts = behind.iter().map(|p| (TopicPartition::new(name.clone(), *p), Start::Beginning)).collect();
    let mut reader = log.assign(starts, Isolation::Committed).await?;
    let mut silence = Silence::default();
    while !behind.is_empty() {
        match silence.heard(reader.poll(Duration::from_millis(500), 1000).await?)? {
            Polled::Records(records) => records.iter().try_for_each(&mut take)?,
            Polled::CaughtUp(source, _) => {
                behind.remove(&source.partition);
            }
            _ => {}
        }
    }
    reader.close().await;
    Ok(())
}
