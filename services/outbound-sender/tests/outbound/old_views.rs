//! Nothing is decided on an old view (R2): the tracker, which owns the views, does not run, and what is in the log or in the directory and
//! not in the views holds back what it is about. Everything else goes on.

use std::time::Duration;

use bytes::Bytes;
use connector_contracts::Topic;
use connector_domain::command::{DirectoryKind, DirectoryRecord, SendMessage};
use connector_domain::consent::{ConsentState, ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, MessageReceived};
use connector_domain::identity::Address;
use connector_domain::outcome::GraphError;
use connector_ports::Clock;
use connector_ports::log::{Append, Isolation, Offset, Polled, Start, Subscription, TopicPartition};
use connector_runtime::platform::groups;

use connector_simulated::{Reaction, SimWorld};
use connector_testkit::event::text_received;
use connector_testkit::wait::{still, until};

use crate::scene::{NUMBER, PARTITIONS, Scene, conversation, ended, events, of, talking, text, text_of_second, types};

const WITHIN: Duration = Duration::from_secs(600);
const NOWHERE: Offset = Offset(0);

/// The contact writes STOP.
fn stop(scene: &Scene) -> MessageReceived {
    let now = scene.world.clock().now();
    MessageReceived {
        intent: Intent::Stop,
        phone_number_id: NUMBER.into(),
        ..text_received(now + Duration::from_secs(3600))
    }
}

fn opted_out() -> Conversation {
    let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
    Conversation { consent, ..talking() }
}

/// The end of a topic's partitions.
async fn ends(scene: &Scene, topic: Topic) -> Vec<(TopicPartition, Offset)> {
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        let partition = TopicPartition::new(topic.name(""), partition);
        let end = scene.world.calm_log().end_offset(&partition, Isolation::Committed).await.expect("the log is calm");
        ends.push((partition, end));
    }
    ends
}

/// The views apply the log up to where it ends now, in place of the tracker; the values are put before.
async fn catch_up(scene: &Scene) {
    for (partition, end) in ends(scene, Topic::ConversationEvents).await {
        scene.put(partition.partition, "seen".to_owned(), Bytes::from_static(b"1"), end).await;
    }
}

/// The tracker runs for as long as something takes.
async fn follows(scene: &Scene, something: impl Future<Output = ()>) {
    let tracker = async {
        loop {
            catch_up(scene).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = something => {}
        () = tracker => unreachable!("the tracker never ends"),
    }
}

/// The directory's worker has finished what is in the directory.
async fn told(scene: &Scene) {
    let log = scene.world.calm_log();
    let subscription = Subscription {
        group: groups::DIRECTORY.to_owned(),
        topics: vec![Topic::Directory.name("").into()],
        member: None,
        start: Start::Beginning,
    };
    let mut reader = log.subscribe(subscription).await.expect("the log is calm");
    while !matches!(reader.poll(WITHIN, 1).await.expect("the log is calm"), Polled::Assigned(_)) {}
    let positions = ends(scene, Topic::Directory).await;
    reader.commit(&positions).await.expect("the log is calm");
    reader.close().await;
}

/// A record of user `ada` in the directory; without a value, one is taken away.
async fn directory(scene: &Scene, key: &str, record: Option<DirectoryRecord>) {
    let append = Append {
        topic: Topic::Directory.name("").into(),
        partition: None,
        key: Some(Bytes::from(key.to_owned())),
        value: record.map(|record| connector_contracts::encode(&record).expect("it fits its schema").into()),
        headers: vec![],
    };
    let appender = scene.world.calm_log().appender().await.expect("the log is calm");
    appender.append(vec![append]).await.expect("the log is calm");
}

fn user(enabled: bool) -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::User,
        organization_id: "acme".into(),
        phone_number_id: Some(NUMBER.into()),
        waba_id: None,
        user_id: Some("ada".into()),
        enabled,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    }
}

