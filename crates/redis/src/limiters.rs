//! Limiters: those who ask together are put into few calls.

use std::collections::HashMap;

use connector_domain::time::Timestamp;
use connector_ports::gate::{GateError, Grant, Limit};
use futures::future::try_join_all;

use crate::gate::{RedisGate, micros, unexpected};

/// Limiters in one call: less than a millisecond of Redis.
const AT_ONCE: usize = 250;

/// A limiter, and which of the questions are for it.
struct Asked<'a> {
    limit: &'a Limit,
    by: Vec<usize>,
}

fn by_limiter(limits: &[Limit]) -> Vec<Asked<'_>> {
    let mut asked: Vec<Asked<'_>> = Vec::new();
    let mut known = HashMap::new();
    for (at, limit) in limits.iter().enumerate() {
        let place = *known.entry((&limit.key, limit.interval, limit.burst)).or_insert_with(|| {
            asked.push(Asked { limit, by: Vec::new() });
            asked.len() - 1
        });
        asked[place].by.push(at);
    }
    asked
}

impl RedisGate {
    /// One answer per limit, in order; of several for the same limiter the first are granted.
    pub(crate) async fn take_from(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        let asked = by_limiter(limits);
        // In a cluster they lie in many slots, and a script sees one.
        let in_one_call = if self.cluster { 1 } else { AT_ONCE };
        let answers = try_join_all(asked.chunks(in_one_call).map(|asked| self.take_some(asked, now))).await?;
        let mut grants = vec![Grant::Granted; limits.len()];
        for (asked, (taken, again)) in asked.iter().zip(answers.into_iter().flatten()) {
            for at in asked.by.iter().skip(taken) {
                let micros: i64 = again.parse().map_err(|_| unexpected("take"))?;
                let whole = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
                grants[*at] = Grant::NotBefore(Timestamp(whole));
            }
        }
        Ok(grants)
    }

    /// Of each limiter how many were taken, and when to come again (microseconds).
    async fn take_some(&self, asked: &[Asked<'_>], now: Timestamp) -> Result<Vec<(usize, String)>, GateError> {
        let mut call = self.scripts.take.prepare_invoke();
        call.arg(now.as_millis().saturating_mul(1_000));
        for Asked { limit, by } in asked {
            call.key(self.limiter(&limit.key)).arg(micros(limit.interval)).arg(limit.burst).arg(by.len());
        }
        let answers: Vec<(usize, String)> = self.run(&call).await?;
        if answers.len() == asked.len() { Ok(answers) } else { Err(unexpected("take")) }
    }
}
