//! The one thread that writes. It runs jobs inside one SQLite transaction until none waits, commits, and only then answers and shows
//! the new ends to readers.

mod cleaning;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::log::{Landmark, LogError, Offset, Position, TopicName, TopicPartition};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::{Failure, Problem};
use crate::sqlite::reading::encode_headers;
use crate::sqlite::{OFFSET_BITS, Published, Visible, offset_of, row_id};
use crate::store::{Outcome, Placed, Positions, Session, fenced};

/// Records in one commit. More would let the first callers wait for the last.
const COMMIT_WEIGHT: usize = 20_000;

/// How long the writer waits for work before it looks whether something has grown too old.
const IDLE: Duration = Duration::from_secs(10);

/// Tells a caller how the commit ended.
type Settle = Box<dyn FnOnce(Result<(), &Problem>) + Send>;
type Work = Box<dyn FnOnce(&mut Writer) -> Result<Settle, Problem> + Send>;

/// Work for the writer.
pub(super) struct Job {
    weight: usize,
    work: Work,
}

impl Job {
    pub(super) fn new(
        weight: usize,
        work: impl FnOnce(&mut Writer) -> Result<Settle, Problem> + Send + 'static,
    ) -> Self {
        Self { weight, work: Box::new(work) }
    }
}

/// The state behind the file. It runs ahead of the file during a commit and is loaded again when that fails.
pub(super) struct Writer {
    db: Connection,
    clock: Arc<dyn Clock>,
    published: Arc<Published>,
    topics: HashMap<TopicName, Vec<Partition>>,
    transactors: HashMap<String, Transactor>,
    /// No SQLite transaction could be begun: nothing may be written now.
    refusal: Option<Problem>,
    /// When it is looked again for what need not be kept.
    clean_at: Timestamp,
}

struct Partition {
    slot: i64,
    begin: Offset,
    end: Offset,
    /// Records since the last compaction; as good as all of them after a start.
    dirty: i64,
    last_timestamp: i64,
    /// First position of each open transaction.
    open: BTreeMap<i64, Offset>,
}

impl Partition {
    /// Nothing from here on may be seen by committed readers.
    fn stable(&self) -> Offset {
        self.open.values().min().copied().unwrap_or(self.end)
    }
}

#[derive(Default)]
struct Transactor {
    epoch: u64,
    open: Option<i64>,
    /// Its transaction went down with a failed commit: it cannot be committed any more.
    doomed: bool,
}

impl Writer {
    /// Reads the state from the file. Whatever is open there was left by a process that is gone: it is aborted.
    pub(super) fn load(db: Connection, clock: Arc<dyn Clock>, published: Arc<Published>) -> rusqlite::Result<Self> {
        let (topics, transactors) = (HashMap::new(), HashMap::new());
        let mut writer = Self { db, clock, published, topics, transactors, refusal: None, clean_at: Timestamp::EPOCH };
        writer.reload()?;
        writer.publish();
        Ok(writer)
    }

    fn reload(&mut self) -> rusqlite::Result<()> {
        self.db.execute("UPDATE transactions SET aborted = 1 WHERE aborted = 0", [])?;
        // Owners of this process stay owners, but what they appended is aborted.
        for transactor in self.transactors.values_mut() {
            transactor.doomed |= transactor.open.take().is_some();
        }
        self.topics.clear();
        let mut slots = self.db.prepare("SELECT id, topic, begin FROM slots ORDER BY topic, partition")?;
        let mut last =
            self.db.prepare("SELECT id, timestamp FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT 1")?;
        let mut rows = slots.query([])?;
        while let Some(row) = rows.next()? {
            let (slot, topic, begin): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let range = params![slot << OFFSET_BITS, (slot + 1) << OFFSET_BITS];
            let last: Option<(i64, i64)> = last.query_row(range, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let begin = Offset(begin);
            let (end, last_timestamp) = last.map_or((begin, 0), |(id, at)| (offset_of(id).next(), at));
            let partition = Partition { slot, begin, end, dirty: i64::MAX, last_timestamp, open: BTreeMap::new() };
            self.topics.entry(topic.into()).or_default().push(partition);
        }
        Ok(())
    }

    /// Works until nobody can send jobs any more.
    pub(super) fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            let first = match jobs.recv_timeout(IDLE) {
                Ok(first) => first,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.clean();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut settled = Vec::new();
            let result = self.commit_all(first, jobs, &mut settled);
            match result {
                Ok(()) => self.publish(),
                Err(_) => self.recover(),
            }
            for settle in settled {
                settle(result.as_ref().copied());
            }
            self.published.changed.send_modify(|version| *version += 1);
            self.clean();
        }
    }

