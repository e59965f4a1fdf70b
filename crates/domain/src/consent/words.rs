//! The classifier: what an answer means, in the words of the organization's languages.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use serde::Deserialize;

use super::{Intent, defaults};
use crate::ids::OrganizationId;

/// Payload of the quick-reply button that accepts the opt-in.
pub const OPT_IN_ACCEPT: &str = "OPT_IN_ACCEPT";
/// Payload of the quick-reply button that declines the opt-in.
pub const OPT_IN_DECLINE: &str = "OPT_IN_DECLINE";
/// Payload of a quick-reply button that opts out.
pub const STOP: &str = "STOP";
/// Payload of a quick-reply button that opts back in.
pub const START: &str = "START";

/// The words by which an organization's contacts answer. Case, accents, punctuation and emoji do not matter.
///
/// The default knows English, German, Spanish, French, Italian, Portuguese, Dutch, Turkish and Polish, all at once: people
/// answer in their own language, whatever the organization's is. The lists are read once: changing one after the first answer has no
/// effect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentWords {
    /// Accept the opt-in.
    pub accept: Vec<String>,
    /// Decline the opt-in.
    pub decline: Vec<String>,
    /// Opt out. `STOP` itself always counts, whatever stands here.
    pub stop: Vec<String>,
    /// Opt back in. `START` itself always counts, whatever stands here.
    pub start: Vec<String>,
    #[serde(skip)]
    phrases: Phrases,
}

/// The lists taken apart into words, at the first answer: every message of every contact is held against them.
#[derive(Clone, Debug, Default)]
struct Phrases(OnceLock<Taken>);

#[derive(Clone, Debug)]
struct Taken {
    accept: Vec<Vec<String>>,
    decline: Vec<Vec<String>>,
    stop: Vec<Vec<String>>,
    start: Vec<Vec<String>>,
}

/// Follows from the lists, so it makes no difference.
impl PartialEq for Phrases {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Phrases {}

/// The words of every organization: the default, and the ones that bring their own.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentVocabulary {
    /// For organizations without words of their own.
    pub default: ConsentWords,
    /// Words of single organizations. A list that is left out is the crate's default list.
    pub organizations: BTreeMap<OrganizationId, ConsentWords>,
}

impl ConsentVocabulary {
    /// The words of an organization.
    #[must_use]
    pub fn for_organization(&self, organization: &OrganizationId) -> &ConsentWords {
        self.organizations.get(organization).unwrap_or(&self.default)
    }
}

impl Default for ConsentWords {
    fn default() -> Self {
        let own = |lines: &[&str]| lines.iter().flat_map(|line| line.split(", ")).map(str::to_owned).collect();
        Self {
            accept: own(defaults::ACCEPT),
            decline: own(defaults::DECLINE),
            stop: own(defaults::STOP),
            start: own(defaults::START),
            phrases: Phrases::default(),
        }
    }
}

impl ConsentWords {
    fn phrases(&self) -> &Taken {
        self.phrases.0.get_or_init(|| Taken {
            accept: phrases(&self.accept, None),
            decline: phrases(&self.decline, None),
            stop: phrases(&self.stop, Some(STOP)),
            start: phrases(&self.start, Some(START)),
        })
    }
}

/// Texts longer than this are letters, not answers.
const LONGEST_ANSWER: usize = 100;

/// What a contact's message means. `payload`: the payload or id of a tapped button or row, `text`: what the contact wrote,
/// or the title of the button or row.
///
/// The whole message has to be the answer: "bus stop" and "please don't stop" are conversation. Around the answer, courtesy
/// and repetition are tolerated ("STOP please", "stop stop"), and "no, stop" is a STOP.
///
/// A button with a payload of its own (neither one of ours nor its title, which WhatsApp puts there by default) answers
/// somebody else's question: its title can only stop.
#[must_use]
pub fn classify(words: &ConsentWords, payload: Option<&str>, text: Option<&str>) -> Intent {
    let payload = payload.map(str::trim).filter(|payload| !payload.is_empty());
    if let Some(payload) = payload {
        for (ours, intent) in [
            (OPT_IN_ACCEPT, Intent::Accept),
            (OPT_IN_DECLINE, Intent::Decline),
            (STOP, Intent::Stop),
            (START, Intent::Start),
        ] {
            if payload.eq_ignore_ascii_case(ours) {
                return intent;
            }
        }
    }
    let Some(said) = text.or(payload) else { return Intent::Other };
    if said.chars().count() > LONGEST_ANSWER {
        return Intent::Other;
    }
    let said = answer(said);
    if said.is_empty() {
        return Intent::Other;
    }
    let foreign = payload.is_some_and(|payload| answer(payload) != said);
    let meant = free_text(words, &said);
    if foreign && meant != Intent::Stop { Intent::Other } else { meant }
}

