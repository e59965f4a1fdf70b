//! What the log says of every window, folded as plainly as it can be written, and what it must not say.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use connector_domain::event::{CallReceived, Event, MessageReceived, Recorded};
use connector_domain::ids::{EventId, StreamId};
use connector_domain::time::Timestamp;

/// How late an end may be told (P12).
const IN_TIME: Duration = Duration::from_secs(1);

/// An event and the moment at which it was written, as the log has it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The event.
    pub(super) recorded: Recorded,
    /// When its writer wrote it.
    pub(super) written: Timestamp,
}

/// What the log shows, when nobody writes any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Openings: by a message while none was open, or written after the end of the last.
    pub(super) windows: usize,
    /// Ends that were told again.
    pub(super) expired_twice: usize,
    /// Ends that nobody told; and those that were told of a window that was renewed before, too early, or of no window at all.
    pub(super) missed: usize,
    /// Ends that were not told within a second, and those that nobody told within a second before the contact opened a window anew.
    pub(super) late: usize,
    /// The longest time after which an end was told.
    pub(super) latest: Duration,
    /// Ends that nobody told because the contact had written again before.
    pub(super) overtaken: usize,
    /// Ends that were told while a message that came late, and renewed the window, was being written. Folds pass over them (R8).
    pub(super) crossed: usize,
    /// Openings that were not announced, or more often than once; warnings that were given twice.
    pub(super) misannounced: usize,
    /// One sentence for each that is expired twice, missed or not announced as it should be.
    pub(super) findings: Vec<String>,
}

/// The end of a window, perhaps one that was moved before it came.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    told: usize,
    /// The latest moment of writing among those that told it.
    told_at: Option<Timestamp>,
    warned: usize,
    /// The message that moved it.
    moved: Option<Moved>,
}

#[derive(Clone, Copy, Debug)]
struct Moved {
    by: EventId,
    written: Timestamp,
    /// Whether the contact wrote after this end: the window had ended, and another one opened.
    reopened: bool,
}

/// One conversation.
#[derive(Clone, Debug, Default)]
struct Story {
    open: Option<Timestamp>,
    windows: usize,
    announced: usize,
    ends: BTreeMap<Timestamp, End>,
    /// Ends of no window of this conversation.
    strange: usize,
}

/// The windows of all conversations.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// A message that comes this short before the end of its own window opens none (ADR 0018).
    slack: Duration,
    stories: HashMap<StreamId, Story>,
}

impl Windows {
    /// Of a log that is empty.
    pub(super) fn new(slack: Duration) -> Self {
        Self { slack, stories: HashMap::new() }
    }

    /// Folds the next event of its conversation.
    pub(super) fn evolve(&mut self, Entry { recorded: Recorded { envelope, event }, written }: &Entry) {
        if !matches!(
            event,
            Event::MessageReceived(_)
                | Event::CallReceived(_)
                | Event::WindowOpened(_)
                | Event::WindowClosingSoon(_)
                | Event::WindowExpired(_)
        ) {
            return;
        }
        let story = self.stories.entry(envelope.stream_id.clone()).or_default();
        match event {
            Event::MessageReceived(MessageReceived { window_deadline: Some(deadline), .. })
            | Event::CallReceived(CallReceived { window_deadline: deadline, .. }) => {
                let moved =
                    |end| Moved { by: envelope.event_id, written: *written, reopened: envelope.occurred_at >= end };
                match story.open {
                    Some(end) if *deadline > end => story.renew(moved(end), end, *deadline),
                    None if envelope.recorded_at + self.slack < *deadline => story.open(*deadline),
                    _ => {}
                }
            }
            Event::WindowOpened(_) => story.announced += 1,
            Event::WindowClosingSoon(soon) => match story.ends.get_mut(&soon.deadline) {
                Some(end) => end.warned += 1,
                None => story.strange += 1,
            },
            Event::WindowExpired(expired) => {
                match story.ends.get_mut(&expired.deadline) {
                    // Told too early is told of something that is not so.
                    Some(end) if envelope.recorded_at >= expired.deadline => {
                        end.told += 1;
                        end.told_at = end.told_at.max(Some(*written));
                    }
                    _ => story.strange += 1,
                }
                if story.open == Some(expired.deadline) {
                    story.open = None;
                }
            }
            _ => {}
        }
    }

