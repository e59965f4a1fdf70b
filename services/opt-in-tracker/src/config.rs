//! What can be set about consent.

use std::time::Duration;

use connector_domain::command::{ButtonParameter, NumberSettings, TemplateCall, TemplateParameter};
use connector_settings::{Group, Kind, Reader, Variable};

const TEMPLATE: Variable = Variable::with_default(
    "OPT_IN_TEMPLATE",
    Kind::Text,
    "opt_in_request",
    "The template that asks a contact for the opt-in, where neither the number nor its organization has set one in the directory.",
);
const LANGUAGE: Variable = Variable::with_default(
    "OPT_IN_LANGUAGE",
    Kind::Text,
    "en_US",
    "The language of OPT_IN_TEMPLATE, as WhatsApp has it approved.",
);
const BODY: Variable = Variable::optional(
    "OPT_IN_BODY",
    Kind::List,
    "The values of the placeholders in the body of OPT_IN_TEMPLATE, in their order, separated by commas: the name of the business, say.",
);
const BUTTONS: Variable = Variable::with_default(
    "OPT_IN_BUTTONS",
    Kind::List,
    "OPT_IN_ACCEPT,OPT_IN_DECLINE",
    "The payloads of the quick-reply buttons of OPT_IN_TEMPLATE, in their order. A tap is understood by its payload, whatever the \
     button says. `none` for a template without buttons.",
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
    "How long a contact's record waits for its user's, and either for that of the number it names, before it goes to the dead letters as \
     user_unknown or number_unknown.",
);
const AUDIT: Variable = Variable::with_default(
    "CONSENT_AUDIT",
    Kind::Duration,
    "10s",
    "How often one partition's conversations, enablements and contacts are compared with the log, one partition after the other. `0s`: never.",
);

/// What can be set about consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The opt-in message of commands that name none.
    pub template: TemplateCall,
    /// How often opt-in requests are looked for whose time is over.
    pub tick: Duration,
    /// How long a contact's record waits for its user, and either for its number.
    pub patience: Duration,
    /// How often one partition is compared with the log; zero for never.
    pub audit: Duration,
}

impl Config {
    /// Every variable this reads.
    pub const VARIABLES: &[Variable] = &[TEMPLATE, LANGUAGE, BODY, BUTTONS, TICK, PATIENCE, AUDIT];

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
        let (body, buttons) = (reader.list(&BODY).unwrap_or_default(), reader.list(&BUTTONS));
        let (tick, patience, audit) =
            (reader.duration(&TICK), reader.duration(&PATIENCE), reader.duration_or_zero(&AUDIT));
        let template = template(name?, language?, &body, &buttons?);
        let settings = NumberSettings { opt_in_template: Some(template.clone()), ..NumberSettings::default() };
        if let Err(field) = settings.check() {
            let variable = match field {
                "opt_in_template.language" => &LANGUAGE,
                "opt_in_template.body" => &BODY,
                "opt_in_template.buttons" => &BUTTONS,
                _ => &TEMPLATE,
            };
            reader.problem(variable, "has not the form that WhatsApp asks for");
            return None;
        }
        Some(Self { template, tick: tick?, patience: patience?, audit: audit? })
    }
}

fn template(name: String, language: String, body: &[String], payloads: &[String]) -> TemplateCall {
    let body = body.iter().map(|text| TemplateParameter { name: None, text: text.as_str().into() }).collect();
    let named = payloads.iter().filter(|payload| *payload != "none");
    let buttons = (0..)
        .zip(named)
        .map(|(index, payload)| ButtonParameter {
            index,
            sub_type: "quick_reply".to_owned(),
            text: payload.as_str().into(),
        })
        .collect();
    TemplateCall { name, language, header: Vec::new(), body, buttons }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            template: template(
                "opt_in_request".to_owned(),
                "en_US".to_owned(),
                &[],
                &["OPT_IN_ACCEPT".to_owned(), "OPT_IN_DECLINE".to_owned()],
            ),
            tick: Duration::from_millis(500),
            patience: Duration::from_secs(5),
            audit: Duration::from_secs(10),
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

    #[test]
    fn a_template_that_whatsapp_cannot_have_is_named_at_the_start() {
        for (variable, value) in [
            ("OPT_IN_TEMPLATE", "Opt in"),
            ("OPT_IN_LANGUAGE", "en US"),
            ("OPT_IN_BODY", "Acme\nLtd"),
            ("OPT_IN_BUTTONS", "yes,no,a,b,c,d,e,f,g,h,i"),
        ] {
            let settings = std::collections::HashMap::from([(variable.to_owned(), value.to_owned())]);
            let refused = connector_settings::load(&settings, Config::from).expect_err("should be refused").to_string();
            assert!(refused.contains(variable), "{refused}");
        }
    }
}
