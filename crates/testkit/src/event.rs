//! Events that tests tell of.

use connector_domain::consent::Intent;
use connector_domain::event::MessageReceived;
use connector_domain::identity::Address;
use connector_domain::time::Timestamp;

/// A text of a contact about nothing in particular, whose window ends at `window_deadline`.
#[must_use]
pub fn text_received(window_deadline: Timestamp) -> MessageReceived {
    MessageReceived {
        phone_number_id: "number".into(),
        wamid: "wamid".into(),
        address: Address::default(),
        profile_name: None,
        message_type: "text".to_owned(),
        text: None,
        unsupported: false,
        reply_to: None,
        intent: Intent::Other,
        answer: Intent::Other,
        window_deadline: Some(window_deadline),
        raw: "{}".into(),
    }
}
