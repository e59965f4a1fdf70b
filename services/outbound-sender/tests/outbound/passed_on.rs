//! A number that WhatsApp gave to somebody else: what is sent to one person never reaches the other, and what is sent to a number is sent to
//! whoever has it now.

use std::time::Duration;

use connector_domain::command::SendMessage;
use connector_domain::consent::ConsentState;
use connector_domain::conversation::Conversation;
use connector_domain::event::{Event, Recorded};
use connector_domain::handover::{Handover, Handovers};
use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, StreamId};
use connector_domain::outcome::GraphError;
use connector_runtime::situation::{conversation_key, membership_key};
use connector_simulated::{BEGINNING, Reaction, SimWorld};

use crate::scene::{Scene, address, conversation, ended, keys, of, talking, text, theirs};

/// The conversation with whoever has the number of contact 1 by now.
fn successor() -> StreamId {
    keys().successor(&conversation(1), BEGINNING)
}

/// The conversation with contact 1, who gave up their number and is known to be here by now.
fn moved(to: Address) -> Conversation {
    let mut handovers = Handovers::default();
    let (identity, phone) = (conversation(1), address(1).phone);
    handovers.add(Handover { identity, phone, since: BEGINNING, successor: successor() });
    Conversation { address: to, handovers, aliases: vec![conversation(40)], ..talking() }
}

/// A message to contact 1 is queued, and one to contact 2: the first attempts are held up by WhatsApp. Then contact 1 gives up their number.
async fn queued(to: Address) -> (Scene, [SendMessage; 2]) {
    let scene = Scene::new(51).await;
    for number in 0..2 {
        let error = GraphError { code: 131_056, subcode: None };
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, error));
    }
    let commands = [text("a", 1), text("b", 2)];
    scene.publish(&commands).await;
    let beside = Scene::of(scene.world.clone());
    scene
        .run(async |world: SimWorld| {
            while beside.posts().len() < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            beside.converse(1, &moved(to.clone())).await;
            ended(&world, &commands).await;
        })
        .await;
    (scene, commands)
}

/// Where the POSTs with this text went that WhatsApp accepted.
fn went_to(scene: &Scene, text: &str) -> Vec<Address> {
    let posts = scene.world.whatsapp_side().posts();
    let of_text = posts.into_iter().filter(|post| {
        post.accepted && post.outbound.content.text.as_ref().is_some_and(|found| found.expose() == text)
    });
    of_text.map(|post| post.outbound.address).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_goes_to_where_its_person_is() {
    let hidden = Address { phone: None, bsuid: Some(Bsuid("US.2".to_owned())) };
    for to in [address(40), hidden] {
        let (scene, _) = queued(to.clone()).await;
        assert_eq!(went_to(&scene, "a"), [to]);
        assert_eq!(went_to(&scene, "b"), [address(2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_ends_with_the_reason_when_nobody_knows_where_its_person_is() {
    let (scene, [lost, sent]) = queued(Address::default()).await;
    assert!(went_to(&scene, "a").is_empty());
    let end = of(&scene.events(), lost.command_id).into_iter().find_map(|recorded| match recorded.event {
        Event::MessageFailed(failed) => Some(failed.reason),
        _ => None,
    });
    assert_eq!(end.as_deref(), Some("number_passed_on"));
    assert_eq!(scene.story(&sent).last().map(String::as_str), Some("MessageSent"));
}

#[tokio::test(start_paused = true)]
async fn a_number_names_whoever_has_it_now_and_an_id_its_person_for_ever() {
    let scene = Scene::new(52).await;
    let user = keys().user(&"acme".into(), &"ada".into());
    let put = async |consent: ConsentState| {
        let next = Conversation { address: address(1), consent, ..talking() };
        scene.project(&successor(), conversation_key(&successor()), &next).await;
    };
    scene.converse(1, &moved(address(40))).await;
    put(ConsentState::default()).await;
    // Nobody's contact yet; then a contact who agreed to nothing; then one who did.
    let by_id = |name| {
        let mut command = text(name, 1);
        command.recipient.conversation_id = Some(conversation(1));
        command
    };
    let mut all = Vec::new();
    let mut send = async |commands: &[SendMessage]| {
        scene.publish(commands).await;
        scene.run_to_the_end(commands).await;
        scene.world.restart();
        all.extend_from_slice(commands);
    };
    send(&[text("no contact", 1), by_id("to the person")]).await;
    scene.project(&user, membership_key(&user, &successor()), &theirs(true)).await;
    send(&[text("no consent", 1)]).await;
    put(talking().consent).await;
    send(&[text("to the stranger", 1)]).await;

    let refused = |n: usize| {
        let events = of(&scene.events(), all[n].command_id);
        crate::scene::refusal(&events).0
    };
    assert_eq!((refused(0).as_str(), refused(2).as_str()), ("not_a_contact", "opt_in_required"));
    assert_eq!(went_to(&scene, "to the person"), [address(40)]);
    assert_eq!(went_to(&scene, "to the stranger"), [address(1)]);
    let stream = |n: usize| of(&scene.events(), all[n].command_id).pop().expect("its end").envelope.stream_id;
    assert_eq!([0, 1, 2, 3].map(stream), [successor(), conversation(1), successor(), successor()]);
    // The answer for the number does not make the two one person.
    let links = |recorded: &Recorded| {
        let joined = [conversation(1), successor()].contains(&recorded.envelope.stream_id);
        joined && matches!(recorded.event, Event::IdentityLearned(_) | Event::ConversationLinked(_))
    };
    assert!(!scene.events().iter().any(links), "{:?}", scene.events());
}