fn free_text(words: &ConsentWords, said: &[String]) -> Intent {
    let words = words.phrases();
    // A STOP hides behind a no ("no, stop"), never behind anything else.
    if consists_of(said, &words.stop, &words.decline) {
        return Intent::Stop;
    }
    if consists_of(said, &words.decline, &[]) {
        return Intent::Decline;
    }
    if consists_of(said, &words.start, &[]) {
        return Intent::Start;
    }
    if consists_of(said, &words.accept, &[]) {
        return Intent::Accept;
    }
    Intent::Other
}

fn phrases(words: &[String], always: Option<&str>) -> Vec<Vec<String>> {
    let own = words.iter().map(String::as_str).chain(always);
    own.map(tokens).filter(|phrase| !phrase.is_empty()).collect()
}

/// Whether `said` is one or more of `phrases` and nothing else, apart from at most some of `before` in front.
fn consists_of(said: &[String], phrases: &[Vec<String>], before: &[Vec<String>]) -> bool {
    let after = |phrase: &Vec<String>| said.strip_prefix(phrase.as_slice());
    let done = |rest: &[String]| rest.is_empty() || consists_of(rest, phrases, &[]);
    phrases.iter().filter_map(after).any(done)
        || before.iter().filter_map(after).any(|rest| !rest.is_empty() && consists_of(rest, phrases, before))
}

/// The words of an answer without courtesy. A message of nothing but courtesy is no answer.
fn answer(text: &str) -> Vec<String> {
    static COURTESY: LazyLock<Vec<String>> = LazyLock::new(|| tokens(defaults::COURTESY));
    let mut said = tokens(text);
    said.retain(|word| !COURTESY.contains(word));
    said
}

