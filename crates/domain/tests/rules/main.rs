//! The rules P1 to P15 as scenarios: what happened, what is tried, what follows. One module per rule; P8 (the business
//! profile) is not here, because nothing in it is decided.

mod commands;
mod scenario;

mod p01_enabled_users_only;
mod p02_activation_notice;
mod p03_contacts_only;
mod p04_separate_tenants;
mod p05_text_only;
mod p06_first_message_needs_consent;
mod p07_delivery;
mod p09_contact_decides;
mod p09_linked_identities;
mod p10_history;
mod p11_window;
mod p12_expiry;
mod p13_marketing;
mod p13_templates;
mod p14_reply_after_template;
mod p15_contact_writes_first;
mod properties;
mod r10_numbers_passed_on;

use connector_domain::decide::Reason;

#[test]
fn every_reason_is_the_outcome_of_some_scenario() {
    let scenarios = [
        include_str!("p01_enabled_users_only.rs"),
        include_str!("p03_contacts_only.rs"),
        include_str!("p05_text_only.rs"),
        include_str!("p06_first_message_needs_consent.rs"),
        include_str!("p09_contact_decides.rs"),
        include_str!("p10_history.rs"),
        include_str!("p11_window.rs"),
        include_str!("p13_templates.rs"),
        include_str!("r10_numbers_passed_on.rs"),
    ]
    .concat();
    for reason in Reason::ALL {
        assert!(scenarios.contains(&format!("then_rejects(Reason::{reason:?})")), "no scenario ends in {reason}");
    }
}
