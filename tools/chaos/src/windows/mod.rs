//! Windows while Redis is emptied, set back and restarted under load, and the timers are killed, frozen and moved. Contacts write all the
//! time, so that windows of some seconds open, are renewed and end. Then the log must say of each window once and in time that it has
//! ended, and Redis must be the fold of the log (R1, R8).
//!
//! The log judges the timers (`fold`); the gate, asked through its port, is compared with the log up to the position at which it
//! stands (`witness`).

mod contacts;
mod fold;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_demo::{Member, Plan};
use connector_domain::ids::StreamId;
use connector_domain::settings::Rules;
use local_stack::Dumps;
use tokio::task::block_in_place;

use crate::fleet::{DEAD, Ground, Harm, SESSION, plan};
use crate::random::Random;
use crate::{Options, Outcome, Verdict};
use contacts::{Contacts, by_partition, conversations};
use fold::Counts;
use witness::Witness;

/// In each of them Redis is emptied once and set back once.
const MINUTE: Duration = Duration::from_secs(60);
const QUICK_MINUTE: Duration = Duration::from_secs(14);
const MINUTES: usize = 5;
/// Messages of a second.
const RATE: u64 = 500;
const QUICK_RATE: u64 = 100;
/// Length of a window. As long as a contact is silent on average: two of three messages renew a window, every third window ends.
const WINDOW: Duration = Duration::from_secs(20);
const QUICK_WINDOW: Duration = Duration::from_secs(8);
/// Conversations of each partition that are compared again and again until a projection is the fold of the log again.
const SAMPLE: usize = 200;
/// How long a projection may take until it is the fold of the log again.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a process may take to end when it is asked to.
const DRAIN: Duration = Duration::from_secs(10);

const FIRST: &str = "window-timer-1";
const SECOND: &str = "window-timer-2";
const RESERVE: &str = "window-timer-3";
const TRACKER: &str = "opt-in-tracker";

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// Redis forgets everything.
    Flush,
    /// Redis has in it what it had some time ago, from one moment to the next.
    GoBack,
    /// Redis dies and comes back with what it had in it some time ago.
    RestartFromDump,
    /// A process is dead while Redis forgets everything.
    FlushWithoutIt(&'static str),
    /// A process stands still while Redis forgets everything, and goes on where it stood when others have built the views again.
    FlushBehindItsBack(&'static str),
    /// What other scenarios do, too.
    Harm(Harm),
}

/// What happens in each minute, in the order of the seed.
fn blows(options: &Options, minutes: usize) -> Vec<Vec<Blow>> {
    let mut chance = Random::new(options.seed);
    let mut more = if options.quick {
        vec![Blow::Harm(if options.cluster { Harm::Redis } else { Harm::Kill(FIRST) })]
    } else {
        vec![
            Blow::Harm(Harm::Kill(FIRST)),
            Blow::Harm(Harm::Kill(SECOND)),
            Blow::Harm(Harm::Freeze(FIRST)),
            Blow::Harm(Harm::Freeze(SECOND)),
            Blow::Harm(Harm::Restart(SECOND)),
            Blow::Harm(Harm::Rebalance(RESERVE)),
            Blow::Harm(Harm::Kill(TRACKER)),
            Blow::Harm(Harm::Redis),
            Blow::RestartFromDump,
            Blow::FlushWithoutIt(FIRST),
            Blow::FlushBehindItsBack(SECOND),
        ]
    };
    chance.shuffle(&mut more);
    let mut all = vec![vec![Blow::Flush, Blow::GoBack]; minutes];
    for (number, blow) in more.into_iter().enumerate() {
        all[number % minutes].push(blow);
    }
    all.iter_mut().for_each(|minute| chance.shuffle(minute));
    all
}

/// Plays the scenario: `windows N expired-twice 0 missed 0 late>1s N drift 0 healed-in-ms p99 N`.
///
/// `sends` is the number of messages that contacts write, a minute of them at least.
///
/// # Errors
/// When it could not be played to its end, or a projection did not become the fold of the log again.
pub async fn play(options: &Options) -> Outcome<Verdict> {
    let (rate, window, minute) =
        if options.quick { (QUICK_RATE, QUICK_WINDOW, QUICK_MINUTE) } else { (RATE, WINDOW, MINUTE) };
    let a_minute = usize::try_from(rate * minute.as_secs())?;
    let minutes = match options.sends {
        Some(sends) => sends.div_ceil(a_minute).max(1),
        None if options.quick => 1,
        None => MINUTES,
    };
    let fleet = fleet(options, window);
    let rules = rules(window);
    let mut ground = Ground::start(options, fleet, &[RESERVE]).await?;
    let people = conversations(rate * window.as_secs());
    let lead = rules.closing_soon.first().copied().unwrap_or_default();
    let servers = ground.servers()?;
    let mut witness = Witness::new(&servers, options.cluster, rules.margin.min(rules.window / 10), lead).await?;

    let over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (contacts, over) = (Contacts::new(people.clone(), options.seed, rules), Arc::clone(&over));
        let publisher = ground.publisher().await?;
        async move { contacts.write(publisher, rate, &over).await }
    });
    let mut play = Play {
        ground: &mut ground,
        witness: &mut witness,
        sample: by_partition(&people, SAMPLE),
        times: Vec::new(),
        dumps: Vec::new(),
    };
    let harmed = play.all(options, minutes, minute).await;
    let times = std::mem::take(&mut play.times);
    over.store(true, Ordering::Relaxed);
    let written = writing.await??;
    harmed?;
    println!(
        "  {} messages in {:.0} s, {:.0} a second",
        written.acknowledged.len(),
        written.took.as_secs_f64(),
        f64::from(u32::try_from(written.acknowledged.len())?) / written.took.as_secs_f64()
    );

    // Once while windows are open, once when all of them have ended.
    let all = by_partition(&people, usize::MAX);
    let mut drifted = witness.drift(&all).await?;
    over_with(&mut witness, window).await?;
    drifted.extend(witness.drift(&all).await?);
    block_in_place(|| [FIRST, SECOND].iter().for_each(|name| ground.fleet().end(name, DRAIN)));
    witness.catch_up().await?;
    let left = witness.timers_left().await?;
    let counts = witness.judge(&written.acknowledged);
    ground.stop();
    Ok(verdict(&counts, &drifted, &left, &times))
}

