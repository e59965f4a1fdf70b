//! Encrypted servers: a private authority, what it has signed, and who may come in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use tempfile::TempDir;

use crate::process::{ServerError, failed};

/// The user whom encrypted servers let in.
pub const USER: &str = "connector";
/// The password of that user. A word that stands nowhere else, so that tests find it where it must not be.
pub const PASSWORD: &str = "planted-stack-password";

/// An authority of its own and two certificates that it has signed: the servers', for 127.0.0.1 and localhost, and a client's.
/// Clones share the files, which go with the last of them.
#[derive(Clone, Debug)]
pub struct Secured(Arc<TempDir>);

impl Secured {
    /// Makes keys and certificates.
    ///
    /// # Errors
    /// When OpenSSL fails, or the files cannot be written.
    pub fn new() -> Result<Self, ServerError> {
        let folder = tempfile::Builder::new().prefix("local-authority-").tempdir();
        let secured = Self(Arc::new(folder.map_err(failed("create a folder for certificates"))?));
        let files = certificates().map_err(|error| ServerError(format!("cannot make certificates: {error}")))?;
        for (name, content) in files {
            fs::write(secured.file(name), content).map_err(failed("write a certificate"))?;
        }
        Ok(secured)
    }

    /// PEM file of the authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.file(CA)
    }

    /// PEM files of the client's certificate and its key.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file(CLIENT), self.file(CLIENT_KEY))
    }

    /// PEM files of the servers' certificate and its key.
    pub(crate) fn server(&self) -> (PathBuf, PathBuf) {
        (self.file(SERVER), self.file(SERVER_KEY))
    }

    /// Certificate and key of the servers in one PEM file, as Kafka wants them.
    pub(crate) fn server_store(&self) -> PathBuf {
        self.file(SERVER_STORE)
    }

    /// What a process of the connector is told to come in. Of a Redis Cluster the authority is not its own setting.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let ca = self.ca().display().to_string();
        vec![
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl".to_owned()),
            ("KAFKA_SASL_USERNAME", USER.to_owned()),
            ("KAFKA_SASL_PASSWORD", PASSWORD.to_owned()),
            ("KAFKA_SSL_CA_FILE", ca.clone()),
            ("REDIS_PASSWORD", PASSWORD.to_owned()),
            ("REDIS_CA_FILE", ca),
        ]
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}

const CA: &str = "ca.pem";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_STORE: &str = "server-store.pem";
const CLIENT: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";

/// The files by their names.
fn certificates() -> Result<Vec<(&'static str, Vec<u8>)>, ErrorStack> {
    let authority = Signed::new("local authority", None)?;
    let server = Signed::new("localhost", Some(&authority))?;
    let client = Signed::new(USER, Some(&authority))?;
    let (server_pem, server_key) = (server.certificate.to_pem()?, server.key.private_key_to_pem_pkcs8()?);
    Ok(vec![
        (CA, authority.certificate.to_pem()?),
        (SERVER_STORE, [server_key.as_slice(), server_pem.as_slice()].concat()),
        (SERVER, server_pem),
        (SERVER_KEY, server_key),
        (CLIENT, client.certificate.to_pem()?),
        (CLIENT_KEY, client.key.private_key_to_pem_pkcs8()?),
    ])
}

/// A certificate and its key.
struct Signed {
    certificate: X509,
    key: PKey<Private>,
}

impl Signed {
    /// Signed by `authority`, for 127.0.0.1 and localhost; without one an authority that signs itself.
    fn new(name: &str, authority: Option<&Self>) -> Result<Self, ErrorStack> {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&curve)?)?;
        let mut subject = X509Name::builder()?;
        subject.append_entry_by_text("CN", name)?;
        let subject = subject.build();

        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        let mut serial = BigNum::new()?;
        serial.rand(127, openssl::bn::MsbOption::MAYBE_ZERO, false)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&subject)?;
        builder.set_issuer_name(authority.map_or(&*subject, |authority| authority.certificate.subject_name()))?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(7)?)?;
        builder.set_pubkey(&key)?;
        if authority.is_some() {
            let mut names = SubjectAlternativeName::new();
            names.dns("localhost").ip("127.0.0.1");
            let names = names.build(&builder.x509v3_context(authority.map(|one| &*one.certificate), None))?;
            builder.append_extension(names)?;
        } else {
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
            builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        }
        builder.sign(authority.map_or(&key, |authority| &authority.key), MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_of_their_own_authority_and_of_no_other() {
        let [one, other] = [(); 2].map(|()| Secured::new().expect("certificates"));
        let read = |path: PathBuf| X509::from_pem(&fs::read(path).expect("a file")).expect("a certificate");
        let (ours, theirs) = (read(one.ca()), read(other.ca()));
        for signed in [one.client().0, one.server().0] {
            let signed = read(signed);
            assert!(signed.verify(&ours.public_key().expect("a key")).expect("a check"));
            assert!(!signed.verify(&theirs.public_key().expect("a key")).expect("a check"));
        }
        let folder = one.ca();
        drop(one);
        assert!(!folder.exists(), "the keys go with their owner");
    }
}
