//! Reading: positions, ends and the notices of the group, the same for every store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_ports::Reader;
use connector_ports::log::{Isolation, LogError, Membership, Offset, Polled, Start, TopicPartition};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::group::{Notice, Place, Ticket};
use crate::log::Shared;
use crate::store::{Positions, Store};

/// Names the group together with the ticket, so that a transaction checks both.
pub(crate) struct Proof {
    pub(crate) group: String,
    pub(crate) ticket: Ticket,
}

struct Cursor {
    position: Offset,
    /// The end that was told last.
    told: Option<Offset>,
    paused: bool,
    revoked: bool,
}

impl Cursor {
    fn at(position: Offset) -> Self {
        Self { position, told: None, paused: false, revoked: false }
    }
}

struct Seat {
    group: String,
    place: Place,
    start: Start,
    /// Taken from the group, not told yet: its positions are still being looked up.
    arriving: Option<Vec<TopicPartition>>,
}

pub(crate) struct StoreReader<S: Store> {
    shared: Arc<Shared<S>>,
    isolation: Isolation,
    seat: Option<Seat>,
    cursors: BTreeMap<TopicPartition, Cursor>,
    /// Read last; the next poll begins behind it, so that no partition starves another.
    last: Option<TopicPartition>,
    records_changed: watch::Receiver<u64>,
    group_changed: watch::Receiver<u64>,
}

impl<S: Store> StoreReader<S> {
    fn new(shared: Arc<Shared<S>>, isolation: Isolation, seat: Option<Seat>) -> Self {
        Self {
            records_changed: shared.store.changes(),
            group_changed: shared.groups.changes(),
            shared,
            isolation,
            seat,
            cursors: BTreeMap::new(),
            last: None,
        }
    }

    pub(crate) async fn assigned(
        shared: Arc<Shared<S>>,
        partitions: Vec<(TopicPartition, Start)>,
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        let mut reader = Self::new(shared, isolation, None);
        for (partition, start) in partitions {
            let position = reader.shared.store.resolve(&partition, start, isolation).await?;
            reader.cursors.insert(partition, Cursor::at(position));
        }
        Ok(reader)
    }

    pub(crate) fn member(shared: Arc<Shared<S>>, group: String, place: Place, start: Start) -> Self {
        Self::new(shared, Isolation::Committed, Some(Seat { group, place, start, arriving: None }))
    }

    /// What the group has to say, if anything. Cancel safe: an assignment waits in `arriving` while its positions are looked up.
    async fn notice(&mut self) -> Result<Option<Polled>, LogError> {
        let Some(seat) = &mut self.seat else { return Ok(None) };
        if seat.arriving.is_none() {
            match self.shared.groups.notice(&seat.place, &|topic| self.shared.count(topic))? {
                None => return Ok(None),
                Some(Notice::Assigned(partitions)) => seat.arriving = Some(partitions),
                Some(Notice::Revoked(partitions)) => {
                    for partition in &partitions {
                        if let Some(cursor) = self.cursors.get_mut(partition) {
                            cursor.revoked = true;
                        }
                    }
                    return Ok(Some(Polled::Revoked(partitions)));
                }
                Some(Notice::Lost(partitions)) => {
                    self.cursors.retain(|partition, _| !partitions.contains(partition));
                    return Ok(Some(Polled::Lost(partitions)));
                }
            }
        }
        let partitions = seat.arriving.clone().unwrap_or_default();
        let committed = self.shared.store.positions(&seat.group, &partitions).await?;
        let mut cursors = Vec::with_capacity(partitions.len());
        for (partition, committed) in partitions.iter().zip(committed) {
            let position = match committed {
                Some(position) => position.next,
                None => self.shared.store.resolve(partition, seat.start, self.isolation).await?,
            };
            cursors.push((partition.clone(), Cursor::at(position)));
        }
        seat.arriving = None;
        self.cursors.extend(cursors);
        Ok(Some(Polled::Assigned(partitions)))
    }

