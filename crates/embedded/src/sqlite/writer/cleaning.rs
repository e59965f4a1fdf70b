//! Takes away what need not be kept: records that are older than their topic keeps them, and of compacted topics all but the newest of each
//! key. In small steps between the commits, so that nobody waits long.
//!
//! The last record of a partition stays, whatever its age: it says where the partition ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::log::{Offset, TopicName};
use rusqlite::{Connection, params};

use super::{Partition, Writer};
use crate::sqlite::{OFFSET_BITS, offset_of, row_id};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(60);

/// Records taken away in one step.
const STEP: i64 = 5_000;

/// A compacted partition is gone through when so many records were added, and they are as many as it keeps.
const DIRTY: i64 = 1_000;

/// Free pages of 4 KiB that are kept for what comes next.
const SPARE: i64 = 2_048;

/// Kafka's default of `delete.retention.ms`.
const TOMBSTONES: Duration = Duration::from_secs(86_400);

/// What a topic keeps.
#[derive(Clone, Copy)]
struct Kept {
    /// For so long.
    age: Option<Duration>,
    /// The newest of each key; a deletion for so long.
    tombstones: Option<Duration>,
}

impl Kept {
    fn of(settings: &BTreeMap<String, String>) -> Self {
        let millis = |name: &str| settings.get(name).and_then(|value| value.parse().ok()).map(Duration::from_millis);
        let policy = settings.get("cleanup.policy").map_or("", String::as_str);
        let has = |one: &str| policy.split(',').any(|policy| policy.trim() == one);
        Self {
            // -1 is no length of time.
            age: millis("retention.ms").filter(|_| has("delete")),
            tombstones: has("compact").then(|| millis("delete.retention.ms").unwrap_or(TOMBSTONES)),
        }
    }
}

impl Writer {
    /// One step, when it is time for one. What fails is done another time: nothing is lost by keeping it.
    pub(super) fn clean(&mut self) {
        let now = self.clock.now();
        if now < self.clean_at {
            return;
        }
        self.clean_at = now + EVERY;
        match self.clean_some(now) {
            Ok(true) => {
                self.publish();
                self.clean_at = now;
            }
            Ok(false) => self.publish(),
            Err(error) => {
                tracing::warn!(%error, "old records of the log cannot be taken away now");
                self.recover();
            }
        }
    }

    /// Whether there is more to do.
    fn clean_some(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        let settings = self.published.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = |name: &TopicName| settings.get(name).map(Kept::of);
        let mut left = STEP;
        let db = &self.db;
        db.execute_batch("BEGIN IMMEDIATE")?;
        for (name, partitions) in &mut self.topics {
            let Some(kept) = kept(name) else { continue };
            for partition in partitions {
                if let Some(age) = kept.age
                    && left > 0
                {
                    left -= delete_older(db, partition, now - age, left)?;
                }
                if let Some(tombstones) = kept.tombstones
                    && left > 0
                    && partition.dirty >= DIRTY
                {
                    left -= compact(db, partition, now - tombstones, left)?;
                }
            }
        }
        db.execute_batch("COMMIT")?;
        let free: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free > SPARE {
            db.execute_batch(&format!("PRAGMA incremental_vacuum({})", (free - SPARE).min(STEP)))?;
        }
        Ok(left <= 0 || free > SPARE + STEP)
    }
}

/// Takes away up to `most` records that were written before a moment. How many they were.
fn delete_older(db: &Connection, partition: &mut Partition, before: Timestamp, most: i64) -> rusqlite::Result<i64> {
    let last = Offset(partition.end.0 - 1);
    let range = params![
        row_id(partition.slot, partition.begin),
        row_id(partition.slot, partition.stable().min(last).max(partition.begin)),
        most,
        before.as_millis()
    ];
    // Timestamps never go back within a partition: the old ones are the first ones.
    let sql = "SELECT COUNT(*), MAX(id) FROM
        (SELECT id, timestamp FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3) WHERE timestamp < ?4";
    let (count, newest): (i64, Option<i64>) =
        db.prepare_cached(sql)?.query_row(range, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(newest) = newest else { return Ok(0) };
    let from = row_id(partition.slot, partition.begin);
    db.prepare_cached("DELETE FROM records WHERE id >= ?1 AND id <= ?2")?.execute(params![from, newest])?;
    partition.begin = offset_of(newest).next();
    let sql = "UPDATE slots SET begin = ?2 WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![partition.slot, partition.begin.0])?;
    Ok(count)
}

/// Takes away up to `most` records that have a newer one of their key, were aborted, or say of a key that it is gone and have said so for long
/// enough. How many they were.
fn compact(db: &Connection, partition: &mut Partition, before: Timestamp, most: i64) -> rusqlite::Result<i64> {
    let aborted: HashSet<i64> = db
        .prepare_cached("SELECT id FROM transactions WHERE aborted = 1")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let (from, until) = (partition.slot << OFFSET_BITS, row_id(partition.slot, partition.stable()));
    let sql =
        "SELECT id, key, value IS NULL AND timestamp < ?3, tx FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id";
    let mut newest: HashMap<Vec<u8>, (i64, bool)> = HashMap::new();
    let mut gone = Vec::new();
    let mut kept: i64 = 0;
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![from, until, before.as_millis()])?;
    while let Some(row) = rows.next()? {
        let (id, key, over, tx): (i64, Option<Vec<u8>>, bool, Option<i64>) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if tx.is_some_and(|tx| aborted.contains(&tx)) {
            gone.push(id);
        } else if let Some(key) = key {
            match newest.insert(key, (id, over)) {
                Some((older, _)) => gone.push(older),
                None => kept += 1,
            }
        }
    }
    gone.extend(newest.into_values().filter(|(_, over)| *over).map(|(id, _)| id));
    let last = row_id(partition.slot, Offset(partition.end.0 - 1));
    gone.retain(|id| *id != last);
    let step: Vec<i64> = gone.iter().copied().take(usize::try_from(most).unwrap_or(0)).collect();
    let mut delete = db.prepare_cached("DELETE FROM records WHERE id = ?1")?;
    for id in &step {
        delete.execute([id])?;
    }
    // Looked through again when as much was added as is kept; at once, when this was not all.
    partition.dirty = if step.len() < gone.len() { i64::MAX } else { DIRTY - kept.max(DIRTY) };
    Ok(i64::try_from(step.len()).unwrap_or(i64::MAX))
}
