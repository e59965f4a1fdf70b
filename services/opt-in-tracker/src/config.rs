//! What can be set about consent.

use std::time::Duration;

use connector_domain::command::TemplateCall;
use connector_settings::{Group, Kind, Reader, Variable};

const TEMPLATE: Variable = Variable::with_default(
    "OPT_IN_TEMPLATE",
    Kind::Text,
    "opt_in_request",
    "The template that asks a contact for the opt-in, when the command names none.",
);
const LANGUAGE: Variable = Variable::with_default(
    "OPT_IN_LANGUAGE",
    Kind::Text,
    "en",
    "The language of OPT_IN_TEMPLATE, as WhatsApp has it approved.",
);
const TICK: Variable = Variable::with_default(
    "OPT_IN_TICK",
    Kind::Duration,
    "500ms",
    "How often opt-in requests are looked for whose time is over.",
);
const PATIENCE: Variable = Variable::with_default(
    "DIRECTORY_PATIENCE",
    Kind::Duration,
    "5s",
    "How long a contact's record waits for its user's record, before it goes to the dead letters as user_unknown.",
);

/// What can be set about consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The opt-in message of commands that name none.
    pub template: TemplateCall,
    /// How often opt-in requests are looked for whose time is over.
    pub tick: Duration,
    /// How long a contact's record waits for its user.
    pub patience: Duration,
}

impl Config {
    /// Every variable this reads.
    pub const VARIABLES: &[Variable] = &[TEMPLATE, LANGUAGE, TICK, PATIENCE];

    /// The variables for the reference page.
    pub const GROUP: Group = Group {
        title: "Consent and directory",
        doc: "How contacts are asked for their consent, and how the directory becomes facts.",
        used_by: &["opt-in-tracker", "connector"],
        variables: Self::VARIABLES,
    };

    /// Reads it; `None` leaves problems behind in the reader.
    pub fn from(reader: &mut Reader<'_>) -> Option<Self> {
        let (name, language) = (reader.text(&TEMPLATE), reader.text(&LANGUAGE));
        let (tick, patience) = (reader.duration(&TICK), reader.duration(&PATIENCE));
        Some(Self { template: template(name?, language?), tick: tick?, patience: patience? })
    }
}

fn template(name: String, language: String) -> TemplateCall {
    TemplateCall { name, language, header: Vec::new(), body: Vec::new(), buttons: Vec::new() }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            template: template("opt_in_request".to_owned(), "en".to_owned()),
            tick: Duration::from_millis(500),
            patience: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults_in_code() {
        let nothing = std::collections::HashMap::<String, String>::new();
        assert_eq!(connector_settings::load(&nothing, Config::from).ok(), Some(Config::default()));
    }
}
