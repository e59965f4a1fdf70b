//! The fold of one conversation's window. An open window is one timer of the view and nothing else: the moment at which something has to
//! be said next, and what that is; a closed one is nothing at all.

use std::time::Duration;

use connector_contracts::Glimpse;
use connector_domain::conversation::Conversation;
use connector_domain::decide::{announce_window, decide_closing_soon, decide_expiry};
use connector_domain::event::{Envelope, Event, Recorded};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_ports::gate::{MAX_TAG, Timer};

/// The leads at which it is warned, longest first. A timer's tag is 0 for the end of its window, else the place of the lead from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leads {
    leads: Vec<Duration>,
    /// A message or call that comes this short before the end of its own window opens none. Nobody could use it: free-form sends stop a
    /// margin before the end. And clocks that differ by less cannot make a window that has expired look open again.
    slack: Duration,
}

/// An open window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// When it ends.
    pub(crate) deadline: Timestamp,
    /// When something has to be said next: a warning, or that it has ended.
    pub(crate) wake: Timestamp,
}

/// What an event says about a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    what: What,
    deadline: Timestamp,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The contact wrote or called.
    Opened,
    Warned,
    Ended,
}

impl Told {
    /// Whether events of this type say something about windows.
    pub(crate) fn by(event_type: &str) -> bool {
        What::of(event_type).is_some()
    }

    /// What an event says; `None` when that is nothing.
    pub(crate) fn of(event: &Glimpse<'_>) -> Option<Self> {
        let &Glimpse { event_type, occurred_at, recorded_at, deadline, .. } = event;
        Some(Self { what: What::of(event_type)?, deadline: deadline?, occurred_at, recorded_at })
    }
}

impl What {
    fn of(event_type: &str) -> Option<Self> {
        match event_type {
            "MessageReceived" | "CallReceived" => Some(Self::Opened),
            "WindowClosingSoon" => Some(Self::Warned),
            "WindowExpired" => Some(Self::Ended),
            _ => None,
        }
    }
}

impl Leads {
    /// The leads of the rules; as many as a tag can tell, the longest.
    pub(crate) fn of(rules: &Rules) -> Self {
        let mut leads: Vec<_> = rules.closing_soon.iter().copied().filter(|lead| !lead.is_zero()).collect();
        leads.sort_unstable_by(|a, b| b.cmp(a));
        leads.dedup();
        leads.truncate(usize::from(MAX_TAG));
        Self { leads, slack: rules.margin.min(rules.window / 10) }
    }

