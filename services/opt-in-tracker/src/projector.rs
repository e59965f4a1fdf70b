//! Projects the log into the `conversations` views, announces what the contacts' answers mean, ends opt-in requests that nobody
//! answered or that did not get to the contact, carries a contact's no over to where a linked conversation continues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_domain::decide::decide_opt_in_expiry;
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::{EventId, StreamId};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::gate::Due;
use connector_ports::log::{Append, Appended, Offset, TopicPartition};
use connector_runtime::audit::Owned;
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::entry;
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, views};
use connector_runtime::situation::{conversation_key, load};

use crate::PRODUCER;
use crate::fold::{Fold, Stored};
use connector_runtime::projection::{Given, Projection};

/// The handler.
pub struct Projector {
    projection: Projection,
    keys: StreamKeys,
    partitions: u32,
    emitter: Emitter,
    clock: Arc<dyn Clock>,
    tick: Duration,
}

impl Projector {
    /// A projector that looks for opt-in requests at their end this often.
    #[must_use]
    pub fn new(platform: &Platform, tick: Duration) -> Self {
        Self {
            projection: Projection::new(platform, views::CONVERSATIONS),
            keys: platform.keys.clone(),
            partitions: platform.partitions,
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            tick,
        }
    }

    /// The partitions held, for the audit.
    #[must_use]
    pub fn owned(&self) -> Owned {
        self.projection.owned()
    }

    /// What a partition's records lead to, by their place in the batch.
    async fn fold(
        &mut self,
        partition: u32,
        events: &[(usize, Recorded)],
        steps: &mut [Option<Step<()>>],
    ) -> Result<Fold, Failure> {
        let mut fold = Fold::over(&self.keys, events.iter().map(|(_, recorded)| recorded));
        loop {
            let keys = fold.missing();
            if keys.is_empty() {
                break;
            }
            let values = self.projection.read(partition, &keys).await?;
            fold.load(keys, values)?;
        }
        for (at, recorded) in events {
            let envelope = &recorded.envelope;
            let mut appends = Vec::new();
            for (stream_id, event) in fold.evolve(recorded) {
                let cause = Cause {
                    organization_id: envelope.organization_id.clone(),
                    stream_id,
                    cause_id: cause_id(envelope.event_id, &event),
                    command_id: envelope.command_id,
                    occurred_at: envelope.occurred_at,
                    time_source: envelope.time_source,
                    traceparent: envelope.traceparent.clone(),
                };
                appends.push(self.emitter.emit(event, &cause)?);
            }
            steps[*at] = Some(Step::Done(appends));
        }
        Ok(fold)
    }

    /// The end of a request, if it is still open.
    fn expire(&self, due: &Due, stored: Stored, now: Timestamp) -> Result<Option<Append>, Failure> {
        let Some(event) = decide_opt_in_expiry(&stored.conversation, due.at, now) else { return Ok(None) };
        let stream = due.key.strip_prefix(&conversation_key(&StreamId(String::new())));
        let (Some(stream), Some(organization_id)) = (stream, stored.conversation.organization_id) else {
            return Err(Failure::Reinitialise("a timer belongs to no conversation".to_owned()));
        };
        let cause = Cause {
            organization_id,
            stream_id: stream.into(),
            cause_id: format!("{stream}/{}", due.at.as_millis()),
            command_id: None,
            occurred_at: due.at,
            time_source: TimeSource::Connector,
            traceparent: None,
        };
        self.emitter.emit(event, &cause).map(Some)
    }
}

/// What an announcement names as its cause. One move of a user leads to events about many contacts, one link may carry two noes over.
fn cause_id(source: EventId, event: &Event) -> String {
    match event {
        Event::ContactAdded(added) => format!("{source}/{}", added.contact_id),
        Event::ContactRemoved(removed) => format!("{source}/{}", removed.contact_id),
        Event::OptOutCarriedOver(no) if no.marketing_only => format!("{source}/marketing"),
        _ => source.to_string(),
    }
}

#[async_trait]
impl Handler for Projector {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.projection.acquire(partition.partition, committed).await
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.projection.forget(partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Option<Step<()>>> = work.iter().map(|_| None).collect();
        let mut by_partition: BTreeMap<u32, Vec<(usize, Recorded)>> = BTreeMap::new();
        for (at, Work { record, .. }) in work.iter().enumerate() {
            let events = by_partition.entry(record.source.partition).or_default();
            match entry::event(record, self.partitions) {
                Ok(recorded) => events.push((at, recorded)),
                Err(reason) => steps[at] = Some(Step::DeadLetter(reason)),
            }
        }
        let mut folds = Vec::new();
        for (partition, events) in by_partition {
            folds.push((partition, self.fold(partition, &events, &mut steps).await?));
        }
        // Only now: what a failed call had kept would be applied with the next one.
        for (partition, fold) in folds {
            self.projection.keep(partition, fold.changes()?)?;
        }
        Ok(steps.into_iter().flatten().collect())
    }

    async fn caught_up(&mut self, partition: &TopicPartition, position: Offset) -> Result<(), Failure> {
        self.projection.caught_up(partition.partition, position).await
    }

    async fn committed(
        &mut self,
        _appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.projection.committed(positions).await
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(self.tick)
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        let now = self.clock.now();
        self.projection.verify(now).await?;
        let mut read = Vec::new();
        for Given { partition, due, .. } in self.projection.due(now).await? {
            let keys: Vec<_> = due.iter().map(|due| due.key.clone()).collect();
            let values = self.projection.read(partition, &keys).await?;
            read.push((partition, due, values));
        }
        // Nothing below waits or is tried again: what is proposed here is returned here.
        let mut appends = Vec::new();
        for (partition, due, values) in read {
            for (due, value) in due.iter().zip(values) {
                if let Some(append) = self.expire(due, load(value.as_ref())?, now)?
                    && self.projection.propose(partition, &due.key, due.at)?
                {
                    appends.push(append);
                }
            }
            self.projection.resolved(partition);
        }
        Ok(appends)
    }
}
