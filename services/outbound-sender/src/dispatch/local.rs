//! Limits for the time when the limiter in the gate does not answer: this worker's share, never more than the limit (R6).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use connector_domain::ids::{PhoneNumberId, StreamId};
use connector_domain::share::{Owed, Share, Slots};
use connector_domain::time::Timestamp;
use connector_ports::gate::{Grant, Limit};
use connector_ports::{Gate, Retry};
use connector_runtime::failure::Failure;
use futures::future::join_all;

/// When a limiter that did not answer is asked again. A call that is not answered takes its time.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// So many pairs and holds are kept before those are dropped that say nothing any more.
const SWEEP: usize = 10_000;

/// What counts here instead of in the gate.
pub(super) struct Local {
    slots: Slots,
    pair_interval: Duration,
    pair_burst: u32,
    /// The partitions of this worker.
    owned: BTreeSet<u32>,
    /// Limiters that do not answer, and when they are asked again.
    away: HashMap<String, Timestamp>,
    /// With the interval each is counted in.
    shares: HashMap<PhoneNumberId, (Duration, Share)>,
    pairs: HashMap<StreamId, Owed>,
    /// What is held back: the gate may have heard of it and be gone.
    held: HashMap<String, Timestamp>,
}

fn grant(taken: Result<(), Timestamp>) -> Grant {
    taken.map_or_else(Grant::NotBefore, |()| Grant::Granted)
}

impl Local {
    pub(super) fn new(slots: Slots, pair_interval: Duration, pair_burst: u32) -> Self {
        Self {
            slots,
            pair_interval,
            pair_burst,
            owned: BTreeSet::new(),
            away: HashMap::new(),
            shares: HashMap::new(),
            pairs: HashMap::new(),
            held: HashMap::new(),
        }
    }

    /// A partition is ours. Its slots count from now on: the former owner may have used those before.
    pub(super) fn owns(&mut self, partition: u32, now: Timestamp) {
        if self.owned.insert(partition) {
            for (interval, share) in self.shares.values_mut() {
                *share = Slots { interval: *interval, ..self.slots }.begin(now);
            }
        }
    }

    /// A partition is not ours any more, and its pairs are not either.
    pub(super) fn lost(&mut self, partition: u32) {
        if self.owned.remove(&partition) {
            self.pairs.clear();
        }
    }

    /// Nobody here sends before this moment, whoever answers.
    pub(super) fn hold(&mut self, key: &str, until: Timestamp, now: Timestamp) {
        if self.held.len() >= SWEEP {
            self.held.retain(|_, until| *until > now);
        }
        let held = self.held.entry(key.to_owned()).or_insert(until);
        *held = until.max(*held);
    }

    /// Whether a limiter did not answer a moment ago.
    pub(super) fn is_away(&self, key: &str, now: Timestamp) -> bool {
        self.away.get(key).is_some_and(|again| now < *again)
    }

    /// Asks the limiters in the gate. `None`: this one does not answer.
    pub(super) async fn ask(
        &mut self,
        gate: &Arc<dyn Gate>,
        limits: &[Limit],
        now: Timestamp,
    ) -> Result<Vec<Option<Grant>>, Failure> {
        let mut grants = vec![None; limits.len()];
        let asked: Vec<_> = (0..limits.len()).filter(|at| !self.is_away(&limits[*at].key, now)).collect();
        if asked.is_empty() {
            return Ok(grants);
        }
        let question: Vec<_> = asked.iter().map(|at| limits[*at].clone()).collect();
        match gate.take(&question, now).await {
            Ok(answers) => {
                for (at, answer) in asked.into_iter().zip(answers) {
                    self.answers(&limits[at].key);
                    grants[at] = Some(answer);
                }
                return Ok(grants);
            }
            Err(error) if error.retry() != Retry::Later => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "a limiter does not answer"),
        }
        // They may lie in different places: those that answer count for all. What was taken by the call before only makes us slower.
        let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for at in asked {
            by_key.entry(&limits[at].key).or_default().push(at);
        }
        if by_key.len() == 1 {
            by_key.into_keys().for_each(|key| self.does_not_answer(key, now));
            return Ok(grants);
        }
        let each = by_key.into_iter().map(async |(key, positions)| {
            let question: Vec<_> = positions.iter().map(|at| limits[*at].clone()).collect();
            (key, positions, gate.take(&question, now).await)
        });
        for (key, positions, answers) in join_all(each).await {
            match answers {
                Ok(answers) => {
                    self.answers(key);
                    for (at, answer) in positions.into_iter().zip(answers) {
                        grants[at] = Some(answer);
                    }
                }
                Err(error) if error.retry() == Retry::Later => self.does_not_answer(key, now),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(grants)
    }

    fn answers(&mut self, key: &str) {
        if self.away.remove(key).is_some() && self.away.is_empty() {
            tracing::info!("every limiter that was asked answers again");
        }
    }

    fn does_not_answer(&mut self, key: &str, now: Timestamp) {
        if self.away.is_empty() {
            tracing::warn!("a limiter does not answer: this worker keeps to its share of the limit");
        }
        if self.away.len() >= SWEEP {
            self.away.retain(|_, again| now < *again);
        }
        self.away.insert(key.to_owned(), now + ASK_AGAIN);
    }

    /// One for a number, as far as the gate says (`asked`).
    pub(super) fn number(
        &mut self,
        number: &PhoneNumberId,
        limit: &Limit,
        asked: Option<Grant>,
        now: Timestamp,
    ) -> Grant {
        if let Some(answer) = asked {
            self.shares.remove(number);
            return answer;
        }
        if let Some(until) = self.held.get(&limit.key).filter(|until| now < **until) {
            return Grant::NotBefore(*until);
        }
        let slots = Slots { interval: limit.interval, burst: limit.burst, ..self.slots };
        let fresh = (slots.interval, slots.begin(now));
        let share = self.shares.entry(number.clone()).or_insert(fresh);
        if share.0 != slots.interval {
            // Another rate is set: slots are counted anew.
            *share = fresh;
        }
        grant(slots.take(&mut share.1, &self.owned, now))
    }

    /// One for a pair, as far as the gate says (`asked`). What was taken here the gate does not know, so it counts until it is paid.
    pub(super) fn pair(&mut self, pair: &StreamId, key: &str, asked: Option<Grant>, now: Timestamp) -> Grant {
        if let Some(until) = self.held.get(key).filter(|until| asked.is_none() && now < **until) {
            return Grant::NotBefore(*until);
        }
        if asked.is_some() && self.pairs.get(pair).is_none_or(|owed| owed.is_paid(now)) {
            self.pairs.remove(pair);
            return asked.unwrap_or(Grant::Granted);
        }
        if let Some(refused @ Grant::NotBefore(_)) = asked {
            return refused;
        }
        if self.pairs.len() >= SWEEP {
            self.pairs.retain(|_, owed| !owed.is_paid(now));
        }
        let (interval, burst) = (self.pair_interval, self.pair_burst);
        let owed = self.pairs.entry(pair.clone()).or_insert_with(|| Owed::everything(interval, burst, now));
        grant(owed.take(interval, burst, now))
    }

    /// Time between two messages of a number that this worker may send.
    pub(super) fn spacing(&self, number: &PhoneNumberId, interval: Duration) -> Duration {
        if !self.shares.contains_key(number) {
            return interval;
        }
        let owned = u32::try_from(self.owned.len()).unwrap_or(u32::MAX).max(1);
        interval * self.slots.partitions / owned
    }

    /// Numbers whose limiter does not answer.
    pub(super) fn numbers(&self) -> usize {
        self.shares.len()
    }
}

#[cfg(test)]
mod tests {
    use connector_redis::{RedisConfig, RedisGate};
    use connector_testkit::servers::{RedisNodes, RedisOptions};
    use connector_testkit::wait::until;

