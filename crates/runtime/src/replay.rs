//! Reading a partition from a position to its end, to rebuild what was in memory.

use std::time::Duration;

use connector_ports::Log;
use connector_ports::log::{Isolation, Offset, Polled, Record, Start, TopicPartition};

use crate::failure::Failure;

/// Hands every record from `from` up to the end (as it is now) to `each`, in order, and returns the position behind it.
///
/// The end counts what is written and not yet seen to be committed: a transaction that its owner knows to be committed may become
/// visible some milliseconds later, and it must not be missed here.
///
/// # Errors
/// When the log is away, or `each` refuses a record.
pub async fn replay(
    log: &dyn Log,
    partition: &TopicPartition,
    from: Start,
    isolation: Isolation,
    mut each: impl FnMut(Record) -> Result<(), Failure> + Send,
) -> Result<Offset, Failure> {
    let end = log.end_offset(partition, Isolation::Uncommitted).await?;
    let first = match from {
        Start::At(offset) => offset,
        _ => Offset(0),
    };
    // Nothing to read: opening a reader takes its time.
    if first >= end {
        return Ok(first);
    }
    let mut reader = log.assign(vec![(partition.clone(), from)], isolation).await?;
    let position = loop {
        match reader.poll(Duration::from_millis(500), 1000).await? {
            Polled::Records(records) => {
                for record in records {
                    each(record)?;
                }
            }
            Polled::CaughtUp(_, position) if position >= end => break position,
            _ => {}
        }
    };
    reader.close().await;
    Ok(position)
}
