//! The log that the environment names.

use std::sync::Arc;

use connector_contracts::Topics;
use connector_host::{Backend, Backends};
use connector_ports::clock::SystemClock;
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
