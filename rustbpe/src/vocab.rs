//! The tokens themselves: id to bytes, and which pairs of tokens join to a third. A vocabulary is built from merges
//! (what training yields) or from ranks (what tiktoken publishes); both say the same, and the encoder needs only this.

use rustc_hash::FxHashMap;

use crate::cache::MOST_TOKENS;

pub type Pair = (u32, u32);

/// No such token. Also, in a list of symbols: merged into the left neighbour.
pub const NONE: u32 = u32::MAX;

/// No vocabulary in use comes near this; a damaged file in which each token doubles the last would.
const MOST_BYTES: usize = 1 << 28;

/// The bytes of each token by id. An empty entry is an id that is not in use (tiktoken's older ranks have a hole).
#[derive(Debug)]
pub struct Vocab {
    pub tokens: Vec<Box<[u8]>>,
}

impl Vocab {
    /// The 256 bytes, then one token a merge.
    pub fn from_merges(merges: &[Pair]) -> Result<Vocab, String> {
        let mut tokens: Vec<Box<[u8]>> = (0..=255u8).map(|byte| Box::from([byte])).collect();
        let mut total = 0;
        few_enough(256 + merges.len())?;
        for &(a, b) in merges {
            let (Some(left), Some(right)) = (tokens.get(a as usize), tokens.get(b as usize)) else {
                return Err(format!("merge ({a}, {b}) of token {} names a later token", tokens.len()));
            };
            total += left.len() + right.len();
            if total > MOST_BYTES {
                return Err(format!("the tokens of these merges take more than {MOST_BYTES} bytes"));
            }
            tokens.push([left.as_ref(), right.as_ref()].concat().into());
        }
        Vocab::checked(tokens)
    }

    /// From pairs of bytes and rank, in any order; the rank is the id.
    pub fn from_ranks(ranks: Vec<(Vec<u8>, u32)>) -> Result<Vocab, String> {
        let size = ranks.iter().map(|&(_, rank)| rank as usize + 1).max().unwrap_or(0);
        few_enough(size)?;
        if size > 2 * ranks.len() + 256 {
            return Err(format!("{} ranks, but the largest is {}", ranks.len(), size - 1));
        }
        let mut tokens = vec![Box::<[u8]>::default(); size];
        for (bytes, rank) in ranks {
            if bytes.is_empty() {
                return Err(format!("token {rank} is empty"));
            }
            if !std::mem::replace(&mut tokens[rank as usize], bytes.into()).is_empty() {
                return Err(format!("rank {rank} is given twice"));
            }
        }
        Vocab::checked(tokens)
    }

    /// Every byte is a token, so that any text has ids; no two tokens are the same bytes, so that it has no others.
    fn checked(tokens: Vec<Box<[u8]>>) -> Result<Vocab, String> {
        let mut ids = FxHashMap::<&[u8], usize>::default();
        for (id, bytes) in tokens.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            if let Some(other) = ids.insert(bytes, id) {
                return Err(format!("tokens {other} and {id} are the same bytes"));
            }
        }
        match (0..=255u8).find(|&byte| !ids.contains_key([byte].as_slice())) {
            Some(byte) => Err(format!("byte {byte} is not a token")),
            None => Ok(Vocab { tokens }),
        }
    }
}

/// The encoder keeps a few bits beside an id.
fn few_enough(tokens: usize) -> Result<(), String> {
    if tokens > MOST_TOKENS {
        return Err(format!("{tokens} tokens; this tokenizer takes {MOST_TOKENS} at most"));
    }
    Ok(())
}

/// Two ids to the id of what they join to. A flat table with open addressing, at most half full; in front of it a
/// bitmap of hashes, small enough for the processor's cache, which knows most pairs that are not here.
pub struct Joins {
    slots: Vec<[u32; 3]>, // left, right, joined; a power of two of them
    seen: Vec<u64>,       // 8 bits a slot
}

impl Joins {
    /// Every way in which a token is the join of two tokens. `whole`: every token by its bytes.
    ///
    /// With the tokens in byte order, all prefixes of a token that are tokens stand on a stack when it comes up; what
    /// is left is to ask whether the rest is a token too. No work for the cuts in between, so long tokens cost little.
    pub fn new(vocab: &Vocab, whole: &FxHashMap<Box<[u8]>, u32>) -> Joins {
        let bytes = |id: u32| vocab.tokens[id as usize].as_ref();
        let mut order: Vec<u32> = whole.values().copied().collect();
        order.sort_unstable_by_key(|&id| bytes(id));
        let (mut found, mut prefixes) = (Vec::new(), Vec::<u32>::new());
        for id in order {
            while prefixes.last().is_some_and(|&last| !bytes(id).starts_with(bytes(last))) {
                prefixes.pop();
            }
            for &left in &prefixes {
                if let Some(&right) = whole.get(&bytes(id)[bytes(left).len()..]) {
                    found.push([left, right, id]);
                }
            }
            prefixes.push(id);
        }
        Joins::from_list(&found)
    }

    fn from_list(found: &[[u32; 3]]) -> Joins {
        let size = (2 * found.len()).next_power_of_two().max(8);
        let mut joins = Joins { slots: vec![[NONE; 3]; size], seen: vec![0; size / 8] };
        for &[left, right, id] in found {
            let hash = hash(left, right);
            let bit = joins.bit(hash);
            joins.seen[bit / 64] |= 1 << (bit % 64);
            let mut place = joins.place(hash);
            while joins.slots[place][0] != NONE {
                place = (place + 1) % size;
            }
            joins.slots[place] = [left, right, id];
        }
        joins
    }

    /// What `left` and `right` join to; NONE if they do not.
    #[inline]
    pub fn get(&self, left: u32, right: u32) -> u32 {
        let hash = hash(left, right);
        let bit = self.bit(hash);
        if self.seen[bit / 64] >> (bit % 64) & 1 == 0 {
            return NONE;
        }
        let mut place = self.place(hash);
        loop {
            let [a, b, id] = self.slots[place];
            if a == NONE || (a == left && b == right) {
                return id; // of an empty slot NONE, too
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    /// Taken from the other end of the hash than the place, so that neighbours in the table differ here.
    #[inline]
    fn bit(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (8 * self.slots.len() - 1)
    }
}

/// One 64×64→128 multiply, folded.
#[inline]
fn hash(left: u32, right: u32) -> u64 {
    let product = (u128::from(left) << 32 | u128::from(right)) * 0x9E37_79B9_7F4A_7C15;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_all_the_cuts_of_each_token_into_two_tokens() {
        let merges = [(97, 97), (256, 97), (256, 256), (98, 99), (97, 98), (260, 99)]; // aa aaa aaaa bc ab abc
        let vocab = Vocab::from_merges(&merges).unwrap();
        let whole: FxHashMap<_, _> = vocab.tokens.iter().cloned().zip(0..).collect();
        let joins = Joins::new(&vocab, &whole);
        for (a, left) in (0..).zip(&vocab.tokens) {
            for (b, right) in (0..).zip(&vocab.tokens) {
                let joined = [left.as_ref(), right.as_ref()].concat();
                assert_eq!(joins.get(a, b), whole.get(joined.as_slice()).copied().unwrap_or(NONE), "{joined:?}");
            }
        }
    }
}
