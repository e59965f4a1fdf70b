//! The gate on Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{
    Change, Claim, Due, Epoch, GateError, Grant, Limit, Ownership, Register, Reservation, Snapshot, Timer, View,
};
use connector_ports::log::{LogId, Offset};
use redis::{RedisError, RedisResult, Script, ScriptInvocation};
use std::sync::{Mutex, PoisonError};

use crate::config::RedisConfig;
use crate::connection::Connection;
use crate::error::{describe, is_misuse, is_refusal, is_unexplained, is_wrong_type};
use crate::scripts::Scripts;
use crate::stored::{bucket, due_millis, pack, score, seal, timer, unpack, unseal};

const DAY_MILLIS: i64 = 86_400_000;

/// A Redis that is away is told once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// Which layout the keys of views have. Another one is another view: it is built from the log (R1).
const LAYOUT: &str = "2";

/// The parts of a view that every script about it names.
const PARTS: [&str; 6] = ["c", "v", "z", "i", "d", "b"];

/// Entries looked at in one call of [`RedisGate::inspect`]: some milliseconds of Redis.
const INSPECTED: usize = 2_000;

/// Redis as the gate. Connects when first used, and again after every loss.
pub struct RedisGate {
    connection: Connection,
    pub(crate) cluster: bool,
    pub(crate) scripts: Scripts,
    pub(crate) prefix: String,
    told: Mutex<Option<Instant>>,
}

/// A key and what is stored under it.
type Pair = (Vec<u8>, Vec<u8>);

/// The keys of one view.
struct Keys {
    base: String,
}

impl Keys {
    fn of(&self, part: &str) -> String {
        format!("{}:{part}", self.base)
    }

    /// The marks that may go at the end of the day in which `until` lies.
    fn bucket(&self, until: Timestamp) -> (i64, String) {
        let day = until.as_millis().div_euclid(DAY_MILLIS);
        (day, format!("{}:m:{day}", self.base))
    }
}

impl RedisGate {
    /// The gate behind these settings. Does not connect yet; needs a Tokio runtime around it.
    ///
    /// # Errors
    /// [`GateError::Fatal`] when the URL is not one of Redis, or the certificates are none.
    pub fn new(config: &RedisConfig) -> Result<Self, GateError> {
        let broken = |error: RedisError| GateError::Fatal { reason: describe(&error) };
        let connection = Connection::new(config).map_err(broken)?;
        Ok(Self {
            connection,
            cluster: config.cluster,
            scripts: Scripts::new(),
            prefix: config.prefix.clone(),
            told: Mutex::new(None),
        })
    }

    fn keys(&self, view: &View) -> Keys {
        Keys { base: format!("{}:{{{view}}}:{LAYOUT}", self.prefix) }
    }

    pub(crate) fn limiter(&self, key: &str) -> String {
        format!("{}:rate:{{{key}}}", self.prefix)
    }

