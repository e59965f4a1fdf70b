//! Records in a SQLite file. One thread writes; whatever was asked of it while it waited for the disk shares the next commit, so that
//! a single caller pays one `fsync` per call and many callers share one. Readers have connections of their own (WAL) and are woken
//! when something was committed.

mod reading;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use connector_ports::Clock;
use connector_ports::log::{
    Identity, Isolation, LogError, LogId, Offset, Position, Start, TopicName, TopicPartition, TopicSpec,
};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{oneshot, watch};

use crate::error::{Failure, OpenError, Problem};
use crate::sqlite::reading::ReadPool;
use crate::sqlite::writer::{Job, Writer};
use crate::store::{Answer, Fetched, Outcome, Placed, Positions, Session, Store, ready};

/// One row per record; its id is the partition's slot and the offset, so that a partition is one range of the table.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS slots (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
        begin INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition));
    CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, key BLOB, value BLOB, headers BLOB,
        timestamp INTEGER NOT NULL, tx INTEGER);
    CREATE TABLE IF NOT EXISTS transactions (id INTEGER PRIMARY KEY AUTOINCREMENT, aborted INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (consumer TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
        position INTEGER NOT NULL, landmark INTEGER, written INTEGER, PRIMARY KEY (consumer, topic, partition)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS file (id TEXT NOT NULL);
    INSERT INTO file (id) SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM file);
";
const SCHEMA_VERSION: i64 = 3;

/// Says of a SQLite file that it is a log: "WLOG".
const APPLICATION: i64 = 0x574c_4f47;

/// Bits of a row id that hold the offset: 10^12 records per partition, 8 million partitions.
const OFFSET_BITS: u32 = 40;

/// What readers may see, after it is durable.
#[derive(Default)]
struct Published {
    topics: RwLock<HashMap<TopicName, Vec<Visible>>>,
    settings: RwLock<HashMap<TopicName, BTreeMap<String, String>>>,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
struct Visible {
    slot: i64,
    begin: Offset,
    end: Offset,
    stable: Offset,
}

impl Published {
    fn find(&self, partition: &TopicPartition) -> Option<Visible> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(&partition.topic)?.get(partition.partition as usize).copied()
    }
}

impl Visible {
    const fn end(self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.stable,
            Isolation::Uncommitted => self.end,
        }
    }
}

/// A store in a SQLite file, open in this process only.
pub struct SqliteStore {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    published: Arc<Published>,
    readers: Arc<ReadPool>,
    /// The file's own, for ever.
    id: String,
    /// Declared last: it is let go of after the writer has ended.
    _lock: File,
}

impl SqliteStore {
    /// Opens the file, or creates it with its folder. Transactions that a former process left open are aborted. The clock stamps
    /// the records.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process, or another store of this one, has it open.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let file = |source| OpenError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(file)?;
        }
        let lock = lock(path)?;
        let database = |source| OpenError::Database { path: path.to_owned(), source };
        let db = Connection::open(path).map_err(database)?;
        let ask = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(database);
        if ask("SELECT EXISTS (SELECT 1 FROM sqlite_master)")? != 0 {
            if ask("PRAGMA application_id")? != APPLICATION {
                return Err(OpenError::Foreign { path: path.to_owned() });
            }
            let version = ask("PRAGMA user_version")?;
            if version != SCHEMA_VERSION {
                return Err(OpenError::Version { path: path.to_owned(), version });
            }
        }
        // FULL: a commit is on the disk when it returns; NORMAL would lose the last ones with the power. The place of what was deleted is
        // given back; that has to be said before there is anything.
        db.execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;",
        )
        .and_then(|()| {
            let named = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION};");
            db.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} {named} COMMIT;"))
        })
        .map_err(database)?;
        let id = db.query_row("SELECT id FROM file", [], |row| row.get(0)).map_err(database)?;
        let published = Arc::new(Published::default());
        let writer = Writer::load(db, clock, published.clone()).map_err(database)?;
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        let writer = thread.spawn(move || writer.run(&queue)).map_err(file)?;
        let readers = Arc::new(ReadPool::new(path.to_owned()));
        Ok(Self { jobs: Some(jobs), writer: Some(writer), published, readers, id, _lock: lock })
    }

    /// Queues work for the writer. Its answer comes when the commit that it is part of is durable.
    fn submit<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut Writer) -> Result<T, Failure> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        // A caller that went away does not want to know.
        let job = Job::new(weight, move |writer| match writer.admit().and_then(|()| work(writer)) {
            Ok(value) => Ok(Box::new(move |durable: Result<(), &Problem>| {
                let _ = reply.send(durable.map(|()| value).map_err(Problem::error));
            })),
            Err(Failure::Refused(error)) => Ok(Box::new(move |_| {
                let _ = reply.send(Err(error));
            })),
            Err(Failure::Database(error)) => {
                let problem = Problem::before_commit(&error);
                let _ = reply.send(Err(problem.error()));
                Err(problem)
            }
        });
        let gone = || LogError::Fatal { reason: "the writer of the log has ended".to_owned() };
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            return ready(Err(gone()));
        }
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(gone())) })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Without senders the writer ends after what is queued, and closes the file.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the log panicked");
        }
    }
}

