//! What goes wrong, and when.

use std::time::Duration;

/// On which side of a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The effect does not happen.
    Before,
    /// The effect has happened; the caller does not learn of it.
    After,
}

/// One thing that goes wrong at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies: this call and every other one of this incarnation never return.
    Crash(When),
    /// The call fails. Without effect the caller may read "unavailable" or, of calls on the log that can be uncertain, "unknown"; with
    /// effect always the latter (the gate has one error for both). Polls never fail behind their effect.
    Fail(When),
    /// The group takes every partition away without asking and gives it out again, before the call's effect. Who owned it goes on until
    /// its next poll: a zombie.
    Rebalance,
    /// The call takes this long before its effect.
    Slow(Duration),
    /// The gate loses everything, limiters included, before the call's effect.
    WipeGate,
    /// The gate goes back to what it was at that earlier point, owners included, before the call's effect.
    RollBackGate {
        /// The point, counted like all others.
        to: u64,
    },
}

/// Faults at random calls, in times per thousand calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Noise {
    /// [`Fault::Crash`] before the effect.
    pub crash_before: u32,
    /// [`Fault::Crash`] after the effect.
    pub crash_after: u32,
    /// [`Fault::Fail`] before the effect.
    pub fail_before: u32,
    /// [`Fault::Fail`] after the effect.
    pub fail_after: u32,
    /// [`Fault::Rebalance`].
    pub rebalance: u32,
    /// [`Fault::WipeGate`].
    pub wipe_gate: u32,
}

/// All that goes wrong in a run. The default is: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Faults at points. A point is one call of a port, counted from 0 over all incarnations.
    pub at: Vec<(u64, Fault)>,
    /// Faults anywhere.
    pub noise: Noise,
}

impl Plan {
    /// One fault.
    #[must_use]
    pub fn one(point: u64, fault: Fault) -> Self {
        Self { at: vec![(point, fault)], noise: Noise::default() }
    }

    /// Two faults: the second often hits the recovery from the first.
    #[must_use]
    pub fn two(first: (u64, Fault), second: (u64, Fault)) -> Self {
        Self { at: vec![first, second], noise: Noise::default() }
    }

    /// Random faults.
    #[must_use]
    pub const fn noisy(noise: Noise) -> Self {
        Self { at: Vec::new(), noise }
    }
}
