//! Reading a partition from a position to its end, to rebuild what was in memory.

use std::time::Duration;

use connector_ports::Log;
use connector_ports::log::{Isolation, Offset, Polled, Record, Start, TopicPartition};

use crate::failure::Failure;

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(500);
/// So many polls in a row may bring nothing: 30 seconds. A broker aborts what a dead process left open after the transaction's time (10
/// seconds unless set otherwise), and looks for that every 10 seconds (`transaction.abort.timed.out.transaction.cleanup.interval.ms`).
const PATIENCE: u32 = 60;

/// Hands every record from `from` up to the end (as it is now) to `each`, in order, and returns the position behind it.
///
/// The end counts what is written and not yet seen to be committed: a transaction that its owner knows to be committed may become
/// visible some milliseconds later, and it must not be missed here.
///
/// # Errors
/// When the log is away, when the end does not come nearer (`Later`: a new reader may fare better), or `each` refuses a record.
pub async fn replay(
    log: &dyn Log,
    partition: &TopicPartition,
    from: Start,
    isolation: Isolation,
    each: impl FnMut(Record) -> Result<(), Failure> + Send,
) -> Result<Offset, Failure> {
    let end = log.end_offset(partition, Isolation::Uncommitted).await?;
    replay_to(log, partition, from, end, isolation, each).await
}

/// As [`replay`], up to a position that is known. A few records behind it may be handed out, too.
///
/// # Errors
/// As [`replay`].
pub async fn replay_to(
    log: &dyn Log,
    partition: &TopicPartition,
    from: Start,
    end: Offset,
    isolation: Isolation,
    mut each: impl FnMut(Record) -> Result<(), Failure> + Send,
) -> Result<Offset, Failure> {
    let first = match from {
        Start::At(offset) => offset,
        _ => Offset(0),
    };
    // Nothing to read: opening a reader takes its time.
    if first >= end {
        return Ok(first);
    }
    let mut reader = log.assign(vec![(partition.clone(), from)], isolation).await?;
    let mut silent = 0;
    let position = loop {
        let polled = reader.poll(WAIT, 1000).await?;
        silent = if matches!(polled, Polled::Idle) { silent + 1 } else { 0 };
        match polled {
            Polled::Records(records) => {
                let last = records.last().map(|record| record.offset.next());
                for record in records {
                    each(record)?;
                }
                if let Some(position) = last.filter(|position| *position >= end) {
                    break position;
                }
            }
            Polled::CaughtUp(_, position) if position >= end => break position,
            Polled::Idle if silent == PATIENCE => {
                reader.close().await;
                return Err(Failure::Later(format!("{partition} cannot be read up to its end")));
            }
            _ => {}
        }
    };
    reader.close().await;
    Ok(position)
}

/// The first record from a position on, if there is one by now.
///
/// # Errors
/// As [`replay`].
pub async fn first(
    log: &dyn Log,
    partition: &TopicPartition,
    from: Start,
    isolation: Isolation,
) -> Result<Option<Record>, Failure> {
    let mut reader = log.assign(vec![(partition.clone(), from)], isolation).await?;
    let mut silent = 0;
    let found = loop {
        let polled = reader.poll(WAIT, 1).await?;
        silent = if matches!(polled, Polled::Idle) { silent + 1 } else { 0 };
        match polled {
            Polled::Records(records) => break Ok(records.into_iter().next()),
            Polled::CaughtUp(..) => break Ok(None),
            Polled::Idle if silent == PATIENCE => {
                break Err(Failure::Later(format!("the first record of {partition} cannot be read")));
            }
            _ => {}
        }
    };
    reader.close().await;
    found
}
