//! Consent and directory in the simulated world: whatever goes wrong at whatever call, each command has one answer, each fact is
//! announced once, and the views are the fold of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use connector_contracts::{Topic, Topics};
use connector_domain::command::{ConsentAction, DirectoryKind, DirectoryRecord};
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::directory::Enablement;
use connector_domain::event::{CallReceived, Event, Recorded};
use connector_domain::identity::Address;
use connector_runtime::handler::{Handler, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::situation::{Membership, conversation_key, enablement_key, load, membership_key};
use connector_simulated::{Fault, Noise, Plan, Run, SimWorld, When};
use connector_testkit::wait::{self, still};
use opt_in_tracker::Projector;

use crate::scene::{
    LIMIT, TOPICS, append, command, conversation, counts, directory, event, history, number, platform, play, prepared,
    record, service, until, user, view, world, write,
};

/// Whether the views are the fold of the log.
async fn settled(world: &SimWorld) -> bool {
    let (conversation, user) = (conversation(world), user(world));
    let (mut fold, mut enablement) = (Conversation::default(), Enablement::default());
    for Recorded { envelope, event } in history(world) {
        if envelope.stream_id == conversation {
            if fold.is_entered_by(&envelope.organization_id, &event) {
                fold.evolve(&event, envelope.event_id, envelope.occurred_at);
            }
        } else {
            enablement.evolve(&event);
        }
    }
    let stored = [
        view(world, &conversation, conversation_key(&conversation)).await,
        view(world, &user, enablement_key(&user)).await,
        view(world, &user, membership_key(&user, &conversation)).await,
    ];
    load::<Conversation>(stored[0].as_ref()).expect("ours") == fold
        && load::<Enablement>(stored[1].as_ref()).expect("ours") == enablement
        && load::<Membership>(stored[2].as_ref()).expect("ours").len() == 1
}

async fn story(world: SimWorld) {
    use ConsentAction::{AcknowledgeNotice, Import, RequestOptIn};
    let records = [number("acme", "number"), directory(DirectoryKind::Contact), directory(DirectoryKind::User)];
    let of = |r: &DirectoryRecord| record(&world, Topic::Directory, &r.key().expect("a key"), r);
    append(&world, records.iter().map(of).collect()).await;
    until(&world, "ContactAdded", 1).await;
    until(&world, "ActivationNoticeRaised", 1).await;

    let first = vec![
        command(&world, "notice", AcknowledgeNotice, None),
        command(&world, "notice again", AcknowledgeNotice, None),
        command(&world, "ask", RequestOptIn, None),
        command(&world, "ask", RequestOptIn, None),
        command(&world, "ask", Import, Some("another content under the same id")),
        command(&world, "ask", Import, Some("another content under the same id")),
        command(&world, "ask twice", RequestOptIn, None),
    ];
    append(&world, first).await;
    until(&world, "ActivationNoticeAcknowledged", 2).await;
    until(&world, "MessageRejected", 2).await;
    until(&world, "OptInExpired", 1).await;

    append(&world, vec![command(&world, "ask later", RequestOptIn, None)]).await;
    until(&world, "OptInRequested", 2).await;
    write(&world, "yes", Intent::Accept).await;
    write(&world, "stop", Intent::Stop).await;
    until(&world, "OptedOut", 1).await;
    // Longer than the memory of a broken run could hide something.
    still("what comes too often", Duration::from_secs(10), LIMIT, async || counts(&world)).await;
    wait::until("the views to be settled", LIMIT, async || settled(&world).await.then_some(())).await;
}

async fn run(plan: Plan) -> (SimWorld, Run) {
    let world = world().await.with(plan.clone());
    match world.run(LIMIT, service, story).await {
        Ok(run) => (world, run),
        Err(run) => panic!("not finished under {plan:?}: {run:?}, {:?}", counts(&world)),
    }
}

fn check(world: &SimWorld, plan: &Plan) {
    let expected = [
        ("ActivationNoticeAcknowledged", 2),
        ("ActivationNoticeRaised", 1),
        ("ContactAdded", 1),
        ("MessageReceived", 2),
        ("MessageRejected", 2),
        ("OptInAccepted", 1),
        ("OptInExpired", 1),
        ("OptInRequested", 2),
        ("OptedOut", 1),
        ("WhatsAppEnabled", 1),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, times)| (name.to_owned(), times)).into_iter().collect();
    assert_eq!(counts(world), expected, "{plan:?}");
    assert_eq!(world.history(&Topics::new("").name(Topic::SendCommands).into()).len(), 2, "opt-in messages, {plan:?}");
    for topic in TOPICS {
        assert!(world.history(&Topics::new("").dlq(topic).into()).is_empty(), "a dead letter, {plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_is_answered_once_and_every_answer_of_the_contact_is_announced_once() {
    let (world, _) = run(Plan::default()).await;
    check(&world, &Plan::default());
    let rejected = history(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MessageRejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    // Commands under different keys come in any order.
    assert_eq!(rejected.collect::<BTreeSet<_>>(), BTreeSet::from(["conflict", "opt_in_not_needed"].map(str::to_owned)));
    let stored = view(&world, &conversation(&world), conversation_key(&conversation(&world))).await;
    let fold: Conversation = load(stored.as_ref()).expect("ours");
    assert_eq!(fold.consent.status, ConsentStatus::OptedOut);
}

#[tokio::test(start_paused = true)]
async fn a_call_opens_the_window_of_the_view_and_answers_nothing() {
    let world = play(|world| async move {
        prepared(&world).await;
        append(&world, vec![command(&world, "ask", ConsentAction::RequestOptIn, None)]).await;
        until(&world, "OptInRequested", 1).await;
        let call = CallReceived {
            phone_number_id: "number".into(),
            call_id: "wacid".into(),
            address: Address::default(),
            window_deadline: platform(&world).clock.now() + platform(&world).rules.window,
        };
        event(&world, "call", None, call).await;
        while !settled(&world).await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let stored = view(&world, &conversation(&world), conversation_key(&conversation(&world))).await;
    let fold: Conversation = load(stored.as_ref()).expect("ours");
    let deadline = history(&world).into_iter().find_map(|recorded| match recorded.event {
        Event::CallReceived(call) => Some(call.window_deadline),
        _ => None,
    });
    assert!(deadline.is_some() && fold.deadline == deadline, "{:?}", fold.deadline);
    assert_eq!(fold.consent.status, ConsentStatus::Requested);
    let counts = counts(&world);
    assert!(!counts.keys().any(|name| ["OptInAccepted", "OptInDeclined", "OptInFailed"].contains(&name.as_str())));
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_in_the_view_before_its_announcement_is_read_back() {
    let world = world().await;
    let platform = platform(&world);
    let stream = conversation(&world);
    write(&world, "stop", Intent::Stop).await;
    let record = world.history(&platform.topic(Topic::ConversationEvents)).remove(0);
    let (source, next) = (record.source.clone(), record.offset.next());
    let mut projector = Projector::new(&platform, Duration::from_secs(1));
    assert_eq!(projector.assigned(&source, None).await.expect("assigned"), TakeUp::Beginning);
    let steps = projector.handle(&[Work { record, replay: false, round: 0 }]).await.expect("handled");
    assert!(matches!(&steps[..], [Step::Done(appends)] if appends.len() == 1), "one announcement");
    assert_eq!(view(&world, &stream, conversation_key(&stream)).await, None, "nothing stands before the commit");
    projector.committed(&[], &[(source, next)]).await.expect("committed");
    let stored = view(&world, &stream, conversation_key(&stream)).await;
    let fold: Conversation = load(stored.as_ref()).expect("ours");
    assert_eq!(fold.consent.status, ConsentStatus::OptedOut);
}

#[tokio::test(start_paused = true)]
async fn whatever_call_the_process_dies_at_everything_is_said_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        let when = if point % 2 == 0 { When::Before } else { When::After };
        let plan = Plan::one(point, Fault::Crash(when));
        check(&run(plan.clone()).await.0, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_or_meets_a_wiped_gate_everything_is_said_once() {
    let points = run(Plan::default()).await.1.points;
    for point in 0..points {
        let faults = [
            Fault::Fail(When::Before),
            Fault::WipeGate,
            Fault::Fail(When::After),
            Fault::Rebalance,
            Fault::RollBackGate { to: point / 2 },
        ];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        check(&run(plan.clone()).await.0, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn a_noisy_world_heals() {
    let noise = Noise { crash_before: 1, crash_after: 1, fail_before: 5, fail_after: 5, rebalance: 2, wipe_gate: 2 };
    let plan = Plan::noisy(noise);
    check(&run(plan.clone()).await.0, &plan);
}
