//! Text to ids: split, then within each chunk merge the neighbouring pair of lowest rank until none is left.
//!
//! A pair may merge if its joined bytes are a token, and the token's id is the pair's rank: tiktoken's rule, which
//! needs no list of merges. Nearly every chunk is found in the cache. Of the others, short ones are merged by a plain
//! scan for the lowest rank; long ones (no blank for 64 bytes) with a heap, so that a million equal letters cost n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use rustc_hash::FxHashMap;

use crate::cache::{key_of, Cache, Caches, Key, SHORT_IDS};
use crate::splitter::Splitter;
use crate::train::Pair;
use crate::vocab::{Joins, Vocab, NONE};

const SHORT: usize = 64;
const AT_ONCE: usize = 64; // chunks found before the first is looked up, so that their slots are on the way
const BLOCK_BYTES: usize = 1 << 17; // of text, that a thread takes at a time

pub struct Encoder {
    pub splitter: Splitter,
    pub vocab: Vocab,
    caches: Caches,
    byte: [u32; 256],                 // the id of each single byte
    whole: FxHashMap<Box<[u8]>, u32>, // every token by its bytes
    longest: usize,                   // bytes of the longest token
    two: Box<[u32]>,                  // (65536,): the token of two bytes, as first << 8 | second
    inside: Box<[bool]>,              // (65536,): do these two bytes stand side by side in any token?
    joins: Joins,
}

impl Encoder {
    pub fn new(vocab: Vocab, splitter: Splitter) -> Result<Encoder, String> {
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
        let (mut two, mut inside) = (vec![NONE; 1 << 16], vec![false; 1 << 16]);
        for (bytes, &id) in &whole {
            if let [a, b] = bytes[..] {
                two[place_of(a, b)] = id;
            }
            bytes.windows(2).for_each(|pair| inside[place_of(pair[0], pair[1])] = true);
        }
        let longest = whole.keys().map(|bytes| bytes.len()).max().unwrap_or(0);
        let joins = Joins::new(&vocab, &whole);
        let (two, inside, caches) = (two.into(), inside.into(), Caches::default());
        Ok(Encoder { splitter, vocab, caches, byte, whole, longest, two, inside, joins })
    }

