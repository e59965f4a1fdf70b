//! Settings: command line arguments with environment fallbacks (`SIMULATOR_*`).

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Parser, ValueEnum};

/// Why the simulator cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file named by a setting cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The world file is not what `world.rs` describes.
    #[error("the world file {} is not valid", path.display())]
    World {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The listen address is not available.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client for webhooks cannot be built.
    #[error("cannot build the webhook client")]
    Client(#[source] reqwest::Error),
}

/// A value that never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(value))
    }
}

/// A switch: `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Enabled.
    On,
    /// Disabled.
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// How a free-form message outside the customer service window is refused. Meta documents neither, implementers report
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WindowErrors {
    /// HTTP 400 with 131047 in the response.
    Sync,
    /// HTTP 200 with a wamid, then a `failed` status with 131047.
    Async,
    /// The window is not checked (benchmarks).
    Off,
}

/// Order of webhook deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WebhookOrder {
    /// One delivery at a time per contact, in the order of the events, as long as the receiver answers 200.
    Sequential,
    /// Any order.
    Concurrent,
}

/// All settings. Every argument can be given as an environment variable.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "cloud-api-simulator", about = "WhatsApp Cloud API for development and tests", version)]
#[non_exhaustive]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "SIMULATOR_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where webhooks go. Without it they wait until `PUT /simulator/callback` or an override names a receiver.
    #[arg(long, env = "SIMULATOR_CALLBACK_URL")]
    pub callback_url: Option<String>,
    /// App secret: the key of `X-Hub-Signature-256`.
    #[arg(long, env = "SIMULATOR_APP_SECRET", default_value = "simulator-app-secret", hide_env_values = true)]
    pub app_secret: Secret,
    /// File with the app secret; wins over `--app-secret`.
    #[arg(long, env = "SIMULATOR_APP_SECRET_FILE")]
    pub app_secret_file: Option<PathBuf>,
    /// Token sent as `hub.verify_token` when a callback URL is verified.
    #[arg(long, env = "SIMULATOR_VERIFY_TOKEN", default_value = "simulator-verify-token", hide_env_values = true)]
    pub verify_token: Secret,
    /// Access token the Graph API accepts; any other gets 401 with code 190.
    #[arg(long, env = "SIMULATOR_TOKEN", default_value = "simulator-token", hide_env_values = true)]
    pub token: Secret,
    /// File with the access token; wins over `--token`.
    #[arg(long, env = "SIMULATOR_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A business phone number (repeatable); paired with the `--waba-id` at the same place, or with the last one.
    #[arg(long, env = "SIMULATOR_PHONE_NUMBER_ID", value_delimiter = ',')]
    pub phone_number_id: Vec<String>,
    /// WhatsApp Business Account of the phone number at the same place (repeatable).
    #[arg(long, env = "SIMULATOR_WABA_ID", value_delimiter = ',')]
    pub waba_id: Vec<String>,
    /// World file (JSON): accounts, numbers and templates; wins over the two above.
    #[arg(long, env = "SIMULATOR_WORLD")]
    pub world: Option<PathBuf>,
    /// Length of the customer service window, e.g. `24h`, `20s`.
    #[arg(long, env = "SIMULATOR_WINDOW", default_value = "24h", value_parser = parse_duration)]
    pub window: Duration,
    /// How a message outside the window is refused.
    #[arg(long, env = "SIMULATOR_WINDOW_ERRORS", default_value = "sync")]
    pub window_errors: WindowErrors,
    /// Seed of ids and fault decisions.
    #[arg(long, env = "SIMULATOR_SEED", default_value_t = 1)]
    pub seed: u64,
    /// Delay of every answer to a send, in milliseconds.
    #[arg(long, env = "SIMULATOR_DELAY_MS", default_value_t = 0)]
    pub delay_ms: u64,
    /// Whether sends produce status webhooks.
    #[arg(long, env = "SIMULATOR_STATUSES", default_value = "on")]
    pub statuses: Switch,
    /// Time from `sent` to `delivered`.
    #[arg(long, env = "SIMULATOR_DELIVERY_DELAY", default_value = "200ms", value_parser = parse_duration)]
    pub delivery_delay: Duration,
    /// Whether contacts read what is delivered to them by themselves.
    #[arg(long, env = "SIMULATOR_AUTO_READ", default_value = "off")]
    pub auto_read: Switch,
    /// Time from `delivered` to `read` when contacts read by themselves.
    #[arg(long, env = "SIMULATOR_READ_DELAY", default_value = "1s", value_parser = parse_duration)]
    pub read_delay: Duration,
    /// Messages per second and business number before 130429; 0 is no limit (WhatsApp: 80).
    #[arg(long, env = "SIMULATOR_THROUGHPUT", default_value_t = 0)]
    pub throughput: u32,
    /// Whether the pair limit (45 at once, then one per 6 s to the same contact) answers 131056.
    #[arg(long, env = "SIMULATOR_PAIR_LIMIT", default_value = "off")]
    pub pair_limit: Switch,
    /// HTTP status of throttle errors (130429, 131056): older pages say 429, field reports 400.
    #[arg(long, env = "SIMULATOR_THROTTLE_STATUS", default_value_t = 400, value_parser = clap::value_parser!(u16).range(400..600))]
    pub throttle_status: u16,
    /// Order of webhook deliveries.
    #[arg(long, env = "SIMULATOR_WEBHOOK_ORDER", default_value = "sequential")]
    pub webhook_order: WebhookOrder,
    /// Deliveries in flight at most.
    #[arg(long, env = "SIMULATOR_WEBHOOK_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub webhook_concurrency: u16,
    /// Updates in one POST at most (WhatsApp: up to 1000); only what is already waiting is put together.
    #[arg(long, env = "SIMULATOR_WEBHOOK_BATCH", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub webhook_batch: u16,
    /// First pause of the retry backoff, after the immediate retry; it doubles from there.
    #[arg(long, env = "SIMULATOR_WEBHOOK_RETRY_BASE", default_value = "1s", value_parser = parse_duration)]
    pub webhook_retry_base: Duration,
    /// Longest pause of the retry backoff.
    #[arg(long, env = "SIMULATOR_WEBHOOK_RETRY_MAX", default_value = "30s", value_parser = parse_duration)]
    pub webhook_retry_max: Duration,
    /// How long a webhook is retried before it is dropped (WhatsApp: 7 days).
    #[arg(long, env = "SIMULATOR_WEBHOOK_GIVE_UP", default_value = "7d", value_parser = parse_duration)]
    pub webhook_give_up: Duration,
    /// How long the receiver may take to answer.
    #[arg(long, env = "SIMULATOR_WEBHOOK_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub webhook_timeout: Duration,
    /// Webhooks kept in the ledger at most (the counters count all).
    #[arg(long, env = "SIMULATOR_WEBHOOK_LEDGER", default_value_t = 50_000)]
    pub webhook_ledger: usize,
    /// Messages kept on the screen of one contact at most.
    #[arg(long, env = "SIMULATOR_SCREEN", default_value_t = 1_000)]
    pub screen: usize,
}

