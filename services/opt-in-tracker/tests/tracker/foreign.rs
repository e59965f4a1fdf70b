//! What others write into the topics that the service reads.

use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::consent::Intent;
use connector_domain::event::{ConsentRevoked, Event, TimeSource};
use connector_ports::Gate;
use connector_ports::gate::View;
use connector_ports::log::{Append, Isolation, Record, TopicPartition};
use connector_ports::partition::partition_for;
use connector_runtime::emit::Cause;
use connector_runtime::platform::views;
use connector_runtime::situation::{conversation_key, partition_of};
use connector_simulated::SimWorld;

use crate::scene::{
    LIMIT, PARTITIONS, append, conversation, counts, directory, number, platform, play, prepared, record, service,
    until, view, write,
};

/// Events of others: in the wrong partition, under another key, and bytes that are none.
#[tokio::test(start_paused = true)]
async fn what_does_not_stand_in_its_place_in_the_log_changes_no_view_and_stops_nobody() {
    let world = play(async |world| {
        write(&world, "hello", Intent::Other).await;
        until_applied(&world).await;
        let stream = conversation(&world);
        let home = partition_of(&stream, PARTITIONS);
        let before = view(&world, &stream, conversation_key(&stream)).await;
        let cause = Cause {
            organization_id: "acme".into(),
            stream_id: stream.clone(),
            cause_id: "foreign".to_owned(),
            command_id: None,
            occurred_at: platform(&world).clock.now(),
            time_source: TimeSource::Connector,
            traceparent: None,
        };
        let foreign = Event::ConsentRevoked(ConsentRevoked { by: "eve".into() });
        let foreign = platform(&world).emitter("test").emit(foreign, &cause).expect("an event");
        let elsewhere = Append { partition: Some((home + 1) % PARTITIONS), ..foreign.clone() };
        let misnamed = Append { partition: Some(home), key: Some("other".into()), ..foreign.clone() };
        let nonsense = Append { partition: Some(home), value: Some("nonsense".into()), ..foreign };
        append(&world, vec![elsewhere, misnamed, nonsense]).await;
        let letters = Topics::new("").dlq(Topic::ConversationEvents).into();
        while world.history(&letters).len() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(view(&world, &stream, conversation_key(&stream)).await, before);
        write(&world, "stop", Intent::Stop).await;
        until_applied(&world).await;
        assert_ne!(view(&world, &stream, conversation_key(&stream)).await, before);
    })
    .await;
    let letters = world.history(&Topics::new("").dlq(Topic::ConversationEvents).into());
    let reason = |record: &Record| record.header("dlq.reason").map(|word| String::from_utf8_lossy(word).into_owned());
    let mut reasons: Vec<_> = letters.iter().filter_map(reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["key_mismatch", "misplaced", "not_framed"]);
}

