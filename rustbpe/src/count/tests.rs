//! The flat table against a plain map.

use std::collections::HashMap;

use super::*;

/// The texts in batches of a few.
pub fn count_all(splitter: &Splitter, threads: usize, texts: &[String]) -> Chunks {
    let mut batches = texts.chunks(3);
    count(splitter, threads, || Ok::<_, String>(batches.next().unwrap_or_default().to_vec())).unwrap()
}

fn text(seed: u64) -> String {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (length, letter) = (state >> 59, (state >> 33) % 40);
        (0..length).map(|i| char::from(b'a' + ((letter + i * i) % 26) as u8)).chain([' ']).collect::<String>()
    };
    (0..20_000).map(|_| word()).collect()
}

#[test]
fn counts_equal_a_plain_maps_for_any_number_of_threads() {
    let splitter = Splitter::new(crate::splitter::DEFAULT_PATTERN).unwrap();
    let texts: Vec<String> = (0..9).map(text).chain(["".into(), "é".into(), "x".repeat(100_000)]).collect();
    let mut expected = HashMap::<Vec<u8>, u64>::new();
    for text in &texts {
        splitter.split(text, |chunk| *expected.entry(chunk.into()).or_default() += 1).unwrap();
    }
    assert!(
        expected.keys().any(|chunk| chunk.len() == INLINE) && expected.keys().any(|chunk| chunk.len() == INLINE + 1)
    );
    for threads in [1, 2, 4] {
        let chunks = count_all(&splitter, threads, &texts);
        assert!(chunks.each.is_sorted_by_key(|&(count, _)| std::cmp::Reverse(count)));
        assert_eq!(chunks.iter().count(), expected.len());
        assert!(chunks.iter().all(|(chunk, count)| expected[chunk] == count));
    }
}

#[test]
fn chunks_with_the_same_letters_and_other_lengths_differ() {
    let splitter = Splitter::new("(?s).+").unwrap();
    let texts: Vec<String> = (1..40).map(|length| "\0".repeat(length)).collect();
    assert_eq!(count_all(&splitter, 1, &texts).iter().map(|(chunk, _)| chunk.len()).max(), Some(39));
}

#[test]
fn a_million_chunks_outgrow_the_first_table() {
    let mut table = Table::new();
    for i in 0..1_000_000u32 {
        let text = format!("{i:08}{}", if i % 10 == 0 { " a chunk for the arena" } else { "" });
        table.see(text.as_bytes(), 0, text.len());
    }
    table.drain();
    let chunks = in_order(&[table]);
    assert_eq!(chunks.iter().count(), 1_000_000);
    assert!(chunks.iter().all(|(_, count)| count == 1));
}

#[test]
fn an_error_ends_the_counting_on_any_number_of_threads() {
    let splitter = Splitter::new("(?s).+").unwrap();
    for threads in [1, 3] {
        let mut left = 5;
        let text = || {
            left -= 1;
            if left == 0 {
                Err("no more".to_string())
            } else {
                Ok(vec!["abc"])
            }
        };
        assert_eq!(count(&splitter, threads, text).err(), Some("no more".to_string()));
    }
}

#[test]
fn a_text_on_which_the_pattern_fails_ends_the_counting_of_endless_texts() {
    let splitter = Splitter::new(r"(?:\s|\s\s)+(?!\S)x\b(?<=y)").unwrap();
    let hopeless = " ".repeat(3_000_000) + "x";
    for threads in [1, 3] {
        assert!(count(&splitter, threads, || Ok::<_, String>(vec![hopeless.as_str()])).is_err());
    }
}
