//! Words as people write them: whatever the letters are made of, however they are decorated, spelled out or drawn out.

use icu_normalizer::{DecomposingNormalizer, DecomposingNormalizerBorrowed};
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_case_mapping::case_folded;

/// A word in small letters without accents, in Unicode's compatibility decomposition: full-width and mathematical letters are letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) plain: String,
    /// There was an accent on it.
    pub(super) accented: bool,
}

impl Word {
    fn is_letter(&self) -> bool {
        let mut letters = self.plain.chars();
        letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none()
    }
}

/// Letters written one by one, from this many on, are one word: "S T O P".
const SPELLED: usize = 3;
/// A letter written this often in a row is written once: "STOOOP". Twice is spelling.
const DRAWN_OUT: usize = 3;

/// The words of `text`, read as they are asked for. Everything that is neither letter nor digit separates them.
pub(super) fn words(text: &str) -> impl Iterator<Item = Word> {
    let letters = NORMALIZER.normalize_iter(text.chars());
    Words { letters, ahead: Vec::new() }
}

const NORMALIZER: DecomposingNormalizerBorrowed<'static> = DecomposingNormalizer::new_nfkd();

struct Words<I: Iterator<Item = char>> {
    letters: I,
    /// Words that were read to see whether something is spelled out, the next one last.
    ahead: Vec<Word>,
}

impl<I: Iterator<Item = char>> Iterator for Words<I> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        if let Some(word) = self.ahead.pop() {
            return Some(word);
        }
        let first = self.read()?;
        if !first.is_letter() {
            return Some(first);
        }
        let mut letters = vec![first];
        while let Some(word) = self.read() {
            if !word.is_letter() {
                self.ahead.push(word);
                break;
            }
            letters.push(word);
        }
        if letters.len() >= SPELLED {
            let accented = letters.iter().any(|letter| letter.accented);
            return Some(Word { plain: letters.into_iter().map(|letter| letter.plain).collect(), accented });
        }
        self.ahead.extend(letters.into_iter().rev());
        self.ahead.pop()
    }
}

impl<I: Iterator<Item = char>> Words<I> {
    fn read(&mut self) -> Option<Word> {
        let mut word = Word { plain: String::new(), accented: false };
        let (mut last, mut times) = (None, 0);
        for c in self.letters.by_ref() {
            match part(c) {
                Part::Nothing => {}
                Part::Accent => word.accented |= !word.plain.is_empty() && (c != DOT || last != Some('i')),
                Part::Letter(letters, accented) => {
                    word.accented |= accented;
                    for letter in letters.into_iter().flatten() {
                        times = if last == Some(letter) { times + 1 } else { 1 };
                        last = Some(letter);
                        match times {
                            DRAWN_OUT => drop(word.plain.pop()),
                            more if more > DRAWN_OUT => {}
                            _ => word.plain.push(letter),
                        }
                    }
                }
                Part::Gap if word.plain.is_empty() => {}
                Part::Gap => return Some(word),
            }
        }
        (!word.plain.is_empty()).then_some(word)
    }
}

/// The dot of a Turkish capital İ is none of a small i.
const DOT: char = '\u{307}';

enum Part {
    /// Stands inside words without changing them.
    Nothing,
    Accent,
    /// With an accent, if Unicode takes letter and accent for one.
    Letter([Option<char>; 2], bool),
    Gap,
}

fn part(c: char) -> Part {
    if c.is_ascii_alphanumeric() {
        return Part::Letter([Some(c.to_ascii_lowercase()), None], false);
    }
    match c {
        '\'' | '-' | '`' | '\u{2010}' | '‘' | '’' | '\u{2bc}' => return Part::Nothing,
        // Struck through, encircled, on a key.
        '\u{334}'..='\u{338}' | '\u{20d0}'..='\u{20ff}' => return Part::Nothing,
        '\u{300}'..='\u{36f}' => return Part::Accent,
        _ if c.is_ascii() => return Part::Gap,
        // Soft hyphens, zero width, joiners, variation selectors, directions.
        _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) => return Part::Nothing,
        _ => {}
    }
    match case_folded(c).and_then(|folded| char::from_u32(folded.get())).unwrap_or(c) {
        'ß' => Part::Letter([Some('s'), Some('s')], false),
        'ı' => Part::Letter([Some('i'), None], false),
        // What Unicode does not take apart.
        'ł' => Part::Letter([Some('l'), None], true),
        'ø' => Part::Letter([Some('o'), None], true),
        'đ' => Part::Letter([Some('d'), None], true),
        c if c.is_alphanumeric() || is_mark(c) => Part::Letter([Some(c), None], false),
        _ => Part::Gap,
    }
}

/// Vowels and other signs of scripts that write them beside or around letters.
fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(c))
}
