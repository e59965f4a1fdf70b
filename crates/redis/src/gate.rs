//! The gate on Redis.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connector_domain::time::Timestamp;
use connector_ports::Gate;
use connector_ports::gate::{Change, Due, Epoch, GateError, Grant, Limit, Ownership, Snapshot, View};
use connector_ports::log::Offset;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind};
use std::sync::{Mutex, PoisonError};

use crate::config::RedisConfig;
use crate::scripts::Scripts;

const DAY_MILLIS: i64 = 86_400_000;

/// A Redis that is away is told once in this time.
const QUIET: Duration = Duration::from_secs(30);

/// Redis as the gate. Connects when first used, and again after every loss.
pub struct RedisGate {
    connection: ConnectionManager,
    scripts: Scripts,
    prefix: String,
    told: Mutex<Option<Instant>>,
}

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
    /// [`GateError::Fatal`] when the URL is not one of Redis.
    pub fn new(config: &RedisConfig) -> Result<Self, GateError> {
        let broken = |error: RedisError| GateError::Fatal { reason: describe(&error) };
        let mut info = config.url.expose().into_connection_info().map_err(broken)?;
        if let Some(password) = &config.password {
            let settings = info.redis_settings().clone().set_password(password.expose());
            info = info.set_redis_settings(settings);
        }
        let client = Client::open(info).map_err(broken)?;
        // Few attempts, because callers repeat by themselves: an answer that comes late is no use to them.
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(500));
        let connection = ConnectionManager::new_lazy_with_config(client, manager).map_err(broken)?;
        Ok(Self { connection, scripts: Scripts::new(), prefix: config.prefix.clone(), told: Mutex::new(None) })
    }

    fn keys(&self, view: &View) -> Keys {
        Keys { base: format!("{}:{{{view}}}", self.prefix) }
    }

    fn limiter(&self, key: &str) -> String {
        format!("{}:limit:{{{key}}}", self.prefix)
    }

    /// The result of a call, with one meaning per error.
    fn checked<T>(&self, result: RedisResult<T>) -> Result<T, GateError> {
        result.map_err(|error| {
            let reason = describe(&error);
            if is_misuse(&error) {
                return GateError::Fatal { reason };
            }
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|last| last.elapsed() > QUIET) {
                *told = Some(Instant::now());
                tracing::warn!(target: "redis", reason, "Redis is not available; it is tried again");
            }
            GateError::Unavailable { reason }
        })
    }

    async fn run<T: redis::FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> Result<T, GateError> {
        self.checked(call.invoke_async(&mut self.connection.clone()).await)
    }
}

#[async_trait]
impl Gate for RedisGate {
    async fn acquire(&self, view: &View) -> Result<Ownership, GateError> {
        let (epoch, applied): (u64, String) = self.run(&self.scripts.acquire.key(self.keys(view).of("c"))).await?;
        Ok(Ownership { epoch: Epoch(epoch), applied: position(&applied)? })
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
        let mut call = self.scripts.apply.prepare_invoke();
        for part in ["c", "v", "z", "i", "d", "b"] {
            call.key(keys.of(part));
        }
        call.arg(epoch.0).arg(expected.map(|offset| offset.0.to_string()).unwrap_or_default()).arg(next.0);
        for change in &changes {
            match change {
                Change::Put { key, value } => call.arg("P").arg(key).arg(value.as_ref()),
                Change::Delete { key } => call.arg("D").arg(key),
                Change::Mark { id, digest, until } => {
                    let (day, bucket) = keys.bucket(*until);
                    call.arg("M").arg(id.as_ref()).arg(*digest).arg(day).arg(bucket)
                }
                Change::Schedule { key, at } => call.arg("S").arg(key).arg(at.as_millis()),
                Change::Unschedule { key } => call.arg("U").arg(key),
            };
        }
        let answer: Vec<String> = self.run(&call).await?;
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
        let names = self.keys(view);
        // MULTI and EXEC: values and position of the same moment.
        let mut pipe = redis::pipe();
        pipe.atomic().hget(names.of("c"), "off");
        if keys.is_empty() {
            let (applied,): (Option<String>,) = self.checked(pipe.query_async(&mut self.connection.clone()).await)?;
            return Ok(Snapshot { applied: position(&applied.unwrap_or_default())?, answers: Vec::new() });
        }
        pipe.cmd("HMGET").arg(names.of("v")).arg(keys);
        let (applied, values): (Option<String>, Vec<Option<Vec<u8>>>) =
            self.checked(pipe.query_async(&mut self.connection.clone()).await)?;
        let answers = values.into_iter().map(|value| value.map(Bytes::from)).collect();
        Ok(Snapshot { applied: position(&applied.unwrap_or_default())?, answers })
    }

