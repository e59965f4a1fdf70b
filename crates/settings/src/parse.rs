//! The forms of values, as pure functions from text.

use std::time::Duration;

/// Reads `250ms`, `20s`, `5m`, `24h`, `7d` or several together (`1h30m`). `None` for anything else: a bare number says
/// nothing about its unit and is refused.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let millis_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis_per_unit)?))?;
        rest = next;
    }
    Some(total)
}

/// True for `scheme://host…` without blanks. Whether the scheme fits is for the client that connects to say.
pub(crate) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !host.is_empty()
        && !host.starts_with(':')
        && !text.contains(char::is_whitespace)
}

/// Reads the spellings of yes and no that deployment tools write.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Splits at commas, trims, and leaves empty pieces out.
pub(crate) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("20s"), Some(Duration::from_secs(20)));
        assert_eq!(duration("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "20", "s", "20 s", "-1s", "1.5h", "20sec", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for right in ["http://localhost:9092", "rediss://:pass@redis/0", "https://graph.facebook.com/v23.0"] {
            assert!(is_url(right), "{right}");
        }
        for wrong in ["localhost:9092", "http://", "http:///path", "://host", "http://:80", "http://a b", "1x://host"] {
            assert!(!is_url(wrong), "{wrong}");
        }
    }
}
