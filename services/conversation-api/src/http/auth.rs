//! Who asks: a bearer token (RFC 6750) that stands for one organization (P4).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use connector_domain::form::Formed;
use connector_domain::ids::OrganizationId;
use connector_settings::SecretSource;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Api;
use super::problem::Problem;

type Fingerprint = [u8; 32];

/// The tokens that are valid now. Fails closed: tokens that cannot be read let nobody in.
pub(crate) struct Tokens {
    source: SecretSource,
    /// The text that was parsed last and what it says.
    known: Mutex<(String, Known)>,
}

type Known = Arc<Vec<(Fingerprint, OrganizationId)>>;

/// Reads `{"<token>": "<organization id>"}`; `None` for anything else, for an empty token or an id that is none, and for no token at all.
pub(crate) fn parse(json: &str) -> Option<Vec<(Fingerprint, OrganizationId)>> {
    let tokens: BTreeMap<String, String> = serde_json::from_str(json).ok()?;
    let formed = |organization: &String| OrganizationId(organization.clone()).is_formed();
    let complete = tokens.iter().all(|(token, organization)| !token.is_empty() && formed(organization));
    (complete && !tokens.is_empty()).then(|| {
        tokens.into_iter().map(|(token, organization)| (fingerprint(&token), OrganizationId(organization))).collect()
    })
}

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

impl Tokens {
    pub(crate) fn new(source: SecretSource) -> Self {
        Self { source, known: Mutex::default() }
    }

    fn current(&self) -> Option<Known> {
        let secret = match self.source.current() {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(%error, "nobody can be let in");
                return None;
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != secret.expose() {
            let Some(parsed) = parse(secret.expose()) else {
                tracing::error!("the tokens are not a JSON object of tokens and ids; nobody can be let in");
                return None;
            };
            *known = (secret.expose().to_owned(), Arc::new(parsed));
        }
        Some(known.1.clone())
    }

    /// The organization of a token. Takes the same time for every wrong token: digests are compared, all of them, to the end.
    pub(crate) fn organization(&self, token: &str) -> Option<OrganizationId> {
        let asked = fingerprint(token);
        let mut found = None;
        for (known, organization) in self.current()?.iter() {
            if bool::from(known.ct_eq(&asked)) {
                found = Some(organization.clone());
            }
        }
        found
    }
}

/// The organization that asks. Extracting it is the authorization: a handler without it answers anybody.
pub(crate) struct Caller(pub(crate) OrganizationId);

fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = header.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Problem::unauthorized()) }
}

fn caller(parts: &Parts, api: &Api) -> Result<Caller, Problem> {
    api.tokens.organization(bearer(parts)?).map(Caller).ok_or_else(Problem::unauthorized)
}

/// An operator of the installation: assigns numbers and accounts to organizations (R13).
pub(crate) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(parts)?;
        if api.operators.as_ref().is_some_and(|operators| operators.organization(token).is_some()) {
            return Ok(Self);
        }
        // Who is nobody hears nothing else; a tenant hears that this is not theirs, whatever the number is.
        match api.tokens.organization(token) {
            Some(_) => Err(Problem::forbidden("numbers and accounts are assigned by an operator")),
            None => Err(Problem::unauthorized()),
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        caller(parts, api)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_settings::Secret;

    #[test]
    fn a_token_stands_for_its_organization_and_nothing_else_is_let_in() {
        let tokens = Tokens::new(SecretSource::Fixed(Secret::new(r#"{"t-a": "a", "t-b": "b"}"#)));
        assert_eq!(tokens.organization("t-b"), Some(OrganizationId::from("b")));
        for wrong in ["", "t-", "t-c", "a"] {
            assert_eq!(tokens.organization(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn unreadable_tokens_let_nobody_in() {
        for broken in ["", "{}", "[]", "t-a", r#"{"": "a"}"#, r#"{"t-a": ""}"#, r#"{"t-a": 1}"#] {
            let tokens = Tokens::new(SecretSource::Fixed(Secret::new(broken)));
            assert_eq!(tokens.organization("t-a"), None, "{broken}");
            assert_eq!(tokens.organization(""), None, "{broken}");
        }
    }
}
