//! What is refused, and what the contact will read.

use super::*;
use crate::command::{ButtonParameter, TemplateParameter};

fn template(format: &str, header: Option<&str>, body: &str, buttons: &[&str]) -> Template {
    Template {
        waba_id: "waba".into(),
        organization_id: "acme".into(),
        name: "greeting".to_owned(),
        language: "en_US".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: format.to_owned(),
        header_format: header.map(|_| "TEXT".to_owned()),
        header: header.map(str::to_owned),
        body: body.to_owned(),
        footer: Some("Acme".to_owned()),
        buttons: buttons.iter().map(|button| a_button(button)).collect(),
        other_components: Vec::new(),
    }
}

/// From `type|text|url`.
fn a_button(button: &str) -> TemplateButton {
    let mut parts = button.splitn(3, '|').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    TemplateButton { kind: part(), text: part(), url: Some(part()).filter(|url| !url.is_empty()) }
}

fn values(values: &[(Option<&str>, &str)]) -> Vec<TemplateParameter> {
    values
        .iter()
        .map(|(name, text)| TemplateParameter { name: name.map(str::to_owned), text: (*text).into() })
        .collect()
}

fn call(header: &[(Option<&str>, &str)], body: &[(Option<&str>, &str)], buttons: &[(i32, &str, &str)]) -> TemplateCall {
    TemplateCall {
        name: "greeting".to_owned(),
        language: "en_US".to_owned(),
        header: values(header),
        body: values(body),
        buttons: buttons
            .iter()
            .map(|(index, sub_type, text)| ButtonParameter {
                index: *index,
                sub_type: (*sub_type).to_owned(),
                text: (*text).into(),
            })
            .collect(),
    }
}

fn refused(template: &Template, call: &TemplateCall) -> (Reason, &'static str) {
    let rejection = check(template, call).expect_err("should be refused");
    (rejection.reason, rejection.field)
}

#[test]
fn placeholders_are_found_once_each_and_numbers_in_numeric_order() {
    assert_eq!(placeholders("{{2}} and {{1}}, {{2}} again"), ["1", "2"]);
    assert_eq!(placeholders("Hi {{ name }}, {{order_id}} / {{name}}"), ["name", "order_id"]);
    assert_eq!(placeholders("{{}} {{a b}} {{x {y}} {1} {{"), Vec::<String>::new());
    assert_eq!(placeholders("{{{1}}}"), ["1"]);
}

#[test]
fn positional_parameters_are_counted_and_carry_no_names() {
    let template = template("POSITIONAL", Some("Order {{1}}"), "Hi {{1}}, {{2}} is ready", &[]);
    assert_eq!(check(&template, &call(&[(None, "7")], &[(None, "Ada"), (None, "tea")], &[])), Ok(()));
    let body = (Reason::TemplateParameters, "content.template.body");
    assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada")], &[])), body);
    assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada"), (None, "  ")], &[])), body);
    assert_eq!(refused(&template, &call(&[(None, "7")], &[(None, "Ada"), (Some("2"), "tea")], &[])), body);
    let header = (Reason::TemplateParameters, "content.template.header");
    assert_eq!(refused(&template, &call(&[], &[(None, "Ada"), (None, "tea")], &[])), header);
}

#[test]
fn named_parameters_may_come_in_any_order_but_each_exactly_once() {
    let template = template("NAMED", None, "Hi {{name}}, {{item}} for {{name}}", &[]);
    assert_eq!(check(&template, &call(&[], &[(Some("item"), "tea"), (Some("name"), "Ada")], &[])), Ok(()));
    for body in [
        &[(Some("name"), "Ada"), (Some("name"), "Eve")][..],
        &[(Some("name"), "Ada"), (None, "tea")],
        &[(Some("name"), "Ada"), (Some("thing"), "tea")],
        &[(Some("name"), "Ada"), (Some("item"), "tea"), (Some("more"), "x")],
    ] {
        assert_eq!(refused(&template, &call(&[], body, &[])).0, Reason::TemplateParameters);
    }
}

#[test]
fn only_the_approved_template_in_the_right_language_can_be_sent() {
    let approved = template("POSITIONAL", None, "Hi", &[]);
    for status in ["PAUSED", "REJECTED", "DISABLED", "PENDING", "IN_APPEAL", "ARCHIVED", ""] {
        let template = Template { status: status.to_owned(), ..approved.clone() };
        assert_eq!(refused(&template, &call(&[], &[], &[])), (Reason::TemplateNotSendable, "content.template"));
    }
    let german = Template { language: "de".to_owned(), ..approved.clone() };
    let language = (Reason::TemplateNotSendable, "content.template.language");
    assert_eq!(refused(&german, &call(&[], &[], &[])), language);
    let other = Template { name: "other".to_owned(), ..approved };
    assert_eq!(refused(&other, &call(&[], &[], &[])), (Reason::TemplateNotSendable, "content.template.name"));
}

