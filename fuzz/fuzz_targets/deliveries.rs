//! A delivery is taken apart and read without a panic, its items keep no more than it holds and a little each, and none of them is a danger
//! to any reader.

#![no_main]

use connector_domain::identity::StreamKeys;
use connector_domain::time::Timestamp;
use connector_whatsapp::webhook::{Split, parse_change, parse_message, parse_status, split};
use libfuzzer_sys::fuzz_target;

/// The most of its surroundings that an item repeats: field, account, number, an id of its person, and a contact.
const REPEATED: usize = 4 * 1024 + "group:".len() + 4096;
/// A control character in a text becomes `\u0001`.
const ESCAPED: usize = 6;

fuzz_target!(|body: &[u8]| {
    let Ok(found) = split(body, Timestamp(0), "d") else { return };
    assert!(found.len() <= body.len());
    let kept: usize = found.iter().map(|split| split.item.raw.expose().len()).sum();
    assert!(kept <= ESCAPED * body.len(), "{kept} of {} bytes", body.len());
    let keys = StreamKeys::new("k1", b"secret");
    for split in &found {
        assert!(repeated(split) <= REPEATED);
        assert!(!split.key(&keys).is_empty());
        // Every reader gets every item: a wrong `kind` must not be a danger either.
        let _ = (parse_message(&split.item), parse_status(&split.item), parse_change(&split.item));
    }
});

fn repeated(Split { item, address }: &Split) -> usize {
    let number = item.phone_number_id.as_ref().map_or(0, |number| number.as_str().len());
    let contact = item.contact.as_ref().map_or(0, |contact| contact.expose().len());
    let person = address.bsuid.as_ref().map_or(0, |bsuid| bsuid.expose().len());
    item.field.len() + item.waba_id.as_str().len() + number + contact + person
}
