//! P7: delivery and read receipts come back, in any order, and never go back (R9).

use connector_domain::status::{DeliveryStatus as S, MessageState as M, advance};

#[test]
fn a_status_only_moves_a_message_forward() {
    assert_eq!(advance(M::Accepted, S::Sent), M::Sent);
    assert_eq!(advance(M::Sent, S::Delivered), M::Delivered);
    assert_eq!(advance(M::Sent, S::Read), M::Read, "read implies delivered");
    assert_eq!(advance(M::Read, S::Delivered), M::Read);
    assert_eq!(advance(M::Read, S::Sent), M::Read);
    assert_eq!(advance(M::Delivered, S::Played), M::Read);
}

#[test]
fn failed_is_the_end_unless_a_device_was_reached() {
    assert_eq!(advance(M::Sent, S::Failed), M::Failed);
    assert_eq!(advance(M::Failed, S::Sent), M::Failed);
    assert_eq!(advance(M::Failed, S::Delivered), M::Delivered, "another device of the same person");
    assert_eq!(advance(M::Delivered, S::Failed), M::Delivered);
    assert_eq!(advance(M::Read, S::Failed), M::Read);
}

#[test]
fn any_status_settles_an_unconfirmed_message() {
    for status in [S::Sent, S::Delivered, S::Read, S::Played, S::Failed, S::Deleted, S::Warning, S::Unknown] {
        assert_ne!(advance(M::Unconfirmed, status), M::Unconfirmed, "{status:?}");
    }
}

#[test]
fn a_rejected_message_stays_rejected() {
    for status in [S::Sent, S::Read, S::Failed] {
        assert_eq!(advance(M::Rejected, status), M::Rejected);
    }
}
