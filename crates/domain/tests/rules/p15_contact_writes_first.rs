//! P15: a contact who writes first has opened the conversation, for replies and nothing else.

use connector_domain::composer::Composer;
use connector_domain::consent::{ConsentState, ConsentStatus};
use connector_domain::decide::Reason;

use crate::scenario::{
    ASK_FIRST, HOUR, MINUTE, Scenario, ask, asked, called, enabled, in_contacts, revoked, sent, t, tapped, template,
    text, wrote,
};

fn written_to() -> Scenario {
    Scenario::given([enabled(), in_contacts(), wrote(t(1, 0), "Do you have time?")])
}

#[test]
fn free_form_replies_are_possible_inside_the_window_and_templates_are_not() {
    let story = written_to().shows(&Composer::FreeForm { until: t(25, 0) - MINUTE, templates: false });
    let story = story.when(text("yes")).then_accepts();
    story.when(template()).then_rejects(Reason::OptInRequired);
}

#[test]
fn when_the_window_is_over_the_contact_has_to_be_asked() {
    let story = written_to().at(t(25, 0)).shows(&ASK_FIRST);
    let story = story.when(text("yes")).then_rejects(Reason::OptInRequired);
    let story = story.when(template()).then_rejects(Reason::OptInRequired);
    story.when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
}

#[test]
fn a_picture_opens_the_conversation_like_a_text() {
    let story = Scenario::given([enabled(), in_contacts(), sent(t(1, 0), "image")]);
    story.when(text("nice")).then_accepts();
}

#[test]
fn what_whatsapp_says_itself_opens_nothing() {
    let story = Scenario::given([enabled(), in_contacts(), sent(t(1, 0), "system")]);
    assert_eq!(story.conversation().consent.status, ConsentStatus::None);
}

#[test]
fn a_yes_without_a_question_is_a_message_like_any_other() {
    for answer in [wrote(t(2, 0), "yes"), tapped(t(2, 0), "OPT_IN_ACCEPT", "Yes"), wrote(t(2, 0), "START")] {
        assert_eq!(written_to().and(answer).conversation().consent.status, ConsentStatus::Implied);
    }
}

#[test]
fn a_stop_from_somebody_who_was_never_asked_is_a_stop() {
    let story = Scenario::given([enabled(), in_contacts(), wrote(t(1, 0), "Stop!")]).shows(&Composer::OptedOut);
    let story = story.and(wrote(t(2, 0), "I mean it")).shows(&Composer::OptedOut);
    story.when(text("sorry")).then_rejects(Reason::OptedOut);
}

#[test]
fn asking_for_the_opt_in_leaves_typing_on_while_the_contacts_own_window_is_open() {
    let pending = Composer::OptInPending { asked_at: Some(t(2, 0)) };
    let typing = |until| Composer::FreeForm { until, templates: false };
    let asked_after = written_to().and(asked(t(2, 0)));
    let asked_before = Scenario::given([enabled(), in_contacts(), asked(t(2, 0))]).shows(&pending);
    let asked_before = asked_before.and(wrote(t(3, 0), "Who is this?"));
    for (story, end) in [(asked_after, t(25, 0)), (asked_before, t(27, 0))] {
        let story = story.shows(&typing(end - MINUTE)).when(text("about the room")).then_accepts();
        let story = story.when(template()).then_rejects(Reason::OptInPending);
        assert_eq!(story.clone().dispatching(), [Ok(())], "nor does it hold back what is queued");
        let story = story.at(end - MINUTE).shows(&pending).when(text("hello?")).then_rejects(Reason::OptInPending);
        let story = story.and(wrote(end, "Still there?")).shows(&typing(end + 24 * HOUR - MINUTE));
        let accepted = story.clone().and(tapped(end, "OPT_IN_ACCEPT", "Yes"));
        accepted.shows(&Composer::FreeForm { until: end + 24 * HOUR - MINUTE, templates: true });
        story.and(wrote(end, "no")).shows(&Composer::OptedOut);
    }
    // The request may end inside the window.
    let story = written_to().and(asked(t(2, 0))).and(wrote(t(160, 0), "Hm")).at(t(171, 0));
    story.shows(&typing(t(184, 0) - MINUTE)).at(t(184, 0)).shows(&ASK_FIRST);
}

#[test]
fn a_call_after_the_end_of_that_window_opens_it_for_nobody_who_has_not_consented() {
    let story = written_to().and(called(t(30, 0))).shows(&ASK_FIRST);
    assert_eq!(story.conversation().deadline, Some(t(54, 0)));
    let story = story.when(text("you called?")).then_rejects(Reason::OptInRequired);
    let asked = story.clone().and(asked(t(31, 0))).shows(&Composer::OptInPending { asked_at: Some(t(31, 0)) });
    asked.when(text("you called?")).then_rejects(Reason::OptInPending);
    let wrote = story.and(wrote(t(32, 0), "yes, call me back"));
    wrote.shows(&Composer::FreeForm { until: t(56, 0) - MINUTE, templates: false });
    // A message that the call has overtaken belongs to its window.
    let late = Scenario::given([enabled(), in_contacts(), called(t(2, 0)), self::wrote(t(1, 0), "May I call?")]);
    late.shows(&Composer::FreeForm { until: t(26, 0) - MINUTE, templates: false });
}

#[test]
fn a_call_opens_the_window_and_is_no_consent() {
    let story = Scenario::given([enabled(), in_contacts(), called(t(1, 0))]).shows(&ASK_FIRST);
    assert_eq!(story.conversation().consent, ConsentState::default());
    assert_eq!(story.conversation().deadline, Some(t(25, 0)));
    let story = story.when(text("you called?")).then_rejects(Reason::OptInRequired);
    let story = story.when(template()).then_rejects(Reason::OptInRequired);
    // Nor is it an answer: who was asked is asked still, who said no has said no.
    for (said, state) in [
        (asked(t(0, 0)), Composer::OptInPending { asked_at: Some(t(0, 0)) }),
        (wrote(t(0, 0), "Stop!"), Composer::OptedOut),
        (revoked(t(0, 0)), Composer::OptedOut),
    ] {
        Scenario::given([enabled(), in_contacts(), said, called(t(1, 0))]).shows(&state);
    }
    // Once there is consent, the window that the call opened is one like any other.
    story.when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
    let consented = Scenario::consented().and(called(t(1, 0)));
    consented.shows(&Composer::FreeForm { until: t(25, 0) - MINUTE, templates: true }).when(text("hi")).then_accepts();
}

#[test]
fn a_call_renews_the_window_of_a_contact_who_wrote_first() {
    let story = written_to().and(called(t(20, 0)));
    assert_eq!(story.conversation().consent, written_to().conversation().consent);
    let story = story.shows(&Composer::FreeForm { until: t(44, 0) - MINUTE, templates: false });
    let story = story.when(text("we were cut off")).then_accepts();
    story.at(t(44, 0)).shows(&ASK_FIRST);
}
