//! A contact's no under one identity counts under the others (P9, R10): what stands in a stream that is linked into another one.

use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::ConsentAction;
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::event::{
    CallReceived, ConsentRevoked, ConversationLinked, Event, IdentityLearned, MarketingPreferenceChanged,
    OptOutCarriedOver, Recorded,
};
use connector_domain::ids::{CommandId, StreamId};
use connector_runtime::situation::{conversation_key, load, partition_of};
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_testkit::wait;

use crate::scene::{
    LIMIT, PARTITIONS, address, append, command, command_in, consent, conversation, counts, event_in, history, number,
    platform, play, prepared, record, service, until, until_some, view, world, write,
};

/// A further identity of the contact, whose stream is in another partition.
fn alias(world: &SimWorld) -> StreamId {
    let home = partition_of(&conversation(world), PARTITIONS);
    let ids = (0..).map(|n| StreamId(format!("k1-alias-{n}")));
    ids.into_iter().find(|id| partition_of(id, PARTITIONS) != home).expect("there are enough")
}

async fn link(world: &SimWorld) {
    let (alias, canonical) = (alias(world), conversation(world));
    let learned = IdentityLearned { address: address(), alias: alias.clone() };
    event_in(world, &canonical, "learned", None, learned).await;
    event_in(world, &alias, "link", None, ConversationLinked { canonical }).await;
}

async fn import(world: &SimWorld) {
    append(world, vec![command(world, "form", ConsentAction::Import, Some("signed form 7"))]).await;
    until(world, "OptInAccepted", 1).await;
}

fn revoked() -> ConsentRevoked {
    ConsentRevoked { by: "operator".into() }
}

fn marketing() -> MarketingPreferenceChanged {
    MarketingPreferenceChanged { phone_number_id: "number".into(), stopped: true, raw: "{}".into() }
}

/// What was carried over.
fn carried(world: &SimWorld) -> Vec<Recorded> {
    history(world).into_iter().filter(|recorded| matches!(recorded.event, Event::OptOutCarriedOver(_))).collect()
}

/// Waits until the view has the no.
async fn closed(world: &SimWorld) {
    let stream = conversation(world);
    let closed = async || {
        let stored = view(world, &stream, conversation_key(&stream)).await;
        let fold: Conversation = load(stored.as_ref()).expect("ours");
        (fold.blocked() && fold.marketing_stopped).then_some(())
    };
    wait::until("the no in the view", LIMIT, closed).await;
}

async fn a_no_before_the_link(world: SimWorld) {
    prepared(&world).await;
    import(&world).await;
    event_in(&world, &alias(&world), "no", None, revoked()).await;
    event_in(&world, &alias(&world), "no marketing", None, marketing()).await;
    until(&world, "OptedOut", 1).await;
    link(&world).await;
    until(&world, "OptOutCarriedOver", 2).await;
    until(&world, "OptedOut", 2).await;
    // Longer than a broken run could hide a second one.
    wait::still("what is carried over", Duration::from_secs(10), LIMIT, async || carried(&world).len()).await;
    closed(&world).await;
}

