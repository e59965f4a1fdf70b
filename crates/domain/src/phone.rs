//! Phone numbers: as people write them, as WhatsApp writes them, and the one form in which both are the same person.

use std::borrow::Cow;
use std::fmt;

use phonenumber::Metadata;
use phonenumber::metadata::DATABASE;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// A phone number in E.164 digits without the plus sign, the form of WhatsApp's `wa_id`. `Debug` hides it.
///
/// What is read back (from a topic, from a view) is never refused here: one text in a record must not cost the record. It is brought into
/// this form where that is possible; a text that is no phone number stays what it is, and is nobody. [`PhoneNumber::is_possible`] tells, so that
/// whoever takes a command or a directory record can name the field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PhoneNumber(String);

/// Why a text is not a phone number. Does not repeat the text.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a phone number begins with a country code that exists and has as many digits as numbers of that country have, with an optional \
     leading plus sign, and spaces, dashes or brackets between them"
)]
pub struct NotAPhoneNumber;

/// E.164.
const MOST_DIGITS: usize = 15;
/// No country has shorter ones, its code included.
const LEAST_DIGITS: usize = 5;

/// Marks that address books and screens put around and into a number, and nobody sees.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Digits of a text in which nothing but a number stands.
fn digits(text: &str) -> Result<String, NotAPhoneNumber> {
    let mut digits = String::with_capacity(MOST_DIGITS + 1);
    let mut plus = false;
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            // Full-width, as keyboards of East Asia write them.
            '\u{ff10}'..='\u{ff19}' => digits.extend(char::from_digit(u32::from(c) - 0xff10, 10)),
            '+' | '\u{ff0b}' if digits.is_empty() && !plus => plus = true,
            '-' | '(' | ')' | '.' | '/' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff08}' | '\u{ff09}' => {}
            c if c.is_whitespace() || is_invisible(c) => {}
            _ => return Err(NotAPhoneNumber),
        }
        // A country code may be repeated behind a zero or two: no number is twice as long.
        if digits.len() > 2 * MOST_DIGITS {
            return Err(NotAPhoneNumber);
        }
    }
    // 00 is how a plus sign is dialled in most countries, and no country code begins with 0.
    if !plus && digits.starts_with("00") {
        digits.drain(..2);
    }
    Ok(digits)
}

/// The code of a country whose numbering plan has a new length which address books, WhatsApp and libraries do not all know, and a length
/// that is or was in use besides those that the library knows.
const FURTHER_LENGTHS: &[(u16, usize)] = &[(225, 8), (229, 8), (229, 10), (52, 11), (54, 11)];

/// How many digits numbers of a region have behind the country code, of the kinds that a person or a business may have on WhatsApp.
fn lengths(region: &Metadata) -> impl Iterator<Item = u16> {
    let kinds = region.descriptors();
    let of =
        [kinds.fixed_line(), kinds.mobile(), kinds.toll_free(), kinds.voip(), kinds.personal_number(), kinds.uan()];
    of.into_iter().flatten().flat_map(|kind| kind.possible_length().iter().copied())
}

impl PhoneNumber {
    /// Reads a number as people write it, with its country code: `+49 (0)170 123-4567`, `0049 170 1234567` and `491701234567` are the same. The
    /// trunk prefix that is not dialled from abroad goes.
    ///
    /// # Errors
    /// When there is anything but a number, the country code does not exist, or no number of that country has so many digits. Whether it was
    /// ever given to anybody is not asked: WhatsApp knows numbers that no list knows.
    pub fn parse(text: &str) -> Result<Self, NotAPhoneNumber> {
        let digits = digits(text)?;
        let parsed = phonenumber::parse(None, format!("+{digits}")).map_err(|_| NotAPhoneNumber)?;
        let (code, national) = (parsed.country().code(), parsed.national().to_string());
        let known = |length: usize| {
            let regions = DATABASE.by_code(&code).unwrap_or_default();
            let mut lengths = regions.into_iter().flat_map(lengths);
            lengths.any(|possible| usize::from(possible) == length)
        };
        let number = format!("{code}{national}");
        if number.len() > MOST_DIGITS || !(FURTHER_LENGTHS.contains(&(code, national.len())) || known(national.len())) {
            return Err(NotAPhoneNumber);
        }
        Ok(Self(number))
    }

