//! What is queued and must not leave any more: the contact is gone, the user is elsewhere or has lost the right, marketing is not wanted.

use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::command::{Content, SendMessage, TemplateCall};
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::conversation::Conversation;
use connector_domain::event::Event;
use connector_domain::ids::EventId;
use connector_domain::outcome::GraphError;
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_simulated::{Reaction, SimWorld};
use connector_testkit::wait::until;

use crate::scene::{NUMBER, Scene, address, conversation, ended, of, talking, text};

const WITHIN: Duration = Duration::from_secs(600);

/// Two messages to contact 1 and one to contact 2 are queued: the first one of contact 1 is held up by WhatsApp. Then something
/// happens. What became of the three: the reason of a failure, or `sent`.
async fn queued(seed: u64, commands: [SendMessage; 3], happens: impl AsyncFn(&Scene)) -> [String; 3] {
    let scene = Scene::new(seed).await;
    for template in [template("offer", "MARKETING"), template("reminder", "UTILITY")] {
        scene.write(Topic::Templates, &Template::key(&template.waba_id, &template.name, "en"), &template).await;
    }
    for number in 0..2 {
        let error = GraphError { code: 131_056, subcode: None };
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, error));
    }
    scene.publish(&commands[..2]).await;
    let beside = Scene::of(scene.world.clone());
    let all = commands.clone();
    scene
        .run(async |world: SimWorld| {
            while beside.posts().len() < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            happens(&beside).await;
            beside.publish(&all[2..]).await;
            ended(&world, &all).await;
        })
        .await;
    commands.map(|command| {
        let events = of(&scene.events(), command.command_id);
        let end = events.into_iter().find_map(|recorded| match recorded.event {
            Event::MessageFailed(failed) => Some(failed.reason),
            Event::MessageRejected(rejected) => Some(format!("rejected: {} {}", rejected.reason, rejected.field)),
            Event::MessageSent(_) => Some("sent".to_owned()),
            _ => None,
        });
        end.expect("an end")
    })
}

fn texts() -> [SendMessage; 3] {
    [text("a", 1), text("b", 1), text("c", 2)]
}

pub(crate) fn template(name: &str, category: &str) -> Template {
    Template {
        waba_id: "waba".into(),
        organization_id: "acme".into(),
        name: name.to_owned(),
        language: "en".to_owned(),
        status: "APPROVED".to_owned(),
        category: category.to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        header_format: None,
        header: None,
        body: "Hello".to_owned(),
        footer: None,
        buttons: vec![],
        other_components: vec![],
    }
}

pub(crate) fn call(name: &str, command: SendMessage) -> SendMessage {
    let call = TemplateCall {
        name: name.to_owned(),
        language: "en".to_owned(),
        header: vec![],
        body: vec![],
        buttons: vec![],
    };
    SendMessage { content: Content::template(call), ..command }
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_to_somebody_who_is_no_contact_any_more() {
    let ends = queued(21, texts(), async |scene| scene.user(true, NUMBER, 1, false).await).await;
    assert_eq!(ends, ["not_a_contact", "not_a_contact", "sent"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_from_the_number_that_a_user_had_before() {
    let ends = queued(22, texts(), async |scene| scene.user(true, "another", 1, true).await).await;
    assert_eq!(ends, ["not_enabled", "not_enabled", "rejected: not_enabled phone_number_id"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_of_a_user_from_whom_whatsapp_was_taken_away() {
    // So it is when a user moves to another organization: the former one's record is gone.
    let ends = queued(23, texts(), async |scene| scene.user(false, NUMBER, 1, true).await).await;
    assert_eq!(ends, ["not_enabled", "not_enabled", "rejected: not_enabled user_id"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_after_an_operator_withdrew_the_consent() {
    let revoked = async |scene: &Scene| {
        let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
        scene.converse(1, &Conversation { consent, ..talking() }).await;
    };
    assert_eq!(queued(24, texts(), revoked).await, ["opted_out", "opted_out", "sent"]);
}

#[tokio::test(start_paused = true)]
async fn who_stopped_marketing_gets_no_marketing_that_is_queued_but_utility() {
    let commands = [call("offer", text("a", 1)), call("reminder", text("b", 1)), call("offer", text("c", 1))];
    let stopped = async |scene: &Scene| {
        scene.converse(1, &Conversation { marketing_stopped: true, ..talking() }).await;
    };
    let ends = queued(25, commands, stopped).await;
    assert_eq!(ends, ["marketing_stopped", "sent", "rejected: marketing_stopped content.template.name"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_under_an_identity_that_is_found_to_be_the_contacts_holds_back_what_is_queued() {
    let fates = queued(14, texts(), async |scene| {
        let (since, source) = (Some(Timestamp::EPOCH), Some(EventId::derived("stop")));
        let consent = ConsentState { status: ConsentStatus::OptedOut, since, source, ..ConsentState::default() };
        let canonical = Some(conversation(1));
        scene.converse(20, &Conversation { consent, canonical, ..Conversation::default() }).await;
        // Nothing is carried over: the conversation has learned the identity, and its own consent is what it was.
        scene.converse(1, &Conversation { aliases: vec![conversation(20)], address: address(1), ..talking() }).await;
    })
    .await;
    assert_eq!(fates, ["opted_out", "opted_out", "sent"]);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_leave_gives_back_what_it_took_from_the_limiters() {
    let mut scene = Scene::new(26).await;
    (scene.config.number_rate, scene.config.number_burst) = (1, 20);
    for number in 0..2 {
        let error = GraphError { code: 131_056, subcode: None };
        scene.world.whatsapp_side().script(number, Reaction::Refuse(400, error));
    }
    let stopped: Vec<_> = (0..20).map(|i| text(&format!("stopped {i}"), 1)).collect();
    let others: Vec<_> = (0..16).map(|i| text(&format!("other {i}"), 2 + i % 8)).collect();
    scene.publish(&stopped).await;
    let beside = Scene::of(scene.world.clone());
    let took = std::cell::Cell::new(Duration::ZERO);
    scene
        .run(async |world: SimWorld| {
            until("the pair is held back", WITHIN, async || (beside.posts().len() == 2).then_some(())).await;
            let consent = ConsentState { status: ConsentStatus::OptedOut, ..ConsentState::default() };
            beside.converse(1, &Conversation { consent, ..talking() }).await;
            ended(&world, &stopped).await;
            let before = tokio::time::Instant::now();
            beside.publish(&others).await;
            until("the others leave", WITHIN, async || (beside.posts().len() == 2 + others.len()).then_some(())).await;
            took.set(before.elapsed());
            ended(&world, &others).await;
        })
        .await;
    assert!(took.get() < Duration::from_secs(5), "the number has its burst: {:?}", took.get());
}
