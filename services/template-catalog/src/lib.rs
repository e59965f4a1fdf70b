//! Keeps the table of message templates equal to what WhatsApp has approved (P13).
//!
//! One task asks the Graph API about every account of the directory: soon after it appears, when a webhook says that its templates
//! have changed, and in an interval. Only what changed is written; what is gone gets a tombstone. Several instances may do this at once: they write the same.
//! A worker beside it brings what stands in the table's topic and is no template to the dead letters.

mod news;
mod sync;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use connector_contracts::Topic;
use connector_domain::template::Template;
use connector_ports::WhatsApp;
use connector_runtime::service::Service;
use connector_runtime::status::Status;
use connector_runtime::table::Table;
use connector_runtime::worker::WorkerSpec;
use connector_settings::{Group, Kind, Reader, Variable};

use news::News;
pub use sync::{Catalog, changes};
use unreadable::Unreadable;

/// The service's name.
pub const SERVICE: &str = "template-catalog";

const INTERVAL: Variable = Variable::with_default(
    "TEMPLATE_SYNC_INTERVAL",
    Kind::Duration,
    "15m",
    "How often WhatsApp is asked for the templates of an account.",
);

/// What is specific to the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two questions about an account.
    pub interval: Duration,
}

impl Config {
    /// The variables this reads.
    pub const VARIABLES: &[Variable] = &[INTERVAL];

    /// The variables, for the reference page.
    pub const GROUP: Group = Group {
        title: "Template catalogue",
        doc: "Templates are created and approved in WhatsApp Manager; the connector reads them.",
        used_by: &[SERVICE, "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves a problem behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let interval = reader.duration(&INTERVAL)?;
        if interval < Duration::from_secs(1) {
            reader.problem(&INTERVAL, "is too short; expected 1s or more");
            return None;
        }
        Some(Self { interval })
    }
}

/// Adds the task, the two tables it compares, and the worker that looks for what is no template.
pub fn start(config: Config, whatsapp: Arc<dyn WhatsApp>, service: &mut Service) {
    let platform = service.platform().clone();
    let (log, clock) = (platform.log.clone(), platform.clock.clone());
    let directory = platform.topic(Topic::Directory);
    let numbers = Table::new(log.clone(), clock.clone(), directory, |key| {
        key.starts_with("number/") || key.starts_with("number-state/")
    });
    let templates: Table<Template> = Table::new(log, clock, platform.topic(Topic::Templates), |_| true);

    let (table, shutdown, status) = (numbers.clone(), service.shutdown(), Status::default());
    status.set_ready();
    service.task("template-catalog numbers", status, async move {
        table.follow(shutdown).await;
        Ok(())
    });
    let (table, shutdown, status) = (templates.clone(), service.shutdown(), Status::default());
    status.set_ready();
    service.task("template-catalog templates", status, async move {
        table.follow(shutdown).await;
        Ok(())
    });
    let unreadable = WorkerSpec::new(
        "template-catalog.unreadable",
        "template-catalog.unreadable".to_owned(),
        vec![platform.topic(Topic::Templates)],
        platform.instance.clone(),
    );
    service.worker(unreadable, Unreadable::new(&platform));
    let news = Arc::new(News::new(&platform, numbers.clone()));
    let (listening, shutdown, status) = (news.clone(), service.shutdown(), Status::default());
    status.set_ready();
    service.task("template-catalog news", status, async move {
        listening.follow(shutdown).await;
        Ok(())
    });
    let (shutdown, status) = (service.shutdown(), Status::default());
    let catalog = Catalog::new(config, whatsapp, &platform, (numbers, templates), news, status.clone());
    service.task(SERVICE, status, async move {
        catalog.run(shutdown).await;
        Ok(())
    });
}
