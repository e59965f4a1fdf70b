//! Projects the log into the `windows` views, and says what their timers bring.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connector_contracts::headers::{CE_TYPE, CE_TYPE_PREFIX};
use connector_contracts::{decode_event, event_type, glimpse};
use connector_domain::event::{Event, TimeSource};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::gate::{Change, Due, Timer};
use connector_ports::log::{Append, Appended, Offset, Record, TopicPartition};
use connector_runtime::audit::Owned;
use connector_runtime::emit::{Cause, Emitter};
use connector_runtime::entry;
use connector_runtime::failure::Failure;
use connector_runtime::handler::{Handler, Reason, Step, TakeUp};
use connector_runtime::lanes::Work;
use connector_runtime::platform::{Platform, views};
use connector_runtime::projection::{Given, Projection};
use connector_telemetry::Metrics;
use connector_telemetry::metrics::WindowTransition;

use crate::names::{Names, Values};
use crate::window::{self, Leads, Told, Window};

/// The name of this service in the envelopes of its events.
const PRODUCER: &str = "window-timer";

/// The pause between two looks while timers are in hand.
const SOON: Duration = Duration::from_millis(5);

/// Whether a record is an event that says nothing about a window. Most of the log is, and need not be read. One that a newer build wrote is
/// known by its header.
pub(crate) fn beside(record: &Record) -> bool {
    if let Some(event_type) = record.value.as_deref().and_then(event_type) {
        return !Told::by(event_type);
    }
    let name = record.header(CE_TYPE).and_then(|name| name.strip_prefix(CE_TYPE_PREFIX.as_bytes()));
    name.and_then(|name| std::str::from_utf8(name).ok()).is_some_and(|name| !Told::by(name))
}

/// What the records of a partition say about windows.
#[derive(Default)]
struct Heard {
    /// The timers it is about.
    keys: Vec<String>,
    places: HashMap<String, usize>,
    /// Place of the timer, place of the record in the batch, what it says.
    told: Vec<(usize, usize, Told)>,
}

impl Heard {
    fn hear(&mut self, key: String, at: usize, told: Told) {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => {
                self.keys.push(key.clone());
                self.places.insert(key, self.keys.len() - 1);
                self.keys.len() - 1
            }
        };
        self.told.push((place, at, told));
    }
}

/// The handler.
pub struct WindowTimer {
    projection: Projection,
    partitions: u32,
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
            partitions: platform.partitions,
            emitter: platform.emitter(PRODUCER),
            clock: platform.clock.clone(),
            metrics: platform.metrics.clone(),
            leads: Leads::of(&platform.rules),
            tick,
            names: BTreeMap::new(),
        }
    }

    /// The partitions held, for the audit.
    #[must_use]
    pub fn owned(&self) -> Owned {
        self.projection.owned()
    }

    /// Folds what was heard of partitions, and returns the changes of each view.
    async fn fold(
        &mut self,
        heard: BTreeMap<u32, Heard>,
        work: &[Work],
        steps: &mut [Step<()>],
    ) -> Result<Vec<(u32, Vec<Change>)>, Failure> {
        let keys: Vec<_> = heard.iter().map(|(partition, heard)| (*partition, &*heard.keys)).collect();
        let timers = self.projection.timers_of(&keys).await?;
        let mut changed = Vec::new();
        for ((partition, heard), timers) in heard.into_iter().zip(timers) {
            let window = |timer: Option<Timer>| timer.map(|timer| self.window(timer)).transpose();
            let before: Vec<_> = timers.into_iter().map(window).collect::<Result<_, _>>()?;
            let mut windows = before.clone();
            for (place, at, told) in heard.told {
                let Some(window) = windows.get_mut(place) else { continue };
                let after = self.leads.evolve(*window, told);
                if after != *window && !work[at].replay {
                    steps[at] = self.announce(*window, &work[at].record)?;
                }
                *window = after;
            }
            let mut changes = self.names.entry(partition).or_default().changes(&self.leads.name());
            for ((key, before), now) in heard.keys.into_iter().zip(before).zip(windows) {
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

    /// What follows from a record that turned `before` into another window.
    fn announce(&self, before: Option<Window>, record: &Record) -> Result<Step<()>, Failure> {
        let recorded = match decode_event(record.value.as_deref().unwrap_or_default()) {
            Ok(recorded) => recorded,
            // Its window counts nevertheless, as it will when the log is read again.
            Err(error) => return Ok(Step::DeadLetter(Reason::new(error.reason(), error))),
        };
        let Some(event) = window::announce(before, &recorded) else { return Ok(Step::Done(Vec::new())) };
        let envelope = recorded.envelope;
        let cause = Cause {
            organization_id: envelope.organization_id,
            stream_id: envelope.stream_id,
            cause_id: envelope.event_id.to_string(),
            command_id: None,
            occurred_at: envelope.occurred_at,
            time_source: envelope.time_source,
            traceparent: envelope.traceparent,
        };
        Ok(Step::Done(vec![self.emitter.emit(event, &cause)?]))
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
        let expired = append
            .headers
            .iter()
            .any(|(_, value)| value.as_ref().is_some_and(|value| value.ends_with(b"WindowExpired")));
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
        let leads = Values::Owned(&mut self.projection, number).leads().await?;
        if leads.is_some_and(|leads| leads != self.leads.name()) {
            tracing::info!(partition = number, "other leads are set: the windows are read again");
            take_up = self.projection.discard(number, committed).await?;
        }
        let names = Names::read(Values::Owned(&mut self.projection, number)).await?;
        self.names.insert(number, names);
        Ok(take_up)
    }

    fn revoked(&mut self, partition: &TopicPartition) {
        self.projection.forget(partition.partition);
        self.names.remove(&partition.partition);
    }

    async fn handle(&mut self, work: &[Work]) -> Result<Vec<Step<()>>, Failure> {
        let mut steps: Vec<Step<()>> = work.iter().map(|_| Step::Done(Vec::new())).collect();
        let mut by_partition: BTreeMap<u32, Heard> = BTreeMap::new();
        for (at, Work { record, .. }) in work.iter().enumerate() {
            let partition = record.source.partition;
            let heard = by_partition.entry(partition).or_default();
            if beside(record) {
                continue;
            }
            match record.value.as_deref().map(glimpse) {
                Some(Ok(event)) => {
                    if let Err(reason) = entry::in_place(record, event.stream_id, self.partitions) {
                        steps[at] = Step::DeadLetter(reason);
                        continue;
                    }
                    if let Some(told) = Told::of(&event) {
                        let names = self.names.entry(partition).or_default();
                        heard.hear(names.key(event.organization_id, event.stream_id), at, told);
                    }
                }
                Some(Err(error)) => steps[at] = Step::DeadLetter(Reason::new(error.reason(), error)),
                None => steps[at] = Step::DeadLetter(entry::tombstone()),
            }
        }
        let (heard, beside): (BTreeMap<_, _>, BTreeMap<_, _>) =
            by_partition.into_iter().partition(|(_, heard)| !heard.told.is_empty());
        let mut changed = self.fold(heard, work, &mut steps).await?;
        changed.extend(beside.into_keys().map(|partition| (partition, Vec::new())));
        // Only now: what a failed call had kept would be applied with the next one.
        for (partition, changes) in changed {
            self.projection.keep(partition, changes)?;
        }
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
