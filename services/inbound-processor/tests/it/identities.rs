//! One message once and one person in one place: days later, under another identity, and where links lead in a circle.

use std::time::Duration;

use connector_domain::conversation::Conversation;
use connector_domain::event::Event;
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use connector_runtime::situation::partition_of;
use connector_simulated::{Noise, Plan, SimWorld};
use inbound_processor::Config;

use crate::world::{NUMBER, PARTITIONS, deliver, keys, known, log, of_items, process, process_with_many, scene, text};

const PHONE: &str = r#""from":"15550100042""#;

fn by_phone(phone: &str) -> StreamId {
    keys().by_phone(&NUMBER.into(), &PhoneNumber::parse(phone).expect("a number"))
}

fn by_bsuid(bsuid: &str) -> StreamId {
    keys().by_bsuid(&NUMBER.into(), &Bsuid(bsuid.to_owned()))
}

/// A user id whose stream lies in another partition than this one.
fn apart_from(stream: &StreamId) -> String {
    let elsewhere = |id: &String| partition_of(&by_bsuid(id), PARTITIONS) != partition_of(stream, PARTITIONS);
    (0..).map(|n| format!("US.{n}")).find(elsewhere).expect("there are many")
}

fn received(world: &SimWorld) -> Vec<(StreamId, String)> {
    let message = |recorded: connector_domain::event::Recorded| match recorded.event {
        Event::MessageReceived(message) => Some((recorded.envelope.stream_id, message.wamid.to_string())),
        _ => None,
    };
    log(world).into_iter().filter_map(message).collect()
}

