//! The contract of [`connector_ports::Gate`].

mod limits;
mod registers;
mod timers;
mod views;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Epoch, Ownership, View};
use connector_ports::log::Offset;
use uuid::Uuid;

pub use limits::*;
pub use registers::*;
pub use timers::*;
pub use views::*;

/// A gate under test.
#[async_trait]
pub trait GateWorld: Send + Sync {
    /// A client of the gate under test. Each call may give another client; all of them see the same views.
    async fn gate(&self) -> Arc<dyn Gate>;

    /// Loses everything in this view, its position and owner included, as a `FLUSHALL` or a bad failover does.
    async fn wipe(&self, view: &View);
}

/// Every promise of the gate as a test with its own name: `gate_contract! { #[tokio::test] world_expression }`. The expression is
/// evaluated once per test, in an async function, and gives a [`GateWorld`](crate::contract::gate::GateWorld).
#[macro_export]
macro_rules! gate_contract {
    ($(#[$attribute:meta])+ $world:expr) => {
        $crate::contract_tests! { [$(#[$attribute])+] gate $world,
            an_empty_view_has_no_position
            apply_moves_the_view_from_the_expected_position_only
            a_refused_apply_changes_nothing
            a_new_owner_fences_the_older
            a_new_owner_finds_the_position_of_the_older
            values_come_back_as_they_were_put
            an_apply_is_one_step_with_its_position
            marks_come_back_with_their_digest
            views_do_not_see_each_other
            a_wiped_view_says_so
            an_owner_after_a_wipe_is_newer
            a_discarded_view_is_empty_and_keeps_its_owner
            a_view_says_which_log_it_projects
            due_timers_come_oldest_first_up_to_the_limit
            a_claimed_timer_is_leased_and_stays
            an_older_owner_claims_nothing
            a_timer_moves_both_ways
            a_moved_timer_loses_its_lease
            next_due_counts_what_is_not_claimed
            a_timer_keeps_its_tag_and_can_be_asked_for
            a_claim_may_leave_out_what_was_due_long_ago
            a_new_owner_finds_no_leases
            nothing_is_wrong_with_what_the_port_wrote
            a_reserved_id_stands_for_what_the_first_asked_for
            a_register_answers_when_every_partition_was_told
            a_limit_lets_a_burst_through_and_then_one_per_interval
            a_limit_recovers_its_burst
            limits_are_independent
            what_was_given_back_can_be_taken_again
            a_held_limit_lets_nothing_through
            a_shorter_hold_does_not_end_a_longer_one
        }
    };
}

/// A view of its own for a test.
fn new_view() -> View {
    let random = Uuid::new_v5(&Uuid::now_v7(), b"partition").as_u128();
    View::new("contract", u32::try_from(random & 0x7fff_ffff).expect("31 bits"))
}

/// A moment that lies ahead of every clock of the world under test.
const FUTURE: Timestamp = Timestamp(4_102_444_800_000);

async fn owner(gate: &dyn Gate, view: &View) -> Ownership {
    gate.acquire(view).await.expect("acquire")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned(), value: bytes(value) }
}

fn schedule(key: &str, at: Timestamp) -> Change {
    Change::Schedule { key: key.to_owned(), at, tag: 0 }
}

/// Applies where the view stands and goes one further; gives the new position.
async fn apply(gate: &dyn Gate, view: &View, epoch: Epoch, changes: Vec<Change>) -> Offset {
    let applied = gate.read(view, &[]).await.expect("read").applied;
    let next = applied.unwrap_or_default().next();
    gate.apply(view, epoch, applied, next, changes).await.expect("apply");
    next
}

async fn value(gate: &dyn Gate, view: &View, key: &str) -> Option<Bytes> {
    gate.read(view, &[key.to_owned()]).await.expect("read").answers.remove(0)
}
