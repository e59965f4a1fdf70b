//! Conversations that were found to be one person: what is sent to one goes where it continues.

use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, Recorded};
use connector_domain::ids::{EventId, PhoneNumber};
use connector_domain::time::Timestamp;
use connector_runtime::situation::{conversation_key, membership_key};

use crate::scene::{NUMBER, Scene, address, conversation, keys, of, talking, text, theirs};

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
    scene.project(&user, membership_key(&user, &conversation(1)), &theirs(false)).await;
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

#[tokio::test(start_paused = true)]
async fn a_number_that_whatsapp_knows_a_person_under_joins_their_conversation_once() {
    let scene = Scene::new(33).await;
    let known = PhoneNumber::parse("4915112345678").expect("a number");
    let phone = address(1).phone.expect("a phone");
    scene.world.whatsapp_side().know_as(phone, known.clone());
    let commands = [text("a", 1), text("b", 1), text("c", 2)];
    scene.publish(&commands).await;
    scene.run_to_the_end(&commands).await;

    let alias = keys().by_phone(&NUMBER.into(), &known);
    let events = scene.events();
    let learned = |recorded: &&Recorded| matches!(recorded.event, Event::IdentityLearned(_));
    let learned: Vec<_> = events.iter().filter(learned).collect();
    let [Recorded { envelope, event: Event::IdentityLearned(identity) }] = &learned[..] else { panic!("{learned:?}") };
    assert_eq!((&envelope.stream_id, &identity.alias), (&conversation(1), &alias));
    assert_eq!(identity.address.phone, Some(known));
    let linked: Vec<_> =
        events.iter().filter(|recorded| matches!(recorded.event, Event::ConversationLinked(_))).collect();
    let [Recorded { envelope, event: Event::ConversationLinked(link) }] = &linked[..] else { panic!("{linked:?}") };
    assert_eq!((&envelope.stream_id, &link.canonical), (&alias, &conversation(1)));

    // What stands in the log is not told again by the next owner.
    scene.converse(1, &Conversation { aliases: vec![alias.clone()], ..talking() }).await;
    scene.project(&alias, conversation_key(&alias), &linked_to(1)).await;
    scene.world.restart();
    let later = text("d", 1);
    scene.publish(std::slice::from_ref(&later)).await;
    scene.run_to_the_end(std::slice::from_ref(&later)).await;
    let again = scene.events();
    assert_eq!(again.iter().filter(|recorded| matches!(recorded.event, Event::IdentityLearned(_))).count(), 1);
}
