//! The fold of one conversation's window: as little of the conversation as the timer needs.

use std::time::Duration;

use connector_domain::conversation::Conversation;
use connector_domain::decide::{announce_window, decide_closing_soon, decide_expiry};
use connector_domain::event::{Envelope, Event, Recorded};
use connector_domain::ids::OrganizationId;
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;
use connector_domain::window::closing_soon_at;
use serde::{Deserialize, Serialize};

/// A window as the view has it. It stays after the expiry, so that a message that was overtaken by later ones opens nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Window {
    /// The tenant, for the envelope of what a timer says.
    pub(crate) organization_id: Option<OrganizationId>,
    /// When it ends.
    pub(crate) deadline: Option<Timestamp>,
    /// When it was opened.
    since: Option<Timestamp>,
    /// When the message was written that set the deadline.
    renewed: Option<Timestamp>,
    /// The last deadline whose expiry stands in the log.
    expired: Option<Timestamp>,
    /// The moment of the last warning that stands in the log.
    warned: Option<Timestamp>,
}

impl Window {
    /// As the domain's decisions know it.
    fn conversation(&self) -> Conversation {
        Conversation {
            deadline: self.deadline,
            window_since: self.since,
            expired: self.expired,
            ..Conversation::default()
        }
    }

    /// Folds an event, and returns the announcement that a closed window opened.
    pub(crate) fn evolve(&mut self, recorded: &Recorded) -> Option<Event> {
        let Recorded { envelope: Envelope { event_id, occurred_at, organization_id, .. }, event } = recorded;
        let before = self.conversation();
        let mut after = before.clone();
        match event {
            Event::MessageReceived(_) | Event::WindowExpired(_) => after.evolve(event, *event_id, *occurred_at),
            Event::WindowClosingSoon(soon) if Some(soon.deadline) == self.deadline => {
                self.warned = self.warned.max(Some(*occurred_at));
                return None;
            }
            _ => return None,
        }
        if after.deadline != before.deadline {
            self.renewed = Some(*occurred_at);
            self.organization_id = Some(organization_id.clone());
        }
        self.deadline = after.deadline;
        self.since = after.window_since;
        self.expired = after.expired;
        announce_window(&before, &after, *event_id)
    }

    /// The next moment something has to be said, after all that was said. `None` when nothing is left to say.
    pub(crate) fn next(&self, rules: &Rules) -> Option<Timestamp> {
        let deadline = self.deadline.filter(|deadline| self.expired != Some(*deadline))?;
        Some(self.warnings(deadline, rules).next().unwrap_or(deadline))
    }

    /// The warnings that were not given. A lead that is longer than the window is no warning at all.
    fn warnings(&self, deadline: Timestamp, rules: &Rules) -> impl Iterator<Item = Timestamp> {
        let said = self.warned.max(self.renewed);
        closing_soon_at(deadline, rules).into_iter().filter(move |moment| Some(*moment) > said && *moment < deadline)
    }

    /// What has to be said at `now`, and since when. After a standstill only the latest of several warnings.
    pub(crate) fn due(&self, rules: &Rules, now: Timestamp) -> Option<(Event, Timestamp)> {
        let deadline = self.deadline?;
        let conversation = self.conversation();
        if let Some(event) = decide_expiry(&conversation, deadline, now) {
            return Some((event, deadline));
        }
        let moment = self.warnings(deadline, rules).take_while(|moment| *moment <= now).last()?;
        let lead: Duration = deadline.since(moment);
        decide_closing_soon(&conversation, deadline, lead, now).map(|event| (event, moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_domain::event::{MessageReceived, TimeSource, WindowClosingSoon, WindowExpired};
    use connector_domain::identity::Address;
    use connector_domain::ids::EventId;

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
        let message = MessageReceived {
            phone_number_id: "n".into(),
            wamid: "w".into(),
            address: Address::default(),
            profile_name: None,
            message_type: "text".to_owned(),
            text: None,
            unsupported: false,
            reply_to: None,
            intent: connector_domain::consent::Intent::Other,
            window_deadline: Some(Timestamp::from_secs(at + 100)),
            raw: "{}".into(),
        };
        recorded(at, message)
    }

    fn rules(leads: &[u64]) -> Rules {
        Rules { closing_soon: leads.iter().map(|lead| Duration::from_secs(*lead)).collect(), ..Rules::default() }
    }

    const fn s(at: i64) -> Timestamp {
        Timestamp::from_secs(at)
    }

    #[test]
    fn a_window_opens_once_and_every_renewal_moves_its_end() {
        let mut window = Window::default();
        assert!(window.evolve(&message(0)).is_some());
        assert_eq!(window.evolve(&message(50)), None, "it was open");
        assert_eq!(window.next(&rules(&[])), Some(s(150)));
        assert_eq!(window.due(&rules(&[]), s(149)), None);
        assert!(window.due(&rules(&[]), s(150)).is_some());
        assert_eq!(window.evolve(&message(20)), None, "a message that was overtaken changes nothing");
        assert_eq!(window.next(&rules(&[])), Some(s(150)));
    }

    #[test]
    fn an_expiry_of_an_earlier_deadline_is_passed_over() {
        let mut window = Window::default();
        window.evolve(&message(0));
        window.evolve(&message(50));
        window.evolve(&recorded(100, WindowExpired { deadline: s(100) }));
        assert_eq!(window.next(&rules(&[])), Some(s(150)));
        window.evolve(&recorded(150, WindowExpired { deadline: s(150) }));
        assert_eq!(window.next(&rules(&[])), None);
        assert!(window.evolve(&message(200)).is_some(), "the next message opens it again");
    }

    #[test]
    fn each_warning_is_given_once_and_after_a_standstill_only_the_last() {
        let rules = rules(&[10, 30, 500]);
        let mut window = Window::default();
        window.evolve(&message(0));
        assert_eq!(window.next(&rules), Some(s(70)), "a lead longer than the window is none");
        assert_eq!(window.due(&rules, s(71)).map(|(_, at)| at), Some(s(70)));
        assert_eq!(window.due(&rules, s(95)).map(|(_, at)| at), Some(s(90)));
        window.evolve(&recorded(90, WindowClosingSoon { deadline: s(100) }));
        assert_eq!(window.due(&rules, s(95)), None);
        assert_eq!(window.next(&rules), Some(s(100)));
        window.evolve(&message(96));
        assert_eq!(window.next(&rules), Some(s(166)), "a renewed window is warned of anew");
    }
}
