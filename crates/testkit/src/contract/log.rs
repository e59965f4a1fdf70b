//! The contract of [`connector_ports::Log`] and what it opens.
//!
//! Waits have generous deadlines, because a broker takes seconds to move a partition; nothing sleeps for a fixed time. Where a test
//! shows that something does *not* appear, it appends a later record that must, and looks at what came before it.

mod groups;
mod reading;
mod records;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connector_ports::log::{
    Append, Isolation, Log, Offset, Polled, Reader, Record, Start, Subscription, TopicName, TopicPartition, TopicSpec,
};
use uuid::Uuid;

pub use groups::*;
pub use reading::*;
pub use records::*;
pub use transactions::*;

use crate::wait;

/// How long a promise may take to become true.
pub const WITHIN: Duration = Duration::from_secs(60);
/// One poll of a test.
const TICK: Duration = Duration::from_millis(50);

/// A log under test.
#[async_trait]
pub trait LogWorld: Send + Sync {
    /// A client of the log under test. Each call may give another client; all of them see the same topics.
    async fn log(&self) -> Arc<dyn Log>;
}

/// Every promise of the log as a test with its own name: `log_contract! { #[tokio::test] world_expression }`. The expression is
/// evaluated once per test, in an async function, and gives a [`LogWorld`](crate::contract::log::LogWorld).
#[macro_export]
macro_rules! log_contract {
    ($(#[$attribute:meta])+ $world:expr) => {
        $crate::contract_tests! { [$(#[$attribute])+] log $world,
            records_come_back_as_they_were_written
            records_of_a_key_keep_their_order
            the_partition_follows_from_the_key
            a_named_partition_wins_over_the_key
            an_acknowledged_record_stands_where_the_log_said
            creating_a_topic_twice_leaves_the_first
            a_missing_topic_is_named_as_such
            a_partition_keeps_its_identity
            a_topic_tells_its_settings
            a_record_that_does_not_fit_is_refused_as_that
            open_transactions_are_hidden_from_committed_readers_only
            nothing_behind_an_open_transaction_is_visible
            each_record_of_a_transaction_is_told_of_once_when_it_is_durable
            a_record_that_a_former_owner_appends_is_not_told_of
            aborted_records_are_never_seen_by_committed_readers
            a_commit_covers_all_topics_and_the_consumed_positions
            an_abort_covers_all_topics_and_the_consumed_positions
            a_newer_transactor_fences_the_appends_of_the_older
            a_newer_transactor_fences_the_commit_of_the_older
            a_takeover_aborts_what_was_left_open
            committing_or_aborting_nothing_is_harmless
            a_transaction_of_positions_alone_commits_them
            a_landmark_stays_beside_its_position
            transactions_follow_one_another
            a_stale_membership_cannot_commit
            a_stale_membership_cannot_hold
            positions_that_are_held_are_not_given_out
            a_commit_overtakes_what_is_held
            the_end_offset_of_committed_readers_stops_at_an_open_transaction
            nothing_is_missing_at_the_beginning_of_a_new_partition
            reading_starts_where_asked
            reading_since_a_moment_starts_at_its_first_record
            seek_is_exact
            seek_drops_what_was_in_hand
            paused_partitions_are_silent_until_resumed
            the_end_of_a_partition_is_told_and_told_anew
            the_told_end_moves_past_control_records
            a_poll_brings_no_more_than_asked
            a_dropped_poll_loses_nothing
            a_lone_member_gets_every_partition
            a_second_member_gets_its_share_after_release
            partitions_of_a_closed_member_go_to_the_other
            a_partition_that_comes_back_is_read
            the_next_owner_starts_at_the_committed_position
            groups_do_not_see_each_other
            a_static_member_gets_its_partitions_back
            a_group_member_may_seek_in_what_it_was_assigned
        }
    };
}

/// A topic of its own for a test.
async fn new_topic(log: &dyn Log, partitions: u32) -> TopicName {
    let name = TopicName::from(format!("contract.{}", Uuid::now_v7().simple()));
    let spec = TopicSpec { name: name.clone(), partitions, replication: 1, settings: Vec::new() };
    log.create_topic(&spec).await.expect("create a topic");
    wait::until("the new topic", WITHIN, async || log.topic(&name).await.expect("ask for a topic")).await;
    name
}

/// A name of its own for a group, member or transactional id.
fn new_name(what: &str) -> String {
    format!("{what}-{}", Uuid::now_v7().simple())
}

fn at(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition::new(topic.clone(), partition)
}

fn text(value: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(value.as_bytes()))
}

/// A record for a partition, told apart by its value.
fn record(topic: &TopicName, partition: u32, value: &str) -> Append {
    Append {
        topic: topic.clone(),
        partition: Some(partition),
        key: text("key"),
        value: text(value),
        headers: Vec::new(),
    }
}

fn records(topic: &TopicName, partition: u32, values: &[&str]) -> Vec<Append> {
    values.iter().map(|value| record(topic, partition, value)).collect()
}

/// Appends without a transaction.
async fn append(log: &dyn Log, records: Vec<Append>) -> Vec<Offset> {
    let appender = log.appender().await.expect("open an appender");
    let appended = appender.append(records).await.expect("append");
    appended.into_iter().map(|one| one.offset).collect()
}

fn values(records: &[Record]) -> Vec<String> {
    let text =
        |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"<tombstone>")).into_owned();
    records.iter().map(text).collect()
}

