//! What the services take when nothing happens, and how long they take to begin.

use std::time::Duration;

use crate::cost::resident;
use crate::fleet::Service;
use crate::report::{Report, millis};

/// For what was needed at the start only to be given back.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn measure(report: &mut Report, fleet: &[Service]) {
    let slowest = fleet.iter().max_by_key(|service| service.start_to_ready);
    if let Some(slowest) = slowest.filter(|_| report.wants("start_to_ready_ms")) {
        let note = format!("process start to /readyz 200, the slowest: {}", slowest.name);
        report.add("start_to_ready_ms", millis(slowest.start_to_ready), "ms", note);
        for service in fleet {
            report.add(format!("start_to_ready_ms_{}", service.name), millis(service.start_to_ready), "ms", "");
        }
    }
    if report.wants("rss_idle_mb") {
        tokio::time::sleep(SETTLE).await;
        for service in fleet {
            let (what, note) = (format!("rss_idle_mb_{}", service.name), on(service));
            if let Some(megabytes) = report.attempt(&what, resident(service.pid())) {
                report.add(what, megabytes, "MB", note);
            }
        }
    }
}

fn on(service: &Service) -> &'static str {
    if service.name == "connector" { "every service in one process, embedded" } else { "6 partitions, Kafka and Redis" }
}
