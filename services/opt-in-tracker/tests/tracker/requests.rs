//! Opt-in requests that do not get to the contact, and requests too many.

use std::time::Duration;

use connector_contracts::{Topic, Topics, decode};
use connector_domain::command::{
    ConsentAction, DirectoryKind, DirectoryRecord, NumberSettings, SendMessage, SendPurpose, TemplateCall,
};
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::decide::Reason;
use connector_domain::event::{
    Event, MessageFailed, MessageReceived, MessageRejected, MessageSent, MessageStatusChanged, MessageUnconfirmed,
    OptInFailed,
};
use connector_domain::ids::{AttemptId, CommandId};
use connector_domain::status::DeliveryStatus;
use connector_runtime::situation::{conversation_key, load};
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_testkit::wait::still;

use crate::scene::{
    LIMIT, address, append, command, consent, conversation, counts, directory, event, keys, platform, play, prepared,
    record, service, until, until_some, view, world, write,
};

fn message(ask: &str) -> Option<CommandId> {
    Some(keys().opt_in_message(&"acme".into(), CommandId::derived(ask)))
}

async fn ask(world: &SimWorld, name: &str, times: usize) {
    append(world, vec![command(world, name, ConsentAction::RequestOptIn, None)]).await;
    until(world, "OptInRequested", times).await;
}

fn failed(reason: &str, error_code: Option<i64>) -> MessageFailed {
    MessageFailed { reason: reason.to_owned(), error_code, attempt_id: None }
}

fn sent(ask: &str) -> MessageSent {
    MessageSent {
        phone_number_id: "number".into(),
        wamid: ask.into(),
        attempt_id: AttemptId::derived(ask),
        purpose: SendPurpose::OptIn,
    }
}

fn status(ask: &str, status: DeliveryStatus, echoes: bool) -> MessageStatusChanged {
    MessageStatusChanged {
        phone_number_id: "number".into(),
        wamid: ask.into(),
        status,
        attempt_id: echoes.then(|| AttemptId::derived(ask)),
        address: address(),
        error_code: Some(131_026),
        raw: "{}".into(),
    }
}

/// The failures that were announced, with reason and code.
fn announced(world: &SimWorld) -> Vec<(String, Option<i64>)> {
    let failures = crate::scene::history(world).into_iter().filter_map(|recorded| match recorded.event {
        Event::OptInFailed(OptInFailed { reason, error_code, .. }) => Some((reason, error_code)),
        _ => None,
    });
    failures.collect()
}

