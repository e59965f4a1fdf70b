//! P14: a template does not open the window; the next inbound message does.

use connector_domain::composer::{Composer, TemplateOnlyReason};
use connector_domain::decide::Reason;

use crate::scenario::{MINUTE, Scenario, t, template, template_accepted, text, wrote};

fn waiting_since(at: connector_domain::time::Timestamp) -> Composer {
    Composer::TemplateOnly { since: Some(at), reason: TemplateOnlyReason::AwaitingReply }
}

#[test]
fn after_a_template_only_templates_until_the_contact_replies() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello")).at(t(30, 0));
    let story = story.when(template()).then_accepts().shows(&waiting_since(t(30, 0)));
    let story = story.when(text("did you get it?")).then_rejects(Reason::WindowClosed);
    let story = story.at(t(31, 0)).when(template()).then_accepts();
    let story = story.and(wrote(t(32, 0), "yes, thank you"));
    let story = story.shows(&Composer::FreeForm { until: t(56, 0) - MINUTE, templates: true });
    story.when(text("great")).then_accepts();
}

#[test]
fn a_template_inside_the_window_neither_closes_nor_extends_it() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello")).and(template_accepted(t(20, 0)));
    let story = story.when(text("and this")).then_accepts();
    let expired = Composer::TemplateOnly { since: Some(t(25, 0) - MINUTE), reason: TemplateOnlyReason::WindowExpired };
    story.at(t(26, 0)).shows(&expired).when(text("too late")).then_rejects(Reason::WindowClosed);
}

#[test]
fn a_contact_who_consented_but_never_wrote_gets_templates_only() {
    let never = Composer::TemplateOnly { since: Some(t(0, 0)), reason: TemplateOnlyReason::NeverWrote };
    let story = Scenario::consented().at(t(2, 0)).shows(&never);
    let story = story.when(text("hi")).then_rejects(Reason::WindowClosed);
    story.when(template()).then_accepts().shows(&waiting_since(t(2, 0)));
}
