//! One turn: what the records and results in hand lead to.

use std::borrow::Cow;

use connector_ports::log::{Reader, Record, Start, TopicPartition};
use connector_telemetry::metrics::Rebalance;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::meters::batch_span;
use super::slots::Slots;
use super::transaction::{Effect, Outgoing};
use super::{End, Finished, Worker};
use crate::dead_letter::{dead_letter, dead_letters_of};
use crate::failure::Failure;
use crate::handler::{Handler, Order, Reason, Step, TakeUp};
use crate::lanes::{LaneKey, QueueKey, Work};

/// Work for one call of the handler.
#[derive(Default)]
struct Taken {
    /// Whose it is: so many pieces of each lane, one lane after the other.
    lanes: Vec<(TopicPartition, LaneKey, usize)>,
    work: Vec<Work>,
}

impl<H: Handler> Worker<H> {
    pub(super) fn lane(&self, record: &Record) -> (LaneKey, QueueKey) {
        match self.handler.order() {
            Order::Batch => (self.handler.lane(record), 0),
            Order::Lanes { .. } => (self.handler.lane(record), self.handler.queue(record)),
        }
    }

    /// Whether there is work that may begin now.
    pub(super) fn has_work(&self) -> bool {
        match self.handler.order() {
            Order::Batch => self.partitions.has_ready(),
            Order::Lanes { at_once } => {
                let slots = Slots::new(at_once, &self.partitions);
                self.partitions.has_ready_of(|of| slots.are_for(of))
            }
        }
    }

    pub(super) fn take_result(&mut self, joined: Result<Finished<H::Fact>, JoinError>) -> Result<(), Failure> {
        match joined {
            Ok(finished) => {
                self.results.push(finished);
                Ok(())
            }
            Err(error) => Err(Failure::Fatal(format!("an effect ended by itself: {error}"))),
        }
    }

    pub(super) async fn turn(&mut self) -> Result<(), Failure> {
        let mut outgoing = Outgoing::default();
        for finished in std::mem::take(&mut self.results) {
            let Finished { partition, incarnation, lane, work, fact } = finished;
            let current = self.partitions.get_mut(&partition).is_some_and(|p| p.incarnation == incarnation);
            if !current {
                self.handler.late(&work, fact);
                continue;
            }
            let step = match self.handler.conclude(&work, fact).await {
                Err(Failure::Later(reason)) => return Err(Failure::Reinitialise(reason)),
                other => other?,
            };
            self.settle(&partition, lane, vec![work], vec![step], &mut outgoing)?;
        }

        let Taken { lanes, work } = self.take_work();
        if !work.is_empty() {
            let span = batch_span(&self.spec.group, &work);
            let started = self.clock.now();
            let foreseen = self.foreseen(&work);
            let (fit, refusals) = self.fit(&work);
            let (handler, shown) = (&mut self.handler, &fit);
            let handle = async move {
                if shown.is_empty() { Ok(Vec::new()) } else { handler.handle(shown).instrument(span).await }
            };
            let handled = if foreseen.is_empty() {
                handle.await
            } else {
                let membership = self.membership.as_ref().ok_or_else(super::transaction::no_membership)?;
                let (handled, held) =
                    tokio::join!(handle, self.writer.hold(foreseen, &self.partitions, membership, started));
                held?;
                handled
            };
            self.metrics.batch(self.clock.now().since(started));
            let count = fit.len();
            drop(fit);
            let mut work = work.into_iter();
            let steps = match handled {
                Ok(steps) if steps.len() == count => steps,
                Ok(_) => return Err(Failure::Fatal("a handler answered fewer steps than records".to_owned())),
                Err(failure) => {
                    for (partition, lane, count) in lanes {
                        let own = work.by_ref().take(count).collect();
                        if let Some(partition) = self.partitions.get_mut(&partition) {
                            partition.lanes.give_back(lane, own, None);
                        }
                    }
                    if matches!(failure, Failure::Later(_)) {
                        // What was concluded in this turn must not wait for what cannot be handled now.
                        self.write(outgoing).await?;
                    }
                    return Err(failure);
                }
            };
            let mut steps = steps.into_iter();
            let steps =
                refusals.into_iter().filter_map(|refusal| refusal.map(Step::DeadLetter).or_else(|| steps.next()));
            let mut steps = steps.collect::<Vec<_>>().into_iter();
            for (partition, lane, count) in lanes {
                let own: Vec<_> = work.by_ref().take(count).collect();
                let steps: Vec<_> = steps.by_ref().take(count).collect();
                self.settle(&partition, lane, own, steps, &mut outgoing)?;
            }
        }
        let Some(reason) = outgoing.unfit.take() else { return self.write(outgoing).await };
        if matches!(self.handler.order(), Order::Lanes { .. }) {
            // What others did outside is not to be forgotten for that.
            self.write(outgoing).await?;
            self.commit().await?;
        }
        Err(Failure::Reinitialise(reason))
    }

