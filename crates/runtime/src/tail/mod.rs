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
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::ids::{OrganizationId, StreamId, UserId};
use connector_domain::time::Timestamp;
use connector_ports::log::{
    Identity, Isolation, LogId, Offset, Polled, Reader, Record, Start, TopicName, TopicPartition,
};
use connector_ports::{Clock, Log};
use tokio::sync::{Mutex, OnceCell};

use crate::failure::Failure;
use crate::platform::{Platform, groups};
use crate::renewed::Renewed;
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
    /// Which log it is, once that was told.
    id: Option<LogId>,
    renewed: Renewed,
}

impl Followed {
    /// What was looked at is of another log than the one that ends here now. To begin anew costs a few records that are read again.
    fn is_of_another(&mut self, log: &Arc<dyn Log>, source: &TopicPartition, end: Offset) -> bool {
        let another = match self.renewed.answer(log, source) {
            Some(Identity::Known(id)) => self.id.replace(id.clone()).is_some_and(|known| known != id),
            Some(Identity::Unwritten) => self.id.take().is_some(),
            Some(Identity::BeginningLost { .. }) | None => false,
        };
        another || end < self.next
    }

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
    /// The group of the directory's worker.
    teller: String,
    partitions: u32,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Where the directory's worker stood before the first question.
    begun: OnceCell<()>,
    /// Whoever waits for records takes in one piece, and lets the others look whether it was what they wait for.
    source: Mutex<Source>,
    /// Changed by who has the source, looked at by everybody.
    state: std::sync::Mutex<State>,
}

#[derive(Default)]
struct Source {
    reader: Option<Box<dyn Reader>>,
    /// When the reader was needed last.
    asked: Option<Timestamp>,
    paused: bool,
}

#[derive(Default)]
struct State {
    log: Vec<Followed>,
    directory: Vec<Followed>,
    /// What the directory's worker has turned into events, as far as it was asked for.
    told: Vec<Offset>,
}

impl State {
    fn of_log(&self, partition: u32) -> Option<&Followed> {
        usize::try_from(partition).ok().and_then(|at| self.log.get(at))
    }

    /// Whether the directory, and these partitions of the log, were looked at up to the ends of a moment.
    fn has_reached(&self, wanted: impl IntoIterator<Item = u32>, moment: &Moment) -> bool {
        let log = |partition: u32| {
            let followed = self.of_log(partition);
            followed.zip(moment.log.get(&partition)).is_none_or(|(followed, end)| followed.next >= *end)
        };
        self.has_reached_directory(moment) && wanted.into_iter().all(log)
    }

    fn has_reached_directory(&self, moment: &Moment) -> bool {
        self.directory.iter().zip(&moment.directory).all(|(followed, end)| followed.next >= *end)
    }

    /// Whether everything from these positions on was looked at.
    fn covers(&self, from: &BTreeMap<u32, Offset>, moment: &Moment) -> bool {
        let begun = |(partition, from): (&u32, &Offset)| {
            self.of_log(*partition).and_then(|followed| followed.begin).is_some_and(|begin| begin <= *from)
        };
        from.iter().all(begun) && self.has_reached(from.keys().copied(), moment)
    }

    /// As far as the directory was looked at.
    fn is_told_of(&self, user: u64) -> bool {
        self.directory.iter().zip(&self.told).all(|(one, told)| one.slots.behind_last(user) <= *told)
    }