async fn reader(log: &dyn Log, partitions: &[TopicPartition], start: Start, isolation: Isolation) -> Box<dyn Reader> {
    let partitions = partitions.iter().map(|partition| (partition.clone(), start)).collect();
    log.assign(partitions, isolation).await.expect("assign partitions")
}

/// Reads until there are `count` records.
async fn read(reader: &mut dyn Reader, count: usize) -> Vec<Record> {
    let mut seen = Vec::new();
    within("records", async {
        while seen.len() < count {
            if let Polled::Records(records) = reader.poll(TICK, 1000).await.expect("poll") {
                seen.extend(records);
            }
        }
    })
    .await;
    assert_eq!(seen.len(), count, "more records than there should be: {:?}", values(&seen));
    seen
}

/// Reads until a record has this value, which is included.
async fn read_through(reader: &mut dyn Reader, last: &str) -> Vec<Record> {
    let mut seen: Vec<Record> = Vec::new();
    within(last, async {
        while seen.last().is_none_or(|record| record.value.as_deref() != Some(last.as_bytes())) {
            if let Polled::Records(records) = reader.poll(TICK, 1).await.expect("poll") {
                seen.extend(records);
            }
        }
    })
    .await;
    seen
}

/// Reads until the end of the partition is told; gives what came before it and the position.
async fn read_to_end(reader: &mut dyn Reader, partition: &TopicPartition) -> (Vec<Record>, Offset) {
    let mut seen = Vec::new();
    let end = within("the end of a partition", async {
        loop {
            match reader.poll(TICK, 1000).await.expect("poll") {
                Polled::Records(records) => seen.extend(records),
                Polled::CaughtUp(of, end) if of == *partition => return end,
                _ => {}
            }
        }
    })
    .await;
    (seen, end)
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WITHIN, work).await {
        Ok(result) => result,
        Err(_) => panic!("waited {WITHIN:?} in vain for: {what}"),
    }
}

/// A member of a group with what it owns, checked at every poll.
struct Member {
    reader: Box<dyn Reader>,
    owned: Vec<TopicPartition>,
    revoked: Vec<TopicPartition>,
    seen: Vec<Record>,
    ends: BTreeMap<TopicPartition, Offset>,
    releases: bool,
}

impl Member {
    async fn join(log: &dyn Log, group: &str, topic: &TopicName, name: Option<&str>) -> Self {
        let subscription = Subscription {
            group: group.to_owned(),
            topics: vec![topic.clone()],
            member: name.map(ToOwned::to_owned),
            start: Start::Beginning,
        };
        let reader = log.subscribe(subscription).await.expect("subscribe");
        Self { reader, owned: vec![], revoked: vec![], seen: vec![], ends: BTreeMap::new(), releases: true }
    }

    /// One poll. Revoked partitions are released at once unless `releases` is off.
    async fn step(&mut self) {
        match self.reader.poll(TICK, 1000).await.expect("poll") {
            Polled::Records(records) => {
                for record in &records {
                    assert!(self.owned.contains(&record.source), "a record of {}, which is not ours", record.source);
                    assert!(!self.revoked.contains(&record.source), "a record of {}, which was revoked", record.source);
                }
                self.seen.extend(records);
            }
            Polled::Assigned(partitions) => {
                for partition in partitions {
                    assert!(!self.owned.contains(&partition), "{partition} assigned twice");
                    self.owned.push(partition);
                }
                self.owned.sort();
            }
            Polled::Revoked(partitions) => {
                assert!(
                    partitions.iter().all(|partition| self.owned.contains(partition)),
                    "revoked what we do not own"
                );
                self.revoked.extend(partitions);
                if self.releases {
                    self.release().await;
                }
            }
            Polled::Lost(partitions) => self.owned.retain(|partition| !partitions.contains(partition)),
            Polled::CaughtUp(partition, end) => {
                self.ends.insert(partition, end);
            }
            Polled::Idle => {}
        }
    }

    async fn release(&mut self) {
        let revoked = std::mem::take(&mut self.revoked);
        self.reader.release(&revoked).await.expect("release");
        self.owned.retain(|partition| !revoked.contains(partition));
    }

    /// Polls until this member owns that many partitions.
    async fn until_owns(&mut self, count: usize) {
        within("an assignment", async {
            while self.owned.len() != count {
                self.step().await;
            }
        })
        .await;
    }

    /// Polls until this member has seen that many records.
    async fn until_seen(&mut self, count: usize) {
        within("records", async {
            while self.seen.len() < count {
                self.step().await;
            }
        })
        .await;
    }
}

/// Polls both members until `done`.
async fn both(a: &mut Member, b: &mut Member, what: &str, mut done: impl FnMut(&Member, &Member) -> bool) {
    within(what, async {
        while !done(a, b) {
            a.step().await;
            b.step().await;
        }
    })
    .await;
}
