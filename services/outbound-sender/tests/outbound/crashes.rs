//! Crashes, failures and rebalances at every call of a port, with answers that get lost: nothing is lost, nothing is sent twice,
//! nothing is out of order.

use std::collections::BTreeSet;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{SendMessage, SendPolicy};
use connector_domain::event::Event;
use connector_domain::outcome::{GraphError, Transport};
use connector_simulated::{Fault, Noise, Plan, Reaction, Weather, When};

use crate::scene::{Scene, of, text, types};

/// Two conversations, one command that is refused, one published twice.
fn commands() -> Vec<SendMessage> {
    let mut commands: Vec<_> = (0..5).map(|i| text(&format!("{i}"), 1 + i % 2)).collect();
    let mut nowhere = text("nowhere", 3);
    nowhere.phone_number_id = "42".into();
    commands.push(nowhere);
    commands
}

/// What must be true of every run.
fn check(scene: &Scene, commands: &[SendMessage], context: &str) {
    let events = scene.events();
    let ids: Vec<_> = events.iter().map(|recorded| recorded.envelope.event_id).collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{context}: an event stands twice: {:?}", types(&events));
    let accepted = scene.accepted_posts();
    for command in commands {
        let text = command.content.text.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default();
        let story = of(&events, command.command_id);
        let count = |wanted: fn(&Event) -> bool| story.iter().filter(|recorded| wanted(&recorded.event)).count();
        let told = types(&story);
        let first = count(|e| matches!(e, Event::MessageAccepted(_) | Event::MessageRejected(_)));
        assert_eq!(first, 1, "{context}: {text} has one first answer: {told:?}");
        let rejected = count(|e| matches!(e, Event::MessageRejected(_))) == 1;
        let sent = count(|e| matches!(e, Event::MessageSent(_)));
        let failed = count(|e| matches!(e, Event::MessageFailed(_)));
        let unconfirmed = count(|e| matches!(e, Event::MessageUnconfirmed(_)));
        let posts = accepted.get(&text).copied().unwrap_or(0);
        match command.policy {
            _ if rejected => assert_eq!((sent, failed, unconfirmed, posts), (0, 0, 0, 0), "{context}: {text}"),
            SendPolicy::AtMostOnce => {
                assert_eq!(sent + failed + unconfirmed, 1, "{context}: {text} ends once: {told:?}");
                assert!(posts <= 1, "{context}: {text} was sent {posts} times: {told:?}");
                assert!(sent == 0 || posts == 1, "{context}: {text} was not sent: {told:?}");
                assert!(failed == 0 || posts == 0, "{context}: {text} did not fail: {told:?}");
            }
            SendPolicy::AtLeastOnce => {
                assert!(sent + failed <= 1 && sent + failed + unconfirmed >= 1, "{context}: {text}: {told:?}");
                assert!(posts <= 2 && (posts <= 1 || unconfirmed > 0), "{context}: {text}: {posts}, {told:?}");
            }
        }
    }
    for (attempt, posts) in scene.world.whatsapp_side().posts_per_attempt() {
        assert_eq!(posts, 1, "{context}: attempt {attempt} was posted {posts} times");
    }
    for n in 1..=2 {
        let taken: Vec<_> = (scene.posts().into_iter())
            .filter_map(|(text, _)| text.parse::<usize>().ok())
            .filter(|i| 1 + i % 2 == n)
            .collect();
        assert!(taken.is_sorted(), "{context}: conversation {n} is out of order: {taken:?}");
    }
    let queued = scene.world.history(&Topic::Dispatch.name("").into()).len();
    let accepted = events.iter().filter(|r| matches!(r.event, Event::MessageAccepted(_))).count();
    assert_eq!(queued, accepted, "{context}: what is accepted is queued once");
}

async fn run(seed: u64, plan: Plan, weather: &Weather, policy: SendPolicy, context: &str) -> u64 {
    let mut scene = Scene::new(seed).await.plan(plan);
    // Every third world has two workers, which take partitions from each other.
    scene.instances = if seed % 3 == 2 { 2 } else { 1 };
    scene.rules.unconfirmed_wait = Duration::from_secs(20);
    scene.world.whatsapp_side().set_weather(weather.clone());
    let commands: Vec<_> = commands().into_iter().map(|command| SendMessage { policy, ..command }).collect();
    scene.publish(&commands).await;
    // Its publisher is not sure and, a moment later, says it again.
    let again = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        scene.publish(&commands[..1]).await;
    };
    let (run, ()) = tokio::join!(scene.run_to_the_end(&commands), again);
    check(&scene, &commands, context);
    run.points
}

fn storm() -> Weather {
    let overloaded = GraphError { code: 131_016, subcode: None };
    Weather(vec![
        (80, Reaction::AcceptThenDrop(Transport::Timeout)),
        (80, Reaction::LostOnTheWay(Transport::Reset)),
        (80, Reaction::AcceptUnreadably(502)),
        (80, Reaction::NoConnection),
        (80, Reaction::Refuse(400, overloaded)),
        (40, Reaction::Refuse(400, GraphError { code: 131_026, subcode: None })),
    ])
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_at_whatever_call_each_command_ends_once_and_leaves_once() {
    let calm = Weather::default();
    let points = run(1, Plan::default(), &calm, SendPolicy::AtMostOnce, "calm").await;
    assert!(points > 50, "the scenario makes calls: {points}");
    let faults = [
        Fault::Crash(When::Before),
        Fault::Crash(When::After),
        Fault::Fail(When::Before),
        Fault::Fail(When::After),
        Fault::Rebalance,
    ];
    for point in 0..points {
        for fault in faults {
            let context = format!("{fault:?} at {point}");
            run(1, Plan::one(point, fault), &calm, SendPolicy::AtMostOnce, &context).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_bad_weather_with_faults_everywhere_the_policies_hold() {
    let noise = Noise { crash_before: 4, crash_after: 4, fail_before: 8, fail_after: 8, rebalance: 4, wipe_gate: 0 };
    for seed in 0..60 {
        for policy in [SendPolicy::AtMostOnce, SendPolicy::AtLeastOnce] {
            let context = format!("seed {seed}, {policy:?}");
            run(seed, Plan::noisy(noise), &storm(), policy, &context).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_answer_is_on_its_way_leaves_the_message_unconfirmed() {
    let scene = Scene::new(3).await;
    let command = text("a", 1);
    scene.publish(std::slice::from_ref(&command)).await;
    let world = scene.world.clone();
    let done = async |running: connector_simulated::SimWorld| {
        while running.whatsapp_side().posts().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The POST has arrived and its answer has not: the next call is the last one.
        world.crash_at(running.points(), When::Before);
        crate::scene::ended(&running, std::slice::from_ref(&command)).await;
    };
    let run = scene.run(done).await;
    assert_eq!(run.starts, 2);
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageUnconfirmed"]);
    assert_eq!(scene.posts().len(), 1);
}
