//! Deliveries that nobody documented, signed by Meta: whatever their structure, nothing panics, and every accepted one is accounted for,
//! item by item or whole among the dead letters.
//!
//! `FUZZ_CASES` (300) is how many are tried: `FUZZ_CASES=1000000 cargo test -p webhook-receiver --release fuzz` for a long run.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use connector_contracts::{Topic, Topics, decode};
use connector_domain::command::WebhookItem;
use connector_domain::time::Timestamp;
use connector_simulated::SimWorld;
use connector_whatsapp::signature::sign;
use connector_whatsapp::webhook::split;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use tower::ServiceExt;
use webhook_receiver::Receiver;

use crate::scene::{SECRET, config, create_topics, platform};

fn fixtures() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/whatsapp/tests/fixtures/webhooks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

/// Every place in a JSON value, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, inner)| places(inner, format!("{at}/{name}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, inner)| places(inner, format!("{at}/{i}"), found)),
        _ => {}
    }
    found.push(at);
}

/// What may stand anywhere: nothing, other kinds, odd ids, deep nesting, and parts of other deliveries.
fn anything() -> impl Strategy<Value = Value> {
    let parts: Vec<Value> = fixtures()
        .into_iter()
        .flat_map(|fixture| {
            [fixture["entry"].clone(), fixture["entry"][0].clone(), fixture["entry"][0]["changes"].clone()]
        })
        .collect();
    let deep = (0..100).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        select(vec!["15550100042", "US.1", "", " ", "0", "-1", "99999999999999999999", "group"]).prop_map(Value::from),
        select(parts),
        Just(deep),
    ]
}

/// A delivery changed in some places, and perhaps damaged in its bytes.
fn deliveries() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), anything()), 0..4);
    let damage = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    (select(fixtures()), changes, prop_oneof![3 => Just(Vec::new()), 1 => damage]).prop_map(
        |(mut body, changes, damage)| {
            for (index, new) in changes {
                let mut found = Vec::new();
                places(&body, String::new(), &mut found);
                if let Some(place) = body.pointer_mut(index.get(&found).as_str()) {
                    *place = new;
                }
            }
            let mut bytes = serde_json::to_vec(&body).unwrap();
            for (index, byte) in damage {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

async fn accepted_and_accounted_for(body: Vec<u8>) {
    let world = SimWorld::new(1);
    create_topics(&world).await;
    let router = Receiver::new(config(&[]), platform(&world, world.calm_log(), world.clock())).router();
    let request = Request::post("/webhooks")
        .header("content-type", "application/json")
        .header("x-hub-signature-256", sign(SECRET.as_bytes(), &body))
        .body(Body::from(body.clone()))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), router.oneshot(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);

    let topics = Topics::default();
    let records = world.history(&topics.name(Topic::Webhooks).into());
    let letters = world.history(&topics.dlq(Topic::Webhooks).into());
    match split(&body, Timestamp(1), "other") {
        Ok(expected) => {
            let mut raws: Vec<_> = expected.into_iter().map(|split| split.item.raw.expose().to_owned()).collect();
            let of = |value: &[u8]| decode::<WebhookItem>(value).unwrap().raw.expose().to_owned();
            let mut kept: Vec<_> = records.iter().map(|record| of(record.value.as_deref().unwrap())).collect();
            raws.sort();
            kept.sort();
            assert_eq!(kept, raws);
            assert!(letters.is_empty());
            // What is kept is made of what was delivered: nothing is blown up.
            let bytes: usize = kept.iter().map(String::len).sum();
            assert!(bytes <= body.len() + 64 * kept.len(), "{bytes} bytes kept of {}", body.len());
        }
        Err(_) => {
            assert!(records.is_empty());
            assert_eq!(letters.len(), 1);
            assert_eq!(letters[0].value.as_deref(), Some(body.as_slice()));
        }
    }
}

#[test]
fn whatever_meta_signs_is_accepted_and_accounted_for() {
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    // The same cases in every short run; a long one goes elsewhere each time.
    let short = cases <= 300;
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = if short {
        proptest::test_runner::TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        )
    } else {
        proptest::test_runner::TestRunner::new(config)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = runner.run(&deliveries(), |body| {
        runtime.block_on(accepted_and_accounted_for(body));
        Ok(())
    });
    outcome.unwrap();
}
