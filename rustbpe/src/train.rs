//! Chunks to merges: again and again the pair with the highest count becomes a token; among equals, the smaller pair.
//!
//! All chunks lie in one flat array of symbols, a token as wide as its bytes, with its id on its first and on its last
//! byte. So a token's neighbours are found by arithmetic, and a merge only rewrites its own bytes. Every pair keeps its
//! count and the places where it was seen; a merge visits those places alone, whatever the length of the chunks.
//!
//! Counts of known pairs only ever fall, for a merge makes only pairs with its own new token. The heap may therefore be
//! lazy: an entry is checked when it comes up, and goes back with its true count if that has fallen.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

pub type Pair = (u32, u32);

const EDGE: u32 = u32::MAX; // stands between chunks
const INSIDE: u32 = u32::MAX - 1; // a byte inside a token, neither its first nor its last

#[derive(Default)]
struct Occurrences {
    count: u64,
    at: Vec<u32>, // ascending; some may be stale, having been merged with another neighbour since
}

/// At most `wanted` merges of `chunks`; fewer if every chunk becomes a single token before. Token 256 + i is the i-th
/// merge. `progress` is told the number of merges made; its error ends the training.
pub fn train<E: From<String>>(
    chunks: &[(Box<[u8]>, u64)],
    wanted: usize,
    mut progress: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    let mut corpus = Corpus::new(chunks)?;
    let mut pairs = corpus.pairs();
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> =
        pairs.iter().map(|(&pair, seen)| (seen.count, Reverse(pair))).collect();
    let mut merges = Vec::new();
    let mut fresh = Vec::new();

    while merges.len() < wanted {
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        match pairs.get(&pair).map_or(0, |seen| seen.count) {
            0 => {
                pairs.remove(&pair);
                continue;
            }
            now if now < count => {
                heap.push((now, Reverse(pair)));
                continue;
            }
            _ => {}
        }
        let seen = pairs.remove(&pair).expect("its count was just read");
        let token = 256 + merges.len() as u32;
        merges.push(pair);
        corpus.merge(pair, token, &seen.at, &mut pairs, &mut fresh);
        for pair in fresh.drain(..) {
            heap.push((pairs[&pair].count, Reverse(pair)));
        }
        progress(merges.len())?;
    }
    Ok(merges)
}

struct Corpus {
    symbols: Vec<u32>,
    chunk_of: Vec<u32>, // for each symbol the index of its chunk
    weight: Vec<u64>,   // for each chunk its count
    width: Vec<u32>,    // for each token its bytes
}

impl Corpus {
    fn new(chunks: &[(Box<[u8]>, u64)]) -> Result<Corpus, String> {
        let total: usize = chunks.iter().map(|(chunk, _)| chunk.len() + 1).sum();
        if total >= INSIDE as usize {
            return Err(format!("{total} bytes of distinct chunks; this trainer holds 4 billion"));
        }
        let (mut symbols, mut chunk_of) = (Vec::with_capacity(total + 1), Vec::with_capacity(total + 1));
        symbols.push(EDGE);
        chunk_of.push(0);
        for (i, (chunk, _)) in chunks.iter().enumerate() {
            symbols.extend(chunk.iter().map(|&byte| byte as u32));
            symbols.push(EDGE);
            chunk_of.resize(symbols.len(), i as u32);
        }
        Ok(Corpus { symbols, chunk_of, weight: chunks.iter().map(|(_, count)| *count).collect(), width: vec![1; 256] })
    }

    /// Every pair of neighbouring bytes, with its places from left to right.
    fn pairs(&self) -> FxHashMap<Pair, Occurrences> {
        let mut pairs = FxHashMap::<Pair, Occurrences>::default();
        for (i, two) in self.symbols.windows(2).enumerate() {
            if two[0] != EDGE && two[1] != EDGE {
                let seen = pairs.entry((two[0], two[1])).or_default();
                seen.count += self.weight[self.chunk_of[i] as usize];
                seen.at.push(i as u32);
            }
        }
        pairs
    }

    /// Writes `token` over each of `places` where `pair` still stands, left to right without overlap; keeps the counts
    /// of the neighbouring pairs exact; leaves in `fresh` the pairs that did not exist before, each once.
    ///
    /// `pair` itself is no longer in `pairs`: in "aaa" its second, overlapping occurrence dies with the first.
    fn merge(
        &mut self,
        pair: Pair,
        token: u32,
        places: &[u32],
        pairs: &mut FxHashMap<Pair, Occurrences>,
        fresh: &mut Vec<Pair>,
    ) {
        let (a, b) = pair;
        let (a_width, b_width) = (self.width[a as usize] as usize, self.width[b as usize] as usize);
        self.width.push((a_width + b_width) as u32);

        for &place in places {
            let start = place as usize;
            let middle = start + a_width;
            if self.symbols[start] != a || self.symbols[middle] != b {
                continue; // stale: a token never shrinks, so an id found where it once began still begins there
            }
            let end = middle + b_width;
            let weight = self.weight[self.chunk_of[start] as usize];
            let mut forget = |pair: Pair| {
                if let Some(seen) = pairs.get_mut(&pair) {
                    seen.count -= weight;
                }
            };
            let (left, right) = (self.symbols[start - 1], self.symbols[end]);
            if left != EDGE {
                forget((left, a));
            }
            if right != EDGE {
                forget((b, right));
            }
            let mut note = |pair: Pair, at: usize| {
                let seen = match pairs.entry(pair) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        fresh.push(pair);
                        new.insert(Occurrences::default())
                    }
                };
                seen.count += weight;
                seen.at.push(at as u32);
            };
            if left != EDGE {
                note((left, token), start - self.width[left as usize] as usize);
            }
            if right != EDGE {
                note((token, right), start);
            }
            self.symbols[middle - 1] = INSIDE;
            self.symbols[middle] = INSIDE;
            self.symbols[start] = token;
            self.symbols[end - 1] = token;
        }
    }
}