    /// The result of a call, with one meaning per error.
    pub(crate) async fn checked<T>(&self, result: RedisResult<T>) -> Result<T, GateError> {
        let error = match result {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let reason = describe(&error);
        if is_misuse(&error) || is_refusal(&error) {
            return Err(GateError::Fatal { reason: format!("Redis: {reason}") });
        }
        let reason = if is_unexplained(&error) {
            if let Some(refusal) = self.connection.refusal().await {
                return Err(GateError::Fatal { reason: format!("Redis: {}", describe(&refusal)) });
            }
            "it did not let us in just now".to_owned()
        } else {
            reason
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|last| last.elapsed() > QUIET) {
            *told = Some(Instant::now());
            tracing::warn!(target: "redis", reason, "Redis is not available; it is tried again");
        }
        Err(GateError::Unavailable { reason })
    }

    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    pub(crate) async fn run<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, GateError> {
        self.checked(call.invoke_async(&mut self.connection.clone()).await).await
    }

    /// Runs a script about a view. When a part of it is of another type than any of ours, everything of the view is taken away, and the
    /// answer is that it is empty.
    async fn run_on<T: redis::FromRedisValue>(&self, view: &View, call: &ScriptInvocation<'_>) -> Result<T, GateError> {
        let result = call.invoke_async(&mut self.connection.clone()).await;
        if result.as_ref().is_err_and(is_wrong_type) {
            return Err(self.repair(view).await?);
        }
        self.checked(result).await
    }

    async fn repair(&self, view: &View) -> Result<GateError, GateError> {
        tracing::error!(target: "redis", %view, "a part of this view is of another type; it is built again");
        self.run::<String>(&self.about(&self.scripts.repair, &self.keys(view))).await?;
        Ok(GateError::Conflict { view: view.clone(), actual: None })
    }

    /// A call of a script about a view.
    fn about<'a>(&self, script: &'a Script, keys: &Keys) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        for part in PARTS {
            call.key(keys.of(part));
        }
        call
    }

    /// Something in the view is not what was written: it counts as empty from now on.
    async fn lose(&self, view: &View) -> Result<(), GateError> {
        tracing::error!(target: "redis", %view, "something in this view is not what was written; it is built again");
        self.discard(view).await
    }

    /// Values or timers of keys, each read by `decode`; nothing when one of them cannot be.
    async fn ask<T>(
        &self,
        view: &View,
        asked: usize,
        call: &ScriptInvocation<'_>,
        decode: impl Fn(usize, Vec<u8>) -> Option<T>,
    ) -> Result<Snapshot<T>, GateError> {
        let mut answer = match self.run_on::<Vec<Option<Vec<u8>>>>(view, call).await {
            Ok(answer) => answer.into_iter(),
            Err(GateError::Conflict { .. }) => return Ok(empty(asked)),
            Err(error) => return Err(error),
        };
        let applied = answer.next().flatten().ok_or_else(|| unexpected("read"))?;
        let applied = position(std::str::from_utf8(&applied).map_err(|_| unexpected("read"))?)?;
        let log = answer.next().flatten().ok_or_else(|| unexpected("read"))?;
        let log = named(String::from_utf8(log).map_err(|_| unexpected("read"))?);
        let (mut answers, mut damaged) = (Vec::new(), false);
        for (index, stored) in answer.enumerate() {
            let answer = stored.map(|stored| decode(index, stored));
            damaged |= matches!(answer, Some(None));
            answers.push(answer.flatten());
        }
        if applied.is_some() && !damaged {
            return Ok(Snapshot { applied, log, answers });
        }
        if applied.is_some() {
            self.lose(view).await?;
        }
        Ok(empty(asked))
    }
}