/// Waits until the views stand at the end of the log.
async fn until_applied(world: &SimWorld) {
    for partition in 0..PARTITIONS {
        let source = TopicPartition { topic: Topics::new("").name(Topic::ConversationEvents).into(), partition };
        let end = world.calm_log().end_offset(&source, Isolation::Committed).await.expect("the log is calm");
        let view = View::new(views::CONVERSATIONS, partition);
        while world.calm_gate().read(&view, &[]).await.expect("the gate").applied < Some(end) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A number and a user whose records stand in another partition than their keys', and numbers that are none.
#[tokio::test(start_paused = true)]
async fn what_says_nothing_in_the_directory_gets_to_the_dead_letters() {
    let world = play(async |world| {
        prepared(&world).await;
        let of = |entry: &DirectoryRecord| record(&world, Topic::Directory, &entry.key().expect("a key"), entry);
        let elsewhere = |append: Append| {
            let home = partition_for(append.key.as_deref().unwrap_or_default(), PARTITIONS);
            Append { partition: Some((home + 1) % PARTITIONS), ..append }
        };
        let gone = Append { value: None, ..of(&directory(DirectoryKind::User)) };
        let nonsense = Append { value: Some("nonsense".into()), ..of(&number("acme", "second")) };
        append(&world, vec![elsewhere(of(&number("globex", "number"))), elsewhere(gone), nonsense]).await;
        let letters = || world.history(&Topics::new("").dlq(Topic::Directory).into());
        let three = async || (letters().len() == 3).then_some(());
        connector_testkit::wait::until("three dead letters", LIMIT, three).await;
        let reason =
            |letter: &Record| letter.header("dlq.reason").map(|word| String::from_utf8_lossy(word).into_owned());
        let mut reasons: Vec<_> = letters().iter().filter_map(reason).collect();
        reasons.sort();
        assert_eq!(reasons, ["misplaced", "misplaced", "not_framed"]);
    })
    .await;
    assert!(!counts(&world).contains_key("WhatsAppDisabled"), "a tombstone elsewhere takes nobody away");
}

#[tokio::test(start_paused = true)]
async fn a_directory_record_with_an_id_that_is_none_or_a_name_without_end_goes_to_the_dead_letters() {
    let world = play(async |world| {
        prepared(&world).await;
        let mut wrong = vec![
            number("acme", "+491701234567"),
            DirectoryRecord { waba_id: Some("a b".into()), ..number("acme", "second") },
            number("acme corp", "third"),
            DirectoryRecord { organization_id: "acme\n".into(), ..directory(DirectoryKind::Organization) },
            DirectoryRecord {
                user_id: Some("bob".into()),
                phone_number_id: Some("1 2".into()),
                ..directory(DirectoryKind::User)
            },
        ];
        let ids = wrong.len();
        let name = Some("n".repeat(257).as_str().into());
        wrong.push(DirectoryRecord { contact_id: Some("long".into()), name, ..directory(DirectoryKind::Contact) });
        let records = wrong.iter().map(|entry| record(&world, Topic::Directory, &entry.key().expect("a key"), entry));
        append(&world, records.collect()).await;
        let letters = || world.history(&Topics::new("").dlq(Topic::Directory).into());
        let all = async || (letters().len() == wrong.len()).then_some(());
        connector_testkit::wait::until("a dead letter for each", LIMIT, all).await;
        let because = |word: &str| {
            letters().iter().filter(|letter| letter.header("dlq.reason").is_some_and(|it| it == word)).count()
        };
        assert_eq!((because("invalid_id"), because("invalid")), (ids, 1));
    })
    .await;
    assert_eq!(counts(&world)["WhatsAppEnabled"], 1, "nobody gets a number that is none");
}

/// A thousand contacts of a user who never comes, in front of one who does, are given up together and not one after the other.
#[tokio::test(start_paused = true)]
async fn contacts_that_wait_for_their_user_wait_together() {
    play(async |world| {
        let home = |record: &Append| partition_for(record.key.as_deref().unwrap_or_default(), PARTITIONS);
        let of_number = number("acme", "number");
        append(&world, vec![record(&world, Topic::Directory, &of_number.key().expect("a key"), &of_number)]).await;
        let user = directory(DirectoryKind::User);
        let wanted = record(&world, Topic::Directory, &user.key().expect("a key"), &user);
        let strangers = (0..).map(|n: u32| {
            let contact = directory(DirectoryKind::Contact);
            let contact = DirectoryRecord {
                user_id: Some("nobody".into()),
                contact_id: Some(n.to_string().as_str().into()),
                ..contact
            };
            record(&world, Topic::Directory, &contact.key().expect("a key"), &contact)
        });
        let strangers: Vec<_> = strangers.filter(|one| home(one) == home(&wanted)).take(1_000).collect();
        let begun = platform(&world).clock.now();
        append(&world, strangers).await;
        append(&world, vec![wanted]).await;
        until(&world, "WhatsAppEnabled", 1).await;
        let waited = platform(&world).clock.now().since(begun);
        assert!(waited < Duration::from_secs(90), "patience is a minute: {waited:?}");
        let letters = world.history(&Topics::new("").dlq(Topic::Directory).into());
        assert_eq!(letters.len(), 1_000);
    })
    .await;
}

/// Compaction has taken tombstones away that nobody has read: who is not in the directory any more is taken away all the same.
#[tokio::test(start_paused = true)]
async fn who_is_gone_from_the_directory_without_a_trace_is_taken_away() {
    let topic = Topics::new("").name(Topic::Directory);
    let world = play(async |world| {
        prepared(&world).await;
        let other = DirectoryRecord { user_id: Some("eve".into()), ..directory(DirectoryKind::User) };
        let key = other.key().expect("a key");
        append(&world, vec![record(&world, Topic::Directory, &key, &other)]).await;
        until(&world, "WhatsAppEnabled", 2).await;
    })
    .await;
    world.restart();
    // While nobody reads: the user and the contact are taken away, both with their tombstones, and somebody else comes.
    let stays = |record: &Record| {
        let key = record.key.as_deref().unwrap_or_default();
        key.starts_with(b"user/acme/eve") || key.starts_with(b"number/")
    };
    world.compact(&topic.as_str().into(), stays);
    let last = DirectoryRecord { user_id: Some("zoe".into()), ..directory(DirectoryKind::User) };
    for partition in 0..PARTITIONS {
        // A gap, as tombstones leave it, in each of the partitions.
        let tombstone = record(&world, Topic::Directory, "user/acme/gone", &last);
        append(&world, vec![Append { partition: Some(partition), value: None, ..tombstone }]).await;
    }
    world.compact(&topic.as_str().into(), stays);
    append(&world, vec![record(&world, Topic::Directory, &last.key().expect("a key"), &last)]).await;
    let story = async |world: SimWorld| {
        until(&world, "WhatsAppEnabled", 3).await;
        until(&world, "WhatsAppDisabled", 1).await;
        until(&world, "ContactRemoved", 1).await;
        // Everybody is looked at.
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    assert!(world.run(LIMIT, service, story).await.is_ok(), "{:?}", counts(&world));
    assert_eq!((counts(&world)["WhatsAppDisabled"], counts(&world)["ContactRemoved"]), (1, 1));
}
