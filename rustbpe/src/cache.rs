//! What a chunk was encoded to last time. Text repeats itself: most chunks are found here and need no merging.
//!
//! The table has a fixed size and one place for each hash; a new chunk throws out the old one. So no text, however
//! hostile, makes it grow. Chunks over 15 bytes or 4 tokens are rare and are not kept.

const SLOTS: usize = 1 << 15; // 32 bytes each: 1 MiB
const KEY: usize = 15;
const IDS: usize = 4;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    key: [u64; 2], // the chunk's bytes, its length in the last one; all zero: empty
    ids: [u32; IDS],
}

pub struct Cache {
    slots: Vec<Slot>,
}

impl Cache {
    pub fn new() -> Cache {
        Cache { slots: vec![Slot { key: [0; 2], ids: [NONE; IDS] }; SLOTS] }
    }

    /// Appends the ids of `chunk` to `out`, taking them from `encode` if they are not here.
    #[inline]
    pub fn get(&mut self, chunk: &[u8], out: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        if chunk.len() > KEY {
            return encode(out);
        }
        let key = key_of(chunk);
        let slot = &mut self.slots[place(key)];
        if slot.key == key {
            out.extend(slot.ids.iter().take_while(|&&id| id != NONE));
            return;
        }
        let start = out.len();
        encode(out);
        let new = &out[start..];
        if new.len() <= IDS {
            slot.key = key;
            slot.ids = [NONE; IDS];
            slot.ids[..new.len()].copy_from_slice(new);
        }
    }
}

#[inline]
fn key_of(chunk: &[u8]) -> [u64; 2] {
    let mut bytes = [0u8; KEY + 1];
    bytes[..chunk.len()].copy_from_slice(chunk);
    bytes[KEY] = chunk.len() as u8;
    let whole = u128::from_le_bytes(bytes);
    [whole as u64, (whole >> 64) as u64]
}

/// One 64×64→128 multiply, folded.
#[inline]
fn place([low, high]: [u64; 2]) -> usize {
    let product = u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD1B5_4A32_D192_ED03);
    ((product >> 64) as u64 ^ product as u64) as usize % SLOTS
}
