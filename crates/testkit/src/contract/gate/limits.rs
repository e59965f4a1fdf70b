//! Limiters. Times are arguments, so that no test waits.

use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Grant, Limit};
use uuid::Uuid;

use super::GateWorld;

const NOON: Timestamp = Timestamp(1_800_000_000_000);

fn limit(interval: Duration, burst: u32) -> Limit {
    Limit { key: format!("contract-{}", Uuid::now_v7().simple()), interval, burst }
}

async fn take(gate: &dyn Gate, limit: &Limit, now: Timestamp) -> Grant {
    gate.take(std::slice::from_ref(limit), now).await.expect("take")[0]
}

fn millis(millis: u64) -> Timestamp {
    NOON + Duration::from_millis(millis)
}

/// And says exactly when the next may go.
pub async fn a_limit_lets_a_burst_through_and_then_one_per_interval(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let limit = limit(Duration::from_millis(1000), 3);
    for _ in 0..3 {
        assert_eq!(take(&*gate, &limit, NOON).await, Grant::Granted);
    }
    assert_eq!(take(&*gate, &limit, NOON).await, Grant::NotBefore(millis(1000)));
    assert_eq!(take(&*gate, &limit, millis(999)).await, Grant::NotBefore(millis(1000)), "a refusal takes nothing");
    assert_eq!(take(&*gate, &limit, millis(1000)).await, Grant::Granted);
    assert_eq!(take(&*gate, &limit, millis(1000)).await, Grant::NotBefore(millis(2000)));
    // 80 per second are 12.5 ms each: whole milliseconds would lose some of them.
    let fine = self::limit(Duration::from_micros(12_500), 1);
    let mut granted = 0;
    for now in 0..1000 {
        granted += u32::from(take(&*gate, &fine, millis(now)).await == Grant::Granted);
    }
    assert!((76..=80).contains(&granted), "{granted} in a second, asked once per millisecond");
}

/// After a pause, and no more than that.
pub async fn a_limit_recovers_its_burst(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let limit = limit(Duration::from_secs(6), 3);
    for round in 0..2 {
        let now = NOON + Duration::from_secs(3600 * round);
        for _ in 0..3 {
            assert_eq!(take(&*gate, &limit, now).await, Grant::Granted);
        }
        assert_eq!(take(&*gate, &limit, now).await, Grant::NotBefore(now + Duration::from_secs(6)));
    }
}

/// A refusal by one takes nothing from it and does not touch the others.
pub async fn limits_are_independent(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let (one, two) = (limit(Duration::from_secs(1), 1), limit(Duration::from_secs(1), 2));
    let both = [one.clone(), two.clone()];
    assert_eq!(gate.take(&both, NOON).await.expect("take"), [Grant::Granted, Grant::Granted]);
    assert_eq!(gate.take(&both, NOON).await.expect("take"), [Grant::NotBefore(millis(1000)), Grant::Granted]);
    let refused = Grant::NotBefore(millis(1000));
    assert_eq!(gate.take(&both, NOON).await.expect("take"), [refused, refused]);
    assert_eq!(gate.take(&[], NOON).await.expect("take"), []);
}

/// An attempt that never left costs nothing.
pub async fn what_was_given_back_can_be_taken_again(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let limit = limit(Duration::from_secs(1), 2);
    for _ in 0..2 {
        assert_eq!(take(&*gate, &limit, NOON).await, Grant::Granted);
    }
    gate.give_back(&limit).await.expect("give back");
    assert_eq!(take(&*gate, &limit, NOON).await, Grant::Granted);
    assert_eq!(take(&*gate, &limit, NOON).await, Grant::NotBefore(millis(1000)));
}

/// Whatever it had left.
pub async fn a_held_limit_lets_nothing_through(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let limit = limit(Duration::from_millis(10), 5);
    assert_eq!(take(&*gate, &limit, NOON).await, Grant::Granted);
    gate.hold(&limit.key, millis(60_000)).await.expect("hold");
    assert_eq!(take(&*gate, &limit, NOON).await, Grant::NotBefore(millis(60_000)));
    assert_eq!(take(&*gate, &limit, millis(59_999)).await, Grant::NotBefore(millis(60_000)));
    assert_eq!(take(&*gate, &limit, millis(60_000)).await, Grant::Granted);
}

/// Two answers of WhatsApp may arrive in any order.
pub async fn a_shorter_hold_does_not_end_a_longer_one(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let limit = limit(Duration::from_millis(10), 5);
    gate.hold(&limit.key, millis(60_000)).await.expect("hold");
    gate.hold(&limit.key, millis(1_000)).await.expect("hold");
    assert_eq!(take(&*gate, &limit, millis(1_000)).await, Grant::NotBefore(millis(60_000)));
}