    fn commit_all(&mut self, first: Job, jobs: &mpsc::Receiver<Job>, settled: &mut Vec<Settle>) -> Result<(), Problem> {
        let begun = self.db.execute_batch("BEGIN IMMEDIATE");
        self.refusal = begun.map_err(|error| Problem::before_commit(&error)).err();
        let mut weight = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            weight += job.weight;
            settled.push((job.work)(self)?);
            next = if weight < COMMIT_WEIGHT { jobs.try_recv().ok() } else { None };
        }
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        self.db.execute_batch("COMMIT").map_err(|error| Problem::at_commit(&error))
    }

    /// Asked before each piece of work: outside a SQLite transaction nothing may be written.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        self.refusal.as_ref().map_or(Ok(()), |problem| Err(problem.error().into()))
    }

    /// After a failure: back to what the file says.
    fn recover(&mut self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back a failed commit of the log");
        }
        match self.reload() {
            Ok(()) => self.publish(),
            Err(error) => tracing::error!(%error, "cannot read the log again after a failed commit"),
        }
    }

    fn publish(&self) {
        let visible = |partition: &Partition| Visible {
            slot: partition.slot,
            begin: partition.begin,
            end: partition.end,
            stable: partition.stable(),
        };
        let mut topics = self.published.topics.write().unwrap_or_else(PoisonError::into_inner);
        for (name, partitions) in &self.topics {
            // In place: this runs after every commit.
            let shown = topics.entry(name.clone()).or_default();
            shown.clear();
            shown.extend(partitions.iter().map(visible));
        }
    }

    pub(super) fn create_topic(&mut self, name: &TopicName, partitions: u32) -> Result<(), Failure> {
        if self.topics.contains_key(name) {
            return Ok(());
        }
        let mut created = Vec::new();
        for partition in 0..partitions {
            let sql = "INSERT INTO slots (topic, partition) VALUES (?1, ?2)";
            self.db.execute(sql, params![name.as_str(), partition])?;
            let slot = self.db.last_insert_rowid();
            let (begin, end) = (Offset(0), Offset(0));
            created.push(Partition { slot, begin, end, dirty: 0, last_timestamp: 0, open: BTreeMap::new() });
        }
        self.topics.insert(name.clone(), created);
        Ok(())
    }

    fn owner(&mut self, session: &Session) -> Result<&mut Transactor, LogError> {
        let owner = self.transactors.get_mut(&session.id).filter(|owner| owner.epoch == session.epoch);
        owner.ok_or_else(|| fenced(session))
    }

    /// The owner, with a transaction that can still be committed.
    fn alive(&mut self, session: &Session) -> Result<&mut Transactor, LogError> {
        let owner = self.owner(session)?;
        if owner.doomed {
            return Err(LogError::Aborted { reason: "its records were lost with a failed write".to_owned() });
        }
        Ok(owner)
    }

    pub(super) fn append(&mut self, records: &[Placed], session: Option<&Session>) -> Result<Vec<Offset>, Failure> {
        let mut transaction = None;
        if let Some(session) = session {
            transaction = self.alive(session)?.open;
        }
        for record in records {
            let Placed { target, .. } = record;
            if self.topics.get(&target.topic).is_none_or(|partitions| partitions.len() <= target.partition as usize) {
                return Err(LogError::UnknownTopic { topic: target.topic.clone() }.into());
            }
        }
        if let (Some(session), None, false) = (session, transaction, records.is_empty()) {
            self.db.execute("INSERT INTO transactions (aborted) VALUES (0)", [])?;
            transaction = Some(self.db.last_insert_rowid());
            self.owner(session)?.open = transaction;
        }
        let now = self.clock.now();
        self.insert(records, transaction, now)
    }

    fn insert(&mut self, records: &[Placed], tx: Option<i64>, now: Timestamp) -> Result<Vec<Offset>, Failure> {
        let sql = "INSERT INTO records (id, key, value, headers, timestamp, tx) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = self.db.prepare_cached(sql)?;
        let mut offsets = Vec::with_capacity(records.len());
        for Placed { target, key, value, headers } in records {
            let partitions = self.topics.get_mut(&target.topic);
            let Some(partition) = partitions.and_then(|partitions| partitions.get_mut(target.partition as usize))
            else {
                continue;
            };
            let offset = partition.end;
            // Never back, so that a moment can be found by halving.
            partition.last_timestamp = partition.last_timestamp.max(now.as_millis());
            insert.execute(params![
                row_id(partition.slot, offset),
                key.as_deref(),
                value.as_deref(),
                encode_headers(headers),
                partition.last_timestamp,
                tx
            ])?;
            partition.end = offset.next();
            partition.dirty = partition.dirty.saturating_add(1);
            if let Some(tx) = tx {
                partition.open.entry(tx).or_insert(offset);
            }
            offsets.push(offset);
        }
        Ok(offsets)
    }

    pub(super) fn take_over(&mut self, id: String) -> Result<Session, Failure> {
        let transactor = self.transactors.entry(id.clone()).or_default();
        transactor.epoch += 1;
        transactor.doomed = false;
        let session = Session { id, epoch: transactor.epoch };
        if let Some(tx) = transactor.open.take() {
            self.end_transaction(tx, &Outcome::Abort)?;
        }
        Ok(session)
    }

    pub(super) fn finish(&mut self, session: &Session, outcome: Outcome) -> Result<(), Failure> {
        let owner = match outcome {
            Outcome::Commit(_) => self.alive(session)?,
            Outcome::Abort => self.owner(session)?,
        };
        owner.doomed = false;
        if let Some(tx) = owner.open.take() {
            self.end_transaction(tx, &outcome)?;
        }
        match outcome {
            Outcome::Commit(Some(positions)) => self.store(&positions),
            Outcome::Commit(None) | Outcome::Abort => Ok(()),
        }
    }

    fn end_transaction(&mut self, tx: i64, outcome: &Outcome) -> rusqlite::Result<()> {
        let sql = match outcome {
            Outcome::Commit(_) => "DELETE FROM transactions WHERE id = ?1",
            Outcome::Abort => "UPDATE transactions SET aborted = 1 WHERE id = ?1",
        };
        self.db.prepare_cached(sql)?.execute([tx])?;
        for partition in self.topics.values_mut().flatten() {
            partition.open.remove(&tx);
        }
        Ok(())
    }

    pub(super) fn store(&mut self, positions: &Positions) -> Result<(), Failure> {
        let sql = "INSERT INTO positions (consumer, topic, partition, position, landmark, written)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE
            SET position = excluded.position, landmark = excluded.landmark, written = excluded.written";
        let mut upsert = self.db.prepare_cached(sql)?;
        for (TopicPartition { topic, partition }, position) in &positions.positions {
            let Position { next, landmark } = position;
            let (stands, written) = (landmark.map(|mark| mark.offset.0), landmark.map(|mark| mark.written.as_millis()));
            upsert.execute(params![positions.group, topic.as_str(), partition, next.0, stands, written])?;
        }
        Ok(())
    }

    pub(super) fn positions(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Position>>, Failure> {
        let sql =
            "SELECT position, landmark, written FROM positions WHERE consumer = ?1 AND topic = ?2 AND partition = ?3";
        let mut select = self.db.prepare_cached(sql)?;
        let mut positions = Vec::with_capacity(of.len());
        for TopicPartition { topic, partition } in of {
            let position = |row: &Row<'_>| {
                let landmark: Option<i64> = row.get(1)?;
                let written: Option<i64> = row.get(2)?;
                let landmark = landmark.zip(written);
                let landmark =
                    landmark.map(|(at, written)| Landmark { offset: Offset(at), written: Timestamp(written) });
                Ok(Position { next: Offset(row.get(0)?), landmark })
            };
            let found = select.query_row(params![group, topic.as_str(), partition], position).optional()?;
            positions.push(found);
        }
        Ok(positions)
    }
}

#[cfg(test)]
impl Writer {
    /// A disk with room for this many pages, or `None` for as many as it has now.
    pub(super) fn set_room(&mut self, pages: Option<i64>) -> Result<(), Failure> {
        let pages = match pages {
            Some(pages) => pages,
            None => self.db.query_row("PRAGMA page_count", [], |row| row.get(0))?,
        };
        self.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    }
}
