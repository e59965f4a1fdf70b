//! Crashes, failures and rebalances at every call of a port, with answers that get lost: nothing is lost, nothing is sent twice,
//! nothing is out of order.

use std::collections::BTreeSet;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{SendMessage, SendPolicy};
use connector_domain::event::Event;
use connector_domain::outcome::{GraphError, Transport};
use connector_simulated::{Fault, Noise, Plan, Reaction, Weather, When};

use crate::mutations::Mutation;
use crate::scene::{Scene, ended, of, text, types};

/// Two conversations, one command that is refused, one published twice.
fn commands(messages: usize) -> Vec<SendMessage> {
    let mut commands: Vec<_> = (0..messages).map(|i| text(&format!("{i}"), 1 + i % 2)).collect();
    let mut nowhere = text("nowhere", 3);
    nowhere.phone_number_id = "42".into();
    commands.push(nowhere);
    commands
}

/// In which conversation a command of [`commands`] is.
fn conversation_of(text: &str) -> Option<usize> {
    text.parse::<usize>().ok().map(|i| 1 + i % 2)
}

/// What must be true of every run and is not.
fn violations(scene: &Scene, commands: &[SendMessage]) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    let events = scene.events();
    let ids: Vec<_> = events.iter().map(|recorded| recorded.envelope.event_id).collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    must(unique.len() == ids.len(), format!("an event stands twice: {:?}", types(&events)));
    let accepted = scene.accepted_posts();
    for command in commands {
        let text = command.content.text.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default();
        let story = of(&events, command.command_id);
        let count = |wanted: fn(&Event) -> bool| story.iter().filter(|recorded| wanted(&recorded.event)).count();
        let told = types(&story);
        let first = count(|e| matches!(e, Event::MessageAccepted(_) | Event::MessageRejected(_)));
        let rejected = count(|e| matches!(e, Event::MessageRejected(_))) == 1;
        let sent = count(|e| matches!(e, Event::MessageSent(_)));
        let failed = count(|e| matches!(e, Event::MessageFailed(_)));
        let unconfirmed = count(|e| matches!(e, Event::MessageUnconfirmed(_)));
        let posts = accepted.get(&text).copied().unwrap_or(0);
        let told = format!("{text}: {told:?}, posted {posts} times");
        must(first == 1, format!("not one first answer: {told}"));
        match command.policy {
            _ if rejected => must((sent, failed, unconfirmed, posts) == (0, 0, 0, 0), format!("rejected: {told}")),
            SendPolicy::AtMostOnce => {
                must(sent + failed + unconfirmed == 1, format!("does not end once: {told}"));
                must(posts <= 1, format!("sent twice: {told}"));
                must(sent == 0 || posts == 1, format!("not sent: {told}"));
                must(failed == 0 || posts == 0, format!("did not fail: {told}"));
            }
            SendPolicy::AtLeastOnce => {
                must(sent + failed <= 1 && sent + failed + unconfirmed >= 1, format!("does not end: {told}"));
                must(posts <= 2 && (posts <= 1 || unconfirmed > 0), format!("sent again: {told}"));
            }
        }
    }
    for (attempt, posts) in scene.world.whatsapp_side().posts_per_attempt() {
        must(posts == 1, format!("attempt {attempt} was posted {posts} times"));
    }
    for n in 1..=2 {
        let texts = scene.posts().into_iter().map(|(text, _)| text);
        let of_conversation = texts.filter(|text| conversation_of(text) == Some(n));
        let taken: Vec<usize> = of_conversation.filter_map(|text| text.parse().ok()).collect();
        must(taken.is_sorted(), format!("conversation {n} is out of order: {taken:?}"));
    }
    let queued = scene.world.history(&Topic::Dispatch.name("").into()).len();
    let accepted = events.iter().filter(|r| matches!(r.event, Event::MessageAccepted(_))).count();
    must(queued == accepted, format!("{accepted} accepted, {queued} queued"));
    found
}

/// One world, and what happens in it.
struct Case {
    seed: u64,
    plan: Plan,
    weather: Weather,
    policy: SendPolicy,
    instances: usize,
    messages: usize,
    mutation: Option<Mutation>,
    /// The group takes all partitions away and gives them out again, a second after this point was passed.
    moves_after: Option<u64>,
}

impl Case {
    fn new(seed: u64, plan: Plan) -> Self {
        // Every third world has two workers, which take partitions from each other.
        let instances = if seed % 3 == 2 { 2 } else { 1 };
        let (weather, policy) = (Weather::default(), SendPolicy::AtMostOnce);
        Self { seed, plan, weather, policy, instances, messages: 5, mutation: None, moves_after: None }
    }

    async fn play(self) -> (u64, Vec<String>) {
        let mut scene = Scene::new(self.seed).await.plan(self.plan);
        scene.instances = self.instances;
        scene.mutation = self.mutation;
        scene.rules.unconfirmed_wait = Duration::from_secs(20);
        scene.world.whatsapp_side().set_weather(self.weather);
        let policy = self.policy;
        let commands: Vec<_> =
            commands(self.messages).into_iter().map(|command| SendMessage { policy, ..command }).collect();
        scene.publish(&commands).await;
        // Its publisher is not sure and, a moment later, says it again.
        let again = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            scene.publish(&commands[..1]).await;
        };
        // Two of three statuses arrive.
        let statuses = scene.statuses(conversation_of, |at| !(at as u64 + self.seed).is_multiple_of(3));
        let end = scene.try_run(async |world| ended(&world, &commands).await);
        let played = async { tokio::join!(end, again).0 };
        let moves = async {
            if let Some(point) = self.moves_after {
                while scene.world.points() <= point {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                scene.world.rebalance();
            }
            std::future::pending::<()>().await
        };
        let run = tokio::select! {
            run = played => run,
            () = statuses => unreachable!("statuses never end"),
            () = moves => unreachable!("it moves and waits"),
        };
        let mut violations = violations(&scene, &commands);
        let points = run.map(|run| run.points).map_err(|why| violations.push(why)).unwrap_or(0);
        (points, violations)
    }

