//! A corpus to its distinct chunks and how often each occurs: all that training needs to know of the text.
//!
//! Texts arrive in batches, and each thread counts those it gets into a table of its own. At the end each thread adds up
//! its share of the chunks over all tables. Sums do not depend on who counted what, so neither does what follows.
//!
//! A corpus has far more distinct chunks than the processor's caches hold, so nearly every chunk would wait for memory.
//! Hence a flat table whose slot is half a cache line with the chunk itself inside, and a queue: a chunk's slot is
//! fetched when the chunk is found, and touched only some hundred chunks later, when it has arrived.

use std::cmp::Reverse;
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::{Arc, Mutex};

use crate::splitter::Splitter;

const QUEUE: usize = 256; // chunks between fetching a slot and touching it
const INLINE: usize = 15; // bytes that fit into a slot beside their number
const LONG: u64 = 1 << 63; // in key[1]: the slot is a long chunk's

/// The distinct chunks with their counts, the most frequent first.
pub struct Chunks {
    bytes: Vec<u8>,
    each: Vec<(u64, u32)>, // count and length
}

impl Chunks {
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut rest = self.bytes.as_slice();
        self.each.iter().map(move |&(count, length)| {
            let (chunk, tail) = rest.split_at(length as usize);
            rest = tail;
            (chunk, count)
        })
    }
}

/// Counts the chunks of all texts. `next` gives them in batches, an empty one at the end; its error ends the counting.
///
/// With several threads this one does nothing but ask for text, while the others count what it has got; at most two
/// batches a thread wait or are being counted.
pub fn count<T, E>(
    splitter: &Splitter,
    threads: usize,
    mut next: impl FnMut() -> Result<Vec<T>, E>,
) -> Result<Chunks, E>
where
    T: AsRef<str> + Send,
    E: From<String>,
{
    if threads > 1 {
        return count_on(threads, splitter, next);
    }
    let mut table = Table::new();
    loop {
        let batch = next()?;
        if batch.is_empty() {
            table.drain();
            return Ok(in_order(&[table]));
        }
        table.add(splitter, &batch)?;
    }
}

fn count_on<T, E>(threads: usize, splitter: &Splitter, mut next: impl FnMut() -> Result<Vec<T>, E>) -> Result<Chunks, E>
where
    T: AsRef<str> + Send,
    E: From<String>,
{
    let work = |batches: Arc<Mutex<Receiver<Vec<T>>>>| {
        let mut table = Table::new();
        loop {
            let batch = batches.lock().expect("no holder panics").recv();
            let Ok(batch) = batch else { break }; // there will be no more
            table.add(splitter, &batch)?;
        }
        table.drain();
        Ok(table)
    };
    let tables = std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(threads);
        let batches = Arc::new(Mutex::new(batches)); // only the workers keep it: when all have failed, so does sending
        let start = |batches| scope.spawn(move || work(batches));
        let workers: Vec<_> = vec![batches; threads].into_iter().map(start).collect();
        loop {
            let batch = next()?;
            let failed = workers.iter().any(|worker| worker.is_finished());
            if batch.is_empty() || failed || sender.send(batch).is_err() {
                break;
            }
        }
        drop(sender);
        let results = workers.into_iter().map(|worker| worker.join().expect("counting does not panic"));
        results.collect::<Result<Vec<Table>, String>>().map_err(E::from)
    })?;
    Ok(in_order(&by_share(tables)))
}

/// The same counts with each chunk in one table only. Every thread adds up another share of the chunks.
fn by_share(tables: Vec<Table>) -> Vec<Table> {
    let tables = &tables; // freed at the end
    let add = |share| {
        let mut total = Table::new();
        tables.iter().for_each(|table| total.absorb(table, share, tables.len()));
        total
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..tables.len()).map(|share| scope.spawn(move || add(share))).collect();
        workers.into_iter().map(|worker| worker.join().expect("adding does not panic")).collect()
    })
}

/// All chunks of the tables, those of one count in the order in which they lie there.
fn in_order(tables: &[Table]) -> Chunks {
    let slots = tables.iter().flat_map(|table| table.filled().map(move |slot| (slot.count, slot, table)));
    let mut order: Vec<(u64, &Slot, &Table)> = slots.collect();
    order.sort_by_key(|&(count, ..)| Reverse(count));
    let (mut bytes, mut each) = (Vec::new(), Vec::with_capacity(order.len()));
    for (count, slot, table) in order {
        let before = bytes.len();
        if slot.key[1] & LONG == 0 {
            let [low, high] = slot.key.map(u64::to_le_bytes);
            bytes.extend_from_slice(&[low, high].concat()[..high[7] as usize]);
        } else {
            bytes.extend_from_slice(table.long_chunk(slot));
        }
        each.push((count, (bytes.len() - before) as u32));
    }
    Chunks { bytes, each }
}

/// A short chunk's `key` is its bytes, zeros, and its length in the last byte. A long chunk's is its hash and its length
/// with the LONG bit; its bytes are in the arena.
#[derive(Clone, Copy, Default)]
#[repr(align(32))] // two slots a cache line, none across two
struct Slot {
    key: [u64; 2],
    count: u64, // 0: empty
    place: u64, // of a long chunk in the arena
}