#[tokio::test(start_paused = true)]
async fn the_same_webhook_is_recorded_once_as_long_as_its_topic_may_have_it_whatever_happened_to_the_memory() {
    for wiped in [false, true] {
        let world = scene(SimWorld::new(8)).await;
        deliver(&world, &text("A", PHONE)).await;
        process(&world).await.expect("processed");
        assert_eq!(received(&world).len(), 1);
        // WhatsApp repeats for seven days, the topic keeps the last repeat for fourteen, and somebody replays the topic.
        tokio::time::advance(Duration::from_secs(22 * 24 * 3600 - 60)).await;
        world.restart();
        if wiped {
            world.calm_gate().wipe();
        }
        deliver(&world, &text("A", PHONE)).await;
        deliver(&world, &text("B", PHONE)).await;
        process(&world).await.expect("processed");
        let wamids: Vec<_> = received(&world).into_iter().map(|(_, wamid)| wamid).collect();
        assert_eq!(wamids, ["wamid.A", "wamid.B"], "wiped: {wiped}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_still_later_is_recognised_by_its_id() {
    let world = scene(SimWorld::new(9)).await;
    deliver(&world, &text("A", PHONE)).await;
    process(&world).await.expect("processed");
    tokio::time::advance(Duration::from_secs(23 * 24 * 3600)).await;
    world.restart();
    deliver(&world, &text("A", PHONE)).await;
    process(&world).await.expect("processed");
    let ids: Vec<_> = log(&world).iter().map(|recorded| recorded.envelope.event_id).collect();
    assert_eq!(ids.len(), 2, "the memory is bounded");
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_under_one_identity_and_then_under_the_other_is_recorded_once() {
    let phone = by_phone("15550100042");
    let id = apart_from(&phone);
    let by_id = format!(r#""from_user_id":"{id}""#);
    let (phone, bsuid) = ((PHONE, phone), (by_id.as_str(), by_bsuid(&id)));
    for [(first, first_stream), (second, second_stream)] in [[phone.clone(), bsuid.clone()], [bsuid, phone]] {
        let world = scene(SimWorld::new(10)).await;
        deliver(&world, &text("A", first)).await;
        process(&world).await.expect("processed");
        world.restart();
        deliver(&world, &text("A", second)).await;
        deliver(&world, &text("B", second)).await;
        process(&world).await.expect("processed");
        let mut expected = [(first_stream, "wamid.A".to_owned()), (second_stream, "wamid.B".to_owned())];
        let mut received = received(&world);
        expected.sort();
        received.sort();
        assert_eq!(received, expected, "nothing says yet that the two are one person");
    }
}

/// The two identities of a person are known to be one, and their streams lie in different partitions.
#[tokio::test(start_paused = true)]
async fn a_message_under_both_identities_of_a_known_person_at_the_same_moment_is_recorded_once() {
    let phone = by_phone("15550100042");
    let id = apart_from(&phone);
    let bsuid = by_bsuid(&id);
    let by_id = format!(r#""from_user_id":"{id}""#);
    for seed in 0..30 {
        let world = scene(SimWorld::new(seed)).await;
        let number = Some(NUMBER.into());
        let continues =
            Conversation { phone_number_id: number.clone(), aliases: vec![bsuid.clone()], ..Conversation::default() };
        known(&world, &phone, &continues).await;
        let alias = Conversation { phone_number_id: number, canonical: Some(phone.clone()), ..Conversation::default() };
        known(&world, &bsuid, &alias).await;
        for n in 0..10 {
            let mut both = [PHONE, &by_id];
            both.rotate_left(n % 2);
            for who in both {
                deliver(&world, &text(&n.to_string(), who)).await;
            }
        }
        let crashes = Noise { crash_before: 10, crash_after: 10, fail_before: 20, fail_after: 20, ..Noise::default() };
        let world = if seed % 3 == 2 { world.with(Plan::noisy(crashes)) } else { world };
        let instances: &[&str] = if seed % 2 == 0 { &["one", "two"] } else { &["one"] };
        process_with_many(&world, &Config::default(), instances).await.expect("processed");
        let mut received = received(&world);
        received.sort();
        let expected: Vec<_> = (0..10).map(|n| (phone.clone(), format!("wamid.{n}"))).collect();
        assert_eq!(received, expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn links_in_a_circle_neither_loop_nor_lose() {
    let world = scene(SimWorld::new(11)).await;
    let phone = by_phone("15550100042");
    let id = apart_from(&phone);
    let bsuid = by_bsuid(&id);
    // Both were linked to each other at the same moment.
    for (stream, other) in [(&phone, &bsuid), (&bsuid, &phone)] {
        let linked = Conversation {
            phone_number_id: Some(NUMBER.into()),
            canonical: Some(other.clone()),
            aliases: vec![other.clone()],
            ..Conversation::default()
        };
        known(&world, stream, &linked).await;
    }
    let both = format!(r#"{PHONE},"from_user_id":"{id}""#);
    for (n, who) in [PHONE, &format!(r#""from_user_id":"{id}""#), &both].into_iter().enumerate() {
        for _ in 0..2 {
            deliver(&world, &text(&n.to_string(), who)).await;
        }
    }
    process(&world).await.expect("processed");
    let least = phone.clone().min(bsuid.clone());
    let mut received = received(&world);
    received.sort();
    let expected: Vec<_> = (0..3).map(|n| (least.clone(), format!("wamid.{n}"))).collect();
    assert_eq!(received, expected);
    assert_eq!(of_items(&log(&world)).len(), log(&world).len(), "no further links: {:?}", log(&world));
}

#[tokio::test(start_paused = true)]
async fn two_conversations_with_a_history_each_are_linked_and_both_histories_stay_in_order() {
    let world = scene(SimWorld::new(12)).await;
    let phone = by_phone("15550100042");
    let id = apart_from(&phone);
    let bsuid = by_bsuid(&id);
    let by_id = format!(r#""from_user_id":"{id}""#);
    for n in 0..3 {
        deliver(&world, &text(&format!("p{n}"), PHONE)).await;
        deliver(&world, &text(&format!("u{n}"), &by_id)).await;
    }
    process(&world).await.expect("processed");
    // What the tracker made of that.
    for stream in [&phone, &bsuid] {
        let conversation = Conversation { phone_number_id: Some(NUMBER.into()), ..Conversation::default() };
        known(&world, stream, &conversation).await;
    }
    world.restart();
    deliver(&world, &text("both", &format!(r#"{PHONE},{by_id}"#))).await;
    process(&world).await.expect("processed");
    let log_of = |name: &str| -> Vec<StreamId> {
        let of_type = log(&world).into_iter().filter(|recorded| recorded.event.type_name() == name);
        of_type.map(|recorded| recorded.envelope.stream_id).collect()
    };
    assert_eq!(log_of("ConversationLinked"), std::slice::from_ref(&bsuid));
    assert_eq!(log_of("IdentityLearned"), std::slice::from_ref(&phone));
    known(&world, &bsuid, &Conversation { canonical: Some(phone.clone()), ..Conversation::default() }).await;
    world.restart();
    for (n, who) in [&by_id, PHONE, &by_id].into_iter().enumerate() {
        deliver(&world, &text(&format!("x{n}"), who)).await;
        process(&world).await.expect("processed");
        world.restart();
    }

    let of = |stream: &StreamId| -> Vec<String> {
        received(&world).into_iter().filter(|(at, _)| at == stream).map(|(_, wamid)| wamid).collect()
    };
    let expected = ["p0", "p1", "p2", "both", "x0", "x1", "x2"].map(|name| format!("wamid.{name}"));
    assert_eq!(of(&phone), expected, "it continues here");
    assert_eq!(of(&bsuid), ["wamid.u0", "wamid.u1", "wamid.u2"], "what stood here stays");
}
