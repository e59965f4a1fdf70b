//! Timers. Times are arguments, so that no test waits.

use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Claim, Due, Epoch, GateError, MAX_TAG, Timer, View};

use super::{GateWorld, apply, new_view, owner, schedule};

const NOON: Timestamp = Timestamp(1_800_000_000_000);
const LEASE: Duration = Duration::from_secs(30);

fn later(seconds: u64) -> Timestamp {
    NOON + Duration::from_secs(seconds)
}

/// Everything due at `now`.
const fn all(now: Timestamp, limit: usize) -> Claim {
    Claim { since: Timestamp::EPOCH, now, lease: LEASE, limit }
}

async fn claim(gate: &dyn Gate, view: &View, epoch: Epoch, now: Timestamp, limit: usize) -> Vec<String> {
    let due = gate.claim_due(view, epoch, all(now, limit)).await.expect("claim");
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
    let first = gate.claim_due(&view, epoch, all(later(10), 2)).await.expect("claim");
    let due = |key: &str, at| Due { key: key.to_owned(), at, tag: 0 };
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
    let again = gate.claim_due(&view, epoch, all(lease_over, 10)).await.expect("claim");
    assert_eq!(again, [Due { key: "timer".to_owned(), at: NOON, tag: 0 }], "with the time at which it was due");
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
    let error = gate.claim_due(&view, older, all(NOON, 10)).await.expect_err("fenced");
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

/// Under every kind of key; the last one set counts, claimed or not.
pub async fn a_timer_keeps_its_tag_and_can_be_asked_for(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    let keys =
        ["plain", "1.k1-0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"].map(str::to_owned);
    let timer = |n: usize| Timer { at: later(n as u64), tag: MAX_TAG - u8::try_from(n).expect("few") };
    let set = |(n, key): (usize, &String)| Change::Schedule { key: key.clone(), at: timer(n).at, tag: timer(n).tag };
    let position = apply(&*gate, &view, epoch, keys.iter().enumerate().map(set).collect()).await;
    let due = gate.claim_due(&view, epoch, all(later(1), 10)).await.expect("claim");
    let expected = |n: usize| Due { key: keys[n].clone(), at: timer(n).at, tag: timer(n).tag };
    assert_eq!(due, [expected(0), expected(1)]);
    let mut asked = keys.to_vec();
    asked.push("never".to_owned());
    let found = gate.timers(&view, &asked).await.expect("ask");
    assert_eq!(found.applied, Some(position));
    assert_eq!(found.answers, [Some(timer(0)), Some(timer(1)), Some(timer(2)), None]);
    let moved = Change::Schedule { key: keys[0].clone(), at: later(60), tag: 1 };
    apply(&*gate, &view, epoch, vec![moved, Change::Unschedule { key: keys[1].clone() }]).await;
    let found = gate.timers(&view, &keys).await.expect("ask").answers;
    assert_eq!(found, [Some(Timer { at: later(60), tag: 1 }), None, Some(timer(2))]);
}

/// So that a long backlog does not hold up what is due now.
pub async fn a_claim_may_leave_out_what_was_due_long_ago(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let epoch = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, epoch, vec![schedule("old", NOON), schedule("fresh", later(60))]).await;
    let fresh = Claim { since: later(59), ..all(later(60), 10) };
    let due = gate.claim_due(&view, epoch, fresh).await.expect("claim");
    assert_eq!(due, [Due { key: "fresh".to_owned(), at: later(60), tag: 0 }]);
    assert_eq!(claim(&*gate, &view, epoch, later(60), 10).await, ["old"]);
}

/// Who claimed them is fenced, so nobody waits for the end of its leases.
pub async fn a_new_owner_finds_no_leases(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    let older = owner(&*gate, &view).await.epoch;
    apply(&*gate, &view, older, vec![schedule("b", later(1)), schedule("a", NOON)]).await;
    assert_eq!(claim(&*gate, &view, older, later(1), 10).await.len(), 2);
    let newer = owner(&*gate, &view).await.epoch;
    assert_eq!(gate.next_due(&view).await.expect("ask"), Some(NOON));
    assert_eq!(claim(&*gate, &view, newer, later(1), 10).await, ["a", "b"]);
}

/// However much there is of it; and an empty view is whole, too.
pub async fn nothing_is_wrong_with_what_the_port_wrote(world: &dyn GateWorld) {
    let gate = world.gate().await;
    let view = new_view();
    assert_eq!(gate.inspect(&view, 0).await.map(|_| ()).ok(), Some(()));
    let epoch = owner(&*gate, &view).await.epoch;
    let changes = (0..3_000).flat_map(|n| [super::put(&format!("v{n}"), "x"), schedule(&format!("t{n}"), later(n))]);
    let position = apply(&*gate, &view, epoch, changes.collect()).await;
    claim(&*gate, &view, epoch, later(100), 10).await;
    let mut from = 0;
    loop {
        from = gate.inspect(&view, from).await.expect("inspect");
        if from == 0 {
            break;
        }
    }
    assert_eq!(gate.read(&view, &[]).await.expect("read").applied, Some(position));
}
