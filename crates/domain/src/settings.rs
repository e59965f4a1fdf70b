//! The numbers the rules depend on. Their defaults are WhatsApp's; a demo shortens them.

use std::time::Duration;

/// Durations that the decisions use. None of them re-interprets history: deadlines stand in events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Length of the customer service window (P11). WhatsApp: 24 hours.
    pub window: Duration,
    /// Free-form sends stop this long before the deadline: clocks differ, requests take time.
    pub margin: Duration,
    /// Leads at which `WindowClosingSoon` is published.
    pub closing_soon: Vec<Duration>,
    /// An opt-in request ends without an answer after this long.
    pub opt_in_answer: Duration,
    /// A contact is asked this often within `opt_in_period` and no more, whoever asks. At most [`crate::consent::MOST_ASKS`].
    pub opt_in_limit: usize,
    /// The period of `opt_in_limit`.
    pub opt_in_period: Duration,
    /// Marketing templates to a person are held back this long after WhatsApp refused one for now (131049, 130472).
    pub marketing_hold: Duration,
    /// How long a command without `not_after` may wait.
    pub command_life: Duration,
    /// How long an attempt whose answer got lost waits for a status that settles it.
    pub unconfirmed_wait: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(24 * 3600),
            margin: Duration::from_secs(60),
            closing_soon: vec![Duration::from_secs(3600)],
            opt_in_answer: Duration::from_secs(7 * 24 * 3600),
            opt_in_limit: 3,
            opt_in_period: Duration::from_secs(30 * 24 * 3600),
            marketing_hold: Duration::from_secs(24 * 3600),
            command_life: Duration::from_secs(24 * 3600),
            unconfirmed_wait: Duration::from_secs(15 * 60),
        }
    }
}
