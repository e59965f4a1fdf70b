//! The classifier: what an answer means, in the words of the organization's languages.

use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, OnceLock};

use serde::Deserialize;

use super::phrases::{self, Effort, Kinds, Phrases};
use super::{Intent, defaults, spelling};
use crate::ids::OrganizationId;

/// Payload of the quick-reply button that accepts the opt-in.
pub const OPT_IN_ACCEPT: &str = "OPT_IN_ACCEPT";
/// Payload of the quick-reply button that declines the opt-in.
pub const OPT_IN_DECLINE: &str = "OPT_IN_DECLINE";
/// Payload of a quick-reply button that opts out.
pub const STOP: &str = "STOP";
/// Payload of a quick-reply button that opts back in.
pub const START: &str = "START";

/// WhatsApp's own opt-out button below marketing templates.
const STOP_PROMOTIONS: &str = "Stop promotions";

/// The words by which an organization's contacts answer. Case, punctuation and emoji do not matter, nor does whether accents are written.
///
/// The default knows English, German, Spanish, French, Italian, Portuguese, Dutch, Turkish and Polish, all at once: people
/// answer in their own language, whatever the organization's is. The lists are read once: changing one after the first answer has no
/// effect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentWords {
    /// Accept the opt-in.
    pub accept: Vec<String>,
    /// Accept the opt-in as the title of a button under the opt-in message, beside those that accept anywhere: words that are something else
    /// in another language.
    pub accept_titles: Vec<String>,
    /// Decline the opt-in.
    pub decline: Vec<String>,
    /// Opt out. `STOP` itself always counts, whatever stands here.
    pub stop: Vec<String>,
    /// Opt out as the title or payload of a button under any message: only what can mean nothing else. `STOP` itself always counts.
    pub stop_titles: Vec<String>,
    /// Opt out of marketing only, in words or on a button. `Stop promotions` always counts.
    pub stop_marketing: Vec<String>,
    /// Opt back in. `START` itself always counts, whatever stands here.
    pub start: Vec<String>,
    #[serde(skip)]
    taken: Taken,
}

/// The lists taken apart into words, at the first answer: every message of every contact is held against them.
#[derive(Clone, Debug, Default)]
struct Taken {
    written: OnceLock<Phrases>,
    answers: OnceLock<Phrases>,
    titles: OnceLock<Phrases>,
}

/// Follows from the lists, so it makes no difference.
impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Taken {}

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
            accept_titles: own(defaults::ACCEPT_TITLES),
            decline: own(defaults::DECLINE),
            stop: own(defaults::STOP),
            stop_titles: own(defaults::STOP_TITLES),
            stop_marketing: own(defaults::STOP_MARKETING),
            start: own(defaults::START),
            taken: Taken::default(),
        }
    }
}

impl ConsentWords {
    fn written(&self) -> &Phrases {
        self.taken.written.get_or_init(|| {
            let mut taken = Phrases::default();
            taken.put(phrases::ACCEPT, self.accept.iter().map(String::as_str));
            taken.put(phrases::DECLINE, self.decline.iter().map(String::as_str));
            taken.put(phrases::START, self.start.iter().map(String::as_str).chain([START]));
            taken.put(phrases::STOP_MARKETING, self.marketing());
            taken.put(phrases::STOP, self.stop.iter().map(String::as_str).chain([STOP]));
            taken
        })
    }

    /// Titles of buttons under the opt-in message.
    fn answers(&self) -> &Phrases {
        self.taken.answers.get_or_init(|| {
            let mut taken = self.written().clone();
            taken.put(phrases::ACCEPT, self.accept_titles.iter().map(String::as_str));
            taken
        })
    }

    fn titles(&self) -> &Phrases {
        self.taken.titles.get_or_init(|| {
            let mut taken = Phrases::default();
            taken.put(phrases::STOP_MARKETING, self.marketing());
            // "No, stop promotions" and the like.
            taken.put(phrases::DECLINE, self.decline.iter().map(String::as_str));
            taken.put(phrases::STOP, self.stop_titles.iter().map(String::as_str).chain([STOP]));
            taken
        })
    }

    fn marketing(&self) -> impl Iterator<Item = &str> {
        self.stop_marketing.iter().map(String::as_str).chain([STOP_PROMOTIONS])
    }
}

/// What `text` means that a contact wrote, also below a picture.
///
/// The whole message has to be the answer: "bus stop" and "please don't stop" are conversation. Around the answer, courtesy
/// and repetition are tolerated ("STOP please", "stop stop"), and "no, stop" is a STOP. Takes time in proportion to what is written, and
/// reads no further than the first word that cannot belong to an answer.
#[must_use]
pub fn classify(words: &ConsentWords, text: &str) -> Intent {
    measured(words, text).0
}

/// As [`classify`], and what it took.
#[must_use]
pub fn measured(words: &ConsentWords, text: &str) -> (Intent, Effort) {
    let (kinds, effort) = words.written().kinds(text, is_courtesy);
    (strongest(kinds), effort)
}

/// What a tap on a button or a row means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tap {
    /// Whatever it stands under.
    pub intent: Intent,
    /// If it stands under the opt-in message and means nothing otherwise: what it answers.
    pub answer: Intent,
}

/// What a tap means. `payload`: the payload or id of the button or row, `title`: what stands on it.
///
/// One of our payloads says it by itself. Any other button may stand under somebody else's question: it opts out by words that can mean
/// nothing else, as its title or its payload; what else it says is an answer to the opt-in only under the opt-in message, and there its title
/// counts like words.
#[must_use]
pub fn tapped(words: &ConsentWords, payload: Option<&str>, title: Option<&str>) -> Tap {
    let ours = payload.map(str::trim).and_then(|payload| {
        let ours = [
            (OPT_IN_ACCEPT, Intent::Accept),
            (OPT_IN_DECLINE, Intent::Decline),
            (STOP, Intent::Stop),
            (START, Intent::Start),
        ];
        ours.into_iter().find(|(ours, _)| payload.eq_ignore_ascii_case(ours))
    });
    if let Some((_, intent)) = ours {
        return Tap { intent, answer: Intent::Other };
    }
    let both = || [title, payload].into_iter().flatten();
    let first = |phrases: &Phrases| {
        let meant = both().map(|said| meaning(phrases, said));
        meant.reduce(|one, other| if one == Intent::Other { other } else { one }).unwrap_or_default()
    };
    match first(words.titles()) {
        Intent::Other | Intent::Decline => Tap { intent: Intent::Other, answer: first(words.answers()) },
        intent => Tap { intent, answer: Intent::Other },
    }
}

fn meaning(phrases: &Phrases, said: &str) -> Intent {
    strongest(phrases.kinds(said, is_courtesy).0)
}

fn strongest(kinds: Kinds) -> Intent {
    let means = |kind| kinds & kind != 0;
    match () {
        () if means(phrases::STOP) => Intent::Stop,
        () if means(phrases::STOP_MARKETING) => Intent::StopMarketing,
        () if means(phrases::DECLINE) => Intent::Decline,
        () if means(phrases::START) => Intent::Start,
        () if means(phrases::ACCEPT) => Intent::Accept,
        () => Intent::Other,
    }
}

/// A message of nothing but courtesy is no answer.
fn is_courtesy(word: &str) -> bool {
    static COURTESY: LazyLock<HashSet<String>> =
        LazyLock::new(|| spelling::words(defaults::COURTESY).map(|word| word.plain).collect());
    COURTESY.contains(word)
}

#[cfg(test)]
mod tests;
