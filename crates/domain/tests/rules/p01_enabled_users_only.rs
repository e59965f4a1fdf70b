//! P1: WhatsApp is available to a user only when the organization has enabled it for that user.

use connector_domain::composer::Composer;
use connector_domain::decide::Reason;

use crate::scenario::{Scenario, ask, disabled, enabled, import, imported, in_contacts, t, template, text, wrote};

#[test]
fn a_user_who_was_never_enabled_can_do_nothing() {
    let story = Scenario::given([in_contacts(), wrote(t(1, 0), "hello")]).shows(&Composer::NotEnabled);
    let story = story.when(text("hi")).then_rejects(Reason::NotEnabled);
    let story = story.when(template()).then_rejects(Reason::NotEnabled);
    let story = story.when(ask()).then_rejects(Reason::NotEnabled);
    story.when(import("form 7")).then_rejects(Reason::NotEnabled);
}

#[test]
fn a_user_who_lost_whatsapp_cannot_send_and_what_was_queued_stays() {
    let story = Scenario::given([enabled(), in_contacts(), wrote(t(1, 0), "hello")]);
    let story = story.when(text("hi")).then_accepts();
    let story = story.and(disabled(t(1, 5))).shows(&Composer::NotEnabled);
    let story = story.when(text("hi again")).then_rejects(Reason::NotEnabled);
    assert_eq!(story.dispatching(), [Err(Reason::NotEnabled)]);
}

#[test]
fn a_user_is_enabled_for_one_number_and_no_other() {
    let story = Scenario::given([enabled(), in_contacts(), imported(t(0, 1))]);
    let through_another = template().with_send(|command| command.phone_number_id = "other".into());
    story.when(through_another).then_rejects_field(Reason::NotEnabled, "phone_number_id");
}
