//! WhatsApp's limits (R6): how fast a number and a pair may send, and numbers that have to pause.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use connector_domain::ids::{CommandId, PhoneNumberId, StreamId};
use connector_domain::share::Slots;
use connector_domain::time::Timestamp;
use connector_ports::gate::{Grant, Limit};
use connector_ports::{Gate, Retry};
use connector_runtime::failure::Failure;
use connector_runtime::numbers::Numbers;
use futures::future::join_all;

use super::local::Local;
use crate::config::Config;

/// How long others look away while one message finds out whether a paused number works again.
const PROBE: Duration = Duration::from_secs(1);
/// Longest time for which a number that is too fast is held back.
const SLOWEST: Duration = Duration::from_secs(60);
/// How long a number that reached the limit for spam is left alone at first.
const STOP: Duration = Duration::from_secs(600);
/// How much later a hold has to end than the one before it to be worth telling everybody.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// What WhatsApp's messaging limit is counted over.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest pause, in first pauses.
const MOST_PAUSES: u32 = 10;

/// A message that wants to leave.
pub(super) struct Wanted<'a> {
    pub(super) command: CommandId,
    pub(super) number: &'a PhoneNumberId,
    /// `None` for receipts, which are no messages to the contact.
    pub(super) conversation: Option<&'a StreamId>,
}

#[derive(Debug, Default)]
struct Number {
    /// Refusals for speed in a row.
    throttled: u32,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Timestamp,
    length: Duration,
    probe: Option<CommandId>,
}

/// The limiters in the gate, and what this worker knows about its numbers.
pub(super) struct Limits {
    gate: Arc<dyn Gate>,
    /// What is set for each number, and what WhatsApp reports about it.
    known: Numbers,
    number_rate: u32,
    number_burst: u32,
    pair_interval: Duration,
    pair_burst: u32,
    pause: Duration,
    numbers: HashMap<PhoneNumberId, Number>,
    /// Until when numbers are held back because of their account, as far as this worker has told.
    held: HashMap<PhoneNumberId, Timestamp>,
    local: Local,
}

/// Which of these may.
fn open(grants: &[Grant]) -> Vec<usize> {
    (0..grants.len()).filter(|at| grants[*at] == Grant::Granted).collect()
}

fn number_key(number: &PhoneNumberId) -> String {
    format!("number:{number}")
}

fn pair_key(conversation: &StreamId) -> String {
    format!("pair:{conversation}")
}

impl Limits {
    pub(super) fn new(gate: Arc<dyn Gate>, config: &Config, partitions: u32, known: Numbers) -> Self {
        let interval = Duration::from_secs(1) / config.number_rate;
        let slots = Slots { interval, burst: config.number_burst, partitions };
        Self {
            gate,
            known,
            local: Local::new(slots, config.pair_interval, config.pair_burst),
            number_rate: config.number_rate,
            number_burst: config.number_burst,
            pair_interval: config.pair_interval,
            pair_burst: config.pair_burst,
            pause: config.configuration_pause,
            numbers: HashMap::new(),
            held: HashMap::new(),
        }
    }

    fn number_limit(&self, number: &PhoneNumberId) -> Limit {
        let rate = self.known.rate(number, self.number_rate);
        Limit { key: number_key(number), interval: Duration::from_secs(1) / rate, burst: self.number_burst }
    }

    fn pair_limit(&self, conversation: &StreamId) -> Limit {
        Limit { key: pair_key(conversation), interval: self.pair_interval, burst: self.pair_burst }
    }

    /// Whether a number is paused at `now`, as far as this worker knows. The first who asks after the pause is its probe.
    fn paused(&self, wanted: &Wanted<'_>, probed: &mut HashSet<PhoneNumberId>, now: Timestamp) -> Option<Timestamp> {
        let pause = self.numbers.get(wanted.number)?.pause.as_ref()?;
        if now < pause.until {
            return Some(pause.until);
        }
        let taken = pause.probe.is_some_and(|probe| probe != wanted.command);
        (taken || !probed.insert(wanted.number.clone())).then(|| now + PROBE)
    }

