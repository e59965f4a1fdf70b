//! What was answered with 200 is in the log, whatever crashes or fails meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use connector_contracts::{Topic, Topics, decode};
use connector_domain::command::WebhookItem;
use connector_simulated::{Fault, Plan, SimWorld, When};
use connector_whatsapp::signature::sign;
use tower::ServiceExt;
use webhook_receiver::Receiver;

use crate::scene::{SECRET, config, create_topics, delivery, platform};

const DELIVERIES: usize = 4;

fn request(number: usize) -> Request<Body> {
    let body = delivery(&[&format!("{number}a"), &format!("{number}b")]);
    Request::post("/webhooks")
        .header("content-type", "application/json")
        .header("x-hub-signature-256", sign(SECRET.as_bytes(), body.as_bytes()))
        .body(Body::from(body))
        .unwrap()
}

/// A sender that, like Meta, repeats each delivery until it is answered with 200.
async fn receive(world: SimWorld, acknowledged: Arc<Mutex<usize>>) {
    let router = Receiver::new(config(&[]), platform(&world, world.log(), world.clock())).router();
    loop {
        let next = *acknowledged.lock().unwrap();
        if next == DELIVERIES {
            return std::future::pending().await;
        }
        let answer = router.clone().oneshot(request(next)).await.unwrap();
        if answer.status() == StatusCode::OK {
            check(&world, next);
            *acknowledged.lock().unwrap() += 1;
        } else {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn check(world: &SimWorld, delivery: usize) {
    let records = world.history(&Topics::default().name(Topic::Webhooks).into());
    let items: Vec<WebhookItem> = records.iter().map(|r| decode(r.value.as_deref().unwrap()).unwrap()).collect();
    for part in ["a", "b"] {
        let id = format!("\"wamid.{delivery}{part}\"");
        assert!(items.iter().any(|item| item.raw.expose().contains(&id)), "{id} was acknowledged and is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_delivery_is_durable_whatever_port_call_crashes_or_fails() {
    let mut points = 1;
    let mut point = 0;
    while point < points {
        for fault in
            [Fault::Crash(When::Before), Fault::Crash(When::After), Fault::Fail(When::Before), Fault::Fail(When::After)]
        {
            let world = SimWorld::new(3).with(Plan::one(point, fault));
            create_topics(&world).await;
            let acknowledged = Arc::new(Mutex::new(0));
            let all = acknowledged.clone();
            let done = |_| async move {
                while *all.lock().unwrap() < DELIVERIES {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let run = world.run(Duration::from_secs(600), |world| receive(world, acknowledged.clone()), done).await;
            points = points.max(run.unwrap_or_else(|run| panic!("{fault:?} at {point}: {run:?}")).points);
        }
        point += 1;
    }
    assert!(points > DELIVERIES as u64);
}
