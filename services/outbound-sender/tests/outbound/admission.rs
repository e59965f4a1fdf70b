//! Admission: one first answer per command.

use std::collections::BTreeSet;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{Content, Recipient, SendMessage};
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::directory::ContactEntry;
use connector_domain::event::Event;
use connector_domain::identity::Address;
use connector_domain::ids::{ContactId, StreamId};
use connector_ports::gate::View;
use connector_ports::log::Offset;
use connector_runtime::platform::views;
use connector_runtime::situation::{
    Membership, contact_key, contact_list_key, conversation_key, membership_key, store,
};
use connector_simulated::BEGINNING;
use connector_testkit::event::text_received;

use crate::scene::{Scene, address, appears, conversation, ended, keys, number, of, refusal, talking, text, theirs};

#[tokio::test(start_paused = true)]
async fn a_command_is_answered_once_however_often_it_is_published() {
    let scene = Scene::new(1).await;
    let command = text("a", 1);
    scene.publish(&[command.clone(), command.clone()]).await;
    scene.write(Topic::SendCommands, "another publisher", &command).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.posts().len(), 1);
    let accepted = of(&scene.events(), command.command_id).remove(0);
    assert_eq!(accepted.envelope.stream_id, conversation(1));
}

#[tokio::test(start_paused = true)]
async fn other_content_under_a_used_id_is_a_conflict_and_never_replaces_the_first_answer() {
    let scene = Scene::new(2).await;
    let command = text("a", 1);
    let other = connector_domain::command::SendMessage { content: Content::text("b"), ..command.clone() };
    scene.publish(&[command.clone(), other.clone()]).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    let events = of(&scene.events(), command.command_id);
    assert_eq!(refusal(&events), ("conflict".to_owned(), "command_id".to_owned()));

    // Whatever the memory is built from, the first content is the one that is known.
    for partition in 0..2 {
        scene.world.calm_gate().wipe_view(&View::new(views::SEND_COMMANDS, partition));
    }
    scene.world.restart();
    scene.publish(&[command.clone(), text("later", 1)]).await;
    scene.run_to_the_end(&[text("later", 1)]).await;
    assert_eq!(of(&scene.events(), command.command_id).len(), events.len(), "the repeat is no conflict");
    assert_eq!(scene.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_number_of_another_organization_is_refused() {
    let scene = Scene::new(3).await;
    let mut foreign = text("a", 1);
    foreign.organization_id = "evil".into();
    let mut unknown = text("b", 1);
    unknown.phone_number_id = "42".into();
    scene.publish(&[foreign.clone(), unknown.clone()]).await;
    scene.run_to_the_end(&[foreign.clone(), unknown.clone()]).await;
    for command in [foreign, unknown] {
        let refused = refusal(&of(&scene.events(), command.command_id));
        assert_eq!(refused, ("not_enabled".to_owned(), "phone_number_id".to_owned()));
    }
    assert!(scene.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn consent_covers_no_address_that_is_merely_named_beside_a_conversation() {
    let scene = Scene::new(4).await;
    let mut stranger = text("a", 1);
    stranger.recipient.conversation_id = Some(conversation(1));
    stranger.recipient.address = address(77);
    let mut same = text("b", 1);
    same.recipient.conversation_id = Some(conversation(1));
    scene.publish(&[stranger.clone(), same.clone()]).await;
    scene.run_to_the_end(&[stranger.clone(), same.clone()]).await;
    let refused = refusal(&of(&scene.events(), stranger.command_id));
    assert_eq!(refused, ("invalid".to_owned(), "recipient.address".to_owned()));
    assert_eq!(scene.story(&same), ["MessageAccepted", "MessageSent"]);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_never_wrote_is_addressed_as_the_contact_list_says() {
    let scene = Scene::new(14).await;
    let user = keys().user(&"acme".into(), &"ada".into());
    let list = |n: usize| ContactId(format!("entry {n}"));
    for n in [1, 2] {
        let entry = ContactEntry { conversation_id: Some(conversation(n)), address: address(n), name: None };
        scene.project(&user, contact_key(&user, &list(n)), &entry).await;
    }
    for n in [1, 2] {
        scene.project(&user, membership_key(&user, &conversation(n)), &Membership::from([list(n)])).await;
    }
    let by_id = |name: &str, n: usize| {
        let recipient = Recipient { conversation_id: Some(conversation(n)), address: Address::default() };
        SendMessage { recipient, ..text(name, n) }
    };
    let commands = [by_id("a", 2), by_id("b", 3)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    assert_eq!(scene.story(&commands[0]), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.world.whatsapp_side().posts()[0].outbound.address, address(2));
    let refused = refusal(&of(&scene.events(), commands[1].command_id));
    assert_eq!(refused, ("invalid".to_owned(), "recipient.address".to_owned()), "nobody knows it");
}

/// How many values commands ask for that name people who never wrote, while the user has so many contacts.
async fn values_for_a_list_of(many: usize) -> usize {
    let scene = Scene::new(14).await;
    let user = keys().user(&"acme".into(), &"ada".into());
    let id = |n: usize| ContactId(format!("entry {n}"));
    for n in 0..10 {
        let entry = ContactEntry { conversation_id: Some(conversation(n)), address: address(n), name: None };
        scene.project(&user, contact_key(&user, &id(n)), &entry).await;
        scene.project(&user, membership_key(&user, &conversation(n)), &Membership::from([id(n)])).await;
    }
    scene.project(&user, contact_list_key(&user), &(0..many).map(id).collect::<BTreeSet<_>>()).await;
    let recipient = |n| Recipient { conversation_id: Some(conversation(n)), address: Address::default() };
    let commands: Vec<_> =
        (0..10).map(|n| SendMessage { recipient: recipient(n), ..text(&format!("to {n}"), n) }).collect();
    scene.publish(&commands).await;
    let before = scene.world.values_read();
    scene.run_to_the_end(&commands).await;
    assert!(commands.iter().all(|command| scene.story(command) == ["MessageAccepted", "MessageSent"]));
    scene.world.values_read() - before
}

#[tokio::test(start_paused = true)]
async fn a_command_costs_the_same_however_many_contacts_its_user_has() {
    let (few, many) = (values_for_a_list_of(10).await, values_for_a_list_of(3000).await);
    assert!(many <= few + 100, "{few} values for 10 contacts, {many} for 3000");
}

#[tokio::test(start_paused = true)]
async fn a_phone_number_in_place_of_a_conversation_is_refused_and_becomes_no_key() {
    let scene = Scene::new(5).await;
    let mut command = text("a", 1);
    command.recipient.conversation_id = Some(StreamId("491701234567".to_owned()));
    let mut nobody = text("b", 1);
    nobody.recipient.address = Address::default();
    scene.publish(&[command.clone(), nobody.clone()]).await;
    scene.run_to_the_end(&[command.clone(), nobody.clone()]).await;
    let user = keys().user(&"acme".into(), &"ada".into());
    for (command, field) in [(command, "recipient.conversation_id"), (nobody, "recipient")] {
        let events = of(&scene.events(), command.command_id);
        assert_eq!(refusal(&events), ("invalid".to_owned(), field.to_owned()));
        assert_eq!(events[0].envelope.stream_id, user);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_goes_to_the_dead_letters_and_holds_up_nobody() {
    let scene = Scene::new(6).await;
    scene.write_raw(Topic::SendCommands, "publisher", b"not a command".to_vec()).await;
    let command = text("a", 1);
    scene.publish(std::slice::from_ref(&command)).await;
    scene.run_to_the_end(std::slice::from_ref(&command)).await;
    let letters = scene.world.history(&format!("{}.dlq", Topic::SendCommands.name("")).into());
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(&b"not a command"[..]));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_by_a_projection_that_is_behind() {
    let scene = Scene::new(7).await;
    let stream = conversation(1);
    let partition = connector_runtime::situation::partition_of(&stream, 2);
    // The projection lost everything and stands at the beginning, while every partition of the log has events.
    let first: Vec<_> = (2..10).map(|n| text(&format!("first {n}"), n)).collect();
    scene.publish(&first).await;
    scene.run_to_the_end(&first).await;
    scene.tell(&stream, text_received(BEGINNING)).await;
    scene.world.restart();
    for partition in 0..2 {
        scene.world.calm_gate().wipe_view(&View::new(views::CONVERSATIONS, partition));
        scene.put(partition, "seen".to_owned(), bytes::Bytes::new(), Offset(0)).await;
    }
    let command = text("a", 1);
    scene.publish(std::slice::from_ref(&command)).await;
    let asked = command.clone();
    scene
        .run(async |world| {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let nothing = of(&crate::scene::events(&world), asked.command_id);
            assert!(nothing.is_empty(), "{nothing:?}");
            let rebuilt = Scene::of(world.clone());
            let user = keys().user(&"acme".into(), &"ada".into());
            let far = Offset(1 << 40);
            let home = connector_runtime::situation::partition_of(&user, 2);
            let enablement = connector_domain::directory::Enablement {
                enabled: true,
                phone_number_id: Some(number()),
                ..Default::default()
            };
            let put = async |partition, key: String, value| rebuilt.put(partition, key, value, far).await;
            let enabled = store(&enablement).expect("a fold");
            put(home, connector_runtime::situation::enablement_key(&user), enabled).await;
            let member = store(&theirs(true)).expect("a fold");
            put(home, connector_runtime::situation::membership_key(&user, &stream), member).await;
            put(partition, conversation_key(&stream), store(&talking()).expect("a fold")).await;
            for partition in 0..2 {
                put(partition, "seen".to_owned(), bytes::Bytes::new()).await;
            }
            ended(&world, std::slice::from_ref(&asked)).await;
        })
        .await;
    assert_eq!(scene.story(&command), ["MessageAccepted", "MessageSent"]);
}

#[tokio::test(start_paused = true)]
async fn a_contact_without_consent_is_not_written_to() {
    let scene = Scene::new(8).await;
    for (n, status) in [(1, ConsentStatus::None), (2, ConsentStatus::OptedOut), (3, ConsentStatus::Requested)] {
        let consent = ConsentState { status, ..ConsentState::default() };
        scene.converse(n, &Conversation { consent, ..talking() }).await;
    }
    let commands = [text("a", 1), text("b", 2), text("c", 3)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    let reasons: Vec<_> = commands.iter().map(|c| refusal(&of(&scene.events(), c.command_id)).0).collect();
    assert_eq!(reasons, ["opt_in_required", "opted_out", "opt_in_pending"]);
    assert!(scene.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_for_an_alias_is_decided_where_the_conversation_continues() {
    let scene = Scene::new(9).await;
    scene.converse(1, &Conversation { canonical: Some(conversation(2)), ..Conversation::default() }).await;
    let address = address(2);
    scene.converse(2, &Conversation { address: address.clone(), aliases: vec![conversation(1)], ..talking() }).await;
    // One more whose partition is surely another one: both kinds of way are taken.
    let elsewhere = (3..10).find(|n| {
        connector_runtime::situation::partition_of(&conversation(*n), 2)
            != connector_runtime::situation::partition_of(&conversation(2), 2)
    });
    let elsewhere = elsewhere.expect("ten contacts are not all in one partition");
    scene.converse(elsewhere, &Conversation { canonical: Some(conversation(2)), ..Conversation::default() }).await;
    let commands = [text("a", 1), text("b", elsewhere)];
    scene.publish(&commands).await;
    scene
        .run(async |world| {
            for command in &commands {
                let is_sent = |event: &Event| matches!(event, Event::MessageSent(_));
                appears(&world, |r| is_sent(&r.event) && r.envelope.command_id == Some(command.command_id)).await;
            }
        })
        .await;
    for command in &commands {
        let events = of(&scene.events(), command.command_id);
        assert!(events.iter().all(|recorded| recorded.envelope.stream_id == conversation(2)), "{events:?}");
    }
    let posts = scene.world.whatsapp_side().posts();
    assert!(posts.iter().all(|post| post.outbound.address == address));
}
