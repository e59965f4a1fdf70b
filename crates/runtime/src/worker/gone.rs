//! Positions that do not mean any more what they meant: of records that were deleted unread, and of topics that were made anew. Both are told,
//! with the offsets, and nobody waits behind an old position for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{Offset, TopicPartition};
use futures::future::try_join_all;
use tokio_util::task::AbortOnDropHandle;

use super::Worker;
use crate::failure::Failure;
use crate::handler::Handler;
use crate::standing::{Standing, standing};

/// How often positions are held against their topics while a worker works.
const EVERY: Duration = Duration::from_secs(30);

type Answer = Result<Vec<(TopicPartition, Offset, Standing)>, Failure>;

/// The looks at positions of a worker.
#[derive(Default)]
pub(super) struct Watch {
    next: Option<Timestamp>,
    looking: Option<AbortOnDropHandle<Answer>>,
    /// Up to where losses were told.
    told: BTreeMap<TopicPartition, Offset>,
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
        committed: Vec<Option<Offset>>,
    ) -> Result<Vec<Option<Offset>>, Failure> {
        let (log, clock) = (self.log.clone(), self.clock.clone());
        let asked = partitions.iter().zip(&committed).map(async |(partition, committed)| match committed {
            Some(read) => standing(log.as_ref(), clock.as_ref(), partition, *read).await,
            None => Ok(Standing::Same),
        });
        let standings = try_join_all(asked).await?;
        let mut still = Vec::with_capacity(committed.len());
        for ((partition, committed), standing) in partitions.iter().zip(committed).zip(standings) {
            still.push(committed.filter(|read| !self.tell_of(partition, *read, standing)));
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
                let (read, end) = (read.0, end.0);
                tracing::error!(worker, %partition, read, end, "the topic was made anew; it is read from its beginning");
                self.metrics.made_anew(partition);
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
            for (partition, read, standing) in answers {
                if matches!(standing, Standing::Anew(_)) {
                    return Err(Failure::Reinitialise(format!("{partition} ends before {}, which was read", read.0)));
                }
                if self.partitions.get(&partition).is_some() {
                    self.tell_of(&partition, read, standing);
                }
            }
        }
        if self.watch.looking.is_some() || self.watch.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        let first = self.watch.next.replace(now + EVERY).is_none();
        let read = |(name, partition): (&TopicPartition, &super::partitions::Partition)| {
            Some((name.clone(), partition.ledger.read()?))
        };
        let read: Vec<_> = self.partitions.iter().filter_map(read).collect();
        if first || read.is_empty() {
            return Ok(());
        }
        let (log, clock) = (Arc::clone(&self.log), Arc::clone(&self.clock));
        self.watch.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let asked = read.into_iter().map(async |(partition, read)| {
                let standing = standing(log.as_ref(), clock.as_ref(), &partition, read).await?;
                Ok::<_, Failure>((partition, read, standing))
            });
            try_join_all(asked).await
        })));
        Ok(())
    }
}
