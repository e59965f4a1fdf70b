//! P13: only templates that WhatsApp approved, filled as it approved them.

use connector_domain::command::{ButtonParameter, Content};
use connector_domain::decide::Reason;
use connector_domain::template::Template;

use crate::scenario::{Scenario, button, greeting, greeting_call, marketing, send, t, template, wrote};

#[test]
fn a_template_that_whatsapp_does_not_let_through_is_refused_before_any_call() {
    for status in [
        "PAUSED",
        "REJECTED",
        "DISABLED",
        "PENDING",
        "IN_APPEAL",
        "PENDING_DELETION",
        "DELETED",
        "LIMIT_EXCEEDED",
        "ARCHIVED",
        "LOCKED",
        "FLAGGED",
        "A_STATUS_OF_NEXT_YEAR",
        "UNKNOWN",
        "",
    ] {
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

#[test]
fn a_value_that_whatsapp_would_refuse_is_refused_before_any_call() {
    let mut story = Scenario::consented();
    for value in
        ["Two parcels.\nOne on Monday.", "Two parcels.\tOne on Monday.", "Two parcels.     One on Monday.", "\r"]
    {
        let command = send(Content::template(greeting_call(value)));
        story = story.when(command).then_rejects_field(Reason::TemplateParameters, "content.template.body");
    }
    let long = send(Content::template(greeting_call(&"a".repeat(1025))));
    let story = story.when(long).then_rejects_field(Reason::TemplateParameters, "content.template.body");
    story.when(send(Content::template(greeting_call("Two parcels.    One on Monday.")))).then_accepts();
}

#[test]
fn a_template_that_a_call_cannot_fill_is_refused_before_any_call() {
    let picture = Template { header_format: Some("IMAGE".to_owned()), ..greeting() };
    let place = Template { header_format: Some("LOCATION".to_owned()), ..greeting() };
    for with_header in [picture, place] {
        let story = Scenario::consented().with_template(Some(with_header)).when(template());
        story.then_rejects_field(Reason::TemplateNotSendable, "content.template.header");
    }
    for kind in ["FLOW", "CATALOG", "MPM", "OTP", "NEXT_YEARS_BUTTON"] {
        let with_button = Template { buttons: vec![button(kind, "Go")], ..greeting() };
        Scenario::consented()
            .with_template(Some(with_button))
            .when(template())
            .then_rejects(Reason::TemplateNotSendable);
    }
    for component in ["CAROUSEL", "LIMITED_TIME_OFFER", "NEXT_YEARS_COMPONENT"] {
        let with_component = Template { other_components: vec![component.to_owned()], ..greeting() };
        let story = Scenario::consented().with_template(Some(with_component)).when(template());
        story.then_rejects(Reason::TemplateNotSendable);
    }
    let code = Template { category: "AUTHENTICATION".to_owned(), ..greeting() };
    Scenario::consented().with_template(Some(code)).when(template()).then_rejects(Reason::TemplateNotSendable);
}

#[test]
fn a_code_to_copy_is_asked_for_before_any_call() {
    let coupon = Template { buttons: vec![button("COPY_CODE", "")], ..greeting() };
    let story = Scenario::consented().with_template(Some(coupon)).when(template());
    let story = story.then_rejects_field(Reason::TemplateParameters, "content.template.buttons");
    let mut call = greeting_call("Bob");
    call.buttons.push(ButtonParameter { index: 0, sub_type: "copy_code".to_owned(), text: "25OFF".into() });
    story.when(send(Content::template(call))).then_accepts();
}
