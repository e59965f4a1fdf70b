//! Which log a partition is, asked again from time to time: a topic may be made anew under those who know it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connector_ports::Log;
use connector_ports::log::{Identity, LogError, TopicPartition};
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How long an answer is believed. So long, at most and about, what was read of a former topic is taken for one of the present.
const BELIEVED: Duration = Duration::from_secs(30);

/// Asks beside the work: nobody waits for an answer, and what could not be asked is asked the next time.
#[derive(Default)]
pub struct Renewed(Mutex<Asking>);

#[derive(Default)]
struct Asking {
    since: Option<Instant>,
    running: Option<AbortOnDropHandle<Result<Identity, LogError>>>,
}

impl Renewed {
    /// The answer, once, when there is a new one. To be called whenever it could matter.
    pub fn answer(&self, log: &Arc<dyn Log>, source: &TopicPartition) -> Option<Identity> {
        let mut asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = asking.running.as_mut().and_then(|running| running.now_or_never());
        if let Some(answer) = answered {
            *asking = Asking { since: Some(Instant::now()), running: None };
            return answer.ok().and_then(Result::ok);
        }
        let since = *asking.since.get_or_insert_with(Instant::now);
        if asking.running.is_none() && since.elapsed() >= BELIEVED {
            let (log, source) = (log.clone(), source.clone());
            asking.running = Some(AbortOnDropHandle::new(tokio::spawn(async move { log.identity(&source).await })));
        }
        None
    }
}
