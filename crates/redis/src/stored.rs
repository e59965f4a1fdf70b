//! How values and timers stand in Redis: short, and with a check that tells what this adapter wrote from what a hand did.

use bytes::{BufMut, Bytes, BytesMut};
use connector_domain::time::Timestamp;
use connector_ports::gate::{MAX_TAG, Timer};

/// Stands before a key whose hexadecimal end is kept as bytes. Never the first byte of a text.
const PACKED: u8 = 0xff;

/// Hexadecimal digits that are kept as bytes: the end of a stream id.
const DIGITS: usize = 32;

/// Due times are below this, in the year 2109: with the eleven bits of tag and check it is what a score holds exactly.
const END_OF_TIME: i64 = (1 << 42) - 1;

/// Scores count in these parts of a millisecond. The part holds tag (3 bits) and check (8 bits).
const PARTS: u64 = 2048;

/// Timers of a view are spread over so many buckets. With a quarter of a million of them each bucket is still below the size up to which
/// Redis keeps it in one piece (`zset-max-listpack-entries`, 128); with more it works, and takes three times the space.
const BUCKETS: u64 = 2048;

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

/// The bucket of a member.
pub(crate) fn bucket(member: &[u8]) -> u64 {
    let hash = hash(&[member]);
    (hash ^ (hash >> 32)) % BUCKETS
}

/// The due time of a timer in milliseconds, as a score holds it.
pub(crate) fn due_millis(timer: Timer) -> i64 {
    timer.at.as_millis().clamp(0, END_OF_TIME)
}

/// The score of a timer: its due time in milliseconds, and in its lowest bits its tag and a check. A whole number, because Redis keeps it
/// in half the space of one with a fraction.
pub(crate) fn score(member: &[u8], timer: Timer) -> u64 {
    let at = due_millis(timer);
    let tag = timer.tag.min(MAX_TAG);
    at.unsigned_abs() * PARTS + u64::from(tag) * 256 + u64::from(score_check(member, at, tag))
}

/// The timer of a score. `None`: not one of ours.
pub(crate) fn timer(member: &[u8], score: &str) -> Option<Timer> {
    let score: u64 = score.parse().ok()?;
    let (at, part) = (i64::try_from(score / PARTS).ok()?, score % PARTS);
    let (tag, check) = (u8::try_from(part / 256).ok()?, u8::try_from(part % 256).ok()?);
    let ours = at <= END_OF_TIME && check == score_check(member, at, tag);
    ours.then_some(Timer { at: Timestamp(at), tag })
}

fn score_check(member: &[u8], at: i64, tag: u8) -> u8 {
    let hash = hash(&[member, &at.to_le_bytes(), &[tag]]);
    (hash ^ (hash >> 32)) as u8
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
                assert!(score <= 1 << 53, "a score is a double");
                assert_eq!(timer(b"member", &score.to_string()), Some(set), "{score}");
                assert_eq!(timer(b"member", &(score ^ 1).to_string()), None, "{score}");
            }
        }
        for strange in ["inf", "nan", "-1", "1e300", "", "1.5", "18446744073709551615"] {
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
