//! What a view has not applied yet, and whether it matters (R2).
//!
//! A view is nearly always a little behind the log, and almost everything it lacks says what the connector itself did. Whoever decides on a
//! view follows the log beside it and remembers per stream where the last event stands that can change a decision
//! ([`bears_on_decisions`](connector_domain::bearing::bears_on_decisions)). A reading is *settled* when no such event stands at its position or behind it, up to the end of the log as of
//! the decision. So what has nothing unapplied is decided at once, however far the view is behind, and what has waits.
//!
//! The directory is a part of that: a user who is disabled there is so from then on, whether or not its worker is there to tell the log.
//!
//! Nothing runs in the background: whoever asks reads on, up to the ends that were asked for.

mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::ids::{OrganizationId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::log::{Isolation, Offset, Polled, Reader, Start, TopicName, TopicPartition};
use connector_ports::{Clock, Log};
use tokio::sync::{Mutex, OnceCell};

use crate::failure::Failure;
use crate::platform::{Platform, groups};
use slots::{Slots, note_entry, note_event, stream_hash, user_hash};

/// How long a question waits for records that must be on their way.
const WITHIN: Duration = Duration::from_millis(100);
/// After so long without a question the reader rests.
pub const IDLE: Duration = Duration::from_secs(2);
/// Records in one piece.
const PIECE: usize = 2_000;
/// A tail that is so many records behind the view goes on at the view's position instead of reading what nobody needs.
const FAR: i64 = 2_000;
/// So many records are read again for a view that went back. One that is further back is being built again, and comes by itself.
const FARTHEST: i64 = 200_000;
/// A partition as it was followed: everything from `begin` to `next` was looked at.
#[derive(Default)]
struct Followed {
    /// `None`: nothing was looked at.
    begin: Option<Offset>,
    next: Offset,
    slots: Slots,
}

impl Followed {
    fn passed(&mut self, next: Offset) {
        // Before its first question it is read at the end, and what comes there is passed over.
        if self.begin.is_some() {
            self.next = self.next.max(next);
        }
    }
}

/// The ends of the log and of the directory at a moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    log: BTreeMap<u32, Offset>,
    directory: Vec<Offset>,
}

impl Moment {
    /// A writer knows of its own record before the end of the log has moved behind it: this moment is behind that record.
    pub fn not_before(&mut self, partition: u32, own: Offset) {
        if let Some(end) = self.log.get_mut(&partition) {
            *end = own.max(*end);
        }
    }
}

/// A stream that was read in a view, and where that stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The stream.
    pub stream: StreamId,
    /// Its partition.
    pub partition: u32,
    /// What the view had applied; `None` for an empty one.
    pub applied: Option<Offset>,
}

/// Clones share what they know.
#[derive(Clone)]
pub struct Tail {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    events: TopicName,
    directory: TopicName,
    partitions: u32,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Where the directory's worker stood before the first question.
    begun: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reader: Option<Box<dyn Reader>>,
    log: Vec<Followed>,
    directory: Vec<Followed>,
    /// What the directory's worker has turned into events, as far as it was asked for.
    told: Vec<Offset>,
    /// When the reader was needed last.
    asked: Option<Timestamp>,
    paused: bool,
}

