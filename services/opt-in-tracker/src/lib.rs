//! Keeps what decisions are made on: consent, enablement and contacts, as facts in the log and as views of the gate.
//!
//! Three workers. The [`Projector`] owns the `conversations` views: it folds the log into them, announces what a contact's answer
//! means, and ends opt-in requests that nobody answered or that did not get to the contact. [`Consent`] answers consent commands.
//! [`Directory`] turns the directory into facts. The latter two decide on views that have caught up (R2), since what they accept,
//! others build on. Beside the projector goes an audit that folds the log a second time, without the gate, and compares.

mod asking;
mod config;
mod consent;
mod directory;
mod fold;
mod gone;
mod projector;
mod settling;
mod shadow;

use connector_contracts::Topic;
use connector_runtime::audit::{self, Auditor};
use connector_runtime::numbers::Numbers;
use connector_runtime::platform::{groups, views};
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;

pub use config::Config;
pub use consent::Consent;
pub use directory::Directory;
pub use projector::Projector;
pub use shadow::Conversations;

/// The name of this service in the envelopes of its events. The memory of answered commands is rebuilt by it, so it never changes.
pub(crate) const PRODUCER: &str = "opt-in-tracker";

/// Records of the log in one turn of the projector, and in memory per partition. A turn costs the same round trips whether it takes few
/// or many, and a rebuild has many.
pub const PROJECTED_AT_ONCE: (usize, usize) = (2_000, 8_000);

/// Adds the three workers and the audit.
pub fn start(config: Config, service: &mut Service) {
    let platform = service.platform().clone();
    let spec = |name: &'static str, topic| {
        WorkerSpec::new(name, name.to_owned(), vec![platform.topic(topic)], platform.instance.clone())
    };
    let mut projector = spec("opt-in-tracker.projector", Topic::ConversationEvents);
    (projector.batch, projector.buffer) = PROJECTED_AT_ONCE;
    let consent = spec(groups::CONSENT_COMMANDS, Topic::ConsentCommands);
    let directory = spec(groups::DIRECTORY, Topic::Directory);
    let handler = Projector::new(&platform, config.tick);
    let auditor = Auditor::new(&platform, views::CONVERSATIONS, Box::new(|_| Conversations::default()));
    audit::start(service, "opt-in-tracker.audit", auditor, handler.owned(), config.audit, None);
    service.worker(projector, handler);
    let numbers = Numbers::new(&platform);
    numbers.follow("opt-in-tracker.numbers", service);
    service.worker(consent, Consent::new(&platform, config.template, numbers.clone()));
    service.worker(directory, Directory::new(&platform, config.patience, numbers));
}