#[tokio::test(start_paused = true)]
async fn however_the_message_fails_consent_is_what_it_was_and_the_log_says_why() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        ask(&world, "refused by admission", 1).await;
        let rejected = MessageRejected {
            user_id: "ada".into(),
            reason: Reason::TemplateNotSendable.as_str().to_owned(),
            field: "content.template.name".to_owned(),
            remedy: String::new(),
        };
        event(&world, "1", message("refused by admission"), rejected).await;
        until(&world, "OptInFailed", 1).await;
        assert_eq!(consent(&world).status, ConsentStatus::None);

        ask(&world, "refused by WhatsApp", 2).await;
        event(&world, "2", message("refused by WhatsApp"), failed("permanent", Some(131_008))).await;
        until(&world, "OptInFailed", 2).await;

        // WhatsApp took it, and says later that it did not arrive, without an echo of the attempt.
        write(&world, "hello", Intent::Other).await;
        ask(&world, "undelivered", 3).await;
        event(&world, "3", message("undelivered"), sent("undelivered")).await;
        event(&world, "4", None, status("undelivered", DeliveryStatus::Sent, true)).await;
        event(&world, "5", None, status("undelivered", DeliveryStatus::Failed, false)).await;
        until(&world, "OptInFailed", 3).await;
        assert_eq!(consent(&world).status, ConsentStatus::Implied, "the contact had written");
        // Said once, whatever comes later.
        event(&world, "6", None, status("undelivered", DeliveryStatus::Failed, true)).await;

        // The failure overtakes our own word on the message, whose answer got lost.
        ask(&world, "overtaken", 4).await;
        event(&world, "7", None, status("overtaken", DeliveryStatus::Failed, true)).await;
        let attempt_id = AttemptId::derived("overtaken");
        let unconfirmed = MessageUnconfirmed { attempt_id, observed: "timeout".to_owned() };
        event(&world, "8", message("overtaken"), unconfirmed).await;
        until(&world, "OptInFailed", 4).await;
    })
    .await;
    let expected = [
        ("template_not_sendable", None),
        ("permanent", Some(131_008)),
        ("undelivered", Some(131_026)),
        ("undelivered", Some(131_026)),
    ];
    assert_eq!(announced(&world), expected.map(|(reason, code)| (reason.to_owned(), code)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_the_event_that_tells_of_it() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        ask(&world, "ask", 1).await;
        event(&world, "1", message("ask"), failed("permanent", Some(131_026))).await;
        let told = until_some(&world, |recorded| matches!(recorded.event, Event::OptInFailed(_))).await;
        let cause = until_some(&world, |recorded| matches!(recorded.event, Event::MessageFailed(_))).await;
        let Event::OptInFailed(failed) = told.event else { unreachable!() };
        assert_eq!(failed.source, cause.envelope.event_id);
        assert_eq!(told.envelope.command_id, message("ask"));
        assert_eq!(told.envelope.producer, "opt-in-tracker");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_another_message_or_after_the_answer_is_no_end_of_the_request() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        ask(&world, "ask", 1).await;
        event(&world, "1", Some(CommandId::derived("another")), failed("permanent", Some(131_026))).await;
        event(&world, "2", None, status("another", DeliveryStatus::Failed, true)).await;
        event(&world, "3", message("ask"), sent("ask")).await;
        assert_eq!(consent(&world).status, ConsentStatus::Requested);
        write(&world, "yes", Intent::Accept).await;
        until(&world, "OptInAccepted", 1).await;
        event(&world, "4", None, status("ask", DeliveryStatus::Failed, true)).await;
        // What is folded after it shows that nothing was said about it.
        write(&world, "stop", Intent::Stop).await;
        until(&world, "OptedOut", 1).await;
    })
    .await;
    assert_eq!(counts(&world).get("OptInFailed"), None);
    assert_eq!(consent(&world).status, ConsentStatus::OptedOut);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_more_often_than_the_limit_and_the_refusal_names_it() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        for n in 1..=3 {
            let name = format!("ask {n}");
            ask(&world, &name, n).await;
            event(&world, &name, message(&name), failed("wait", Some(131_049))).await;
            until(&world, "OptInFailed", n).await;
        }
        append(&world, vec![command(&world, "too many", ConsentAction::RequestOptIn, None)]).await;
        let refused = until_some(&world, |recorded| matches!(recorded.event, Event::MessageRejected(_))).await;
        let Event::MessageRejected(rejected) = refused.event else { unreachable!() };
        assert_eq!((rejected.reason.as_str(), rejected.field.as_str()), ("opt_in_limit", "action"));
        assert_eq!(refused.envelope.command_id, Some(CommandId::derived("too many")));
        assert_eq!(counts(&world)["OptInRequested"], 3);
    })
    .await;
}

