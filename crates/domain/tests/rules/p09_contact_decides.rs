//! P9: the contact must accept; a decline or a STOP closes the way, also for what is queued.

use connector_domain::command::{ConsentAction, SendPurpose};
use connector_domain::composer::Composer;
use connector_domain::consent::ConsentStatus;
use connector_domain::decide::{Reason, announce, announce_ordered};
use connector_domain::event::Event;
use connector_domain::ids::EventId;

use crate::scenario::{
    Fact, HOUR, MINUTE, Scenario, ask, asked, called, consent, enabled, import, imported, in_contacts, on,
    request_ended, revoked, sent_as, t, tapped, template, text, wrote,
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
    let story = pending().shows(&Composer::OptInPending { asked_at: Some(t(1, 0)) });
    let story = story.when(text("it is me")).then_rejects(Reason::OptInPending);
    let story = story.and(wrote(t(2, 0), "who is this?"));
    assert_eq!(status(&story), ConsentStatus::Requested);
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

/// Asked, and WhatsApp has taken the opt-in message.
fn asked_with(message: &str) -> Scenario {
    pending().and(sent_as(t(1, 1), message, SendPurpose::OptIn))
}

#[test]
fn a_button_without_a_payload_of_ours_answers_only_under_the_opt_in_message() {
    let tap = |at, title, message| on(message, tapped(at, title, title));
    for (title, answer) in [("Yes", ConsentStatus::Accepted), ("No", ConsentStatus::Declined)] {
        let story = asked_with("wamid.ask").and(sent_as(t(1, 2), "wamid.offer", SendPurpose::Conversation));
        for elsewhere in [tap(t(2, 0), title, "wamid.offer"), tapped(t(2, 0), title, title)] {
            assert_eq!(status(&story.clone().and(elsewhere)), ConsentStatus::Requested, "{title}");
        }
        assert_eq!(status(&story.clone().and(tap(t(2, 0), title, "wamid.ask"))), answer);
        let foreign = on("wamid.ask", tapped(t(2, 0), "CHOICE_1", title));
        assert_eq!(status(&story.and(foreign)), answer, "a payload of somebody else's under the opt-in");
    }
    let ambiguous = asked_with("wamid.ask").and(tap(t(2, 0), "Cancel", "wamid.offer"));
    assert_eq!(status(&ambiguous), ConsentStatus::Requested);
    assert_eq!(status(&ambiguous.and(tap(t(2, 0), "Unsubscribe", "wamid.offer"))), ConsentStatus::OptedOut);
    assert_eq!(status(&asked_with("wamid.ask").and(tap(t(2, 0), "Baja", "wamid.ask"))), ConsentStatus::OptedOut);
}

#[test]
fn a_tap_on_a_later_opt_in_answers_and_one_under_another_message_undoes_no_stop() {
    let tap = |at, title, message| on(message, tapped(at, title, title));
    let again = asked_with("wamid.ask").and(request_ended(t(170, 0), t(1, 0))).and(asked(t(200, 0)));
    let again = again.and(sent_as(t(200, 1), "wamid.again", SendPurpose::OptIn));
    assert_eq!(status(&again.clone().and(tap(t(201, 0), "Yes", "wamid.again"))), ConsentStatus::Accepted);
    assert_eq!(status(&again.clone().and(tap(t(201, 0), "Yes", "wamid.ask"))), ConsentStatus::Accepted);
    let stopped = again.and(wrote(t(202, 0), "STOP"));
    assert_eq!(status(&stopped.clone().and(tap(t(203, 0), "Yes", "wamid.offer"))), ConsentStatus::OptedOut);
    assert_eq!(status(&stopped.and(tap(t(203, 0), "Yes", "wamid.again"))), ConsentStatus::Accepted);
}

#[test]
fn a_tap_that_is_faster_than_our_own_word_on_the_opt_in_message_counts_when_that_comes() {
    let tap = |title| on("wamid.ask", tapped(t(1, 0), title, title));
    for (title, answer, says) in
        [("Yes", ConsentStatus::Accepted, "OptInAccepted"), ("No", ConsentStatus::Declined, "OptInDeclined")]
    {
        let early = pending().and(tap(title));
        assert_eq!(status(&early), ConsentStatus::Requested);
        let other = early.clone().and(sent_as(t(1, 1), "wamid.other", SendPurpose::OptIn));
        assert_eq!(status(&other), ConsentStatus::Requested, "it was another message");
        let told = sent_as(t(1, 1), "wamid.ask", SendPurpose::OptIn);
        let events = announced(early.clone(), told.clone());
        assert_eq!(events.iter().map(Event::type_name).collect::<Vec<_>>(), [says]);
        let story = early.and(told);
        assert_eq!(status(&story), answer);
        assert_eq!(story.conversation().consent.since, Some(t(1, 0)), "when the contact tapped");
    }
    let nobody_asked = Scenario::given([enabled(), in_contacts()]).and(tap("Yes"));
    assert_eq!(nobody_asked.conversation().consent.early, [], "nothing to wait for");
}

#[test]
fn words_that_quote_another_message_are_no_answer_to_the_opt_in() {
    for (words, answer) in [("yes", ConsentStatus::Accepted), ("no", ConsentStatus::Declined)] {
        let about_lunch = asked_with("wamid.ask").and(on("wamid.lunch", wrote(t(2, 0), words)));
        assert_eq!(status(&about_lunch), ConsentStatus::Requested, "{words}");
        assert_eq!(status(&about_lunch.and(wrote(t(2, 1), words))), answer);
        assert_eq!(status(&asked_with("wamid.ask").and(on("wamid.ask", wrote(t(2, 0), words)))), answer);
    }
    let stop = on("wamid.lunch", wrote(t(2, 0), "STOP"));
    assert_eq!(status(&asked_with("wamid.ask").and(stop)), ConsentStatus::OptedOut, "a STOP is one anywhere");
}

#[test]
fn a_no_that_is_read_again_or_late_undoes_nothing_that_was_said_after_it() {
    let started = || Scenario::consented().and(wrote(t(3, 0), "STOP")).and(wrote(t(4, 0), "START"));
    assert_eq!(status(&started().and(wrote(t(3, 0), "STOP"))), ConsentStatus::Accepted, "the same one again");
    assert_eq!(status(&started().and(wrote(t(4, 0), "STOP"))), ConsentStatus::OptedOut, "within a second the no wins");
    assert_eq!(status(&started().and(wrote(t(5, 0), "STOP"))), ConsentStatus::OptedOut);
    let late = Scenario::consented().and(wrote(t(4, 0), "START")).and(wrote(t(3, 0), "STOP"));
    assert_eq!(status(&late), ConsentStatus::Accepted, "it was overtaken");
    let no = || tapped(t(2, 0), "OPT_IN_DECLINE", "No");
    for yes in [tapped(t(3, 0), "OPT_IN_ACCEPT", "Yes"), wrote(t(3, 0), "yes")] {
        let story = pending().and(no()).and(yes);
        assert_eq!(status(&story), ConsentStatus::Accepted);
        assert_eq!(status(&story.and(no())), ConsentStatus::Accepted);
    }
    // Nor is a no older because an older one comes after it.
    let story = pending().and(tapped(t(5, 0), "OPT_IN_DECLINE", "No")).and(wrote(t(3, 0), "STOP"));
    assert_eq!(status(&story.and(wrote(t(4, 0), "START"))), ConsentStatus::OptedOut);
    let story = pending().and(wrote(t(3, 0), "STOP")).and(tapped(t(5, 0), "OPT_IN_DECLINE", "No"));
    assert_eq!(status(&story.and(wrote(t(4, 0), "START"))), ConsentStatus::OptedOut);
}

#[test]
fn what_an_operator_withdraws_stays_withdrawn_until_the_contact_says_otherwise_afterwards() {
    let revoked = || Scenario::consented().and(wrote(t(2, 0), "START")).and(revoked(t(3, 0)));
    for before in [wrote(t(2, 0), "START"), wrote(t(2, 59), "START"), imported(t(4, 0)), asked(t(4, 0))] {
        assert_eq!(status(&revoked().and(before)), ConsentStatus::OptedOut);
    }
    assert_eq!(status(&revoked().and(wrote(t(3, 1), "START"))), ConsentStatus::Accepted);
}

#[test]
fn a_call_is_no_answer_to_anything() {
    assert_eq!(status(&pending().and(called(t(2, 0)))), ConsentStatus::Requested);
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