#[test]
fn buttons_take_what_they_need_and_nothing_else() {
    let template = template(
        "POSITIONAL",
        None,
        "Hi",
        &[
            "QUICK_REPLY|Yes|",
            "URL|Track|https://example.org/{{1}}",
            "URL|Home|https://example.org",
            "PHONE_NUMBER|Call|",
        ],
    );
    assert_eq!(check(&template, &call(&[], &[], &[(1, "url", "42")])), Ok(()));
    assert_eq!(check(&template, &call(&[], &[], &[(0, "quick_reply", "OPT_IN_ACCEPT"), (1, "url", "42")])), Ok(()));
    for buttons in [
        &[][..],
        &[(1, "url", "")],
        &[(1, "quick_reply", "42")],
        &[(1, "url", "42"), (1, "url", "43")],
        &[(1, "url", "42"), (2, "url", "43")],
        &[(1, "url", "42"), (9, "url", "43")],
        &[(1, "url", "42"), (-1, "quick_reply", "x")],
    ] {
        assert_eq!(refused(&template, &call(&[], &[], buttons)).1, "content.template.buttons", "{buttons:?}");
    }
}

#[test]
fn the_preview_is_what_the_contact_will_read() {
    let positional = template("POSITIONAL", Some("Order {{1}}"), "{{2}} for {{1}}", &["QUICK_REPLY|Yes|"]);
    let filled = call(&[(None, "7")], &[(None, "Ada"), (None, "{{1}} tea")], &[]);
    assert_eq!(preview(&positional, &filled), "Order 7\n{{1}} tea for Ada\nAcme\n[Yes]");
    assert_eq!(preview(&positional, &call(&[], &[], &[])), "Order {{1}}\n{{2}} for {{1}}\nAcme\n[Yes]");
    let named = template("NAMED", None, "Hi {{ name }}!", &[]);
    assert_eq!(preview(&named, &call(&[], &[(Some("name"), "Zoë 🦊")], &[])), "Hi Zoë 🦊!\nAcme");
}

fn approved() -> Template {
    template("POSITIONAL", None, "Hi {{1}}", &[])
}

fn hi(text: &str) -> TemplateCall {
    call(&[], &[(None, text)], &[])
}

#[test]
fn a_value_has_no_line_break_no_tab_and_at_most_four_spaces_in_a_row() {
    assert_eq!(check(&approved(), &hi("a    b c    d")), Ok(()));
    assert_eq!(check(&approved(), &hi("    a")), Ok(()));
    for value in
        ["a\nb", "a\rb", "a\r\nb", "a\tb", "a     b", "     a", "a     ", "\u{2028}a", "a\u{b}b", "a\0b", " \u{a0} "]
    {
        let body = (Reason::TemplateParameters, "content.template.body");
        assert_eq!(refused(&approved(), &hi(value)), body, "{value:?}");
        let with_header = template("NAMED", Some("To {{who}}"), "Hi", &[]);
        let header = (Reason::TemplateParameters, "content.template.header");
        assert_eq!(refused(&with_header, &call(&[(Some("who"), value)], &[], &[])), header, "{value:?}");
    }
}

#[test]
fn a_filled_text_is_no_longer_than_whatsapp_allows() {
    assert_eq!(check(&approved(), &hi(&"é".repeat(1021))), Ok(()));
    let body = (Reason::TemplateParameters, "content.template.body");
    assert_eq!(refused(&approved(), &hi(&"é".repeat(1022))), body);
    assert_eq!(refused(&approved(), &hi(&"🦊".repeat(511))), body);
    let with_header = template("POSITIONAL", Some("Order {{1}}"), "Hi", &[]);
    assert_eq!(check(&with_header, &call(&[(None, &"7".repeat(54))], &[], &[])), Ok(()));
    let header = (Reason::TemplateParameters, "content.template.header");
    assert_eq!(refused(&with_header, &call(&[(None, &"7".repeat(55))], &[], &[])), header);
}

/// A placeholder may stand hundreds of times, and a value have megabytes: what they would be together is never put together.
#[test]
fn a_value_that_is_too_long_is_measured_before_anything_else_is_done_with_it() {
    let template = template("POSITIONAL", None, &"{{1}} ".repeat(200), &[]);
    let value = format!("{}\n", "x".repeat(2000));
    let rejection = check(&template, &call(&[], &[(None, &value)], &[])).expect_err("it is too long");
    assert!(rejection.remedy.starts_with("Shorten"), "{}", rejection.remedy);
}

