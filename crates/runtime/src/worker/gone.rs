//! Positions that do not mean any more what they meant: of records that were deleted unread, and of topics that were made anew. Both are told,
//! with the offsets, and nobody waits behind an old position for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{Landmark, Offset, Position, TopicPartition};
use tokio_util::task::AbortOnDropHandle;

use super::Worker;
use crate::failure::Failure;
use crate::handler::Handler;
use crate::standing::{Standing, standings};

/// How often positions are held against their topics while a worker works.
const EVERY: Duration = Duration::from_secs(30);

/// A position, how its partition stands to it, and the newest record that had been read when that was asked.
struct Looked {
    partition: TopicPartition,
    position: Position,
    newest: Option<Landmark>,
    standing: Standing,
}

/// The looks at positions of a worker.
#[derive(Default)]
pub(super) struct Watch {
    next: Option<Timestamp>,
    looking: Option<AbortOnDropHandle<Result<Vec<Looked>, Failure>>>,
    /// Up to where losses were told.
    told: BTreeMap<TopicPartition, Offset>,
    /// Found to be made anew, and told. A broker may forget the positions of a topic that is deleted, so who takes it up again need not find that.
    anew: BTreeSet<TopicPartition>,
}

impl Watch {
    /// Nothing is held any more.
    pub(super) fn forget(&mut self) {
        self.looking = None;
    }
}

impl<H: Handler> Worker<H> {
    /// The committed positions, without those in topics that were made anew: these are read from their beginning, or nobody would ever
    /// answer what stands below the old position.
    pub(super) async fn still_there(
        &mut self,
        partitions: &[TopicPartition],
        committed: Vec<Option<Position>>,
    ) -> Result<Vec<Option<Position>>, Failure> {
        let known = partitions.iter().zip(&committed);
        let asked: Vec<_> = known.filter_map(|(partition, known)| Some((partition.clone(), (*known)?))).collect();
        let standings = standings(self.log.as_ref(), self.clock.as_ref(), &asked).await?;
        let mut standings = standings.into_iter();
        let mut still = Vec::with_capacity(committed.len());
        for (partition, committed) in partitions.iter().zip(committed) {
            let standing = committed.and_then(|_| standings.next()).unwrap_or(Standing::Same);
            still.push(committed.filter(|read| !self.tell_of(partition, read.next, standing)));
            self.watch.anew.remove(partition);
        }
        Ok(still)
    }

    /// Tells what is gone. True: the topic was made anew.
    fn tell_of(&mut self, partition: &TopicPartition, read: Offset, standing: Standing) -> bool {
        let worker = self.spec.name;
        match standing {
            Standing::Same => false,
            Standing::Lost(begin) => {
                let from = self.watch.told.insert(partition.clone(), begin).map_or(read, |told| told.max(read));
                if from < begin {
                    let (from, to) = (from.0, begin.0);
                    tracing::error!(worker, %partition, from, to, "records were deleted before they were read; reading goes on behind them");
                    self.metrics.lost(partition, to - from);
                }
                false
            }
            Standing::Anew(end) => {
                if !self.watch.anew.contains(partition) {
                    let (read, end) = (read.0, end.0);
                    tracing::error!(worker, %partition, read, end, "the topic was made anew; it is read from its beginning");
                    self.metrics.made_anew(partition);
                }
                self.watch.told.remove(partition);
                true
            }
        }
    }

    /// Holds the positions of the worker against their topics once in a while, beside the work.
    pub(super) async fn look_for_what_is_gone(&mut self, now: Timestamp) -> Result<(), Failure> {
        if let Some(looking) = self.watch.looking.take_if(|looking| looking.is_finished()) {
            // What could not be asked now is asked the next time.
            let answers = looking.await.ok().and_then(Result::ok).unwrap_or_default();
            let mut anew = None;
            for Looked { partition, position, newest, standing } in answers {
                let Some(known) = self.partitions.get_mut(&partition) else { continue };
                if matches!(standing, Standing::Same | Standing::Lost(_))
                    && newest.map(|newest| newest.offset) > known.landmark.map(|landmark| landmark.offset)
                {
                    // What was read before the older one was seen to stand is of the same topic.
                    known.landmark = newest;
                }
                if self.tell_of(&partition, position.next, standing) {
                    self.watch.anew.insert(partition.clone());
                    anew = Some((partition, position.next.0));
                }
            }
            if let Some((partition, read)) = anew {
                return Err(Failure::Reinitialise(format!("{partition} is not the one that was read up to {read}")));
            }
        }
        if self.watch.looking.is_some() || self.watch.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        let first = self.watch.next.replace(now + EVERY).is_none();
        let read = |(name, partition): (&TopicPartition, &super::partitions::Partition)| {
            let position = Position { next: partition.ledger.read()?, landmark: partition.landmark };
            Some((name.clone(), position, partition.newest))
        };
        let read: Vec<_> = self.partitions.iter().filter_map(read).collect();
        if first || read.is_empty() {
            return Ok(());
        }
        let (log, clock) = (Arc::clone(&self.log), Arc::clone(&self.clock));
        self.watch.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let asked: Vec<_> = read.iter().map(|(partition, position, _)| (partition.clone(), *position)).collect();
            let standings = standings(log.as_ref(), clock.as_ref(), &asked).await?;
            let looked = |((partition, position, newest), standing)| Looked { partition, position, newest, standing };
            Ok(read.into_iter().zip(standings).map(looked).collect())
        })));
        Ok(())
    }
}
