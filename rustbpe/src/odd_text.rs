//! Texts for the property tests: not any characters, but those on which tokenizers have failed before.
//!
//! Every property is tried on a few hundred to a few thousand cases. PROPTEST_CASES (256 by default) scales them all.

use proptest::prelude::*;

const PIECES: &[&str] = &[
    "a", "Z", "don't", "'", "'s", "'LL", "'ve", "'ſ", "'x", "''re", "1", "12345678", " ", "  ", "\t", "\x0b", "\x0c",
    "\n", "\r\n", "\n\n", " \n ", "\n    ", ".", "...", "=", "<|", "\x00", "\x7f", "\x1c", "{", "[", "`", "@", "/",
    ":", "é", "ß", "ǅ", "中文", "한", "अ", "½", "٣", "Ⅻ", "\u{301}", "\u{85}", "\u{a0}", "\u{1680}", "\u{2003}",
    "\u{2028}", "\u{3000}", "\u{180e}", "\u{200b}", "\u{200d}", "\u{feff}", "😉",
];
const ASCII: usize = 35; // the first so many pieces

/// So many times as many cases as proptest's usual number; a failure is printed, not kept in a file.
pub fn cases(times: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: times * usual.cases, failure_persistence: None, ..usual }
}

/// All that the split patterns treat differently, now and then in runs that cross the borders of 64 bytes; half of the
/// texts keep to ASCII.
pub fn texts() -> impl Strategy<Value = String> {
    let times = prop_oneof![8 => Just(1usize), 2 => 0..9usize, 1 => 0..80usize];
    prop_oneof![Just(ASCII), Just(PIECES.len())]
        .prop_flat_map(move |kinds| {
            prop::collection::vec((prop::sample::select(&PIECES[..kinds]), times.clone()), 0..60)
        })
        .prop_map(|pieces| pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect())
}

/// Runs of few letters: pairs overlap, and counts are equal.
pub fn runs(pieces: usize) -> impl Strategy<Value = String> {
    let letter = prop::sample::select(vec!["a", "b", "c", "a", "b", "é", "한", " ", "\n", "7", "'", "."]);
    prop::collection::vec((letter, 1..6usize), 0..pieces)
        .prop_map(|pieces| pieces.iter().map(|(letter, times)| letter.repeat(*times)).collect())
}
