//! Somebody who delivers: requests that were written and signed beforehand, over connections that stay, from a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_whatsapp::signature::{SIGNATURE_HEADER, sign};
use tokio::task::JoinSet;

use crate::fleet::APP_SECRET;
use crate::http::{Connection, post_request};
use crate::report::{Outcome, millis};

/// Whole requests, in the bytes of the wire.
pub(crate) type Requests = Arc<Vec<Vec<u8>>>;

/// The request of a delivery.
pub(crate) fn request(path: &str, body: &str) -> Vec<u8> {
    post_request(path, (SIGNATURE_HEADER, &sign(APP_SECRET.as_bytes(), body.as_bytes())), body.as_bytes())
}

/// A receiver and how it is loaded.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) requests: Requests,
    /// Not counted.
    pub(crate) warm: Duration,
    pub(crate) period: Duration,
}

impl Load {
    /// Deliveries answered a second when every connection posts its next one as soon as the last one was answered.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) async fn saturate(self) -> Outcome<f64> {
        let period = self.period;
        let answered = self.on_a_thread(|load: Self, number: usize| async move {
            let mut connection = Connection::open(load.target).await?;
            let start = Instant::now();
            let (from, until) = (start + load.warm, start + load.warm + load.period);
            let mut answered = 0_usize;
            // Every connection begins elsewhere, so that they do not all write to one person.
            for request in load.requests.iter().cycle().skip(number * 37 % load.requests.len()) {
                let at = connection.accepted(request).await?;
                if at >= until {
                    break;
                }
                answered += usize::from(at >= from);
            }
            Ok(answered)
        });
        Ok(answered.await?.into_iter().sum::<usize>() as f64 / period.as_secs_f64())
    }

    /// Milliseconds from the moment a delivery was due until it was answered, at this many deliveries a second. They leave at fixed
    /// moments whether or not earlier ones were answered.
    pub(crate) async fn paced(self, rate: f64) -> Outcome<Vec<f64>> {
        let start = Instant::now() + Duration::from_millis(200);
        let times = self.on_a_thread(move |load: Self, number: usize| async move {
            let mut connection = Connection::open(load.target).await?;
            let gap = Duration::from_secs_f64(1.0 / rate);
            let mut times = Vec::new();
            let mut nth = number;
            loop {
                let after = gap.mul_f64(f64::from(u32::try_from(nth)?));
                if after >= load.warm + load.period {
                    return Ok(times);
                }
                let due = start + after;
                tokio::time::sleep_until(due.into()).await;
                let at = connection.accepted(&load.requests[nth % load.requests.len()]).await?;
                if after >= load.warm {
                    times.push(millis(at.saturating_duration_since(due)));
                }
                nth += load.connections;
            }
        });
        Ok(times.await?.into_iter().flatten().collect())
    }

    /// Runs `work` once per connection, all of them on one thread that does nothing else.
    async fn on_a_thread<T, F, R>(self, work: F) -> Outcome<Vec<T>>
    where
        T: Send + 'static,
        F: Fn(Self, usize) -> R + Send + 'static,
        R: Future<Output = Outcome<T>> + 'static,
    {
        let all = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let mut posting = JoinSet::new();
                for number in 0..self.connections {
                    posting.spawn_local(work(self.clone(), number));
                }
                let mut results = Vec::new();
                while let Some(result) = posting.join_next().await {
                    results.push(result??);
                }
                Ok(results)
            })
        };
        tokio::task::spawn_blocking(all).await?
    }
}
