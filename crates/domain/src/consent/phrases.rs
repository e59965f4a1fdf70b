//! Phrases of several lists at once, and whether a message consists of them: one pass over its words, whatever they are.

use std::collections::HashMap;

use super::spelling::{Word, words};

/// What a message may consist of, one bit each; beside the lists that phrases are on, the beginning of a message.
pub(super) type Kinds = u8;

const NOTHING_YET: Kinds = 1;
pub(super) const ACCEPT: Kinds = 1 << 1;
pub(super) const DECLINE: Kinds = 1 << 2;
pub(super) const START: Kinds = 1 << 3;
pub(super) const STOP_MARKETING: Kinds = 1 << 4;
pub(super) const STOP: Kinds = 1 << 5;

/// What it took to classify a message, for whoever holds it against the message's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Effort {
    /// The words that were read.
    pub words: usize,
    /// How often one of them was held against a phrase that had begun, or was to begin.
    pub steps: usize,
}

impl Effort {
    /// The most steps for each word: the phrases of the default lists that can have begun at once, and the word itself.
    pub const STEPS_PER_WORD: usize = 16;

    /// Whether the steps are in proportion to the words.
    #[must_use]
    pub const fn is_linear(&self) -> bool {
        self.steps <= Self::STEPS_PER_WORD * self.words
    }
}

/// Phrases by their words. An accent that is missing or wrong is forgiven; on a word that has none it makes another word (`résumé`,
/// `başta`).
#[derive(Clone, Debug)]
pub(super) struct Phrases {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// By the next word: where it has no accent, and where it has one.
    next: HashMap<String, [Option<usize>; 2]>,
    /// The lists on which the phrase stands that ends here.
    lists: Kinds,
}

const ROOT: usize = 0;

impl Default for Phrases {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Phrases {
    /// Puts phrases on a list.
    pub(super) fn put<'a>(&mut self, list: Kinds, phrases: impl IntoIterator<Item = &'a str>) {
        for phrase in phrases {
            let phrase: Vec<Word> = words(phrase).collect();
            // People, and those who name buttons, write some of them together: `optout`, `stop-promotions`.
            if phrase.len() > 1 && list & (STOP | STOP_MARKETING) != 0 {
                let plain = phrase.iter().map(|word| word.plain.as_str()).collect();
                self.insert(list, &[Word { plain, accented: phrase.iter().any(|word| word.accented) }]);
            }
            self.insert(list, &phrase);
        }
    }

    fn insert(&mut self, list: Kinds, phrase: &[Word]) {
        let mut at = ROOT;
        for word in phrase {
            let free = self.nodes.len();
            let known = &mut self.nodes[at].next.entry(word.plain.clone()).or_default()[usize::from(word.accented)];
            at = *known.get_or_insert(free);
            if at == free {
                self.nodes.push(Node::default());
            }
        }
        if at != ROOT {
            self.nodes[at].lists |= list;
        }
    }

    /// Of what kinds `text` is: phrases of one list and nothing else, apart from words that `is_courtesy`. A STOP may stand among
    /// declines ("no, stop"). And what it took to find out: words that can be no part of it are not read.
    pub(super) fn kinds(&self, text: &str, is_courtesy: impl Fn(&str) -> bool) -> (Kinds, Effort) {
        let mut so_far = NOTHING_YET;
        // Phrases that have begun: how far they are, and what the message was of before them. Few: each began at another word.
        let mut begun: Vec<(usize, Kinds)> = Vec::new();
        let mut effort = Effort::default();
        for word in words(text) {
            effort.words += 1;
            let courtesy = is_courtesy(&word.plain);
            let mut now = if courtesy { so_far } else { 0 };
            let mut go_on = Vec::new();
            let begins = (so_far != 0).then_some((ROOT, so_far));
            for (node, before) in begun.into_iter().chain(begins) {
                effort.steps += 1;
                for next in self.after(node, &word) {
                    now |= joined(before, self.nodes[next].lists);
                    keep(&mut go_on, next, before);
                }
                if courtesy && node != ROOT {
                    keep(&mut go_on, node, before);
                }
            }
            if now == 0 && go_on.is_empty() {
                return (0, effort);
            }
            (so_far, begun) = (now, go_on);
        }
        (so_far & !NOTHING_YET, effort)
    }

    fn after(&self, node: usize, word: &Word) -> impl Iterator<Item = usize> {
        let [plain, accented] = self.nodes[node].next.get(&word.plain).copied().unwrap_or_default();
        plain.filter(|_| !word.accented).into_iter().chain(accented)
    }
}

fn keep(begun: &mut Vec<(usize, Kinds)>, node: usize, before: Kinds) {
    match begun.iter_mut().find(|(known, _)| *known == node) {
        Some((_, known)) => *known |= before,
        None => begun.push((node, before)),
    }
}

/// What a message of the kinds `before` is together with a further phrase, which stands on `lists`.
const fn joined(before: Kinds, lists: Kinds) -> Kinds {
    const fn has(kinds: Kinds, any: Kinds) -> bool {
        kinds & any != 0
    }
    let mut kinds = 0;
    if has(lists, ACCEPT) && has(before, NOTHING_YET | ACCEPT) {
        kinds |= ACCEPT;
    }
    if has(lists, DECLINE) && has(before, NOTHING_YET | DECLINE) {
        kinds |= DECLINE;
    }
    if has(lists, START) && has(before, NOTHING_YET | START) {
        kinds |= START;
    }
    if has(lists, STOP_MARKETING) && has(before, NOTHING_YET | DECLINE | STOP_MARKETING)
        || has(lists, DECLINE) && has(before, STOP_MARKETING)
    {
        kinds |= STOP_MARKETING;
    }
    if has(lists, STOP) && has(before, NOTHING_YET | DECLINE | STOP_MARKETING | STOP)
        || has(lists, DECLINE | STOP_MARKETING) && has(before, STOP)
    {
        kinds |= STOP;
    }
    kinds
}
