//! What can be set about window timers.

use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Variable};

const TICK: Variable = Variable::with_default(
    "WINDOW_TICK",
    Kind::Duration,
    "100ms",
    "How often windows are looked for that end or end soon. The end of a window is published within a second of it.",
);
const AUDIT: Variable = Variable::with_default(
    "WINDOW_AUDIT",
    Kind::Duration,
    "10s",
    "How often one partition's windows are compared with the log, one partition after the other. `0s`: never.",
);

/// What can be set about window timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often windows are looked for.
    pub tick: Duration,
    /// How often one partition is compared with the log; zero for never.
    pub audit: Duration,
}

impl Config {
    /// Every variable this reads.
    pub const VARIABLES: &[Variable] = &[TICK, AUDIT];

    /// The variables for the reference page.
    pub const GROUP: Group = Group {
        title: "Window timers",
        doc: "When it is said that a customer service window ends.",
        used_by: &["window-timer", "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves problems behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let (tick, audit) = (reader.duration(&TICK), reader.duration_or_zero(&AUDIT));
        Some(Self { tick: tick?, audit: audit? })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { tick: Duration::from_millis(100), audit: Duration::from_secs(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults_in_code() {
        let nothing = std::collections::HashMap::<String, String>::new();
        assert_eq!(connector_settings::load(&nothing, Config::from).ok(), Some(Config::default()));
    }
}
