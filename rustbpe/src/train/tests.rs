//! The trainer against a slow twin: count every pair of every chunk again for each merge.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::count::tests::count_all;
use crate::odd_text::{cases, runs};
use crate::splitter::{Splitter, DEFAULT_PATTERN};

fn slow(texts: &[String], splitter: &Splitter, wanted: usize) -> Vec<Pair> {
    let mut chunks: Vec<Vec<u32>> = Vec::new();
    for text in texts {
        splitter.split(text, |chunk| chunks.push(chunk.bytes().map(u32::from).collect())).unwrap();
    }
    let mut merges = Vec::new();
    while merges.len() < wanted {
        let mut counts = BTreeMap::<Pair, u64>::new();
        for two in chunks.iter().flat_map(|chunk| chunk.windows(2)) {
            *counts.entry((two[0], two[1])).or_default() += 1;
        }
        let Some((&pair, _)) = counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))) else { break };
        let token = 256 + merges.len() as u32;
        for chunk in &mut chunks {
            let mut i = 0;
            while i + 1 < chunk.len() {
                if (chunk[i], chunk[i + 1]) == pair {
                    chunk.splice(i..i + 2, [token]);
                }
                i += 1;
            }
        }
        merges.push(pair);
    }
    merges
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn merges_equal_the_slow_twins_for_any_floor_and_any_number_of_threads(
        texts in prop::collection::vec(runs(30), 0..6), wanted in 0..60usize, split: bool, floor in 1..40u64,
    ) {
        let splitter = Splitter::new(if split { DEFAULT_PATTERN } else { "(?s).+" }).unwrap();
        let expected = slow(&texts, &splitter, wanted);
        for (threads, floor) in [(1, 1), (2, floor), (3, 1000)] {
            let chunks = count_all(&splitter, threads, &texts);
            let merges = train_above(&chunks, wanted, |_| floor, |_| Ok::<(), String>(()));
            prop_assert_eq!(merges.as_ref(), Ok(&expected), "{} threads, floor {}", threads, floor);
        }
    }
}

#[test]
fn a_place_tells_its_chunks_count() {
    let mut weights = Weights::default();
    let starts: Vec<(usize, u64)> = (0..900).map(|i| (1 + i * 7, 1000 - i as u64 / 3)).collect();
    starts.iter().for_each(|&(place, count)| weights.from(place, count));
    weights.end(1 + 900 * 7);
    for (place, count) in starts {
        assert!((place..place + 7).all(|place| weights.at(place) == count));
    }
}

#[test]
fn an_error_of_progress_ends_the_training() {
    let splitter = Splitter::new("(?s).+").unwrap();
    let chunks = count_all(&splitter, 1, &["abcdefgh".to_string()]);
    let stop = |done| if done == 3 { Err("stop".to_string()) } else { Ok(()) };
    assert_eq!(train(&chunks, 7, stop), Err("stop".to_string()));
}
