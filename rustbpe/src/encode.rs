//! Text to ids: split, then look up each chunk in the cache, and `merge` the few that are not there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::cache::{key_of, Cache, Caches, Key, SHORT_IDS};
use crate::merge::Merger;
use crate::splitter::Splitter;
use crate::vocab::{Pair, Vocab, NONE};

const AT_ONCE: usize = 64; // chunks found before the first is looked up, so that their slots are on the way
const BLOCK_BYTES: usize = 1 << 17; // of text, that a thread takes at a time

pub struct Encoder {
    pub splitter: Splitter,
    pub vocab: Vocab,
    merger: OnceLock<Merger>, // made when the first chunk needs it: who only trains never waits for it
    caches: Caches,
}

impl Encoder {
    pub fn new(vocab: Vocab, splitter: Splitter) -> Encoder {
        Encoder { splitter, vocab, merger: OnceLock::new(), caches: Caches::default() }
    }

    fn merger(&self) -> &Merger {
        self.merger.get_or_init(|| Merger::new(&self.vocab))
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
                    cache.find_or_add(chunk.bytes, out, |out| self.merger().encode(chunk.bytes, out));
                }
            }
        }
        out.extend_from_slice(&ids[..n]);
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
            self.merger().merge(bytes, id as u32, &mut parts);
            match parts[..] {
                [a, b] => Ok((a, b)),
                _ => Err(format!("token {id} is not the join of two lower tokens: these ranks are not a BPE")),
            }
        })
        .collect()
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

#[cfg(test)]
mod tests;