    /// Records or an end, if there is any.
    async fn records(&mut self, max: usize) -> Result<Option<Polled>, LogError> {
        let live = |(partition, cursor): (&TopicPartition, &Cursor)| {
            (!cursor.paused && !cursor.revoked).then(|| partition.clone())
        };
        let mut order: Vec<TopicPartition> = self.cursors.iter().filter_map(live).collect();
        let after = order.iter().position(|partition| Some(partition) > self.last.as_ref()).unwrap_or(0);
        order.rotate_left(after);
        for partition in order {
            let Some(cursor) = self.cursors.get_mut(&partition) else { continue };
            while self.shared.store.end(&partition, self.isolation).is_some_and(|end| cursor.position < end) {
                let from = cursor.position;
                let found = self.shared.store.fetch(&partition, from, max, self.isolation).await?;
                cursor.position = found.next;
                if !found.records.is_empty() {
                    cursor.told = None;
                    self.last = Some(partition);
                    return Ok(Some(Polled::Records(found.records)));
                }
                if found.next == from {
                    break;
                }
            }
            let at_end = self.shared.store.end(&partition, self.isolation) == Some(cursor.position);
            if at_end && cursor.told != Some(cursor.position) {
                cursor.told = Some(cursor.position);
                let position = cursor.position;
                return Ok(Some(Polled::CaughtUp(partition, position)));
            }
        }
        Ok(None)
    }

    fn leave(&mut self, keep_static: bool) {
        if let Some(seat) = self.seat.take() {
            self.shared.groups.leave(&seat.place, keep_static, &|topic| self.shared.count(topic));
        }
    }

    fn cursor(&mut self, partition: &TopicPartition) -> Result<&mut Cursor, LogError> {
        let missing = || LogError::Fenced { reason: format!("{partition} is not assigned to this reader") };
        self.cursors.get_mut(partition).ok_or_else(missing)
    }
}

#[async_trait]
impl<S: Store> Reader for StoreReader<S> {
    async fn poll(&mut self, wait: Duration, max: usize) -> Result<Polled, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            // Before looking: what changes meanwhile ends the wait below.
            self.records_changed.mark_unchanged();
            self.group_changed.mark_unchanged();
            if let Some(polled) = self.notice().await? {
                return Ok(polled);
            }
            if let Some(polled) = self.records(max.max(1)).await? {
                return Ok(polled);
            }
            // Timers have a granularity of a millisecond: one that is over is waited for as well.
            if wait.is_zero() {
                return Ok(Polled::Idle);
            }
            let changed = async {
                tokio::select! {
                biased;
                    _ = self.records_changed.changed() => {}
                    _ = self.group_changed.changed() => {}
                }
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(Polled::Idle);
            }
        }
    }

    async fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), LogError> {
        let position = self.shared.store.resolve(partition, to, self.isolation).await?;
        let cursor = self.cursor(partition)?;
        cursor.position = position;
        cursor.told = None;
        Ok(())
    }

    async fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for partition in partitions {
            self.cursor(partition)?.paused = true;
        }
        Ok(())
    }

    async fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for partition in partitions {
            self.cursor(partition)?.paused = false;
        }
        Ok(())
    }

    async fn commit(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let Some(seat) = &self.seat else {
            return Err(LogError::Fatal { reason: "a reader without a group has no positions to commit".to_owned() });
        };
        let ticket = self.shared.groups.ticket(&seat.place)?;
        let positions = positions.iter().map(|(partition, next)| (partition.clone(), (*next).into())).collect();
        let positions = Positions { group: seat.group.clone(), positions };
        let owned = positions.positions.clone();
        let store = &self.shared.store;
        let call = || store.commit_positions(positions);
        self.shared.groups.fenced_call(&ticket, owned.iter().map(|(partition, _)| partition), call)?.await
    }

    async fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        if let Some(seat) = &self.seat {
            let released =
                |partition: &TopicPartition, cursor: &Cursor| cursor.revoked && partitions.contains(partition);
            self.cursors.retain(|partition, cursor| !released(partition, cursor));
            self.shared.groups.release(&seat.place, partitions, &|topic| self.shared.count(topic));
        }
        Ok(())
    }

    async fn membership(&self) -> Result<Membership, LogError> {
        let Some(seat) = &self.seat else {
            return Err(LogError::Fatal { reason: "a reader without a group has no membership".to_owned() });
        };
        let ticket = self.shared.groups.ticket(&seat.place)?;
        Ok(Membership(Arc::new(Proof { group: seat.group.clone(), ticket })))
    }

    async fn close(mut self: Box<Self>) {
        self.leave(true);
    }
}

impl<S: Store> Drop for StoreReader<S> {
    fn drop(&mut self) {
        self.leave(true);
    }
}
