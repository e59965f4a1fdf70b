//! Projects the log into the `windows` views, and says what their timers bring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::decode_event;
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::ids::StreamId;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::gate::{Change, Due};
use connector_ports::log::{Append, Appended, Offset, TopicPartition};
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, views};
use connector_runtime::situation::{load, store};
use connector_telemetry::Metrics;
use connector_telemetry::metrics::WindowTransition;

use crate::window::Window;
use connector_runtime::projection::Projection;

/// The name of this service in the envelopes of its events.
const PRODUCER: &str = "window-timer";

/// What stands in front of the stream in a key of the view.
const PREFIX: &str = "w:";

/// The key of a conversation's window, value and timer.
fn window_key(conversation: &StreamId) -> String {
    format!("{PREFIX}{conversation}")
}

/// Whether an event says something about a window.
const fn about_window(event: &Event) -> bool {
    matches!(event, Event::MessageReceived(_) | Event::WindowClosingSoon(_) | Event::WindowExpired(_))
}

/// The handler.
pub struct WindowTimer {
    projection: Projection,
    emitter: Emitter,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    rules: Rules,
    tick: Duration,
}

impl WindowTimer {
    /// A timer that looks for windows at their end this often.
    #[must_use]
    pub fn new(platform: &Platform, tick: Duration) -> Self {
        Self {
            projection: Projection::new(platform, views::WINDOWS),
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            metrics: platform.metrics.clone(),
            rules: platform.rules.clone(),
            tick,
        }
    }

    /// Folds a partition's records, and returns the changes of its view.
    async fn fold(
        &mut self,
        partition: u32,
        events: &[(usize, Recorded)],
        steps: &mut [Option<Step<()>>],
    ) -> Result<Vec<Change>, Failure> {
        let mut windows: BTreeMap<String, (Window, Window)> = BTreeMap::new();
        for (_, recorded) in events {
            windows.entry(window_key(&recorded.envelope.stream_id)).or_default();
        }
        let keys: Vec<String> = windows.keys().cloned().collect();
        let values = self.projection.read(partition, &keys).await?;
        for ((before, now), value) in windows.values_mut().zip(values) {
            *before = load(value.as_ref())?;
            *now = before.clone();
        }
        for (at, recorded) in events {
            let envelope = &recorded.envelope;
            let (_, window) = windows.entry(window_key(&envelope.stream_id)).or_default();
            let opened = window.evolve(recorded).map(|event| {
                let cause = Cause {
                    organization_id: envelope.organization_id.clone(),
                    stream_id: envelope.stream_id.clone(),
                    cause_id: envelope.event_id.to_string(),
                    command_id: None,
                    occurred_at: envelope.occurred_at,
                    time_source: envelope.time_source,
                    traceparent: envelope.traceparent.clone(),
                };
                self.emitter.emit(event, &cause)
            });
            steps[*at] = Some(Step::Done(opened.transpose()?.into_iter().collect()));
        }
        let mut changes = Vec::new();
        for (key, (before, now)) in windows {
            if before == now {
                continue;
            }
            changes.push(Change::Put { key: key.clone(), value: store(&now)? });
            match (before.next(&self.rules), now.next(&self.rules)) {
                (before, after) if before == after => {}
                (_, Some(at)) => changes.push(Change::Schedule { key, at }),
                (_, None) => changes.push(Change::Unschedule { key }),
            }
        }
        Ok(changes)
    }

    /// What a timer that is due says, if it still has something to say.
    fn say(&self, due: &Due, window: &Window, now: Timestamp) -> Result<Option<(Append, Timestamp)>, Failure> {
        let Some((event, moment)) = window.due(&self.rules, now) else { return Ok(None) };
        let stray = || Failure::Reinitialise("a timer belongs to no window".to_owned());
        let stream = due.key.strip_prefix(PREFIX).ok_or_else(stray)?;
        let cause = Cause {
            organization_id: window.organization_id.clone().ok_or_else(stray)?,
            stream_id: stream.into(),
            cause_id: cause_id(stream, &event, window, moment),
            command_id: None,
            occurred_at: moment,
            time_source: TimeSource::Connector,
            traceparent: None,
        };
        Ok(Some((self.emitter.emit(event, &cause)?, moment)))
    }

