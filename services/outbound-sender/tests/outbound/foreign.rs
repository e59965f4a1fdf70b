//! What others write into the topics of dispatch: copies, forgeries, records in the wrong partition, a journal that cannot be read.

use std::time::Duration;

use bytes::Bytes;
use connector_contracts::{Topic, decode, encode, headers};
use connector_domain::command::{Dispatch, JournalEntry, JournalKind, SendMessage};
use connector_domain::ids::AttemptId;
use connector_domain::time::Timestamp;
use connector_ports::log::{Append, Record};
use connector_runtime::situation::partition_of;
use connector_simulated::SimWorld;

use crate::scene::{PARTITIONS, Scene, conversation, ended, of, text, types};

/// What stands in a topic, for the same topic.
fn copy(record: &Record) -> Append {
    Append {
        topic: record.source.topic.clone(),
        partition: Some(record.source.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}

async fn append(world: &SimWorld, record: Append) {
    world.calm_log().appender().await.expect("the log is calm").append(vec![record]).await.expect("the log is calm");
}

fn records(world: &SimWorld, topic: Topic) -> Vec<Record> {
    world.history(&topic.name("").into())
}

fn letters(world: &SimWorld, topic: Topic) -> Vec<String> {
    let letters = world.history(&format!("{}.dlq", topic.name("")).as_str().into());
    let reason = |record: &Record| {
        record.header(headers::dlq::REASON).map(|reason| String::from_utf8_lossy(reason).into_owned())
    };
    letters.iter().filter_map(reason).collect()
}

/// The dispatch record of a command.
fn dispatched(world: &SimWorld, command: &SendMessage) -> Record {
    let is = |record: &Record| {
        let dispatch: Dispatch = decode(record.value.as_deref().expect("a value")).expect("a message");
        dispatch.command_id == command.command_id
    };
    records(world, Topic::Dispatch).into_iter().find(is).expect("it was accepted")
}

/// A contact whose conversation is in this partition.
fn contact_in(partition: u32) -> usize {
    (0..10).find(|n| partition_of(&conversation(*n), PARTITIONS) == partition).expect("there is one")
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stands_twice_is_sent_once() {
    let scene = Scene::new(300).await;
    let (first, second, third) = (text("first", 1), text("second", 1), text("third", 1));
    scene.publish(std::slice::from_ref(&first)).await;
    scene.run_to_the_end(std::slice::from_ref(&first)).await;
    // A copy that the owner of the next start meets first, and copies that come while it works.
    append(&scene.world, copy(&dispatched(&scene.world, &first))).await;
    scene.world.restart();
    let publisher = Scene::of(scene.world.clone());
    let both = [second.clone(), third.clone()];
    scene
        .run(async |world| {
            publisher.publish(&both[..1]).await;
            ended(&world, &both[..1]).await;
            append(&world, copy(&dispatched(&world, &first))).await;
            append(&world, copy(&dispatched(&world, &second))).await;
            publisher.publish(&both[1..]).await;
            ended(&world, &both[1..]).await;
        })
        .await;
    for command in [&first, &second, &third] {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
    }
    assert!(scene.accepted_posts().values().all(|count| *count == 1), "{:?}", scene.accepted_posts());
    assert_eq!(letters(&scene.world, Topic::Dispatch), ["duplicate"; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_did_not_accept_is_neither_sent_nor_told() {
    let scene = Scene::new(301).await;
    let real = text("real", 1);
    scene.publish(std::slice::from_ref(&real)).await;
    scene.run_to_the_end(std::slice::from_ref(&real)).await;
    let genuine = dispatched(&scene.world, &real);
    let mut forged: Dispatch = decode(genuine.value.as_deref().expect("a value")).expect("a message");
    forged.command_id = connector_domain::ids::CommandId::derived("forged");
    let value = Some(Bytes::from(encode(&forged).expect("it fits its schema")));
    // With the seal of another message, without any, and as random bytes.
    append(&scene.world, Append { value: value.clone(), ..copy(&genuine) }).await;
    append(&scene.world, Append { value, headers: Vec::new(), ..copy(&genuine) }).await;
    append(&scene.world, Append { value: Some(Bytes::from_static(b"\xc3\x01nonsense")), ..copy(&genuine) }).await;
    let next = text("next", 1);
    scene.publish(std::slice::from_ref(&next)).await;
    scene.world.restart();
    scene.run_to_the_end(std::slice::from_ref(&next)).await;
    assert_eq!(scene.posts().len(), 2, "real and next");
    assert_eq!(of(&scene.events(), forged.command_id), []);
    assert_eq!(letters(&scene.world, Topic::Dispatch), ["not_accepted", "not_accepted", "unknown_schema"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_the_wrong_partition_or_under_another_key_writes_into_no_log() {
    let scene = Scene::new(302).await;
    let real = text("real", 1);
    scene.publish(std::slice::from_ref(&real)).await;
    scene.run_to_the_end(std::slice::from_ref(&real)).await;
    let genuine = dispatched(&scene.world, &real);
    let elsewhere = (genuine.source.partition + 1) % PARTITIONS;
    append(&scene.world, Append { partition: Some(elsewhere), ..copy(&genuine) }).await;
    append(&scene.world, Append { key: Some(Bytes::from_static(b"another")), ..copy(&genuine) }).await;
    let next = [text("here", contact_in(0)), text("there", contact_in(1))];
    scene.publish(&next).await;
    scene.world.restart();
    scene.run_to_the_end(&next).await;
    assert_eq!(scene.accepted_posts().get("real"), Some(&1));
    let events = records(&scene.world, Topic::ConversationEvents);
    let about = |record: &&Record| record.key == genuine.key && record.source.partition == elsewhere;
    assert_eq!(events.iter().filter(about).count(), 0);
    let mut reasons = letters(&scene.world, Topic::Dispatch);
    reasons.sort();
    assert_eq!(reasons, ["key_mismatch", "misplaced"]);
}

fn word(partition: u32, offset: i64) -> Append {
    Append {
        topic: Topic::DispatchJournal.name("").into(),
        partition: Some(partition),
        key: None,
        value: None,
        headers: vec![(headers::JOURNAL_ACCEPTS.into(), Some(Bytes::from(offset.to_string())))],
    }
}

/// Waits until nothing is sent from this many partitions.
async fn blocked(scene: &Scene, partitions: usize) {
    let line = format!("connector_outbound_blocked_journals {partitions}\n");
    while !scene.metrics.encode().contains(&line) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_stops_its_partition_until_an_operator_accepts() {
    let scene = Scene::new(303).await;
    let nonsense = Append { value: Some(Bytes::from_static(b"nonsense")), headers: Vec::new(), ..word(0, 0) };
    append(&scene.world, nonsense).await;
    let (stopped, free) = (text("stopped", contact_in(0)), text("free", contact_in(1)));
    let late = text("late", contact_in(1));
    scene.publish(&[stopped.clone(), free.clone()]).await;
    let publisher = Scene::of(scene.world.clone());
    scene
        .run(async |world| {
            ended(&world, std::slice::from_ref(&free)).await;
            blocked(&scene, 1).await;
            // Admission and the other partition go on, however long that lasts.
            tokio::time::sleep(Duration::from_secs(120)).await;
            publisher.publish(std::slice::from_ref(&late)).await;
            ended(&world, std::slice::from_ref(&late)).await;
            assert_eq!(types(&of(&publisher.events(), stopped.command_id)), ["MessageAccepted"]);
            append(&world, word(0, 0)).await;
            ended(&world, std::slice::from_ref(&stopped)).await;
            blocked(&scene, 0).await;
        })
        .await;
    // What cannot be read was written before the message was accepted: it is no attempt of it.
    assert_eq!(scene.story(&stopped), ["MessageAccepted", "MessageSent"]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_entry_of_a_kind_that_a_later_version_writes_stops_its_partition() {
    let scene = Scene::new(306).await;
    let (stopped, free) = (text("stopped", contact_in(0)), text("free", contact_in(1)));
    let later = JournalEntry {
        kind: JournalKind::Unknown,
        attempt_id: AttemptId::derived("later"),
        attempt_no: 1,
        command_id: stopped.command_id,
        conversation_id: conversation(contact_in(0)),
        phone_number_id: stopped.phone_number_id.clone(),
        at: Timestamp(0),
        conclusion: None,
        wamid: None,
    };
    let later = Bytes::from(encode(&later).expect("an entry"));
    append(&scene.world, Append { value: Some(later), headers: Vec::new(), ..word(0, 0) }).await;
    scene.publish(&[stopped.clone(), free.clone()]).await;
    scene
        .run(async |world| {
            ended(&world, std::slice::from_ref(&free)).await;
            blocked(&scene, 1).await;
        })
        .await;
    assert_eq!(scene.story(&stopped), ["MessageAccepted"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_read_counts_when_it_is_accepted() {
    let scene = Scene::new(304).await;
    let (first, second) = (text("first", 1), text("second", 1));
    let partition = partition_of(&conversation(1), PARTITIONS);
    // The process dies before its POST, with the attempt in the journal.
    scene.publish(std::slice::from_ref(&first)).await;
    let crash = Scene::of(scene.world.clone());
    let run = crash.run(async |world| {
        while records_of_any_fate(&world).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    scene
        .world
        .whatsapp_side()
        .script(0, connector_simulated::Reaction::AcceptThenDrop(connector_domain::outcome::Transport::Timeout));
    run.await;
    let attempted = records_of_any_fate(&scene.world).remove(0);
    let entry: JournalEntry = decode(attempted.value.as_deref().expect("a value")).expect("an entry");
    assert_eq!(entry.command_id, first.command_id);
    // In a world whose journal holds the same attempt, damaged.
    let scene = Scene::new(305).await;
    scene.publish(&[first.clone(), second.clone()]).await;
    let damaged = Append {
        value: Some(attempted.value.expect("a value").slice(..12)),
        ..copy(&Record { value: None, ..attempted })
    };
    append(&scene.world, damaged).await;
    append(&scene.world, word(partition, 0)).await;
    scene.run_to_the_end(&[first.clone(), second.clone()]).await;
    assert_eq!(scene.story(&first), ["MessageAccepted", "MessageUnconfirmed"]);
    assert_eq!(scene.story(&second), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.accepted_posts().get("first"), None);
}

fn records_of_any_fate(world: &SimWorld) -> Vec<Record> {
    world.appended(&Topic::DispatchJournal.name("").into()).into_iter().map(|(record, _)| record).collect()
}
