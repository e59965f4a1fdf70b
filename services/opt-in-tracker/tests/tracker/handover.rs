//! A number goes from one organization to another: every no goes along, and nothing that was allowed (P4).

use connector_contracts::Topic;
use connector_domain::command::{ConsentAction, DirectoryKind, DirectoryRecord};
use connector_domain::consent::{ConsentStatus, Intent};
use connector_domain::conversation::Conversation;
use connector_domain::event::{ConsentImported, Event, MessageReceived, TimeSource, WindowExpired};
use connector_domain::time::Timestamp;
use connector_runtime::emit::Cause;
use connector_runtime::situation::{Question, Situations, conversation_key, load};
use connector_simulated::SimWorld;
use connector_testkit::event::text_received;
use connector_testkit::wait;

use crate::scene::{
    LIMIT, address, append, command, conversation, directory, number, platform, play, prepared, record, until, view,
    write,
};

/// An event in the conversation, of an organization.
async fn told(world: &SimWorld, organization: &str, name: &str, event: impl Into<Event>) {
    let platform = platform(world);
    let cause = Cause {
        organization_id: organization.into(),
        stream_id: conversation(world),
        cause_id: name.to_owned(),
        command_id: None,
        occurred_at: platform.clock.now(),
        time_source: TimeSource::Whatsapp,
        traceparent: None,
    };
    append(world, vec![platform.emitter("test").emit(event, &cause).expect("an event")]).await;
}

/// What the view has of the conversation.
async fn stored(world: &SimWorld) -> Conversation {
    let stream = conversation(world);
    load(view(world, &stream, conversation_key(&stream)).await.as_ref()).expect("ours")
}

async fn until_stored(world: &SimWorld, what: &str, so: impl Fn(&Conversation) -> bool) -> Conversation {
    wait::until(what, LIMIT, async || Some(stored(world).await).filter(|stored| so(stored))).await
}

/// As `globex` decides on it.
async fn seen_by_globex(world: &SimWorld) -> Conversation {
    let question = Question {
        organization_id: "globex".into(),
        user_id: "eve".into(),
        conversation_id: conversation(world),
        addressed_at: None,
    };
    let situations = Situations::new(&platform(world)).now(&[question]).await.expect("the gate");
    situations.into_iter().next().expect("one answer").conversation
}

async fn number_goes_to_globex(world: &SimWorld) {
    let mut eve = directory(DirectoryKind::User);
    (eve.organization_id, eve.user_id) = ("globex".into(), Some("eve".into()));
    let records: [DirectoryRecord; 2] = [number("globex", "number"), eve];
    for entry in records {
        append(world, vec![record(world, Topic::Directory, &entry.key().expect("a key"), &entry)]).await;
    }
    until(world, "WhatsAppEnabled", 2).await;
}

fn message(world: &SimWorld) -> MessageReceived {
    let platform = platform(world);
    MessageReceived {
        phone_number_id: "number".into(),
        address: address(),
        ..text_received(platform.clock.now() + platform.rules.window)
    }
}

#[tokio::test(start_paused = true)]
async fn consent_and_window_stay_with_the_organization_that_got_them() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        append(&world, vec![command(&world, "form", ConsentAction::Import, Some("signed form 7"))]).await;
        write(&world, "hello", Intent::Other).await;
        until_stored(&world, "acme's", |of| of.consent.status == ConsentStatus::Accepted && of.deadline.is_some())
            .await;
        number_goes_to_globex(&world).await;
        // Before anything happens under the new owner.
        let seen = seen_by_globex(&world).await;
        assert_eq!((seen.consent.status, seen.deadline), (ConsentStatus::None, None));
        assert_eq!(seen.address, address());

        told(&world, "globex", "hi", message(&world)).await;
        let of = until_stored(&world, "globex's", |of| of.organization_id == Some("globex".into())).await;
        assert_eq!(of.consent.status, ConsentStatus::Implied);
        told(
            &world,
            "globex",
            "their form",
            Event::ConsentImported(ConsentImported { by: "eve".into(), proof: "form".into() }),
        )
        .await;
        until_stored(&world, "their consent", |of| of.consent.status == ConsentStatus::Accepted).await;
        // The window of the former owner ends, and nothing of the new one's does.
        let before = stored(&world).await;
        told(&world, "acme", "the end", WindowExpired { deadline: before.deadline.expect("one is open") }).await;
        told(&world, "globex", "again", message(&world)).await;
        let after = until_stored(&world, "the last message", |of| of.last_inbound > before.last_inbound).await;
        assert_eq!((after.consent, after.expired), (before.consent, None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_to_the_number_stays_one() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        write(&world, "stop", Intent::Stop).await;
        let stopped = until_stored(&world, "acme's", Conversation::blocked).await;
        number_goes_to_globex(&world).await;
        assert_eq!(seen_by_globex(&world).await.consent.status, ConsentStatus::OptedOut);
        told(&world, "globex", "hi", message(&world)).await;
        let of = until_stored(&world, "globex's", |of| of.organization_id == Some("globex".into())).await;
        assert_eq!((of.consent.status, of.consent.since), (ConsentStatus::OptedOut, stopped.consent.since));
        assert!(of.consent.since > Some(Timestamp::EPOCH));
    })
    .await;
}
