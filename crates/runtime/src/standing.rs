//! Whether a position still means what it meant when it was stored: the topic may have lost its beginning, or be another one by now (R13).

use std::time::Duration;

use connector_ports::log::{Isolation, Offset, TopicPartition};
use connector_ports::{Clock, Log};

use crate::failure::Failure;

/// How often an end that lies before a position is asked for before it is believed: a broker that has just become the leader of a partition
/// may answer one that is a moment old.
const ASKED: u32 = 4;
const AGAIN: Duration = Duration::from_millis(500);

/// How a partition stands to a position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Reading goes on there.
    Same,
    /// What stood between the position and this one was deleted.
    Lost(Offset),
    /// It ends here, before the position: the topic was made anew.
    Anew(Offset),
}

/// How a partition stands to the position up to which it was read.
///
/// # Errors
/// When the log is away.
pub async fn standing(
    log: &dyn Log,
    clock: &dyn Clock,
    partition: &TopicPartition,
    read: Offset,
) -> Result<Standing, Failure> {
    let begin = log.begin_offset(partition).await?;
    let mut asked = 0;
    loop {
        let end = log.end_offset(partition, Isolation::Uncommitted).await?;
        asked += 1;
        if end >= read {
            return Ok(if begin > read { Standing::Lost(begin) } else { Standing::Same });
        }
        if asked == ASKED {
            return Ok(Standing::Anew(end));
        }
        clock.sleep(AGAIN).await;
    }
}

/// That what has read a partition of the log up to `read` can go on.
///
/// # Errors
/// `Later` when records are missing that it has not applied: what is built from the rest would be taken for the whole truth.
pub async fn lacks_nothing(
    log: &dyn Log,
    partition: &TopicPartition,
    what: &str,
    read: Option<Offset>,
) -> Result<(), Failure> {
    let (begin, stood) = (log.begin_offset(partition).await?.0, read.unwrap_or_default().0);
    if begin <= stood {
        return Ok(());
    }
    tracing::error!(
        %partition,
        what,
        stood,
        begin,
        "the log has lost records that were not read: restore them, nothing is decided without them",
    );
    Err(Failure::Later(format!("{partition} begins at {begin}, {what} has read it up to {stood}")))
}

#[cfg(test)]
mod tests {
    use connector_ports::log::{Append, TopicName, TopicSpec};
    use connector_simulated::SimWorld;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_position_is_told_from_one_in_what_was_lost_or_made_anew() {
        let world = SimWorld::new(1);
        let (log, clock, name) = (world.calm_log(), world.clock(), TopicName::from("log"));
        let spec = TopicSpec { name: name.clone(), partitions: 1, replication: 1, settings: Vec::new() };
        log.create_topic(&spec).await.expect("a topic");
        let partition = TopicPartition::new(name.clone(), 0);
        let record = Append { topic: name.clone(), partition: None, key: None, value: None, headers: Vec::new() };
        let appender = log.appender().await.expect("an appender");
        appender.append(vec![record; 5]).await.expect("appended");
        let standing = async |read| standing(log.as_ref(), clock.as_ref(), &partition, Offset(read)).await.ok();
        let lacks = async |read| lacks_nothing(log.as_ref(), &partition, "a view", read).await;
        assert_eq!(standing(5).await, Some(Standing::Same));
        assert_eq!(standing(6).await, Some(Standing::Anew(Offset(5))));
        world.delete_below(&partition, Offset(3));
        assert_eq!(standing(3).await, Some(Standing::Same));
        assert_eq!(standing(2).await, Some(Standing::Lost(Offset(3))));
        assert!(matches!(lacks(Some(Offset(3))).await, Ok(())));
        assert!(matches!(lacks(Some(Offset(2))).await, Err(Failure::Later(_))));
        assert!(matches!(lacks(None).await, Err(Failure::Later(_))), "nothing is built from a part of the log");
    }
}