/// Two timers, a third one for later, and the tracker, whose projection decisions stand on.
fn fleet(options: &Options, window: Duration) -> Plan {
    let timers = [FIRST, SECOND, RESERVE].map(|name| Member::instance("window-timer", name));
    let members = timers.into_iter().chain([Member::only(TRACKER)]).collect();
    let redis_masters = if options.cluster { 3 } else { 1 };
    Plan { window, redis_masters, ..plan(members, 1, Vec::new(), Vec::new()) }
}

/// As the fleet has them, see the demo's settings.
fn rules(window: Duration) -> Rules {
    Rules { window, margin: window / 20, closing_soon: vec![window / 4], ..Rules::default() }
}

/// Waits until every window has ended and that was told.
async fn over_with(witness: &mut Witness, window: Duration) -> Outcome<()> {
    let until = Instant::now() + window + PATIENCE;
    loop {
        witness.catch_up().await?;
        if witness.still_open() == 0 || Instant::now() > until {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A fleet under harm, and who watches it.
struct Play<'a> {
    ground: &'a mut Ground,
    witness: &'a mut Witness,
    /// Some conversations of each partition.
    sample: Vec<Vec<StreamId>>,
    /// How long each view took to heal, each time.
    times: Vec<(&'static str, Duration)>,
    dumps: Vec<Dumps>,
}

impl Play<'_> {
    async fn all(&mut self, options: &Options, minutes: usize, minute: Duration) -> Outcome<()> {
        let mut chance = Random::new(options.seed);
        let mut next = tokio::time::interval(minute);
        // Something to go back to.
        tokio::time::sleep(minute / 6).await;
        for blows in blows(options, minutes) {
            next.tick().await;
            let redis = self.ground.redis()?;
            self.dumps.push(block_in_place(|| redis.dump())?);
            for blow in blows {
                let dump = usize::try_from(chance.below(self.dumps.len() as u64))?;
                self.witness.catch_up().await?;
                let began = self.times.len();
                self.strike(blow, dump).await.map_err(|error| format!("{blow:?}: {error}"))?;
                println!("  {blow:?}{}", healed(&self.times[began..]));
            }
        }
        next.tick().await;
        Ok(())
    }

    async fn strike(&mut self, blow: Blow, dump: usize) -> Outcome<()> {
        match blow {
            Blow::Flush => {
                let since = self.flush()?;
                self.heal(since).await
            }
            Blow::GoBack => {
                let since = Instant::now();
                let (redis, dump) = (self.ground.redis()?, &self.dumps[dump]);
                block_in_place(|| redis.go_back(dump))?;
                self.heal(since).await
            }
            Blow::RestartFromDump => {
                let (redis, dump) = (self.ground.redis()?, &self.dumps[dump]);
                block_in_place(|| redis.restart_from(dump))?;
                self.heal(Instant::now()).await
            }
            Blow::FlushWithoutIt(name) => {
                self.ground.fleet().kill9(name);
                let since = self.flush()?;
                tokio::time::sleep(DEAD).await;
                self.ground.fleet().spawn(name)?;
                self.heal(since).await?;
                Ok(self.ground.fleet().wait_ready(name).await?)
            }
            Blow::FlushBehindItsBack(name) => {
                self.ground.fleet().freeze(name)?;
                let since = self.flush()?;
                self.heal(since).await?;
                tokio::time::sleep((SESSION * 3).saturating_sub(since.elapsed())).await;
                self.ground.fleet().thaw(name)?;
                tokio::time::sleep(DEAD).await;
                self.ground.fleet().revive()?;
                Ok(self.ground.fleet().wait_ready(name).await?)
            }
            Blow::Harm(harm) => {
                self.ground.harm(harm).await?;
                if harm == Harm::Redis {
                    return self.heal(Instant::now()).await;
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Outcome<Instant> {
        let since = Instant::now();
        let redis = self.ground.redis()?;
        block_in_place(|| redis.flush())?;
        Ok(since)
    }

    async fn heal(&mut self, since: Instant) -> Outcome<()> {
        let times = self.witness.healed(since, &self.sample, PATIENCE).await?;
        self.times.extend(times);
        Ok(())
    }
}

/// How long each projection took in all of its partitions.
fn healed(times: &[(&'static str, Duration)]) -> String {
    let mut longest: BTreeMap<&str, Duration> = BTreeMap::new();
    for (name, time) in times {
        let longest = longest.entry(name).or_default();
        *longest = (*longest).max(*time);
    }
    longest.into_iter().map(|(name, time)| format!(", {name} healed in {} ms", time.as_millis())).collect()
}

fn verdict(
    counts: &Counts,
    drifted: &[(&str, StreamId)],
    left: &[String],
    times: &[(&'static str, Duration)],
) -> Verdict {
    for finding in counts.findings.iter().take(20) {
        println!("  {finding}");
    }
    for (view, stream) in drifted.iter().take(20) {
        println!("  {stream} in {view} is not what the log says");
    }
    for key in left.iter().take(20) {
        println!("  {key} has a timer and no window");
    }
    println!(
        "  the latest end was told after {} ms; {} windows were opened anew before that was told, {} renewed while it was",
        counts.latest.as_millis(),
        counts.overtaken,
        counts.crossed
    );
    let mut times: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let p99 = times.len() * 99 / 100;
    let p99 = times.get(p99).or(times.last()).map_or(0, Duration::as_millis);
    let Counts { windows, expired_twice, missed, late, misannounced, .. } = counts;
    let drift = drifted.len() + left.len();
    let line = format!(
        "windows {windows} expired-twice {expired_twice} missed {missed} late>1s {late} drift {drift} healed-in-ms p99 {p99}"
    );
    Verdict { line, holds: (*expired_twice, *missed, drift, *misannounced) == (0, 0, 0, 0) }
}