    fn note(&mut self, records: Vec<Record>, events: &TopicName) {
        for record in records {
            let of_log = record.source.topic == *events;
            let followed = if of_log { &mut self.log } else { &mut self.directory };
            let Some(followed) = usize::try_from(record.source.partition).ok().and_then(|at| followed.get_mut(at))
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
            teller: platform.group(groups::DIRECTORY),
            partitions: platform.partitions,
            shared: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        // What is asked now is never less than what was read before.
        let read: Vec<Offset> = {
            let state = self.state();
            log.iter().map(|one| state.of_log(*one).map_or(Offset(0), |followed| followed.next)).collect()
        };
        asked.extend(log.iter().map(|partition| TopicPartition { topic: self.events.clone(), partition: *partition }));
        let mut directory = self.log.end_offsets(&asked, Isolation::Committed).await?;
        let ends = directory.split_off(self.partitions as usize);
        self.leave_former_logs(log.iter().zip(read).zip(&ends));
        Ok(Moment { log: log.into_iter().zip(ends).collect(), directory })
    }

    /// Partitions that were made anew are followed from where the next question needs them. Each with what had been read of it, and its end.
    fn leave_former_logs<'a>(&self, asked: impl Iterator<Item = ((&'a u32, Offset), &'a Offset)>) {
        let mut state = self.state();
        for ((partition, read), end) in asked {
            let source = TopicPartition { topic: self.events.clone(), partition: *partition };
            let Some(followed) = usize::try_from(*partition).ok().and_then(|at| state.log.get_mut(at)) else {
                continue;
            };
            // What was read meanwhile may stand behind this end.
            if followed.is_of_another(&self.log, &source, if followed.next > read { followed.next } else { *end }) {
                tracing::warn!(%source, "the log was made anew; what was known of it is left");
                *followed = Followed { id: followed.id.take(), ..Followed::default() };
            }
        }
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
        let mut state = self.state();
        state.told = told;
        state.directory = (state.told.iter())
            .map(|told| Followed { begin: Some(*told), next: *told, ..Followed::default() })
            .collect();
        state.log = (0..self.partitions).map(|_| Followed::default()).collect();
        Ok(())
    }

    async fn told(&self) -> Result<Vec<Offset>, Failure> {
        let committed = self.log.committed(&self.teller, &self.all(&self.directory)).await?;
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
        if !behind.is_empty() && !self.state().covers(&behind, moment) {
            self.read_on(&behind, moment).await?;
        }
        let state = self.state();
        let settled = |Read { stream, partition, applied }: &Read| {
            let (Some(applied), Some(end)) = (applied, moment.log.get(partition)) else { return false };
            if applied >= end {
                return true;
            }
            let Some(followed) = state.of_log(*partition) else { return false };
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
        if !self.state().has_reached_directory(moment) {
            self.read_on(&BTreeMap::new(), moment).await?;
        }
        let answers: Vec<bool> = {
            let state = self.state();
            let reached = state.has_reached_directory(moment);
            hashes.iter().map(|hash| reached && state.is_told_of(*hash)).collect()
        };
        if answers.contains(&false) {
            // The events of what is found told now may stand behind the ends of this moment: it counts for the next question.
            let told = self.told().await?;
            if self.take_told(told) {
                // The next one begins where its worker stands.
                self.shared.source.lock().await.reader = None;
            }
        }
        Ok(answers)
    }

    /// True: the directory was made anew, since its worker goes back for nothing else. What was known of it is left.
    fn take_told(&self, told: Vec<Offset>) -> bool {
        let mut state = self.state();
        let mut anew = false;
        let State { directory, told: before, .. } = &mut *state;
        for ((followed, before), told) in directory.iter_mut().zip(before).zip(&told) {
            if told < before {
                *followed = Followed { begin: Some(*told), next: *told, ..Followed::default() };
                anew = true;
            }
        }
        state.told = told;
        anew
    }

    /// Whether it is known already, without a question, that this reading of a user's situation lacks something that matters.
    #[must_use]
    pub fn knows_more(&self, organization: &OrganizationId, user: &UserId, read: &[Read]) -> bool {
        let state = self.state();
        let newer = |Read { stream, partition, applied }: &Read| {
            let last =
                state.of_log(*partition).map(|followed| followed.slots.behind_last(stream_hash(stream.as_str())));
            last > *applied
        };
        !state.is_told_of(user_hash(organization.as_str(), user.as_str())) || read.iter().any(newer)
    }

    /// Lets the reader rest when nobody has needed it for a while: one that follows costs the log more than one that reads. To be called from
    /// time to time.
    ///
    /// # Errors
    /// When the log is away.
    pub async fn rest(&self) -> Result<(), Failure> {
        let mut source = self.shared.source.lock().await;
        if source.paused || source.asked.is_none_or(|asked| self.clock.now().since(asked) < IDLE) {
            return Ok(());
        }
        let everything = self.everything();
        if let Some(reader) = &mut source.reader {
            reader.pause(&everything).await?;
            source.paused = true;
        }
        Ok(())
    }

    fn everything(&self) -> Vec<TopicPartition> {
        let mut everything = self.all(&self.events);
        everything.extend(self.all(&self.directory));
        everything
    }

    /// Reads up to the ends of a moment: of the directory, and of those partitions of the log that are read `from` a position.
    async fn read_on(&self, from: &BTreeMap<u32, Offset>, moment: &Moment) -> Result<(), Failure> {
        let until = self.clock.now() + WITHIN;
        let mut wanted = None;
        loop {
            let mut source = self.shared.source.lock().await;
            let read = self.take_in(&mut source, from, &mut wanted, moment, until).await;
            if read.is_err() {
                // A new one goes on where this one was.
                source.reader = None;
            }
            if read? {
                return Ok(());
            }
        }
    }

    /// Takes in one piece, unless everything that is `wanted` is here or the time is over: `true` then.
    async fn take_in(
        &self,
        source: &mut Source,
        from: &BTreeMap<u32, Offset>,
        wanted: &mut Option<Vec<u32>>,
        moment: &Moment,
        until: Timestamp,
    ) -> Result<bool, Failure> {
        let wanted = match wanted {
            Some(wanted) => wanted,
            None => wanted.insert(self.begin_reading(source, from, moment).await?),
        };
        let now = self.clock.now();
        if now >= until || self.state().has_reached(wanted.iter().copied(), moment) {
            return Ok(true);
        }
        let reader = match &mut source.reader {
            Some(reader) => reader,
            // Somebody else's question failed.
            None => source.reader.insert(self.open().await?),
        };
        match reader.poll(until.since(now), PIECE).await? {
            Polled::Records(records) => self.state().note(records, &self.events),
            Polled::CaughtUp(TopicPartition { topic, partition }, position) => {
                let mut state = self.state();
                let followed = if topic == self.events { &mut state.log } else { &mut state.directory };
                if let Some(followed) = usize::try_from(partition).ok().and_then(|at| followed.get_mut(at)) {
                    followed.passed(position);
                }
            }
            Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) | Polled::Idle => {}
        }
        Ok(false)
    }

    /// Sets the reader to where these positions ask for. The answer: the partitions of the log that are to be read.
    async fn begin_reading(
        &self,
        source: &mut Source,
        from: &BTreeMap<u32, Offset>,
        moment: &Moment,
    ) -> Result<Vec<u32>, Failure> {
        let (wanted, seeks) = self.plan(from, moment);
        source.asked = Some(self.clock.now());
        if let Some(reader) = &mut source.reader {
            if std::mem::take(&mut source.paused) {
                reader.resume(&self.everything()).await?;
            }
            for (partition, to) in seeks {
                reader.seek(&partition, to).await?;
            }
        } else {
            source.paused = false;
            source.reader = Some(self.open().await?);
        }
        Ok(wanted)
    }

    fn plan(&self, from: &BTreeMap<u32, Offset>, moment: &Moment) -> (Vec<u32>, Vec<(TopicPartition, Start)>) {
        let (mut wanted, mut seeks) = (Vec::new(), Vec::new());
        let mut state = self.state();
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
        (wanted, seeks)
    }

    async fn open(&self) -> Result<Box<dyn Reader>, Failure> {
        let starts = self.starts();
        Ok(self.log.follow(starts, Isolation::Committed).await?)
    }

    fn starts(&self) -> Vec<(TopicPartition, Start)> {
        let state = self.state();
        let start = |followed: &Followed| followed.begin.map_or(Start::End, |_| Start::At(followed.next));
        let of = |topic, followed: &[Followed]| -> Vec<_> {
            self.all(topic).into_iter().zip(followed.iter().map(start)).collect()
        };
        let mut starts = of(&self.events, &state.log);
        starts.extend(of(&self.directory, &state.directory));
        starts
    }
}

/// How long a decision that is not settled waits before it is taken up again: the longer it has waited, the longer.
#[must_use]
pub fn again(since: Timestamp, now: Timestamp) -> Timestamp {
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(1);
    now + (now.since(since) / 8).clamp(SHORTEST, LONGEST)
}