    async fn recall(&self, view: &View, ids: &[Bytes]) -> Result<Snapshot<u64>, GateError> {
        let names = self.keys(view);
        let mut call = self.scripts.recall.prepare_invoke();
        call.key(names.of("c")).key(names.of("b"));
        for id in ids {
            call.arg(id.as_ref());
        }
        let answer: Vec<String> = self.run(&call).await?;
        let Some((applied, digests)) = answer.split_first() else { return Err(unexpected("recall")) };
        let digest = |text: &String| match text.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| unexpected("recall")),
        };
        Ok(Snapshot { applied: position(applied)?, answers: digests.iter().map(digest).collect::<Result<_, _>>()? })
    }

    async fn claim_due(
        &self,
        view: &View,
        epoch: Epoch,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Due>, GateError> {
        let names = self.keys(view);
        let mut call = self.scripts.claim.prepare_invoke();
        for part in ["c", "z", "i", "d"] {
            call.key(names.of(part));
        }
        call.arg(epoch.0).arg(now.as_millis()).arg((now + lease).as_millis()).arg(limit);
        let answer: Vec<String> = self.run(&call).await?;
        let due = match answer.split_first() {
            Some((word, due)) if word == "ok" => due,
            Some((word, _)) if word == "fenced" => return Err(GateError::Fenced { view: view.clone() }),
            _ => return Err(unexpected("claim")),
        };
        due.chunks_exact(2).map(|pair| Ok(Due { key: pair[0].clone(), at: Timestamp(score(&pair[1])?) })).collect()
    }

    async fn next_due(&self, view: &View) -> Result<Option<Timestamp>, GateError> {
        let mut call = redis::cmd("ZRANGE");
        call.arg(self.keys(view).of("z")).arg(0).arg(0).arg("WITHSCORES");
        let answer: Vec<(String, String)> = self.checked(call.query_async(&mut self.connection.clone()).await)?;
        answer.first().map(|(_, at)| score(at).map(Timestamp)).transpose()
    }

    async fn take(&self, limits: &[Limit], now: Timestamp) -> Result<Vec<Grant>, GateError> {
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for limit in limits {
            pipe.cmd("EVALSHA")
                .arg(self.scripts.take.get_hash())
                .arg(1)
                .arg(self.limiter(&limit.key))
                .arg(now.as_millis().saturating_mul(1_000))
                .arg(micros(limit.interval))
                .arg(limit.burst);
        }
        let mut connection = self.connection.clone();
        let mut result: RedisResult<Vec<String>> = pipe.query_async(&mut connection).await;
        if let Err(error) = &result
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            // A fresh Redis. It knew the script for none of them, so none was taken.
            self.checked(self.scripts.take.load_async(&mut connection).await)?;
            result = pipe.query_async(&mut connection).await;
        }
        let answers = self.checked(result)?;
        let grant = |text: &String| match text.as_str() {
            "" => Ok(Grant::Granted),
            text => {
                let micros: i64 = text.parse().map_err(|_| unexpected("take"))?;
                Ok(Grant::NotBefore(Timestamp(micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0))))
            }
        };
        answers.iter().map(grant).collect()
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

/// The position in a script's answer: empty text is none.
fn position(text: &str) -> Result<Option<Offset>, GateError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(|offset| Some(Offset(offset))).map_err(|_| unexpected("position")),
    }
}

/// A due time in Redis' notation of scores: whole numbers up to 2^53, the greatest ones with an exponent.
fn score(text: &str) -> Result<i64, GateError> {
    if let Ok(whole) = text.parse() {
        return Ok(whole);
    }
    match text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "we wrote a whole number of milliseconds")]
        Ok(score) if score.is_finite() => Ok(score as i64),
        _ => Err(unexpected("score")),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn unexpected(what: &str) -> GateError {
    GateError::Fatal { reason: format!("an answer that does not fit ({what}): another version shares these keys?") }
}

/// Errors that waiting does not cure: a wrong password, a wrong URL, a broken script.
fn is_misuse(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(
            ServerErrorKind::ResponseError
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::NoPerm
            | ServerErrorKind::ExecAbort,
        ) => true,
        // Moved, loading, read only after a failover, out of memory: somebody is on it.
        _ => false,
    }
}

/// The kind of an error and Redis' own word for it. Never its text, which may repeat an argument.
fn describe(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("{:?} ({code})", error.kind()),
        None => format!("{:?}", error.kind()),
    }
}
