//! Says when a customer service window opens, when it ends soon and when it has ended: once each, and in time (P11, P12).
//!
//! One worker, [`WindowTimer`]. A timer in the gate is only a wake-up (R8): what is said is decided on the fold of the log, after it
//! has caught up with the log as it was when the timer was due.

mod config;
mod names;
mod timer;
mod window;

use connector_contracts::Topic;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;

pub use config::Config;
pub use timer::WindowTimer;

/// Adds the worker.
pub fn start(config: Config, service: &mut Service) {
    let platform = service.platform().clone();
    let topics = vec![platform.topic(Topic::ConversationEvents)];
    let mut spec = WorkerSpec::new("window-timer", "window-timer".to_owned(), topics, platform.instance.clone());
    // A turn costs the same round trips whether it takes few or many, and a rebuild has many.
    spec.batch = 4_000;
    spec.buffer = 16_000;
    service.worker(spec, WindowTimer::new(&platform, config.tick));
}
