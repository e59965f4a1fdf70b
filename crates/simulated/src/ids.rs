//! Ids under a seed.

use std::sync::{Arc, Mutex, PoisonError};

use connector_ports::{Clock, Ids};
use uuid::{Builder, Uuid};

use crate::clock::SimClock;
use crate::random::Random;

/// UUIDv7 of the virtual time and the seed. Clones are the same source.
#[derive(Clone, Debug)]
pub struct SimIds {
    clock: SimClock,
    random: Arc<Mutex<Random>>,
}

impl SimIds {
    pub(crate) fn new(seed: u64, clock: SimClock) -> Self {
        Self { clock, random: Arc::new(Mutex::new(Random::new(seed))) }
    }
}

impl Ids for SimIds {
    fn fresh(&self) -> Uuid {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&random.next().to_le_bytes());
        bytes[8..].copy_from_slice(&random.next().to_le_bytes()[..2]);
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }
}
