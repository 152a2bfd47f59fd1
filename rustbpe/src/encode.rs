//! Text to ids: split, then within each chunk merge the neighbouring pair of lowest rank until none is left.
//!
//! A pair may merge if its joined bytes are a token, and the token's id is the pair's rank: tiktoken's rule, which
//! needs no list of merges. Short chunks are merged by a plain scan for the lowest rank; long ones (no blank for 64 bytes)
//! with a heap, so that a million equal letters cost n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::cache::Cache;
use crate::splitter::Splitter;
use crate::train::Pair;
use crate::vocab::Vocab;

const NONE: u32 = u32::MAX; // no such token; also a symbol that was merged into its left neighbour
const SHORT: usize = 64;

pub struct Encoder {
    byte: [u32; 256],                  // the id of each single byte
    whole: FxHashMap<Box<[u8]>, u32>,  // every token by its bytes
    pairs: FxHashMap<(u32, u32), u32>, // two ids to the id of what they join to
}

impl Encoder {
    pub fn new(vocab: &Vocab) -> Result<Encoder, String> {
        let mut whole = FxHashMap::default();
        for (id, bytes) in vocab.tokens.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            if let Some(other) = whole.insert(bytes.clone(), id as u32) {
                return Err(format!("tokens {other} and {id} are the same bytes"));
            }
        }
        let mut byte = [NONE; 256];
        for (value, id) in byte.iter_mut().enumerate() {
            *id = *whole.get([value as u8].as_slice()).ok_or(format!("byte {value} is not a token"))?;
        }
        let pairs = joins(vocab, &whole);
        Ok(Encoder { byte, whole, pairs })
    }

    /// Appends the ids of `text` to `out`.
    pub fn encode(&self, text: &str, splitter: &Splitter, cache: &mut Cache, out: &mut Vec<u32>) -> Result<(), String> {
        splitter.split(text, |chunk| {
            let chunk = chunk.as_bytes();
            cache.get(chunk, out, |out| match self.whole.get(chunk) {
                Some(&id) => out.push(id),
                None => self.merge(chunk, NONE, out),
            });
        })
    }

    /// The two tokens that each token past the bytes was made of: what is left of it when only lower ranks merge.
    pub fn merges(&self, vocab: &Vocab) -> Result<Vec<Pair>, String> {
        let mut parts = Vec::new();
        let long = vocab.tokens.iter().enumerate().filter(|(_, bytes)| bytes.len() > 1);
        long.map(|(id, bytes)| {
            parts.clear();
            self.merge(bytes, id as u32, &mut parts);
            match parts[..] {
                [a, b] => Ok((a, b)),
                _ => Err(format!("token {id} is not the join of two lower tokens: these ranks are not a BPE")),
            }
        })
        .collect()
    }

    /// The rank of a pair if it is lower than `below`.
    #[inline]
    fn rank(&self, a: u32, b: u32, below: u32) -> u32 {
        match self.pairs.get(&(a, b)) {
            Some(&rank) if rank < below => rank,
            _ => NONE,
        }
    }

    /// Merges a chunk using the ranks below `below` and appends what is left.
    fn merge(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
        if chunk.len() <= SHORT {
            self.merge_short(chunk, below, out);
        } else {
            self.merge_long(chunk, below, out);
        }
    }

    fn merge_short(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
        let (mut ids, mut ranks) = ([NONE; SHORT], [NONE; SHORT]); // ranks[i]: of the pair (ids[i], ids[i + 1])
        let mut n = chunk.len();
        for (id, &byte) in ids.iter_mut().zip(chunk) {
            *id = self.byte[byte as usize];
        }
        for i in 1..n {
            ranks[i - 1] = self.rank(ids[i - 1], ids[i], below);
        }
        loop {
            let (mut best, mut lowest) = (0, NONE);
            for (i, &rank) in ranks[..n].iter().enumerate() {
                if rank < lowest {
                    (best, lowest) = (i, rank);
                }
            }
            if lowest == NONE {
                break;
            }
            ids[best] = lowest;
            ids.copy_within(best + 2..n, best + 1);
            ranks.copy_within(best + 1..n, best);
            n -= 1;
            ranks[n - 1] = NONE; // the last symbol has no right neighbour
            if best + 1 < n {
                ranks[best] = self.rank(ids[best], ids[best + 1], below);
            }
            if best > 0 {
                ranks[best - 1] = self.rank(ids[best - 1], ids[best], below);
            }
        }
        out.extend_from_slice(&ids[..n]);
    }

    /// The same with a linked list of symbols and a heap of (rank, place); an entry is checked when it comes up.
    fn merge_long(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
        let n = chunk.len();
        let mut ids: Vec<u32> = chunk.iter().map(|&byte| self.byte[byte as usize]).collect();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut prev: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> = (1..n)
            .map(|i| Reverse((self.rank(ids[i - 1], ids[i], below), i - 1)))
            .filter(|Reverse((rank, _))| *rank != NONE)
            .collect();
        while let Some(Reverse((rank, i))) = heap.pop() {
            let j = next[i];
            if ids[i] == NONE || j == n || self.rank(ids[i], ids[j], below) != rank {
                continue;
            }
            ids[i] = rank;
            ids[j] = NONE;
            next[i] = next[j];
            if next[i] < n {
                prev[next[i]] = i;
            }
            for left in [prev[i], i] {
                if left < n && next[left] < n {
                    let rank = self.rank(ids[left], ids[next[left]], below);
                    if rank != NONE {
                        heap.push(Reverse((rank, left)));
                    }
                }
            }
        }
        out.extend(ids.into_iter().filter(|&id| id != NONE));
    }
}

/// Every way in which a token is the join of two tokens.
///
/// With the tokens in byte order, all prefixes of a token that are tokens stand on a stack when it comes up; what is
/// left is to ask whether the rest is a token too. No work for the cuts in between, so long tokens cost little.
fn joins(vocab: &Vocab, whole: &FxHashMap<Box<[u8]>, u32>) -> FxHashMap<(u32, u32), u32> {
    let bytes = |id: u32| vocab.tokens[id as usize].as_ref();
    let mut order: Vec<u32> = whole.values().copied().collect();
    order.sort_unstable_by_key(|&id| bytes(id));
    let mut pairs = FxHashMap::default();
    let mut prefixes: Vec<u32> = Vec::new();
    for id in order {
        while prefixes.last().is_some_and(|&last| !bytes(id).starts_with(bytes(last))) {
            prefixes.pop();
        }
        for &left in &prefixes {
            if let Some(&right) = whole.get(&bytes(id)[bytes(left).len()..]) {
                pairs.insert((left, right), id);
            }
        }
        prefixes.push(id);
    }
    pairs
}