impl Default for Config {
    /// The defaults of the command line, without its environment.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            callback_url: None,
            app_secret: Secret::new("simulator-app-secret"),
            app_secret_file: None,
            verify_token: Secret::new("simulator-verify-token"),
            token: Secret::new("simulator-token"),
            token_file: None,
            phone_number_id: Vec::new(),
            waba_id: Vec::new(),
            world: None,
            window: Duration::from_secs(24 * 3600),
            window_errors: WindowErrors::Sync,
            seed: 1,
            delay_ms: 0,
            statuses: Switch::On,
            delivery_delay: Duration::from_millis(200),
            auto_read: Switch::Off,
            read_delay: Duration::from_secs(1),
            throughput: 0,
            pair_limit: Switch::Off,
            throttle_status: 400,
            webhook_order: WebhookOrder::Sequential,
            webhook_concurrency: 64,
            webhook_batch: 1,
            webhook_retry_base: Duration::from_secs(1),
            webhook_retry_max: Duration::from_secs(30),
            webhook_give_up: Duration::from_secs(7 * 24 * 3600),
            webhook_timeout: Duration::from_secs(10),
            webhook_ledger: 50_000,
            screen: 1_000,
        }
    }
}

impl Config {
    /// Replaces the secrets by the content of their files, where files are named.
    ///
    /// # Errors
    /// [`StartError::Read`] when a file cannot be read.
    pub fn read_secret_files(mut self) -> Result<Self, StartError> {
        if let Some(path) = &self.app_secret_file {
            self.app_secret = read_secret(path)?;
        }
        if let Some(path) = &self.token_file {
            self.token = read_secret(path)?;
        }
        Ok(self)
    }
}

fn read_secret(path: &Path) -> Result<Secret, StartError> {
    let text = std::fs::read_to_string(path).map_err(|source| StartError::Read { path: path.to_owned(), source })?;
    Ok(Secret::new(text.trim()))
}

/// Parses `500ms`, `20s`, `15m`, `24h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a number with a unit is needed: ms, s, m, h or d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number is needed before the unit".to_owned())?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_without_arguments_gives_the_defaults() {
        let parsed = Config::try_parse_from(["cloud-api-simulator"]).expect("no argument is required");
        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn numbers_and_accounts_are_repeatable() {
        let args = ["x", "--phone-number-id", "1", "--waba-id", "A", "--phone-number-id", "2", "--window", "20s"];
        let parsed = Config::try_parse_from(args).expect("valid arguments");
        assert_eq!((parsed.phone_number_id.len(), parsed.waba_id.len()), (2, 1));
        assert_eq!(parsed.window, Duration::from_secs(20));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(parse_duration("10").is_err());
        assert!(parse_duration("h").is_err());
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", Config::default()).contains("simulator-token"));
    }
}