    /// The points that were passed. Nothing may be violated.
    async fn holds(self) -> u64 {
        let context = format!("seed {}, {:?}, {:?}", self.seed, self.plan, self.policy);
        let (points, violations) = self.play().await;
        assert_eq!(violations, Vec::<String>::new(), "{context}");
        points
    }
}

/// How many worlds are played: `SEEDS=5000` by hand, few in every run of the tests.
fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(24)
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

const FAULTS: [Fault; 5] = [
    Fault::Crash(When::Before),
    Fault::Crash(When::After),
    Fault::Fail(When::Before),
    Fault::Fail(When::After),
    Fault::Rebalance,
];

#[tokio::test(start_paused = true)]
async fn whatever_happens_at_whatever_call_each_command_ends_once_and_leaves_once() {
    let points = Case::new(1, Plan::default()).holds().await;
    assert!(points > 50, "the scenario makes calls: {points}");
    for point in 0..points {
        for fault in FAULTS {
            Case::new(1, Plan::one(point, fault)).holds().await;
        }
        // With a second worker a lost partition goes to somebody else.
        Case::new(2, Plan::one(point, Fault::Rebalance)).holds().await;
    }
}

/// What runs meanwhile is neither aborted nor waited for when partitions are lost and come back to the same process.
#[tokio::test(start_paused = true)]
async fn whatever_call_takes_long_while_partitions_come_and_go_each_command_leaves_once() {
    let points = Case::new(1, Plan::default()).holds().await;
    for point in 0..points {
        let plan = Plan::one(point, Fault::Slow(Duration::from_secs(3)));
        Case { moves_after: Some(point), ..Case::new(1, plan) }.holds().await;
    }
}

/// The second fault often hits the recovery from the first. All pairs are played when there are seeds enough (`SEEDS=10000`: seven minutes),
/// else some of them, evenly spread.
#[tokio::test(start_paused = true)]
async fn whatever_happens_at_whatever_two_calls_each_command_ends_once_and_leaves_once() {
    let points = Case::new(1, Plan::default()).holds().await;
    let faults = FAULTS.len() as u64;
    // The second point may be one that only the recovery passes.
    let (firsts, seconds) = (points * faults, (points + points / 2) * faults);
    let pairs = firsts * seconds / 2;
    let step = (pairs / (seeds() * 20)).max(1);
    let fault = |at: u64| usize::try_from(at % faults).map(|at| FAULTS[at]).expect("a small number");
    let (mut number, mut next) = (0, step / 2);
    for first in 0..firsts {
        for second in 0..seconds {
            if second / faults <= first / faults {
                continue;
            }
            if number == next {
                next += step;
                let plan = Plan::two((first / faults, fault(first)), (second / faults, fault(second)));
                // Every other pair with a second worker, which takes over and gives back.
                Case::new(1 + (next / step) % 2, plan).holds().await;
            }
            number += 1;
        }
    }
    assert!(next > step, "pairs were played");
}

fn noise() -> Noise {
    Noise { crash_before: 4, crash_after: 4, fail_before: 8, fail_after: 8, rebalance: 4, wipe_gate: 0 }
}

#[tokio::test(start_paused = true)]
async fn in_bad_weather_with_faults_everywhere_the_policies_hold() {
    for seed in 0..seeds() {
        for policy in [SendPolicy::AtMostOnce, SendPolicy::AtLeastOnce] {
            Case { weather: storm(), policy, ..Case::new(seed, Plan::noisy(noise())) }.holds().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_written_down_after_it_was_made_is_made_twice() {
    let mut found = Vec::new();
    for point in (0..200).step_by(3) {
        let plan = Plan::one(point, Fault::Crash(When::Before));
        let case = Case { mutation: Some(Mutation::JournalAfterSend), ..Case::new(1, plan) };
        found.extend(case.play().await.1);
    }
    assert!(found.iter().any(|violation| violation.starts_with("sent twice")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_tries_again_after_a_server_error_sends_twice() {
    let mut found = Vec::new();
    for seed in 0..10 {
        let weather = Weather(vec![(300, Reaction::AcceptUnreadably(502))]);
        let mutation = Some(Mutation::RetryOnServerErrors);
        found.extend(Case { weather, mutation, ..Case::new(seed, Plan::default()) }.play().await.1);
    }
    assert!(found.iter().any(|violation| violation.starts_with("sent twice")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_a_partition_and_is_not_fenced_is_found_out() {
    // With the fence nothing is found.
    for point in (20..110).step_by(6) {
        Case { instances: 2, messages: 60, ..Case::new(1, Plan::one(point, Fault::Rebalance)) }.holds().await;
    }
    let mut found = Vec::new();
    for point in (190..250).step_by(6) {
        let plan = Plan::one(point, Fault::Rebalance);
        // Enough messages that the former owner still sends when the new one, which waits for its transaction, begins.
        let case = |mutation| Case { instances: 2, messages: 200, mutation, ..Case::new(1, plan.clone()) };
        found.extend(case(Some(Mutation::NoFencing)).play().await.1);
        case(None).holds().await;
    }
    assert!(found.iter().any(|violation| violation.starts_with("sent twice")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_loop_forgot_is_found_again() {
    let mut scene = Scene::new(1).await;
    scene.mutation = Some(Mutation::ForgottenAnswers);
    let commands = [text("a", 1), text("b", 2)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    for command in &commands {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
    }
    assert_eq!(scene.posts().len(), 2);
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
