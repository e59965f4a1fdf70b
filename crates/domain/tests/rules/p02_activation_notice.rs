//! P2: a user who gets access for the first time is told once, and dismisses the notice.

use connector_domain::command::{ConsentAction, DirectoryKind, DirectoryRecord};
use connector_domain::decide::Reason;
use connector_domain::directory::{Enablement, decide_user, decide_user_removed};
use connector_domain::event::Event;
use connector_domain::identity::Address;

use crate::scenario::{Scenario, consent, enabled, told};

fn record(enabled: bool, number: Option<&str>) -> DirectoryRecord {
    DirectoryRecord {
        kind: DirectoryKind::User,
        organization_id: "acme".into(),
        phone_number_id: number.map(Into::into),
        waba_id: None,
        user_id: Some("ada".into()),
        enabled,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    }
}

fn apply(enablement: &mut Enablement, events: &[Event]) -> Vec<&'static str> {
    for event in events {
        enablement.evolve(event);
    }
    events.iter().map(Event::type_name).collect()
}

#[test]
fn the_first_access_raises_the_notice_and_no_later_one_does() {
    let mut user = Enablement::default();
    let events = decide_user(&user, &record(true, Some("number")));
    assert_eq!(apply(&mut user, &events), ["WhatsAppEnabled", "ActivationNoticeRaised"]);
    assert!(user.enabled && user.notice_pending);
    assert!(decide_user(&user, &record(true, Some("number"))).is_empty(), "a repeated record changes nothing");

    let events = decide_user(&user, &record(false, Some("number")));
    assert_eq!(apply(&mut user, &events), ["WhatsAppDisabled"]);
    let events = decide_user(&user, &record(true, Some("number")));
    assert_eq!(apply(&mut user, &events), ["WhatsAppEnabled"]);
}

#[test]
fn another_number_is_announced_without_a_new_notice() {
    let mut user = Enablement::default();
    let events = decide_user(&user, &record(true, Some("number")));
    apply(&mut user, &events);
    let events = decide_user(&user, &record(true, Some("second")));
    assert_eq!(apply(&mut user, &events), ["WhatsAppEnabled"]);
    assert_eq!(user.phone_number_id, Some("second".into()));
}

#[test]
fn a_tombstone_and_a_missing_number_take_access_away_once() {
    let mut user = Enablement { enabled: true, notice_raised: true, ..Enablement::default() };
    assert_eq!(decide_user(&user, &record(true, None)).len(), 1);
    let events = decide_user_removed(&user, &"ada".into());
    assert_eq!(apply(&mut user, &events), ["WhatsAppDisabled"]);
    assert!(decide_user_removed(&user, &"ada".into()).is_empty());
}

#[test]
fn a_record_of_another_kind_or_without_its_ids_changes_nothing() {
    let user = Enablement::default();
    assert!(decide_user(&user, &DirectoryRecord { user_id: None, ..record(true, Some("number")) }).is_empty());
    assert!(
        decide_user(&user, &DirectoryRecord { kind: DirectoryKind::Unknown, ..record(true, Some("n")) }).is_empty()
    );
}

#[test]
fn a_dismissed_notice_never_comes_back() {
    let story = Scenario::given([enabled(), told()]);
    let story = story.when(consent(ConsentAction::AcknowledgeNotice)).then_records(&["ActivationNoticeAcknowledged"]);
    assert!(!story.situation.enablement.notice_pending);
    // Once more is no news, and the command has an outcome.
    let story = story.when(consent(ConsentAction::AcknowledgeNotice)).then_records(&["ActivationNoticeAcknowledged"]);
    Scenario::given([]).when(consent(ConsentAction::AcknowledgeNotice)).then_rejects(Reason::NotEnabled);
    assert!(!story.and(told()).situation.enablement.notice_pending);
}
