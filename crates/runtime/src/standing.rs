//! Whether a position still means what it meant when it was stored: the topic may have lost its beginning, or be another one by now (R13).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use connector_ports::log::{Isolation, Landmark, Offset, Polled, Position, Start, TopicPartition};
use connector_ports::{Clock, Log};
use futures::future::try_join_all;

use crate::failure::Failure;

/// How often an end that lies before a position is asked for before it is believed: a broker that has just become the leader of a partition
/// may answer one that is a moment old.
const ASKED: u32 = 4;
const AGAIN: Duration = Duration::from_millis(500);

/// How long one poll for landmarks waits, and how many may bring nothing.
const WAIT: Duration = Duration::from_millis(500);
const PATIENCE: u32 = 20;

/// What tells that records go one by one.
const POLICY: &str = "cleanup.policy";

/// How a partition stands to a position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Reading goes on there.
    Same,
    /// What stood between the position and this one was deleted.
    Lost(Offset),
    /// The topic was made anew: it ends before the position, or another record stands where one was read. It ends here.
    Anew(Offset),
}

/// How partitions stand to positions in them. Offsets alone tell another topic only as long as it is shorter than the former one was; the
/// landmark of a position tells it at any length.
///
/// # Errors
/// When the log is away.
pub async fn standings(
    log: &dyn Log,
    clock: &dyn Clock,
    asked: &[(TopicPartition, Position)],
) -> Result<Vec<Standing>, Failure> {
    let by_offsets = asked.iter().map(async |(partition, position)| by_offsets(log, clock, partition, *position).await);
    let mut standings = try_join_all(by_offsets).await?;
    let open = asked.iter().zip(&standings).filter(|(_, standing)| !matches!(standing, Standing::Anew(_)));
    let marked: BTreeMap<TopicPartition, Landmark> =
        open.filter_map(|((partition, position), _)| Some((partition.clone(), position.landmark?))).collect();
    let gone = without_their_landmarks(log, marked).await?;
    for ((partition, _), standing) in asked.iter().zip(&mut standings) {
        if gone.contains(partition) {
            *standing = Standing::Anew(log.end_offset(partition, Isolation::Uncommitted).await?);
        }
    }
    Ok(standings)
}

async fn by_offsets(
    log: &dyn Log,
    clock: &dyn Clock,
    partition: &TopicPartition,
    Position { next, landmark }: Position,
) -> Result<Standing, Failure> {
    let begin = log.begin_offset(partition).await?;
    let read = landmark.map_or(next, |landmark| landmark.offset.next().max(next));
    let mut asked = 0;
    loop {
        let end = log.end_offset(partition, Isolation::Uncommitted).await?;
        asked += 1;
        if end >= read {
            return Ok(if begin > next { Standing::Lost(begin) } else { Standing::Same });
        }
        if asked == ASKED {
            return Ok(Standing::Anew(end));
        }
        clock.sleep(AGAIN).await;
    }
}

/// Those partitions in which another record, or none, stands where a landmark was seen.
async fn without_their_landmarks(
    log: &dyn Log,
    mut marked: BTreeMap<TopicPartition, Landmark>,
) -> Result<BTreeSet<TopicPartition>, Failure> {
    deleted_are_left_out(log, &mut marked).await?;
    let found = first_records(log, &marked).await?;
    marked.retain(|partition, landmark| found.get(partition) != Some(&Some(*landmark)));
    // There is another record at its place, which tells another topic for sure, or none: deleted a moment ago, or compacted away.
    let (other, mut absent): (BTreeMap<_, _>, BTreeMap<_, _>) =
        marked.into_iter().partition(|(partition, landmark)| {
            found.get(partition).copied().flatten().is_some_and(|found| found.offset == landmark.offset)
        });
    deleted_are_left_out(log, &mut absent).await?;
    let mut gone: BTreeSet<_> = other.into_keys().collect();
    for (partition, _) in absent {
        if !log.topic_settings(&partition.topic).await?.get(POLICY).is_some_and(|policy| policy.contains("compact")) {
            gone.insert(partition);
        }
    }
    Ok(gone)
}

/// A landmark below the beginning tells nothing any more.
async fn deleted_are_left_out(log: &dyn Log, marked: &mut BTreeMap<TopicPartition, Landmark>) -> Result<(), Failure> {
    let begins = marked.keys().map(async |partition| log.begin_offset(partition).await);
    let begins = try_join_all(begins).await?;
    let mut begins = begins.into_iter();
    marked.retain(|_, landmark| begins.next().is_none_or(|begin| begin <= landmark.offset));
    Ok(())
}

