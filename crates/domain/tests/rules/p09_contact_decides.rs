//! P9: the contact must accept; a decline or a STOP closes the way, also for what is queued.

use connector_domain::command::ConsentAction;
use connector_domain::composer::Composer;
use connector_domain::consent::ConsentStatus;
use connector_domain::decide::{Reason, announce, announce_ordered};
use connector_domain::event::Event;
use connector_domain::ids::EventId;

use crate::scenario::{
    Fact, HOUR, MINUTE, Scenario, ask, asked, consent, enabled, import, imported, in_contacts, request_ended, revoked,
    t, tapped, template, text, wrote,
};

fn pending() -> Scenario {
    Scenario::given([enabled(), in_contacts(), asked(t(1, 0))])
}

fn status(story: &Scenario) -> ConsentStatus {
    story.conversation().consent.status
}

#[test]
fn accepting_by_button_or_in_words_opens_the_way() {
    for answer in [tapped(t(2, 0), "OPT_IN_ACCEPT", "Yes"), wrote(t(2, 0), "Yes please!"), wrote(t(2, 0), "ja")] {
        let story = pending().and(answer);
        let story = story.shows(&Composer::FreeForm { until: t(26, 0) - MINUTE, templates: true });
        story.when(text("welcome")).then_accepts().when(template()).then_accepts();
    }
}

#[test]
fn a_text_that_answers_nothing_leaves_the_request_open() {
    let story = pending().and(wrote(t(2, 0), "who is this?"));
    let story = story.shows(&Composer::OptInPending { asked_at: Some(t(1, 0)) });
    story.when(text("it is me")).then_rejects(Reason::OptInPending);
}

#[test]
fn declining_closes_the_way_until_the_contact_changes_their_mind() {
    let story = pending().and(wrote(t(2, 0), "no thanks")).shows(&Composer::OptedOut);
    let story = story.when(text("but")).then_rejects(Reason::OptedOut);
    let story = story.when(ask()).then_rejects(Reason::OptedOut);
    let story = story.when(import("form 7")).then_rejects(Reason::OptedOut);
    let story = story.and(wrote(t(3, 0), "what else?"));
    assert_eq!(status(&story), ConsentStatus::Declined, "a question is no consent");
    let story = story.and(tapped(t(4, 0), "OPT_IN_ACCEPT", "Yes"));
    assert_eq!(status(&story), ConsentStatus::Accepted);
}

#[test]
fn a_stop_beats_what_is_queued() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    let story = story.when(text("one")).then_accepts().when(template()).then_accepts();
    let story = story.and(wrote(t(1, 1), "STOP")).shows(&Composer::OptedOut);
    assert_eq!(story.dispatching(), [Err(Reason::OptedOut), Err(Reason::OptedOut)]);
}

#[test]
fn an_opt_in_that_is_queued_does_not_leave_after_a_stop() {
    let story = Scenario::given([enabled(), in_contacts()]);
    let story = story.at(t(1, 0)).when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
    assert_eq!(story.and(wrote(t(1, 0), "Stop")).dispatching(), [Err(Reason::OptedOut)]);
}

#[test]
fn only_start_or_a_tap_on_the_opt_in_undoes_a_stop() {
    let stopped = || pending().and(tapped(t(2, 0), "OPT_IN_ACCEPT", "Yes")).and(wrote(t(3, 0), "stop"));
    for no_answer in [wrote(t(4, 0), "ok"), wrote(t(4, 0), "hello again"), imported(t(4, 0)), asked(t(4, 0))] {
        assert_eq!(status(&stopped().and(no_answer)), ConsentStatus::OptedOut);
    }
    assert_eq!(status(&stopped().and(wrote(t(4, 0), "START"))), ConsentStatus::Accepted);
    assert_eq!(status(&stopped().and(tapped(t(4, 0), "OPT_IN_ACCEPT", "Yes"))), ConsentStatus::Accepted);
}

