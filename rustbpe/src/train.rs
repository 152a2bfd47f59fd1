//! Chunks to merges: again and again the pair with the highest count becomes a token; among equals, the smaller pair.
//!
//! What this file spends its time on is waiting for memory; hence its shape:
//!
//! - All chunks lie in one flat array, a token as wide as its bytes, with its id on its first and on its last byte. A
//!   token's neighbours are found by arithmetic, and a merge rewrites only its own bytes, whatever the chunk's length.
//! - The chunks stand in order of falling count, so a place in the array tells its chunk's count: nothing to look up.
//! - A merge first sums over all its places what changes for each distinct neighbour, in one record per neighbour, and
//!   only then touches the table of pairs, once for each of them.
//! - Pairs rarer than a floor are not tracked at all, for most would never be merged. Counts of known pairs only ever
//!   fall (a merge makes only pairs with its own new token), so the choice is exact as long as the best pair is not
//!   below the floor. When no pair is left above it, the floor is lowered and all pairs are counted afresh.
//! - For the same reason the heap may be lazy: an entry is checked when it comes up, and goes back with its true count
//!   if that has fallen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::count::{prefetch, Chunks};
use crate::vocab::Pair;

const EDGE: u32 = u32::MAX; // stands between chunks
const INSIDE: u32 = u32::MAX - 1; // a byte inside a token, neither its first nor its last
const AHEAD: usize = 12; // places between asking for memory and reading it
const BLOCK: usize = 256; // places that share an entry in `run_of`
const LOWER: u64 = 4; // what the floor is divided by when no pair is left above it

/// At most `wanted` merges of `chunks`; fewer if every chunk becomes a single token before. Token 256 + i is the i-th
/// merge. `progress` is told the number of merges made; its error ends the training.
pub fn train<E: From<String>>(
    chunks: &Chunks,
    wanted: usize,
    progress: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    // By Zipf's law the n-th merge is about n times rarer than the first; the half of that, because a floor a
    // little too low costs less than counting twice.
    train_above(chunks, wanted, |highest| highest / (2 * wanted.max(1)) as u64, progress)
}

/// The same, with the first floor given as a function of the highest count of a pair. It changes no merge.
fn train_above<E: From<String>>(
    chunks: &Chunks,
    wanted: usize,
    floor: impl FnOnce(u64) -> u64,
    mut progress: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    let mut trainer = Trainer { corpus: Corpus::new(chunks)?, ..Trainer::default() };
    trainer.recount(floor);
    let mut merges = Vec::new();
    while merges.len() < wanted {
        let Some((pair, places)) = trainer.best() else { break };
        trainer.merge(pair, 256 + merges.len() as u32, &places);
        merges.push(pair);
        progress(merges.len())?;
    }
    Ok(merges)
}

#[derive(Default)]
struct Trainer {
    corpus: Corpus,
    floor: u64,
    pairs: FxHashMap<Pair, Seen>, // exactly those with a count of at least `floor`
    heap: BinaryHeap<(u64, Reverse<Pair>)>,
    left: Side,
    right: Side,
}

#[derive(Default)]
struct Seen {
    count: u64,
    places: Vec<u32>, // ascending; some may be stale, having been merged with another neighbour since
}

impl Trainer {
    /// Takes the pair to merge next out of the table. None when no pair is left in the corpus.
    fn best(&mut self) -> Option<(Pair, Vec<u32>)> {
        loop {
            let Some((count, Reverse(pair))) = self.heap.pop() else {
                if self.floor == 1 {
                    return None;
                }
                let lower = self.floor / LOWER;
                self.recount(|_| lower);
                continue;
            };
            match self.pairs.get(&pair) {
                None => {} // has fallen below the floor
                Some(seen) if seen.count < count => self.heap.push((seen.count, Reverse(pair))),
                Some(_) => return self.pairs.remove(&pair).map(|seen| (pair, seen.places)),
            }
        }
    }

