//! A long outage: a million windows have ended and nobody said so. How fast that is worked off, and whether what ends meanwhile has to wait
//! for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connector_contracts::headers::CE_TYPE;
use connector_contracts::{Topic, decode_event};
use connector_domain::event::Event;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_ports::log::{Isolation, Polled, Reader, Record, Start, TopicPartition};
use connector_runtime::platform::{Platform, views};

use super::{DAY, PATIENCE, Servers, append, caught_up, end, message, stream, timer};
use crate::report::{Outcome, Report, millis, percentile};

/// Windows that end while the backlog is worked off, each second.
const LIVE_PER_S: u64 = 50;

/// The clock of a timer as it was so long ago.
struct Behind(Duration);

#[async_trait]
impl Clock for Behind {
    fn now(&self) -> Timestamp {
        SystemClock.now() - self.0
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

impl Servers {
    pub(super) async fn backlog(&self, report: &mut Report) -> Outcome<()> {
        let windows: u64 = if report.quick() { 100_000 } else { 1_000_000 };
        let platform = self.platform("backlog").await?;
        // All of them were opened in time; then the timer was switched off, before the first one ended.
        let before = Platform { clock: Arc::new(Behind(DAY * 2)), ..platform.clone() };
        let (written, opener) = (before.clock.now(), timer(&before));
        append(&platform, windows, |n| message(n, written, written + DAY + Duration::from_millis(n / 50))).await?;
        caught_up(&platform, views::WINDOWS).await?;
        let (live, first) =
            (LIVE_PER_S * if report.quick() { 5 } else { 40 }, SystemClock.now() + Duration::from_secs(12));
        let ends = |n: u64| first + Duration::from_micros(n * 1_000_000 / LIVE_PER_S);
        append(&platform, live, |n| message(windows + n, written, ends(n))).await?;
        caught_up(&platform, views::WINDOWS).await?;
        opener.stop().await?;

        let from = (0..).zip(end(&platform).await?).map(|(partition, end)| {
            (TopicPartition { topic: platform.topic(Topic::ConversationEvents), partition }, Start::At(end))
        });
        let mut reader = platform.log.assign(from.collect(), Isolation::Committed).await?;
        let began = Instant::now();
        let running = timer(&platform);
        let told = Told::read(reader.as_mut(), windows, live, began).await?;
        reader.close().await;
        running.stop().await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = windows as f64 / (told.last - told.first).as_secs_f64();
        let note = format!(
            "{windows} overdue windows, first to last event read committed; the first {:.1} s after the start of the timer, the last {:.1} s",
            (told.first - began).as_secs_f64(),
            (told.last - began).as_secs_f64(),
        );
        report.add("expiries_per_s", rate, "1/s", note);
        let note = format!(
            "{live} windows that end beside the overdue ones, {LIVE_PER_S}/s; p50 {:.0}, max {:.0}",
            percentile(&told.late, 0.5),
            percentile(&told.late, 1.0)
        );
        report.add("expiry_lateness_ms_p99_beside_overdue", percentile(&told.late, 0.99), "ms", note);
        Ok(())
    }
}

/// What a reader of the log saw of ends.
struct Told {
    /// When the first one of an overdue window was read.
    first: Instant,
    /// When the last one was.
    last: Instant,
    /// How late the others were, in milliseconds.
    late: Vec<f64>,
}

impl Told {
    /// Reads until all have ended, each once: the first `windows` overdue, `live` behind them in their time.
    async fn read(reader: &mut dyn Reader, windows: u64, live: u64, began: Instant) -> Outcome<Self> {
        let in_time: HashSet<Bytes> = (windows..windows + live).map(|n| stream(n).to_string().into()).collect();
        let mut told = Self { first: began, last: began, late: Vec::new() };
        let mut seen: HashSet<Bytes> = HashSet::new();
        let (mut overdue, mut spoken) = (0, Instant::now());
        while overdue < windows || (told.late.len() as u64) < live {
            if spoken.elapsed() > PATIENCE {
                return Err(format!("{overdue} of {windows} windows have ended and nothing goes on").into());
            }
            let Polled::Records(records) = reader.poll(Duration::from_millis(50), 5_000).await? else { continue };
            for Record { key, value, .. } in records.into_iter().filter(is_end) {
                let key = key.unwrap_or_default();
                if in_time.contains(&key) {
                    let recorded = decode_event(value.as_deref().unwrap_or_default())?;
                    let Event::WindowExpired(expired) = recorded.event else { continue };
                    told.late.push(millis(SystemClock.now().since(expired.deadline)));
                } else {
                    overdue += 1;
                    told.last = Instant::now();
                    if overdue == 1 {
                        told.first = told.last;
                    }
                }
                if !seen.insert(Bytes::copy_from_slice(&key)) {
                    return Err("a window has ended twice".into());
                }
                spoken = Instant::now();
            }
        }
        Ok(told)
    }
}

fn is_end(record: &Record) -> bool {
    record.header(CE_TYPE).is_some_and(|kind| kind.ends_with(b"WindowExpired"))
}
