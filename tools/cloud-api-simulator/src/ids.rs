//! Identifiers in the shapes WhatsApp uses: wamid, business-scoped user id, `fbtrace_id`.
//!
//! All are derived from the seed and a counter, so two runs with one seed and one order of requests give the same ids.

use std::sync::atomic::{AtomicU64, Ordering};

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// SplitMix64: a well-mixed number out of any number. Chosen over a generator crate because its sequence never changes
/// between versions, so a seed found in an old test report still replays.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Mixes the bytes of a name into a number (FNV-1a, then [`mix`]).
pub(crate) fn mix_str(seed: u64, text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(seed ^ 0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    mix(hash)
}

/// Source of new ids.
#[derive(Debug)]
pub(crate) struct Ids {
    seed: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    fn draw(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A message id. Real ones are base64 of a small binary record with the contact's number and a random hex string;
    /// this writes the same record, with the counter inside so that it is unique.
    pub(crate) fn wamid(&self, wa_id: &str) -> String {
        let n = self.draw();
        let hex = format!("{:010X}{:08X}", n & 0xFF_FFFF_FFFF, mix(self.seed ^ n) >> 32);
        let mut record = Vec::with_capacity(wa_id.len() + 27);
        record.extend_from_slice(&[0x1C, 0x18, u8::try_from(wa_id.len()).unwrap_or(u8::MAX)]);
        record.extend_from_slice(wa_id.as_bytes());
        record.extend_from_slice(&[0x15, 0x02, 0x00, 0x11, 0x18, 0x12]);
        record.extend_from_slice(hex.as_bytes());
        record.push(0);
        let mut wamid = String::with_capacity(6 + record.len() * 4 / 3 + 4);
        wamid.push_str("wamid.");
        base64_into(&mut wamid, &record, STANDARD, true);
        wamid
    }

    /// A Graph trace id, e.g. `Az8or2yhqkZfEZ-_4Qn_Bam`.
    pub(crate) fn fbtrace_id(&self) -> String {
        let n = self.draw();
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&mix(self.seed ^ n).to_be_bytes());
        bytes[8..].copy_from_slice(&mix(self.seed.rotate_left(17) ^ n).to_be_bytes());
        let mut id = String::from("A");
        base64_into(&mut id, &bytes, URL_SAFE, false);
        id
    }

    /// A 16-digit node id, as templates have.
    pub(crate) fn node(&self) -> u64 {
        1_000_000_000_000_000 + mix(self.seed ^ self.draw()) % 8_000_000_000_000_000
    }

    /// The business-scoped user id of a contact: `US.<20 digits>`. The same contact always has the same one.
    pub(crate) fn bsuid(&self, wa_id: &str) -> String {
        let digits = u128::from(mix_str(self.seed, wa_id)) + 10_000_000_000_000_000_000;
        format!("US.{digits:020}")
    }
}

/// Appends the base64 form of `bytes`.
fn base64_into(out: &mut String, bytes: &[u8], alphabet: &[u8; 64], pad: bool) {
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(alphabet[(word >> (18 - 6 * i) & 0x3F) as usize]));
            } else if pad {
                out.push('=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_standard_alphabet_and_padding() {
        let encode = |bytes: &[u8]| {
            let mut out = String::new();
            base64_into(&mut out, bytes, STANDARD, true);
            out
        };
        assert_eq!(encode(b"foobar"), "Zm9vYmFy");
        assert_eq!(encode(b"fooba"), "Zm9vYmE=");
        assert_eq!(encode(b"foob"), "Zm9vYg==");
    }

    #[test]
    fn message_ids_are_unique_and_begin_like_real_ones() {
        let ids = Ids::new(1);
        let (one, two) = (ids.wamid("16505551234"), ids.wamid("16505551234"));
        assert_ne!(one, two);
        assert!(one.starts_with("wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI"), "{one}");
    }

    #[test]
    fn a_contact_keeps_its_user_id() {
        let ids = Ids::new(1);
        assert_eq!(ids.bsuid("16505551234"), ids.bsuid("16505551234"));
        assert_ne!(ids.bsuid("16505551234"), ids.bsuid("16505551235"));
        assert_eq!(ids.bsuid("16505551234").len(), 23);
    }
}