    /// Fills the table and the heap from the corpus as it stands.
    fn recount(&mut self, floor: impl FnOnce(u64) -> u64) {
        let mut counts = FxHashMap::<Pair, (u64, usize)>::default(); // weighted, and the number of places
        self.corpus.each_pair(|pair, _, weight| {
            let (count, places) = counts.entry(pair).or_default();
            *count += weight;
            *places += 1;
        });
        let highest = counts.values().map(|(count, _)| *count).max().unwrap_or(0);
        self.floor = floor(highest).max(1);
        counts.retain(|_, (count, _)| *count >= self.floor);
        let seen = |(pair, (count, places))| (pair, Seen { count, places: Vec::with_capacity(places) });
        self.pairs = counts.into_iter().map(seen).collect();
        self.corpus.each_pair(|pair, place, _| {
            if let Some(seen) = self.pairs.get_mut(&pair) {
                seen.places.push(place);
            }
        });
        self.heap = self.pairs.iter().map(|(&pair, seen)| (seen.count, Reverse(pair))).collect();
    }

    /// Writes `token` over each of `places` where `pair` still stands, left to right without overlap, and keeps the
    /// counts of the neighbouring pairs exact.
    ///
    /// `pair` itself is no longer in the table: in "aaa" its second, overlapping occurrence dies with the first.
    fn merge(&mut self, pair: Pair, token: u32, places: &[u32]) {
        let (a, b) = pair;
        let Corpus { symbols, weights, width } = &mut self.corpus;
        let (a_width, b_width) = (width[a as usize] as usize, width[b as usize] as usize);
        width.push((a_width + b_width) as u32);
        self.left.grow(width.len());
        self.right.grow(width.len());

        for (i, &place) in places.iter().enumerate() {
            if let Some(&soon) = places.get(i + AHEAD) {
                prefetch(symbols, soon as usize);
            }
            let start = place as usize;
            let middle = start + a_width;
            if symbols[start] != a || symbols[middle] != b {
                continue; // stale: a token never shrinks, so an id found where it once began still begins there
            }
            let end = middle + b_width;
            let weight = weights.at(start);
            let (before, after) = (symbols[start - 1], symbols[end]);
            if before != EDGE {
                self.left.note(before, place, weight);
            }
            if before == token {
                // in "abab" the first merge noted an `a` at its right; that `a` is now gone
                self.right.tallies[a as usize].came -= weight;
            }
            if after != EDGE {
                self.right.note(after, place, weight);
            }
            symbols[middle - 1] = INSIDE;
            symbols[middle] = INSIDE;
            symbols[start] = token;
            symbols[end - 1] = token;
        }

        // First the pairs that were, then those that are: a pair with `token` has no old count to lose.
        self.left.forget(|before| (before, a), &mut self.pairs, self.floor);
        self.right.forget(|after| (b, after), &mut self.pairs, self.floor);
        let width = &self.corpus.width;
        self.left.record(
            |before| ((before, token), width[before as usize]),
            &mut self.pairs,
            &mut self.heap,
            self.floor,
        );
        self.right.record(|after| ((token, after), 0), &mut self.pairs, &mut self.heap, self.floor);
    }
}

/// The neighbours on one side of the places of a merge.
#[derive(Default)]
struct Side {
    tallies: Vec<Tally>,     // for each token, all zero between merges
    touched: Vec<u32>,       // the tokens that have a tally now
    events: Vec<(u32, u32)>, // neighbour and place, in the order of the text
}

#[derive(Clone, Default)]
struct Tally {
    gone: u64,        // by how much the neighbour's pair with the old token falls
    came: u64,        // the count of its pair with the new one
    places: Vec<u32>, // of that pair, while they are collected
    events: usize,
}

impl Side {
    fn grow(&mut self, tokens: usize) {
        self.tallies.resize(tokens, Tally::default());
    }

    #[inline]
    fn note(&mut self, neighbour: u32, place: u32, weight: u64) {
        let tally = &mut self.tallies[neighbour as usize];
        if tally.events == 0 {
            self.touched.push(neighbour);
        }
        tally.gone += weight;
        tally.came += weight;
        tally.events += 1;
        self.events.push((neighbour, place));
    }

    /// Lowers the counts of the pairs that were; one that falls below the floor leaves the table.
    fn forget(&self, pair: impl Fn(u32) -> Pair, pairs: &mut FxHashMap<Pair, Seen>, floor: u64) {
        for &neighbour in &self.touched {
            let pair = pair(neighbour);
            if let Some(seen) = pairs.get_mut(&pair) {
                seen.count -= self.tallies[neighbour as usize].gone;
                if seen.count < floor {
                    pairs.remove(&pair);
                }
            }
        }
    }

