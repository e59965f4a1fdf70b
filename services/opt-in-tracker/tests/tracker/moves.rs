//! Users who get another number or leave, and contacts who change or go.

use std::time::Duration;

use connector_contracts::headers::dlq;
use connector_contracts::{Topic, Topics};
use connector_domain::command::{DirectoryKind, DirectoryRecord};
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber, StreamId};
use connector_ports::log::Append;
use connector_runtime::situation::{Membership, load, membership_key};
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_testkit::wait;

use crate::scene::{
    LIMIT, address, append, conversation, counts, directory, history, number, platform, play, prepared, record,
    service, until, user, view, world,
};

fn user_on(number: &str) -> DirectoryRecord {
    DirectoryRecord { phone_number_id: Some(number.into()), ..directory(DirectoryKind::User) }
}

async fn put(world: &SimWorld, entry: &DirectoryRecord) {
    let key = entry.key().expect("a key");
    append(world, vec![record(world, Topic::Directory, &key, entry)]).await;
}

async fn take_away(world: &SimWorld, entry: &DirectoryRecord) {
    let key = entry.key().expect("a key");
    let written = record(world, Topic::Directory, &key, entry);
    append(world, vec![Append { value: None, ..written }]).await;
}

fn conversation_from(world: &SimWorld, number: &str) -> StreamId {
    platform(world).keys.conversation(&number.into(), &address()).expect("an address")
}

/// Whether the person is among the user's contacts in the conversation from this number.
async fn is_contact(world: &SimWorld, number: &str) -> bool {
    let (user, conversation) = (user(world), conversation_from(world, number));
    !load::<Membership>(view(world, &user, membership_key(&user, &conversation)).await.as_ref())
        .expect("ours")
        .is_empty()
}

async fn until_contact(world: &SimWorld, number: &str, expected: bool) {
    let so = async || (is_contact(world, number).await == expected).then_some(());
    wait::until("the user's contact in the conversation from this number", LIMIT, so).await;
}

#[tokio::test(start_paused = true)]
async fn the_contacts_of_a_user_go_along_to_another_number() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        for another in ["second", "third", "special"] {
            put(&world, &number("acme", another)).await;
        }
        // A contact with a number of its own stays where it is.
        let own = DirectoryRecord {
            contact_id: Some("own".into()),
            phone_number_id: Some("special".into()),
            ..directory(DirectoryKind::Contact)
        };
        put(&world, &own).await;
        until(&world, "ContactAdded", 2).await;
        put(&world, &user_on("second")).await;
        until_contact(&world, "second", true).await;
        until_contact(&world, "number", false).await;
        assert!(is_contact(&world, "special").await);
        // And back, and on, faster than anybody looks.
        for number in ["number", "third"] {
            put(&world, &user_on(number)).await;
        }
        until_contact(&world, "third", true).await;
        until_contact(&world, "second", false).await;
        until_contact(&world, "number", false).await;
        // A contact who comes later comes to the right place, and one who goes is gone.
        take_away(&world, &directory(DirectoryKind::Contact)).await;
        until_contact(&world, "third", false).await;
        put(&world, &directory(DirectoryKind::Contact)).await;
        until_contact(&world, "third", true).await;
    })
    .await;
    assert_eq!(counts(&world)["ActivationNoticeRaised"], 1, "told once");
    let ids: std::collections::BTreeSet<_> = history(&world).iter().map(|r| r.envelope.event_id).collect();
    assert_eq!(ids.len(), history(&world).len(), "every event has its own id");
}

#[tokio::test(start_paused = true)]
async fn who_moves_to_another_organization_loses_the_right_here_and_is_told_there() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        take_away(&world, &user_on("number")).await;
        put(&world, &number("globex", "elsewhere")).await;
        put(&world, &DirectoryRecord { organization_id: "globex".into(), ..user_on("elsewhere") }).await;
        until(&world, "WhatsAppDisabled", 1).await;
        until(&world, "WhatsAppEnabled", 2).await;
        until(&world, "ActivationNoticeRaised", 2).await;
    })
    .await;
    let there = platform(&world).keys.user(&"globex".into(), &"ada".into());
    let membership = membership_key(&there, &conversation(&world));
    assert_eq!(view(&world, &there, membership).await, None, "the contacts stay with the organization");
    let disabled =
        history(&world).into_iter().find(|r| r.envelope.event_type == "WhatsAppDisabled").expect("it is there");
    assert_eq!((disabled.envelope.stream_id, disabled.envelope.organization_id), (user(&world), "acme".into()));
}

#[tokio::test(start_paused = true)]
async fn a_contact_whose_phone_changes_leads_to_the_other_person_only() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        let mut other = directory(DirectoryKind::Contact);
        other.address.phone = PhoneNumber::parse("+49 170 7654321").ok();
        put(&world, &other).await;
        until_contact(&world, "number", false).await;
        let (user, there) = (user(&world), platform(&world).keys.conversation(&"number".into(), &other.address));
        let membership = membership_key(&user, &there.expect("an address"));
        assert!(view(&world, &user, membership).await.is_some());
    })
    .await;
}

async fn one_move(world: SimWorld) {
    prepared(&world).await;
    put(&world, &number("acme", "second")).await;
    put(&world, &user_on("second")).await;
    until_contact(&world, "second", true).await;
    until_contact(&world, "number", false).await;
    // Longer than a broken run could hide a second one.
    wait::still("the history", Duration::from_secs(10), LIMIT, async || history(&world).len()).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_whatever_call_contacts_go_along_once() {
    let calm = world().await.run(LIMIT, service, one_move).await.expect("finished");
    for point in 0..calm.points {
        let faults = [Fault::Crash(When::Before), Fault::WipeGate, Fault::Crash(When::After), Fault::Rebalance];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        let world = world().await.with(plan.clone());
        world.run(LIMIT, service, one_move).await.unwrap_or_else(|run| panic!("{plan:?}: {run:?}"));
        let counts = counts(&world);
        assert_eq!((counts["ContactAdded"], counts["ContactRemoved"]), (2, 1), "{plan:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_with_what_is_no_phone_number_or_user_id_goes_to_the_dead_letters_by_its_field_and_holds_up_nobody() {
    let world = play(async |world: SimWorld| {
        for (n, phone) in ["ada", "0170 1234567", "+999 1234567"].into_iter().enumerate() {
            let mut entry = DirectoryRecord {
                contact_id: Some(format!("c{n}").as_str().into()),
                ..directory(DirectoryKind::Contact)
            };
            entry.address.phone = serde_json::from_value(phone.into()).ok();
            put(&world, &entry).await;
        }
        // As a user id it would be another conversation with the same person.
        for (n, bsuid) in ["491701234567", "+491701234567"].into_iter().enumerate() {
            let contact_id = Some(format!("b{n}").as_str().into());
            let address = Address { phone: None, bsuid: Some(Bsuid(bsuid.to_owned())) };
            put(&world, &DirectoryRecord { contact_id, address, ..directory(DirectoryKind::Contact) }).await;
        }
        prepared(&world).await;
        let letters = || world.history(&Topics::default().dlq(Topic::Directory).into());
        wait::until("five dead letters", LIMIT, async || (letters().len() == 5).then_some(())).await;
        for letter in letters() {
            let reason = letter.header(dlq::REASON).expect("a reason");
            assert_eq!(reason.as_ref(), b"invalid");
        }
    })
    .await;
    assert_eq!(counts(&world)["ContactAdded"], 1);
}
