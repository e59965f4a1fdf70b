//! A service: its workers and tasks, started together, ended together.

use futures::future::{BoxFuture, FutureExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;
use crate::platform::Platform;
use crate::status::Status;
use crate::worker::{Worker, WorkerError, WorkerSpec};

/// Something that runs until the service is shut down.
struct Part {
    name: &'static str,
    status: Status,
    run: BoxFuture<'static, Result<(), WorkerError>>,
}

/// A service that has not started.
pub struct Service {
    platform: Platform,
    shutdown: CancellationToken,
    parts: Vec<Part>,
}

impl Service {
    /// A service without parts, which ends when `shutdown` is cancelled.
    #[must_use]
    pub const fn new(platform: Platform, shutdown: CancellationToken) -> Self {
        Self { platform, shutdown, parts: Vec::new() }
    }

    /// What the service stands on.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Cancelled when the service has to end.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Adds a worker.
    pub fn worker<H: Handler + 'static>(&mut self, spec: WorkerSpec, handler: H) {
        let status = Status::default();
        let name = spec.name;
        let worker = Worker::new(spec, handler, &self.platform, status.clone());
        let run = worker.run(self.shutdown.clone()).boxed();
        self.parts.push(Part { name, status, run });
    }

    /// Adds a task that must end soon after `shutdown` is cancelled. It tells through `status` when it is ready.
    pub fn task(
        &mut self,
        name: &'static str,
        status: Status,
        run: impl Future<Output = Result<(), WorkerError>> + Send + 'static,
    ) {
        self.parts.push(Part { name, status, run: run.boxed() });
    }

    /// Every part's name and status, for the health endpoints.
    #[must_use]
    pub fn statuses(&self) -> Vec<(&'static str, Status)> {
        self.parts.iter().map(|part| (part.name, part.status.clone())).collect()
    }

    /// Runs all parts. When one fails or ends unasked, the others are shut down.
    ///
    /// # Errors
    /// The first failure.
    pub async fn run(self) -> Result<(), WorkerError> {
        let shutdown = self.shutdown;
        let mut running = JoinSet::new();
        for part in self.parts {
            running.spawn(part.run.map(move |end| (part.name, end)));
        }
        let mut result = Ok(());
        while let Some(joined) = running.join_next().await {
            let end = match joined {
                Ok((name, Ok(()))) if !shutdown.is_cancelled() => {
                    Err(WorkerError::Fatal { worker: name, reason: "it ended unasked".to_owned() })
                }
                Ok((_, end)) => end,
                Err(error) => Err(WorkerError::Fatal { worker: "a part", reason: error.to_string() }),
            };
            if end.is_err() && result.is_ok() {
                shutdown.cancel();
                result = end;
            }
        }
        result
    }
}
