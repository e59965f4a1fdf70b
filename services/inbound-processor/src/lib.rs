//! Turns webhook items into events of the log: any shape Meta sends, each item once (R1, R3, R9, R10).
//!
//! One worker reads the webhook topic. [`meaning`] understands an item, [`People`](connector_runtime::people::People) finds the conversation it belongs to, and
//! [`handler`] drops repeats and puts the events together. An item whose conversation continues in another partition is sent on to
//! that partition once, so that the memory there decides about repeats: the memory of a partition is exact for what it wrote itself.
//!
//! Account webhooks carry no id. Two that are equal byte for byte and, where Meta tells it, of the same moment count as one.

pub mod handler;
pub mod meaning;
mod moves;

use connector_contracts::Topic;
use connector_domain::consent::ConsentVocabulary;
use connector_runtime::service::Service;
use connector_runtime::status::Status;
use connector_runtime::table::Table;
use connector_runtime::worker::WorkerSpec;
use connector_settings::{Group, Kind, Reader, Variable};

pub use handler::InboundHandler;

/// The service's name, as producer of events, consumer group and worker.
pub const SERVICE: &str = "inbound-processor";

const WORDS: Variable = Variable::optional(
    "CONSENT_WORDS_FILE",
    Kind::Path,
    "A JSON file with the words by which people accept, decline, stop and start, by organization. Without it the built-in words \
     of nine languages hold.",
);

/// What is specific to the processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The words that answers are recognised by.
    pub vocabulary: ConsentVocabulary,
}

impl Config {
    /// The variables this reads.
    pub const VARIABLES: &[Variable] = &[WORDS];

    /// The variables, for the reference page.
    pub const GROUP: Group = Group {
        title: "Inbound processing",
        doc: "What contacts' answers mean is decided when a message is recorded, and stands in the event.",
        used_by: &[SERVICE, "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let Some(path) = reader.path(&WORDS) else { return Some(Self::default()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                reader.problem(&WORDS, format!("cannot be read: {error}"));
                return None;
            }
        };
        match serde_json::from_str(&text) {
            Ok(vocabulary) => Some(Self { vocabulary }),
            Err(error) => {
                reader.problem(&WORDS, format!("is not a vocabulary: {error}"));
                None
            }
        }
    }
}

/// Most items of one turn. A turn costs a transaction and a question per partition, whatever its size: a backlog goes in large ones.
const BATCH: usize = 2_000;

/// Adds the worker and the table of numbers it needs.
pub fn start(config: Config, service: &mut Service) {
    let platform = service.platform().clone();
    let directory = platform.topic(Topic::Directory);
    let numbers = Table::new(platform.log.clone(), platform.clock.clone(), directory, |key| key.starts_with("number/"));
    let (table, shutdown, status) = (numbers.clone(), service.shutdown(), Status::default());
    // The worker waits for the table itself where it needs to know that a number is absent.
    status.set_ready();
    service.task("inbound-processor numbers", status, async move {
        table.follow(shutdown).await;
        Ok(())
    });
    let topics = vec![platform.topic(Topic::Webhooks)];
    let spec =
        WorkerSpec { batch: BATCH, ..WorkerSpec::new(SERVICE, SERVICE.to_owned(), topics, platform.instance.clone()) };
    service.worker(spec, InboundHandler::new(&platform, config, numbers));
}
