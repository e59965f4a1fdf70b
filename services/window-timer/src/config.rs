//! What can be set about window timers.

use std::time::Duration;

use connector_settings::{Group, Kind, Reader, Variable};

const TICK: Variable = Variable::with_default(
    "WINDOW_TICK",
    Kind::Duration,
    "100ms",
    "How often windows are looked for that end or end soon. The end of a window is published within a second of it.",
);

/// What can be set about window timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often windows are looked for.
    pub tick: Duration,
}

impl Config {
    /// Every variable this reads.
    pub const VARIABLES: &[Variable] = &[TICK];

    /// The variables for the reference page.
    pub const GROUP: Group = Group {
        title: "Window timers",
        doc: "When it is said that a customer service window ends.",
        used_by: &["window-timer", "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves problems behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { tick: reader.duration(&TICK)? })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { tick: Duration::from_millis(100) }
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
