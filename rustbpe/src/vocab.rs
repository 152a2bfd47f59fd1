//! The tokens themselves: id to bytes. A vocabulary is built from merges (what training yields) or from ranks (what
//! tiktoken publishes); both say the same, and the encoder needs only this.

use crate::train::Pair;

/// No vocabulary in use comes near this; a damaged file in which each token doubles the last would.
const MOST_BYTES: usize = 1 << 28;

/// The bytes of each token by id. An empty entry is an id that is not in use (tiktoken's older ranks have a hole).
pub struct Vocab {
    pub tokens: Vec<Box<[u8]>>,
}

impl Vocab {
    /// The 256 bytes, then one token a merge.
    pub fn from_merges(merges: &[Pair]) -> Result<Vocab, String> {
        let mut tokens: Vec<Box<[u8]>> = (0..=255u8).map(|byte| Box::from([byte])).collect();
        let mut total = 0;
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
        Ok(Vocab { tokens })
    }

    /// From pairs of bytes and rank, in any order; the rank is the id.
    pub fn from_ranks(ranks: Vec<(Vec<u8>, u32)>) -> Result<Vocab, String> {
        let size = ranks.iter().map(|&(_, rank)| rank as usize + 1).max().unwrap_or(0);
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
        Ok(Vocab { tokens })
    }
}
