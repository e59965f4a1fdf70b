//! The one record that is written by hand: a webhook item.
//!
//! Whatever WhatsApp tells becomes such a record before it is answered 200, up to a thousand per request, and the library's way over
//! serde (a lookup by name per field, and texts that have to be copied into a value first) would cost more than anything else the
//! receiver does with an item. The schema is the same and the bytes are the same; the tests of this crate compare them.

use connector_domain::command::{WebhookItem, WebhookItemRef, WebhookKind};

use crate::codec::{Contract, ContractError};
use crate::schema::registry;

/// Appends the record of an item to `out`: what [`crate::encode`] makes of the same [`WebhookItem`].
///
/// # Errors
/// [`ContractError::BrokenSchema`], which the tests rule out for what is committed.
pub fn encode_webhook_item(item: &WebhookItemRef<'_>, out: &mut Vec<u8>) -> Result<(), ContractError> {
    out.extend_from_slice(&registry()?.writer(WebhookItem::SCHEMA)?.prefix);
    // The position among the symbols of the schema.
    long(
        out,
        match item.kind {
            WebhookKind::Message => 0,
            WebhookKind::Status => 1,
            WebhookKind::Change => 2,
            WebhookKind::Unknown => 3,
        },
    );
    text(out, item.field);
    text(out, item.waba_id);
    optional(out, item.phone_number_id, |out, number| text(out, number.as_str()));
    text(out, item.raw);
    optional(out, item.contact, text);
    optional(out, item.entry_time, |out, time| long(out, time.as_millis()));
    long(out, item.received_at.as_millis());
    text(out, item.delivery_id);
    Ok(())
}

/// A union of null and something else, in this order.
fn optional<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    long(out, i64::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    long(out, i64::try_from(text.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Zig-zag, then seven bits a byte, the lowest first.
fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}
