//! What a chunk was encoded to last time. Text repeats itself: most chunks are found here and need no merging.
//!
//! Two tables of fixed size, so that no text, however hostile, makes them grow: a large one for what nearly all chunks
//! are (up to 15 bytes, up to 4 tokens; 32 bytes a slot), a small one for the next (up to 23 bytes, up to 10 tokens;
//! 64 bytes). A chunk has two places, side by side; of those two the one used longest ago makes room for a new chunk.
//! The bytes themselves are the key, so two chunks are never taken for each other.

use std::sync::Mutex;

use crate::vocab::Vocab;

/// A chunk of the large table: its bytes and, in the last one, its length. Never all zero, as no chunk is empty.
pub type Key = [u64; 2];

pub const SHORT_IDS: usize = 4;
const SHORT_KEY: usize = 15;
const SHORT_SETS: usize = 1 << 17; // 64 bytes each: 8 MiB
const WIDE_KEY: usize = 23;
const WIDE_IDS: usize = 10;
const WIDE_SETS: usize = 1 << 13; // 128 bytes each: 1 MiB
const MOST_IDLE: usize = 16;

/// The top bits of a slot's first id tell how many ids it holds, less one.
const COUNT_SHIFT: u32 = 28;
const ID_MASK: u32 = (1 << COUNT_SHIFT) - 1;
pub const MOST_TOKENS: usize = ID_MASK as usize;

pub struct Cache {
    short: Table<2, SHORT_IDS>,
    wide: Table<3, WIDE_IDS>,
}

impl Cache {
    /// With every token of `vocab` that may be a chunk already in its place; the lowest ids, the most common, last.
    pub fn new(vocab: &Vocab) -> Cache {
        let mut cache = Cache { short: Table::new(SHORT_SETS), wide: Table::new(WIDE_SETS) };
        for (id, token) in vocab.tokens.iter().enumerate().rev() {
            if (1..=SHORT_KEY).contains(&token.len()) && std::str::from_utf8(token).is_ok() {
                cache.short.insert(pack(token), &[id as u32]);
            }
        }
        cache
    }

    /// Where `key` may stand, to be handed to `find`.
    #[inline]
    pub fn place(&self, key: Key) -> usize {
        self.short.place(key)
    }

    /// Asks for the memory of a place before it is needed; without this, encoding takes a third longer.
    #[inline]
    pub fn prefetch(&self, place: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(set) = self.short.sets.get(place) {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            // SAFETY: the address is that of a live reference; besides, a prefetch cannot fault, and SSE is in x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(set).cast()) }
        }
    }

    /// Writes the ids of a chunk to the front of `out` and tells how many; the rest of `out` is overwritten too.
    #[inline]
    pub fn find(&mut self, key: Key, place: usize, out: &mut [u32; SHORT_IDS]) -> Option<usize> {
        let slot = self.short.find(key, place)?;
        *out = slot.ids;
        out[0] &= ID_MASK;
        Some(slot.len())
    }

    /// Appends the ids of a chunk that `find` did not know, taking them from `encode` if they are nowhere.
    pub fn find_or_add(&mut self, chunk: &[u8], out: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        if chunk.len() > WIDE_KEY {
            return encode(out);
        }
        let key = pack::<3>(chunk);
        let place = self.wide.place(key);
        if let Some(slot) = self.wide.find(key, place) {
            out.push(slot.ids[0] & ID_MASK);
            return out.extend_from_slice(&slot.ids[1..slot.len()]);
        }
        let start = out.len();
        encode(out);
        let ids = &out[start..];
        if chunk.len() <= SHORT_KEY && ids.len() <= SHORT_IDS {
            self.short.insert(pack(chunk), ids);
        } else if ids.len() <= WIDE_IDS {
            self.wide.insert(key, ids);
        }
    }
}

/// The caches that no thread uses at the moment. A thread has one to itself while it works.
#[derive(Default)]
pub struct Caches {
    idle: Mutex<Vec<Cache>>,
}

impl Caches {
    /// Runs `work` with an idle cache, or a new one.
    pub fn lend<T>(&self, vocab: &Vocab, work: impl FnOnce(&mut Cache) -> T) -> T {
        let idle = self.idle.lock().expect("no holder panics").pop();
        let mut cache = idle.unwrap_or_else(|| Cache::new(vocab));
        let result = work(&mut cache);
        let mut idle = self.idle.lock().expect("no holder panics");
        if idle.len() < MOST_IDLE {
            idle.push(cache);
        }
        result
    }
}

/// The key of the `len` bytes in front of `rest`; None if they are too many for the large table.
#[inline]
pub fn key_of(rest: &[u8], len: usize) -> Option<Key> {
    if len > SHORT_KEY {
        return None;
    }
    let Some(bytes) = rest.first_chunk::<16>() else { return Some(pack(&rest[..len])) };
    // 16 bytes are read at once, and what lies past the chunk is masked off: faster than copying `len` bytes
    let whole = u128::from_le_bytes(*bytes) & ((1 << (8 * len)) - 1) | (len as u128) << 120;
    Some([whole as u64, (whole >> 64) as u64])
}

