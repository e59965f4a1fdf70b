//! Dispatch: every way an attempt can end.

use std::time::Duration;

use connector_domain::command::{Content, ContentKind, SendPolicy};
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, MessageFailed};
use connector_domain::ids::AttemptId;
use connector_domain::outcome::{GraphError, Transport};
use connector_simulated::{BEGINNING, Reaction, SimWorld};

use crate::scene::{Scene, appears, conversation, ended, events, of, talking, text, types};

fn refuse(code: i64) -> Reaction {
    Reaction::Refuse(400, GraphError { code, subcode: None })
}

fn failure(scene: &Scene, command: &connector_domain::command::SendMessage) -> MessageFailed {
    let events = of(&scene.events(), command.command_id);
    let failed = events.iter().find_map(|recorded| match &recorded.event {
        Event::MessageFailed(failed) => Some(failed.clone()),
        _ => None,
    });
    failed.unwrap_or_else(|| panic!("it did not fail: {:?}", types(&events)))
}

async fn appears_of(world: &SimWorld, kind: &str) {
    appears(world, |recorded| recorded.envelope.event_type == kind).await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_conversation_leave_in_the_order_of_their_commands() {
    let scene = Scene::new(1).await;
    let commands: Vec<_> = (0..12).map(|i| text(&format!("{i:02}"), i % 2)).collect();
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    let posts = scene.posts();
    assert_eq!(posts.len(), 12);
    for n in 0..2 {
        let own: Vec<_> =
            posts.iter().map(|(text, _)| text.parse::<usize>().expect("a number")).filter(|i| i % 2 == n).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
    for command in &commands {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_definite_refusal_ends_the_message_with_its_code() {
    let scene = Scene::new(2).await;
    scene.world.whatsapp_side().script(0, refuse(131_026));
    let commands = [text("a", 1), text("b", 1)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    let failed = failure(&scene, &commands[0]);
    assert_eq!((failed.reason.as_str(), failed.error_code), ("permanent", Some(131_026)));
    assert_eq!(scene.story(&commands[1]), ["MessageAccepted", "MessageSent"]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_pair_waits_and_nobody_else_does() {
    let scene = Scene::new(3).await;
    for number in 0..3 {
        // Whoever comes first is conversation 1: the other one is published a little later.
        scene.world.whatsapp_side().script(number, refuse(131_056));
    }
    let (slow, fast) = (text("slow", 1), text("fast", 2));
    scene.publish(std::slice::from_ref(&slow)).await;
    let publisher = Scene::of(scene.world.clone());
    let both = [slow.clone(), fast.clone()];
    let run = async |world: SimWorld| {
        while publisher.posts().len() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        publisher.publish(&both[1..]).await;
        ended(&world, &both).await;
    };
    scene.run(run).await;
    let posts = scene.posts();
    let order: Vec<_> = posts.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(order, ["slow", "slow", "slow", "fast", "slow"]);
    let gaps: Vec<_> =
        [(0, 1), (1, 2), (2, 4)].map(|(a, b): (usize, usize)| posts[b].1.since(posts[a].1).as_secs()).into();
    assert!(gaps[0] >= 1 && gaps[1] >= 4 && gaps[2] >= 16, "4^n seconds: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_provably_never_left_is_made_again() {
    let scene = Scene::new(4).await;
    for number in 0..4 {
        scene.world.whatsapp_side().script(number, Reaction::NoConnection);
    }
    let command = text("a", 1);
    scene.publish(std::slice::from_ref(&command)).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_unconfirmed_and_never_followed_by_another_post() {
    for reaction in [
        Reaction::AcceptThenDrop(Transport::Timeout),
        Reaction::LostOnTheWay(Transport::Reset),
        Reaction::AcceptUnreadably(200),
        refuse(131_000),
    ] {
        let scene = Scene::new(5).await;
        scene.world.whatsapp_side().script(0, reaction);
        let commands = [text("a", 1), text("b", 1)];
        scene.publish(&commands).await;
        scene.run_to_the_end(&commands).await;
        assert_eq!(scene.story(&commands[0]), ["MessageAccepted", "MessageUnconfirmed"]);
        assert_eq!(scene.story(&commands[1]), ["MessageAccepted", "MessageSent"], "its lane goes on");
        assert!(scene.posts().iter().filter(|(text, _)| text == "a").count() <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn at_least_once_allows_one_more_attempt_after_the_waiting_time() {
    let scene = Scene::new(6).await;
    scene.world.whatsapp_side().script(0, Reaction::AcceptThenDrop(Transport::Timeout));
    scene.world.whatsapp_side().script(1, Reaction::AcceptThenDrop(Transport::Timeout));
    let mut command = text("a", 1);
    command.policy = SendPolicy::AtLeastOnce;
    let next = text("b", 1);
    scene.publish(&[command.clone(), next.clone()]).await;
    scene.run_to_the_end(std::slice::from_ref(&next)).await;
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageUnconfirmed", "MessageUnconfirmed"]);
    let posts = scene.posts();
    let order: Vec<_> = posts.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(order, ["a", "a", "b"], "what follows waits behind it");
    assert!(posts[1].1.since(posts[0].1) >= Duration::from_secs(15 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_settles_the_attempt_ends_the_wait() {
    let scene = Scene::new(7).await;
    scene.world.whatsapp_side().script(0, Reaction::AcceptThenDrop(Transport::Timeout));
    let mut command = text("a", 1);
    command.policy = SendPolicy::AtLeastOnce;
    let next = text("b", 1);
    scene.publish(&[command.clone(), next.clone()]).await;
    let tracker = Scene::of(scene.world.clone());
    let both = [command.clone(), next.clone()];
    let run = async |world: SimWorld| {
        appears_of(&world, "MessageUnconfirmed").await;
        let attempt: Vec<AttemptId> =
            world.whatsapp_side().posts().iter().map(|post| post.outbound.attempt_id).collect();
        tracker.settle(1, attempt[0]).await;
        ended(&world, &both).await;
    };
    scene.run(run).await;
    assert_eq!(scene.accepted_posts().get("a"), Some(&1));
    let posts = scene.posts();
    assert!(posts[1].1.since(posts[0].1) < Duration::from_secs(60), "the next one does not wait any longer");
}

#[tokio::test(start_paused = true)]
async fn a_code_that_may_hide_a_success_is_repeated_once_at_most() {
    let scene = Scene::new(8).await;
    for number in 0..9 {
        scene.world.whatsapp_side().script(number, refuse(131_000));
    }
    let mut command = text("a", 1);
    command.policy = SendPolicy::AtLeastOnce;
    scene.publish(std::slice::from_ref(&command)).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageUnconfirmed"]);
    assert_eq!(scene.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_number_with_a_configuration_problem_pauses_and_resumes_by_itself() {
    let scene = Scene::new(9).await;
    for number in 0..6 {
        scene.world.whatsapp_side().script(number, refuse(190));
    }
    let commands: Vec<_> = (0..4).map(|n| text(&format!("{n}"), n)).collect();
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    appears_of(&scene.world, "NumberResumed").await;
    let types = types(&scene.events());
    for kind in ["NumberPaused", "NumberResumed"] {
        assert_eq!(types.iter().filter(|found| *found == kind).count(), 1, "{types:?}");
    }
    for command in &commands {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
    }
    // Four were on their way when the pause began; after it one probe at a time, each after a longer pause.
    let posts = scene.posts();
    assert_eq!(posts.len(), 6 + 4);
    assert!(posts[4].1.since(posts[3].1) >= Duration::from_secs(29), "{posts:?}");
    assert!(posts[5].1.since(posts[4].1) >= Duration::from_secs(59), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_number_slows_down_and_loses_nothing() {
    let scene = Scene::new(10).await;
    for number in 0..5 {
        scene.world.whatsapp_side().script(number, refuse(130_429));
    }
    let commands: Vec<_> = (0..6).map(|n| text(&format!("{n}"), n)).collect();
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    for command in &commands {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_it_waits_is_not_sent() {
    let scene = Scene::new(11).await;
    for number in 0..3 {
        scene.world.whatsapp_side().script(number, refuse(131_056));
    }
    let mut command = text("a", 1);
    command.not_after = Some(BEGINNING + Duration::from_secs(10));
    scene.publish(std::slice::from_ref(&command)).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    let failed = failure(&scene, &command);
    assert_eq!((failed.reason.as_str(), failed.error_code), ("expired", None));
    assert!(failed.attempt_id.is_some());
    assert!(scene.accepted_posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stop_beats_everything_that_is_still_queued() {
    let scene = Scene::new(12).await;
    for number in 0..2 {
        scene.world.whatsapp_side().script(number, refuse(131_056));
    }
    let commands = [text("a", 1), text("b", 1)];
    scene.publish(&commands).await;
    let tracker = Scene::of(scene.world.clone());
    let both = commands.clone();
    let run = async |world: SimWorld| {
        while tracker.posts().len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
        tracker.converse(1, &Conversation { consent, ..talking() }).await;
        ended(&world, &both).await;
    };
    scene.run(run).await;
    for command in &commands {
        assert_eq!(failure(&scene, command).reason, "opted_out");
    }
    assert!(scene.accepted_posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn limits_of_pair_and_number_hold() {
    let mut scene = Scene::new(13).await;
    scene.config.pair_interval = Duration::from_secs(6);
    scene.config.pair_burst = 2;
    scene.config.number_rate = 2;
    scene.config.number_burst = 1;
    let mut commands: Vec<_> = (0..4).map(|i| text(&format!("same {i}"), 1)).collect();
    commands.extend((2..8).map(|n| text(&format!("other {n}"), n)));
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    let posts = scene.posts();
    assert_eq!(posts.len(), commands.len());
    // A POST needs 10 to 110 ms to arrive.
    let slack = Duration::from_millis(150);
    for two in posts.windows(2) {
        assert!(two[1].1.since(two[0].1) + slack >= Duration::from_millis(500), "{posts:?}");
    }
    let pair: Vec<_> = posts.iter().filter(|(text, _)| text.starts_with("same")).map(|(_, at)| *at).collect();
    assert!(pair[2].since(pair[0]) + slack >= Duration::from_secs(6), "{pair:?}");
    assert!(pair[3].since(pair[2]) + slack >= Duration::from_secs(6), "{pair:?}");
    let others = posts.iter().filter(|(text, _)| text.starts_with("other")).map(|(_, at)| *at).max();
    assert!(others < Some(pair[3]), "the pair that waits delays nobody");
}

#[tokio::test(start_paused = true)]
async fn a_receipt_needs_no_window_and_ends_without_an_id_of_a_message() {
    let scene = Scene::new(14).await;
    let closed = Conversation { deadline: Some(BEGINNING), ..talking() };
    scene.converse(1, &closed).await;
    let mut receipt = text("a", 1);
    receipt.content =
        Content { kind: ContentKind::Read, text: None, reply_to: Some("wamid.in".into()), ..receipt.content };
    let message = text("b", 1);
    scene.publish(&[receipt.clone(), message.clone()]).await;
    scene.run_to_the_end(&[receipt.clone(), message.clone()]).await;
    assert_eq!(scene.story(&receipt), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.story(&message), ["MessageRejected"], "text does need the window");
    assert_eq!(scene.world.whatsapp_side().posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_stands_in_the_stream_of_its_conversation_with_the_attempt_that_got_through() {
    let scene = Scene::new(15).await;
    let command = text("a", 1);
    scene.publish(std::slice::from_ref(&command)).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    let events = events(&scene.world);
    let sent = of(&events, command.command_id).pop().expect("its end");
    assert_eq!(sent.envelope.stream_id, conversation(1));
    let post = scene.world.whatsapp_side().posts().remove(0);
    let Event::MessageSent(sent) = sent.event else { panic!("it was sent") };
    assert_eq!((Some(sent.wamid), sent.attempt_id), (post.wamid, post.outbound.attempt_id));
}
