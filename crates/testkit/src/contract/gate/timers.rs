//! Timers. Times are arguments, so that no test waits.

use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Due, Epoch, GateError, View};

use super::{GateWorld, apply, new_view, owner, schedule};

const NOON: Timestamp = Timestamp(1_800_000_000_000);
const LEASE: Duration = Duration::from_secs(30);

fn later(seconds: u64) -> Timestamp {
    NOON + Duration::from_secs(seconds)
}

async fn claim(gate: &dyn Gate, view: &View, epoch: Epoch, now: Timestamp, limit: usize) -> Vec<String> {
    let due = gate.claim_due(view, epoch, now, LEASE, limit).await.expect("claim");
    due.into_iter().map(|due| due.key).collect()
}

/// Not one that is due later.
pub async fn due_timers_come_oldest_first_up_to_the_limit(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let changes = vec![
        schedule("c", later(3)),
        schedule("a", later(1)),
        schedule("now", later(10)),
        schedule("future", Timestamp(later(10).0 + 1)),
        schedule("b", later(2)),
    ];
    apply(&*gate, &view, epoch, changes).await;
    let first = gate.claim_due(&view, epoch, later(10), LEASE, 2).await.expect("claim");
    let due = |key: &str, at| Due { key: key.to_owned(), at };
    assert_eq!(first, [due("a", later(1)), due("b", later(2))]);
    assert_eq!(claim(&*gate, &view, epoch, later(10), 10).await, ["c", "now"]);
    assert_eq!(claim(&*gate, &view, epoch, later(10), 10).await, Vec::<String>::new());
}

/// A worker that dies after the claim loses no timer (R8).
pub async fn a_claimed_timer_is_leased_and_stays(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, epoch, vec![schedule("timer", NOON)]).await;
    assert_eq!(claim(&*gate, &view, epoch, NOON, 10).await, ["timer"]);
    let lease_over = NOON + LEASE;
    assert_eq!(claim(&*gate, &view, epoch, Timestamp(lease_over.0 - 1), 10).await, Vec::<String>::new());
    let again = gate.claim_due(&view, epoch, lease_over, LEASE, 10).await.expect("claim");
    assert_eq!(again, [Due { key: "timer".to_owned(), at: NOON }], "with the time at which it was due");
    apply(&*gate, &view, epoch, vec![Change::Unschedule { key: "timer".to_owned() }]).await;
    assert_eq!(claim(&*gate, &view, epoch, lease_over + LEASE, 10).await, Vec::<String>::new());
}

/// It is fenced like an apply.
pub async fn an_older_owner_claims_nothing(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let older = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, older, vec![schedule("timer", NOON)]).await;
    let newer = owner(&*gate, &view).await.epoch;
    let error = gate.claim_due(&view, older, NOON, LEASE, 10).await.expect_err("fenced");
    assert!(matches!(error, GateError::Fenced { .. }), "{error:?}");
    assert_eq!(claim(&*gate, &view, newer, NOON, 10).await, ["timer"]);
}

/// One timer per key: the last time counts.
pub async fn a_timer_moves_both_ways(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, epoch, vec![schedule("timer", later(10))]).await;
    apply(&*gate, &view, epoch, vec![schedule("timer", later(20))]).await;
    assert_eq!(claim(&*gate, &view, epoch, later(10), 10).await, Vec::<String>::new());
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(later(20)));
    apply(&*gate, &view, epoch, vec![schedule("timer", later(5))]).await;
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(later(5)));
    assert_eq!(claim(&*gate, &view, epoch, later(5), 10).await, ["timer"]);
}

/// What happened since the claim gave it another time: that one counts.
pub async fn a_moved_timer_loses_its_lease(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, epoch, vec![schedule("timer", NOON)]).await;
    assert_eq!(claim(&*gate, &view, epoch, NOON, 10).await, ["timer"]);
    apply(&*gate, &view, epoch, vec![schedule("timer", later(1))]).await;
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(later(1)));
    assert_eq!(claim(&*gate, &view, epoch, later(1), 10).await, ["timer"]);
}

/// The worker sleeps until then.
pub async fn next_due_counts_what_is_not_claimed(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, epoch, vec![schedule("late", later(60)), schedule("early", NOON)]).await;
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(NOON));
    assert_eq!(claim(&*gate, &view, epoch, NOON, 10).await, ["early"]);
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(later(60)));
    assert_eq!(claim(&*gate, &view, epoch, later(60), 1).await.len(), 1);
    apply(&*gate, &view, epoch, vec![Change::Unschedule { key: "late".to_owned() }]).await;
    apply(&*gate, &view, epoch, vec![Change::Unschedule { key: "early".to_owned() }]).await;
    assert_eq!(gate.next_due(&view).await.expect("ask"), None);
}
