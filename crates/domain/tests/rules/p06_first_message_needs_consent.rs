//! P6: the first message to a contact needs consent; the user confirms, and the opt-in template is sent.

use connector_domain::command::{ConsentAction, SendPurpose};
use connector_domain::composer::Composer;
use connector_domain::consent::ConsentStatus;
use connector_domain::decide::{Reason, decide_opt_in_expiry};
use connector_domain::identity::StreamKeys;
use connector_domain::ids::CommandId;

use crate::scenario::{
    ASK_FIRST, HOUR, MINUTE, Scenario, ask, asked, consent, enabled, greeting_call, import, in_contacts, request_ended,
    request_failed, t, tapped, template, text, wrote,
};

fn fresh() -> Scenario {
    Scenario::given([enabled(), in_contacts()])
}

#[test]
fn before_anybody_asked_every_send_is_refused() {
    let story = fresh().shows(&ASK_FIRST);
    let story = story.when(text("hi")).then_rejects(Reason::OptInRequired);
    story.when(template()).then_rejects(Reason::OptInRequired);
}

#[test]
fn the_user_confirms_and_the_opt_in_template_is_queued() {
    let story = fresh().at(t(1, 0)).when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
    let story = story.shows(&Composer::OptInPending { asked_at: Some(t(1, 0)) });
    assert_eq!(story.dispatching(), [Ok(())]);
}

#[test]
fn while_the_contact_has_not_answered_everything_else_waits() {
    let story = fresh().and(asked(t(1, 0)));
    let story = story.when(text("hi")).then_rejects(Reason::OptInPending);
    let story = story.when(template()).then_rejects(Reason::OptInPending);
    story.when(ask()).then_rejects(Reason::OptInNotNeeded);
}

#[test]
fn an_opt_in_message_without_an_open_request_is_refused() {
    let opt_in = || template().with_send(|command| command.purpose = SendPurpose::OptIn);
    fresh().when(opt_in()).then_rejects(Reason::OptInRequired);
    Scenario::consented().when(opt_in()).then_rejects(Reason::OptInNotNeeded);
    fresh()
        .and(asked(t(1, 0)))
        .and(tapped(t(1, 1), "OPT_IN_DECLINE", "No"))
        .when(opt_in())
        .then_rejects(Reason::OptedOut);
    let as_text = text("please?").with_send(|command| command.purpose = SendPurpose::OptIn);
    fresh().and(asked(t(1, 0))).when(as_text).then_rejects_field(Reason::Invalid, "purpose");
}

#[test]
fn the_id_of_an_opt_in_message_can_be_told_beforehand_by_nobody_without_the_secret() {
    let (ours, theirs) = (StreamKeys::new("k1", &[1; 32]), StreamKeys::new("k1", &[2; 32]));
    let request = CommandId::derived("a request, whose id its publisher chose");
    let message = ours.opt_in_message(&"acme".into(), request);
    assert_eq!(message, ours.opt_in_message(&"acme".into(), request));
    for other in [
        theirs.opt_in_message(&"acme".into(), request),
        ours.opt_in_message(&"evil".into(), request),
        ours.opt_in_message(&"acme".into(), CommandId::derived("another request")),
        CommandId::derived(&format!("opt-in/{request}")),
    ] {
        assert_ne!(message, other);
    }
}

#[test]
fn only_the_message_of_the_open_request_goes_out_as_the_opt_in() {
    let opt_in = |name: &str| {
        let id = CommandId::derived(name);
        template().with_send(|command| (command.purpose, command.command_id) = (SendPurpose::OptIn, id))
    };
    let story = fresh().and(asked(t(1, 0)));
    let story = story.when(opt_in("a publisher's")).then_rejects_field(Reason::Invalid, "purpose");
    story.when(opt_in("the opt-in message")).then_accepts();
}

#[test]
fn the_publisher_does_not_choose_the_template_that_asks() {
    let ask = ask().with_consent(|command| command.template = Some(greeting_call("Bob")));
    fresh().when(ask).then_rejects_field(Reason::Invalid, "template");
}

#[test]
fn a_request_without_an_answer_ends_and_may_be_repeated() {
    let week = 7 * 24 * HOUR;
    let story = fresh().and(asked(t(1, 0)));
    assert_eq!(decide_opt_in_expiry(story.conversation(), t(1, 0) + week, t(2, 0)), None, "too early");
    // The end is in the state before the event about it is in the log.
    let story = story.at(t(1, 0) + week).shows(&ASK_FIRST);
    assert!(decide_opt_in_expiry(story.conversation(), t(1, 0) + week, t(1, 0) + week).is_some());
    let story = story.and(request_ended(t(1, 0) + week, t(1, 0))).shows(&ASK_FIRST);
    assert_eq!(decide_opt_in_expiry(story.conversation(), t(1, 0) + week, t(1, 0) + week), None, "only once");
    story.when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
}

#[test]
fn the_end_of_an_earlier_request_does_not_end_a_later_one() {
    let story = fresh().and(asked(t(1, 0))).and(asked(t(2, 0))).and(request_ended(t(200, 0), t(1, 0)));
    story.at(t(3, 0)).shows(&Composer::OptInPending { asked_at: Some(t(2, 0)) });
}