/// The first record at or behind each landmark, or that there is none.
async fn first_records(
    log: &dyn Log,
    marked: &BTreeMap<TopicPartition, Landmark>,
) -> Result<HashMap<TopicPartition, Option<Landmark>>, Failure> {
    let mut found = HashMap::with_capacity(marked.len());
    if marked.is_empty() {
        return Ok(found);
    }
    let from = marked.iter().map(|(partition, landmark)| (partition.clone(), Start::At(landmark.offset))).collect();
    let mut reader = log.assign(from, Isolation::Uncommitted).await?;
    let mut silent = 0;
    while found.len() < marked.len() && silent < PATIENCE {
        match reader.poll(WAIT, 1000).await? {
            Polled::Records(records) => {
                for record in records {
                    let read = Landmark { offset: record.offset, written: record.timestamp };
                    found.entry(record.source).or_insert(Some(read));
                }
            }
            Polled::CaughtUp(partition, _) => drop(found.entry(partition).or_insert(None)),
            Polled::Idle => silent += 1,
            Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) => {}
        }
    }
    reader.close().await;
    if found.len() < marked.len() {
        return Err(Failure::Later("the records by which topics are known again were not told in time".to_owned()));
    }
    Ok(found)
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

    struct Scene {
        world: SimWorld,
        partition: TopicPartition,
    }

    impl Scene {
        async fn new(policy: &str) -> Self {
            let (world, name) = (SimWorld::new(1), TopicName::from("log"));
            let settings = vec![(POLICY.to_owned(), policy.to_owned())];
            let spec = TopicSpec { name: name.clone(), partitions: 1, replication: 1, settings };
            world.calm_log().create_topic(&spec).await.expect("a topic");
            Self { world, partition: TopicPartition::new(name, 0) }
        }

        async fn append(&self, count: usize) {
            let topic = self.partition.topic.clone();
            let record = Append { topic, partition: None, key: None, value: None, headers: Vec::new() };
            let appender = self.world.calm_log().appender().await.expect("an appender");
            appender.append(vec![record; count]).await.expect("appended");
        }

        fn landmark(&self, at: usize) -> Option<Landmark> {
            let record = self.world.history(&self.partition.topic).into_iter().nth(at)?;
            Some(Landmark { offset: record.offset, written: record.timestamp })
        }

        async fn standing(&self, next: i64, landmark: Option<Landmark>) -> Option<Standing> {
            let asked = [(self.partition.clone(), Position { next: Offset(next), landmark })];
            let (log, clock) = (self.world.calm_log(), self.world.clock());
            Some(*standings(log.as_ref(), clock.as_ref(), &asked).await.ok()?.first()?)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_is_told_from_one_in_what_was_lost_or_made_anew() {
        let scene = Scene::new("delete").await;
        scene.append(5).await;
        let log = scene.world.calm_log();
        let lacks = async |read| lacks_nothing(log.as_ref(), &scene.partition, "a view", read).await;
        assert_eq!(scene.standing(5, None).await, Some(Standing::Same));
        assert_eq!(scene.standing(6, None).await, Some(Standing::Anew(Offset(5))));
        scene.world.delete_below(&scene.partition, Offset(3));
        assert_eq!(scene.standing(3, None).await, Some(Standing::Same));
        assert_eq!(scene.standing(2, None).await, Some(Standing::Lost(Offset(3))));
        assert!(matches!(lacks(Some(Offset(3))).await, Ok(())));
        assert!(matches!(lacks(Some(Offset(2))).await, Err(Failure::Later(_))));
        assert!(matches!(lacks(None).await, Err(Failure::Later(_))), "nothing is built from a part of the log");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_grew_past_a_position_is_known_by_its_landmark() {
        let scene = Scene::new("delete").await;
        scene.append(5).await;
        let landmark = scene.landmark(3);
        assert_eq!(scene.standing(5, landmark).await, Some(Standing::Same));
        assert_eq!(scene.standing(2, landmark).await, Some(Standing::Same), "read farther than finished");
        tokio::time::advance(Duration::from_secs(1)).await;
        scene.world.make_anew(&scene.partition.topic);
        scene.append(2).await;
        assert_eq!(scene.standing(2, landmark).await, Some(Standing::Anew(Offset(2))), "shorter than what was read");
        scene.append(7).await;
        assert_eq!(scene.standing(5, None).await, Some(Standing::Same), "offsets alone do not tell");
        assert_eq!(scene.standing(5, landmark).await, Some(Standing::Anew(Offset(9))));
        scene.world.delete_below(&scene.partition, Offset(4));
        assert_eq!(scene.standing(5, landmark).await, Some(Standing::Same), "nothing is left to know it by");
        assert_eq!(scene.standing(2, landmark).await, Some(Standing::Lost(Offset(4))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_landmark_that_compaction_took_says_nothing_and_one_that_is_missing_elsewhere_does() {
        for (policy, expected) in [("compact", Standing::Same), ("delete", Standing::Anew(Offset(5)))] {
            let scene = Scene::new(policy).await;
            scene.append(5).await;
            let landmark = scene.landmark(3);
            scene.world.compact(&scene.partition.topic, |record| record.offset != Offset(3));
            assert_eq!(scene.standing(5, landmark).await, Some(expected), "{policy}");
        }
    }
}
