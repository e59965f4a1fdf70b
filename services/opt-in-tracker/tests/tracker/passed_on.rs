//! A number that WhatsApp gave to somebody else: entries and consent stay with the person they were made for.

use connector_contracts::Topic;
use connector_domain::command::{ConsentAction, DirectoryKind, DirectoryRecord};
use connector_domain::consent::ConsentStatus;
use connector_domain::event::{ContactAdded, Event, IdentityPassedOn, IdentityTakenOver, Recorded};
use connector_domain::ids::StreamId;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_simulated::{Fault, Plan, SimWorld, When};

use crate::scene::{
    LIMIT, address, append, command, command_in, consent, conversation, directory, event_in, history, platform, play,
    prepared, record, service, until, until_some, world,
};

async fn put(world: &SimWorld, entry: &DirectoryRecord) {
    let key = entry.key().expect("a key");
    append(world, vec![record(world, Topic::Directory, &key, entry)]).await;
}

fn successor(world: &SimWorld) -> StreamId {
    platform(world).keys.successor(&conversation(world), Timestamp::EPOCH)
}

/// The contact's number is somebody else's from now on.
async fn passed_on(world: &SimWorld) {
    let (identity, successor, since) = (conversation(world), successor(world), world.clock().now());
    let passed =
        IdentityPassedOn { identity: identity.clone(), address: address(), since, successor: successor.clone() };
    event_in(world, &identity, "passed on", None, passed).await;
    let taken = IdentityTakenOver { phone_number_id: "number".into(), identity, address: address(), since };
    event_in(world, &successor, "taken over", None, taken).await;
}

fn entry(contact: &str, name: &str) -> DirectoryRecord {
    DirectoryRecord { contact_id: Some(contact.into()), name: Some(name.into()), ..directory(DirectoryKind::Contact) }
}

/// The additions of an entry, in order.
fn added(world: &SimWorld, contact: &str) -> Vec<ContactAdded> {
    let of_entry = |recorded: Recorded| match recorded.event {
        Event::ContactAdded(added) if added.contact_id == contact.into() => Some(added),
        _ => None,
    };
    history(world).into_iter().filter_map(of_entry).collect()
}

async fn entries(world: SimWorld) {
    prepared(&world).await;
    passed_on(&world).await;
    put(&world, &entry("carol", "Carol")).await;
    put(&world, &entry("bob", "Bobby")).await;
    until(&world, "ContactAdded", 3).await;
}

fn check_entries(world: &SimWorld, plan: &Plan) {
    let (old, new) = (conversation(world), successor(world));
    let of = |contact| added(world, contact).into_iter().map(|added| added.conversation_id).collect::<Vec<_>>();
    assert_eq!(of("carol"), [new], "{plan:?}");
    assert_eq!(of("bob"), [old.clone(), old], "{plan:?}");
    assert!(!history(world).iter().any(|recorded| matches!(recorded.event, Event::ContactRemoved(_))), "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_stays_with_its_person_and_a_new_one_is_about_who_has_the_number_now() {
    check_entries(&play(entries).await, &Plan::default());
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_whatever_call_each_entry_leads_to_its_person() {
    let calm = world().await.run(LIMIT, service, entries).await.expect("finished");
    for point in 0..calm.points {
        let faults = [Fault::Crash(When::Before), Fault::WipeGate, Fault::Crash(When::After), Fault::Rebalance];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        let world = world().await.with(plan.clone());
        world.run(LIMIT, service, entries).await.unwrap_or_else(|run| panic!("{plan:?}: {run:?}"));
        check_entries(&world, &plan);
    }
}

#[tokio::test(start_paused = true)]
async fn a_consent_command_for_a_number_is_about_who_has_it_now() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        append(&world, vec![command(&world, "form", ConsentAction::Import, Some("signed form 7"))]).await;
        until(&world, "OptInAccepted", 1).await;
        passed_on(&world).await;
        // Of nobody's contacts yet.
        append(&world, vec![command(&world, "early", ConsentAction::Import, Some("signed form 8"))]).await;
        until(&world, "MessageRejected", 1).await;
        put(&world, &entry("carol", "Carol")).await;
        until(&world, "ContactAdded", 2).await;
        append(&world, vec![command(&world, "no", ConsentAction::Revoke, None)]).await;
        until_some(&world, |e| matches!(e.event, Event::ConsentRevoked(_))).await;
        // By its id, it is still the first one's.
        let by_id = command_in(&world, "asked", &conversation(&world), ConsentAction::RequestOptIn);
        append(&world, vec![by_id]).await;
        until(&world, "MessageRejected", 2).await;
    })
    .await;
    let stream_of = |what: &str| -> Vec<StreamId> {
        let of_type = history(&world).into_iter().filter(|recorded| recorded.envelope.event_type == what);
        of_type.map(|recorded| recorded.envelope.stream_id).collect()
    };
    let (old, new) = (conversation(&world), successor(&world));
    assert_eq!(stream_of("ConsentRevoked"), std::slice::from_ref(&new));
    assert_eq!(stream_of("MessageRejected"), [new, old]);
    assert_eq!(consent(&world).status, ConsentStatus::Accepted, "the first one's consent is theirs");
}
