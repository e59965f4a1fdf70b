//! P12: when a contact has not replied for 24 hours, the screen turns by itself, once.

use connector_domain::composer::{Composer, TemplateOnlyReason};
use connector_domain::decide::{announce_window, decide_closing_soon, decide_expiry};
use connector_domain::event::{Event, WindowCause, WindowClosingSoon, WindowExpired, WindowOpened};
use connector_domain::ids::EventId;

use crate::scenario::{Fact, HOUR, MINUTE, Scenario, called, t, window_expired, wrote};

fn open() -> Scenario {
    Scenario::consented().and(wrote(t(1, 0), "hello"))
}

#[test]
fn the_expiry_is_published_at_the_deadline_and_only_once() {
    let story = open();
    assert_eq!(decide_expiry(story.conversation(), t(25, 0), t(24, 59)), None, "too early");
    let expired = decide_expiry(story.conversation(), t(25, 0), t(25, 0)).expect("due");
    assert_eq!(expired, WindowExpired { deadline: t(25, 0) }.into());
    let story = story.and(Fact { at: t(25, 0), event: expired });
    assert_eq!(decide_expiry(story.conversation(), t(25, 0), t(26, 0)), None, "already published");
    story.shows(&Composer::TemplateOnly { since: Some(t(25, 0) - MINUTE), reason: TemplateOnlyReason::WindowExpired });
}

#[test]
fn a_timer_of_a_renewed_window_fires_into_the_void() {
    let story = open().and(wrote(t(20, 0), "still here"));
    assert_eq!(decide_expiry(story.conversation(), t(25, 0), t(25, 0)), None);
    let after = story.clone().and(window_expired(t(25, 0)));
    assert_eq!(after.conversation(), story.conversation(), "and its event would change nothing");
}

#[test]
fn the_warning_comes_within_its_lead_and_never_after_the_end() {
    let story = open();
    let soon = |now| decide_closing_soon(story.conversation(), t(25, 0), HOUR, now);
    assert_eq!(soon(t(23, 59)), None);
    assert_eq!(soon(t(24, 0)), Some(WindowClosingSoon { deadline: t(25, 0) }.into()));
    assert_eq!(soon(t(25, 0)), None);
    let renewed = story.clone().and(wrote(t(24, 0), "still here"));
    assert_eq!(decide_closing_soon(renewed.conversation(), t(25, 0), HOUR, t(24, 30)), None);
}

fn announced(story: &Scenario, fact: Fact) -> Option<Event> {
    let id = EventId::derived("the-message");
    let mut after = story.conversation().clone();
    after.evolve(&fact.event, id, fact.at);
    announce_window(story.conversation(), &after, id, &fact.event)
}

#[test]
fn an_opening_is_announced_when_the_window_was_closed_and_not_when_it_is_renewed() {
    let source = EventId::derived("the-message");
    let opened = |deadline| Some(WindowOpened { deadline, source, cause: WindowCause::Message }.into());
    assert_eq!(announced(&Scenario::consented(), wrote(t(1, 0), "hello")), opened(t(25, 0)));
    assert_eq!(announced(&open(), wrote(t(20, 0), "again")), None);
    assert_eq!(announced(&open(), wrote(t(0, 30), "overtaken")), None);
    assert_eq!(announced(&open(), wrote(t(30, 0), "back")), opened(t(54, 0)));
    // Its expiry was published although a message from before the deadline was still under way: it opens again.
    assert_eq!(announced(&open().and(window_expired(t(25, 0))), wrote(t(24, 59), "slow")), opened(t(48, 59)));
}

#[test]
fn an_opening_says_what_the_contact_did() {
    let causes = [
        ("text", WindowCause::Message),
        ("image", WindowCause::Message),
        ("whatever comes next", WindowCause::Message),
        ("button", WindowCause::Reply),
        ("interactive", WindowCause::Reply),
        ("reaction", WindowCause::Reaction),
    ];
    for (message_type, expected) in causes {
        let mut fact = wrote(t(1, 0), "hello");
        let Event::MessageReceived(message) = &mut fact.event else { unreachable!() };
        message.message_type = message_type.to_owned();
        match announced(&Scenario::consented(), fact) {
            Some(Event::WindowOpened(opened)) => assert_eq!(opened.cause, expected, "{message_type}"),
            other => panic!("{message_type}: {other:?}"),
        }
    }
}

#[test]
fn an_opening_by_a_call_says_so_and_its_renewal_by_one_is_none() {
    let source = EventId::derived("the-message");
    let by_call = |deadline| Some(WindowOpened { deadline, source, cause: WindowCause::Call }.into());
    assert_eq!(announced(&Scenario::consented(), called(t(1, 0))), by_call(t(25, 0)));
    assert_eq!(announced(&open(), called(t(20, 0))), None);
    assert_eq!(announced(&open(), called(t(0, 30))), None, "overtaken");
    assert_eq!(announced(&open(), called(t(30, 0))), by_call(t(54, 0)));
    assert_eq!(announced(&open().and(window_expired(t(25, 0))), called(t(24, 59))), by_call(t(48, 59)));
}
