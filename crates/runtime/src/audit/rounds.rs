//! The audit that goes on by itself, beside the worker that owns the views.

use std::collections::HashMap;
use std::time::Duration;

use connector_domain::time::Timestamp;
use connector_ports::gate::View;
use connector_telemetry::metrics::AuditResult;

use super::{Auditor, Bounds, Look, Owned, Shadow};
use crate::failure::Failure;
use crate::platform::Platform;
use crate::service::Service;
use crate::status::Status;

/// Records that one look reads at most: a quarter of a second of a core (measured for conversations).
const RECORDS: usize = 50_000;

/// Entries that are kept of all partitions together: some tens of megabytes.
const SAMPLE: usize = 40_000;

/// Between two times that a view is built again because of this audit. A fold that does not come to the same end twice would have it built
/// for ever.
const HEALED: Duration = Duration::from_secs(600);

/// Streams named in the log of the process, of those that have drifted. Their ids are opaque.
const NAMED: usize = 5;

/// Adds the task that looks at one of the partitions in `owned` this often, one after the other. `reach`: how far back in the log a
/// fold has to begin; `None`: at its beginning. Not at all when `every` is zero.
pub fn start<S: Shadow>(
    service: &mut Service,
    task: &'static str,
    auditor: Auditor<S>,
    owned: Owned,
    every: Duration,
    reach: Option<Duration>,
) {
    if every.is_zero() {
        return;
    }
    let (platform, shutdown, status) = (service.platform().clone(), service.shutdown(), Status::default());
    // Nobody waits for it.
    status.set_ready();
    let mut rounds = Rounds { platform, auditor, owned, reach, last: None, healed: HashMap::new() };
    service.task(task, status, async move {
        let clock = rounds.platform.clock.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = clock.sleep(every) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = rounds.next() => {}
            }
        }
    });
}

struct Rounds<S> {
    platform: Platform,
    auditor: Auditor<S>,
    owned: Owned,
    reach: Option<Duration>,
    last: Option<u32>,
    /// When views were built again.
    healed: HashMap<u32, Timestamp>,
}

impl<S: Shadow> Rounds<S> {
    /// Looks at the next partition.
    async fn next(&mut self) {
        self.auditor.keep(&self.owned);
        let Some((partition, held)) = self.owned.after(self.last) else { return };
        self.last = Some(partition);
        let view = View::new(self.auditor.name, partition);
        let gate = &self.platform.metrics.gate;
        let since = self.reach.map(|reach| self.platform.clock.now() - reach);
        let bounds = Bounds { since, records: RECORDS, sample: SAMPLE / held };
        match self.auditor.look(partition, bounds).await {
            Ok(Look::Behind | Look::Elsewhere) => gate.audited(view.name, AuditResult::Behind),
            Ok(Look::Compared { checked, drifted }) => {
                gate.audited(view.name, AuditResult::Compared);
                gate.compared(view.name, checked, drifted.len());
                if !drifted.is_empty() {
                    self.heal(&view, &drifted).await;
                }
            }
            Err(failure) => {
                gate.audited(view.name, AuditResult::Failed);
                tracing::debug!(%view, %failure, "not compared with the log this time");
            }
        }
    }

    /// The view is built from the log by its owner, and nobody decides on it until then.
    async fn heal(&mut self, view: &View, drifted: &[String]) {
        let streams = &drifted[..drifted.len().min(NAMED)];
        tracing::error!(%view, drifted = drifted.len(), ?streams, "this view is not what the log says");
        let now = self.platform.clock.now();
        if self.healed.get(&view.partition).is_some_and(|healed| now.since(*healed) < HEALED) {
            tracing::error!(%view, "it was built again a short time ago and is left as it is for now");
            return;
        }
        match self.platform.gate.discard(view).await.map_err(Failure::from) {
            Ok(()) => {
                self.healed.insert(view.partition, now);
            }
            // The next comparison finds the same.
            Err(failure) => tracing::warn!(%view, %failure, "it cannot be discarded now"),
        }
    }
}
