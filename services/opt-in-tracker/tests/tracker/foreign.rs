//! What others write into the topics that the service reads.

use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_domain::consent::Intent;
use connector_domain::event::{ConsentRevoked, Event, TimeSource};
use connector_ports::Gate;
use connector_ports::gate::View;
use connector_ports::log::{Append, Isolation, Record, TopicPartition};
use connector_runtime::emit::Cause;
use connector_runtime::platform::views;
use connector_runtime::situation::{conversation_key, partition_of};
use connector_simulated::SimWorld;

use crate::scene::{PARTITIONS, append, conversation, platform, play, view, write};

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
