//! P11: free-form text may be sent for 24 hours after the contact's last message, by WhatsApp's clock.

use connector_domain::composer::{Composer, TemplateOnlyReason};
use connector_domain::decide::Reason;
use connector_domain::settings::Rules;
use connector_domain::window;

use crate::scenario::{HOUR, MINUTE, Scenario, t, text, wrote};

#[test]
fn free_form_text_ends_a_margin_before_the_deadline() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    let story = story.at(t(24, 58)).when(text("just in time")).then_accepts();
    let closed = Composer::TemplateOnly { since: Some(t(24, 59)), reason: TemplateOnlyReason::WindowExpired };
    let story = story.at(t(24, 59)).shows(&closed).when(text("too late")).then_rejects(Reason::WindowClosed);
    story.at(t(25, 0)).when(text("too late")).then_rejects(Reason::WindowClosed);
}

#[test]
fn a_text_that_waited_in_the_queue_past_the_deadline_does_not_leave() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello")).at(t(24, 0));
    let story = story.when(text("soon")).then_accepts().at(t(25, 0));
    assert_eq!(story.dispatching(), [Err(Reason::WindowClosed)]);
}

#[test]
fn every_message_of_the_contact_renews_the_window_and_an_older_one_never_shortens_it() {
    let story = Scenario::consented().and(wrote(t(10, 0), "second")).and(wrote(t(1, 0), "first, overtaken"));
    assert_eq!(story.conversation().deadline, Some(t(34, 0)));
    story.at(t(33, 58)).when(text("hi")).then_accepts();
}

#[test]
fn a_delivery_that_arrives_late_has_less_window_left() {
    let rules = Rules::default();
    assert_eq!(window::deadline(t(1, 0), t(6, 0), &rules), t(25, 0));
    assert_eq!(window::deadline(t(1, 0), t(30, 0), &rules), t(25, 0), "already over");
}

#[test]
fn a_clock_from_the_future_cannot_extend_the_window() {
    let rules = Rules::default();
    assert_eq!(window::deadline(t(5, 0), t(1, 0), &rules), t(25, 0));
    assert!(!window::is_open(t(25, 0), rules.margin, t(24, 59)));
    assert!(window::is_open(t(25, 0), rules.margin, t(24, 58)));
}

#[test]
fn a_shortened_window_warns_and_ends_by_the_same_rules() {
    let rules = Rules { window: 2 * MINUTE, margin: MINUTE / 6, closing_soon: vec![MINUTE, HOUR], ..Rules::default() };
    let deadline = window::deadline(t(1, 0), t(1, 0), &rules);
    assert_eq!(deadline, t(1, 2));
    assert_eq!(window::closing_soon_at(deadline, &rules), [deadline - HOUR, deadline - MINUTE]);
    assert!(window::expiry_due(deadline, t(1, 2)) && !window::expiry_due(deadline, t(1, 1)));
}
