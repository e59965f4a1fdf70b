//! Seeded faults of sends: what goes wrong, for which of them, and how often.
//!
//! The n-th request that a rule matches always meets the same decision for the same seed, whatever other rules do.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::ids::mix;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub(crate) enum Fault {
    /// The answer comes later.
    DelayMs { ms: u64 },
    /// A Graph error; the message is not accepted.
    Error { code: u32, status: Option<u16>, subcode: Option<u32>, details: Option<String> },
    /// The message is accepted, the connection is closed without an answer.
    AcceptThenDrop,
    /// The connection is closed without an answer, the message is not accepted.
    ResetBefore,
    /// The connection is closed in the middle of a 200 answer.
    TruncatedBody,
    /// 200 with a body that is not JSON.
    #[serde(rename = "garbage_200")]
    Garbage200,
    /// 500 with a page of HTML, as gateways give.
    #[serde(rename = "http_500_html")]
    Http500Html,
    /// The right answer, its bytes spread over this time.
    SlowLoris { ms: u64 },
    /// Each status is sent twice.
    DuplicateStatus,
    /// Statuses come in the wrong order (last first).
    ReorderStatuses,
    /// This status (or all) never comes.
    DropStatus { status: Option<String> },
    /// Statuses start later.
    DelayStatusMs { ms: u64 },
    /// Accepted, then `failed` with this code.
    AsyncError { code: u32 },
    /// Accepted, then `failed` with 131047.
    #[serde(rename = "async_131047")]
    Async131047,
    /// A template is accepted as `held_for_quality_assessment`; later it is sent, or failed with 132015.
    HoldTemplate {
        ms: u64,
        #[serde(default)]
        fail: bool,
    },
}

impl Fault {
    /// Its name in rules and in the ledger.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::DelayMs { .. } => "delay_ms",
            Self::Error { .. } => "error",
            Self::AcceptThenDrop => "accept_then_drop",
            Self::ResetBefore => "reset_before",
            Self::TruncatedBody => "truncated_body",
            Self::Garbage200 => "garbage_200",
            Self::Http500Html => "http_500_html",
            Self::SlowLoris { .. } => "slow_loris",
            Self::DuplicateStatus => "duplicate_status",
            Self::ReorderStatuses => "reorder_statuses",
            Self::DropStatus { .. } => "drop_status",
            Self::DelayStatusMs { .. } => "delay_status_ms",
            Self::AsyncError { .. } => "async_error",
            Self::Async131047 => "async_131047",
            Self::HoldTemplate { .. } => "hold_template",
        }
    }

    /// Whether the message is accepted although this is the answer.
    fn accepts(&self) -> bool {
        !matches!(self, Self::Error { .. } | Self::ResetBefore | Self::Http500Html)
    }
}

/// A fault and when it strikes. Without `probability` and `next` it strikes always.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rule {
    #[serde(flatten)]
    fault: Fault,
    /// Chance from 0 to 1.
    probability: Option<f64>,
    /// How often it still strikes.
    next: Option<u64>,
    /// Only for this contact.
    wa_id: Option<String>,
    /// Only for this business number.
    phone_number_id: Option<String>,
    /// Whether the message is accepted, where the fault's own rule is not wanted (e.g. an accepted `http_500_html`).
    accept: Option<bool>,
    /// Seed of this rule; the simulator's by default.
    seed: Option<u64>,
    /// Given by the simulator.
    #[serde(default)]
    id: u64,
    /// Requests that matched.
    #[serde(default)]
    matched: u64,
    /// Times it struck.
    #[serde(default)]
    struck: u64,
}

/// Everything that goes wrong with one send.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay_ms: u64,
    /// The fault that makes the answer, if any, and whether the message is accepted.
    pub(crate) answer: Option<(Fault, bool)>,
    pub(crate) statuses: StatusFaults,
    /// The message fails later with this code.
    pub(crate) fail_later: Option<u32>,
    /// Template held for this time, then sent or failed.
    pub(crate) hold: Option<(u64, bool)>,
}