#[test]
fn a_request_whose_message_fails_leaves_consent_as_it_was_and_may_be_repeated_at_once() {
    let story = fresh().and(asked(t(1, 0))).and(request_failed(t(1, 1), t(1, 0), Some(131_026)));
    let story = story.shows(&ASK_FIRST);
    story.when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);

    // Somebody who wrote first may still be answered.
    let replies = Composer::FreeForm { until: t(24, 0) - MINUTE, templates: false };
    let wrote_first = || fresh().and(wrote(t(0, 0), "hello"));
    wrote_first().and(asked(t(1, 0))).and(request_failed(t(1, 1), t(1, 0), None)).shows(&replies);
    let meanwhile = fresh().and(asked(t(0, 0))).and(wrote(t(0, 0), "hello"));
    meanwhile.and(request_failed(t(1, 1), t(0, 0), None)).shows(&replies);
}

#[test]
fn the_failure_of_an_earlier_request_or_after_an_answer_changes_nothing() {
    let again = fresh().and(asked(t(1, 0))).and(asked(t(2, 0))).and(request_failed(t(2, 1), t(1, 0), None));
    again.shows(&Composer::OptInPending { asked_at: Some(t(2, 0)) });
    let answered = fresh().and(asked(t(1, 0))).and(tapped(t(2, 0), "OPT_IN_ACCEPT", "Yes"));
    let answered = answered.and(request_failed(t(3, 0), t(1, 0), Some(131_026)));
    assert_eq!(answered.conversation().consent.status, ConsentStatus::Accepted);
}

#[test]
fn a_yes_to_a_question_that_never_arrived_is_no_consent_but_a_tap_and_a_no_count() {
    let status = |story: Scenario| story.conversation().consent.status;
    let failed = || fresh().and(asked(t(1, 0))).and(request_failed(t(1, 1), t(1, 0), Some(131_026)));
    assert_eq!(status(failed().and(wrote(t(2, 0), "yes"))), ConsentStatus::Implied);
    assert_eq!(status(failed().and(tapped(t(2, 0), "OPT_IN_ACCEPT", "Yes"))), ConsentStatus::Accepted);
    assert_eq!(status(failed().and(wrote(t(2, 0), "no"))), ConsentStatus::Declined);
    // The first request did arrive, and a late answer to it counts.
    let ended = t(1, 0) + 7 * 24 * HOUR;
    let second = fresh().and(asked(t(1, 0))).and(request_ended(ended, t(1, 0))).and(asked(ended));
    let second = second.and(request_failed(ended + HOUR, ended, None));
    assert_eq!(status(second.and(wrote(ended + 2 * HOUR, "yes"))), ConsentStatus::Accepted);
}

#[test]
fn a_contact_is_asked_three_times_within_thirty_days() {
    let day = 24 * HOUR;
    let mut story = fresh();
    for n in 0..3 {
        let at = t(0, 0) + n * 8 * day;
        story = story.at(at).when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
        story = story.and(request_ended(at + 7 * day, at));
    }
    let again_at = Some(t(0, 0) + 30 * day);
    let story = story.shows(&Composer::OptInRequired { again_at });
    let story = story.at(t(0, 0) + 24 * day).when(ask()).then_rejects(Reason::OptInLimit);
    let story = story.at(t(0, 0) + 30 * day - MINUTE).when(ask()).then_rejects_field(Reason::OptInLimit, "action");
    let story = story.at(t(0, 0) + 30 * day).shows(&ASK_FIRST);
    story.when(ask()).then_records(&["OptInRequested", "MessageAccepted"]);
}

#[test]
fn a_request_that_never_left_does_not_count_and_one_that_whatsapp_refused_does() {
    let asked_often = |code| {
        let fail = |story: Scenario, n| {
            let at = t(n, 0);
            story.and(asked(at)).and(request_failed(at + MINUTE, at, code))
        };
        (0..3).fold(fresh(), fail).at(t(4, 0)).when(ask())
    };
    asked_often(None).then_records(&["OptInRequested", "MessageAccepted"]);
    asked_often(Some(131_049)).then_rejects(Reason::OptInLimit);
}

#[test]
fn consent_given_elsewhere_is_imported_with_its_proof() {
    let story = fresh().when(import("")).then_rejects_field(Reason::Invalid, "proof");
    let story = story.when(import("signed form 7")).then_records(&["ConsentImported"]);
    let story = story.when(import("signed form 7")).then_rejects(Reason::OptInNotNeeded);
    let story = story.when(template()).then_accepts();
    let story = story.when(ask()).then_rejects(Reason::OptInNotNeeded);
    let story = story.when(consent(ConsentAction::Revoke)).then_records(&["ConsentRevoked"]);
    story.when(template()).then_rejects(Reason::OptedOut);
}

#[test]
fn an_action_of_a_newer_publisher_is_refused() {
    fresh().when(consent(ConsentAction::Unknown)).then_rejects_field(Reason::Invalid, "action");
}
