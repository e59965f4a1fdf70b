//! Commands that may be repeated: the id under which a command goes, and whether that id already stands for another one.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use connector_domain::event::EVENT_TYPES;
use connector_domain::ids::{CommandId, EventId, OrganizationId};
use connector_runtime::emit::event_id;

use super::Api;
use super::problem::Problem;

/// The header of draft-ietf-httpapi-idempotency-key-header.
pub(super) const HEADER: &str = "Idempotency-Key";

/// The longest key.
const LONGEST: usize = 255;

/// The key of a request, if it has one.
pub(crate) struct Key(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(HEADER).iter();
        let Some(first) = given.next() else { return Ok(Self(None)) };
        let key = given.next().is_none().then(|| first.to_str().ok().and_then(parse)).flatten();
        let expected = "expected one text in quotes, of 1 to 255 characters (RFC 8941 string)";
        key.map(|key| Self(Some(key))).ok_or_else(|| Problem::field(HEADER, expected))
    }
}

/// A structured-field string (RFC 8941, 3.3.3). Parameters behind it are passed over.
fn parse(value: &str) -> Option<String> {
    let mut chars = value.trim_matches(' ').strip_prefix('"')?.chars();
    let mut key = String::new();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c @ ' '..='~' => key.push(c),
            _ => return None,
        }
    }
    let rest = chars.as_str().trim_start_matches(' ');
    ((rest.is_empty() || rest.starts_with(';')) && (1..=LONGEST).contains(&key.len())).then_some(key)
}

/// The id of a command, and the field it came from.
pub(super) struct Id {
    pub(super) command: CommandId,
    /// `None`: it is a fresh one.
    from: Option<&'static str>,
}

impl Key {
    /// The id of a command: the one in its body, the one that follows from the key, or a fresh one. The same key of the same
    /// organization is the same id, on every instance and for ever.
    pub(super) fn id(&self, api: &Api, organization: &OrganizationId, given: Option<CommandId>) -> Result<Id, Problem> {
        match (&self.0, given) {
            (Some(_), Some(_)) => {
                Err(Problem::field(HEADER, "stands beside command_id, which is one already; expected one of them"))
            }
            (None, Some(command)) => Ok(Id { command, from: Some("command_id") }),
            (None, None) => Ok(Id { command: CommandId(api.platform.ids.fresh()), from: None }),
            (Some(key), None) => {
                let organization = organization.as_str();
                let cause = format!("idempotency-key:{}:{organization}:{key}", organization.len());
                Ok(Id { command: CommandId::derived(&cause), from: Some(HEADER) })
            }
        }
    }
}

/// Refuses an id that was answered for another command. What is not answered yet the workers refuse, in the log.
pub(super) async fn check(api: &Api, organization: &OrganizationId, id: &Id, digest: u64) -> Result<(), Problem> {
    let Some(field) = id.from else { return Ok(()) };
    let answers = api.model.answers(organization, id.command).await?;
    // The id of an answer follows from the command and the digest of what it asks for (R3).
    let cause = connector_runtime::commands::cause(id.command, digest);
    let same = |answer: &EventId| EVENT_TYPES.iter().any(|name| *answer == event_id(name, &cause));
    if answers.is_empty() || answers.iter().any(same) {
        return Ok(());
    }
    Err(Problem::field(field, "was used for another command (conflict)").with_command(id.command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_structured_field_strings() {
        let long = format!("\"{}\"", "x".repeat(255));
        for (text, key) in [
            (r#""8e03978e""#, "8e03978e"),
            (r#" "a \"b\" \\" "#, r#"a "b" \"#),
            (r#""k";v=1"#, "k"),
            (&long, &long[1..256]),
        ] {
            assert_eq!(parse(text).as_deref(), Some(key), "{text}");
        }
        let longer = format!("\"{}\"", "x".repeat(256));
        for wrong in
            ["", "8e03978e", "\"\"", "\"a", "a\"", "\"a\"b", "\"\u{e9}\"", "\"a\\b\"", "\"a\tb\"", "'a'", &longer]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
