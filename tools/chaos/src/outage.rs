//! Kafka and Redis are away for two minutes at a time, frozen and then dead, while people write to each other and a supervisor looks at every
//! process as Kubernetes does: one that ends, or whose `/livez` fails three times in a row, is started again. Nobody is, and nothing is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connector_demo::{Backend, Fleet, Plan, settings};
use connector_domain::ids::CommandId;
use reqwest::Client;
use tokio::task::block_in_place;

use crate::fleet::{Ground, plan};
use crate::inbound::received;
use crate::log::Log;
use crate::outbound::{commands, contacts, conversations, judged, limits, open, publish};
use crate::{Options, Outcome, Verdict};

const SENDS: usize = 600;
const QUICK: usize = 60;
const CONTACTS: usize = 10;
/// How long everything is away.
const AWAY: Duration = Duration::from_secs(120);
const AWAY_QUICK: Duration = Duration::from_secs(8);
/// Kubernetes' own numbers: how often a process is asked whether it is alive, how long its answer may take, how often it may fail.
const PERIOD: Duration = Duration::from_secs(10);
const PERIOD_QUICK: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;
/// How long everything may take to come to its end after an outage.
const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(500);

/// What is away, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// Connections stay open and nothing answers.
    KafkaFrozen,
    RedisFrozen,
    BothFrozen,
    /// Connections are refused; Redis comes back empty.
    BothDead,
}

impl Outage {
    const fn of_kafka(self) -> bool {
        !matches!(self, Self::RedisFrozen)
    }

    const fn of_redis(self) -> bool {
        !matches!(self, Self::KafkaFrozen)
    }

    fn begin(self, fleet: &mut Fleet) -> Outcome<()> {
        let (kafka, redis) = fleet.stack().ok_or("the fleet stands on Kafka and Redis")?;
        let (kafka, redis) = (kafka.broker(0), redis.first());
        if self == Self::BothDead {
            kafka.kill9();
            redis.kill9();
            return Ok(());
        }
        if self.of_kafka() {
            kafka.pause()?;
        }
        if self.of_redis() {
            redis.pause()?;
        }
        Ok(())
    }

    fn end(self, fleet: &mut Fleet) -> Outcome<()> {
        let (kafka, redis) = fleet.stack().ok_or("the fleet stands on Kafka and Redis")?;
        let (kafka, redis) = (kafka.broker(0), redis.first());
        if self == Self::BothDead {
            redis.restart()?;
            kafka.restart()?;
            return Ok(());
        }
        if self.of_kafka() {
            kafka.resume()?;
        }
        if self.of_redis() {
            redis.resume()?;
        }
        Ok(())
    }
}

/// Looks whether everybody is alive, and starts again who is not.
struct Supervisor {
    client: Client,
    period: Duration,
    next: Instant,
    failures: BTreeMap<&'static str, u32>,
    restarts: usize,
    looks: usize,
}

impl Supervisor {
    fn new(period: Duration) -> Outcome<Self> {
        let client = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { client, period, next: Instant::now(), failures: BTreeMap::new(), restarts: 0, looks: 0 })
    }

    /// One look, when it is time for it.
    async fn look(&mut self, fleet: &mut Fleet) -> Outcome<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + self.period;
        for name in fleet.revive()? {
            println!("  {name} ended by itself");
            self.restarts += 1;
        }
        let members = fleet.services();
        for (name, _, admin) in fleet.processes().into_iter().filter(|(name, ..)| members.contains(name)) {
            let answer = self.client.get(format!("{admin}/livez")).send().await;
            self.looks += 1;
            let failures = self.failures.entry(name).or_default();
            *failures = if answer.is_ok_and(|answer| answer.status().is_success()) { 0 } else { *failures + 1 };
            if *failures == FAILURES {
                println!("  /livez of {name} failed {FAILURES} times");
                *failures = 0;
                self.restarts += 1;
                fleet.kill9(name);
                fleet.spawn(name)?;
            }
        }
        Ok(())
    }

    /// Supervises one outage.
    async fn through(&mut self, outage: Outage, long: Duration, fleet: &mut Fleet) -> Outcome<()> {
        block_in_place(|| outage.begin(fleet))?;
        let end = Instant::now() + long;
        while Instant::now() < end {
            self.look(fleet).await?;
            tokio::time::sleep(TICK).await;
        }
        block_in_place(|| outage.end(fleet))
    }
}

/// Plays the scenario: `outages 3 of 120 s restarts 0, sends 600 lost 0 …, received 40 lost 0 duplicated 0`.
///
/// # Errors
/// When it could not be played to its end.
pub async fn play(options: &Options) -> Outcome<Verdict> {
    let sends = options.sends.unwrap_or(if options.quick { QUICK } else { SENDS }).max(CONTACTS);
    let (long, period) = if options.quick { (AWAY_QUICK, PERIOD_QUICK) } else { (AWAY, PERIOD) };
    let outages = if options.quick {
        vec![Outage::BothFrozen]
    } else {
        vec![Outage::KafkaFrozen, Outage::RedisFrozen, Outage::BothDead]
    };
    let members = Plan::new(Backend::Kafka, long).members;
    let mut ground = Ground::start(options, plan(members, 1, limits(), Vec::new()), &[]).await?;
    let (mut log, whatsapp) = (ground.log(), ground.whatsapp());
    let mut publisher = ground.publisher().await?.patient(long + PATIENCE);
    let people = contacts(CONTACTS);
    conversations(&people, &mut log, &mut publisher, &whatsapp).await?;

    let commands = commands(&people, sends)?;
    let mut supervisor = Supervisor::new(period)?;
    let (mut written, mut ids) = (people.len(), Vec::new());
    for (outage, share) in outages.iter().zip(commands.chunks(commands.len().div_ceil(outages.len()))) {
        println!("  {outage:?} for {} s", long.as_secs());
        // Some of it is on its way when everything stops.
        let (before, meanwhile) = share.split_at(share.len() / 2);
        publish(&mut publisher, before).await?;
        let writing = async {
            for contact in &people {
                whatsapp.contact_writes(contact, settings::PHONE_NUMBER_ID, "Are you there?").await?;
            }
            publish(&mut publisher, meanwhile).await
        };
        let (supervised, wrote) = tokio::join!(supervisor.through(*outage, long, ground.fleet()), writing);
        supervised?;
        wrote?;
        written += people.len();
        ids.extend(share.iter().map(|(_, command)| command.command_id));
        let deadline = Instant::now() + PATIENCE;
        while !is_over(&mut log, &ids, written).await && Instant::now() < deadline {
            supervisor.look(ground.fleet()).await?;
            tokio::time::sleep(TICK).await;
        }
    }

    let sent = judged(&commands, &mut log, &whatsapp, &[]).await?;
    let found = received(log.events().await?);
    ground.stop();
    let missing = written.saturating_sub(found.len());
    let twice = found.values().filter(|times| **times > 1).count();
    let Supervisor { restarts, looks, .. } = supervisor;
    let line = format!(
        "outages {} of {} s restarts {restarts} in {looks} looks, {}, received {written} lost {missing} duplicated {twice}",
        outages.len(),
        long.as_secs(),
        sent.line,
    );
    Ok(Verdict { line, holds: sent.holds && (restarts, missing, twice) == (0, 0, 0) })
}

/// Whether every command has its end, and every message of a contact is in the log. A log that cannot be read yet has not.
async fn is_over(log: &mut Log, ids: &[CommandId], written: usize) -> bool {
    log.events().await.is_ok_and(|events| open(events, ids) == 0 && received(events).len() >= written)
}