    /// The ids of `text`. An error only where the regex engine of an unusual pattern gives up, or 4 GB are one chunk.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        self.caches.lend(&self.vocab, |cache| self.append(text, cache, &mut ids)).map(|()| ids)
    }

    /// Appends the ids of `text` to `out`.
    fn append(&self, text: &str, cache: &mut Cache, out: &mut Vec<u32>) -> Result<(), String> {
        let mut found = [Chunk::default(); AT_ONCE];
        let (mut n, mut longest) = (0, 0);
        self.splitter.split(text, |chunk| {
            longest = longest.max(chunk.len());
            if chunk.len() >= NONE as usize {
                return; // places in a chunk are u32
            }
            let at = chunk.as_ptr() as usize - text.as_ptr() as usize;
            let key = key_of(&text.as_bytes()[at..], chunk.len());
            let place = key.map_or(0, |key| cache.place(key));
            cache.prefetch(place);
            found[n] = Chunk { bytes: chunk.as_bytes(), key, place };
            n += 1;
            if n == AT_ONCE {
                self.look_up(&found, cache, out);
                n = 0;
            }
        })?;
        self.look_up(&found[..n], cache, out);
        if longest >= NONE as usize {
            return Err(format!("4 GB of text without a place to split it ({longest} bytes)"));
        }
        Ok(())
    }

    /// Appends the ids of the chunks, at most AT_ONCE of them.
    fn look_up(&self, chunks: &[Chunk], cache: &mut Cache, out: &mut Vec<u32>) {
        // ids go here first: with room for a whole slot at any place, each is copied without asking how many it holds
        let (mut ids, mut n) = ([0; SHORT_IDS * AT_ONCE], 0);
        for chunk in chunks {
            let room = ids[n..].first_chunk_mut().expect("room for each chunk's slot");
            let known = chunk.key.and_then(|key| cache.find(key, chunk.place, room));
            match known {
                Some(count) => n += count,
                None => {
                    out.extend_from_slice(&ids[..n]);
                    n = 0;
                    self.encode_chunk(chunk.bytes, cache, out);
                }
            }
        }
        out.extend_from_slice(&ids[..n]);
    }

    #[cold]
    fn encode_chunk(&self, chunk: &[u8], cache: &mut Cache, out: &mut Vec<u32>) {
        cache.find_or_add(chunk, out, |out| {
            let token = if chunk.len() <= self.longest { self.whole.get(chunk) } else { None };
            match token {
                Some(&id) => out.push(id),
                None => self.merge(chunk, NONE, out),
            }
        });
    }

    /// The ids of all `texts` in a row, and the offset where each begins, and one past the last. The threads take a block
    /// of texts at a time and keep its ids to themselves; only when all sizes are known are they joined, again by all.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        threads: usize,
    ) -> Result<(Vec<u32>, Vec<i64>), String> {
        let blocks = blocks(texts);
        let encode = |texts: &[T], cache: &mut Cache| -> Result<Block, String> {
            let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
            let mut block = (Vec::with_capacity(bytes / 4 + 64), Vec::with_capacity(texts.len()));
            for text in texts {
                self.append(text.as_ref(), cache, &mut block.0)?;
                block.1.push(block.0.len());
            }
            Ok(block)
        };
        let done: Vec<Block> = if threads <= 1 || blocks.len() <= 1 {
            vec![self.caches.lend(&self.vocab, |cache| encode(texts, cache))?]
        } else {
            let (next, slots) = (AtomicUsize::new(0), blocks.iter().map(|_| OnceLock::new()).collect::<Vec<_>>());
            on_threads(threads.min(blocks.len()), || {
                self.caches.lend(&self.vocab, |cache| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(block) = blocks.get(i) else { break };
                        let _ = slots[i].set(encode(block, cache)); // each is taken once, so it was empty
                    }
                });
            });
            slots.into_iter().filter_map(OnceLock::into_inner).collect::<Result<_, _>>()?
        };

        let mut offsets = vec![0];
        for (_, ends) in &done {
            let start = offsets[offsets.len() - 1];
            offsets.extend(ends.iter().map(|&end| start + end as i64));
        }
        Ok((join(done, threads), offsets))
    }

    /// The two tokens that each token past the bytes was made of: what is left of it when only lower ranks merge.
    pub fn merges(&self) -> Result<Vec<Pair>, String> {
        let mut parts = Vec::new();
        let long = self.vocab.tokens.iter().enumerate().filter(|(_, bytes)| bytes.len() > 1);
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

    /// Merges a chunk using the ranks below `below` and appends what is left.
    fn merge(&self, chunk: &[u8], below: u32, out: &mut Vec<u32>) {
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

/// The ids of some texts, and where each ends.
type Block = (Vec<u32>, Vec<usize>);

/// The texts in runs of about BLOCK_BYTES.
fn blocks<T: AsRef<str>>(texts: &[T]) -> Vec<&[T]> {
    let (mut blocks, mut start, mut size) = (Vec::new(), 0, 0);
    for (i, text) in texts.iter().enumerate() {
        size += text.as_ref().len();
        if size >= BLOCK_BYTES || i + 1 == texts.len() {
            blocks.push(&texts[start..=i]);
            (start, size) = (i + 1, 0);
        }
    }
    blocks
}

/// All ids in a row. Fresh memory is the cost here, so the threads share it.
fn join(mut blocks: Vec<Block>, threads: usize) -> Vec<u32> {
    if blocks.len() == 1 {
        return blocks.remove(0).0;
    }
    let mut all = vec![0; blocks.iter().map(|(ids, _)| ids.len()).sum()];
    let (mut rest, mut jobs) = (all.as_mut_slice(), Vec::new());
    for (ids, _) in &blocks {
        let (own, others) = rest.split_at_mut(ids.len());
        jobs.push((own, ids));
        rest = others;
    }
    let (threads, jobs) = (threads.min(jobs.len()), Mutex::new(jobs));
    on_threads(threads, || loop {
        let job = jobs.lock().expect("no holder panics").pop();
        let Some((own, ids)) = job else { break };
        own.copy_from_slice(ids);
    });
    all
}

fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(&work))); // the scope waits for them
        work();
    });
}

/// A chunk of the text and where the cache would have it; no key: too long for that.
#[derive(Clone, Copy, Default)]
struct Chunk<'t> {
    bytes: &'t [u8],
    key: Option<Key>,
    place: usize,
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