/// What goes wrong with the statuses of one message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct StatusFaults {
    pub(crate) duplicate: bool,
    pub(crate) reorder: bool,
    pub(crate) drop_all: bool,
    pub(crate) drop: Vec<String>,
    pub(crate) delay_ms: u64,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    /// Lets sends skip the lock while there is no rule.
    any: AtomicBool,
    rules: Mutex<(u64, Vec<Rule>)>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, any: AtomicBool::new(false), rules: Mutex::new((0, Vec::new())) }
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, (u64, Vec<Rule>)> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule and gives its id.
    pub(crate) fn add(&self, mut rule: Rule) -> u64 {
        let mut rules = self.rules();
        rules.0 += 1;
        (rule.id, rule.matched, rule.struck) = (rules.0, 0, 0);
        let id = rule.id;
        rules.1.push(rule);
        self.any.store(true, Ordering::Release);
        id
    }

    /// The rules with their counts.
    pub(crate) fn list(&self) -> Vec<Rule> {
        self.rules().1.clone()
    }

    /// Removes one rule, or all; gives how many were removed.
    pub(crate) fn remove(&self, id: Option<u64>) -> usize {
        let mut rules = self.rules();
        let before = rules.1.len();
        rules.1.retain(|rule| id.is_some_and(|id| rule.id != id));
        self.any.store(!rules.1.is_empty(), Ordering::Release);
        before - rules.1.len()
    }

    /// Decides about one send. The first fault that makes an answer wins; the others add up.
    pub(crate) fn judge(&self, phone_number_id: &str, wa_id: &str) -> Verdict {
        let mut verdict = Verdict::default();
        if !self.any.load(Ordering::Acquire) {
            return verdict;
        }
        for rule in &mut self.rules().1 {
            if rule.wa_id.as_ref().is_some_and(|wanted| wanted != wa_id)
                || rule.phone_number_id.as_ref().is_some_and(|wanted| wanted != phone_number_id)
                || !rule.strikes(self.seed)
            {
                continue;
            }
            rule.struck += 1;
            match &rule.fault {
                Fault::DelayMs { ms } => verdict.delay_ms += ms,
                Fault::DuplicateStatus => verdict.statuses.duplicate = true,
                Fault::ReorderStatuses => verdict.statuses.reorder = true,
                Fault::DropStatus { status: None } => verdict.statuses.drop_all = true,
                Fault::DropStatus { status: Some(status) } => verdict.statuses.drop.push(status.clone()),
                Fault::DelayStatusMs { ms } => verdict.statuses.delay_ms += ms,
                Fault::AsyncError { code } => verdict.fail_later = Some(*code),
                Fault::Async131047 => verdict.fail_later = Some(131_047),
                Fault::HoldTemplate { ms, fail } => verdict.hold = Some((*ms, *fail)),
                answer => {
                    let accept = rule.accept.unwrap_or_else(|| answer.accepts());
                    verdict.answer.get_or_insert_with(|| (answer.clone(), accept));
                }
            }
        }
        verdict
    }
}

impl Rule {
    fn strikes(&mut self, seed: u64) -> bool {
        let n = self.matched;
        self.matched += 1;
        if self.next == Some(0) {
            return false;
        }
        if let Some(probability) = self.probability {
            // 53 bits: what an f64 holds exactly.
            let draw = (mix(self.seed.unwrap_or(seed) ^ mix(self.id) ^ n) >> 11) as f64 / (1u64 << 53) as f64;
            if draw >= probability {
                return false;
            }
        }
        self.next = self.next.map(|next| next - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).expect("a rule")
    }

    #[test]
    fn next_n_strikes_n_times_and_only_where_it_matches() {
        let faults = Faults::new(1);
        faults.add(rule(r#"{"fault":"error","code":130429,"status":429,"next":2,"wa_id":"16505551234"}"#));
        let struck = |wa_id| faults.judge("1", wa_id).answer.is_some();
        assert!(!struck("16505550000"));
        assert_eq!([struck("16505551234"), struck("16505551234"), struck("16505551234")], [true, true, false]);
    }

    #[test]
    fn a_seed_gives_the_same_decisions_again() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.add(rule(r#"{"fault":"accept_then_drop","probability":0.3}"#));
            (0..1000).map(|_| faults.judge("1", "2").answer.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let share = run(7).iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&share), "{share}");
    }

    #[test]
    fn faults_say_whether_the_message_is_accepted() {
        let verdict = |json: &str| {
            let faults = Faults::new(1);
            faults.add(rule(json));
            faults.judge("1", "2").answer.map(|(_, accepted)| accepted)
        };
        assert_eq!(verdict(r#"{"fault":"reset_before"}"#), Some(false));
        assert_eq!(verdict(r#"{"fault":"accept_then_drop"}"#), Some(true));
        assert_eq!(verdict(r#"{"fault":"http_500_html","accept":true}"#), Some(true));
    }

    #[test]
    fn removed_rules_do_not_strike() {
        let faults = Faults::new(1);
        let first = faults.add(rule(r#"{"fault":"delay_ms","ms":5}"#));
        faults.add(rule(r#"{"fault":"delay_ms","ms":7}"#));
        assert_eq!(faults.judge("1", "2").delay_ms, 12);
        assert_eq!(faults.remove(Some(first)), 1);
        assert_eq!(faults.judge("1", "2").delay_ms, 7);
        assert_eq!(faults.remove(None), 1);
        assert_eq!(faults.judge("1", "2").delay_ms, 0);
    }
}
