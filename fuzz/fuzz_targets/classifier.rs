//! What a person writes is classified without a panic, in steps proportional to its length, and whatever its letters are made of.

#![no_main]

use std::sync::LazyLock;

use connector_domain::consent::{ConsentWords, classify, measured, tapped};
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};
use libfuzzer_sys::fuzz_target;

static WORDS: LazyLock<ConsentWords> = LazyLock::new(ConsentWords::default);

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (meant, effort) = measured(&WORDS, &text);
    assert!(effort.is_linear(), "{effort:?}");
    // A single character may stand for several words, but not for more than it has bytes and one.
    assert!(effort.words <= 2 * text.len(), "{effort:?} for {} bytes", text.len());

    let (composed, decomposed) = (ComposingNormalizer::new_nfkc(), DecomposingNormalizer::new_nfkd());
    assert_eq!(classify(&WORDS, &composed.normalize(&text)), meant);
    assert_eq!(classify(&WORDS, &decomposed.normalize(&text)), meant);
    assert_eq!(classify(&WORDS, &format!(" \u{200b}*{text}!\u{1f6d1}\n")), meant);

    let (title, payload) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let _ = tapped(&WORDS, Some(payload), Some(title));
});