struct Table {
    slots: Vec<Slot>, // a power of two of them; a chunk is in the first free slot from its hash on
    used: usize,
    arena: Vec<u8>,
    queue: Vec<[u64; 2]>,
}

impl Table {
    fn new() -> Table {
        Table { slots: vec![Slot::default(); 1 << 12], used: 0, arena: Vec::new(), queue: Vec::with_capacity(QUEUE) }
    }

    fn add<T: AsRef<str>>(&mut self, splitter: &Splitter, texts: &[T]) -> Result<(), String> {
        for text in texts.iter().map(T::as_ref) {
            splitter.spans(text, |start, end| self.see(text.as_bytes(), start, end))?;
        }
        Ok(())
    }

    /// Counts the chunk `text[start..end]`, soon.
    #[inline]
    fn see(&mut self, text: &[u8], start: usize, end: usize) {
        if end - start > INLINE {
            return self.add_long(&text[start..end], 1);
        }
        let key = short_key(text, start, end - start);
        prefetch(&self.slots, self.home(key));
        self.queue.push(key);
        if self.queue.len() == QUEUE {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        for &key in &queue {
            self.add_short(key, 1);
        }
        self.queue = queue;
        self.queue.clear();
    }

    #[inline]
    fn add_short(&mut self, key: [u64; 2], count: u64) {
        let i = self.find(key, |_| true);
        if self.slots[i].count != 0 {
            self.slots[i].count += count;
        } else {
            self.insert(i, Slot { key, count, place: 0 });
        }
    }

    #[cold]
    fn add_long(&mut self, chunk: &[u8], count: u64) {
        let key = [long_hash(chunk), chunk.len() as u64 | LONG];
        let i = self.find(key, |slot| self.long_chunk(slot) == chunk);
        if self.slots[i].count != 0 {
            self.slots[i].count += count;
        } else {
            let place = self.arena.len() as u64;
            self.arena.extend_from_slice(chunk);
            self.insert(i, Slot { key, count, place });
        }
    }

    fn long_chunk(&self, slot: &Slot) -> &[u8] {
        &self.arena[slot.place as usize..][..(slot.key[1] & !LONG) as usize]
    }

    /// The slot with this key, or the empty one where it belongs. Never full, so the search ends.
    #[inline]
    fn find(&self, key: [u64; 2], same: impl Fn(&Slot) -> bool) -> usize {
        let mut i = self.home(key);
        loop {
            let slot = &self.slots[i];
            if slot.count == 0 || (slot.key == key && same(slot)) {
                return i;
            }
            i = (i + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn home(&self, key: [u64; 2]) -> usize {
        hash(key) as usize & (self.slots.len() - 1)
    }

    fn filled(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.count != 0)
    }

    /// Fills an empty slot; doubles the table when it is five eighths full.
    #[cold]
    fn insert(&mut self, i: usize, slot: Slot) {
        self.slots[i] = slot;
        self.used += 1;
        if self.used * 8 > self.slots.len() * 5 {
            let new = vec![Slot::default(); self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, new);
            for slot in old.into_iter().filter(|slot| slot.count != 0) {
                let i = self.find(slot.key, |_| false); // all are distinct: any empty slot will do
                self.slots[i] = slot;
            }
        }
    }

    /// Adds one share (of so many) of another table's counts. A chunk's share is told by the end of its hash that its
    /// home is not told by.
    fn absorb(&mut self, other: &Table, share: usize, shares: usize) {
        for slot in other.filled().filter(|slot| (hash(slot.key) >> 32) as usize % shares == share) {
            match slot.key[1] & LONG {
                0 => self.add_short(slot.key, slot.count),
                _ => self.add_long(other.long_chunk(slot), slot.count),
            }
        }
    }
}

/// Most chunks stand at least 16 bytes before the end of their text: those are one load and a mask.
#[inline]
fn short_key(text: &[u8], start: usize, length: usize) -> [u64; 2] {
    let whole = match text[start..].first_chunk::<16>() {
        Some(bytes) => u128::from_le_bytes(*bytes) & ((1 << (8 * length)) - 1),
        None => {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[start..start + length]);
            u128::from_le_bytes(bytes)
        }
    };
    [whole as u64, (whole >> 64) as u64 | (length as u64) << 56]
}

#[inline]
fn hash(key: [u64; 2]) -> u64 {
    fold(key[0] ^ 0x9E37_79B9_7F4A_7C15, key[1] ^ 0xD1B5_4A32_D192_ED03)
}

fn long_hash(chunk: &[u8]) -> u64 {
    chunk.chunks(8).fold(chunk.len() as u64, |hash, piece| {
        let mut bytes = [0; 8];
        bytes[..piece.len()].copy_from_slice(piece);
        fold(hash ^ u64::from_le_bytes(bytes) ^ 0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03)
    })
}

/// One 64×64→128 multiply, folded: every bit of the result depends on all of `a` and `b`.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// Asks for the cache line of `slice[i]` without waiting for it; no harm if there is none.
#[inline]
pub fn prefetch<T>(slice: &[T], i: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing a program can see and never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch(slice.as_ptr().wrapping_add(i).cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, i);
}

#[cfg(test)]
pub mod tests;
