//! What is wrong with a command by itself.

use std::time::Duration;

use connector_domain::command::{
    ConsentAction, ConsentCommand, Content, LONGEST_LIFE, Recipient, SendMessage, SendPolicy, SendPurpose, TemplateCall,
};
use connector_domain::decide::{Reason, Rejection};
use connector_domain::ids::{Bsuid, CommandId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;

use crate::scenario::t;

fn send(change: impl FnOnce(&mut SendMessage)) -> Result<(), (Reason, &'static str)> {
    let mut command = SendMessage {
        command_id: CommandId::derived("c"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient::default(),
        content: Content::text("hi"),
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::Conversation,
        issued_at: t(0, 0),
        not_after: None,
    };
    change(&mut command);
    named(command.check(t(0, 0)))
}

fn consent(change: impl FnOnce(&mut ConsentCommand)) -> Result<(), (Reason, &'static str)> {
    let mut command = ConsentCommand {
        command_id: CommandId::derived("c"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient::default(),
        action: ConsentAction::Revoke,
        template: None,
        proof: None,
        issued_at: t(0, 0),
    };
    change(&mut command);
    named(command.check())
}

fn named(checked: Result<(), Rejection>) -> Result<(), (Reason, &'static str)> {
    checked.map_err(|refused| (refused.reason, refused.field))
}

fn call(name: &str, language: &str) -> TemplateCall {
    TemplateCall { name: name.to_owned(), language: language.to_owned(), header: vec![], body: vec![], buttons: vec![] }
}

#[test]
fn what_is_no_opaque_id_is_refused_with_the_name_of_its_field() {
    assert_eq!(send(|_| {}), Ok(()));
    assert_eq!(consent(|_| {}), Ok(()));
    let wrong = |field| Err((Reason::Invalid, field));
    for phone in ["+491701234567", "491701234567", ""] {
        let stream = Some(phone.into());
        assert_eq!(
            send(|command| command.recipient.conversation_id = stream.clone()),
            wrong("recipient.conversation_id")
        );
        assert_eq!(consent(|command| command.recipient.conversation_id = stream), wrong("recipient.conversation_id"));
        assert_eq!(send(|command| command.user_id = phone.into()), wrong("user_id"));
        assert_eq!(consent(|command| command.user_id = phone.into()), wrong("user_id"));
        assert_eq!(send(|command| command.content.reply_to = Some(phone.into())), wrong("content.reply_to"));
    }
    assert_eq!(send(|command| command.organization_id = "".into()), wrong("organization_id"));
    assert_eq!(send(|command| command.organization_id = "a/b".into()), wrong("organization_id"));
    assert_eq!(send(|command| command.phone_number_id = "+1 555".into()), wrong("phone_number_id"));
    assert_eq!(consent(|command| command.phone_number_id = "".into()), wrong("phone_number_id"));
    let bsuid = |text: &str| Some(Bsuid(text.to_owned()));
    for other in ["", "DE. 1", "491701234567", "+491701234567"] {
        assert_eq!(send(|command| command.recipient.address.bsuid = bsuid(other)), wrong("recipient.bsuid"), "{other}");
        let consent = consent(|command| command.recipient.address.bsuid = bsuid(other));
        assert_eq!(consent, wrong("recipient.bsuid"), "{other}");
    }
    assert_eq!(send(|command| command.recipient.address.bsuid = bsuid("DE.1")), Ok(()));
    let template = |name, language| send(|command| command.content = Content::template(call(name, language)));
    assert_eq!(template("Hello/there", "en"), wrong("content.template.name"));
    assert_eq!(template("hello", ""), wrong("content.template.language"));
    assert_eq!(consent(|command| command.template = Some(call("", "en"))), wrong("template.name"));
    assert_eq!(consent(|command| command.proof = Some("x".repeat(5000).as_str().into())), wrong("proof"));
}

#[test]
fn times_that_are_none_are_refused() {
    let wrong = |field| Err((Reason::Invalid, field));
    for never in [Timestamp(-1), Timestamp(i64::MIN), Timestamp(i64::MAX)] {
        assert_eq!(send(|command| command.issued_at = never), wrong("issued_at"));
        assert_eq!(consent(|command| command.issued_at = never), wrong("issued_at"));
        assert_eq!(send(|command| command.not_after = Some(never)), wrong("not_after"));
    }
}

#[test]
fn nothing_lives_longer_than_the_topic_of_accepted_messages_keeps_it() {
    let longest = t(0, 0) + LONGEST_LIFE;
    assert_eq!(send(|command| command.not_after = Some(longest)), Ok(()));
    let longer = longest + Duration::from_millis(1);
    assert_eq!(send(|command| command.not_after = Some(longer)), Err((Reason::Invalid, "not_after")));
    // A setting cannot make it longer.
    let rules = Rules { command_life: 10 * LONGEST_LIFE, ..Rules::default() };
    let mut end = None;
    let checked = send(|command| end = Some(command.effective_not_after(&rules, t(0, 0))));
    assert_eq!((checked, end), (Ok(()), Some(longest)));
}