fn check(world: &SimWorld, plan: &Plan) {
    let (alias, stream) = (alias(world), conversation(world));
    let told: Vec<_> = history(world).into_iter().filter(|e| e.envelope.stream_id == alias).collect();
    let moment = |what: &str| told.iter().find(|e| e.envelope.event_type == what).expect("it is there");
    let (no, marketing) = (moment("ConsentRevoked"), moment("MarketingPreferenceChanged"));
    let link = moment("ConversationLinked").envelope.event_id;
    let mut carried = carried(world);
    carried.sort_by_key(|recorded| recorded.envelope.cause_id.len());
    let event = |said: &Recorded, marketing_only| {
        Event::from(OptOutCarriedOver { alias: alias.clone(), since: said.envelope.occurred_at, marketing_only })
    };
    let events: Vec<_> = carried.iter().map(|recorded| recorded.event.clone()).collect();
    assert_eq!(events, [event(no, false), event(marketing, true)], "{plan:?}");
    assert!(carried.iter().all(|recorded| recorded.envelope.stream_id == stream), "{plan:?}");
    assert_eq!(carried[0].envelope.cause_id, link.to_string(), "{plan:?}");
    assert_eq!(counts(world)["OptedOut"], 2, "one for each stream, {plan:?}");
    assert_eq!(consent(world).status, ConsentStatus::OptedOut, "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_whatever_call_a_no_is_carried_over_once() {
    let calm = world().await;
    let run = calm.run(LIMIT, service, a_no_before_the_link).await.expect("finished");
    check(&calm, &Plan::default());
    for point in 0..run.points {
        let faults = [
            Fault::Crash(When::Before),
            Fault::WipeGate,
            Fault::Crash(When::After),
            Fault::Fail(When::After),
            Fault::Rebalance,
        ];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        let world = world().await.with(plan.clone());
        let run = world.run(LIMIT, service, a_no_before_the_link).await;
        run.unwrap_or_else(|run| panic!("{plan:?}: {run:?}, {:?}", counts(&world)));
        check(&world, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_that_comes_to_the_alias_after_the_link_is_carried_over_and_only_the_contact_undoes_it() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        import(&world).await;
        link(&world).await;
        event_in(&world, &alias(&world), "no", None, revoked()).await;
        until(&world, "OptOutCarriedOver", 1).await;
        until(&world, "OptedOut", 2).await;
        write(&world, "hello", Intent::Other).await;
        append(&world, vec![command(&world, "form again", ConsentAction::Import, Some("signed form 8"))]).await;
        let refused = until_some(&world, |recorded| matches!(recorded.event, Event::MessageRejected(_))).await;
        assert!(matches!(refused.event, Event::MessageRejected(rejected) if rejected.reason == "opted_out"));
        write(&world, "start", Intent::Start).await;
        until(&world, "OptedBackIn", 1).await;
        // What stands in the alias does not close it again.
        append(&world, vec![command(&world, "ask", ConsentAction::RequestOptIn, None)]).await;
        until(&world, "MessageRejected", 2).await;
    })
    .await;
    let reasons = history(&world).into_iter().filter_map(|recorded| match recorded.event {
        Event::MessageRejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    assert_eq!(reasons.collect::<Vec<_>>(), ["opted_out", "opt_in_not_needed"]);
    assert_eq!(consent(&world).status, ConsentStatus::Accepted);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_whose_no_stands_under_another_identity_only() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        event_in(&world, &alias(&world), "no", None, revoked()).await;
        until(&world, "OptedOut", 1).await;
        // The other stream is not linked yet, so nothing is carried over: the conversation itself knows of no no.
        let learned = IdentityLearned { address: address(), alias: alias(&world) };
        event_in(&world, &conversation(&world), "learned", None, learned).await;
        append(&world, vec![command(&world, "ask", ConsentAction::RequestOptIn, None)]).await;
        append(&world, vec![command(&world, "form", ConsentAction::Import, Some("signed form 7"))]).await;
        until(&world, "MessageRejected", 2).await;
        assert_eq!((carried(&world).len(), consent(&world).status), (0, ConsentStatus::None));
        let asked = counts(&world);
        assert!(!asked.contains_key("OptInRequested") && !asked.contains_key("ConsentImported"), "{asked:?}");
    })
    .await;
}

/// A revocation for a stream: where its answer stands.
async fn revoke(world: &SimWorld, name: &str, stream: &StreamId) -> StreamId {
    append(world, vec![command_in(world, name, stream, ConsentAction::Revoke)]).await;
    let id = Some(CommandId::derived(name));
    let answer = |e: &Recorded| matches!(e.event, Event::ConsentRevoked(_)) && e.envelope.command_id == id;
    until_some(world, answer).await.envelope.stream_id
}

#[tokio::test(start_paused = true)]
async fn a_command_follows_links_to_their_end_and_a_circle_is_one_conversation() {
    play(async |world: SimWorld| {
        let owned = number("acme", "number");
        append(&world, vec![record(&world, Topic::Directory, &owned.key().expect("a key"), &owned)]).await;
        let all = || (0..).map(|n| StreamId(format!("k1-{n:032x}")));
        let of = |partition| all().filter(move |stream| partition_of(stream, PARTITIONS) == partition);
        let (here, there): (Vec<_>, Vec<_>) = (of(0).take(20).collect(), of(1).take(20).collect());
        let across: Vec<_> = here.iter().zip(&there).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
        // A chain and two circles in one partition, and the same over both.
        for (name, streams) in [("here", &here[10..]), ("across", &across[..10])] {
            for stream in streams {
                let call = CallReceived {
                    phone_number_id: "number".into(),
                    call_id: stream.as_str().into(),
                    address: address(),
                    window_deadline: platform(&world).clock.now(),
                };
                event_in(&world, stream, &format!("call {name} {stream}"), None, call).await;
            }
            let links = (0..6).map(|n| (n, n + 1)).chain([(7, 8), (8, 7), (9, 9)]);
            for (from, to) in links {
                let linked = ConversationLinked { canonical: streams[to].clone() };
                event_in(&world, &streams[from], &format!("link {name} {from}"), None, linked).await;
            }
            let least = 7 + usize::from(streams[8] < streams[7]);
            for (from, to) in [(0, 6), (1, 6), (5, 6), (6, 6), (7, least), (8, least), (9, 9)] {
                let place = revoke(&world, &format!("revoke {name} {from}"), &streams[from]).await;
                assert_eq!(place, streams[to], "{name} {from}");
            }
        }
    })
    .await;
}