    /// The work that the handler is shown, and for each piece whether it is not, and why.
    fn fit<'a>(&self, work: &'a [Work]) -> (Cow<'a, [Work]>, Vec<Option<Reason>>) {
        let refusals: Vec<_> = work.iter().map(|work| self.writer.sizes.refusal(&work.record)).collect();
        if refusals.iter().all(Option::is_none) {
            return (Cow::Borrowed(work), refusals);
        }
        let fit = work.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        (fit.map(|(work, _)| work.clone()).collect(), refusals)
    }

    /// The next work. Partitions are served in turn, so that a backlog of one does not keep the others waiting.
    fn take_work(&mut self) -> Taken {
        let mut slots = match self.handler.order() {
            Order::Batch => None,
            Order::Lanes { at_once } => Some(Slots::new(at_once, &self.partitions)),
        };
        let mut names = self.partitions.ready();
        let behind = names.partition_point(|name| Some(name) <= self.served.as_ref());
        names.rotate_left(behind);
        if slots.is_none() {
            names.truncate(self.spec.together);
        }
        let mut taken = Taken::default();
        for name in names {
            let Some(partition) = self.partitions.get_mut(&name) else { continue };
            let lanes = match &mut slots {
                None => partition.lanes.take_many(self.spec.batch - taken.work.len()),
                Some(slots) => partition.lanes.take(slots.free(), 1, |of| slots.take(of)),
            };
            for (lane, work) in lanes {
                taken.lanes.push((name.clone(), lane, work.len()));
                taken.work.extend(work);
            }
            self.served = Some(name);
            let full = slots.as_ref().map_or(taken.work.len() >= self.spec.batch, |slots| slots.free() == 0);
            if full {
                break;
            }
        }
        taken
    }

    /// Sorts the steps of one lane's work into what has to be written.
    fn settle(
        &mut self,
        name: &TopicPartition,
        lane: LaneKey,
        work: Vec<Work>,
        steps: Vec<Step<H::Fact>>,
        outgoing: &mut Outgoing<H::Fact>,
    ) -> Result<(), Failure> {
        let lanes_allowed = matches!(self.handler.order(), Order::Lanes { .. });
        let now = self.clock.now();
        if let Some(unfit) = self.writer.sizes.give_up(&work, &steps) {
            // Nothing of this lane stands; it is read again.
            outgoing.unfit = Some(unfit);
            return Ok(());
        }
        outgoing.touched.insert(name.clone());
        let Some(partition) = self.partitions.get_mut(name) else { return Ok(()) };
        let mut all = work.into_iter();
        for step in steps {
            let Some(mut work) = all.next() else { break };
            match step {
                _ if work.replay => partition.ledger.finished(work.record.offset),
                Step::Done(appends) => {
                    self.metrics.handled(name);
                    outgoing.appends.extend(appends);
                    partition.ledger.finished(work.record.offset);
                }
                Step::DeadLetter(reason) => {
                    tracing::warn!(
                        worker = self.spec.name,
                        source = %work.record.source,
                        offset = work.record.offset.0,
                        reason = reason.word,
                        detail = reason.detail,
                        "dead letter"
                    );
                    self.metrics.dead_lettered(&work.record.source, reason.word);
                    let most = self.writer.sizes.most_of_letter(&dead_letters_of(&work.record.source.topic));
                    let letter = dead_letter(&work.record, &reason, self.spec.name, &self.spec.group, now, most);
                    outgoing.appends.push(letter);
                    partition.ledger.finished(work.record.offset);
                }
                Step::Effect { journal, run } if lanes_allowed => {
                    work.round += 1;
                    let (partition, incarnation) = (name.clone(), partition.incarnation);
                    outgoing.effects.push(Effect { journal, partition, incarnation, lane, work, run });
                    return Ok(());
                }
                Step::Wait { until, appends } => {
                    outgoing.appends.extend(appends);
                    work.round += 1;
                    // What comes behind it in the lane waits with it.
                    let waiting = std::iter::once(work).chain(all).collect();
                    partition.lanes.give_back(lane, waiting, Some(until));
                    return Ok(());
                }
                Step::Effect { .. } => {
                    return Err(Failure::Fatal("a handler without lanes has no effects".to_owned()));
                }
            }
        }
        partition.lanes.finish(lane);
        Ok(())
    }

    pub(super) async fn report_caught_up(&mut self) -> Result<(), Failure> {
        if self.writer.is_open() {
            return Ok(());
        }
        let mut reports = Vec::new();
        for (name, partition) in self.partitions.iter_mut() {
            if partition.ledger.open() == 0
                && let Some(position) = partition.caught_up.take()
            {
                reports.push((name.clone(), position));
            }
        }
        for (name, position) in reports {
            if let Err(failure) = self.handler.caught_up(&name, position).await {
                if let Some(partition) = self.partitions.get_mut(&name) {
                    partition.caught_up = Some(position);
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Partitions were assigned: read their state, go to where it was left.
    pub(super) async fn take_over(
        &mut self,
        partitions: Vec<TopicPartition>,
        reader: &mut dyn Reader,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        let (status, clock) = (self.status.clone(), self.clock.clone());
        self.membership = Some(status.waiting(clock.as_ref(), reader.membership()).await?);
        // Nobody waits for this transaction while the state is read.
        self.commit().await?;
        for partition in &partitions {
            self.partitions.insert(partition.clone(), None);
        }
        self.metrics.rebalanced(Rebalance::Assigned, self.partitions.names().len());
        status.waiting(clock.as_ref(), self.read_state(partitions, reader, shutdown)).await
    }

    async fn read_state(
        &mut self,
        partitions: Vec<TopicPartition>,
        reader: &mut dyn Reader,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        loop {
            match self.try_read_state(&partitions, reader).await {
                Ok(()) => {
                    self.backoff.reset();
                    self.status.set_ready();
                    tracing::info!(worker = self.spec.name, count = partitions.len(), "partitions taken over");
                    return Ok(());
                }
                Err(Failure::Later(reason) | Failure::Reinitialise(reason)) if !shutdown.is_cancelled() => {
                    tracing::warn!(worker = self.spec.name, reason, "cannot read the state yet");
                    self.pause_after_failure(shutdown).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn try_read_state(&mut self, partitions: &[TopicPartition], reader: &mut dyn Reader) -> Result<(), Failure> {
        // The former owner of a partition is done with it when this is answered.
        let positions = self.log.positions(&self.spec.group, partitions).await?;
        let positions = self.still_there(partitions, positions).await?;
        for (partition, position) in partitions.iter().zip(positions) {
            let committed = position.map(|position| position.next);
            self.handler.revoked(partition);
            tracing::debug!(worker = self.spec.name, %partition, committed = committed.map(|at| at.0), "taking over");
            let from = match self.handler.assigned(partition, committed).await? {
                TakeUp::Committed => committed.map_or(Start::Beginning, Start::At),
                TakeUp::At(offset) => Start::At(offset),
                TakeUp::Beginning => Start::Beginning,
            };
            self.partitions.insert(partition.clone(), position);
            reader.seek(partition, from).await?;
        }
        Ok(())
    }

    /// Drops what is not committed. Running effects end first: what they found out is remembered.
    pub(super) async fn let_effects_end(&mut self) -> Result<(), End> {
        self.writer.clear();
        while let Some(joined) = self.effects.join_next().await {
            if let Err(Failure::Fatal(reason)) = self.take_result(joined) {
                return Err(End::Fatal(reason));
            }
        }
        for finished in std::mem::take(&mut self.results) {
            self.handler.late(&finished.work, finished.fact);
        }
        Ok(())
    }

    /// Gives back what the group wants and is finished.
    pub(super) async fn hand_back(&mut self, reader: &mut dyn Reader) -> Result<(), Failure> {
        let done = self.partitions.to_hand_back(self.clock.now());
        if done.is_empty() {
            return Ok(());
        }
        self.commit().await?;
        // What cannot be released now stays on its way out and is tried again: dropped, nobody would ever get it.
        let (status, clock) = (self.status.clone(), self.clock.clone());
        status.waiting(clock.as_ref(), reader.release(&done)).await?;
        for partition in &done {
            self.drop_partition(partition);
        }
        tracing::info!(worker = self.spec.name, count = done.len(), "partitions handed back");
        Ok(())
    }

    pub(super) fn drop_partition(&mut self, partition: &TopicPartition) {
        if self.partitions.remove(partition) {
            self.metrics.forget(partition);
            self.handler.revoked(partition);
        }
    }

    pub(super) fn forget_everything(&mut self) {
        // Dropping the old set aborts what runs in it.
        self.effects = tokio::task::JoinSet::new();
        self.results.clear();
        self.writer.clear();
        self.touched.clear();
        self.watch.forget();
        self.membership = None;
        for partition in self.partitions.names() {
            self.drop_partition(&partition);
        }
    }

    /// Back-pressure with hysteresis: a full partition is paused, a half empty one resumed.
    pub(super) async fn balance(&mut self, reader: &mut dyn Reader) -> Result<(), Failure> {
        let (mut full, mut free) = (Vec::new(), Vec::new());
        let lanes = matches!(self.handler.order(), Order::Lanes { .. });
        let owned = self.partitions.iter().count().max(1);
        let (aside, span) = ((self.spec.aside / owned).max(1), (self.spec.span / owned).max(1));
        for (name, partition) in self.partitions.iter_mut() {
            let times = |times: usize| {
                if lanes {
                    partition.ledger.open() * times >= aside || partition.ledger.span() * times >= span
                } else {
                    partition.lanes.queued() * times >= self.spec.buffer
                }
            };
            if !partition.paused && times(1) {
                partition.paused = true;
                full.push(name.clone());
                if lanes {
                    let (open, span) = (partition.ledger.open(), partition.ledger.span());
                    tracing::warn!(worker = self.spec.name, partition = %name, open, span, "too much waits: no more is read");
                }
            } else if partition.paused && !times(2) {
                partition.paused = false;
                free.push(name.clone());
            }
        }
        if !full.is_empty() || !free.is_empty() {
            self.metrics.paused(self.partitions.iter().filter(|(_, partition)| partition.paused).count());
        }
        if !full.is_empty() {
            reader.pause(&full).await?;
        }
        if !free.is_empty() {
            reader.resume(&free).await?;
        }
        Ok(())
    }
}