#[test]
fn what_a_call_cannot_fill_is_not_sendable_and_says_why() {
    let not_sendable = |template: &Template| {
        let rejection = check(template, &hi("Ada")).expect_err("should be refused");
        assert_eq!(rejection.reason, Reason::TemplateNotSendable);
        assert_ne!(rejection.remedy, Reason::TemplateNotSendable.remedy());
        obstacle(template).expect("an obstacle").as_str()
    };
    for format in ["IMAGE", "video", "DOCUMENT", "GIF", "PRODUCT", ""] {
        let with_header = Template { header_format: Some(format.to_owned()), ..approved() };
        assert_eq!(not_sendable(&with_header), "media_header", "{format}");
    }
    let place = Template { header_format: Some("LOCATION".to_owned()), ..approved() };
    assert_eq!(not_sendable(&place), "location_header");
    for (kind, why) in [
        ("FLOW", "flow_button"),
        ("flow", "flow_button"),
        ("CATALOG", "catalog_button"),
        ("MPM", "catalog_button"),
        ("SPM", "catalog_button"),
        ("OTP", "one_time_code"),
        ("VOICE_CALL", "other_button"),
        ("ORDER_DETAILS", "other_button"),
        ("", "other_button"),
    ] {
        let with_button = Template { buttons: vec![a_button(&format!("{kind}|Go|"))], ..approved() };
        assert_eq!(not_sendable(&with_button), why, "{kind}");
        assert_eq!(
            check(&with_button, &hi("Ada")).expect_err("refused").field,
            obstacle(&with_button).expect("one").rejection().field
        );
    }
    for (component, why) in [
        ("CAROUSEL", "carousel"),
        ("LIMITED_TIME_OFFER", "limited_time_offer"),
        ("CALL_PERMISSION_REQUEST", "other_component"),
        ("", "other_component"),
    ] {
        let with_component = Template { other_components: vec![component.to_owned()], ..approved() };
        assert_eq!(not_sendable(&with_component), why, "{component}");
    }
    let code = Template { category: "AUTHENTICATION".to_owned(), ..approved() };
    assert_eq!(not_sendable(&code), "one_time_code");
    assert_eq!(not_sendable(&Template { body: " ".to_owned(), ..approved() }), "no_body");
    assert_eq!(not_sendable(&Template { parameter_format: "MIXED".to_owned(), ..approved() }), "parameter_format");
    assert_eq!(
        not_sendable(&Template { buttons: vec![a_button("URL|Go|https://a.example/{{1}}/{{2}}")], ..approved() }),
        "other_button"
    );
}

#[test]
fn a_link_takes_a_value_that_may_stand_in_a_url() {
    let link =
        Template { body: "Hi".to_owned(), buttons: vec![a_button("URL|Go|https://a.example/{{1}}")], ..approved() };
    for value in ["42", "a/b?c=d&e=%C3%A9#f", "~x'(y)*"] {
        assert_eq!(check(&link, &call(&[], &[], &[(0, "url", value)])), Ok(()), "{value}");
    }
    let long = "a".repeat(2000);
    for value in ["a b", "a\nb", "é", "%", "%4", "%zz", "a\"b", "<x>", &long] {
        assert_eq!(refused(&link, &call(&[], &[], &[(0, "url", value)])).1, "content.template.buttons", "{value}");
    }
}

#[test]
fn a_code_to_copy_is_asked_for_and_has_up_to_fifteen_characters() {
    let coupon = Template { body: "Hi".to_owned(), buttons: vec![a_button("COPY_CODE||")], ..approved() };
    assert_eq!(check(&coupon, &call(&[], &[], &[(0, "copy_code", "SUMMER-25-OFF-1")])), Ok(()));
    for buttons in [
        &[][..],
        &[(0, "copy_code", "")],
        &[(0, "copy_code", "SUMMER-25-OFF-12")],
        &[(0, "copy_code", "A\tB")],
        &[(0, "quick_reply", "SUMMER")],
        &[(0, "url", "SUMMER")],
        &[(0, "copy_code", "A"), (0, "copy_code", "B")],
    ] {
        let parameters = (Reason::TemplateParameters, "content.template.buttons");
        assert_eq!(refused(&coupon, &call(&[], &[], buttons)), parameters, "{buttons:?}");
    }
}

#[test]
fn every_obstacle_has_a_word_and_a_sentence_of_its_own() {
    let words: std::collections::HashSet<_> = Obstacle::ALL.iter().map(|obstacle| obstacle.as_str()).collect();
    let sentences: std::collections::HashSet<_> =
        Obstacle::ALL.iter().map(|obstacle| obstacle.rejection().remedy).collect();
    assert_eq!((words.len(), sentences.len()), (Obstacle::ALL.len(), Obstacle::ALL.len()));
}
