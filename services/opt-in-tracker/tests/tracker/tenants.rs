//! Consent commands of those who have no business with a number, a conversation or an id (P4, R3, R13).

use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{ConsentAction, ConsentCommand, DirectoryKind, Recipient};
use connector_domain::consent::ConsentStatus;
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::Address;
use connector_domain::ids::CommandId;
use connector_ports::log::Append;
use connector_simulated::SimWorld;

use crate::scene::{
    address, append, command, consent, conversation, counts, directory, history, number, platform, play, prepared,
    record, until, until_some,
};

/// What `globex` asks about the person in the conversation of `acme`.
fn by_globex(
    world: &SimWorld,
    id: &str,
    phone_number_id: &str,
    recipient: Recipient,
    action: ConsentAction,
) -> ConsentCommand {
    ConsentCommand {
        command_id: CommandId::derived(id),
        organization_id: "globex".into(),
        user_id: "eve".into(),
        phone_number_id: phone_number_id.into(),
        recipient,
        action,
        template: None,
        proof: Some("form".into()),
        issued_at: platform(world).clock.now(),
    }
}

fn by_id(world: &SimWorld) -> Recipient {
    Recipient { conversation_id: Some(conversation(world)), address: Address::default() }
}

fn by_phone() -> Recipient {
    Recipient { conversation_id: None, address: address() }
}

/// The refusal of a command: reason, field, and the stream it stands in.
async fn refusal(world: &SimWorld, id: &str) -> (String, String, connector_domain::ids::StreamId) {
    let id = Some(CommandId::derived(id));
    let answered = |e: &Recorded| matches!(e.event, Event::MessageRejected(_)) && e.envelope.command_id == id;
    let Recorded { envelope, event } = until_some(world, answered).await;
    let Event::MessageRejected(refused) = event else { unreachable!() };
    (refused.reason, refused.field, envelope.stream_id)
}

#[tokio::test(start_paused = true)]
async fn nobody_revokes_what_another_organizations_contact_agreed_to() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        append(&world, vec![command(&world, "form", ConsentAction::Import, Some("signed form 7"))]).await;
        until(&world, "OptInAccepted", 1).await;
        let own = number("globex", "theirs");
        let mut eve = directory(DirectoryKind::User);
        (eve.organization_id, eve.user_id, eve.phone_number_id) =
            ("globex".into(), Some("eve".into()), Some("theirs".into()));
        let records = [&own, &eve].map(|r| record(&world, Topic::Directory, &r.key().expect("a key"), r));
        append(&world, records.into()).await;
        until(&world, "WhatsAppEnabled", 2).await;
        let eves = platform(&world).keys.user(&"globex".into(), &"eve".into());
        let foreign = ("not_enabled".to_owned(), "phone_number_id".to_owned(), eves.clone());
        let unknown = ("not_a_contact".to_owned(), "recipient".to_owned(), eves);
        for action in [ConsentAction::Revoke, ConsentAction::Import, ConsentAction::RequestOptIn] {
            for (name, number, recipient, expected) in [
                ("its number, by id", "number", by_id(&world), &foreign),
                ("its number, by phone", "number", by_phone(), &foreign),
                ("its conversation", "theirs", by_id(&world), &unknown),
                ("no number", "404", by_id(&world), &foreign),
            ] {
                let id = format!("{name} {action:?}");
                let asked = by_globex(&world, &id, number, recipient, action);
                append(&world, vec![record(&world, Topic::ConsentCommands, &id, &asked)]).await;
                assert_eq!(&refusal(&world, &id).await, expected, "{id}");
            }
        }
        let asked = by_globex(&world, "notice", "number", Recipient::default(), ConsentAction::AcknowledgeNotice);
        append(&world, vec![record(&world, Topic::ConsentCommands, "notice", &asked)]).await;
        assert_eq!(refusal(&world, "notice").await, foreign);
    })
    .await;
    assert_eq!(consent(&world).status, ConsentStatus::Accepted);
    assert!(!counts(&world).contains_key("ConsentRevoked"));
    let of_conversation = history(&world).into_iter().filter(|e| e.envelope.stream_id == conversation(&world));
    assert!(
        of_conversation.into_iter().all(|e| e.envelope.organization_id.as_str() == "acme"),
        "a stream is one tenant's"
    );
}

#[tokio::test(start_paused = true)]
async fn one_id_is_one_command_of_its_organization_whatever_stream_answers_it() {
    play(async |world: SimWorld| {
        prepared(&world).await;
        append(&world, vec![command(&world, "one", ConsentAction::Import, Some("signed form 7"))]).await;
        until(&world, "OptInAccepted", 1).await;
        // The user's own stream answers it.
        append(&world, vec![command(&world, "one", ConsentAction::AcknowledgeNotice, None)]).await;
        let (reason, field, _) = refusal(&world, "one").await;
        assert_eq!((reason.as_str(), field.as_str()), ("conflict", "command_id"));
        assert!(!counts(&world).contains_key("ActivationNoticeAcknowledged"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_command_is_refused_with_its_field_and_only_an_unreadable_id_is_a_dead_letter() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        let mut wrong = by_globex(&world, "phone as id", "number", by_phone(), ConsentAction::Revoke);
        wrong.recipient.conversation_id = Some("491701234567".into());
        append(&world, vec![record(&world, Topic::ConsentCommands, "wrong", &wrong)]).await;
        let (reason, field, _) = refusal(&world, "phone as id").await;
        assert_eq!((reason.as_str(), field.as_str()), ("invalid", "recipient.conversation_id"));

        let whole = by_globex(&world, "cut", "number", by_phone(), ConsentAction::Revoke);
        let whole = encode(&whole).expect("it fits");
        let damaged = |value: &[u8]| Append {
            topic: Topics::new("").name(Topic::ConsentCommands).into(),
            partition: None,
            key: Some("publisher".into()),
            value: Some(value.to_vec().into()),
            headers: vec![],
        };
        append(&world, vec![damaged(&whole[..whole.len() - 1]), damaged(&whole[..20])]).await;
        let (reason, field, _) = refusal(&world, "cut").await;
        assert_eq!((reason.as_str(), field.as_str()), ("invalid", "issued_at"));
        let dead =
            async || (world.history(&Topics::new("").dlq(Topic::ConsentCommands).into()).len() == 1).then_some(());
        connector_testkit::wait::until("a dead letter", crate::scene::LIMIT, dead).await;
    })
    .await;
    assert!(!counts(&world).contains_key("ConsentRevoked"));
}
