//! Reads settings with their types and keeps every problem, so that an operator fixes all of them in one go.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::parse;
use crate::problems::{Problem, Problems};
use crate::secret::{Secret, SecretFile, SecretSource};
use crate::source::Source;
use crate::variable::{Kind, Variable};

/// More than any wait that makes sense; with less of it no moment leaves the calendar.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Reads variables from a [`Source`] and remembers what is wrong.
///
/// Every getter answers `None` when the variable is not set or when its value is wrong. The second, and a missing
/// required variable, leave a problem behind, so that [`Reader::finish`] fails. A config struct therefore reads all of its
/// variables first and puts itself together afterwards:
///
/// ```
/// # use connector_settings::{Kind, Reader, Variable};
/// # use std::time::Duration;
/// const URL: Variable = Variable::required("REDIS_URL", Kind::Url, "Where Redis is.").secret();
/// const WAIT: Variable = Variable::with_default("REDIS_TIMEOUT", Kind::Duration, "2s", "How long one call may take.");
///
/// struct RedisConfig { url: connector_settings::Secret, timeout: Duration }
///
/// impl RedisConfig {
///     const VARIABLES: &[Variable] = &[URL, WAIT];
///
///     fn from(reader: &mut Reader<'_>) -> Option<Self> {
///         let url = reader.secret(&URL);
///         let timeout = reader.duration(&WAIT);
///         Some(Self { url: url?, timeout: timeout? })
///     }
/// }
///
/// let source = [("REDIS_URL", "redis://localhost:6379")];
/// let config = connector_settings::load(&source, RedisConfig::from).unwrap();
/// assert_eq!(config.timeout, Duration::from_secs(2));
/// ```
///
/// Blanks around a value do not count, and an empty value is as good as none: compose files and Helm charts cannot leave a
/// variable out as easily as they can leave it empty.
pub struct Reader<'a> {
    source: &'a dyn Source,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader without problems yet.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, problems: Vec::new() }
    }

    /// Any text.
    pub fn text(&mut self, variable: &Variable) -> Option<String> {
        self.value(variable)
    }

    /// A URL, checked to have a scheme and a host, without the slash at its end so that paths can be appended.
    pub fn url(&mut self, variable: &Variable) -> Option<String> {
        self.parsed(variable, |text| parse::is_url(text).then(|| text.trim_end_matches('/').to_owned()))
    }

    /// As [`Reader::url`], with one of these schemes.
    pub fn url_with(&mut self, variable: &Variable, schemes: &[&str]) -> Option<String> {
        let url = self.url(variable)?;
        self.has_scheme(variable, &url, schemes).then_some(url)
    }

    /// Whether a URL has one of these schemes; a problem when it has not. Nothing else of it is repeated: it may hold a password.
    pub fn has_scheme(&mut self, variable: &Variable, url: &str, schemes: &[&str]) -> bool {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let known = schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme));
        if !known {
            let expected = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
            self.problem(variable, format!("cannot be reached by {scheme:?}; expected {expected}"));
        }
        known
    }

    /// A duration with its unit, see [`parse_duration`](crate::parse_duration): longer than nothing, and up to ten years.
    pub fn duration(&mut self, variable: &Variable) -> Option<Duration> {
        let duration = self.duration_or_zero(variable)?;
        if duration.is_zero() {
            self.problem(variable, "is nothing; expected more than that");
            return None;
        }
        Some(duration)
    }

    /// As [`Reader::duration`], where nothing has a meaning of its own.
    pub fn duration_or_zero(&mut self, variable: &Variable) -> Option<Duration> {
        let duration = self.parsed(variable, parse::duration)?;
        if duration > LONGEST {
            self.problem(variable, "is too long; expected ten years (3650d) at most");
            return None;
        }
        Some(duration)
    }

    /// A number of any type that reads itself from text; `NonZero…` types refuse zero.
    pub fn number<T: FromStr>(&mut self, variable: &Variable) -> Option<T> {
        self.parsed(variable, |text| text.parse().ok())
    }

    /// A number within bounds, both of which are allowed.
    pub fn number_in<T: FromStr + PartialOrd + Display>(
        &mut self,
        variable: &Variable,
        bounds: RangeInclusive<T>,
    ) -> Option<T> {
        let text = self.value(variable)?;
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            self.wrong(variable, &text, &format!("a number from {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    /// `true`, `yes`, `on`, `1` or their opposites.
    pub fn flag(&mut self, variable: &Variable) -> Option<bool> {
        self.parsed(variable, parse::flag)
    }

    /// One of the words of [`Kind::Choice`], each with the value it stands for.
    pub fn choice<T: Copy>(&mut self, variable: &Variable, options: &[(&str, T)]) -> Option<T> {
        debug_assert!(
            matches!(variable.kind, Kind::Choice(words) if words.iter().eq(options.iter().map(|(word, _)| word))),
            "{} documents other words than it reads",
            variable.name
        );
        self.parsed(variable, |text| {
            options.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
        })
    }

    /// Texts separated by commas; blanks and empty pieces are left out. Without a value and without a default: `None`.
    pub fn list(&mut self, variable: &Variable) -> Option<Vec<String>> {
        self.parsed(variable, |text| Some(parse::list(text)).filter(|pieces| !pieces.is_empty()))
    }

    /// The path of a file or folder; whether it exists is for its user to say.
    pub fn path(&mut self, variable: &Variable) -> Option<PathBuf> {
        self.value(variable).map(PathBuf::from)
    }

    /// The path of a file that can be read now. Its content is for its user to judge.
    pub fn file(&mut self, variable: &Variable) -> Option<PathBuf> {
        let path = self.path(variable)?;
        match std::fs::read(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                self.problem(variable, format!("the file {} cannot be read: {error}", path.display()));
                None
            }
        }
    }

    /// An address to listen on.
    pub fn address(&mut self, variable: &Variable) -> Option<SocketAddr> {
        self.number(variable)
    }

    /// A secret, read once: from the variable, or from the file that `<NAME>_FILE` names.
    pub fn secret(&mut self, variable: &Variable) -> Option<Secret> {
        let source = self.secret_source(variable)?;
        source.current().ok()
    }

    /// A secret that may change while the process runs. The file is read once here, so that a missing one is found at start.
    pub fn secret_source(&mut self, variable: &Variable) -> Option<SecretSource> {
        debug_assert!(variable.secret, "{} is read as a secret and not declared as one", variable.name);
        let file_name = variable.file_name();
        let source = match (self.set(variable.name), self.set(&file_name)) {
            (Some(_), Some(_)) => {
                self.problem(variable, format!("is set, and so is {file_name}; expected only one of them"));
                return None;
            }
            (None, Some(path)) => SecretSource::File(SecretFile::new(path)),
            (Some(value), None) => SecretSource::Fixed(Secret::new(value)),
            (None, None) => match variable.default {
                Some(default) => SecretSource::Fixed(Secret::new(default)),
                None => {
                    self.missing(variable);
                    return None;
                }
            },
        };
        match source.current() {
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                self.problems.push(Problem { variable: file_name, message: format!("{error}{cause}") });
                None
            }
            Ok(secret) if variable.kind == Kind::Url && !parse::is_url(secret.expose()) => {
                self.wrong(variable, secret.expose(), &variable.kind.expected());
                None
            }
            Ok(_) => Some(source),
        }
    }

    /// Everything of a pass-through family (a variable whose name ends in `*`), by the part of the name after the prefix,
    /// sorted. Values are as given, untrimmed and possibly empty: they belong to someone else.
    pub fn family(&self, variable: &Variable) -> Vec<(String, String)> {
        let Some(prefix) = variable.family() else { return Vec::new() };
        let mut found: Vec<_> = (self.source.names().into_iter())
            .filter_map(|name| {
                let rest = name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
                Some((rest.to_owned(), self.source.get(&name)?))
            })
            .collect();
        found.sort();
        found
    }

    /// True when the variable (or the file variant of a secret) has a value of its own.
    pub fn is_set(&self, variable: &Variable) -> bool {
        self.set(variable.name).is_some() || (variable.secret && self.set(&variable.file_name()).is_some())
    }

    /// Adds a problem found by a check across several variables. `message` says what is wrong and what is expected.
    pub fn problem(&mut self, variable: &Variable, message: impl Into<String>) {
        self.problems.push(Problem { variable: variable.name.to_owned(), message: message.into() });
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All problems found, in the order in which they were found, each once.
    pub fn finish(self) -> Result<(), Problems> {
        let mut problems: Vec<Problem> = Vec::new();
        for problem in self.problems {
            // Several services in one process read the same concern.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    fn set(&self, name: &str) -> Option<String> {
        self.source.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn value(&mut self, variable: &Variable) -> Option<String> {
        let value = self.set(variable.name).or_else(|| variable.default.map(str::to_owned));
        if value.is_none() {
            self.missing(variable);
        }
        value
    }

    fn parsed<T>(&mut self, variable: &Variable, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.value(variable)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.wrong(variable, &text, &variable.kind.expected());
        }
        parsed
    }

    fn missing(&mut self, variable: &Variable) {
        if variable.required {
            let alternative = if variable.secret { format!(" (or {})", variable.file_name()) } else { String::new() };
            let message =
                format!("is missing{alternative}; expected {}. {}", variable.kind.expected(), variable.doc.trim());
            self.problem(variable, message);
        }
    }

    fn wrong(&mut self, variable: &Variable, text: &str, expected: &str) {
        // A URL may hold a password even where nobody declared it a secret.
        let value = if variable.secret || variable.kind == Kind::Url { String::new() } else { format!(" {text:?}") };
        self.problem(variable, format!("the value{value} is not understood; expected {expected}"));
    }
}

/// Reads one config from a source: every problem at once, or the config.
///
/// # Errors
/// All problems, see [`Reader::finish`].
pub fn load<T>(source: &dyn Source, from: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Result<T, Problems> {
    let mut reader = Reader::new(source);
    let config = from(&mut reader);
    reader.finish()?;
    config.ok_or_else(|| {
        // A bug of ours (an optional variable treated as required), told like any other problem: it must not be a panic.
        let message = "nothing is wrong with any single variable, yet the config is incomplete".to_owned();
        Problems(vec![Problem { variable: std::any::type_name::<T>().to_owned(), message }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::num::NonZeroU32;

    const BROKERS: Variable = Variable::required("KAFKA_BOOTSTRAP_SERVERS", Kind::List, "Where Kafka is.");
    const DRAIN: Variable = Variable::with_default("DRAIN_TIMEOUT", Kind::Duration, "20s", "Time to finish.");
    const BATCH: Variable = Variable::with_default("BATCH", Kind::Number, "500", "Records in a batch.");
    const TOKEN: Variable = Variable::required("WHATSAPP_TOKEN", Kind::Text, "The token.").secret();
    const REDIS: Variable = Variable::required("REDIS_URL", Kind::Url, "Where Redis is.").secret();
    const FORMAT: Variable = Variable::with_default("LOG_FORMAT", Kind::Choice(&["text", "json"]), "text", "Form.");
    const LISTEN: Variable = Variable::with_default("LISTEN", Kind::Address, "0.0.0.0:8080", "Where to listen.");
    const PROPS: Variable = Variable::optional("KAFKA_PROP_*", Kind::Text, "Any librdkafka setting.");

    fn problems(source: &dyn Source, read: impl FnOnce(&mut Reader<'_>)) -> Vec<String> {
        let mut reader = Reader::new(source);
        read(&mut reader);
        reader.finish().err().map(|problems| problems.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn every_problem_is_reported_and_not_only_the_first() {
        let source: HashMap<String, String> =
            [("DRAIN_TIMEOUT", "20"), ("BATCH", "many"), ("LOG_FORMAT", "xml"), ("LISTEN", "8080")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let found = problems(&source, |reader| {
            assert_eq!(reader.list(&BROKERS), None);
            assert_eq!(reader.duration(&DRAIN), None);
            assert_eq!(reader.number::<u32>(&BATCH), None);
            assert_eq!(reader.choice(&FORMAT, &[("text", 1), ("json", 2)]), None);
            assert_eq!(reader.address(&LISTEN), None);
            assert!(reader.secret(&TOKEN).is_none());
        });
        assert_eq!(
            found,
            [
                "KAFKA_BOOTSTRAP_SERVERS: is missing; expected a list separated by commas. Where Kafka is.",
                "DRAIN_TIMEOUT: the value \"20\" is not understood; expected a duration such as 250ms, 20s, 5m, 24h, 7d",
                "BATCH: the value \"many\" is not understood; expected a number",
                "LOG_FORMAT: the value \"xml\" is not understood; expected one of text, json",
                "LISTEN: the value \"8080\" is not understood; expected an IP address and port such as 0.0.0.0:8080",
                "WHATSAPP_TOKEN: is missing (or WHATSAPP_TOKEN_FILE); expected text. The token.",
            ]
        );
    }

    #[test]
    fn defaults_hold_when_a_variable_is_absent_or_empty() {
        let source = [("DRAIN_TIMEOUT", ""), ("BATCH", " 7 "), ("KAFKA_BOOTSTRAP_SERVERS", "a:1, b:2,")];
        let found = problems(&source, |reader| {
            assert_eq!(reader.duration(&DRAIN), Some(Duration::from_secs(20)));
            assert_eq!(reader.number(&BATCH), NonZeroU32::new(7));
            assert_eq!(reader.list(&BROKERS), Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
            assert_eq!(reader.choice(&FORMAT, &[("text", 1), ("json", 2)]), Some(1));
        });
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_number_out_of_its_bounds_is_refused_with_the_bounds() {
        let found = problems(&[("BATCH", "0")], |reader| assert_eq!(reader.number_in(&BATCH, 1..=10_000), None));
        assert_eq!(found, ["BATCH: the value \"0\" is not understood; expected a number from 1 to 10000"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_of_its_variable() {
        const CA: Variable = Variable::optional("REDIS_CA_FILE", Kind::Path, "Authorities.");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let found = problems(&[("REDIS_CA_FILE", path)], |reader| {
            assert_eq!(reader.file(&CA).as_deref(), Some(file.path()));
        });
        assert!(found.is_empty(), "{found:?}");
        let found = problems(&[("REDIS_CA_FILE", "/nowhere/ca.pem")], |reader| assert_eq!(reader.file(&CA), None));
        let told = "REDIS_CA_FILE: the file /nowhere/ca.pem cannot be read: No such file or directory (os error 2)";
        assert_eq!(found, [told]);
    }

    #[test]
    fn a_secret_comes_from_the_variable_or_from_its_file_and_never_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "from-file\n").unwrap();
        let path = path.to_str().unwrap();
        let read = |source: &dyn Source| {
            let mut secret = None;
            let found = problems(source, |reader| secret = reader.secret(&TOKEN));
            (secret.map(|secret| secret.expose().to_owned()), found)
        };

        assert_eq!(read(&[("WHATSAPP_TOKEN", "plain")]), (Some("plain".to_owned()), vec![]));
        assert_eq!(read(&[("WHATSAPP_TOKEN_FILE", path)]), (Some("from-file".to_owned()), vec![]));
        let (none, found) = read(&[("WHATSAPP_TOKEN", "plain"), ("WHATSAPP_TOKEN_FILE", path)]);
        assert_eq!(none, None);
        assert_eq!(found, ["WHATSAPP_TOKEN: is set, and so is WHATSAPP_TOKEN_FILE; expected only one of them"]);
        let (_, found) = read(&[("WHATSAPP_TOKEN_FILE", "/nowhere/token")]);
        assert!(found[0].starts_with("WHATSAPP_TOKEN_FILE: cannot read the secret file /nowhere/token: "), "{found:?}");
    }

    #[test]
    fn a_problem_with_a_secret_does_not_show_it() {
        let found = problems(&[("REDIS_URL", "hunter2@redis")], |reader| assert!(reader.secret(&REDIS).is_none()));
        assert_eq!(found, ["REDIS_URL: the value is not understood; expected a URL such as http://host:port"]);
    }

    #[test]
    fn a_family_passes_its_members_through() {
        let source = [("KAFKA_PROP_linger_ms", "5"), ("KAFKA_PROP_acks", "all"), ("KAFKA_PROP_", "x"), ("OTHER", "y")];
        let reader = Reader::new(&source);
        assert_eq!(
            reader.family(&PROPS),
            [("acks".to_owned(), "all".to_owned()), ("linger_ms".to_owned(), "5".to_owned())]
        );
    }

    #[test]
    fn the_same_problem_read_twice_is_told_once() {
        let found = problems(&[("X", "y")], |reader| {
            reader.list(&BROKERS);
            reader.list(&BROKERS);
        });
        assert_eq!(found.len(), 1);
    }
}