/// How a command ended: the reason of a refusal or failure, or `sent`.
fn end(scene: &Scene, command: &SendMessage) -> Option<String> {
    of(&scene.events(), command.command_id).into_iter().find_map(|recorded| match recorded.event {
        Event::MessageFailed(failed) => Some(failed.reason),
        Event::MessageRejected(rejected) => Some(rejected.reason),
        Event::MessageSent(_) => Some("sent".to_owned()),
        _ => None,
    })
}

/// `queued` are accepted and held up by WhatsApp once. Then something happens of which the views do not know. Nothing of `queued` leaves,
/// `new` is not even accepted, and `others`, which are published after it, go on. The tracker comes back: all end with this reason.
async fn held_back(
    scene: &Scene,
    [queued, new, others]: [&[SendMessage]; 3],
    happens: impl AsyncFn(&Scene),
    back: impl AsyncFn(&Scene),
    reason: &str,
) {
    for number in 0..2 {
        let error = GraphError { code: 131_056, subcode: None };
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, error));
    }
    scene.publish(queued).await;
    scene
        .run(async |world: SimWorld| {
            until("the queued ones to be held up", WITHIN, async || (scene.posts().len() == 2).then_some(())).await;
            happens(scene).await;
            scene.publish(new).await;
            scene.publish(others).await;
            ended(&world, others).await;
            let silent = async || (scene.posts().len(), events(&world).len());
            still("what must not leave", Duration::from_secs(60), WITHIN, silent).await;
            for command in queued {
                assert_eq!(scene.story(command), ["MessageAccepted"]);
            }
            for command in new {
                assert!(scene.story(command).is_empty(), "neither accepted nor refused: {:?}", types(&events(&world)));
            }
            back(scene).await;
            let both: Vec<_> = queued.iter().chain(new).cloned().collect();
            follows(scene, ended(&world, &both)).await;
        })
        .await;
    for command in queued.iter().chain(new) {
        assert_eq!(end(scene, command).as_deref(), Some(reason));
    }
    for command in others {
        assert_eq!(end(scene, command).as_deref(), Some("sent"));
    }
    assert_eq!(scene.posts().len(), 2 + others.len());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_in_the_log_alone_holds_back_what_is_queued_and_what_is_new() {
    let scene = Scene::applied(70, NOWHERE).await;
    let others: Vec<_> = (0..10).filter(|n| *n != 1).map(|n| text(&format!("other {n}"), n)).collect();
    let stopped = async |scene: &Scene| scene.tell(&conversation(1), stop(scene)).await;
    let back = async |scene: &Scene| {
        scene.converse(1, &opted_out()).await;
        catch_up(scene).await;
    };
    let commands: [&[SendMessage]; 3] = [&[text("a", 1), text("b", 1)], &[text("new", 1)], &others];
    held_back(&scene, commands, stopped, back, "opted_out").await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_under_an_alias_that_is_in_the_log_alone_holds_back_its_conversation() {
    let scene = Scene::applied(72, NOWHERE).await;
    let alias = conversation(20);
    scene.converse(1, &Conversation { aliases: vec![alias.clone()], ..talking() }).await;
    let stopped = async |scene: &Scene| scene.tell(&alias, stop(scene)).await;
    let back = async |scene: &Scene| {
        scene.converse(1, &opted_out()).await;
        catch_up(scene).await;
    };
    let commands: [&[SendMessage]; 3] = [&[text("a", 1), text("b", 1)], &[text("new", 1)], &[text("other", 2)]];
    held_back(&scene, commands, stopped, back, "opted_out").await;
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_disabled_in_the_directory_alone_sends_nothing() {
    let scene = Scene::applied(73, NOWHERE).await;
    scene.second(2).await;
    told(&scene).await;
    let disabled = async |scene: &Scene| directory(scene, "user/acme/ada", Some(user(false))).await;
    let back = async |scene: &Scene| {
        scene.user(false, NUMBER, 1, true).await;
        catch_up(scene).await;
        told(scene).await;
    };
    let others = [text_of_second("bob 0", 0), text_of_second("bob 1", 1)];
    let commands: [&[SendMessage]; 3] = [&[text("a", 1), text("b", 1)], &[text("new", 2)], &others];
    held_back(&scene, commands, disabled, back, "not_enabled").await;
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_is_removed_in_the_directory_alone_is_not_written_to() {
    let scene = Scene::applied(74, NOWHERE).await;
    scene.second(2).await;
    told(&scene).await;
    let removed = async |scene: &Scene| directory(scene, "contact/acme/ada/7", None).await;
    let back = async |scene: &Scene| {
        scene.user(true, NUMBER, 1, false).await;
        catch_up(scene).await;
        told(scene).await;
    };
    let others = [text_of_second("bob 0", 0), text_of_second("bob 1", 1)];
    let commands: [&[SendMessage]; 3] = [&[text("a", 1), text("b", 1)], &[text("new", 1)], &others];
    held_back(&scene, commands, removed, back, "not_a_contact").await;
}

/// Dispatch finds out while it writes the attempt: a process that has read nothing of the log yet decides on what the views say.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_accepted_before_the_stop_is_withdrawn_when_dispatch_first_meets_it_afterwards() {
    let scene = Scene::applied(76, NOWHERE).await;
    let error = GraphError { code: 131_056, subcode: None };
    scene.world.whatsapp_side().script(0, Reaction::Refuse(400, error));
    let queued = text("a", 1);
    scene.publish(std::slice::from_ref(&queued)).await;
    let refused = async |_: SimWorld| {
        until("it to be held up", WITHIN, async || (scene.posts().len() == 1).then_some(())).await;
        still("its answer to be written", Duration::from_secs(1), WITHIN, async || scene.posts().len()).await;
    };
    scene.run(refused).await;
    scene.tell(&conversation(1), stop(&scene)).await;
    // WhatsApp's pace holds it no longer when the next process begins.
    still("the pause to be over", Duration::from_secs(60), WITHIN, async || scene.posts().len()).await;
    scene
        .run(async |world: SimWorld| {
            let silent = async || (scene.posts().len(), events(&world).len());
            still("what must not leave", Duration::from_secs(60), WITHIN, silent).await;
            assert_eq!((scene.posts().len(), scene.story(&queued)), (1, vec!["MessageAccepted".to_owned()]));
            scene.converse(1, &opted_out()).await;
            follows(&scene, ended(&world, std::slice::from_ref(&queued))).await;
        })
        .await;
    assert_eq!((end(&scene, &queued).as_deref(), scene.posts().len()), (Some("opted_out"), 1));
}

/// A sender that starts with the STOP in the log, a tracker that is away, and views that went back to where they stood before it.
#[tokio::test(start_paused = true)]
async fn a_sender_that_starts_anew_knows_of_a_stop_that_a_view_has_lost_again() {
    let scene = Scene::applied(75, NOWHERE).await;
    let before = scene.world.calm_gate().snapshot();
    scene.tell(&conversation(1), stop(&scene)).await;
    scene.converse(1, &opted_out()).await;
    catch_up(&scene).await;
    let refused = text("refused", 1);
    scene.publish(std::slice::from_ref(&refused)).await;
    scene.run_to_the_end(std::slice::from_ref(&refused)).await;
    assert_eq!(end(&scene, &refused).as_deref(), Some("opted_out"));

    scene.world.calm_gate().restore(&before);
    let (stopped, other) = (text("stopped", 1), text("other", 2));
    scene.publish(&[stopped.clone(), other.clone()]).await;
    scene
        .run(async |world: SimWorld| {
            ended(&world, std::slice::from_ref(&other)).await;
            still("what must not leave", Duration::from_secs(60), WITHIN, async || events(&world).len()).await;
            assert!(scene.story(&stopped).is_empty());
            scene.converse(1, &opted_out()).await;
            follows(&scene, ended(&world, std::slice::from_ref(&stopped))).await;
        })
        .await;
    assert_eq!(end(&scene, &stopped).as_deref(), Some("opted_out"));
    assert_eq!(scene.posts().len(), 1);
}
