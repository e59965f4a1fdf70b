//! What a new owner of a partition reads of the journal, whichever of its messages it takes first.

use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::outcome::GraphError;
use connector_ports::log::{Offset, TopicPartition};
use connector_runtime::handler::{Handler, Step};
use connector_runtime::lanes::Work;
use connector_runtime::situation::partition_of;
use connector_simulated::{Reaction, SimWorld};
use connector_testkit::wait::until;
use outbound_sender::dispatch::Dispatcher;
use outbound_sender::tables::Tables;

use crate::scene::{PARTITIONS, Scene, appears, conversation, conversation_of_second, ended, of, text, text_of_second};

const WITHIN: Duration = Duration::from_secs(2 * 3600);

/// The first message waits and holds the position back; one behind it was sent long ago, and one of another number just now. A busy number
/// gets no further place, so the newest of the three is taken first.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_sent_long_ago_and_is_not_committed_is_not_sent_again() {
    let scene = Scene::new(61).await;
    scene.second(10).await;
    let here = partition_of(&conversation(1), PARTITIONS);
    let same = |n: &usize| partition_of(&conversation(*n), PARTITIONS) == here;
    let same_of_second = |n: &usize| partition_of(&conversation_of_second(*n), PARTITIONS) == here;
    let waiting = text("waiting", 1);
    let sent = text("sent", (2..10).find(same).expect("another contact in the partition"));
    let rare = text_of_second("rare", (0..10).find(same_of_second).expect("a contact in the partition"));
    // Longer and longer: 4 to the power of its tries, in seconds.
    for number in 0..6 {
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, GraphError { code: 131_056, subcode: None }));
    }
    scene.publish(std::slice::from_ref(&waiting)).await;
    let beside = Scene::of(scene.world.clone());
    scene
        .run(async |world: SimWorld| {
            until("it waits", WITHIN, async || (beside.posts().len() == 6).then_some(())).await;
            beside.publish(std::slice::from_ref(&sent)).await;
            let is_sent = |command| {
                appears(&world, move |recorded| {
                    recorded.envelope.command_id == Some(command) && recorded.envelope.event_type == "MessageSent"
                })
            };
            is_sent(sent.command_id).await;
            tokio::time::sleep(Duration::from_secs(15 * 60)).await;
            beside.publish(std::slice::from_ref(&rare)).await;
            is_sent(rare.command_id).await;
        })
        .await;
    assert!(!of(&scene.events(), waiting.command_id).iter().any(|r| r.envelope.event_type == "MessageSent"));

    let world = &scene.world;
    world.restart();
    let platform = scene.platform(world, "worker-0".to_owned());
    let source = TopicPartition::new(Topic::Dispatch.name(""), here);
    let group = "outbound-sender.dispatch";
    let committed = platform.log.committed(group, std::slice::from_ref(&source)).await.expect("the log is calm")[0];
    let records = world.history(&source.topic).into_iter().filter(|record| record.source == source);
    let records: Vec<_> = records.filter(|record| record.offset >= committed.unwrap_or(Offset(0))).collect();
    assert_eq!(records.len(), 3, "nothing behind the first is committed");
    assert!(records[2].timestamp.since(records[1].timestamp) > Duration::from_secs(600), "longer than clocks differ");

    let tables = Tables::new(&platform);
    let mut owner = Dispatcher::new(&platform, &scene.config, world.whatsapp(), tables);
    owner.assigned(&source, committed).await.expect("it is ours");
    for record in [records[2].clone(), records[1].clone()] {
        let work = Work { record, replay: false, round: 0 };
        let steps = owner.handle(&[work]).await.expect("it is known what became of it");
        assert!(matches!(&steps[..], [Step::Done(appends)] if appends.is_empty()), "it is done");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_after_the_dispatch_topic_was_made_anew_leaves() {
    let scene = Scene::new(95).await;
    let before: Vec<_> = (0..4).map(|n| text(&format!("before {n}"), 1)).collect();
    let after = [text("after", 1)];
    scene.publish(&before).await;
    scene
        .run(async |world: SimWorld| {
            ended(&world, &before).await;
            world.make_anew(&Topic::Dispatch.name("").into());
            scene.publish(&after).await;
            ended(&world, &after).await;
        })
        .await;
    assert_eq!(scene.story(&after[0]), ["MessageAccepted", "MessageSent"]);
    assert!(scene.accepted_posts().values().all(|count| *count == 1), "{:?}", scene.accepted_posts());
}
