//! The whole way from text to ids against the rule itself.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::decode::decode;
use crate::odd_text::{cases, runs};
use crate::splitter::DEFAULT_PATTERN;

/// The 256 bytes and made-up tokens, in any order of ranks: no training would give them.
fn vocabs() -> impl Strategy<Value = Vocab> {
    let token = (runs(6), 2..22usize).prop_map(|(text, most)| text.into_bytes().into_iter().take(most).collect());
    prop::collection::vec(token, 0..60)
        .prop_map(|mut tokens: Vec<Vec<u8>>| {
            tokens.retain(|token| token.len() > 1);
            tokens.extend((0..=255).map(|byte| vec![byte]));
            tokens.sort();
            tokens.dedup();
            tokens
        })
        .prop_shuffle()
        .prop_map(|tokens| Vocab::from_ranks(tokens.into_iter().zip(0..).collect()).unwrap())
}

/// A chunk that is a token is that token; otherwise, of all neighbours whose joined bytes are a token, join the two of
/// lowest rank, leftmost first.
fn slow(vocab: &Vocab, splitter: &Splitter, text: &str) -> Vec<u32> {
    let ranks: HashMap<&[u8], u32> = vocab.tokens.iter().map(AsRef::as_ref).zip(0..).collect();
    let mut ids = Vec::new();
    let encode = |chunk: &str| {
        let mut parts: Vec<Vec<u8>> = chunk.bytes().map(|byte| vec![byte]).collect();
        if ranks.contains_key(chunk.as_bytes()) {
            parts = vec![chunk.into()];
        }
        let rank = |parts: &[Vec<u8>]| ranks.get(parts.concat().as_slice()).copied();
        while let Some((_, i)) = (1..parts.len()).filter_map(|i| Some((rank(&parts[i - 1..=i])?, i))).min() {
            let right = parts.remove(i);
            parts[i - 1].extend(right);
        }
        ids.extend(parts.iter().map(|part| ranks[part.as_slice()]));
    };
    splitter.split(text, encode).unwrap();
    ids
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn ids_equal_the_slow_rules_and_decode_back(vocab in vocabs(), texts in prop::collection::vec(runs(60), 1..6)) {
        let encoder = Encoder::new(vocab, Splitter::new(DEFAULT_PATTERN).unwrap());
        let mut all = Vec::new();
        for text in texts.iter().chain(&texts) {    // the second time the cache knows them
            let ids = encoder.encode(text).unwrap();
            prop_assert_eq!(&ids, &slow(&encoder.vocab, &encoder.splitter, text), "{:?}", text);
            prop_assert_eq!(decode(&encoder.vocab, &ids).unwrap(), text.as_bytes());
            all.extend(ids);
        }
        prop_assert_eq!(encoder.encode_batch(&[texts.clone(), texts].concat(), 1).unwrap().0, all);
    }

    #[test]
    fn a_chunk_without_a_blank_equals_the_slow_rule_at_any_length(vocab in vocabs(), text in runs(90)) {
        let encoder = Encoder::new(vocab, Splitter::new(r"(?s).+").unwrap());
        prop_assert_eq!(encoder.encode(&text).unwrap(), slow(&encoder.vocab, &encoder.splitter, &text));
    }
}

#[test]
fn a_batch_is_the_same_on_any_number_of_threads() {
    let encoder = Encoder::new(Vocab::from_merges(&[(97, 98)]).unwrap(), Splitter::new(DEFAULT_PATTERN).unwrap());
    let texts: Vec<String> = (0..200).map(|i| "ab ba\n".repeat(i * i % 977)).collect(); // some 4 blocks
    let one = encoder.encode_batch(&texts, 1).unwrap();
    assert_eq!(one.0.len() as i64, one.1[texts.len()]);
    for threads in 2..5 {
        assert_eq!(encoder.encode_batch(&texts, threads).unwrap(), one);
    }
}
