//! Templates and profiles against a Graph API of a few lines.

use axum::Router;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use connector_domain::ids::{OrganizationId, PhoneNumberId, WabaId};
use connector_domain::template::TemplateButton;
use connector_ports::retry::Retry;
use connector_ports::whatsapp::{BusinessProfile, WhatsApp, WhatsAppError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::server::client;

async fn start(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn ids() -> (OrganizationId, WabaId, PhoneNumberId) {
    ("acme".into(), "100000000000001".into(), "200000000000001".into())
}

fn page(query: &HashMap<String, String>) -> Value {
    // `next` names a host that must not be asked.
    let next = |after: &str| json!({"cursors": {"before": "b", "after": after}, "next": "http://192.0.2.1/never"});
    match query.get("after").map(String::as_str) {
        None => json!({"data": [
            {"id": "1", "name": "opt_in", "language": "en_US", "status": "APPROVED", "category": "UTILITY",
             "parameter_format": "NAMED", "components": [
                {"type": "HEADER", "format": "TEXT", "text": "Hello {{first_name}}"},
                {"type": "BODY", "text": "May we write to you, {{first_name}}?"},
                {"type": "FOOTER", "text": "Acme"},
                {"type": "BUTTONS", "buttons": [
                    {"type": "QUICK_REPLY", "text": "Yes"},
                    {"type": "URL", "text": "Terms", "url": "https://example.com/{{1}}"}]}]},
            {"id": "2", "language": "en_US"}], "paging": next("c+/=1")}),
        Some("c+/=1") => json!({"data": [
            {"name": "photo", "language": "de", "status": "paused", "category": "marketing", "components": [
                {"type": "header", "format": "image"}, {"type": "body", "text": "Look"}, {"type": "carousel", "cards": []}]}],
            "paging": {"cursors": {"after": "c2"}}}),
        other => panic!("asked for {other:?}"),
    }
}

#[tokio::test]
async fn templates_are_read_page_by_page_from_the_configured_host() {
    let router = Router::new().route(
        "/v26.0/100000000000001/message_templates",
        get(|Query(query): Query<HashMap<String, String>>| async move { page(&query).to_string() }),
    );
    let (organization, waba, _) = ids();
    let templates = client(&start(router).await).templates(&organization, &waba).await.unwrap();
    assert_eq!(templates.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["opt_in", "photo"]);
    let opt_in = &templates[0];
    assert_eq!((&opt_in.organization_id, &opt_in.waba_id), (&organization, &waba));
    assert_eq!(opt_in.header.as_deref(), Some("Hello {{first_name}}"));
    assert_eq!(opt_in.body, "May we write to you, {{first_name}}?");
    assert_eq!(opt_in.footer.as_deref(), Some("Acme"));
    let button = |kind: &str, text: &str, url: Option<&str>| TemplateButton {
        kind: kind.to_owned(),
        text: text.to_owned(),
        url: url.map(str::to_owned),
    };
    let buttons = [button("QUICK_REPLY", "Yes", None), button("URL", "Terms", Some("https://example.com/{{1}}"))];
    assert_eq!(opt_in.buttons, buttons);
    let photo = &templates[1];
    assert_eq!((photo.status.as_str(), photo.category.as_str()), ("PAUSED", "MARKETING"));
    assert_eq!((photo.parameter_format.as_str(), photo.header.as_deref()), ("POSITIONAL", None));
    // What cannot be filled is kept, so that nobody tries to.
    assert_eq!((photo.header_format.as_deref(), opt_in.header_format.as_deref()), (Some("IMAGE"), Some("TEXT")));
    assert_eq!((&photo.other_components[..], &opt_in.other_components[..]), (&["CAROUSEL".to_owned()][..], &[][..]));
}

#[tokio::test]
async fn the_state_of_a_number_is_read_in_whatsapps_words() {
    let answer = |body: Value| {
        let path = "/v26.0/200000000000001";
        Router::new().route(path, get(move || async move { body.to_string() }))
    };
    let (_, _, number) = ids();
    let full = json!({"id": "200000000000001", "quality_rating": "GREEN", "status": "CONNECTED", "throughput": {"level": "HIGH"},
        "whatsapp_business_manager_messaging_limit": "TIER_10K"});
    let state = client(&start(answer(full)).await).number_state(&number).await.unwrap();
    assert_eq!((state.contacts_per_day(), state.fastest()), (Some(10_000), Some(1_000)));
    assert_eq!((state.quality_rating.as_deref(), state.status.as_deref()), (Some("GREEN"), Some("CONNECTED")));
    let less = client(&start(answer(json!({"id": "200000000000001"}))).await).number_state(&number).await.unwrap();
    assert_eq!((less.contacts_per_day(), less.fastest(), less.status), (None, None, None));
}

#[tokio::test]
async fn a_list_that_repeats_its_cursor_ends() {
    let endless = json!({"data": [{"name": "a", "language": "en"}],
        "paging": {"cursors": {"after": "same"}, "next": "http://192.0.2.1/"}});
    let router = Router::new()
        .route("/v26.0/100000000000001/message_templates", get(move || async move { endless.to_string() }));
    let (organization, waba, _) = ids();
    assert_eq!(client(&start(router).await).templates(&organization, &waba).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_profile_is_read_in_both_shapes_with_its_verified_mark() {
    let fields = json!({"about": "We are open", "address": "", "websites": ["https://example.com"],
        "vertical": "RETAIL", "profile_picture_url": "https://example.com/p.jpg", "messaging_product": "whatsapp"});
    let expected = BusinessProfile {
        about: Some("We are open".into()),
        websites: vec!["https://example.com".into()],
        vertical: Some("RETAIL".into()),
        picture_url: Some("https://example.com/p.jpg".into()),
        official: true,
        ..BusinessProfile::default()
    };
    for shape in [json!({"data": [fields]}), json!({"data": [{"business_profile": fields}]})] {
        let approved = json!({"id": "1", "oba_status": "APPROVED"});
        let router = Router::new()
            .route("/v26.0/200000000000001/whatsapp_business_profile", get(move || async move { shape.to_string() }))
            .route(
                "/v26.0/200000000000001/official_business_account",
                get(move || async move { approved.to_string() }),
            );
        assert_eq!(client(&start(router).await).profile(&ids().2).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn setting_a_profile_sends_only_what_is_given() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let router = Router::new().route(
        "/v26.0/200000000000001/whatsapp_business_profile",
        axum::routing::post(move |body: String| async move {
            sink.lock().unwrap().push(serde_json::from_str::<Value>(&body).unwrap());
            r#"{"success":true}"#
        }),
    );
    let profile = BusinessProfile { about: Some("Hi".into()), official: true, ..BusinessProfile::default() };
    client(&start(router).await).set_profile(&ids().2, &profile).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [json!({"messaging_product": "whatsapp", "about": "Hi"})]);
}

#[tokio::test]
async fn refusals_are_final_and_troubles_may_be_asked_again() {
    let refused = (400, r#"{"error":{"code":100,"message":"x"}}"#, Retry::Never);
    let throttled = (400, r#"{"error":{"code":80007,"message":"x"}}"#, Retry::Later);
    let broken = (502, "<html>", Retry::Later);
    let transient = (400, r#"{"error":{"code":5,"is_transient":true}}"#, Retry::Later);
    let empty = (200, "{}", Retry::Later);
    for (status, body, retry) in [refused, throttled, broken, transient, empty] {
        let status = StatusCode::from_u16(status).unwrap();
        let router =
            Router::new().route("/v26.0/100000000000001/message_templates", get(move || async move { (status, body) }));
        let (organization, waba, _) = ids();
        let error = client(&start(router).await).templates(&organization, &waba).await.unwrap_err();
        assert_eq!(error.retry(), retry, "{body}: {error}");
    }
    let (organization, _, _) = ids();
    let nowhere = client("http://127.0.0.1:1");
    let error = nowhere.templates(&organization, &"100".into()).await.unwrap_err();
    assert!(matches!(error, WhatsAppError::Unavailable { .. }));
    let error = nowhere.templates(&organization, &"../me".into()).await.unwrap_err();
    assert!(matches!(error, WhatsAppError::Refused { code: 100 }));
}
