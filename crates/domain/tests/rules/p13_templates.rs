//! P13: only templates that WhatsApp approved, filled as it approved them.

use connector_domain::command::Content;
use connector_domain::decide::Reason;
use connector_domain::template::Template;

use crate::scenario::{Scenario, greeting, greeting_call, marketing, send, t, template, wrote};

#[test]
fn a_template_that_whatsapp_does_not_let_through_is_refused_before_any_call() {
    for status in ["PAUSED", "REJECTED", "DISABLED", "PENDING"] {
        let changed = Template { status: status.to_owned(), ..greeting() };
        let story = Scenario::consented().with_template(Some(changed));
        story.when(template()).then_rejects(Reason::TemplateNotSendable);
    }
    Scenario::consented().with_template(None).when(template()).then_rejects(Reason::TemplateNotSendable);
}

#[test]
fn a_template_that_was_paused_while_its_message_was_queued_does_not_leave() {
    let story = Scenario::consented().when(template()).then_accepts();
    let paused = Template { status: "PAUSED".to_owned(), ..greeting() };
    assert_eq!(story.with_template(Some(paused)).dispatching(), [Err(Reason::TemplateNotSendable)]);
}

#[test]
fn wrong_parameters_are_refused() {
    let mut call = greeting_call("Bob");
    call.body.clear();
    let story = Scenario::consented().when(send(Content::template(call))).then_rejects(Reason::TemplateParameters);
    story.when(send(Content::template(greeting_call("")))).then_rejects(Reason::TemplateParameters);
}

#[test]
fn a_template_command_without_a_template_is_refused() {
    let empty = template().with_send(|command| command.content.template = None);
    Scenario::consented().when(empty).then_rejects_field(Reason::Invalid, "content.template");
}

#[test]
fn a_contact_who_stopped_marketing_gets_no_marketing_until_they_resume() {
    let offer = Template { category: "MARKETING".to_owned(), ..greeting() };
    let story = Scenario::consented().and(marketing(t(1, 0), true)).when(template()).then_accepts();
    let story = story.with_template(Some(offer)).when(template()).then_rejects(Reason::MarketingStopped);
    story.and(marketing(t(2, 0), false)).when(template()).then_accepts();
}

#[test]
fn a_preference_that_was_overtaken_by_a_later_one_changes_nothing() {
    let offer = Template { category: "MARKETING".to_owned(), ..greeting() };
    let story = Scenario::consented().and(marketing(t(2, 0), true)).and(marketing(t(1, 0), false));
    story.with_template(Some(offer)).when(template()).then_rejects(Reason::MarketingStopped);
}

#[test]
fn templates_are_possible_in_an_open_window_as_well() {
    Scenario::consented().and(wrote(t(1, 0), "hello")).when(template()).then_accepts();
}
