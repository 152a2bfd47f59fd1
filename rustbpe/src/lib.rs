//! Byte-pair encoding, from text to ids and back. One subject a file, in the order in which text meets them:
//!
//! `unicode` (letter, number, newline, space, other) → `splitter` (text to chunks) → `count` (distinct chunks of a
//! corpus) → `train` (chunks to merges) → `vocab` (merges to tokens) → `encode` with its `cache` (text to ids) →
//! `decode` (ids to bytes). `python` is the face that Python sees; nothing else here knows about Python.
//!
//! The readable twin of all this is `nanochat/tokenizer/bpe.py`; the tests hold the two equal.

mod cache;
mod count;
mod decode;
mod encode;
mod python;
mod splitter;
mod train;
mod unicode;
mod vocab;
