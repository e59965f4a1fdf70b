//! Projects the log into the `windows` views, and says what their timers bring.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::decode_event;
use connector_contracts::headers::{CE_TYPE, CE_TYPE_PREFIX};
use connector_domain::event::{Event, Recorded, TimeSource};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::gate::{Change, Due, Timer};
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, views};
use connector_runtime::projection::{Given, Projection};
use connector_telemetry::Metrics;
use connector_telemetry::metrics::WindowTransition;

use crate::names::{self, Names};
use crate::window::{Leads, Window};

/// The name of this service in the envelopes of its events.
const PRODUCER: &str = "window-timer";

/// The pause between two looks while timers are in hand.
const SOON: Duration = Duration::from_millis(5);

/// Whether an event says something about a window.
const fn about_window(event: &Event) -> bool {
    matches!(event, Event::MessageReceived(_) | Event::WindowClosingSoon(_) | Event::WindowExpired(_))
}

/// Whether a record is an event that says nothing about a window. Most of the log is, and need not be decoded.
fn beside(record: &Record) -> bool {
    let name = record.header(CE_TYPE).and_then(|name| name.strip_prefix(CE_TYPE_PREFIX.as_bytes()));
    name.is_some_and(|name| !matches!(name, b"MessageReceived" | b"WindowClosingSoon" | b"WindowExpired"))
}

/// An event to be folded.
struct Folded {
    /// Of the timer it is about.
    key: String,
    /// Its place in the batch.
    at: usize,
    replay: bool,
    recorded: Recorded,
}

/// The handler.
pub struct WindowTimer {
    projection: Projection,
    emitter: Emitter,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    leads: Leads,
    tick: Duration,
    names: BTreeMap<u32, Names>,
}

impl WindowTimer {
    /// A timer that looks for windows at their end this often.
    #[must_use]
    pub fn new(platform: &Platform, tick: Duration) -> Self {
        Self {
            projection: Projection::new(platform, views::WINDOWS).timers_only(),
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            metrics: platform.metrics.clone(),
            leads: Leads::of(&platform.rules),
            tick,
            names: BTreeMap::new(),
        }
    }

    /// Folds the records of partitions, and returns the changes of each view.
    async fn fold(
        &mut self,
        events: BTreeMap<u32, Vec<Folded>>,
        steps: &mut [Option<Step<()>>],
    ) -> Result<Vec<(u32, Vec<Change>)>, Failure> {
        let keys = |events: &[Folded]| events.iter().map(|event| event.key.clone()).collect::<BTreeSet<_>>();
        let keys: BTreeMap<u32, Vec<String>> =
            events.iter().map(|(partition, events)| (*partition, keys(events).into_iter().collect())).collect();
        let timers = self.projection.timers_of(&keys).await?;
        let mut changed = Vec::new();
        for (((partition, events), keys), timers) in events.into_iter().zip(keys.into_values()).zip(timers) {
            let mut windows: HashMap<&str, (Option<Window>, Option<Window>)> = HashMap::with_capacity(keys.len());
            for (key, timer) in keys.iter().zip(timers) {
                let before = timer.map(|timer| self.window(timer)).transpose()?;
                windows.insert(key, (before, before));
            }
            for Folded { key, at, replay, recorded } in &events {
                let Some((_, window)) = windows.get_mut(key.as_str()) else { continue };
                let (after, opened) = self.leads.evolve(*window, recorded);
                *window = after;
                let appends = match opened.filter(|_| !replay) {
                    Some(event) => vec![self.announce(event, recorded)?],
                    None => Vec::new(),
                };
                steps[*at] = Some(Step::Done(appends));
            }
            let mut changes = self.names.entry(partition).or_default().changes(&self.leads.name());
            for (key, (before, now)) in windows {
                let key = key.to_owned();
                match now {
                    _ if before == now => {}
                    Some(window) => {
                        let Timer { at, tag } = self.leads.timer(window);
                        changes.push(Change::Schedule { key, at, tag });
                    }
                    None => changes.push(Change::Unschedule { key }),
                }
            }
            changed.push((partition, changes));
        }
        Ok(changed)
    }

    fn window(&self, timer: Timer) -> Result<Window, Failure> {
        let strange = || Failure::Reinitialise("a timer was set under other leads".to_owned());
        self.leads.window(timer).ok_or_else(strange)
    }

    fn announce(&self, event: Event, recorded: &Recorded) -> Result<Append, Failure> {
        let envelope = &recorded.envelope;
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
    }

