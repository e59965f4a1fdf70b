//! Reading a partition on, up to positions that are known one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use connector_ports::Log;
use connector_ports::log::{Isolation, Offset, Polled, Reader, Record, Start, TopicPartition};

use crate::failure::Failure;

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(500);
/// So many polls in a row may bring nothing new: what a view has applied is there, but this reader may hear of it a little later.
const PATIENCE: u32 = 40;
/// Records in one piece.
const PIECE: usize = 1_000;

/// Opens its reader when it first needs one.
pub(super) struct Tail {
    log: Arc<dyn Log>,
    source: TopicPartition,
    partitions: u32,
    reader: Option<Box<dyn Reader>>,
    /// Read, and behind the last position that was asked for.
    ahead: VecDeque<Record>,
    /// Everything visible below was delivered.
    end: Option<Offset>,
}

impl Tail {
    pub(super) fn of(log: Arc<dyn Log>, source: TopicPartition, partitions: u32) -> Self {
        Self { log, source, partitions, reader: None, ahead: VecDeque::new(), end: None }
    }

    /// How many partitions the log has.
    pub(super) const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The next records below `to`, with the position behind them; `to` itself when there are no more. `from` counts for the first call;
    /// each call after it goes on where the one before has ended.
    ///
    /// # Errors
    /// When the log is away; `Later` when it cannot be read up to there.
    pub(super) async fn read(&mut self, from: Start, to: Offset) -> Result<(Vec<Record>, Option<Offset>), Failure> {
        if self.reader.is_none() {
            let partitions = vec![(self.source.clone(), from)];
            self.reader = Some(self.log.assign(partitions, Isolation::Committed).await?);
        }
        let mut silent = 0;
        while self.ahead.is_empty() && self.end.is_none_or(|end| end < to) {
            let Some(reader) = &mut self.reader else { break };
            match reader.poll(WAIT, PIECE).await? {
                Polled::Records(records) => self.ahead.extend(records),
                Polled::CaughtUp(_, end) => self.end = Some(end),
                _ => {}
            }
            silent += 1;
            if silent == PATIENCE {
                return Err(Failure::Later(format!(
                    "{} cannot be read up to a position that was applied",
                    self.source
                )));
            }
        }
        let below = self.ahead.partition_point(|record| record.offset < to);
        let read: Vec<_> = self.ahead.drain(..below).collect();
        let arrived = !self.ahead.is_empty() || self.end.is_some_and(|end| end >= to);
        let position = if arrived { Some(to) } else { read.last().map(|record| record.offset.next()) };
        Ok((read, position))
    }

    pub(super) async fn close(self) {
        if let Some(reader) = self.reader {
            reader.close().await;
        }
    }
}
