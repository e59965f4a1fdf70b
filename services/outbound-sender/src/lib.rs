//! The outbound sender: answers send commands once, and sends what it accepted.
//!
//! - [`admit`]: every command is accepted or rejected with a reason. What is accepted goes to the dispatch topic.
//! - [`dispatch`]: per conversation in order, across conversations in parallel, within WhatsApp's limits, one POST per attempt, and
//!   the attempt in the journal before its first byte leaves (R4).

pub mod admit;
pub mod config;
pub mod dispatch;
mod seal;
pub mod tables;

use std::sync::Arc;

use connector_contracts::Topic;
use connector_ports::WhatsApp;
use connector_runtime::platform::groups;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;

pub use config::Config;

use admit::Admit;
use dispatch::Dispatcher;
use tables::Tables;

/// The producer's name in the envelopes of events.
const PRODUCER: &str = "outbound-sender";

/// Most records of one turn. A turn costs a transaction and a few questions to the gate, however many records share it.
const BATCH: usize = 2_000;

/// Most partitions that admission answers in one transaction. Each costs it two partitions to write to, half a millisecond apiece, and what
/// is accepted together is sent together.
const TOGETHER: usize = 3;

/// Adds admission, dispatch and the tables both look things up in. Every POST goes through `whatsapp`.
pub fn start(config: Config, whatsapp: Arc<dyn WhatsApp>, service: &mut Service) {
    let platform = service.platform().clone();
    let tables = Tables::new(&platform);
    tables.follow(service);

    let spec = |name: &'static str, topic: Topic| {
        let spec = WorkerSpec::new(name, name.to_owned(), vec![platform.topic(topic)], platform.instance.clone());
        WorkerSpec { batch: BATCH, ..spec }
    };
    let admit = Admit::new(&platform, tables.clone());
    service.worker(WorkerSpec { together: TOGETHER, ..spec(groups::SEND_COMMANDS, Topic::SendCommands) }, admit);

    let dispatcher = Dispatcher::new(&platform, &config, whatsapp, tables);
    let dispatch = WorkerSpec { buffer: config.buffer, ..spec("outbound-sender.dispatch", Topic::Dispatch) };
    service.worker(dispatch, dispatcher);
}