    /// Reads a number as WhatsApp writes it (`wa_id`, `from`): its digits, whatever is known of the country. Nothing that WhatsApp says about a
    /// person is lost because of a list.
    ///
    /// # Errors
    /// When there is anything but 5 to 15 digits, with an optional plus sign.
    pub fn from_whatsapp(text: &str) -> Result<Self, NotAPhoneNumber> {
        let digits = text.trim();
        let digits = digits.strip_prefix('+').unwrap_or(digits);
        let fits =
            (LEAST_DIGITS..=MOST_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if fits { Ok(Self(digits.to_owned())) } else { Err(NotAPhoneNumber) }
    }

    /// Whether [`PhoneNumber::parse`] would take it as it stands here.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        Self::parse(&self.0).is_ok_and(|parsed| parsed == *self)
    }

    /// Whether it is no phone number at all: nobody can be addressed by it.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        Self::from_whatsapp(&self.0).is_err()
    }

    /// The digits, for the one place that addresses a person: the request to WhatsApp.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether digits may have a trunk prefix behind their country code (of one to three digits). Few have a zero there; the others need no list.
fn may_have_trunk_prefix(digits: &str) -> bool {
    digits.bytes().skip(1).take(3).any(|digit| digit == b'0')
}

impl<'de> Deserialize<'de> for PhoneNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let plain = Self::from_whatsapp(&text).ok();
        match plain.filter(|plain| !may_have_trunk_prefix(&plain.0)) {
            Some(plain) => Ok(plain),
            None => {
                let lenient = |_| Self::from_whatsapp(&text);
                Ok(Self::parse(&text).or_else(lenient).unwrap_or(Self(text)))
            }
        }
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber(…)")
    }
}

