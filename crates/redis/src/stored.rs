//! How values and timers stand in Redis: short, and with a check that tells what this adapter wrote from what a hand did.

use bytes::{BufMut, Bytes, BytesMut};
use connector_domain::time::Timestamp;
use connector_ports::gate::{MAX_TAG, Timer};

/// Stands before a key whose hexadecimal end is kept as bytes. Never the first byte of a text.
const PACKED: u8 = 0xff;

/// Hexadecimal digits that are kept as bytes: the end of a stream id.
const DIGITS: usize = 32;

/// Due times are below this, in the year 2109: with the eleven bits behind the point it is what a score holds exactly.
const END_OF_TIME: i64 = (1 << 42) - 1;

/// Scores count in these parts of a millisecond. The part holds tag (3 bits) and check (8 bits).
const PARTS: f64 = 2048.0;

/// FNV-1a: a check against mistakes, not against attackers, who own Redis anyway.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // Between two parts, so that nothing moves from one to the other unseen.
        for byte in part.iter().chain([&PACKED]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A value with its check behind it.
pub(crate) fn seal(key: &str, value: &[u8]) -> Bytes {
    let mut sealed = BytesMut::with_capacity(value.len() + 4);
    sealed.put_slice(value);
    sealed.put_slice(&check(key, value));
    sealed.freeze()
}

/// The value, if it is one of ours and stands under its own key.
pub(crate) fn unseal(key: &str, sealed: Vec<u8>) -> Option<Bytes> {
    let sealed = Bytes::from(sealed);
    let at = sealed.len().checked_sub(4)?;
    (sealed[at..] == check(key, &sealed[..at])).then(|| sealed.slice(..at))
}

fn check(key: &str, value: &[u8]) -> [u8; 4] {
    let hash = hash(&[key.as_bytes(), value]);
    ((hash ^ (hash >> 32)) as u32).to_le_bytes()
}

/// A timer's key as a member: the hexadecimal end of a stream id takes half its length.
pub(crate) fn pack(key: &str) -> Vec<u8> {
    let bytes = key.as_bytes();
    let at = bytes.len().saturating_sub(DIGITS);
    let digits = &bytes[at..];
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let packed: Option<Vec<u8>> = digits.chunks_exact(2).map(|p| Some(nibble(p[0])? << 4 | nibble(p[1])?)).collect();
    match packed {
        Some(packed) if digits.len() == DIGITS => [&[PACKED], &bytes[..at], &packed].concat(),
        _ => bytes.to_vec(),
    }
}

/// The key of a member. `None`: not one of ours.
pub(crate) fn unpack(member: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let Some(packed) = member.strip_prefix(&[PACKED]) else { return text(member) };
    let (prefix, digits) = packed.split_at_checked(packed.len().checked_sub(DIGITS / 2)?)?;
    let mut key = text(prefix)?;
    for byte in digits {
        for nibble in [byte >> 4, byte & 15] {
            key.push(char::from_digit(u32::from(nibble), 16)?);
        }
    }
    Some(key)
}

/// The score of a timer: its due time in milliseconds, and behind the point its tag and a check.
#[expect(clippy::cast_precision_loss, reason = "below 2^42, with 11 bits behind the point: exact")]
pub(crate) fn score(member: &[u8], timer: Timer) -> String {
    let at = timer.at.as_millis().clamp(0, END_OF_TIME);
    let tag = timer.tag.min(MAX_TAG);
    let part = u16::from(tag) << 8 | u16::from(score_check(member, at, tag));
    (at as f64 + f64::from(part) / PARTS).to_string()
}

/// The timer of a score. `None`: not one of ours.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers within their bounds")]
pub(crate) fn timer(member: &[u8], score: &str) -> Option<Timer> {
    let score: f64 = score.parse().ok().filter(|score: &f64| score.is_finite() && *score >= 0.0)?;
    let (at, part) = (score.floor() as i64, (score.fract() * PARTS) as u16);
    let (tag, check) = ((part >> 8) as u8, (part & 0xff) as u8);
    let ours = at <= END_OF_TIME && check == score_check(member, at, tag);
    ours.then_some(Timer { at: Timestamp(at), tag })
}

fn score_check(member: &[u8], at: i64, tag: u8) -> u8 {
    let hash = hash(&[member, &at.to_le_bytes(), &[tag]]);
    // Never 0, so that a whole number written by hand always shows.
    (hash ^ (hash >> 32)) as u8 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_id_takes_half_its_length() {
        for key in ["1.k1-0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"] {
            assert_eq!(pack(key).len(), key.len() - 15);
            assert_eq!(unpack(&pack(key)).as_deref(), Some(key));
        }
        for key in ["", "short", "k1-0123456789ABCDEF0123456789ABCDEF", "ä0123456789abcdef0123456789abcde", "-"] {
            assert_eq!(unpack(&pack(key)).as_deref(), Some(key));
        }
        assert_eq!(unpack(&[PACKED, 1, 2]), None);
        assert_eq!(unpack(&[0xfe]), None);
    }

    #[test]
    fn a_score_holds_time_and_tag_exactly_and_shows_a_hand() {
        for at in [0, 1, 1_800_000_000_123, 4_102_444_800_000, END_OF_TIME] {
            for tag in 0..=MAX_TAG {
                let set = Timer { at: Timestamp(at), tag };
                let score = score(b"member", set);
                assert_eq!(timer(b"member", &score), Some(set), "{score}");
                assert_eq!(timer(b"member", &at.to_string()), None, "a whole number");
            }
        }
        for strange in ["inf", "nan", "-1", "1e300", ""] {
            assert_eq!(timer(b"member", strange), None, "{strange}");
        }
    }

    #[test]
    fn a_value_is_bound_to_its_key() {
        let sealed = seal("key", b"value").to_vec();
        assert_eq!(unseal("key", sealed.clone()).as_deref(), Some(&b"value"[..]));
        assert_eq!(unseal("yek", sealed), None);
        for by_hand in [&b""[..], b"1", b"value", b"{\"deadline\":1}"] {
            assert_eq!(unseal("key", by_hand.to_vec()), None);
        }
    }
}