/// The contact taps a button without a payload of ours under a message.
fn tapped(world: &SimWorld, on: &str, answer: Intent) -> MessageReceived {
    MessageReceived {
        phone_number_id: "number".into(),
        wamid: format!("tap on {on}").as_str().into(),
        address: address(),
        profile_name: None,
        message_type: "button".to_owned(),
        text: None,
        unsupported: false,
        reply_to: Some(on.into()),
        intent: Intent::Other,
        answer,
        window_deadline: Some(platform(world).clock.now() + Duration::from_secs(24 * 3600)),
        raw: "{}".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_tap_is_an_answer_under_the_opt_in_message_and_conversation_elsewhere() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        ask(&world, "ask", 1).await;
        // The contact is faster than our own word on the message.
        event(&world, "1", None, tapped(&world, "ask", Intent::Accept)).await;
        event(&world, "2", None, tapped(&world, "offer", Intent::Decline)).await;
        event(&world, "3", message("ask"), sent("ask")).await;
        until(&world, "OptInAccepted", 1).await;
        event(&world, "4", None, tapped(&world, "offer", Intent::Stop)).await;
        event(&world, "5", None, tapped(&world, "ask", Intent::Decline)).await;
        until(&world, "OptInDeclined", 1).await;
    })
    .await;
    assert_eq!((counts(&world).get("OptedOut"), counts(&world)["OptInAccepted"]), (None, 1));
    let source = crate::scene::history(&world).into_iter().find_map(|recorded| match recorded.event {
        Event::MessageReceived(tap) if tap.wamid.as_str() == "tap on ask" => Some(recorded.envelope.event_id),
        _ => None,
    });
    let told = crate::scene::history(&world).into_iter().find_map(|recorded| match recorded.event {
        Event::OptInAccepted(accepted) => Some((accepted.source, accepted.how)),
        _ => None,
    });
    assert_eq!(told, source.map(|source| (source, "button".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn refusals_that_speak_of_marketing_stand_in_the_view() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        let refused =
            |code| MessageStatusChanged { error_code: Some(code), ..status("out", DeliveryStatus::Failed, true) };
        event(&world, "1", None, refused(131_050)).await;
        event(&world, "2", Some(CommandId::derived("out")), failed("wait", Some(131_049))).await;
        let stream = conversation(&world);
        loop {
            let folded: Conversation =
                load(view(&world, &stream, conversation_key(&stream)).await.as_ref()).expect("ours");
            if folded.marketing_stopped && folded.marketing_refused.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(counts(&world).get("OptedOut"), None, "everything else goes on");
}

async fn one_failure(world: SimWorld) {
    prepared(&world).await;
    ask(&world, "ask", 1).await;
    event(&world, "1", message("ask"), sent("ask")).await;
    event(&world, "2", None, status("ask", DeliveryStatus::Failed, false)).await;
    until(&world, "OptInFailed", 1).await;
    // Longer than a broken run could hide a second one.
    still("what comes too often", Duration::from_secs(10), LIMIT, async || counts(&world)).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_whatever_call_a_failure_is_said_once() {
    let calm = world().await.run(LIMIT, service, one_failure).await.expect("finished");
    for point in 0..calm.points {
        let faults = [
            Fault::Crash(When::Before),
            Fault::WipeGate,
            Fault::Crash(When::After),
            Fault::Fail(When::After),
            Fault::Rebalance,
        ];
        let plan = Plan::one(point, faults[usize::try_from(point).unwrap_or(0) % faults.len()]);
        let world = world().await.with(plan.clone());
        world.run(LIMIT, service, one_failure).await.unwrap_or_else(|run| panic!("{plan:?}: {run:?}"));
        assert_eq!(announced(&world), [("undelivered".to_owned(), Some(131_026))], "{plan:?}");
        assert_eq!(consent(&world).status, ConsentStatus::None, "{plan:?}");
    }
}

fn template(name: &str) -> TemplateCall {
    let (header, body, buttons) = (vec![], vec![], vec![]);
    TemplateCall { name: name.to_owned(), language: "de".to_owned(), header, body, buttons }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_for_the_number_or_its_organization_goes_before_the_installation() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        let of_organization = NumberSettings {
            opt_in_template: Some(template("of_the_organization")),
            opt_in_limit: Some(1),
            ..NumberSettings::default()
        };
        let of_number =
            NumberSettings { opt_in_template: Some(template("of_the_number")), ..NumberSettings::default() };
        for (kind, settings) in [(DirectoryKind::Organization, of_organization), (DirectoryKind::Number, of_number)] {
            let set = DirectoryRecord { settings: Some(settings), ..directory(kind) };
            let key = set.key().expect("a key");
            append(&world, vec![record(&world, Topic::Directory, &key, &set)]).await;
        }
        ask(&world, "ask", 1).await;
        let sends = world.history(&Topics::new("").name(Topic::SendCommands).into());
        let send: SendMessage = decode(sends[0].value.as_deref().expect("a value")).expect("a command");
        assert_eq!(send.content.template, Some(template("of_the_number")));
        event(&world, "failed", message("ask"), failed("wait", Some(131_049))).await;
        until(&world, "OptInFailed", 1).await;
        append(&world, vec![command(&world, "again", ConsentAction::RequestOptIn, None)]).await;
        let refused = until_some(&world, |recorded| matches!(recorded.event, Event::MessageRejected(_))).await;
        let Event::MessageRejected(rejected) = refused.event else { unreachable!() };
        assert_eq!(rejected.reason, "opt_in_limit", "once is the organization's limit");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_set_goes_to_the_dead_letters() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        let settings = NumberSettings { opt_in_template: Some(template("No template")), ..NumberSettings::default() };
        let set = DirectoryRecord { settings: Some(settings), ..directory(DirectoryKind::Organization) };
        append(&world, vec![record(&world, Topic::Directory, "organization/acme", &set)]).await;
        let letters = Topics::new("").dlq(Topic::Directory).into();
        while world.history(&letters).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let reason = world.history(&letters)[0]
            .headers
            .iter()
            .any(|(_, value)| value.as_deref() == Some(b"invalid_settings".as_slice()));
        assert!(reason);
    })
    .await;
}
