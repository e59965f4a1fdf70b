//! Reads of committed rows, on connections of their own and off the async threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::log::{Header, Isolation, LogError, Offset, Record, TopicPartition};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::Problem;
use crate::sqlite::{offset_of, read_only, row_id};
use crate::store::{Answer, Fetched};

/// Connections that wait for their next use. There are never more than reads at the same time.
pub(super) struct ReadPool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl ReadPool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let pool = self.clone();
        let blocking = move || {
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let db = idle.map_or_else(|| read_only(&pool.path), Ok)?;
            let result = work(&db)?;
            // After an error the connection is not used again.
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            Ok(result)
        };
        Box::pin(async move {
            let result = tokio::task::spawn_blocking(blocking).await;
            let result =
                result.map_err(|error| LogError::Fatal { reason: format!("a read of the log died: {error}") })?;
            result.map_err(|error: rusqlite::Error| Problem::before_commit(&error).error())
        })
    }
}

/// Visible records of a partition from `from` up to `end`, which was visible when the call was made.
pub(super) fn fetch(
    db: &Connection,
    source: &TopicPartition,
    slot: i64,
    from: Offset,
    end: Offset,
    max: usize,
    isolation: Isolation,
) -> rusqlite::Result<Fetched> {
    // Below the last stable offset a transaction that is still listed was aborted.
    let sql = match isolation {
        Isolation::Uncommitted => {
            "SELECT id, key, value, headers, timestamp FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3"
        }
        Isolation::Committed => {
            "SELECT id, key, value, headers, timestamp FROM records WHERE id >= ?1 AND id < ?2
             AND (tx IS NULL OR NOT EXISTS (SELECT 1 FROM transactions WHERE transactions.id = records.tx))
             ORDER BY id LIMIT ?3"
        }
    };
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![row_id(slot, from), row_id(slot, end), limit], |row| record(row, source))?;
    let records = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let next = match records.last() {
        Some(last) if records.len() >= max => last.offset.next(),
        _ => end,
    };
    Ok(Fetched { records, next })
}

fn record(row: &Row<'_>, source: &TopicPartition) -> rusqlite::Result<Record> {
    let bytes = |column| row.get::<_, Option<Vec<u8>>>(column).map(|bytes| bytes.map(Bytes::from));
    Ok(Record {
        source: source.clone(),
        offset: offset_of(row.get(0)?),
        key: bytes(1)?,
        value: bytes(2)?,
        headers: bytes(3)?.map(decode_headers).unwrap_or_default(),
        timestamp: Timestamp(row.get(4)?),
    })
}

/// The first position with that timestamp or a later one. Timestamps never go back within a partition, so halving finds it.
pub(super) fn since(db: &Connection, slot: i64, end: Offset, moment: Timestamp) -> rusqlite::Result<Offset> {
    let sql = "SELECT id, timestamp FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1";
    let mut statement = db.prepare_cached(sql)?;
    let (mut low, mut high) = (Offset(0), end);
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        let bounds = params![row_id(slot, middle), row_id(slot, high)];
        let found: Option<(i64, i64)> = statement.query_row(bounds, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((id, timestamp)) if timestamp < moment.as_millis() => low = offset_of(id).next(),
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The length of a value that is null.
const NULL: u32 = u32::MAX;

/// Lengths (32 bits, big endian) in front of name and value of each header, [`NULL`] for a value that is none; `None` without headers.
pub(super) fn encode_headers(headers: &[Header]) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [Some(name.as_bytes()), value.as_deref()]) {
        // No record is as long as that: the log takes none.
        encoded.extend(part.map_or(NULL, |part| u32::try_from(part.len()).unwrap_or(NULL)).to_be_bytes());
        encoded.extend(part.unwrap_or_default());
    }
    (!headers.is_empty()).then_some(encoded)
}

fn decode_headers(mut encoded: Bytes) -> Vec<Header> {
    let mut part = || {
        let (length, _) = encoded.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length);
        if length == NULL {
            encoded = encoded.slice(4..);
            return Some(None);
        }
        let length = length as usize;
        let rest = encoded.len().checked_sub(4 + length)?;
        let part = encoded.slice(4..4 + length);
        encoded = encoded.slice(encoded.len() - rest..);
        Some(Some(part))
    };
    let mut headers = Vec::new();
    while let (Some(Some(name)), Some(value)) = (part(), part()) {
        headers.push((String::from_utf8_lossy(&name).into_owned().into(), value));
    }
    headers
}