    /// The end of a conversation's open window.
    pub(super) fn open(&self, stream: &StreamId) -> Option<Timestamp> {
        self.stories.get(stream)?.open
    }

    /// How many windows are open.
    pub(super) fn still_open(&self) -> usize {
        self.stories.values().filter(|story| story.open.is_some()).count()
    }

    /// Judges when all windows should have ended. `acknowledged`: when the log said that it has a message.
    pub(super) fn judge(&self, acknowledged: &HashMap<EventId, Timestamp>, counts: &mut Counts) {
        for (stream, story) in &self.stories {
            story.judge(stream, acknowledged, counts);
        }
    }
}

impl Story {
    fn open(&mut self, deadline: Timestamp) {
        self.windows += 1;
        self.open = Some(deadline);
        self.ends.entry(deadline).or_default();
    }

    fn renew(&mut self, moved: Moved, end: Timestamp, deadline: Timestamp) {
        self.ends.entry(end).or_default().moved = Some(moved);
        self.windows += usize::from(moved.reopened);
        self.open = Some(deadline);
        self.ends.entry(deadline).or_default();
    }

    fn judge(&self, stream: &StreamId, acknowledged: &HashMap<EventId, Timestamp>, counts: &mut Counts) {
        let mut find = |count: &mut usize, what: String| {
            *count += 1;
            counts.findings.push(format!("{stream} {what}"));
        };
        if let Some(end) = self.open {
            find(&mut counts.missed, format!("has not ended at {}", end.as_millis()));
        }
        for _ in 0..self.strange {
            find(&mut counts.missed, "was told to end too early, or at the end of no window of its own".to_owned());
        }
        if self.announced != self.windows {
            let what = format!("opened {} times and was announced {} times", self.windows, self.announced);
            find(&mut counts.misannounced, what);
        }
        counts.windows += self.windows;
        for (at, end) in &self.ends {
            let told = format!("was told {} times to end at {}", end.told, at.as_millis());
            if end.told > 1 {
                find(&mut counts.expired_twice, told.clone());
            }
            if end.warned > 1 {
                find(&mut counts.misannounced, format!("was warned {} times of {}", end.warned, at.as_millis()));
            }
            if let Some(moved) = end.moved.filter(|_| end.told > 0) {
                // The timer looks at the log as it is after the end: what stood in it by then it has seen.
                let renewed = acknowledged.get(&moved.by).filter(|acknowledged| *acknowledged <= at);
                if let Some(renewed) = renewed {
                    let before = at.since(*renewed).as_millis();
                    find(&mut counts.missed, format!("{told} although it was renewed {before} ms before"));
                } else if !moved.reopened {
                    counts.crossed += 1;
                }
            }
            let known = match (end.told_at, end.moved) {
                (Some(told_at), _) => Some(told_at),
                (None, Some(moved)) if moved.reopened => {
                    counts.overtaken += 1;
                    Some(moved.written)
                }
                (None, _) => None,
            };
            let late = known.map_or(Duration::ZERO, |known| known.since(*at));
            counts.late += usize::from(late > IN_TIME);
            counts.latest = counts.latest.max(late);
        }
    }
}

#[cfg(test)]
mod tests {
    use connector_domain::event::{Envelope, TimeSource, WindowCause, WindowExpired, WindowOpened};
    use connector_testkit::event::text_received;

    use super::*;

    const fn s(at: i64) -> Timestamp {
        Timestamp::from_secs(at)
    }

    /// Written at this second about what happened at that one.
    fn entry(written: i64, occurred: i64, event: impl Into<Event>) -> Entry {
        let event = event.into();
        let envelope = Envelope {
            event_id: id(written, occurred),
            event_type: event.type_name().to_owned(),
            schema_version: 1,
            organization_id: "acme".into(),
            stream_id: "k1-a".into(),
            cause_id: String::new(),
            command_id: None,
            occurred_at: s(occurred),
            time_source: TimeSource::Whatsapp,
            recorded_at: s(written),
            producer: String::new(),
            traceparent: None,
        };
        Entry { recorded: Recorded { envelope, event }, written: s(written) }
    }