    /// What a timer that is due says, if it has something to say.
    fn say(
        &self,
        partition: u32,
        due: &Due,
        claimed_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<(Append, Timestamp)>, Failure> {
        let window = self.window(Timer { at: due.at, tag: due.tag })?;
        // A warning that had to wait for the view until its window's end came says nothing about that end: a message may have renewed the
        // window between the claim and the end. The timer is claimed again, and held against the log as it is then.
        let said = self.leads.due(window, now).filter(|(_, moment)| *moment <= claimed_at);
        let Some((event, moment)) = said else { return Ok(None) };
        let owner = self.names.get(&partition).and_then(|names| names.owner(&due.key));
        let stray = || Failure::Reinitialise("a timer belongs to no window".to_owned());
        let (organization, stream) = owner.ok_or_else(stray)?;
        let cause = Cause {
            organization_id: organization.clone(),
            stream_id: stream.into(),
            cause_id: cause_id(stream, &event, window.deadline, moment),
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
fn cause_id(stream: &str, event: &Event, deadline: Timestamp, moment: Timestamp) -> String {
    match event {
        Event::WindowClosingSoon(_) => {
            format!("{stream}/{}/{}", deadline.as_millis(), deadline.since(moment).as_millis())
        }
        _ => format!("{stream}/{}", moment.as_millis()),
    }
}

#[async_trait]
impl Handler for WindowTimer {
    type Fact = ();

    async fn assigned(&mut self, partition: &TopicPartition, committed: Option<Offset>) -> Result<TakeUp, Failure> {
        let number = partition.partition;
        let mut take_up = self.projection.acquire(number, committed).await?;
        let leads = names::leads(&mut self.projection, number).await?;
        if leads.is_some_and(|leads| leads != self.leads.name()) {
            tracing::info!(partition = number, "other leads are set: the windows are read again");
            take_up = self.projection.discard(number, committed).await?;
        }
        let names = Names::read(&mut self.projection, number).await?;
        self.names.insert(number, names);
        Ok(take_up)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.projection.forget(partition.partition);
        self.names.remove(&partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Option<Step<()>>> = work.iter().map(|_| None).collect();
        let mut by_partition: BTreeMap<u32, Vec<Folded>> = BTreeMap::new();
        for (at, Work { record, replay, .. }) in work.iter().enumerate() {
            let partition = record.source.partition;
            let events = by_partition.entry(partition).or_default();
            if beside(record) {
                steps[at] = Some(Step::Done(Vec::new()));
                continue;
            }
            match record.value.as_deref().map(decode_event) {
                Some(Ok(recorded)) if about_window(&recorded.event) => {
                    let names = self.names.entry(partition).or_default();
                    let key = names.key(&recorded.envelope.organization_id, &recorded.envelope.stream_id);
                    events.push(Folded { key, at, replay: *replay, recorded });
                }
                Some(Ok(_)) => steps[at] = Some(Step::Done(Vec::new())),
                Some(Err(error)) => steps[at] = Some(Step::DeadLetter(Reason::new(error.reason(), error))),
                None => {
                    let reason = Reason::new("tombstone", "the log takes nothing back");
                    steps[at] = Some(Step::DeadLetter(reason));
                }
            }
        }
        let (folded, beside): (BTreeMap<_, _>, BTreeMap<_, _>) =
            by_partition.into_iter().partition(|(_, events)| !events.is_empty());
        let mut changed = self.fold(folded, &mut steps).await?;
        changed.extend(beside.into_keys().map(|partition| (partition, Vec::new())));
        // Only now: what a failed call had kept would be applied with the next one.
        for (partition, changes) in changed {
            self.projection.keep(partition, changes)?;
        }
        let steps: Vec<_> = steps.into_iter().flatten().collect();
        for step in &steps {
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
        self.projection.committed(positions).await?;
        for (source, _) in positions {
            if let Some(names) = self.names.get_mut(&source.partition) {
                names.stored();
            }
        }
        Ok(())
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(if self.projection.busy() { SOON.min(self.tick) } else { self.tick })
    }

    async fn tick(&mut self) -> Result<Vec<Append>, Failure> {
        let now = self.clock.now();
        self.projection.verify(now).await?;
        let given = self.projection.due(now).await?;
        self.metrics.timers.oldest_overdue(self.projection.oldest_due().map_or(Duration::ZERO, |at| now.since(at)));
        // Nothing below waits or is tried again: what is proposed here is returned here.
        let mut appends = Vec::new();
        for Given { partition, claimed_at, due } in given {
            for due in due {
                if let Some((append, moment)) = self.say(partition, &due, claimed_at, now)?
                    && self.projection.propose(partition, &due.key, moment)?
                {
                    self.count(&append, now.since(moment));
                    appends.push(append);
                }
            }
            self.projection.resolved(partition);
        }
        Ok(appends)
    }
}
