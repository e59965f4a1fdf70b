//! A command id belongs to its organization (R3): the register of the ids that stand in the log, whichever stream answered them.
//!
//! A stream's own memory ([`crate::view::Memory`]) knows what was answered there. That the same id was not used for another stream,
//! another partition's worker knows, so each id is reserved before it is answered: the first command under it has it. The register is a
//! projection like others: who takes a partition over tells it what stands there, unless it was told, and nothing is reserved before all
//! are.

use std::collections::BTreeSet;
use std::sync::Arc;

use connector_contracts::Topic;
use connector_domain::event::Recorded;
use connector_domain::ids::{CommandId, OrganizationId};
use connector_domain::time::Timestamp;
use connector_ports::gate::{Register, Reservation};
use connector_ports::log::{Isolation, Start, TopicName, TopicPartition};
use connector_ports::{Clock, Gate, Log};

use crate::commands::{self, MEMORY};
use crate::entry;
use crate::failure::Failure;
use crate::platform::Platform;
use crate::replay::replay;
use crate::standing::lacks_nothing;

/// The register of command ids, of send and consent commands alike.
const NAME: &str = "command-ids";

/// Ids told in one call.
const CHUNK: usize = 2_000;

/// Reserves command ids.
pub struct Reserved {
    gate: Arc<dyn Gate>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    source: TopicName,
    register: Register,
    held: BTreeSet<u32>,
}

fn reservation(recorded: &Recorded) -> Option<Reservation> {
    let mark = commands::mark(recorded)?;
    // What is refused as a conflict does not have the id.
    if commands::is_conflict(&recorded.event) {
        return None;
    }
    Some(Reservation { id: mark.id, digest: mark.digest, until: mark.until })
}

impl Reserved {
    /// The register as this service tells it. `teller` names what the service answers: each kind of command has one service.
    #[must_use]
    pub fn new(platform: &Platform, teller: &'static str) -> Self {
        Self {
            gate: platform.gate.clone(),
            log: platform.log.clone(),
            clock: platform.clock.clone(),
            source: platform.topic(Topic::ConversationEvents),
            register: Register { name: NAME, teller, partitions: platform.partitions },
            held: BTreeSet::new(),
        }
    }

    /// Tells what stands in a partition, unless that was told.
    ///
    /// # Errors
    /// When log or gate are away.
    pub async fn take_over(&mut self, partition: u32) -> Result<(), Failure> {
        if !self.gate.told(&self.register).await?.contains(&partition) {
            let source = TopicPartition { topic: self.source.clone(), partition };
            lacks_nothing(self.log.as_ref(), &source, "the register of command ids", None).await?;
            let (now, partitions) = (self.clock.now(), self.register.partitions);
            let mut found = Vec::new();
            replay(self.log.as_ref(), &source, Start::Beginning, Isolation::Committed, |record| {
                let recorded = entry::event(&record, partitions).ok();
                let reservation = recorded.as_ref().and_then(reservation);
                found.extend(reservation.filter(|reservation| reservation.until > now));
                Ok(())
            })
            .await?;
            for some in found.chunks(CHUNK) {
                self.gate.tell(&self.register, partition, some, false).await?;
            }
            self.gate.tell(&self.register, partition, &[], true).await?;
        }
        self.held.insert(partition);
        Ok(())
    }

    /// Forgets a partition that is not ours any more.
    pub fn forget(&mut self, partition: u32) {
        self.held.remove(&partition);
    }

    /// Whether each of these commands has its id: false for one whose id stands for other content.
    ///
    /// # Errors
    /// `Later` when the register is not complete; `Reinitialise` when it was lost, so that our own partitions are told again.
    pub async fn reserve(
        &self,
        commands: &[(&OrganizationId, CommandId, u64)],
        now: Timestamp,
    ) -> Result<Vec<bool>, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<_> = commands
            .iter()
            .map(|(organization, command, digest)| Reservation {
                id: commands::mark_id(organization, *command),
                digest: *digest,
                until: now + MEMORY,
            })
            .collect();
        let Some(digests) = self.gate.reserve(&self.register, &asked).await? else {
            self.check().await?;
            return Err(Failure::Later("the register of command ids is not complete".to_owned()));
        };
        Ok(digests.into_iter().zip(&asked).map(|(has, asked)| has == asked.digest).collect())
    }

    /// Looks whether the register still has what we told it. Others wait for that, also while there is nothing to reserve here.
    ///
    /// # Errors
    /// `Reinitialise` when it was lost.
    pub async fn check(&self) -> Result<(), Failure> {
        let told = self.gate.told(&self.register).await?;
        if self.held.is_subset(&told) {
            return Ok(());
        }
        Err(Failure::Reinitialise("the register of command ids was lost".to_owned()))
    }
}