/// One form for numbers that have two: a `wa_id` may lack, or have, digits that the dialled number has. Only for telling people apart;
/// messages go to the number as it is known.
///
/// - Brazil: mobile numbers got a 9 in front of their eight digits, WhatsApp leaves it out for accounts made before. Landlines
///   begin with 2 to 5, so nothing else has the form without it.
/// - Mexico: until 2019 mobile numbers were dialled with a 1 behind the country code; the ten digits are the same.
/// - Argentina: from abroad mobile numbers have a 9 behind the country code; the ten digits are the same.
/// - Ivory Coast: since 2021 two digits that name the network (01, 05, 07; 21, 25, 27 for landlines) stand in front of the eight digits.
/// - Benin: since 2024 all numbers have 01 in front of the eight digits.
pub(crate) fn one_form(digits: &str) -> Cow<'_, str> {
    let local = |country: &str, length: usize| digits.strip_prefix(country).filter(|local| local.len() == length);
    if let Some(local) = local("55", 11)
        && let Some(("9", subscriber)) = local.get(2..).map(|number| number.split_at(1))
        && subscriber.starts_with(['6', '7', '8', '9'])
    {
        return format!("55{}{subscriber}", &local[..2]).into();
    }
    for (country, mobile) in [("52", "1"), ("54", "9")] {
        if let Some(local) = local(country, 11)
            && let Some(ten) = local.strip_prefix(mobile)
        {
            return format!("{country}{ten}").into();
        }
    }
    for (country, networks) in [("225", ["01", "05", "07", "21", "25", "27"].as_slice()), ("229", &["01"])] {
        if let Some(local) = local(country, 10)
            && let Some(eight) = networks.iter().find_map(|network| local.strip_prefix(network))
        {
            return format!("{country}{eight}").into();
        }
    }
    digits.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        PhoneNumber::parse(text).ok().map(|number| number.0)
    }

    #[test]
    fn both_ways_to_write_a_number_are_one_person() {
        for (dialled, by_whatsapp) in [
            ("5531987654321", "553187654321"),
            ("5215512345678", "525512345678"),
            ("5491123456789", "541123456789"),
            ("2250745000000", "22545000000"),
            ("2250545000000", "22545000000"),
            ("2252720210000", "22520210000"),
            ("2290197000000", "22997000000"),
        ] {
            assert_eq!(one_form(dialled), one_form(by_whatsapp), "{dialled}");
        }
    }

    #[test]
    fn no_other_number_changes() {
        // A landline of Brazil, a mobile number whose eight digits could be a landline, and countries whose code begins alike.
        for digits in [
            "553132654321",
            "5531932654321",
            "491701234567",
            "15550100042",
            "5219",
            "559",
            "54911234567",
            "2250945000000",
            "2290297000000",
            "22501450000",
            "221770000000",
        ] {
            assert_eq!(one_form(digits), digits);
        }
    }

    #[test]
    fn a_number_is_read_however_people_write_it() {
        for (written, digits) in [
            ("+44 (0)20 7946 0958", "442079460958"),
            ("44 (0)20 7946 0958", "442079460958"),
            ("4402079460958", "442079460958"),
            ("0044 20 7946 0958", "442079460958"),
            ("+49 (0)170 1234567", "491701234567"),
            ("+49-170/123.4567", "491701234567"),
            ("\u{202a}+49\u{a0}170\u{2011}1234567\u{202c}", "491701234567"),
            ("\u{ff0b}\u{ff14}\u{ff19}1701234567", "491701234567"),
            ("+33 (0)6 12 34 56 78", "33612345678"),
            ("+36 06 30 123 4567", "36301234567"),
            ("+7 8 912 345-67-89", "79123456789"),
            // Zeros that belong to the number stay.
            ("+39 06 12345678", "390612345678"),
            ("+225 07 45 00 00 00", "2250745000000"),
            ("+229 01 97 00 00 00", "2290197000000"),
            ("+225 45 00 00 00", "22545000000"),
            ("+229 97 00 00 00", "22997000000"),
            ("+52 1 55 1234 5678", "5215512345678"),
            ("+54 9 11 2345-6789", "5491123456789"),
            ("+55 31 8765-4321", "553187654321"),
            // Nobody's, and yet possible.
            ("1 (555) 010-0042", "15550100042"),
        ] {
            assert_eq!(read(written).as_deref(), Some(digits), "{written}");
            assert!(PhoneNumber(digits.to_owned()).is_possible(), "{digits}");
        }
    }

    #[test]
    fn what_is_no_phone_number_is_refused() {
        let long = "1".repeat(1_000_000);
        for written in [
            "",
            "+",
            "0170 1234567",
            "12345",
            "+999 123456",
            "+49",
            "+49 1",
            "+44 20 7946 0958 ext. 5",
            "ada",
            "+1 800 FLOWERS",
            "+1 555 010 004",
            "+1 555 010 00421",
            "++491701234567",
            "49+1701234567",
            "4915\u{662}",
            "+4917012345678901234",
            &long,
        ] {
            assert_eq!(read(written), None, "{}", &written[..written.len().min(40)]);
        }
    }

    #[test]
    fn what_is_read_back_is_the_same_number_and_never_an_error() {
        let back = |text: &str| serde_json::from_value::<PhoneNumber>(text.into()).unwrap();
        for written in ["+49 170 1234567", "491701234567", "+491701234567", "+49 (0)170 1234567", "4901701234567"] {
            assert_eq!(back(written), PhoneNumber::parse("491701234567").unwrap(), "{written}");
        }
        // WhatsApp's, although no list knows them.
        assert_eq!(back("999123456").expose(), "999123456");
        assert!(!back("999123456").is_possible());
        for text in ["", "ada", "+1 800 FLOWERS", "12"] {
            assert!(back(text).is_nobody() && !back(text).is_possible(), "{text}");
        }
    }
}
