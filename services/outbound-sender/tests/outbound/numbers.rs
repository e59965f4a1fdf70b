//! Two business numbers in the same partitions: what one of them cannot send keeps nothing of the other one waiting.

use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{NumberSettings, NumberState, SendMessage};
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::event::Recorded;
use connector_domain::outcome::GraphError;
use connector_domain::template::Template;
use connector_runtime::situation::conversation_key;
use connector_simulated::{BEGINNING, Reaction, SimWorld, When};
use connector_testkit::wait::until;

use crate::scene::{
    NUMBER, SECOND, Scene, appears, conversation_of_second, ended, of, talking, text, text_of_second, types,
};
use crate::withdrawn::{call, template};

const CONTACTS: usize = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Messages per partition that may wait in memory.
const BUFFER: usize = 16;

fn refused() -> Reaction {
    // The token is not valid any more.
    Reaction::Refuse(400, GraphError { code: 190, subcode: None })
}

/// A backlog of the second number: many times what may be in memory.
fn backlog() -> Vec<SendMessage> {
    (0..400).map(|i| text_of_second(&format!("{i}"), i % 40)).collect()
}

async fn scene(seed: u64) -> Scene {
    let mut scene = Scene::new(seed).await;
    scene.config.buffer = BUFFER;
    scene.second(40).await;
    scene
}

