//! The fleet that is harmed, and the harm.

use std::time::Duration;

use connector_demo::{Backend, Environment, Fleet, Member, Plan};
use local_stack::RedisNodes;
use tokio::task::block_in_place;

use crate::log::{Log, Publisher};
use crate::whatsapp::WhatsAppSide;
use crate::{Options, Outcome};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 6;
/// After this silence a member of a group loses its partitions.
pub const SESSION: Duration = Duration::from_secs(3);
/// How long a process may take to end when it is asked to.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a process stays dead.
pub(crate) const DEAD: Duration = Duration::from_millis(500);
/// How long brokers stand still.
const OUTAGE: Duration = Duration::from_secs(45);
/// WhatsApp's customer service window: nothing ends during a run.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Settings that make a loss of membership short, so that many fit into a run.
fn impatient() -> Environment {
    let seconds = |duration: Duration| format!("{}ms", duration.as_millis());
    vec![
        ("PARTITIONS", PARTITIONS.to_string()),
        ("KAFKA_SESSION_TIMEOUT", seconds(SESSION)),
        ("KAFKA_DELIVERY_TIMEOUT", "4s".to_owned()),
        ("KAFKA_TRANSACTION_TIMEOUT", "5s".to_owned()),
        ("REDIS_TIMEOUT", "1s".to_owned()),
        ("DRAIN", seconds(DRAIN)),
    ]
}

/// A fleet on Kafka with these members, given settings over the usual ones, and a simulator with its own.
#[must_use]
pub fn plan(members: Vec<Member>, brokers: u16, settings: Environment, simulator: Environment) -> Plan {
    let settings = impatient().into_iter().chain(settings).collect();
    Plan { members, brokers, settings, simulator, ..Plan::new(Backend::Kafka, WINDOW) }
}

/// What is done to a running fleet. Every harm is over, and whatever was killed or stopped runs again, when it has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The process dies without a word (`kill -9`).
    Kill(&'static str),
    /// The process stands still (SIGSTOP) until others have long taken its work over, and goes on where it stood (SIGCONT).
    Freeze(&'static str),
    /// The process is asked to end, its work moves, it comes back, its work moves again.
    Restart(&'static str),
    /// One more process comes and leaves again: partitions move twice.
    Rebalance(&'static str),
    /// The first broker dies and comes back with its data.
    Broker,
    /// Every broker stands still for most of a minute: nobody can write, nothing is lost.
    Outage,
    /// Redis, or the first master of its cluster, dies and comes back empty.
    Redis,
}

/// A fleet under harm.
pub struct Ground {
    fleet: Fleet,
    kafka: String,
}

impl Ground {
    /// Starts everything but the `reserve`, which [`Harm::Rebalance`] brings in, and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start(options: &Options, plan: Plan, reserve: &[&'static str]) -> Outcome<Self> {
        // Logs of an earlier run would be taken for those of this one.
        if options.folder.exists() {
            std::fs::remove_dir_all(&options.folder)?;
        }
        let mut fleet = Fleet::start_plan(plan, &options.programs, &options.folder).await?;
        block_in_place(|| reserve.iter().for_each(|name| fleet.end(name, DRAIN)));
        let (kafka, _) = fleet.servers().ok_or("the fleet stands on Kafka")?;
        Ok(Self { fleet, kafka })
    }

    /// The fleet itself.
    pub fn fleet(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Redis.
    ///
    /// # Errors
    /// Never: the fleet stands on it.
    pub fn redis(&mut self) -> Outcome<&mut RedisNodes> {
        let (_, redis) = self.fleet.stack().ok_or("the fleet stands on Redis")?;
        Ok(redis)
    }

    /// Where Kafka and Redis are.
    ///
    /// # Errors
    /// Never: the fleet stands on them.
    pub fn servers(&self) -> Outcome<(String, String)> {
        Ok(self.fleet.servers().ok_or("the fleet stands on Kafka and Redis")?)
    }

    /// The log, of which nothing has been read.
    #[must_use]
    pub fn log(&self) -> Log {
        Log::new(&self.kafka, PARTITIONS)
    }

    /// An upstream system.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn publisher(&self) -> Outcome<Publisher> {
        Publisher::open(&self.kafka).await
    }

    /// WhatsApp's own side.
    #[must_use]
    pub fn whatsapp(&self) -> WhatsAppSide {
        WhatsAppSide::new(&self.fleet.settings().simulator_url())
    }

    /// Does harm. Load runs meanwhile in other tasks.
    ///
    /// # Errors
    /// When a server or a process does not come back.
    pub async fn harm(&mut self, harm: Harm) -> Outcome<()> {
        match harm {
            Harm::Kill(name) => {
                self.fleet.kill9(name);
                tokio::time::sleep(DEAD).await;
                self.fleet.spawn(name)?;
                self.fleet.wait_ready(name).await?;
            }
            Harm::Freeze(name) => {
                self.fleet.freeze(name)?;
                // Long enough that somebody else owns its partitions and has sent on them.
                tokio::time::sleep(SESSION * 3).await;
                self.fleet.thaw(name)?;
                // A worker that lost everything may end itself, to be started again by whoever runs it.
                tokio::time::sleep(DEAD).await;
                self.fleet.revive()?;
                self.fleet.wait_ready(name).await?;
            }
            Harm::Restart(name) => {
                block_in_place(|| self.fleet.end(name, DRAIN));
                self.fleet.spawn(name)?;
                self.fleet.wait_ready(name).await?;
            }
            Harm::Rebalance(name) => {
                self.fleet.spawn(name)?;
                self.fleet.wait_ready(name).await?;
                tokio::time::sleep(DEAD * 2).await;
                block_in_place(|| self.fleet.end(name, DRAIN));
            }
            Harm::Broker => {
                let (kafka, _) = self.fleet.stack().ok_or("the fleet stands on Kafka")?;
                block_in_place(|| kafka.broker(0).restart())?;
            }
            Harm::Outage => {
                let (kafka, _) = self.fleet.stack().ok_or("the fleet stands on Kafka")?;
                let brokers = kafka.brokers();
                block_in_place(|| (0..brokers).try_for_each(|broker| kafka.broker(broker).pause()))?;
                tokio::time::sleep(OUTAGE).await;
                let (kafka, _) = self.fleet.stack().ok_or("the fleet stands on Kafka")?;
                block_in_place(|| (0..brokers).try_for_each(|broker| kafka.broker(broker).resume()))?;
                // Workers that gave up are started again by whoever runs them.
                tokio::time::sleep(SESSION).await;
                self.fleet.revive()?;
            }
            Harm::Redis => {
                self.redis()?.first().kill9();
                tokio::time::sleep(DEAD).await;
                let redis = self.redis()?;
                block_in_place(|| redis.first().restart())?;
            }
        }
        Ok(())
    }

    /// Ends every process in good order.
    pub fn stop(&mut self) {
        block_in_place(|| self.fleet.stop());
    }
}
