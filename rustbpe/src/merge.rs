//! A chunk to ids: of its neighbouring pairs the one with the lowest rank merges, again and again until none is left.
//!
//! A pair may merge if its joined bytes are a token, and the token's id is the pair's rank: tiktoken's rule, which
//! needs no list of merges. Short chunks are merged by a plain scan for the lowest rank; long ones (no blank for 64
//! bytes) with a heap, so that a million equal letters cost n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::vocab::{Joins, Vocab, NONE};

const SHORT: usize = 64;

/// The tables that merging reads: all of them follow from the vocabulary.
pub struct Merger {
    byte: [u32; 256],                 // the id of each single byte
    whole: FxHashMap<Box<[u8]>, u32>, // every token by its bytes
    longest: usize,                   // bytes of the longest token
    two: Box<[u32]>,                  // (65536,): the token of two bytes, as first << 8 | second
    inside: Box<[bool]>,              // (65536,): do these two bytes stand side by side in any token?
    joins: Joins,
}

impl Merger {
    pub fn new(vocab: &Vocab) -> Merger {
        let used = vocab.tokens.iter().zip(0..).filter(|(bytes, _)| !bytes.is_empty());
        let whole: FxHashMap<Box<[u8]>, u32> = used.map(|(bytes, id)| (bytes.clone(), id)).collect();
        let byte = std::array::from_fn(|value| whole[[value as u8].as_slice()]);
        let (mut two, mut inside) = (vec![NONE; 1 << 16], vec![false; 1 << 16]);
        for (bytes, &id) in &whole {
            if let [a, b] = bytes[..] {
                two[place_of(a, b)] = id;
            }
            bytes.windows(2).for_each(|pair| inside[place_of(pair[0], pair[1])] = true);
        }
        let longest = whole.keys().map(|bytes| bytes.len()).max().unwrap_or(0);
        let joins = Joins::new(vocab, &whole);
        Merger { byte, whole, longest, two: two.into(), inside: inside.into(), joins }
    }

    /// Appends the ids of a chunk.
    pub fn encode(&self, chunk: &[u8], out: &mut Vec<u32>) {
        let token = if chunk.len() <= self.longest { self.whole.get(chunk) } else { None };
        match token {
            Some(&id) => out.push(id),
            None => self.merge(chunk, NONE, out),
        }
    }

    /// Merges a chunk using the ranks below `below` and appends what is left.
    pub fn merge(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
        if chunk.len() <= SHORT {
            return self.merge_short(chunk, below, out);
        }
        // Two bytes that are side by side in no token never end up in one: what is left and right of such a seam can be
        // merged apart.
        for piece in chunk.chunk_by(|&a, &b| self.inside[place_of(a, b)]) {
            if piece.len() <= SHORT {
                self.merge_short(piece, below, out);
            } else {
                self.merge_long(piece, below, out);
            }
        }
    }

    /// The rank of a pair if it is lower than `below`.
    #[inline]
    fn rank(&self, left: u32, right: u32, below: u32) -> u32 {
        lower(self.joins.get(left, right), below)
    }

    /// The same for the bytes a chunk starts from.
    #[inline]
    fn first_rank(&self, left: u8, right: u8, below: u32) -> u32 {
        lower(self.two[place_of(left, right)], below)
    }

    fn merge_short(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
        let (mut ids, mut ranks) = ([NONE; SHORT], [NONE; SHORT]); // ranks[i]: of the pair (ids[i], ids[i + 1])
        let mut n = chunk.len();
        for (id, &byte) in ids.iter_mut().zip(chunk) {
            *id = self.byte[byte as usize];
        }
        for (rank, pair) in ranks.iter_mut().zip(chunk.windows(2)) {
            *rank = self.first_rank(pair[0], pair[1], below);
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
        let mut symbols: Vec<Symbol> = (0u32..)
            .zip(chunk)
            .map(|(i, &byte)| Symbol { id: self.byte[byte as usize], rank: NONE, next: i + 1, prev: i.wrapping_sub(1) })
            .collect();
        let mut heap = Vec::with_capacity(n);
        for (i, pair) in chunk.windows(2).enumerate() {
            symbols[i].rank = self.first_rank(pair[0], pair[1], below);
            if symbols[i].rank != NONE {
                heap.push(entry(symbols[i].rank, i));
            }
        }
        let mut heap = BinaryHeap::from(heap);
        while let Some(Reverse(packed)) = heap.pop() {
            let (rank, i) = ((packed >> 32) as u32, packed as u32 as usize);
            if symbols[i].rank != rank {
                continue; // this pair is gone
            }
            let gone = symbols[i].next as usize;
            let next = symbols[gone].next as usize;
            (symbols[gone].id, symbols[gone].rank) = (NONE, NONE);
            (symbols[i].id, symbols[i].next, symbols[i].rank) = (rank, next as u32, NONE);
            if next < n {
                symbols[next].prev = i as u32;
            }
            for left in [symbols[i].prev as usize, i] {
                let Some(right) = symbols.get(left).map(|symbol| symbol.next as usize).filter(|&right| right < n)
                else {
                    continue;
                };
                symbols[left].rank = self.rank(symbols[left].id, symbols[right].id, below);
                if symbols[left].rank != NONE {
                    heap.push(entry(symbols[left].rank, left));
                }
            }
        }
        out.extend(symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }
}

/// What a byte of a long chunk has become, and its neighbours; past either end, a place that is none.
struct Symbol {
    id: u32,
    rank: u32, // of the pair with the next symbol
    next: u32,
    prev: u32,
}

/// An entry of the heap: the lowest rank first, among equals the leftmost.
#[inline]
fn entry(rank: u32, place: usize) -> Reverse<u64> {
    Reverse(u64::from(rank) << 32 | place as u64)
}

#[inline]
fn lower(rank: u32, below: u32) -> u32 {
    if rank < below {
        rank
    } else {
        NONE
    }
}

#[inline]
fn place_of(a: u8, b: u8) -> usize {
    usize::from(a) << 8 | usize::from(b)
}
