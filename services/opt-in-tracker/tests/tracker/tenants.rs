//! Consent commands of those who have no business with a number, a conversation or an id (P4, R3, R13).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use connector_contracts::headers::dlq;
use connector_contracts::{Topic, Topics, encode};
use connector_domain::command::{ConsentAction, ConsentCommand, DirectoryKind, DirectoryRecord, Recipient};
use connector_domain::consent::ConsentStatus;
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::Address;
use connector_domain::ids::CommandId;
use connector_ports::log::{Append, Record};
use connector_simulated::SimWorld;
use connector_testkit::wait;

use crate::scene::{
    LIMIT, address, append, command, consent, conversation, counts, directory, history, number, platform, play,
    prepared, record, until, until_some,
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

/// The dead letters of the directory: their reasons and values.
fn letters(world: &SimWorld) -> Vec<(String, Option<Bytes>)> {
    let letters = world.history(&Topics::new("").dlq(Topic::Directory).into());
    let told = |letter: &Record| letter.header(dlq::REASON).map(|word| String::from_utf8_lossy(word).into_owned());
    letters.iter().map(|letter| (told(letter).unwrap_or_default(), letter.value.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn nobody_is_enabled_or_becomes_a_contact_on_a_number_of_another_organization() {
    let globex = |kind| DirectoryRecord { organization_id: "globex".into(), ..directory(kind) };
    let contact = DirectoryRecord { phone_number_id: Some("number".into()), ..globex(DirectoryKind::Contact) };
    let foreign = [globex(DirectoryKind::User), contact];
    let written = |world: &SimWorld, entry: &DirectoryRecord| {
        record(world, Topic::Directory, &entry.key().expect("a key"), entry)
    };
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        append(&world, foreign.iter().map(|entry| written(&world, entry)).collect()).await;
        let both = async || (letters(&world).len() == foreign.len()).then_some(());
        wait::until("two dead letters", LIMIT, both).await;
        // Who may not write any more is told so, whatever number the record has.
        let disabled = DirectoryRecord {
            enabled: false,
            phone_number_id: Some("theirs".into()),
            ..directory(DirectoryKind::User)
        };
        append(&world, vec![written(&world, &disabled)]).await;
        until(&world, "WhatsAppDisabled", 1).await;
    })
    .await;
    assert_eq!((counts(&world)["WhatsAppEnabled"], counts(&world)["ContactAdded"]), (1, 1), "those of acme");
    let as_written = |entry| ("number_unknown".to_owned(), written(&world, entry).value);
    assert_eq!(BTreeSet::from_iter(letters(&world)), foreign.iter().map(as_written).collect());
}

#[tokio::test(start_paused = true)]
async fn a_user_may_come_before_the_number() {
    let world = play(async |world: SimWorld| {
        let user = directory(DirectoryKind::User);
        append(&world, vec![record(&world, Topic::Directory, &user.key().expect("a key"), &user)]).await;
        // Long enough for every worker to have looked at the user, and less than their patience.
        platform(&world).clock.sleep(Duration::from_secs(20)).await;
        assert!(!counts(&world).contains_key("WhatsAppEnabled"), "nobody has the number yet");
        let number = number("acme", "number");
        append(&world, vec![record(&world, Topic::Directory, &number.key().expect("a key"), &number)]).await;
        until(&world, "WhatsAppEnabled", 1).await;
    })
    .await;
    assert_eq!(letters(&world), []);
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

/// The id is the asker's own and used; the conversation is somebody else's, named with either number.
#[tokio::test(start_paused = true)]
async fn a_conflict_is_told_in_no_conversation_of_another_organization() {
    let world = play(async |world: SimWorld| {
        prepared(&world).await;
        let own = number("globex", "theirs");
        let mut eve = directory(DirectoryKind::User);
        (eve.organization_id, eve.user_id, eve.phone_number_id) =
            ("globex".into(), Some("eve".into()), Some("theirs".into()));
        let records = [&own, &eve].map(|r| record(&world, Topic::Directory, &r.key().expect("a key"), r));
        append(&world, records.into()).await;
        until(&world, "WhatsAppEnabled", 2).await;
        let ask = |id: &str, number: &str, recipient, action| {
            record(&world, Topic::ConsentCommands, id, &by_globex(&world, id, number, recipient, action))
        };
        append(&world, vec![ask("used", "theirs", Recipient::default(), ConsentAction::AcknowledgeNotice)]).await;
        until(&world, "ActivationNoticeAcknowledged", 1).await;
        let actions = [ConsentAction::Revoke, ConsentAction::Import, ConsentAction::RequestOptIn];
        for action in actions {
            append(&world, ["theirs", "number"].map(|number| ask("used", number, by_id(&world), action)).into()).await;
        }
        until(&world, "MessageRejected", 2 * actions.len()).await;
    })
    .await;
    let eves = platform(&world).keys.user(&"globex".into(), &"eve".into());
    for Recorded { envelope, event } in history(&world) {
        if let Event::MessageRejected(refused) = event {
            assert_eq!((refused.reason.as_str(), refused.field.as_str()), ("conflict", "command_id"));
            assert_eq!(envelope.stream_id, eves, "in no stream of the other tenant");
        }
    }
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