/// Every message of the backlog was accepted by WhatsApp once, or is one of those that a crash left unconfirmed; each conversation in order.
fn check_backlog(scene: &Scene, backlog: &[SendMessage], crashes: usize) {
    let posts = scene.world.whatsapp_side().posts();
    let accepted = posts.iter().filter(|post| post.accepted && post.outbound.phone_number_id == SECOND.into());
    let numbers: Vec<usize> = accepted
        .filter_map(|post| post.outbound.content.text.as_ref().and_then(|text| text.expose().parse().ok()))
        .collect();
    let events = scene.events();
    let mut unconfirmed = 0;
    for (i, command) in backlog.iter().enumerate() {
        let posted = numbers.iter().filter(|number| **number == i).count();
        let told = types(&of(&events, command.command_id));
        match told.last().map(String::as_str) {
            Some("MessageSent") => assert_eq!(posted, 1, "{i}"),
            Some("MessageUnconfirmed") => unconfirmed += 1,
            _ => panic!("{i}: {told:?}"),
        }
        assert!(told.len() == 2 && posted <= 1, "{i}: {told:?}, {posted} posts");
    }
    assert!(unconfirmed <= crashes * scene.config.concurrency, "{unconfirmed} unconfirmed");
    for n in 0..40 {
        let own: Vec<_> = numbers.iter().filter(|i| **i % 40 == n).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
}

/// The probe of a paused number is told to slow down, and then its message must not leave any more. Whoever is next finds out.
#[tokio::test(start_paused = true)]
async fn a_probe_that_was_slowed_down_and_never_comes_again_keeps_no_one_waiting() {
    for stops in [true, false] {
        let scene = Scene::new(44).await;
        let whatsapp = scene.world.whatsapp_side();
        whatsapp.script(0, refused());
        whatsapp.script(1, Reaction::Refuse(400, GraphError { code: 130_429, subcode: None }));
        let mut probe = text("probe", 1);
        if !stops {
            // The pause takes 30 s.
            probe.not_after = Some(BEGINNING + Duration::from_secs(31));
        }
        let next = text("next", 2);
        scene.publish(std::slice::from_ref(&probe)).await;
        let beside = Scene::of(scene.world.clone());
        scene
            .run(async |world: SimWorld| {
                until("the probe is slowed down", WITHIN, async || (beside.posts().len() == 2).then_some(())).await;
                if stops {
                    let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
                    beside.converse(1, &Conversation { consent, ..talking() }).await;
                }
                beside.publish(std::slice::from_ref(&next)).await;
                ended(&world, &[probe.clone(), next.clone()]).await;
            })
            .await;
        assert_eq!(scene.story(&probe), ["MessageAccepted", "MessageFailed"]);
        assert_eq!(scene.story(&next), ["MessageAccepted", "MessageSent"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_number_with_a_backlog_keeps_no_other_one_waiting() {
    // In the second world the process crashes while the backlog waits, and again while it leaves.
    for crashes in [false, true] {
        let scene = scene(40).await;
        let whatsapp = scene.world.whatsapp_side();
        whatsapp.set_number(&SECOND.into(), Some(refused()));
        let backlog = backlog();
        scene.publish(&backlog).await;
        let flowing: Vec<_> = (0..60).map(|i| text(&format!("f{i}"), i % CONTACTS)).collect();
        let publisher = Scene::of(scene.world.clone());
        let crash = |world: &SimWorld| {
            if crashes {
                world.crash_at(world.points() + 5, When::After);
            }
        };
        let run = async |world: SimWorld| {
            appears(&world, |recorded| recorded.envelope.event_type == "NumberPaused").await;
            let mut most = 0;
            for (i, message) in flowing.iter().enumerate() {
                publisher.publish(std::slice::from_ref(message)).await;
                if i == 30 {
                    crash(&world);
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
                most = most.max(scene.gauge("consumer_records_in_hand"));
            }
            tokio::time::timeout(Duration::from_secs(60), ended(&world, &flowing)).await.expect("they flow");
            let sent = world.whatsapp_side().posts();
            let sent_from = |number: &str| {
                sent.iter().filter(|p| p.accepted && p.outbound.phone_number_id == number.into()).count()
            };
            assert_eq!(sent_from(SECOND), 0);
            // A crash leaves one unconfirmed at most: they come one by one.
            assert!(
                (flowing.len() - usize::from(crashes)..=flowing.len()).contains(&sent_from(NUMBER)),
                "{}",
                sent_from(NUMBER)
            );
            // Two partitions, and what comes back from work.
            assert!(most <= 2 * BUFFER + 8, "{most} in memory");
            assert!(scene.gauge("consumer_records_aside") >= 400 - 2 * BUFFER - 8, "the rest is aside");

            world.whatsapp_side().set_number(&SECOND.into(), None);
            while world.whatsapp_side().posts().iter().filter(|post| post.accepted).count() < flowing.len() + 50 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            crash(&world);
            ended(&world, &backlog).await;
        };
        scene.run(run).await;
        check_backlog(&scene, &backlog, 2 * usize::from(crashes));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_at_its_limit_keeps_no_other_number_waiting() {
    let mut scene = scene(41).await;
    (scene.config.number_rate, scene.config.number_burst) = (4, 1);
    let backlog = backlog();
    scene.publish(&backlog).await;
    let flowing: Vec<_> = (0..20).map(|i| text(&format!("f{i}"), i % CONTACTS)).collect();
    let publisher = Scene::of(scene.world.clone());
    let run = async |world: SimWorld| {
        while world.whatsapp_side().posts().len() < 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for message in &flowing {
            let before = tokio::time::Instant::now();
            publisher.publish(std::slice::from_ref(message)).await;
            let told = message.content.text.as_ref().expect("a text").expose().to_owned();
            while !publisher.posts().iter().any(|(text, _)| *text == told) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(before.elapsed() < Duration::from_millis(1500), "{told} waits");
            }
        }
        ended(&world, &backlog).await;
    };
    scene.run(run).await;
    check_backlog(&scene, &backlog, 0);
    let posts = scene.world.whatsapp_side().posts();
    let of_second: Vec<_> =
        posts.iter().filter(|p| p.outbound.phone_number_id == SECOND.into()).map(|p| p.at).collect();
    let took = of_second[399].since(of_second[0]);
    // 399 intervals of 250 ms are 100 s.
    assert!(took >= Duration::from_secs(99) && took < Duration::from_secs(115), "the limit is kept and used: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_number_whose_answers_are_slow_leaves_slots_to_another_one() {
    let scene = scene(42).await;
    scene.world.whatsapp_side().set_slow(&SECOND.into(), Duration::from_secs(20));
    let backlog: Vec<_> = backlog().into_iter().take(80).collect();
    scene.publish(&backlog).await;
    let flowing: Vec<_> = (0..20).map(|i| text(&format!("f{i}"), i % CONTACTS)).collect();
    let publisher = Scene::of(scene.world.clone());
    let run = async |world: SimWorld| {
        while world.whatsapp_side().posts().len() < 6 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for message in &flowing {
            let before = tokio::time::Instant::now();
            publisher.publish(std::slice::from_ref(message)).await;
            let told = |recorded: &Recorded| !of(std::slice::from_ref(recorded), message.command_id).is_empty();
            appears(&world, |recorded| recorded.envelope.event_type == "MessageSent" && told(recorded)).await;
            assert!(before.elapsed() < Duration::from_secs(1), "it waits for the slow one: {:?}", before.elapsed());
        }
        let of_second =
            world.whatsapp_side().posts().iter().filter(|p| p.outbound.phone_number_id == SECOND.into()).count();
        assert!(of_second < backlog.len(), "the slow one is still at it");
        ended(&world, &backlog).await;
    };
    scene.run(run).await;
    check_backlog(&scene, &backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_account_or_of_the_app_slows_all_numbers_it_reaches() {
    for (seed, code) in [(43, 80_007), (44, 4)] {
        let scene = scene(seed).await;
        let whatsapp = scene.world.whatsapp_side();
        whatsapp.set_number(&NUMBER.into(), Some(Reaction::Refuse(400, GraphError { code, subcode: None })));
        let first = text("first", 0);
        let publisher = Scene::of(scene.world.clone());
        let run = async |world: SimWorld| {
            publisher.publish(std::slice::from_ref(&first)).await;
            while world.whatsapp_side().posts().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let other = text_of_second("other", 0);
            let before = tokio::time::Instant::now();
            publisher.publish(std::slice::from_ref(&other)).await;
            let told = |recorded: &Recorded| !of(std::slice::from_ref(recorded), other.command_id).is_empty();
            appears(&world, |recorded| recorded.envelope.event_type == "MessageSent" && told(recorded)).await;
            assert!(before.elapsed() > Duration::from_secs(25), "{code}: it left after {:?}", before.elapsed());
            world.whatsapp_side().set_number(&NUMBER.into(), None);
            ended(&world, std::slice::from_ref(&first)).await;
        };
        scene.run(run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_not_there_for_the_token_is_paused_once_and_nothing_is_lost() {
    let scene = Scene::new(45).await;
    let gone = GraphError { code: 100, subcode: Some(33) };
    scene.world.whatsapp_side().set_number(&NUMBER.into(), Some(Reaction::Refuse(400, gone)));
    let queued: Vec<_> = (0..10).map(|i| text(&format!("{i}"), i)).collect();
    scene.publish(&queued).await;
    let run = async |world: SimWorld| {
        appears(&world, |recorded| recorded.envelope.event_type == "NumberPaused").await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        world.whatsapp_side().set_number(&NUMBER.into(), None);
        ended(&world, &queued).await;
    };
    scene.run(run).await;
    let events = scene.events();
    for command in &queued {
        assert_eq!(types(&of(&events, command.command_id)), ["MessageAccepted", "MessageSent"]);
    }
    let count = |wanted: &str| events.iter().filter(|recorded| recorded.envelope.event_type == wanted).count();
    assert_eq!((count("NumberPaused"), count("NumberResumed")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_number_leaves_as_fast_as_is_set_for_it_and_no_faster_than_whatsapp_takes() {
    let set = |rate: Option<i32>| NumberSettings { number_rate: rate, ..NumberSettings::default() };
    let standard = NumberState { throughput: Some("STANDARD".to_owned()), ..NumberState::default() };
    // 40 messages at 4 a second; at what the organization sets; at 1000 a second, which WhatsApp's 80 bound.
    for (seed, number, organization, state, least, most) in [
        (46, Some(4), None, None, 8, 11),
        (47, None, Some(4), None, 8, 11),
        (48, Some(8), Some(1), None, 3, 6),
        (49, None, None, Some(standard), 0, 2),
    ] {
        let mut scene = Scene::new(seed).await;
        scene.config.number_burst = 1;
        scene.second(40).await;
        scene.set(SECOND, set(number), set(organization), state).await;
        let backlog: Vec<_> = (0..40).map(|i| text_of_second(&format!("{i}"), i)).collect();
        scene.publish(&backlog).await;
        let run = async |world: SimWorld| ended(&world, &backlog).await;
        scene.run(run).await;
        let posts = scene.world.whatsapp_side().posts();
        let took = posts[39].at.since(posts[0].at);
        let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
        assert!(bounds.contains(&took), "{seed}: {took:?}");
        if seed == 49 {
            assert!(took >= Duration::from_millis(480), "39 intervals of 12.5 ms: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_people_are_written_to_first_than_whatsapp_reports_as_the_limit() {
    let scene = Scene::new(50).await;
    scene.second(6).await;
    let reminder = template("reminder", "UTILITY");
    scene.write(Topic::Templates, &Template::key(&reminder.waba_id, "reminder", "en"), &reminder).await;
    let state = NumberState { messaging_limit: Some("TIER_2".to_owned()), ..NumberState::default() };
    scene.set(SECOND, NumberSettings::default(), NumberSettings::default(), Some(state)).await;
    for n in 0..6 {
        // Accepted, and the last word is more than a day ago.
        let stream = conversation_of_second(n);
        let state = Conversation { phone_number_id: Some(SECOND.into()), deadline: None, ..talking() };
        scene.project(&stream, conversation_key(&stream), &state).await;
    }
    let first: Vec<_> = (0..3).map(|n| call("reminder", text_of_second(&format!("first {n}"), n))).collect();
    let again = call("reminder", text_of_second("again", 0));
    let publisher = Scene::of(scene.world.clone());
    scene.publish(&first).await;
    let run = async |world: SimWorld| {
        let sent = || world.whatsapp_side().posts().iter().filter(|post| post.accepted).count();
        while sent() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(sent(), 2, "the limit is two people");
        publisher.publish(std::slice::from_ref(&again)).await;
        while sent() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(world.whatsapp_side().posts().len(), 3, "who was written to is no new person");
    };
    scene.run(run).await;
}