    fn id(written: i64, occurred: i64) -> EventId {
        EventId::derived(&format!("{written} {occurred}"))
    }

    /// A message of windows that last 100 s.
    fn message(written: i64, occurred: i64) -> Entry {
        let message = text_received(s(occurred + 100));
        entry(written, occurred, message)
    }

    fn expired(written: i64, deadline: i64) -> Entry {
        entry(written, deadline, WindowExpired { deadline: s(deadline) })
    }

    fn opened(written: i64, deadline: i64) -> Entry {
        entry(
            written,
            written,
            WindowOpened { deadline: s(deadline), source: id(written, written), cause: WindowCause::Message },
        )
    }

    /// What is found in a log; every message was acknowledged at the moment of its writing.
    fn counts(log: &[Entry]) -> Counts {
        let mut windows = Windows::new(Duration::from_secs(5));
        let mut acknowledged = HashMap::new();
        for entry in log {
            windows.evolve(entry);
            acknowledged.insert(entry.recorded.envelope.event_id, entry.written);
        }
        let mut counts = Counts::default();
        windows.judge(&acknowledged, &mut counts);
        counts
    }

    fn bad(counts: &Counts) -> (usize, usize, usize) {
        (counts.expired_twice, counts.missed, counts.misannounced)
    }

    #[test]
    fn a_window_that_is_renewed_and_ends_once_is_one_window() {
        let counts = counts(&[message(0, 0), opened(0, 100), message(50, 50), expired(150, 150)]);
        assert_eq!((counts.windows, counts.late, bad(&counts)), (1, 0, (0, 0, 0)), "{:?}", counts.findings);
    }

    #[test]
    fn an_end_that_is_told_again_is_found() {
        let counts = counts(&[message(0, 0), opened(0, 100), expired(100, 100), expired(101, 100)]);
        assert_eq!(bad(&counts), (1, 0, 0));
    }

    #[test]
    fn an_end_that_is_never_told_is_found() {
        assert_eq!(bad(&counts(&[message(0, 0), opened(0, 100)])), (0, 1, 0));
    }

    #[test]
    fn an_end_of_a_window_that_was_renewed_before_is_found() {
        let log = [message(0, 0), opened(0, 100), message(50, 50), expired(100, 100), expired(150, 150)];
        assert_eq!(bad(&counts(&log)), (0, 1, 0));
    }

    #[test]
    fn an_end_too_early_or_of_no_window_is_found() {
        let early = [message(0, 0), opened(0, 100), expired(99, 100)];
        assert_eq!(bad(&counts(&early)), (0, 1, 0));
        let strange = [message(0, 0), opened(0, 100), expired(100, 100), expired(100, 90)];
        assert_eq!(bad(&counts(&strange)), (0, 1, 0));
    }

    #[test]
    fn an_opening_that_nobody_announces_is_found() {
        assert_eq!(bad(&counts(&[message(0, 0), expired(100, 100)])), (0, 0, 1));
    }

    #[test]
    fn a_renewal_that_was_written_while_its_end_was_told_is_nobodys_fault() {
        // Written by the contact in time, delivered late.
        let counts = counts(&[message(0, 0), opened(0, 100), message(101, 99), expired(101, 100), expired(199, 199)]);
        assert_eq!((counts.windows, counts.crossed, bad(&counts)), (1, 1, (0, 0, 0)), "{:?}", counts.findings);
    }

    #[test]
    fn a_contact_who_writes_after_the_end_opens_another_window_whether_or_not_the_end_was_told() {
        let rest = [message(103, 103), opened(103, 203), expired(203, 203)];
        let told = [&[message(0, 0), opened(0, 100), expired(102, 100)], &rest[..]].concat();
        let untold = [&[message(0, 0), opened(0, 100)], &rest[..]].concat();
        for (log, overtaken) in [(told, 0), (untold, 1)] {
            let counts = counts(&log);
            assert_eq!((counts.windows, counts.overtaken, counts.late), (2, overtaken, 1));
            assert_eq!(bad(&counts), (0, 0, 0), "{:?}", counts.findings);
        }
    }
}