    fn count(&self, append: &Append, late: Duration) {
        let expired = append.headers.iter().any(|(_, value)| value.ends_with(b"WindowExpired"));
        let transition = if expired { WindowTransition::Expired } else { WindowTransition::ClosingSoon };
        self.metrics.timers.window(transition);
        self.metrics.timers.fired(late);
    }
}

/// One event per deadline, one warning per deadline and lead.
fn cause_id(stream: &str, event: &Event, window: &Window, moment: Timestamp) -> String {
    match (event, window.deadline) {
        (Event::WindowClosingSoon(_), Some(deadline)) => {
            format!("{stream}/{}/{}", deadline.as_millis(), deadline.since(moment).as_millis())
        }
        _ => format!("{stream}/{}", moment.as_millis()),
    }
}

#[async_trait]
impl Handler for WindowTimer {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        self.projection.acquire(partition.partition, committed).await
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.projection.forget(partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Option<Step<()>>> = work.iter().map(|_| None).collect();
        let mut by_partition: BTreeMap<u32, Vec<(usize, Recorded)>> = BTreeMap::new();
        for (at, Work { record, .. }) in work.iter().enumerate() {
            let events = by_partition.entry(record.source.partition).or_default();
            match record.value.as_deref().map(decode_event) {
                Some(Ok(recorded)) if about_window(&recorded.event) => events.push((at, recorded)),
                Some(Ok(_)) => steps[at] = Some(Step::Done(Vec::new())),
                Some(Err(error)) => steps[at] = Some(Step::DeadLetter(Reason::new(error.reason(), error))),
                None => {
                    let reason = Reason::new("tombstone", "the log takes nothing back");
                    steps[at] = Some(Step::DeadLetter(reason));
                }
            }
        }
        let mut changed = Vec::new();
        for (partition, events) in by_partition {
            let changes =
                if events.is_empty() { Vec::new() } else { self.fold(partition, &events, &mut steps).await? };
            changed.push((partition, changes));
        }
        for (partition, changes) in changed {
            self.projection.keep(partition, changes)?;
        }
        let steps: Vec<_> = steps.into_iter().flatten().collect();
        for (step, _) in steps.iter().zip(work).filter(|(_, work)| !work.replay) {
            if matches!(step, Step::Done(appends) if !appends.is_empty()) {
                self.metrics.timers.window(WindowTransition::Opened);
            }
        }
        Ok(steps)
    }

    async fn caught_up(&mut self, partition: &TopicPartition, position: Offset) -> Result<(), Failure> {
        self.projection.caught_up(partition.partition, position).await
    }

    async fn committed(
        &mut self,
        _appended: &[Appended],
        positions: &[(TopicPartition, Offset)],
    ) -> Result<(), Failure> {
        self.projection.committed(positions).await
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(self.tick)
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        let now = self.clock.now();
        self.projection.verify(now).await?;
        let mut read = Vec::new();
        for (partition, due) in self.projection.due(now).await? {
            let keys: Vec<_> = due.iter().map(|due| due.key.clone()).collect();
            let values = self.projection.read(partition, &keys).await?;
            read.push((partition, due, values));
        }
        self.metrics.timers.oldest_overdue(self.projection.oldest_due().map_or(Duration::ZERO, |at| now.since(at)));
        let given: Vec<u32> = read.iter().map(|(partition, ..)| *partition).collect();
        let mut said = Vec::new();
        for (partition, due, values) in read {
            let mut corrections = Vec::new();
            for (due, value) in due.into_iter().zip(values) {
                let window: Window = load(value.as_ref())?;
                match (self.say(&due, &window, now)?, window.next(&self.rules)) {
                    (Some((append, moment)), _) => said.push((partition, due.key, append, moment)),
                    (None, Some(at)) => corrections.push(Change::Schedule { key: due.key, at }),
                    (None, None) => corrections.push(Change::Unschedule { key: due.key }),
                }
            }
            self.projection.correct(partition, corrections).await?;
        }
        // Nothing below waits or is tried again: what is proposed here is returned here.
        let mut appends = Vec::new();
        for (partition, key, append, moment) in said {
            if self.projection.propose(partition, &key, moment)? {
                self.count(&append, now.since(moment));
                appends.push(append);
            }
        }
        for partition in given {
            self.projection.resolved(partition);
        }
        Ok(appends)
    }
}