#[test]
fn a_start_that_was_overtaken_by_a_later_stop_undoes_nothing() {
    let story = Scenario::consented().and(wrote(t(3, 0), "STOP")).and(wrote(t(2, 0), "START"));
    assert_eq!(status(&story), ConsentStatus::OptedOut);
    let story = story.and(wrote(t(3, 0), "START"));
    assert_eq!(status(&story), ConsentStatus::Accepted, "WhatsApp's timestamps are whole seconds");
}

#[test]
fn a_late_answer_to_a_request_that_ended_still_counts() {
    let late = t(1, 0) + 8 * 24 * HOUR;
    let ended = || pending().and(request_ended(t(1, 0) + 7 * 24 * HOUR, t(1, 0)));
    assert_eq!(status(&ended().and(wrote(late, "yes"))), ConsentStatus::Accepted);
    assert_eq!(status(&ended().and(wrote(late, "no"))), ConsentStatus::Declined);
    assert_eq!(status(&ended().and(wrote(late, "who is this?"))), ConsentStatus::Implied);
}

#[test]
fn a_no_in_a_conversation_is_no_decline() {
    let story = pending().and(wrote(t(2, 0), "yes")).and(wrote(t(3, 0), "No."));
    assert_eq!(status(&story), ConsentStatus::Accepted);
    assert_eq!(status(&story.and(tapped(t(4, 0), "OPT_IN_DECLINE", "No"))), ConsentStatus::Declined);
}

#[test]
fn an_import_does_not_answer_for_the_contact() {
    let story = pending().and(imported(t(1, 30))).and(wrote(t(2, 0), "no"));
    assert_eq!(status(&story), ConsentStatus::Declined);
}

#[test]
fn an_operator_can_always_withdraw() {
    let story = Scenario::given([enabled()]).when(consent(ConsentAction::Revoke)).then_records(&["ConsentRevoked"]);
    assert!(story.conversation().blocked());
    let story = Scenario::consented().and(revoked(t(1, 0))).shows(&Composer::OptedOut);
    assert_eq!(status(&story.and(wrote(t(2, 0), "start"))), ConsentStatus::Accepted);
}

fn announced(story: Scenario, fact: Fact) -> Vec<Event> {
    let id = EventId::derived("the-answer");
    let before = story.conversation().clone();
    let mut after = before.clone();
    after.evolve(&fact.event, id, fact.at);
    match &fact.event {
        Event::MessageReceived(received) => announce(&before, &after, id, received),
        other => announce_ordered(&before, &after, id, other),
    }
}

#[test]
fn every_change_of_consent_is_announced_once_with_its_source() {
    let accepted = || pending().and(wrote(t(2, 0), "yes"));
    let stopped = || accepted().and(wrote(t(3, 0), "stop"));
    for (story, fact, name) in [
        (pending(), wrote(t(2, 0), "yes"), "OptInAccepted"),
        (pending(), tapped(t(2, 0), "OPT_IN_DECLINE", "No"), "OptInDeclined"),
        (accepted(), wrote(t(4, 0), "STOP"), "OptedOut"),
        (stopped(), wrote(t(4, 0), "START"), "OptedBackIn"),
        (pending(), imported(t(2, 0)), "OptInAccepted"),
        (accepted(), revoked(t(4, 0)), "OptedOut"),
    ] {
        let names: Vec<_> = announced(story, fact).iter().map(Event::type_name).collect();
        assert_eq!(names, [name]);
    }
    for (story, fact) in [
        (pending(), wrote(t(2, 0), "hm?")),
        (accepted(), wrote(t(4, 0), "yes")),
        (stopped(), wrote(t(4, 0), "STOP")),
        (stopped(), imported(t(4, 0))),
        (stopped(), revoked(t(4, 0))),
        (Scenario::given([enabled()]), wrote(t(4, 0), "hello")),
    ] {
        assert_eq!(announced(story, fact), []);
    }
}

#[test]
fn an_announcement_changes_nothing_that_its_source_did_not() {
    let story = pending().and(wrote(t(2, 0), "yes"));
    for event in announced(pending(), wrote(t(2, 0), "stop")) {
        let after = story.clone().and(Fact { at: t(3, 0), event });
        assert_eq!(after.conversation(), story.conversation());
    }
}