/// Lower-case words without accents; everything that is neither letter nor digit separates them.
fn tokens(text: &str) -> Vec<String> {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            // Apostrophes, hyphens, combining accents, joiners and variation selectors stand inside words.
            '\'' | '-' | '’' | '‘' | '`' | '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200d}' | '\u{fe0f}' => {}
            'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ą' => plain.push('a'),
            'ç' | 'ć' => plain.push('c'),
            'è' | 'é' | 'ê' | 'ë' | 'ę' => plain.push('e'),
            'ğ' => plain.push('g'),
            'ì' | 'í' | 'î' | 'ï' | 'ı' => plain.push('i'),
            'ł' => plain.push('l'),
            'ñ' | 'ń' => plain.push('n'),
            'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' => plain.push('o'),
            'ś' | 'ş' => plain.push('s'),
            'ß' => plain.push_str("ss"),
            'ù' | 'ú' | 'û' | 'ü' => plain.push('u'),
            'ź' | 'ż' => plain.push('z'),
            c if c.is_alphanumeric() => plain.push(c),
            _ => plain.push(' '),
        }
    }
    plain.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Intent {
        classify(&ConsentWords::default(), None, Some(text))
    }

    #[test]
    fn a_stop_is_recognised_however_it_is_written() {
        for text in [
            "STOP",
            "stop",
            " Stop! ",
            "stop.",
            "🛑 STOP 🛑",
            "stop please",
            "Please stop!!!",
            "stop stop stop",
            "No, stop",
            "no no stop",
            "STOPP",
            "Bitte abmelden",
            "baja, por favor",
            "Arrêter",
            "ARRETER",
            "arre\u{302}ter",
            "basta",
            "sair",
            "afmelden",
            "İPTAL",
            "iptal lütfen",
            "wypisz mnie",
            "unsubscribe",
            "Opt-out",
            "stop sending me messages",
            "s\u{200b}top",
        ] {
            assert_eq!(said(text), Intent::Stop, "{text:?}");
        }
    }

    #[test]
    fn a_sentence_about_stopping_is_conversation() {
        for text in [
            "please don't stop",
            "please don’t stop",
            "bus stop",
            "stop by tomorrow",
            "I can't stop laughing",
            "the next stop, please",
            "non-stop",
            "end of the month",
            "cancel my order",
            "do not start",
            "",
        ] {
            assert_eq!(said(text), Intent::Other, "{text:?}");
        }
    }

    #[test]
    fn yes_no_and_start_are_understood_in_every_language() {
        for text in [
            "Yes",
            "yes please",
            "OK 👍",
            "Ja",
            "Sí",
            "si",
            "Oui",
            "j'accepte",
            "d’accord",
            "va bene",
            "Sim",
            "Evet",
            "TAK",
        ] {
            assert_eq!(said(text), Intent::Accept, "{text:?}");
        }
        for text in [
            "No",
            "no thanks",
            "No, thank you!",
            "Nein danke",
            "Non merci",
            "não",
            "Nee, bedankt",
            "Hayır",
            "HAYIR",
            "nie",
        ] {
            assert_eq!(said(text), Intent::Decline, "{text:?}");
        }
        for text in ["START", "start please", "unstop", "Démarrer", "Başla", "wznów"] {
            assert_eq!(said(text), Intent::Start, "{text:?}");
        }
        for text in ["yes but call me first", "no idea", "👍", "please", "thanks", "okay see you tomorrow then"] {
            assert_eq!(said(text), Intent::Other, "{text:?}");
        }
    }

    #[test]
    fn a_payload_of_ours_decides_whatever_the_button_is_called() {
        let words = ConsentWords::default();
        assert_eq!(classify(&words, Some("OPT_IN_ACCEPT"), Some("Count me in")), Intent::Accept);
        assert_eq!(classify(&words, Some("opt_in_decline"), Some("Yes, leave me alone")), Intent::Decline);
        assert_eq!(classify(&words, Some("STOP"), Some("Mute")), Intent::Stop);
        assert_eq!(classify(&words, Some("START"), None), Intent::Start);
    }

    #[test]
    fn a_button_with_a_foreign_payload_is_no_answer_to_the_opt_in_but_may_stop() {
        let words = ConsentWords::default();
        assert_eq!(classify(&words, Some("APPOINTMENT_42_CANCELLED"), Some("No")), Intent::Other);
        assert_eq!(classify(&words, Some("APPOINTMENT_42"), Some("Yes")), Intent::Other);
        assert_eq!(classify(&words, Some("promo-7"), Some("Stop")), Intent::Stop);
        // WhatsApp sends the title as the payload when the template call gave none.
        assert_eq!(classify(&words, Some("Yes"), Some("Yes")), Intent::Accept);
        assert_eq!(classify(&words, Some("No thanks"), Some("No thanks")), Intent::Decline);
        assert_eq!(classify(&words, None, None), Intent::Other);
    }

    #[test]
    fn an_organization_brings_its_own_words_but_cannot_lose_stop() {
        let own = ConsentWords { stop: vec!["Genug!".to_owned()], start: vec![], ..ConsentWords::default() };
        let organization = OrganizationId::from("acme");
        let vocabulary = ConsentVocabulary {
            default: ConsentWords::default(),
            organizations: BTreeMap::from([(organization.clone(), own)]),
        };
        let words = vocabulary.for_organization(&organization);
        assert_eq!(classify(words, None, Some("genug")), Intent::Stop);
        assert_eq!(classify(words, None, Some("stop")), Intent::Stop);
        assert_eq!(classify(words, None, Some("start")), Intent::Start);
        assert_eq!(classify(words, None, Some("basta")), Intent::Other);
        let others = vocabulary.for_organization(&OrganizationId::from("other"));
        assert_eq!(classify(others, None, Some("basta")), Intent::Stop);
        assert_eq!(classify(others, None, Some("genug")), Intent::Other);
    }

    #[test]
    fn a_long_letter_is_never_searched_for_words() {
        let letter = "stop ".repeat(200);
        assert_eq!(said(&letter), Intent::Other);
    }
}
