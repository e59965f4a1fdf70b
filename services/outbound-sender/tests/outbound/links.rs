//! Conversations that were found to be one person: what is sent to one goes where it continues.

use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::ids::EventId;
use connector_domain::time::Timestamp;
use connector_runtime::situation::membership_key;

use crate::scene::{Scene, address, conversation, keys, of, talking, text};

fn linked_to(n: usize) -> Conversation {
    Conversation { canonical: Some(conversation(n)), ..Conversation::default() }
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_was_entered_under_what_is_an_alias_now_is_a_contact() {
    let scene = Scene::new(31).await;
    // The contact list knows contact 1; the person's conversation is 20, which is in no contact list by its own id.
    let known = Conversation { aliases: vec![conversation(1)], address: address(1), ..talking() };
    scene.converse(20, &known).await;
    scene.converse(1, &linked_to(20)).await;
    let (by_alias, mut by_id) = (text("a", 1), text("b", 20));
    by_id.recipient.conversation_id = Some(conversation(20));
    let stranger = text("c", 30);
    let commands = [by_alias.clone(), by_id.clone(), stranger.clone()];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    assert_eq!(scene.story(&by_alias), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.story(&by_id), ["MessageAccepted", "MessageSent"]);
    assert_eq!(scene.story(&stranger), ["MessageRejected"]);

    // Taken out of the contacts, it is none any more.
    scene.world.restart();
    let user = keys().user(&"acme".into(), &"ada".into());
    scene.project(&user, membership_key(&user, &conversation(1)), &0_u32).await;
    let late = text("d", 1);
    scene.publish(std::slice::from_ref(&late)).await;
    scene.run_to_the_end(std::slice::from_ref(&late)).await;
    assert_eq!(scene.story(&late), ["MessageRejected"]);
    let sent = of(&scene.events(), by_alias.command_id).pop().expect("its end");
    assert_eq!(sent.envelope.stream_id, conversation(20));
}

#[tokio::test(start_paused = true)]
async fn links_are_followed_to_their_end_and_a_circle_is_one_conversation() {
    let scene = Scene::new(32).await;
    // 1 → 2 → 3, and the person of 3 wrote STOP.
    let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
    scene.converse(1, &linked_to(2)).await;
    scene.converse(2, &linked_to(3)).await;
    scene.converse(3, &Conversation { consent, ..talking() }).await;
    // 5 ⇄ 6
    for (one, other) in [(5, 6), (6, 5)] {
        let circle = Conversation { canonical: Some(conversation(other)), address: address(5), ..talking() };
        scene.converse(one, &Conversation { aliases: vec![conversation(other)], ..circle }).await;
    }
    let commands = [text("a", 1), text("b", 2), text("c", 5), text("d", 6)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    assert_eq!(scene.story(&commands[0]), ["MessageRejected"]);
    assert_eq!(scene.story(&commands[1]), ["MessageRejected"]);
    let least = conversation(5).min(conversation(6));
    for command in &commands[2..] {
        assert_eq!(scene.story(command), ["MessageAccepted", "MessageSent"]);
        assert!(of(&scene.events(), command.command_id).iter().all(|e| e.envelope.stream_id == least));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_under_an_alias_counts_before_it_is_carried_over() {
    let scene = Scene::new(33).await;
    let stopped = |linked_to: Option<usize>| {
        let (since, source) = (Some(Timestamp::EPOCH), Some(EventId::derived("stop")));
        let consent = ConsentState { status: ConsentStatus::OptedOut, since, source, ..ConsentState::default() };
        Conversation { consent, canonical: linked_to.map(conversation), ..Conversation::default() }
    };
    // The alias of 1 wrote STOP and is linked over another one; the alias of 2 is not linked by an event of its own yet.
    scene.converse(20, &stopped(Some(21))).await;
    scene.converse(21, &linked_to(1)).await;
    scene.converse(22, &stopped(None)).await;
    for (n, alias) in [(1, 20), (2, 22)] {
        let known = Conversation { aliases: vec![conversation(alias)], address: address(n), ..talking() };
        scene.converse(n, &known).await;
    }
    // Undone by the contact where the conversation goes on.
    scene.converse(23, &stopped(Some(3))).await;
    let started = Conversation { aliases: vec![conversation(23)], address: address(3), ..talking() };
    let consent = ConsentState { agreed: Some(Timestamp::from_secs(1)), ..started.consent.clone() };
    scene.converse(3, &Conversation { consent, ..started }).await;
    let commands = [text("a", 1), text("b", 2), text("c", 3)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;
    assert_eq!(scene.story(&commands[0]), ["MessageRejected"]);
    assert_eq!(scene.story(&commands[1]), ["MessageRejected"]);
    assert_eq!(scene.story(&commands[2]), ["MessageAccepted", "MessageSent"]);
}
