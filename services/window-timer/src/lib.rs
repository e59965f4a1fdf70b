//! Says when a customer service window opens, when it ends soon and when it has ended: once each, and in time (P11, P12).
//!
//! One worker, [`WindowTimer`]. A timer in the gate is only a wake-up (R8): what is said is decided on the fold of the log, after it
//! has caught up with the log as it was when the timer was due. Beside it goes an audit that folds the log a second time, without the gate,
//! and compares.

mod config;
mod names;
mod shadow;
mod timer;
mod window;

use connector_contracts::Topic;
use connector_runtime::audit::{self, Auditor};
use connector_runtime::platform::views;
use connector_runtime::service::Service;
use connector_runtime::worker::WorkerSpec;

pub use config::Config;
pub use shadow::Windows;
pub use timer::WindowTimer;

/// Adds the worker and the audit.
pub fn start(config: Config, service: &mut Service) {
    let platform = service.platform().clone();
    let topics = vec![platform.topic(Topic::ConversationEvents)];
    let mut spec = WorkerSpec::new("window-timer", "window-timer".to_owned(), topics, platform.instance.clone());
    // A turn costs the same round trips whether it takes few or many, and a rebuild has many.
    spec.batch = 4_000;
    spec.buffer = 16_000;
    let timer = WindowTimer::new(&platform, config.tick);
    let (owned, rules) = (timer.owned(), platform.rules.clone());
    service.worker(spec, timer);
    let reach = rules.window * shadow::REACH;
    let make =
        move |since: Option<_>| since.map_or_else(|| Windows::new(&rules), |since| Windows::since(&rules, since));
    let auditor = Auditor::new(&platform, views::WINDOWS, Box::new(make));
    audit::start(service, "window-timer.audit", auditor, owned, config.audit, Some(reach));
}
