//! Byte-pair encoding, from text to ids and back. One subject a file, in the order in which text meets them:
//!
//! `unicode` (letter, number, newline, space, other) → `splitter` (text to chunks) → `count` (distinct chunks of a
//! corpus) → `train` (chunks to merges) → `vocab` (merges to tokens) → `encode` (text to ids) with its
//! `cache`, and `merge` for chunks that are not in it → `decode` (ids to bytes). `python` is the face that Python sees;
//! nothing else here knows about Python.
//!
//! The readable twin of all this is `nanochat/tokenizer/bpe.py`; the tests hold the two equal.

pub mod cache;
pub mod count;
pub mod decode;
pub mod encode;
pub mod merge;
#[cfg(feature = "python")]
mod python;
pub mod splitter;
pub mod train;
pub mod unicode;
pub mod vocab;

#[cfg(test)]
mod tests {
    use crate::decode::decode;
    use crate::encode::Encoder;
    use crate::splitter::{Splitter, DEFAULT_PATTERN};
    use crate::vocab::Vocab;

    /// Small and fixed, so that a failure repeats itself.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % sides
        }

        /// Runs of few letters, so that pairs overlap, with something else now and then.
        fn text(&mut self, most: usize) -> String {
            let mut text = String::new();
            for _ in 0..self.roll(most) {
                let (piece, times) = (self.roll(12), 1 + self.roll(4));
                let piece = ["a", "b", "c", "a", "b", "é", "한", " ", "\n", "7", "'", "."][piece];
                (0..times).for_each(|_| text.push_str(piece));
            }
            text
        }
    }

    /// Tokens made up of the text's own bytes, in any order of ranks: no training would give them.
    fn vocab(dice: &mut Dice) -> Vocab {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for _ in 0..dice.roll(60) {
            let text = dice.text(6);
            let token = &text.as_bytes()[..text.len().min(2 + dice.roll(20))];
            if token.len() > 1 && !tokens.iter().any(|other| other == token) {
                let place = dice.roll(tokens.len() + 1);
                tokens.insert(place, token.to_vec());
            }
        }
        Vocab::from_ranks(tokens.into_iter().zip(0..).collect()).unwrap()
    }

    /// The rule itself: of all neighbours whose joined bytes are a token, join the two of lowest rank, leftmost first.
    fn slow(vocab: &Vocab, chunk: &[u8]) -> Vec<u32> {
        let rank = |bytes: &[u8]| vocab.tokens.iter().position(|token| token.as_ref() == bytes);
        if let Some(id) = rank(chunk) {
            return vec![id as u32];
        }
        let mut parts: Vec<Vec<u8>> = chunk.iter().map(|&byte| vec![byte]).collect();
        while let Some((_, i)) = (1..parts.len()).filter_map(|i| Some((rank(&parts[i - 1..=i].concat())?, i))).min() {
            let right = parts.remove(i);
            parts[i - 1].extend(right);
        }
        parts.iter().map(|part| rank(part).unwrap() as u32).collect()
    }

    #[test]
    fn ids_equal_the_slow_rules_and_decode_back() {
        let mut dice = Dice(1);
        for round in 0..100 {
            let encoder = Encoder::new(vocab(&mut dice), Splitter::new(DEFAULT_PATTERN).unwrap());
            let texts: Vec<String> = (0..6).map(|i| dice.text([20, 60, 200][i % 3])).collect();
            let mut all = Vec::new();
            for text in texts.iter().chain(&texts) {
                let mut expected = Vec::new();
                encoder.splitter.split(text, |chunk| expected.extend(slow(&encoder.vocab, chunk.as_bytes()))).unwrap();
                let ids = encoder.encode(text).unwrap();
                assert_eq!(ids, expected, "round {round}: {text:?}");
                assert_eq!(decode(&encoder.vocab, &ids).unwrap(), text.as_bytes());
                all.extend(ids);
            }
            let twice = [texts.clone(), texts].concat();
            assert_eq!(encoder.encode_batch(&twice, 1 + round % 4).unwrap().0, all);
        }
    }

    #[test]
    fn a_chunk_without_a_blank_equals_the_slow_rule_at_any_length() {
        let mut dice = Dice(2);
        for round in 0..60 {
            let encoder = Encoder::new(vocab(&mut dice), Splitter::new(r"(?s).+").unwrap());
            let text = dice.text(250);
            let expected = if text.is_empty() { vec![] } else { slow(&encoder.vocab, text.as_bytes()) };
            assert_eq!(encoder.encode(&text).unwrap(), expected, "round {round}: {text:?}");
        }
    }
}