#[async_trait]
impl Gate for RedisGate {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        let mut call = self.about(&self.scripts.acquire, &self.keys(view));
        // The layout before this one had no number.
        for part in PARTS {
            call.arg(format!("{}:{{{view}}}:{part}", self.prefix));
        }
        let (epoch, applied, log): (u64, String, String) = match self.run_on(view, &call).await {
            Err(GateError::Conflict { .. }) => self.run(&call).await?,
            taken => taken?,
        };
        Ok(Ownership { epoch: Epoch(epoch), applied: position(&applied)?, log: named(log) })
    }

    async fn apply(
        &self,
        view: &View,
        epoch: Epoch,
        expected: Option<Offset>,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), GateError> {
        let keys = self.keys(view);
        let mut call = self.about(&self.scripts.apply, &keys);
        call.arg(epoch.0).arg(expected.map(|offset| offset.0.to_string()).unwrap_or_default()).arg(next.0);
        let buckets = by_bucket(&changes);
        call.arg(buckets.len());
        for (bucket, timers) in &buckets {
            let (set, gone): (Vec<_>, Vec<_>) = timers.iter().partition(|(_, timer)| timer.is_some());
            let earliest = timers.values().flatten().map(|timer| due_millis(*timer)).min();
            call.arg(bucket).arg(earliest.map(|at| at.to_string()).unwrap_or_default()).arg(set.len()).arg(gone.len());
            for (member, timer) in set {
                call.arg(timer.map(|timer| score(member, timer))).arg(member);
            }
            for (member, _) in gone {
                call.arg(member);
            }
        }
        for change in &changes {
            match change {
                Change::Put { key, value } => call.arg("P").arg(key).arg(seal(key, value).as_ref()),
                Change::Delete { key } => call.arg("D").arg(key),
                Change::Mark { id, digest, until } => {
                    let (day, bucket) = keys.bucket(*until);
                    call.arg("M").arg(id.as_ref()).arg(*digest).arg(day).arg(bucket)
                }
                Change::Projects { log } => call.arg("L").arg(log.as_str()),
                Change::Schedule { .. } | Change::Unschedule { .. } => &mut call,
            };
        }
        let answer: Vec<String> = self.run_on(view, &call).await?;
        let mut words = answer.iter().map(String::as_str);
        match (words.next(), words.next()) {
            (Some("ok"), _) => Ok(()),
            (Some("fenced"), _) => Err(GateError::Fenced { view: view.clone() }),
            (Some("conflict"), Some(actual)) => {
                Err(GateError::Conflict { view: view.clone(), actual: position(actual)? })
            }
            _ => Err(unexpected("apply")),
        }
    }

    async fn read(&self, view: &View, keys: &[String]) -> Result<Snapshot<Bytes>, GateError> {
        let mut call = self.about(&self.scripts.read, &self.keys(view));
        call.arg(keys);
        self.ask(view, keys.len(), &call, |index, stored| unseal(keys.get(index)?, stored)).await
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        let mut call = self.about(&self.scripts.recall, &self.keys(view));
        for id in ids {
            call.arg(id.as_ref());
        }
        let answer: Vec<String> = match self.run_on(view, &call).await {
            Err(GateError::Conflict { .. }) => return Ok(empty(ids.len())),
            answer => answer?,
        };
        let [applied, log, digests @ ..] = answer.as_slice() else { return Err(unexpected("recall")) };
        let digest = |text: &String| match text.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| unexpected("recall")),
        };
        Ok(Snapshot {
            applied: position(applied)?,
            log: named(log.clone()),
            answers: digests.iter().map(digest).collect::<Result<_, _>>()?,
        })
    }

    async fn timers(&self, view: &View, keys: &[String]) -> Result<Snapshot<Timer>, GateError> {
        let members: Vec<Vec<u8>> = keys.iter().map(|key| pack(key)).collect();
        let mut call = self.about(&self.scripts.timers, &self.keys(view));
        call.arg(members.len()).arg(&members).arg(members.iter().map(|member| bucket(member)).collect::<Vec<_>>());
        self.ask(view, keys.len(), &call, |index, stored| {
            timer(members.get(index)?, std::str::from_utf8(&stored).ok()?)
        })
        .await
    }

    async fn claim_due(&self, view: &View, epoch: Epoch, claim: Claim) -> Result<Vec<Due>, GateError> {
        let Claim { since, now, lease, limit } = claim;
        let mut call = self.about(&self.scripts.claim, &self.keys(view));
        call.arg(epoch.0).arg(now.as_millis()).arg((now + lease).as_millis()).arg(limit).arg(since.as_millis());
        let answer: Vec<Vec<u8>> = self.run_on(view, &call).await?;
        let due = match answer.split_first() {
            Some((word, due)) if word == b"ok" => due,
            Some((word, _)) if word == b"fenced" => return Err(GateError::Fenced { view: view.clone() }),
            Some((word, _)) if word == b"damaged" => return Err(self.lost(view).await?),
            _ => return Err(unexpected("claim")),
        };
        let decode = |pair: &[Vec<u8>]| {
            let Timer { at, tag } = timer(&pair[0], std::str::from_utf8(&pair[1]).ok()?)?;
            Some(Due { key: unpack(&pair[0])?, at, tag })
        };
        match due.chunks_exact(2).map(decode).collect::<Option<Vec<_>>>() {
            Some(mut due) => {
                due.sort_unstable_by(|one, other| (one.at, &one.key).cmp(&(other.at, &other.key)));
                Ok(due)
            }
            None => Err(self.lost(view).await?),
        }
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        let answer: Vec<Vec<u8>> = self.run_on(view, &self.about(&self.scripts.next_due, &self.keys(view))).await?;
        let stored = match answer.as_slice() {
            [] => return Ok(None),
            [member, score] => std::str::from_utf8(score).ok().and_then(|score| timer(member, score)),
            _ => None,
        };
        match stored {
            Some(timer) => Ok(Some(timer.at)),
            None => Err(self.lost(view).await?),
        }
    }

    async fn inspect(&self, view: &View, from: u64) -> Result<u64, GateError> {
        // The lowest bit says which part is looked through: values, then timers.
        let next = if from & 1 == 0 {
            let next = self.inspect_values(view, from >> 1).await;
            next.map(|next| next.map(|next| if next == 0 { 1 } else { next << 1 }))
        } else {
            let next = self.inspect_timers(view, from >> 1).await;
            next.map(|next| next.map(|next| if next == 0 { 0 } else { next << 1 | 1 }))
        };
        let next = match next {
            // It was taken away just now.
            Err(GateError::Conflict { .. }) => return Ok(0),
            next => next?,
        };
        match next {
            Some(next) => Ok(next),
            None => self.lose(view).await.map(|()| 0),
        }
    }

    async fn discard(&self, view: &View) -> Result<(), GateError> {
        match self.run_on::<String>(view, &self.about(&self.scripts.discard, &self.keys(view))).await {
            Ok(_) | Err(GateError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn reserve(&self, register: &Register, ids: &[Reservation]) -> Result<Option<Vec<u64>>, GateError> {
        self.reserve_all(register, ids).await
    }

    async fn tell(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        self.tell_all(register, partition, ids, complete).await
    }

    async fn told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        self.all_told(register).await
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        self.take_from(limits, now).await
    }

    async fn give_back(&self, limit: &Limit) -> Result<(), GateError> {
        let mut call = self.scripts.give_back.key(self.limiter(&limit.key));
        self.run::<String>(call.arg(micros(limit.interval))).await.map(drop)
    }

    async fn hold(&self, limit_key: &str, until: Timestamp) -> Result<(), GateError> {
        let mut call = self.scripts.hold.key(self.limiter(limit_key));
        self.run::<String>(call.arg(until.as_millis().saturating_mul(1_000))).await.map(drop)
    }
}

impl RedisGate {
    /// As [`RedisGate::lose`], for a call that has an error as its answer.
    async fn lost(&self, view: &View) -> Result<GateError, GateError> {
        self.lose(view).await?;
        Ok(GateError::Conflict { view: view.clone(), actual: None })
    }

    /// Where the next look at values begins, 0 at their end. `None`: there is one that is not ours.
    async fn inspect_values(&self, view: &View, from: u64) -> Result<Option<u64>, GateError> {
        let mut call = redis::cmd("HSCAN");
        call.arg(self.keys(view).of("v")).arg(from).arg("COUNT").arg(INSPECTED);
        let scanned = call.query_async(&mut self.connection.clone()).await;
        if scanned.as_ref().is_err_and(is_wrong_type) {
            return Err(self.repair(view).await?);
        }
        let (next, found): (u64, Vec<Pair>) = self.checked(scanned).await?;
        let ours = |(key, stored): Pair| std::str::from_utf8(&key).is_ok_and(|key| unseal(key, stored).is_some());
        Ok(found.into_iter().all(ours).then_some(next))
    }

    /// In which bucket the next look at timers begins, 0 at their end. `None`: there is one that is not ours, or some are missing.
    async fn inspect_timers(&self, view: &View, from: u64) -> Result<Option<u64>, GateError> {
        let mut call = self.about(&self.scripts.inspect, &self.keys(view));
        let answer: Vec<Vec<u8>> = self.run_on(view, call.arg(from).arg(INSPECTED)).await?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let Some((next, timers)) = answer.split_first() else { return Err(unexpected("inspect")) };
        let Some(next) = text(next).and_then(|next| next.parse().ok()) else { return Ok(None) };
        let ours = |pair: &[Vec<u8>]| {
            pair.len() == 2
                && bucket(&pair[0]) >= from
                && text(&pair[1]).is_some_and(|score| timer(&pair[0], &score).is_some())
        };
        Ok(timers.chunks(2).all(ours).then_some(next))
    }
}

/// What becomes of the timers that changes are about, by bucket: the last change of each counts.
fn by_bucket(changes: &[Change]) -> BTreeMap<u64, BTreeMap<Vec<u8>, Option<Timer>>> {
    let mut buckets: BTreeMap<u64, BTreeMap<_, _>> = BTreeMap::new();
    for change in changes {
        let (key, timer) = match change {
            Change::Schedule { key, at, tag } => (key, Some(Timer { at: *at, tag: *tag })),
            Change::Unschedule { key } => (key, None),
            Change::Put { .. } | Change::Delete { .. } | Change::Mark { .. } | Change::Projects { .. } => continue,
        };
        let member = pack(key);
        buckets.entry(bucket(&member)).or_default().insert(member, timer);
    }
    buckets
}

/// What is told of a view that is empty.
fn empty<T>(asked: usize) -> Snapshot<T> {
    Snapshot { applied: None, log: None, answers: (0..asked).map(|_| None).collect() }
}

/// The position in a script's answer: empty text is none.
fn position(text: &str) -> Result<Option<Offset>, GateError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(|offset| Some(Offset(offset))).map_err(|_| unexpected("position")),
    }
}

/// The log in a script's answer: empty text is none.
fn named(log: String) -> Option<LogId> {
    (!log.is_empty()).then(|| LogId::from(log))
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn unexpected(what: &str) -> GateError {
    GateError::Fatal { reason: format!("an answer that does not fit ({what}): another version shares these keys?") }
}