/// Whoever holds this lock is the only one with the file open, by whatever name: it is on the file itself. It ends with the process, however
/// that ends. SQLite's own locks are of another kind and do not meet it.
fn lock(path: &Path) -> Result<File, OpenError> {
    let file = |source| OpenError::File { path: path.to_owned(), source };
    let lock = File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(file(source)),
    }
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

impl Store for SqliteStore {
    fn create_topic(&self, spec: &TopicSpec) -> Answer<()> {
        let settings = spec.settings.iter().cloned().collect();
        self.published.settings.write().unwrap_or_else(PoisonError::into_inner).insert(spec.name.clone(), settings);
        let (name, partitions) = (spec.name.clone(), spec.partitions);
        self.submit(1, move |writer| writer.create_topic(&name, partitions))
    }

    fn settings(&self, topic: &TopicName) -> BTreeMap<String, String> {
        self.published.settings.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned().unwrap_or_default()
    }

    fn identity(&self, partition: &TopicPartition) -> Option<Identity> {
        let visible = self.published.find(partition)?;
        Some(Identity::Known(LogId::from(format!("{}:{}", self.id, visible.slot))))
    }

    fn partitions(&self, topic: &TopicName) -> Option<u32> {
        let topics = self.published.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).map(|partitions| u32::try_from(partitions.len()).unwrap_or(u32::MAX))
    }

    fn append(&self, records: Vec<Placed>, session: Option<&Session>) -> Answer<Vec<Offset>> {
        let session = session.cloned();
        self.submit(records.len().max(1), move |writer| writer.append(&records, session.as_ref()))
    }

    fn take_over(&self, id: &str) -> Answer<Session> {
        let id = id.to_owned();
        self.submit(1, move |writer| writer.take_over(id))
    }

    fn finish(&self, session: &Session, outcome: Outcome) -> Answer<()> {
        let session = session.clone();
        self.submit(1, move |writer| writer.finish(&session, outcome))
    }

    /// Aborts: nobody else would before the id is taken over again, and committed readers would wait for that.
    fn abandon(&self, session: &Session) {
        drop(self.finish(session, Outcome::Abort));
    }

    fn commit_positions(&self, positions: Positions) -> Answer<()> {
        self.submit(1, move |writer| writer.store(&positions))
    }

    fn positions(&self, group: &str, partitions: &[TopicPartition]) -> Answer<Vec<Option<Position>>> {
        let (group, partitions) = (group.to_owned(), partitions.to_vec());
        self.submit(1, move |writer| writer.positions(&group, &partitions))
    }

    fn end(&self, partition: &TopicPartition, isolation: Isolation) -> Option<Offset> {
        self.published.find(partition).map(|visible| visible.end(isolation))
    }

    fn begin(&self, partition: &TopicPartition) -> Option<Offset> {
        self.published.find(partition).map(|visible| visible.begin)
    }

    fn fetch(&self, partition: &TopicPartition, from: Offset, max: usize, isolation: Isolation) -> Answer<Fetched> {
        let Some(visible) = self.published.find(partition) else {
            return ready(Err(LogError::UnknownTopic { topic: partition.topic.clone() }));
        };
        let source = partition.clone();
        self.readers
            .run(move |db| reading::fetch(db, &source, visible.slot, from, visible.end(isolation), max, isolation))
    }

    fn resolve(&self, partition: &TopicPartition, start: Start, isolation: Isolation) -> Answer<Offset> {
        let Some(visible) = self.published.find(partition) else {
            return ready(Err(LogError::UnknownTopic { topic: partition.topic.clone() }));
        };
        let end = visible.end(isolation);
        match start {
            Start::Beginning => ready(Ok(visible.begin)),
            Start::End => ready(Ok(end)),
            Start::At(offset) => ready(Ok(offset)),
            Start::Since(moment) => self.readers.run(move |db| reading::since(db, visible.slot, end, moment)),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.published.changed.subscribe()
    }
}

const fn row_id(slot: i64, offset: Offset) -> i64 {
    (slot << OFFSET_BITS) | offset.0
}

const fn offset_of(row_id: i64) -> Offset {
    Offset(row_id & ((1 << OFFSET_BITS) - 1))
}
