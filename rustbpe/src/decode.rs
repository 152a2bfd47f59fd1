//! Ids to bytes. A token may end in the middle of a character, so text is only made of the joined bytes.

use crate::vocab::Vocab;

/// The bytes of `ids` in a row; the first id that is not in the vocabulary is the error.
pub fn decode(vocab: &Vocab, ids: &[u32]) -> Result<Vec<u8>, u32> {
    let mut bytes = Vec::with_capacity(4 * ids.len());
    for &id in ids {
        match vocab.tokens.get(id as usize) {
            Some(token) if !token.is_empty() => bytes.extend_from_slice(token),
            _ => return Err(id),
        }
    }
    Ok(bytes)
}
