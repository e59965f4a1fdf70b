//! The JSON of requests, against fixtures in the form Meta documents.

use std::path::Path;

use connector_domain::command::{ButtonParameter, Content, ContentKind, TemplateCall, TemplateParameter};
use connector_domain::identity::Address;
use connector_domain::ids::Bsuid;
use connector_ports::whatsapp::{Outbound, WhatsApp};
use connector_whatsapp::graph::request_body;
use serde_json::Value;

use crate::server::{accepted, client, header, outbound, serve};

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/requests").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

fn parameters(texts: &[(Option<&str>, &str)]) -> Vec<TemplateParameter> {
    texts.iter().map(|(name, text)| TemplateParameter { name: name.map(str::to_owned), text: (*text).into() }).collect()
}

fn call(name: &str, language: &str) -> TemplateCall {
    TemplateCall { name: name.into(), language: language.into(), header: vec![], body: vec![], buttons: vec![] }
}

fn about(kind: ContentKind) -> Content {
    Content { kind, text: None, preview_url: false, template: None, reply_to: Some("wamid.IN0001".into()) }
}

fn cases() -> Vec<(&'static str, Outbound)> {
    let bsuid = Address { phone: None, bsuid: Some(Bsuid("US.71000000000000000042".into())) };
    let button =
        |index, sub_type: &str, text: &str| ButtonParameter { index, sub_type: sub_type.into(), text: text.into() };
    vec![
        ("text", outbound(Content { preview_url: true, ..Content::text("See you at https://example.com") })),
        ("text_bsuid", Outbound { address: bsuid, ..outbound(Content::text("Hello")) }),
        ("reply", outbound(Content { reply_to: Some("wamid.IN0001".into()), ..Content::text("Hello") })),
        ("template_plain", outbound(Content::template(call("hello_world", "en_US")))),
        (
            "template_positional",
            outbound(Content::template(TemplateCall {
                header: parameters(&[(None, "Monday")]),
                body: parameters(&[(None, "Maja"), (None, "10:00")]),
                ..call("appointment_reminder", "en_US")
            })),
        ),
        (
            "template_named",
            outbound(Content::template(TemplateCall {
                body: parameters(&[(Some("first_name"), "Maja"), (Some("order"), "77")]),
                ..call("order_update", "de")
            })),
        ),
        (
            "template_buttons",
            outbound(Content::template(TemplateCall {
                buttons: vec![
                    button(0, "quick_reply", "opt-in-yes"),
                    button(1, "url", "terms"),
                    button(2, "copy_code", "25OFF"),
                ],
                ..call("opt_in", "en_US")
            })),
        ),
        ("read", outbound(about(ContentKind::Read))),
        ("typing", outbound(about(ContentKind::Typing))),
    ]
}

#[test]
fn requests_are_exactly_what_whatsapp_wants() {
    for (name, outbound) in cases() {
        assert_eq!(request_body(&outbound), Some(fixture(name)), "{name}");
    }
}

#[test]
fn the_phone_number_wins_when_both_identities_are_known() {
    let mut outbound = outbound(Content::text("x"));
    outbound.address.bsuid = Some(Bsuid("US.1".into()));
    let body = request_body(&outbound).unwrap();
    assert_eq!((&body["to"], &body["recipient"]), (&Value::from("+15550100042"), &Value::Null));
}

#[test]
fn the_field_of_the_recipient_follows_from_the_form_of_the_id() {
    let body = |phone: Option<&str>, bsuid: Option<&str>| {
        let mut outbound = outbound(Content::text("x"));
        let address = serde_json::json!({ "phone": phone, "bsuid": bsuid });
        // As records of other writers may have it, in which anything may stand.
        outbound.address = serde_json::from_value(address).ok()?;
        request_body(&outbound)
    };
    let long = format!("US.{}", "1".repeat(128));
    for user_id in ["US.13491208655302741918", "US.ENT.11815799212886844830", "DE.a1", long.as_str()] {
        for (phone, bsuid) in [(None, Some(user_id)), (Some(user_id), None), (Some(user_id), Some(user_id))] {
            // What is no phone number is refused where it is read, or goes into the field that WhatsApp reads it from.
            if let Some(body) = body(phone, bsuid) {
                assert_eq!(
                    (&body["to"], &body["recipient"]),
                    (&Value::Null, &Value::from(user_id)),
                    "{phone:?} {bsuid:?}"
                );
            }
        }
    }
    let both = body(Some("15550100042"), Some("US.1")).unwrap();
    assert_eq!((&both["to"], &both["recipient"]), (&Value::from("+15550100042"), &Value::Null));
    // What stands as a user id is never called as a phone number: nobody has looked whether that person wants it.
    for neither in ["15550100042", "+15550100042", "", "US.", "US", ".1", "us.1", "USA.1", "US.1 2", "call me"] {
        assert_eq!(body(None, Some(neither)), None, "{neither}");
    }
}

#[tokio::test]
async fn on_the_wire_it_is_one_post_with_token_length_and_the_same_json() {
    let (url, requests) = serve(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer(200, &accepted("wamid.OUT1")).await;
        }
    })
    .await;
    let client = client(&url);
    for (name, outbound) in cases() {
        client.send(&outbound).await;
        let request = requests.lock().unwrap().pop().unwrap();
        assert_eq!(request.json(), fixture(name));
        assert!(request.head.starts_with("POST /v26.0/200000000000001/messages HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(header(&request.head, "authorization"), Some("Bearer token-1"));
        assert_eq!(header(&request.head, "content-type"), Some("application/json"));
        assert_eq!(header(&request.head, "transfer-encoding"), None);
        assert!(requests.lock().unwrap().is_empty());
    }
}
