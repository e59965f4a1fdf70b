//! Runs a service in the world: starts it, and starts it anew after a crash or when it ended, until a condition holds.

use std::time::Duration;

use crate::world::SimWorld;

/// How long the machine needs to start a process again.
const RESTART: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Points passed: the next run may have a fault at each of them.
    pub points: u64,
    /// How often the service was started.
    pub starts: u32,
}

impl SimWorld {
    /// Runs `service` until `done` returns. The service is dropped at a crash, as is everything it spawned through handles that abort
    /// on drop; what goes on nevertheless gets no answer from any port.
    ///
    /// # Errors
    /// What was reached, when `done` did not return within `limit` of virtual time.
    pub async fn run<S, D>(
        &self,
        limit: Duration,
        service: impl Fn(SimWorld) -> S,
        done: impl FnOnce(SimWorld) -> D,
    ) -> Result<Run, Run>
    where
        S: Future<Output = ()>,
        D: Future<Output = ()>,
    {
        let done = tokio::time::timeout(limit, done(self.clone()));
        let mut done = std::pin::pin!(done);
        let mut starts = 0;
        loop {
            starts += 1;
            let ended = {
                let mut service = std::pin::pin!(service(self.clone()));
                tokio::select! {
                    biased;
                    result = &mut done => Some(result),
                    () = self.crashed() => None,
                    () = &mut service => None,
                }
            };
            if let Some(result) = ended {
                let run = Run { points: self.points(), starts };
                return result.map(|()| run).map_err(|_| run);
            }
            self.restart();
            tokio::time::sleep(RESTART).await;
        }
    }
}