    /// Puts the new pairs that reach the floor into the table, and makes all tallies zero again. `pair` gives a
    /// neighbour's pair and how far before the merge's place it starts.
    fn record(
        &mut self,
        pair: impl Fn(u32) -> (Pair, u32),
        pairs: &mut FxHashMap<Pair, Seen>,
        heap: &mut BinaryHeap<(u64, Reverse<Pair>)>,
        floor: u64,
    ) {
        for &neighbour in &self.touched {
            let tally = &mut self.tallies[neighbour as usize];
            if tally.came >= floor {
                tally.places.reserve_exact(tally.events);
            }
        }
        for &(neighbour, place) in &self.events {
            let tally = &mut self.tallies[neighbour as usize];
            if tally.came >= floor {
                tally.places.push(place);
            }
        }
        for &neighbour in &self.touched {
            let Tally { came: count, mut places, .. } = std::mem::take(&mut self.tallies[neighbour as usize]);
            if count >= floor {
                let (pair, back) = pair(neighbour);
                places.iter_mut().for_each(|place| *place -= back);
                pairs.insert(pair, Seen { count, places });
                heap.push((count, Reverse(pair)));
            }
        }
        self.touched.clear();
        self.events.clear();
    }
}

#[derive(Default)]
struct Corpus {
    symbols: Vec<u32>,
    weights: Weights,
    width: Vec<u32>, // for each token its bytes
}

impl Corpus {
    fn new(chunks: &Chunks) -> Result<Corpus, String> {
        let long = || chunks.iter().filter(|(chunk, _)| chunk.len() > 1); // a single byte has nothing to merge with
        let total: usize = long().map(|(chunk, _)| chunk.len() + 1).sum();
        if total >= INSIDE as usize {
            return Err(format!("{total} bytes of distinct chunks; this trainer holds 4 billion"));
        }
        let mut symbols = Vec::with_capacity(total + 1);
        let mut weights = Weights::default();
        symbols.push(EDGE);
        for (chunk, count) in long() {
            weights.from(symbols.len(), count);
            symbols.extend(chunk.iter().map(|&byte| byte as u32));
            symbols.push(EDGE);
        }
        weights.end(symbols.len());
        Ok(Corpus { symbols, weights, width: vec![1; 256] })
    }

    /// Calls `take` with every pair of neighbours, its place and its chunk's count, from left to right.
    fn each_pair(&self, mut take: impl FnMut(Pair, u32, u64)) {
        for run in self.weights.runs.windows(2) {
            let ((mut place, weight), (end, _)) = (run[0], run[1]);
            while place < end {
                let mut symbol = self.symbols[place];
                while symbol != EDGE {
                    let next = place + self.width[symbol as usize] as usize;
                    let after = self.symbols[next];
                    if after != EDGE {
                        take((symbol, after), place as u32, weight);
                    }
                    (place, symbol) = (next, after);
                }
                place += 1;
            }
        }
    }
}

/// The count of the chunk at a place. Chunks of one count stand together, in a run.
#[derive(Default)]
struct Weights {
    runs: Vec<(usize, u64)>, // where each begins, and its count; a last one begins where the corpus ends
    run_of: Vec<u32>,        // for each BLOCK of places the run in which it begins
}

impl Weights {
    /// From `place` on, chunks have this count.
    fn from(&mut self, place: usize, count: u64) {
        if self.runs.last().is_none_or(|&(_, last)| last != count) {
            self.runs.push((place, count));
        }
    }

    fn end(&mut self, place: usize) {
        self.runs.push((place, 0));
        let mut run = 0;
        self.run_of = (0..place.div_ceil(BLOCK))
            .map(|block| {
                while run + 1 < self.runs.len() && self.runs[run + 1].0 <= block * BLOCK {
                    run += 1;
                }
                run as u32
            })
            .collect();
    }

    #[inline]
    fn at(&self, place: usize) -> u64 {
        let mut run = self.run_of[place / BLOCK] as usize;
        while self.runs[run + 1].0 <= place {
            run += 1;
        }
        self.runs[run].1
    }
}

#[cfg(test)]
mod tests;