impl Tail {
    /// Follows nothing before the first question.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        Self {
            log: platform.log.clone(),
            clock: platform.clock.clone(),
            events: platform.topic(Topic::ConversationEvents),
            directory: platform.topic(Topic::Directory),
            partitions: platform.partitions,
            shared: Arc::default(),
        }
    }

    fn all(&self, topic: &TopicName) -> Vec<TopicPartition> {
        (0..self.partitions).map(|partition| TopicPartition { topic: topic.clone(), partition }).collect()
    }

    /// The ends of these partitions of the log, and of the directory, in one question.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn moment(&self, partitions: impl IntoIterator<Item = u32>) -> Result<Moment, Failure> {
        self.shared.begun.get_or_try_init(|| self.begin()).await?;
        let directory = self.all(&self.directory);
        let mut log: Vec<u32> = partitions.into_iter().collect();
        log.sort_unstable();
        log.dedup();
        let mut asked = directory;
        asked.extend(log.iter().map(|partition| TopicPartition { topic: self.events.clone(), partition: *partition }));
        let mut directory = self.log.end_offsets(&asked, Isolation::Committed).await?;
        let ends = directory.split_off(self.partitions as usize);
        Ok(Moment { log: log.into_iter().zip(ends).collect(), directory })
    }

    /// The ends of further partitions of the log, for the same decision.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn further(&self, moment: &mut Moment, partitions: impl IntoIterator<Item = u32>) -> Result<(), Failure> {
        let mut missing: Vec<u32> = partitions.into_iter().filter(|one| !moment.log.contains_key(one)).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let asked = |partition: &u32| TopicPartition { topic: self.events.clone(), partition: *partition };
        let asked: Vec<_> = missing.iter().map(asked).collect();
        let ends = self.log.end_offsets(&asked, Isolation::Committed).await?;
        moment.log.extend(missing.into_iter().zip(ends));
        Ok(())
    }

    /// What the directory's worker has finished is in the log. Before the first question, so that what it finishes afterwards is seen.
    async fn begin(&self) -> Result<(), Failure> {
        let told = self.told().await?;
        let mut state = self.shared.state.lock().await;
        state.told = told;
        state.directory = (state.told.iter())
            .map(|told| Followed { begin: Some(*told), next: *told, slots: Slots::default() })
            .collect();
        state.log = (0..self.partitions).map(|_| Followed::default()).collect();
        Ok(())
    }

    async fn told(&self) -> Result<Vec<Offset>, Failure> {
        let committed = self.log.committed(groups::DIRECTORY, &self.all(&self.directory)).await?;
        Ok(committed.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Whether these readings have everything that matters up to a moment, one answer each. Waits a moment for records that must be on
    /// their way; what does not come in time is not settled.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn settled(&self, moment: &Moment, read: &[Read]) -> Result<Vec<bool>, Failure> {
        // The lowest position of each partition that is behind its end.
        let mut behind: BTreeMap<u32, Offset> = BTreeMap::new();
        for Read { partition, applied, .. } in read {
            if let (Some(applied), Some(end)) = (applied, moment.log.get(partition))
                && applied < end
            {
                let lowest = behind.entry(*partition).or_insert(*applied);
                *lowest = (*applied).min(*lowest);
            }
        }
        let mut state = self.shared.state.lock().await;
        if !behind.is_empty() {
            self.read_on(&mut state, &behind, moment).await?;
        }
        let settled = |Read { stream, partition, applied }: &Read| {
            let (Some(applied), Some(end)) = (applied, moment.log.get(partition)) else { return false };
            if applied >= end {
                return true;
            }
            let Some(followed) = usize::try_from(*partition).ok().and_then(|at| state.log.get(at)) else {
                return false;
            };
            followed.begin.is_some_and(|begin| begin <= *applied)
                && followed.next >= *end
                && followed.slots.behind_last(stream_hash(stream.as_str())) <= *applied
        };
        Ok(read.iter().map(settled).collect())
    }

    /// Whether everything that the directory says about these users, and about their contacts, is in the log, one answer each.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn told_of<'a>(
        &self,
        moment: &Moment,
        users: impl IntoIterator<Item = (&'a OrganizationId, &'a UserId)>,
    ) -> Result<Vec<bool>, Failure> {
        let hashes: Vec<u64> =
            users.into_iter().map(|(organization, user)| user_hash(organization.as_str(), user.as_str())).collect();
        let mut state = self.shared.state.lock().await;
        let reached = |state: &State| state.directory.iter().zip(&moment.directory).all(|(one, end)| one.next >= *end);
        if !reached(&state) {
            self.read_on(&mut state, &BTreeMap::new(), moment).await?;
        }
        let told = |state: &State, hash: &u64| {
            reached(state)
                && state.directory.iter().zip(&state.told).all(|(one, told)| one.slots.behind_last(*hash) <= *told)
        };
        let answers: Vec<bool> = hashes.iter().map(|hash| told(&state, hash)).collect();
        if answers.contains(&false) {
            // The events of what is found told now may stand behind the ends of this moment: it counts for the next question.
            state.told = self.told().await?;
        }
        Ok(answers)
    }

    /// Lets the reader rest when nobody has needed it for a while: one that follows costs the log more than one that reads. To be called from
    /// time to time.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn rest(&self) -> Result<(), Failure> {
        let mut state = self.shared.state.lock().await;
        if state.paused || state.asked.is_none_or(|asked| self.clock.now().since(asked) < IDLE) {
            return Ok(());
        }
        let everything = self.everything();
        if let Some(reader) = &mut state.reader {
            reader.pause(&everything).await?;
            state.paused = true;
        }
        Ok(())
    }

    fn everything(&self) -> Vec<TopicPartition> {
        let mut everything = self.all(&self.events);
        everything.extend(self.all(&self.directory));
        everything
    }

    /// Reads up to the ends of a moment: of the directory, and of those partitions of the log that are read `from` a position.
    async fn read_on(&self, state: &mut State, from: &BTreeMap<u32, Offset>, moment: &Moment) -> Result<(), Failure> {
        let read = self.try_read_on(state, from, moment).await;
        if read.is_err() {
            // A new one goes on where this one was.
            state.reader = None;
        }
        read
    }

    async fn try_read_on(
        &self,
        state: &mut State,
        from: &BTreeMap<u32, Offset>,
        moment: &Moment,
    ) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        let mut seeks = Vec::new();
        for (partition, from) in from {
            let Some(end) = moment.log.get(partition) else { continue };
            let Some(followed) = usize::try_from(*partition).ok().and_then(|at| state.log.get_mut(at)) else {
                continue;
            };
            match followed.begin {
                Some(begin) if *from < begin && followed.next.0 - from.0 > FARTHEST => continue,
                Some(begin) if begin <= *from && from.0 - followed.next.0 <= FAR => {}
                None if end.0 - from.0 > FARTHEST => continue,
                _ => {
                    (followed.begin, followed.next) = (Some(*from), *from);
                    seeks
                        .push((TopicPartition { topic: self.events.clone(), partition: *partition }, Start::At(*from)));
                }
            }
            if followed.next < *end {
                wanted.push(*partition);
            }
        }
        state.asked = Some(self.clock.now());
        if let Some(reader) = &mut state.reader {
            if std::mem::take(&mut state.paused) {
                reader.resume(&self.everything()).await?;
            }
            for (partition, to) in seeks {
                reader.seek(&partition, to).await?;
            }
        } else {
            state.paused = false;
            state.reader = Some(self.log.follow(self.starts(state), Isolation::Committed).await?);
        }
        let until = self.clock.now() + WITHIN;
        while !Self::has_reached(state, &wanted, moment) {
            let now = self.clock.now();
            if now >= until {
                break;
            }
            self.take_in(state, until.since(now)).await?;
        }
        Ok(())
    }

    fn starts(&self, state: &State) -> Vec<(TopicPartition, Start)> {
        let start = |followed: &Followed| followed.begin.map_or(Start::End, |_| Start::At(followed.next));
        let of = |topic, followed: &[Followed]| -> Vec<_> {
            self.all(topic).into_iter().zip(followed.iter().map(start)).collect()
        };
        let mut starts = of(&self.events, &state.log);
        starts.extend(of(&self.directory, &state.directory));
        starts
    }

    fn has_reached(state: &State, wanted: &[u32], moment: &Moment) -> bool {
        let log = |partition: &u32| {
            let followed = usize::try_from(*partition).ok().and_then(|at| state.log.get(at));
            followed.zip(moment.log.get(partition)).is_none_or(|(followed, end)| followed.next >= *end)
        };
        let directory = state.directory.iter().zip(&moment.directory).all(|(followed, end)| followed.next >= *end);
        directory && wanted.iter().all(log)
    }

    async fn take_in(&self, state: &mut State, wait: Duration) -> Result<(), Failure> {
        let Some(reader) = &mut state.reader else { return Ok(()) };
        match reader.poll(wait, PIECE).await? {
            Polled::Records(records) => {
                for record in records {
                    let of_log = record.source.topic == self.events;
                    let followed = if of_log { &mut state.log } else { &mut state.directory };
                    let Some(followed) =
                        usize::try_from(record.source.partition).ok().and_then(|at| followed.get_mut(at))
                    else {
                        continue;
                    };
                    if of_log {
                        note_event(&mut followed.slots, &record);
                    } else {
                        note_entry(&mut followed.slots, &record);
                    }
                    followed.passed(record.offset.next());
                }
            }
            Polled::CaughtUp(TopicPartition { topic, partition }, position) => {
                let followed = if topic == self.events { &mut state.log } else { &mut state.directory };
                if let Some(followed) = usize::try_from(partition).ok().and_then(|at| followed.get_mut(at)) {
                    followed.passed(position);
                }
            }
            Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) | Polled::Idle => {}
        }
        Ok(())
    }
}

/// How long a decision that is not settled waits before it is taken up again: the longer it has waited, the longer.
#[must_use]
pub fn again(since: Timestamp, now: Timestamp) -> Timestamp {
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(1);
    now + (now.since(since) / 8).clamp(SHORTEST, LONGEST)
}