    /// Names the leads: timers that were set under other leads mean something else.
    pub(crate) fn name(&self) -> String {
        self.leads.iter().map(|lead| lead.as_millis().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The window of a timer. `None`: not one that was set under these leads.
    pub(crate) fn window(&self, timer: Timer) -> Option<Window> {
        let lead = match timer.tag {
            0 => Duration::ZERO,
            tag => *self.leads.get(usize::from(tag) - 1)?,
        };
        Some(Window { deadline: timer.at + lead, wake: timer.at })
    }

    /// The timer of a window.
    pub(crate) fn timer(&self, window: Window) -> Timer {
        let lead = window.deadline.since(window.wake);
        let place = self.leads.iter().position(|known| *known == lead);
        let tag = place.and_then(|place| u8::try_from(place + 1).ok());
        Timer { at: window.wake, tag: tag.unwrap_or(0) }
    }

    /// The moments at which it is warned of a deadline, earliest first.
    fn warnings(&self, deadline: Timestamp) -> impl DoubleEndedIterator<Item = Timestamp> {
        self.leads.iter().map(move |lead| deadline - *lead)
    }

    /// The window whose warnings up to `said` are given. A lead that is longer than the window is no warning at all.
    fn after(&self, deadline: Timestamp, said: Timestamp) -> Window {
        Window { deadline, wake: self.warnings(deadline).find(|moment| *moment > said).unwrap_or(deadline) }
    }

    /// Folds an event: the window after it.
    pub(crate) fn evolve(&self, window: Option<Window>, told: Told) -> Option<Window> {
        let Told { what, deadline, occurred_at, recorded_at } = told;
        match (what, window) {
            (What::Opened, _) => {
                let stale = match window {
                    Some(open) => deadline <= open.deadline,
                    None => recorded_at + self.slack >= deadline,
                };
                if stale { window } else { Some(self.after(deadline, occurred_at)) }
            }
            (What::Warned, Some(open)) if deadline == open.deadline => {
                Some(self.after(open.deadline, open.wake.max(occurred_at)))
            }
            (What::Ended, Some(open)) if deadline == open.deadline => None,
            _ => window,
        }
    }

    /// What has to be said at `now`, and since when. After a standstill only the latest of several warnings.
    pub(crate) fn due(&self, window: Window, now: Timestamp) -> Option<(Event, Timestamp)> {
        let Window { deadline, wake } = window;
        let conversation = conversation(Some(deadline));
        if let Some(event) = decide_expiry(&conversation, deadline, now) {
            return Some((event, deadline));
        }
        let moment = self.warnings(deadline).rev().find(|moment| *moment >= wake && *moment <= now)?;
        let lead: Duration = deadline.since(moment);
        decide_closing_soon(&conversation, deadline, lead, now).map(|event| (event, moment))
    }
}

/// The announcement that an event opened a window which was closed, when it turned `before` into another one.
pub(crate) fn announce(before: Option<Window>, recorded: &Recorded) -> Option<Event> {
    let Recorded { envelope: Envelope { event_id, occurred_at, .. }, event } = recorded;
    let before = conversation(before.map(|open| open.deadline));
    let mut after = before.clone();
    after.evolve(event, *event_id, *occurred_at);
    announce_window(&before, &after, *event_id, event)
}

/// As the domain's decisions know it. What was open before is known by its deadline alone.
fn conversation(deadline: Option<Timestamp>) -> Conversation {
    Conversation { deadline, ..Conversation::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_contracts::{encode_event, glimpse};
    use connector_domain::event::{CallReceived, TimeSource, WindowCause, WindowClosingSoon, WindowExpired};
    use connector_domain::identity::Address;
    use connector_domain::ids::EventId;
    use connector_testkit::event::text_received;

    fn recorded(at: i64, event: impl Into<Event>) -> Recorded {
        let event = event.into();
        let envelope = Envelope {
            event_id: EventId::derived(&format!("{}{at}", event.type_name())),
            event_type: event.type_name().to_owned(),
            schema_version: 1,
            organization_id: "acme".into(),
            stream_id: "k1-c".into(),
            cause_id: String::new(),
            command_id: None,
            occurred_at: Timestamp::from_secs(at),
            time_source: TimeSource::Whatsapp,
            recorded_at: Timestamp::from_secs(at),
            producer: String::new(),
            traceparent: None,
        };
        Recorded { envelope, event }
    }

    fn message(at: i64) -> Recorded {
        let message = text_received(Timestamp::from_secs(at + 100));
        recorded(at, message)
    }

    fn call(at: i64) -> Recorded {
        let call = CallReceived {
            phone_number_id: "n".into(),
            call_id: "c".into(),
            address: Address::default(),
            window_deadline: Timestamp::from_secs(at + 100),
        };
        recorded(at, call)
    }

    fn leads(leads: &[u64]) -> Leads {
        let closing_soon = leads.iter().map(|lead| Duration::from_secs(*lead)).collect();
        Leads::of(&Rules { closing_soon, window: Duration::from_secs(100), ..Rules::default() })
    }

    const fn s(at: i64) -> Timestamp {
        Timestamp::from_secs(at)
    }

    /// A window as the service keeps it: through the timer and back each time.
    fn told(leads: &Leads, stories: &[Recorded]) -> (Option<Window>, usize) {
        let (mut window, mut opened) = (None, 0);
        for recorded in stories {
            let record = encode_event(recorded).expect("a record");
            let after = leads.evolve(window, Told::of(&glimpse(&record).expect("an event")).expect("about windows"));
            let announced = announce(window, recorded).filter(|_| after != window);
            window = after.map(|window| leads.window(leads.timer(window)).expect("ours"));
            assert_eq!(window, after);
            opened += usize::from(announced.is_some());
        }
        (window, opened)
    }

    #[test]
    fn a_window_opens_once_and_every_renewal_moves_its_end() {
        let leads = leads(&[]);
        let (window, opened) = told(&leads, &[message(0), message(50), message(20)]);
        assert_eq!(
            (window, opened),
            (Some(Window { deadline: s(150), wake: s(150) }), 1),
            "an overtaken one changes nothing"
        );
        assert_eq!(leads.due(window.expect("open"), s(149)), None);
        assert!(leads.due(window.expect("open"), s(150)).is_some());
    }

    #[test]
    fn a_call_opens_and_renews_a_window_like_a_message() {
        let leads = leads(&[]);
        let until = |end| Some(Window { deadline: s(end), wake: s(end) });
        assert_eq!(told(&leads, &[call(0), message(50), call(60), call(20)]), (until(160), 1));
        assert_eq!(told(&leads, &[message(0), call(50)]), (until(150), 1));
        let cause = |opened: &Recorded| match announce(None, opened) {
            Some(Event::WindowOpened(opened)) => opened.cause,
            other => panic!("{other:?}"),
        };
        assert_eq!((cause(&call(0)), cause(&message(0))), (WindowCause::Call, WindowCause::Message));
    }

    #[test]
    fn an_expiry_of_an_earlier_deadline_is_passed_over() {
        let leads = leads(&[]);
        let expired = |at| recorded(at, WindowExpired { deadline: s(at) });
        let mut story = vec![message(0), message(50), expired(100)];
        assert_eq!(told(&leads, &story).0.map(|window| window.deadline), Some(s(150)));
        story.push(expired(150));
        assert_eq!(told(&leads, &story), (None, 1), "nothing is left of it");
        story.push(message(200));
        assert_eq!(told(&leads, &story).1, 2, "the next message opens it again");
    }

    #[test]
    fn a_message_that_was_overtaken_by_the_end_of_its_window_opens_none() {
        let mut late = message(0);
        for (recorded_at, opened) in [(80, 1), (89, 1), (90, 0), (100, 0), (5000, 0)] {
            late.envelope.recorded_at = s(recorded_at);
            assert_eq!(told(&leads(&[]), std::slice::from_ref(&late)).1, opened, "recorded at {recorded_at}");
        }
        late.envelope.recorded_at = s(5000);
        late.envelope.occurred_at = s(60);
        let Event::MessageReceived(received) = &mut late.event else { unreachable!() };
        received.window_deadline = Some(s(160));
        let (window, opened) = told(&leads(&[]), &[message(50), late]);
        assert_eq!(
            (window.map(|window| window.deadline), opened),
            (Some(s(160)), 1),
            "an open one is renewed however late"
        );
    }

    #[test]
    fn each_warning_is_given_once_and_after_a_standstill_only_the_last() {
        let leads = leads(&[10, 30, 500]);
        let open = |story: &[Recorded]| told(&leads, story).0.expect("open");
        let warned = |at| recorded(at, WindowClosingSoon { deadline: s(100) });
        let mut story = vec![message(0)];
        assert_eq!(open(&story).wake, s(70), "a lead longer than the window is none");
        assert_eq!(leads.due(open(&story), s(71)).map(|(_, at)| at), Some(s(70)));
        assert_eq!(leads.due(open(&story), s(95)).map(|(_, at)| at), Some(s(90)));
        story.push(warned(90));
        assert_eq!(leads.due(open(&story), s(95)), None);
        assert_eq!(open(&story).wake, s(100));
        story.push(warned(70));
        assert_eq!(open(&story).wake, s(100), "a warning read late takes nothing back");
        story.push(message(96));
        assert_eq!(open(&story).wake, s(166), "a renewed window is warned of anew");
    }
}
