//! `X-Hub-Signature-256`: HMAC-SHA256 of the raw request body under the app secret, in lowercase hex after `sha256=`.
//!
//! Meta signs the bytes on the wire, so the check comes before any parsing. There is one secret per app; while it is being
//! rotated, deliveries may be signed with either the new or the old one.

use connector_settings::{SecretError, SecretSource};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "X-Hub-Signature-256";

/// Why a delivery is not believed. Says nothing about the expected value.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The header is absent.
    #[error("the delivery carries no signature")]
    Missing,
    /// The header is not `sha256=` and 64 hex digits.
    #[error("the signature is malformed")]
    Malformed,
    /// The signature is not ours.
    #[error("the signature does not match")]
    Mismatch,
    /// No app secret is configured: nothing can be believed.
    #[error("no app secret is set")]
    NoSecret,
    /// A secret could not be read, and none of the others matched.
    #[error("an app secret cannot be read")]
    Unreadable(#[source] SecretError),
}

impl SignatureError {
    /// True when the fault is on our side, so that the sender should come again; false when the delivery is to be refused.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::NoSecret | Self::Unreadable(_))
    }
}

/// Checks deliveries against one secret, or two during a rotation. Without any it believes nothing.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    secrets: Vec<SecretSource>,
}

impl Verifier {
    /// A verifier for the current secret and, during a rotation, the previous one.
    #[must_use]
    pub fn new(current: Option<SecretSource>, previous: Option<SecretSource>) -> Self {
        Self { secrets: current.into_iter().chain(previous).collect() }
    }

    /// Whether `header` could be a signature at all: all that can be said before the body is here.
    ///
    /// # Errors
    /// Without a header, or with one that no body can have, see [`SignatureError`].
    pub fn plausible(&self, header: Option<&[u8]>) -> Result<(), SignatureError> {
        if self.secrets.is_empty() {
            return Err(SignatureError::NoSecret);
        }
        decode(header.ok_or(SignatureError::Missing)?).map(drop).ok_or(SignatureError::Malformed)
    }

    /// Whether `header` (the value of [`SIGNATURE_HEADER`]) is the signature of these bytes.
    ///
    /// # Errors
    /// Anything but a match, see [`SignatureError`].
    pub fn verify(&self, header: Option<&[u8]>, body: &[u8]) -> Result<(), SignatureError> {
        if self.secrets.is_empty() {
            return Err(SignatureError::NoSecret);
        }
        let given = decode(header.ok_or(SignatureError::Missing)?).ok_or(SignatureError::Malformed)?;
        let mut matches = Choice::from(0);
        let (mut tried, mut unreadable) = (false, None);
        for source in &self.secrets {
            match source.current() {
                Ok(secret) if secret.expose().is_empty() => {}
                Ok(secret) => {
                    tried = true;
                    // All secrets are tried whatever the first one says: time must not tell which of them matched.
                    matches |= digest(secret.expose().as_bytes(), body).ct_eq(&given);
                }
                Err(error) => unreadable = Some(error),
            }
        }
        match unreadable {
            _ if bool::from(matches) => Ok(()),
            Some(error) => Err(SignatureError::Unreadable(error)),
            None if tried => Err(SignatureError::Mismatch),
            None => Err(SignatureError::NoSecret),
        }
    }
}

/// The value of [`SIGNATURE_HEADER`] for a body, as Meta writes it. For those who play Meta.
#[must_use]
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    format!("sha256={}", hex::encode(digest(secret, body)))
}

fn digest(secret: &[u8], body: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length, so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("HMAC takes any key length"));
    mac.update(body);
    mac.finalize().into_bytes().into()
}

fn decode(header: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(header.strip_prefix(b"sha256=")?, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_settings::{Secret, SecretFile};

    fn fixed(secret: &str) -> Option<SecretSource> {
        Some(SecretSource::Fixed(Secret::new(secret)))
    }

    const BODY: &[u8] = br#"{"name":"\u00e9"}"#;

    #[test]
    fn the_signature_is_the_published_hmac_of_the_raw_bytes() {
        // The well-known test vector of HMAC-SHA256.
        assert_eq!(
            sign(b"key", b"The quick brown fox jumps over the lazy dog"),
            "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        );
        let header = sign(b"app secret", BODY);
        let verifier = Verifier::new(fixed("app secret"), None);
        verifier.verify(Some(header.as_bytes()), BODY).unwrap();
        // The same text with other bytes is another body.
        let other = "{\"name\":\"é\"}".as_bytes();
        assert!(matches!(verifier.verify(Some(header.as_bytes()), other), Err(SignatureError::Mismatch)));
    }

    #[test]
    fn both_secrets_hold_during_a_rotation_and_no_third_one() {
        let verifier = Verifier::new(fixed("new"), fixed("old"));
        for secret in ["new", "old"] {
            verifier.verify(Some(sign(secret.as_bytes(), BODY).as_bytes()), BODY).unwrap();
        }
        let third = sign(b"third", BODY);
        assert!(matches!(verifier.verify(Some(third.as_bytes()), BODY), Err(SignatureError::Mismatch)));
    }

    #[test]
    fn without_a_secret_nothing_is_believed() {
        for verifier in [Verifier::default(), Verifier::new(None, None), Verifier::new(fixed(""), None)] {
            let error = verifier.verify(Some(sign(b"", BODY).as_bytes()), BODY).unwrap_err();
            assert!(matches!(error, SignatureError::NoSecret));
            assert!(error.is_ours());
        }
    }

    #[test]
    fn a_missing_or_malformed_header_is_refused() {
        let verifier = Verifier::new(fixed("s"), None);
        assert!(matches!(verifier.verify(None, BODY), Err(SignatureError::Missing)));
        let good = sign(b"s", BODY);
        let longer = format!("{good}00");
        let sha1 = good.replace("sha256", "sha1");
        for bad in ["", "sha256=", "sha256=zz", &good[7..], &good[..70], longer.as_str(), sha1.as_str()] {
            let error = verifier.verify(Some(bad.as_bytes()), BODY).unwrap_err();
            assert!(matches!(error, SignatureError::Malformed), "{bad}");
            assert!(verifier.plausible(Some(bad.as_bytes())).is_err(), "{bad}");
            assert!(!error.is_ours());
        }
    }

    #[test]
    fn an_error_does_not_tell_the_expected_value() {
        let error = Verifier::new(fixed("s"), None).verify(Some(sign(b"t", BODY).as_bytes()), BODY).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains(&sign(b"s", BODY)[7..]));
    }

    #[test]
    fn a_secret_file_that_cannot_be_read_is_our_fault_and_the_other_secret_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Some(SecretSource::File(SecretFile::new(folder.path().join("gone"))));
        let verifier = Verifier::new(gone, fixed("old"));
        verifier.verify(Some(sign(b"old", BODY).as_bytes()), BODY).unwrap();
        assert!(verifier.verify(Some(sign(b"new", BODY).as_bytes()), BODY).unwrap_err().is_ours());
    }
}
