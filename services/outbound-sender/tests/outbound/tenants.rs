//! Commands of those who have no business with a number, a conversation or an id, and commands that are none (P4, R3, R13).

use connector_contracts::{Topic, encode};
use connector_domain::command::{Content, LONGEST_LIFE, Recipient, SendMessage};
use connector_domain::identity::Address;
use connector_domain::ids::CommandId;
use connector_domain::outcome::Transport;
use connector_ports::gate::View;
use connector_runtime::platform::views;
use connector_runtime::situation::partition_of;
use connector_simulated::{BEGINNING, Reaction};
use std::time::Duration;

use crate::scene::{PARTITIONS, Scene, conversation, conversation_of_second, keys, of, refusal, text, types};

/// Contacts whose conversations are in different partitions.
fn apart() -> (usize, usize) {
    let place = |n: usize| partition_of(&conversation(n), PARTITIONS);
    let other = (1..10).find(|n| place(*n) != place(0)).expect("ten contacts are not all in one partition");
    (0, other)
}

#[tokio::test(start_paused = true)]
async fn one_id_for_two_contacts_is_a_conflict_before_and_after_a_wipe() {
    for at_once in [true, false] {
        let scene = Scene::new(31).await;
        let (one, other) = apart();
        let (first, second) = (text("same id", one), SendMessage { ..text("same id", other) });
        if at_once {
            scene.publish(&[first.clone(), second.clone(), text("last", one)]).await;
        } else {
            scene.publish(&[first.clone(), text("before", one)]).await;
            scene.run_to_the_end(&[first.clone(), text("before", one)]).await;
            // All that is not the log is gone: whoever takes over tells what stands there.
            scene.world.calm_gate().wipe_view(&View::new(views::SEND_COMMANDS, 0));
            scene.world.calm_gate().wipe_view(&View::new(views::SEND_COMMANDS, 1));
            scene.world.calm_gate().wipe_registers();
            scene.world.restart();
            scene.publish(&[second.clone(), text("last", one)]).await;
        }
        scene.run_to_the_end(&[text("last", one)]).await;
        scene
            .run(async |world| {
                crate::scene::appears(&world, |e| {
                    e.envelope.command_id == Some(first.command_id) && e.envelope.event_type == "MessageRejected"
                })
                .await;
            })
            .await;
        let events = of(&scene.events(), first.command_id);
        assert_eq!(refusal(&events), ("conflict".to_owned(), "command_id".to_owned()));
        assert_eq!(types(&events).iter().filter(|name| *name == "MessageAccepted").count(), 1);
        let sent = scene.posts().into_iter().filter(|(text, _)| text == "same id").count();
        assert_eq!(sent, 1, "one of the two is sent");
    }
}

#[tokio::test(start_paused = true)]
async fn one_id_in_two_organizations_is_two_commands() {
    let scene = Scene::new(32).await;
    let own = text("shared", 1);
    let foreign = SendMessage { organization_id: "evil".into(), ..own.clone() };
    scene.publish(&[foreign.clone(), own.clone()]).await;
    scene
        .run(async |world| {
            crate::scene::appears(&world, |e| e.envelope.event_type == "MessageSent").await;
            crate::scene::appears(&world, |e| e.envelope.event_type == "MessageRejected").await;
        })
        .await;
    let events = of(&scene.events(), own.command_id);
    assert_eq!(refusal(&events), ("not_enabled".to_owned(), "phone_number_id".to_owned()));
    let refused = events.iter().find(|e| e.envelope.event_type == "MessageRejected").expect("refused");
    assert_eq!(
        refused.envelope.stream_id,
        keys().user(&"evil".into(), &"ada".into()),
        "in no stream of the other tenant"
    );
    assert_eq!(scene.posts().len(), 1);
}

