//! Byte-pair encoding, from text to ids and back. One subject a file, in the order in which text meets them:
//!
//! `unicode` (letter, number, newline, space, other) → `splitter` (text to chunks) → `count` (distinct chunks of a
//! corpus) → `train` (chunks to merges) → `vocab` (merges to tokens) → `encode` (text to ids) with its
//! `cache`, and `merge` for chunks that are not in it → `decode` (ids to bytes). `python` is the face that Python sees;
//! nothing else here knows about Python.
//!
//! The readable twin of all this is `nanochat/tokenizer/bpe.py`; the tests hold the two equal.

pub mod cache;
pub mod count;
pub mod decode;
pub mod encode;
pub mod merge;
#[cfg(feature = "python")]
mod python;
pub mod splitter;
pub mod train;
pub mod unicode;
pub mod vocab;

#[cfg(test)]
mod odd_text;
