//! The form of ids that come from outside (R13). What is no opaque id is refused at the door: ids become keys of records, streams and
//! views, and a key never shows who somebody is.

use crate::ids::{Bsuid, ContactId, OrganizationId, PhoneNumberId, StreamId, UserId, WabaId, Wamid};

/// The longest id that is chosen upstream.
pub const LONGEST_ID: usize = 128;

/// The longest id of Meta's.
const LONGEST_META_ID: usize = 64;

/// The longest message id: Meta's grow with what they name.
const LONGEST_WAMID: usize = 512;

/// The longest of what stands behind the country in a business-scoped user id.
const LONGEST_BSUID: usize = 128;

/// WhatsApp's limit for the name of a template.
const LONGEST_TEMPLATE_NAME: usize = 512;

/// The longest name of a person in a contact list, in characters.
pub const LONGEST_NAME: usize = 256;

/// Whether a text may be the name of a person in a contact list.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.chars().nth(LONGEST_NAME).is_none()
}

/// An id whose form can be checked.
pub trait Formed {
    /// Whether it has the form of an opaque id.
    fn is_formed(&self) -> bool;
}

/// Whether digits alone are so many that they may be somebody's phone number: with a country code that is 10 to 15.
fn may_be_a_phone_number(text: &str) -> bool {
    (10..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Letters, digits and what separates them: no slash (it separates the parts of a key), no space, no plus sign.
fn is_token(text: &str, most: usize, also: &[u8]) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

/// An id chosen upstream.
fn is_upstream(text: &str) -> bool {
    is_token(text, LONGEST_ID, b"-_.:@=~")
}

impl Formed for OrganizationId {
    fn is_formed(&self) -> bool {
        is_upstream(self.as_str())
    }
}

impl Formed for UserId {
    fn is_formed(&self) -> bool {
        is_upstream(self.as_str()) && !may_be_a_phone_number(self.as_str())
    }
}

impl Formed for ContactId {
    fn is_formed(&self) -> bool {
        is_upstream(self.as_str()) && !may_be_a_phone_number(self.as_str())
    }
}

impl Formed for PhoneNumberId {
    fn is_formed(&self) -> bool {
        is_token(self.as_str(), LONGEST_META_ID, b"-_")
    }
}

impl Formed for WabaId {
    fn is_formed(&self) -> bool {
        is_token(self.as_str(), LONGEST_META_ID, b"-_")
    }
}

impl Formed for Wamid {
    fn is_formed(&self) -> bool {
        is_token(self.as_str(), LONGEST_WAMID, b"-_.:+/=")
            && self.as_str().bytes().any(|byte| byte.is_ascii_alphabetic())
    }
}

impl Formed for Bsuid {
    /// `CC.…`, or `CC.ENT.…` for that of a parent. Nothing else: a phone number in its place would be another conversation with the same
    /// person, in which nobody has said no.
    fn is_formed(&self) -> bool {
        let Some((country, rest)) = self.expose().split_once('.') else { return false };
        let rest = rest.strip_prefix("ENT.").unwrap_or(rest);
        country.len() == 2
            && country.bytes().all(|byte| byte.is_ascii_uppercase())
            && is_token(rest, LONGEST_BSUID, b"")
    }
}

impl Formed for StreamId {
    /// `<key id>-<32 hex digits>`, as [`crate::identity::StreamKeys`] makes them.
    fn is_formed(&self) -> bool {
        is_stream_id(self.as_str())
    }
}

/// Whether a text has the form of a [`StreamId`].
#[must_use]
pub fn is_stream_id(text: &str) -> bool {
    let Some((key, tag)) = text.split_once('-') else { return false };
    let short = (1..=16).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    short && tag.len() == 32 && tag.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Whether a text may name something that is only looked for: what is no key of anything is not found. A phone number is not even looked
/// for.
#[must_use]
pub fn may_be_looked_for(text: &str) -> bool {
    is_token(text, LONGEST_META_ID, b"-") && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether a text has the form of a template's name. WhatsApp allows small letters, digits and underscores.
#[must_use]
pub fn is_template_name(name: &str) -> bool {
    (1..=LONGEST_TEMPLATE_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether a text has the form of a template's language, such as `en` or `pt_BR`.
#[must_use]
pub fn is_language(code: &str) -> bool {
    (2..=16).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Address, StreamKeys};
    use crate::ids::PhoneNumber;

    #[test]
    fn a_stream_id_has_the_form_that_keys_give_it_and_nothing_else_has() {
        let address = Address { phone: PhoneNumber::parse("491701234567").ok(), bsuid: None };
        let id = StreamKeys::new("k1", b"secret").conversation(&"1".into(), &address).expect("an address");
        assert!(id.is_formed());
        let id = id.as_str();
        let tag = &id[3..];
        for wrong in [
            "",
            "491701234567",
            "+491701234567",
            "k1-491701234567",
            &id[..id.len() - 1],
            &format!("{id}0"),
            &id.to_uppercase(),
            &format!("K1-{tag}"),
            &format!("-{tag}"),
            &format!("k1/{tag}"),
            &format!(" {id}"),
            &format!("k1-{}", tag.to_uppercase()),
            "seventeencharacter-00000000000000000000000000000000",
        ] {
            assert!(!StreamId::from(wrong).is_formed(), "{wrong}");
        }
    }

    #[test]
    fn ids_from_upstream_are_opaque() {
        for right in ["7", "ada", "user-7", "a.b_c:d@e=f~", "1234567", "00000000-0000-0000-0000-000000000000"] {
            assert!(OrganizationId::from(right).is_formed(), "{right}");
            assert!(UserId::from(right).is_formed(), "{right}");
            assert!(ContactId::from(right).is_formed(), "{right}");
        }
        let long = "a".repeat(LONGEST_ID + 1);
        for wrong in ["", " ", "a b", "a/b", "a\nb", "\u{fc}", "+491701234567", "a\0", long.as_str()] {
            assert!(!OrganizationId::from(wrong).is_formed(), "{wrong}");
            assert!(!UserId::from(wrong).is_formed(), "{wrong}");
            assert!(!ContactId::from(wrong).is_formed(), "{wrong}");
        }
        for phone in ["491701234567", "15550100042", "0049170123456"] {
            assert!(!UserId::from(phone).is_formed(), "{phone}");
            assert!(!ContactId::from(phone).is_formed(), "{phone}");
        }
    }

    #[test]
    fn a_user_id_has_its_country_in_front_and_is_no_phone_number() {
        let bsuid = |text: &str| Bsuid(text.to_owned()).is_formed();
        let [longest, parent] = ["US.", "US.ENT."].map(|front| format!("{front}{}", "1".repeat(LONGEST_BSUID)));
        for right in ["US.13491208655302741918", "US.ENT.11815799212886844830", "DE.a1Z", &longest, &parent] {
            assert!(bsuid(right), "{right}");
        }
        let longer = format!("{longest}1");
        for wrong in [
            "",
            "491701234567",
            "+491701234567",
            "0049170123456",
            "49.1701234567",
            "US.",
            "US",
            ".1",
            "us.1",
            "USA.1",
            "U1.1",
            "US.1 2",
            "US.+491701234567",
            "US.ENT.",
            "US.ENT.1.2",
            "US.1.2",
            "US.\u{e4}",
            "group:1",
            &longer,
        ] {
            assert!(!bsuid(wrong), "{wrong}");
        }
    }

    #[test]
    fn ids_of_meta_have_their_alphabet() {
        assert!(PhoneNumberId::from("106540352242922").is_formed());
        assert!(WabaId::from("102290129340398").is_formed());
        assert!(Wamid::from("wamid.HBgLMTY0NjcwNDM1OTUVAgASGBQzQTdCNTg5RjY1MEMyRjlGMjRGNgA=").is_formed());
        for wrong in ["", "+1", "1 2", "1/2", "../1"] {
            assert!(!PhoneNumberId::from(wrong).is_formed(), "{wrong}");
            assert!(!WabaId::from(wrong).is_formed(), "{wrong}");
        }
        for wrong in ["", "491701234567", "+491701234567", "wamid.a b", "wamid.\u{e4}"] {
            assert!(!Wamid::from(wrong).is_formed(), "{wrong}");
        }
        assert!(is_template_name("order_update_2") && is_language("pt_BR"));
        assert!(!is_template_name("Hello there") && !is_template_name("") && !is_template_name("a/b"));
        assert!(!is_language("") && !is_language("en/US"));
    }
}