fn pack<const WORDS: usize>(chunk: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (i, &byte) in chunk.iter().enumerate() {
        words[i / 8] |= u64::from(byte) << (8 * (i % 8));
    }
    words[WORDS - 1] |= (chunk.len() as u64) << 56;
    words
}

#[derive(Clone, Copy)]
struct Slot<const WORDS: usize, const IDS: usize> {
    key: [u64; WORDS],
    ids: [u32; IDS],
}

impl<const WORDS: usize, const IDS: usize> Slot<WORDS, IDS> {
    const EMPTY: Self = Slot { key: [0; WORDS], ids: [0; IDS] };

    #[inline]
    fn len(&self) -> usize {
        (self.ids[0] >> COUNT_SHIFT) as usize + 1
    }
}

/// The two slots for one hash, within one line of the processor's cache; the one used last is the first.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Set<const WORDS: usize, const IDS: usize>([Slot<WORDS, IDS>; 2]);

struct Table<const WORDS: usize, const IDS: usize> {
    sets: Vec<Set<WORDS, IDS>>, // a power of two of them
}

impl<const WORDS: usize, const IDS: usize> Table<WORDS, IDS> {
    fn new(sets: usize) -> Self {
        Table { sets: vec![Set([Slot::EMPTY; 2]); sets] }
    }

    /// One 64×64→128 multiply, folded.
    #[inline]
    fn place(&self, key: [u64; WORDS]) -> usize {
        let middle = key[1..WORDS - 1].iter().fold(0, |sum: u64, word| sum.rotate_left(23) ^ word);
        let (low, high) = (key[0] ^ 0x9E37_79B9_7F4A_7C15 ^ middle, key[WORDS - 1] ^ 0xD1B5_4A32_D192_ED03);
        let product = u128::from(low) * u128::from(high);
        ((product >> 64) as u64 ^ product as u64) as usize & (self.sets.len() - 1)
    }

    #[inline]
    fn find(&mut self, key: [u64; WORDS], place: usize) -> Option<&Slot<WORDS, IDS>> {
        let Set(slots) = &mut self.sets[place];
        if slots[0].key != key {
            if slots[1].key != key {
                return None;
            }
            slots.swap(0, 1);
        }
        Some(&slots[0])
    }

    fn insert(&mut self, key: [u64; WORDS], ids: &[u32]) {
        let place = self.place(key);
        let Set(slots) = &mut self.sets[place];
        slots[1] = slots[0];
        slots[0].key = key;
        slots[0].ids[..ids.len()].copy_from_slice(ids);
        slots[0].ids[0] |= (ids.len() as u32 - 1) << COUNT_SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_only() -> Vocab {
        Vocab::from_merges(&[]).unwrap()
    }

    #[test]
    fn a_key_is_the_same_wherever_its_chunk_stands() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for len in 1..=SHORT_KEY {
            assert_eq!(key_of(text, len), Some(pack(&text[..len])));
            assert_eq!(key_of(text, len), key_of(&text[..len], len));
        }
        assert_eq!(key_of(text, SHORT_KEY + 1), None);
        assert_ne!(key_of(b"a\0", 1), key_of(b"a\0", 2));
    }

    #[test]
    fn what_was_added_is_found_with_any_number_of_ids() {
        let mut cache = Cache::new(&bytes_only());
        for ids in (1..=12).map(|n| (7..7 + n).collect::<Vec<u32>>()) {
            for len in [6, SHORT_KEY, WIDE_KEY, WIDE_KEY + 1] {
                let chunk = vec![b'A' + ids.len() as u8; len];
                let ask = |cache: &mut Cache, encode: bool| {
                    let (mut front, mut out) = ([0; SHORT_IDS], Vec::new());
                    if let Some(key) = key_of(&chunk, len) {
                        let place = cache.place(key);
                        if let Some(n) = cache.find(key, place, &mut front) {
                            return front[..n].to_vec();
                        }
                    }
                    cache.find_or_add(&chunk, &mut out, |out| {
                        assert!(encode, "{len} bytes and {} ids were not kept", ids.len());
                        out.extend_from_slice(&ids);
                    });
                    out
                };
                assert_eq!(ask(&mut cache, true), ids);
                assert_eq!(ask(&mut cache, len > WIDE_KEY || ids.len() > WIDE_IDS), ids);
            }
        }
    }

    #[test]
    fn single_bytes_are_known_from_the_start_if_they_are_text() {
        let mut cache = Cache::new(&bytes_only());
        let mut find = |byte: u8| {
            let (key, mut out) = (pack(&[byte]), [0; SHORT_IDS]);
            let place = cache.place(key);
            cache.find(key, place, &mut out).map(|n| out[..n].to_vec())
        };
        assert_eq!((find(b'a'), find(0), find(0x80)), (Some(vec![97]), Some(vec![0]), None));
    }
}
