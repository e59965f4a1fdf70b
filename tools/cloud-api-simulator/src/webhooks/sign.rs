//! The bytes of a webhook and their signature.
//!
//! Meta sends and signs the escaped-unicode form: ASCII only, `\uXXXX` with lower-case digits (surrogate pairs beyond the
//! basic plane) and `\/`. A receiver that re-encodes before it checks the signature fails with this, as it would with
//! WhatsApp.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::{
    Value,
    ser::{Formatter, Serializer},
};
use sha2::Sha256;

struct Escaped;

impl Formatter for Escaped {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices() {
            if c.is_ascii() && c != '/' {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            plain = at + c.len_utf8();
            if c == '/' {
                writer.write_all(b"\\/")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

/// JSON in the escaped-unicode form.
pub(crate) fn escaped(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(512);
    let written = value.serialize(&mut Serializer::with_formatter(&mut bytes, Escaped));
    debug_assert!(written.is_ok(), "a JSON value is always serialisable into memory");
    String::from_utf8(bytes).unwrap_or_default()
}

/// The value of `X-Hub-Signature-256`.
pub(crate) fn signature(app_secret: &str, body: &[u8]) -> String {
    match Hmac::<Sha256>::new_from_slice(app_secret.as_bytes()) {
        Ok(mut mac) => {
            mac.update(body);
            format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
        }
        // HMAC takes keys of any length, so this cannot happen; a missing digest is refused by every receiver.
        Err(_) => "sha256=".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_escaped_as_meta_does() {
        let value = json!({"a": "é/😀\n\"x\"", "b": 1});
        assert_eq!(escaped(&value), r#"{"a":"\u00e9\/\ud83d\ude00\n\"x\"","b":1}"#);
        assert_eq!(serde_json::from_str::<Value>(&escaped(&value)).expect("JSON"), value);
    }

    #[test]
    fn the_signature_is_the_hmac_of_rfc_4231() {
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
