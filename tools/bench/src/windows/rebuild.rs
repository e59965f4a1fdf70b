//! A Redis that lost everything: how fast the windows of a long log are in it again.

use std::time::{Duration, Instant};

use connector_contracts::Topic;
use connector_domain::event::{Event, Recorded, WindowCause, WindowExpired, WindowOpened};
use connector_domain::ids::EventId;
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use connector_ports::log::{Polled, Start, Subscription, TopicPartition};
use connector_runtime::platform::{Platform, views};

use super::{DAY, PATIENCE, Servers, append, caught_up, end, message, timer};
use crate::report::{Outcome, Report};

impl Servers {
    /// A log in which each window was opened, said to be open, and said to have ended, all of them before the first ended: none of it is
    /// left in the end, and most of it at some moment in between.
    pub(super) async fn rebuild(&self, report: &mut Report) -> Outcome<()> {
        let windows: u64 = if report.quick() { 100_000 } else { 1_000_000 };
        let platform = self.platform("rebuild").await?;
        let written = SystemClock.now() - DAY * 2;
        let deadline = |n: u64| written + DAY + Duration::from_millis(n / 50);
        append(&platform, 2 * windows, |n| {
            let message = message(n / 2, written, deadline(n / 2));
            let opened = WindowOpened {
                deadline: deadline(n / 2),
                source: message.envelope.event_id,
                cause: WindowCause::Message,
            };
            if n % 2 == 0 { message } else { said(message, opened.into()) }
        })
        .await?;
        let ended = |n| said(message(n, written, deadline(n)), WindowExpired { deadline: deadline(n) }.into());
        append(&platform, windows, ended).await?;
        self.handled_before(&platform).await?;

        let events: i64 = end(&platform).await?.iter().map(|offset| offset.0).sum();
        let began = Instant::now();
        let running = timer(&platform);
        caught_up(&platform, views::WINDOWS).await?;
        let took = began.elapsed();
        running.stop().await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = events as f64 / took.as_secs_f64();
        let note = format!(
            "{events} events of windows from the beginning of the log into an empty Redis, joining the group included"
        );
        report.add("projection_rebuild_per_s", rate, "1/s", note);
        Ok(())
    }

    /// The group of the timer has done all of this before.
    async fn handled_before(&self, platform: &Platform) -> Outcome<()> {
        let topic = platform.topic(Topic::ConversationEvents);
        let positions = (0..).zip(end(platform).await?);
        let positions: Vec<_> =
            positions.map(|(partition, end)| (TopicPartition { topic: topic.clone(), partition }, end)).collect();
        let group = platform.topics.prefixed("window-timer");
        let subscription = Subscription { group, topics: vec![topic], member: None, start: Start::End };
        let mut reader = platform.log.subscribe(subscription).await?;
        let began = Instant::now();
        while !matches!(reader.poll(Duration::from_millis(50), 1).await?, Polled::Assigned(_)) {
            if began.elapsed() > PATIENCE {
                return Err("the group does not begin".into());
            }
        }
        reader.commit(&positions).await?;
        reader.close().await;
        Ok(())
    }
}

/// An event about the window that this message opened.
fn said(message: Recorded, event: Event) -> Recorded {
    let mut envelope = message.envelope;
    envelope.event_id = EventId::derived(&format!("{}/{}", envelope.event_id, event.type_name()));
    event.type_name().clone_into(&mut envelope.event_type);
    Recorded { envelope, event }
}
