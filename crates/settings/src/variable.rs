//! The declaration of a setting: one documented constant per variable, from which the reference page is made.

/// One environment variable. Declared as a constant next to the struct it configures.
///
/// ```
/// use connector_settings::{Kind, Variable};
///
/// const DRAIN: Variable =
///     Variable::with_default("DRAIN_TIMEOUT", Kind::Duration, "20s", "How long a worker may finish work after SIGTERM.");
/// assert_eq!(DRAIN.default, Some("20s"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The name as it stands in the environment. A trailing `*` declares a pass-through family (`KAFKA_PROP_*`).
    pub name: &'static str,
    /// The form of the value.
    pub kind: Kind,
    /// The value that holds when the variable is not set, in the same form a person would write it.
    pub default: Option<&'static str>,
    /// True when the process cannot start without it.
    pub required: bool,
    /// True when the value must never be shown. A secret may also come as `<NAME>_FILE`, the path of a file.
    pub secret: bool,
    /// What it means, in one or two sentences, for the reference page and for problems.
    pub doc: &'static str,
}

impl Variable {
    /// A variable without which the process does not start.
    pub const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: true, secret: false, doc }
    }

    /// A variable that may be left out; what happens then is said in `doc`.
    pub const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, default: None, required: false, secret: false, doc }
    }

    /// A variable with a value to fall back on.
    pub const fn with_default(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Self {
        Self { name, kind, default: Some(default), required: false, secret: false, doc }
    }

    /// Marks the value as one that is never printed and that may come from a file.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The name of the variable that holds the path of a secret's file.
    pub fn file_name(&self) -> String {
        format!("{}_FILE", self.name)
    }

    /// The part before `*` for a pass-through family, otherwise `None`.
    pub fn family(&self) -> Option<&'static str> {
        self.name.strip_suffix('*')
    }
}

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `scheme://host…`. May carry a password, so it is never printed.
    Url,
    /// A number and a unit, one or several times: `250ms`, `20s`, `5m`, `24h`, `7d`, `1h30m`.
    Duration,
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts separated by commas.
    List,
    /// The path of a file or folder.
    Path,
    /// An IP address and a port to listen on: `0.0.0.0:8080`.
    Address,
}

impl Kind {
    /// The form in words, as it stands after "expected" in a problem and in the reference page.
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Url => "a URL such as http://host:port".to_owned(),
            Self::Duration => "a duration such as 250ms, 20s, 5m, 24h, 7d".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::List => "a list separated by commas".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Address => "an IP address and port such as 0.0.0.0:8080".to_owned(),
        }
    }
}

/// The variables of one concern (Kafka, Redis, webhooks…), as they stand together in the reference page.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// One paragraph: what this concern is and when it applies.
    pub doc: &'static str,
    /// The services that read these variables; empty means all of them.
    pub used_by: &'static [&'static str],
    /// The variables, in reading order.
    pub variables: &'static [Variable],
}
