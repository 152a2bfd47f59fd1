//! The flat table against a plain map.

use std::collections::HashMap;

use super::*;

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
        let mut counter = Counter::new(&splitter, threads);
        texts.chunks(5).for_each(|batch| counter.add(batch).unwrap());
        let chunks = counter.finish();
        assert!(chunks.each.is_sorted_by_key(|&(count, _)| std::cmp::Reverse(count)));
        assert_eq!(chunks.iter().count(), expected.len());
        assert!(chunks.iter().all(|(chunk, count)| expected[chunk] == count));
    }
}

#[test]
fn chunks_with_the_same_letters_and_other_lengths_differ() {
    let splitter = Splitter::new("(?s).+").unwrap();
    let mut counter = Counter::new(&splitter, 1);
    for length in 1..40 {
        counter.add(&["\0".repeat(length)]).unwrap();
    }
    assert_eq!(counter.finish().iter().map(|(chunk, _)| chunk.len()).max(), Some(39));
}

#[test]
fn a_million_chunks_outgrow_the_first_table() {
    let mut table = Table::new();
    for i in 0..1_000_000u32 {
        let text = format!("{i:08}{}", if i % 10 == 0 { " a chunk for the arena" } else { "" });
        table.see(text.as_bytes(), 0, text.len());
    }
    table.drain();
    let chunks = table.chunks();
    assert_eq!(chunks.iter().count(), 1_000_000);
    assert!(chunks.iter().all(|(_, count)| count == 1));
}