    /// Asks for all messages, one answer each, in order. Numbers and pairs are asked `together`, which is one question less; or first the
    /// numbers and then the pairs of those that may, so that nothing is taken and given back again and again.
    pub(super) async fn take(
        &mut self,
        wanted: &[Wanted<'_>],
        together: bool,
        now: Timestamp,
    ) -> Result<Vec<Grant>, Failure> {
        let mut probed = HashSet::new();
        let mut grants: Vec<Grant> = (wanted.iter())
            .map(|wanted| self.paused(wanted, &mut probed, now).map_or(Grant::Granted, Grant::NotBefore))
            .collect();
        let asking = open(&grants);
        let numbers: Vec<_> = asking.iter().map(|at| self.number_limit(wanted[*at].number)).collect();
        let mut pairs = if together { self.pair_limits(wanted, &asking) } else { Vec::new() };
        let limits: Vec<_> = numbers.iter().chain(pairs.iter().map(|(_, limit)| limit)).cloned().collect();
        let mut asked_numbers = self.local.ask(&self.gate, &limits, now).await?;
        let mut asked_pairs = asked_numbers.split_off(numbers.len());

        let mut refused: BTreeMap<&PhoneNumberId, u32> = BTreeMap::new();
        for ((at, limit), asked) in asking.iter().zip(&numbers).zip(asked_numbers) {
            let number = wanted[*at].number;
            grants[*at] = match self.local.number(number, limit, asked, now) {
                Grant::Granted => Grant::Granted,
                // One behind the other, instead of all at the moment when only one of them may.
                Grant::NotBefore(moment) => {
                    let before = refused.entry(number).or_default();
                    *before += 1;
                    Grant::NotBefore(moment + self.local.spacing(number, limit.interval) * (*before - 1))
                }
            };
        }

        if !together {
            pairs = self.pair_limits(wanted, &open(&grants));
            let limits: Vec<_> = pairs.iter().map(|(_, limit)| limit.clone()).collect();
            asked_pairs = self.local.ask(&self.gate, &limits, now).await?;
        }
        let mut unused = Vec::new();
        for ((at, limit), asked) in pairs.into_iter().zip(asked_pairs) {
            let Some(conversation) = wanted[at].conversation else { continue };
            if grants[at] == Grant::Granted {
                grants[at] = self.local.pair(conversation, &limit.key, asked, now);
                if grants[at] != Grant::Granted {
                    unused.push(self.number_limit(wanted[at].number));
                }
            } else if asked == Some(Grant::Granted) {
                unused.push(limit);
            }
        }
        self.give_back(&unused, now).await;
        for at in open(&grants) {
            let number = self.numbers.get_mut(wanted[at].number);
            if let Some(pause) = number.and_then(|number| number.pause.as_mut()) {
                pause.probe = Some(wanted[at].command);
            }
        }
        Ok(grants)
    }

    /// Whether a number may be the first to write to somebody: within the messaging limit that WhatsApp reports, counted by the account. Who was
    /// written to within a day is no new person. Nobody's answer is lost when the gate does not say: WhatsApp keeps its limit itself.
    pub(super) async fn first_contact(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Grant, Failure> {
        let (Some(limit), Some(conversation)) =
            (self.known.state(wanted.number).contacts_per_day(), wanted.conversation)
        else {
            return Ok(Grant::Granted);
        };
        let account = self.known.number(wanted.number, None).await?.and_then(|number| number.waba_id.clone());
        let account = account.map_or_else(|| wanted.number.to_string(), |account| account.to_string());
        let person = Limit { key: format!("first:{conversation}"), interval: DAY, burst: 1 };
        let people = Limit { key: format!("people:{account}"), interval: DAY / limit, burst: limit };
        if self.asked(&person, now).await? != Grant::Granted {
            return Ok(Grant::Granted);
        }
        let granted = self.asked(&people, now).await?;
        if granted != Grant::Granted {
            self.give_back(std::slice::from_ref(&person), now).await;
        }
        Ok(granted)
    }

    async fn asked(&self, limit: &Limit, now: Timestamp) -> Result<Grant, Failure> {
        match self.gate.take(std::slice::from_ref(limit), now).await {
            Ok(grants) => Ok(grants.into_iter().next().unwrap_or(Grant::Granted)),
            Err(error) if error.retry() == Retry::Later => Ok(Grant::Granted),
            Err(error) => Err(error.into()),
        }
    }

    /// The limiters of the pairs of these messages.
    fn pair_limits(&self, wanted: &[Wanted<'_>], asking: &[usize]) -> Vec<(usize, Limit)> {
        let limit = |at: &usize| wanted[*at].conversation.map(|conversation| (*at, self.pair_limit(conversation)));
        asking.iter().filter_map(limit).collect()
    }

    /// What was taken and is not used. That it stays taken only makes us slower.
    async fn give_back(&self, limits: &[Limit], now: Timestamp) {
        let those_there = limits.iter().filter(|limit| !self.local.is_away(&limit.key, now));
        for given in join_all(those_there.map(|limit| self.gate.give_back(limit))).await {
            if let Err(error) = given {
                tracing::debug!(%error, "a limiter keeps what was not used");
            }
        }
    }

    /// These do not leave, although they may.
    pub(super) async fn unused(&mut self, wanted: &[&Wanted<'_>], now: Timestamp) {
        for wanted in wanted {
            self.learnt_nothing(wanted.number, wanted.command);
        }
        let numbers = wanted.iter().map(|wanted| self.number_limit(wanted.number));
        let pairs = wanted.iter().filter_map(|wanted| wanted.conversation).map(|pair| self.pair_limit(pair));
        let limits: Vec<_> = numbers.chain(pairs).collect();
        self.give_back(&limits, now).await;
    }

    /// Holds a limiter back for everybody. When it does not answer, for this worker.
    async fn hold(&mut self, key: &str, until: Timestamp, now: Timestamp) {
        self.local.hold(key, until, now);
        if self.local.is_away(key, now) {
            return;
        }
        if let Err(error) = self.gate.hold(key, until).await {
            tracing::warn!(%error, "other workers are not told to hold back");
        }
    }

    /// WhatsApp says that the number is too fast: until when it is held back.
    pub(super) async fn slow_down(&mut self, number: &PhoneNumberId, least: Duration, now: Timestamp) -> Timestamp {
        let known = self.numbers.entry(number.clone()).or_default();
        let factor = 1 << known.throttled.min(6);
        known.throttled += 1;
        let until = now + (least * factor).min(SLOWEST.max(least));
        self.hold(&number_key(number), until, now).await;
        until
    }

    /// WhatsApp says that an account, or the app, is too fast: these numbers are held back, too, for everybody. Answers of many attempts say the
    /// same; who was told lately is not told again.
    pub(super) async fn hold_numbers(&mut self, numbers: &[PhoneNumberId], until: Timestamp, now: Timestamp) {
        for number in numbers {
            let held = self.held.entry(number.clone()).or_insert(now);
            if *held + TELL_AGAIN < until {
                *held = until;
                self.hold(&number_key(number), until, now).await;
            }
        }
    }

    /// WhatsApp asks to leave the number alone for a while that is no fault of its speed.
    pub(super) async fn rest(&mut self, number: &PhoneNumberId, until: Timestamp, now: Timestamp) {
        self.hold(&number_key(number), until, now).await;
    }

    /// WhatsApp says that the pair is too fast: 4^n seconds.
    pub(super) async fn slow_pair(&mut self, conversation: &StreamId, tries: u32, now: Timestamp) -> Timestamp {
        let until = now + Duration::from_secs(4_u64.pow(tries.min(5)));
        self.hold(&pair_key(conversation), until, now).await;
        until
    }

    /// WhatsApp refuses because of the configuration (or, `stopped`, for spam): until when the number is paused, and whether that
    /// is news.
    pub(super) async fn pause(&mut self, number: &PhoneNumberId, stopped: bool, now: Timestamp) -> (Timestamp, bool) {
        let first = if stopped { self.pause.max(STOP) } else { self.pause };
        let known = self.numbers.entry(number.clone()).or_default();
        let news = known.pause.is_none();
        let length = match &known.pause {
            None => first,
            // Others were on their way when the pause began: they say nothing new.
            Some(pause) if now < pause.until => pause.length.max(first),
            Some(pause) => (pause.length * 2).min(first * MOST_PAUSES),
        };
        let until = now + length;
        known.pause = Some(Pause { until, length, probe: None });
        self.hold(&number_key(number), until, now).await;
        (until, news)
    }

    /// WhatsApp dealt with a message of the number: whether that ends a pause.
    pub(super) fn works(&mut self, number: &PhoneNumberId) -> bool {
        self.numbers.remove(number).is_some_and(|known| known.pause.is_some())
    }

    /// An attempt ended without telling anything about the number.
    pub(super) fn learnt_nothing(&mut self, number: &PhoneNumberId, command: CommandId) {
        let pause = self.numbers.get_mut(number).and_then(|number| number.pause.as_mut());
        if let Some(pause) = pause.filter(|pause| pause.probe == Some(command)) {
            pause.probe = None;
        }
    }

    /// Attempts may be lost: whoever asks next is the probe.
    pub(super) fn forget_probes(&mut self) {
        for pause in self.numbers.values_mut().filter_map(|number| number.pause.as_mut()) {
            pause.probe = None;
        }
    }

    /// A partition is ours.
    pub(super) fn owns(&mut self, partition: u32, now: Timestamp) {
        self.local.owns(partition, now);
    }

    /// A partition is not ours any more.
    pub(super) fn lost(&mut self, partition: u32) {
        self.local.lost(partition);
    }

    /// How many numbers this worker sends from with its own share of the limit.
    pub(super) fn counted_here(&self) -> usize {
        self.local.numbers()
    }

    /// How many numbers are paused, as far as this worker knows.
    pub(super) fn paused_numbers(&self) -> usize {
        self.numbers.values().filter(|number| number.pause.is_some()).count()
    }
}
