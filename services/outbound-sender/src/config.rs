//! The settings of the outbound sender.

use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Variable};

const CONCURRENCY: Variable = Variable::with_default(
    "DISPATCH_CONCURRENCY",
    Kind::Number,
    "256",
    "How many conversations a worker sends to at the same time (1 to 10000): about the rate times the Graph API's answer time.",
);
const BUFFER: Variable = Variable::with_default(
    "DISPATCH_BUFFER",
    Kind::Number,
    "4000",
    "Messages per partition that wait in memory (100 to 100000). Of the others only their place is kept; they are read again when they may go.",
);
const NUMBER_RATE: Variable = Variable::with_default(
    "NUMBER_RATE",
    Kind::Number,
    "80",
    "Messages per second that may leave from one business number (1 to 1000), over all workers, where neither the number nor its organization has set a rate in the directory. WhatsApp allows 80, after its upgrade 1000; a number leaves no faster than WhatsApp reports that it takes.",
);
const NUMBER_BURST: Variable = Variable::with_default(
    "NUMBER_BURST",
    Kind::Number,
    "8",
    "How many messages of one business number may leave at once after a pause (1 to 1000). In no second leave more than NUMBER_RATE and this.",
);
const PAIR_INTERVAL: Variable = Variable::with_default(
    "PAIR_INTERVAL",
    Kind::Duration,
    "6s",
    "Time that one message to the same contact costs. WhatsApp allows one per 6 seconds.",
);
const PAIR_BURST: Variable = Variable::with_default(
    "PAIR_BURST",
    Kind::Number,
    "45",
    "How many messages may go to the same contact at once, borrowed from the time that follows (1 to 1000).",
);
const CONFIGURATION_PAUSE: Variable = Variable::with_default(
    "CONFIGURATION_PAUSE",
    Kind::Duration,
    "30s",
    "How long a number is held back after WhatsApp refused because of token, permission, account or billing; doubles up to tenfold.",
);

/// What the outbound sender can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Conversations that one worker sends to at the same time.
    pub concurrency: usize,
    /// Messages per partition that wait in memory.
    pub buffer: usize,
    /// Messages per second of one number.
    pub number_rate: u32,
    /// Messages of one number that may leave at once.
    pub number_burst: u32,
    /// Time that one message to the same contact costs.
    pub pair_interval: Duration,
    /// Messages that may go to the same contact at once.
    pub pair_burst: u32,
    /// First pause of a number after a refusal because of its configuration.
    pub configuration_pause: Duration,
}

impl Config {
    /// The variables this reads, for the reference page.
    pub const GROUP: Group = Group {
        title: "Outbound sender",
        doc: "How fast messages leave. The limits hold for all workers together; they are counted in the gate.",
        used_by: &["outbound-sender", "connector"],
        variables: &[CONCURRENCY, BUFFER, NUMBER_RATE, NUMBER_BURST, PAIR_INTERVAL, PAIR_BURST, CONFIGURATION_PAUSE],
    };

    /// Reads the settings; what is wrong with them stays with the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let concurrency = reader.number_in(&CONCURRENCY, 1..=10_000);
        let buffer = reader.number_in(&BUFFER, 100..=100_000);
        let number_rate = reader.number_in(&NUMBER_RATE, 1..=1000);
        let number_burst = reader.number_in(&NUMBER_BURST, 1..=1000);
        let pair_interval = reader.duration(&PAIR_INTERVAL);
        let pair_burst = reader.number_in(&PAIR_BURST, 1..=1000);
        let configuration_pause = reader.duration(&CONFIGURATION_PAUSE);
        Some(Self {
            concurrency: concurrency?,
            buffer: buffer?,
            number_rate: number_rate?,
            number_burst: number_burst?,
            pair_interval: pair_interval?,
            pair_burst: pair_burst?,
            configuration_pause: configuration_pause?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_the_limits_are_those_of_whatsapp() {
        let config = connector_settings::load(&[("UNRELATED", "1")], Config::from).expect("defaults are valid");
        assert_eq!((config.number_rate, config.pair_interval, config.pair_burst), (80, Duration::from_secs(6), 45));
        assert_eq!((config.concurrency, config.configuration_pause), (256, Duration::from_secs(30)));
        // A burst as large as the rate would let twice the rate leave in one second.
        assert_eq!(config.number_burst, 8);
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        assert!(connector_settings::load(&[("NUMBER_RATE", "0")], Config::from).is_err());
        assert!(connector_settings::load(&[("DISPATCH_CONCURRENCY", "0")], Config::from).is_err());
    }
}