    use super::*;

    const NUMBERS: usize = 12;
    const INTERVAL: Duration = Duration::from_millis(100);
    const WITHIN: Duration = Duration::from_secs(30);

    fn key(number: &PhoneNumberId) -> String {
        format!("number:{number}")
    }

    /// Three masters, of which one dies: limiters on the others count for all workers as before, those on the dead one here, and this worker,
    /// which owns one of two partitions, sends half of what its number may.
    #[tokio::test]
    async fn the_share_counts_for_the_limiters_of_a_master_that_died_and_for_no_others() {
        let start = || RedisNodes::start(3, RedisOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let mut redis = tokio::task::spawn_blocking(start).await.expect("no panic");
        let config =
            RedisConfig { cluster: true, timeout: Duration::from_millis(500), ..RedisConfig::at(&redis.url()) };
        let gate: Arc<dyn Gate> = Arc::new(RedisGate::new(&config).expect("a gate"));
        let numbers: Vec<PhoneNumberId> = (0..NUMBERS).map(|n| format!("10555{n:05}").as_str().into()).collect();
        let limits: Vec<Limit> =
            numbers.iter().map(|number| Limit { key: key(number), interval: INTERVAL, burst: 1 }).collect();
        let mut now = Timestamp(1_800_000_000_000);
        let mut local = Local::new(Slots { interval: INTERVAL, burst: 1, partitions: 2 }, INTERVAL, 1);
        local.owns(0, now);
        let all = local.ask(&gate, &limits, now).await.expect("answers");
        assert_eq!(all, vec![Some(Grant::Granted); NUMBERS]);

        redis.first().kill9();
        // A cluster needs a moment until all its masters know.
        let asked = until("answers of the masters that live", WITHIN, async || {
            now = now + ASK_AGAIN;
            let asked = local.ask(&gate, &limits, now).await.expect("answers");
            (asked.iter().any(Option::is_none) && asked.iter().any(Option::is_some)).then_some((now, asked))
        });
        let (began, asked) = asked.await;
        let (mut sent, mut now) = (vec![0_u32; NUMBERS], began);
        while now.since(began) < ASK_AGAIN {
            for at in 0..NUMBERS {
                let granted = local.number(&numbers[at], &limits[at], asked[at], now);
                assert!(asked[at].is_none_or(|answer| answer == granted), "the limiter's own answer counts");
                sent[at] += u32::from(granted == Grant::Granted);
            }
            now = now + INTERVAL / 10;
        }
        let away: Vec<usize> = (0..NUMBERS).filter(|at| asked[*at].is_none()).collect();
        for at in &away {
            assert!((45..=51).contains(&sent[*at]), "{} of 50, half of ten a second", sent[*at]);
        }
        assert_eq!(local.numbers(), away.len(), "a share is for who has no other answer");

        redis.first().restart().expect("restart");
        until("an answer of every limiter", WITHIN, async || {
            now = now + ASK_AGAIN;
            let asked = local.ask(&gate, &limits, now).await.expect("answers");
            asked.iter().all(Option::is_some).then_some(())
        })
        .await;
    }
}
