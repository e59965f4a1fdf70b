//! Harm to a running fleet on real servers, while it works.
//!
//! A scenario puts load on a fleet, harms it meanwhile ([`fleet::Harm`]), waits until everything is at rest, and then judges by
//! two witnesses who know nothing of each other: the log ([`log::Log`]) and the ledger of the simulated WhatsApp
//! ([`whatsapp::WhatsAppSide`]), or Redis. It ends with one line of counts, and holds or does not.

pub mod fleet;
pub mod inbound;
pub mod log;
pub mod outage;
pub mod outbound;
mod random;
pub mod whatsapp;
pub mod windows;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// Why a scenario could not be played to its end. The text is for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error is for people.
pub type Outcome<T> = Result<T, Failure>;

/// What is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Messages on their way out.
    Outbound,
    /// Messages on their way in.
    Inbound,
    /// Customer service windows, and what decisions know of conversations.
    Windows,
    /// Kafka and Redis, away for two minutes at a time.
    Outage,
}

/// What a scenario found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The counts.
    pub line: String,
    /// Whether what was promised held.
    pub holds: bool,
}

/// How a scenario is played.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the built programs.
    pub programs: PathBuf,
    /// Takes the data and logs of the processes.
    pub folder: PathBuf,
    /// How much is done; each scenario says of what. Its own default when absent.
    pub sends: Option<usize>,
    /// A small and short run, with little harm.
    pub quick: bool,
    /// Decides the order of the harm, and which answers WhatsApp loses.
    pub seed: u64,
    /// Redis is a cluster of three masters, one of which dies. Windows only.
    pub cluster: bool,
}

impl Options {
    /// A run of the programs in this folder.
    #[must_use]
    pub fn new(programs: &Path, folder: &Path) -> Self {
        Self {
            programs: programs.to_owned(),
            folder: folder.to_owned(),
            sends: None,
            quick: false,
            seed: 1,
            cluster: false,
        }
    }
}

impl Scenario {
    /// Plays it.
    ///
    /// # Errors
    /// When it could not be played to its end.
    pub async fn play(self, options: &Options) -> Outcome<Verdict> {
        match self {
            Self::Outbound => outbound::play(options).await,
            Self::Inbound => inbound::play(options).await,
            Self::Windows => windows::play(options).await,
            Self::Outage => outage::play(options).await,
        }
    }
}
