//! The trainer against a slow twin: count every pair of every chunk again for each merge.

use std::collections::BTreeMap;

use super::*;
use crate::count::tests::count_all;
use crate::splitter::Splitter;

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

/// A random text of runs, over so few letters that counts tie and pairs overlap.
fn text(dice: &mut impl FnMut(usize) -> usize) -> String {
    let letters: &[&str] = if dice(2) == 0 { &["a", "b"] } else { &["a", "a", "b", "c", " ", "\n", "é", "1", "."] };
    (0..dice(30)).map(|_| letters[dice(letters.len())].repeat(1 + dice(9))).collect()
}

fn dice(mut state: u64) -> impl FnMut(usize) -> usize {
    move |sides| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % sides
    }
}

#[test]
fn merges_equal_the_slow_twins_for_any_floor_and_any_number_of_threads() {
    let mut dice = dice(4);
    for case in 0..1500 {
        let splitter = Splitter::new(if case % 3 == 0 { "(?s).+" } else { crate::splitter::DEFAULT_PATTERN }).unwrap();
        let texts: Vec<String> = (0..dice(5)).map(|_| text(&mut dice)).collect();
        let wanted = dice(60);
        let expected = slow(&texts, &splitter, wanted);
        for (threads, floor) in [(1, 1), (1, 2), (2, 7), (3, 1000)] {
            let chunks = count_all(&splitter, threads, &texts);
            let merges = train_above(&chunks, wanted, |_| floor, |_| Ok::<(), String>(()));
            assert_eq!(merges.unwrap(), expected, "{texts:?}, floor {floor}");
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