/// The id is the asker's own and used; the conversations are somebody else's, in both partitions, named with either number.
#[tokio::test(start_paused = true)]
async fn a_conflict_is_told_in_no_conversation_of_another_organization() {
    let scene = Scene::new(37).await;
    scene.second_of("evil", 10).await;
    let evil = |n| SendMessage { organization_id: "evil".into(), ..crate::scene::text_of_second("used", n) };
    let first = evil(0);
    scene.publish(std::slice::from_ref(&first)).await;
    scene.run_to_the_end(std::slice::from_ref(&first)).await;
    let (one, other) = apart();
    let by_id = |n: usize, number: &str| SendMessage {
        recipient: Recipient { conversation_id: Some(conversation(n)), address: Address::default() },
        phone_number_id: number.into(),
        ..evil(n)
    };
    let repeated = [
        by_id(one, crate::scene::SECOND),
        by_id(other, crate::scene::SECOND),
        by_id(one, crate::scene::NUMBER),
        by_id(other, crate::scene::NUMBER),
        // One's own conversation is told.
        evil(1),
    ];
    scene.world.restart();
    scene.publish(&repeated).await;
    scene
        .run(async |world| {
            let refused = || of(&crate::scene::events(&world), first.command_id).len() >= 2 + repeated.len();
            while !refused() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    let events = of(&scene.events(), first.command_id);
    let refusals: Vec<_> = events.iter().filter(|e| e.envelope.event_type == "MessageRejected").collect();
    assert_eq!(refusals.len(), repeated.len(), "each has its answer");
    let (own, users) = (conversation_of_second(1), keys().user(&"evil".into(), &"bob".into()));
    for refused in &refusals {
        assert_eq!(refusal(&[(*refused).clone()]), ("conflict".to_owned(), "command_id".to_owned()));
        let stream = &refused.envelope.stream_id;
        assert!(*stream == users || *stream == own, "in no stream of the other tenant");
    }
    assert_eq!(refusals.iter().filter(|refused| refused.envelope.stream_id == own).count(), 1);
    assert_eq!(scene.posts().len(), 1);
}

/// What became of the one says nothing about the other, also where both wait in one partition.
#[tokio::test(start_paused = true)]
async fn a_message_is_sent_while_one_of_another_organization_with_its_id_is_unconfirmed() {
    let scene = Scene::new(36).await;
    scene.second_of("evil", 10).await;
    let first = text("shared", 1);
    let home = partition_of(&conversation(1), PARTITIONS);
    let n = (0..10).find(|n| partition_of(&conversation_of_second(*n), PARTITIONS) == home).expect("there is one");
    let second = SendMessage { organization_id: "evil".into(), ..crate::scene::text_of_second("shared", n) };
    scene.world.whatsapp_side().script(0, Reaction::AcceptThenDrop(Transport::Timeout));
    scene.publish(std::slice::from_ref(&first)).await;
    let publisher = Scene::of(scene.world.clone());
    scene
        .run(async |world| {
            crate::scene::appears(&world, |e| e.envelope.event_type == "MessageUnconfirmed").await;
            publisher.publish(std::slice::from_ref(&second)).await;
            crate::scene::appears(&world, |e| e.envelope.event_type == "MessageSent").await;
        })
        .await;
    assert_eq!(scene.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_of_another_number_is_nobodys_and_its_refusal_stands_in_the_askers_stream() {
    let scene = Scene::new(33).await;
    scene.second(2).await;
    let by_id = |name: &str, n: usize| SendMessage {
        recipient: Recipient { conversation_id: Some(conversation(n)), address: Address::default() },
        ..crate::scene::text_of_second(name, n)
    };
    let commands = [by_id("a", 0), by_id("b", 1), by_id("nobody", 77)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    for command in &commands {
        let events = of(&scene.events(), command.command_id);
        assert_eq!(refusal(&events), ("not_a_contact".to_owned(), "recipient".to_owned()));
        assert_eq!(events[0].envelope.stream_id, keys().user(&"acme".into(), &"bob".into()));
    }
    assert!(scene.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_none_is_refused_with_its_field_and_only_an_unreadable_id_is_a_dead_letter() {
    let scene = Scene::new(34).await;
    let changed = |name: &str, change: fn(&mut SendMessage)| {
        let mut command = text(name, 1);
        change(&mut command);
        command
    };
    let wrong = [
        (changed("phone", |c| c.recipient.conversation_id = Some("+491701234567".into())), "recipient.conversation_id"),
        (changed("user", |c| c.user_id = "".into()), "user_id"),
        (changed("organization", |c| c.organization_id = "a/b".into()), "organization_id"),
        (changed("reply", |c| c.content.reply_to = Some("+49".into())), "content.reply_to"),
        (changed("life", |c| c.not_after = Some(BEGINNING + 2 * LONGEST_LIFE)), "not_after"),
        (changed("issued", |c| c.issued_at = connector_domain::time::Timestamp(-1)), "issued_at"),
        (changed("content", |c| c.content = Content { text: None, ..Content::text("") }), "content.text"),
    ];
    let commands: Vec<_> = wrong.iter().map(|(command, _)| command.clone()).collect();
    scene.publish(&commands).await;
    let whole = encode(&text("cut", 1)).expect("it fits");
    scene.write_raw(Topic::SendCommands, "publisher", whole[..whole.len() - 1].to_vec()).await;
    scene.write_raw(Topic::SendCommands, "publisher", whole[..20].to_vec()).await;
    let mut all = commands.clone();
    all.push(text("cut", 1));
    scene.run_to_the_end(&all).await;
    for (command, field) in &wrong {
        let events = of(&scene.events(), command.command_id);
        assert_eq!(refusal(&events), ("invalid".to_owned(), (*field).to_owned()));
        let shown = format!("{:?}", events[0].envelope);
        assert!(!shown.contains("4917"), "{shown}");
    }
    let cut = refusal(&of(&scene.events(), CommandId::derived("cut")));
    assert_eq!(cut, ("invalid".to_owned(), "not_after".to_owned()));
    let dead = scene.world.history(&format!("{}.dlq", Topic::SendCommands.name("")).as_str().into());
    assert_eq!(dead.iter().map(|record| record.value.as_deref()).collect::<Vec<_>>(), [Some(&whole[..20])]);
    assert!(scene.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_accepted_for_longer_than_it_is_kept() {
    let mut scene = Scene::new(35).await;
    scene.rules.command_life = 30 * LONGEST_LIFE;
    let commands = [text("a", 1)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    let accepted = of(&scene.events(), commands[0].command_id).remove(0);
    let connector_domain::event::Event::MessageAccepted(event) = accepted.event else { panic!("accepted") };
    assert!(event.not_after <= BEGINNING + LONGEST_LIFE + Duration::from_secs(60), "{event:?}");
}
