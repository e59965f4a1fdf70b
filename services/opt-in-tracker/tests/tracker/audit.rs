//! The audit: what somebody put into the view by hand, in a shape the gate cannot tell from its own, is found and healed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connector_domain::command::ConsentAction;
use connector_domain::consent::Intent;
use connector_domain::ids::StreamId;
use connector_ports::Gate;
use connector_ports::gate::{Change, Epoch, View};
use connector_redis::{RedisConfig, RedisGate};
use connector_runtime::platform::{Platform, views};
use connector_runtime::service::Service;
use connector_runtime::situation::{conversation_key, membership_key, partition_of};
use connector_simulated::SimWorld;
use connector_testkit::servers::{RedisOptions, RedisServer};
use connector_testkit::wait;
use opt_in_tracker::Config;
use tokio_util::sync::CancellationToken;

use super::scene::*;

fn view_of(stream: &StreamId) -> View {
    View::new(views::CONVERSATIONS, partition_of(stream, PARTITIONS))
}

fn count(platform: &Platform, metric: &str) -> u64 {
    let page = platform.metrics.encode();
    page.lines().filter(|l| l.starts_with(metric)).filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn value(gate: &dyn Gate, stream: &StreamId, key: &str) -> Option<Bytes> {
    gate.read(&view_of(stream), &[key.to_owned()]).await.expect("the gate").answers.remove(0)
}

const WITHIN: Duration = Duration::from_secs(3_000);

async fn is(what: &str, mut so: impl AsyncFnMut() -> bool) {
    wait::until(what, WITHIN, async || so().await.then_some(())).await;
}

/// Lets the time pass in which a view is not built again, and finds nothing more meanwhile.
async fn pause(platform: &Platform, drifted: u64) {
    let look = async || count(platform, "connector_gate_audit_drifted_total");
    assert_eq!(wait::still("what drifted", Duration::from_secs(700), WITHIN, look).await, drifted);
}

fn start(platform: &Platform, audit: Duration) -> tokio::task::JoinHandle<()> {
    let mut service = Service::new(platform.clone(), CancellationToken::new());
    let tick = Duration::from_millis(100);
    opt_in_tracker::start(Config { audit, tick, ..Config::default() }, &mut service);
    tokio::spawn(async move { service.run().await.expect("it runs on") })
}

/// Compares everything some times more, and finds nothing more.
async fn nothing_more(platform: &Platform, drifted: u64) {
    let compared = count(platform, "connector_gate_audits_total{view=\"conversations\",result=\"compared\"");
    let now = async || count(platform, "connector_gate_audits_total{view=\"conversations\",result=\"compared\"");
    is("it is compared again", async || now().await > compared + 2 * u64::from(PARTITIONS)).await;
    assert_eq!(count(platform, "connector_gate_audit_drifted_total"), drifted);
}

#[tokio::test(start_paused = true)]
async fn a_state_a_timer_and_a_contact_changed_by_hand_are_found_and_healed() {
    let world: SimWorld = world().await;
    let platform = platform(&world);
    let running = start(&platform, Duration::from_secs(2));
    let (stream, user) = (conversation(&world), user(&world));
    let gate = world.calm_gate();
    prepared(&world).await;
    append(&world, vec![command(&world, "ask", ConsentAction::RequestOptIn, None)]).await;
    until(&world, "OptInRequested", 1).await;
    is("the request is in the view", async || value(gate, &stream, &conversation_key(&stream)).await.is_some()).await;
    nothing_more(&platform, 0).await;

    // The request would never end.
    let key = conversation_key(&stream);
    let timer = async || gate.timers(&view_of(&stream), std::slice::from_ref(&key)).await.expect("timers").answers[0];
    let right = timer().await;
    assert!(right.is_some());
    gate.by_hand(&view_of(&stream), Change::Unschedule { key: key.clone() });
    is("it is found", async || count(&platform, "connector_gate_audit_drifted_total") == 1).await;
    is("it is healed", async || timer().await == right).await;
    nothing_more(&platform, 1).await;
    // It is not built again too often.
    pause(&platform, 1).await;

    // The contact would be written to after a STOP.
    until(&world, "OptInExpired", 1).await;
    write(&world, "yes", Intent::Accept).await;
    until(&world, "OptInAccepted", 1).await;
    let accepted = value(gate, &stream, &key).await.expect("a value");
    write(&world, "stop", Intent::Stop).await;
    until(&world, "OptedOut", 1).await;
    nothing_more(&platform, 1).await;
    let stopped = value(gate, &stream, &key).await;
    gate.by_hand(&view_of(&stream), Change::Put { key: key.clone(), value: accepted });
    is("it is found", async || count(&platform, "connector_gate_audit_drifted_total") == 2).await;
    is("it is healed", async || value(gate, &stream, &key).await == stopped).await;
    nothing_more(&platform, 2).await;
    pause(&platform, 2).await;

    // Somebody else's contact.
    let key = membership_key(&user, &stream);
    let right = value(gate, &user, &key).await;
    assert!(right.is_some());
    gate.by_hand(&view_of(&user), Change::Delete { key: key.clone() });
    is("it is found", async || count(&platform, "connector_gate_audit_drifted_total") == 3).await;
    is("it is healed", async || value(gate, &user, &key).await == right).await;
    nothing_more(&platform, 3).await;
    assert!(!running.is_finished());
    running.abort();
}

/// A value of an earlier time carries a right check: Redis and its adapter see nothing wrong in it.
#[tokio::test]
async fn an_earlier_state_put_back_in_redis_is_found_and_healed() {
    let server = || RedisServer::start(&RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let server = tokio::task::spawn_blocking(server).await.expect("no panic");
    let gate = Arc::new(RedisGate::new(&RedisConfig::at(&server.url())).expect("a gate"));
    let world = world().await;
    let platform = Platform { gate: gate.clone(), ..platform(&world) };
    let running = start(&platform, Duration::from_millis(100));
    let (stream, gate) = (conversation(&world), gate.as_ref());
    let key = conversation_key(&stream);
    write(&world, "hello", Intent::Other).await;
    is("the contact is known", async || value(gate, &stream, &key).await.is_some()).await;
    let earlier = value(gate, &stream, &key).await.expect("a value");
    write(&world, "stop", Intent::Stop).await;
    until(&world, "OptedOut", 1).await;
    is("the STOP is in the view", async || value(gate, &stream, &key).await.as_ref() != Some(&earlier)).await;
    nothing_more(&platform, 0).await;
    let stopped = value(gate, &stream, &key).await;

    // Under the owner's epoch, and without moving anything.
    let view = view_of(&stream);
    let part = format!("whatsapp-connector:{{{view}}}:2:c");
    let epoch = Epoch(server.hash_field(&part, "ep").expect("an owner").parse().expect("a number"));
    is("it is put back", async || {
        let applied = gate.read(&view, &[]).await.expect("the gate").applied.expect("a view");
        let back = vec![Change::Put { key: key.clone(), value: earlier.clone() }];
        gate.apply(&view, epoch, Some(applied), applied, back).await.is_ok()
    })
    .await;
    is("it is found", async || count(&platform, "connector_gate_audit_drifted_total") == 1).await;
    is("it is healed", async || value(gate, &stream, &key).await == stopped).await;
    nothing_more(&platform, 1).await;
    running.abort();
}
