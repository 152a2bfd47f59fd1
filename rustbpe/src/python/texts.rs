//! Python's strings as Rust's: borrowed, and for training in batches that other threads may read without the GIL.

use std::borrow::Cow;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyIterator, PyString};

const BATCH_BYTES: usize = 1 << 18; // text that a thread counts at a time
const BATCH_TEXTS: usize = 65_536;

/// The text itself where Python holds valid Unicode; half of a surrogate pair, which UTF-8 cannot say, becomes U+FFFD
/// (as in tiktoken), two halves in a row the character they mean.
pub fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text));
    }
    let bytes: Vec<u8> = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?.extract()?;
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    Ok(Cow::Owned(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()))
}

/// Up to BATCH_BYTES of texts; empty at the end.
pub fn next_batch(texts: &Bound<'_, PyIterator>, seen: usize) -> PyResult<Vec<Text>> {
    let (mut batch, mut size) = (Vec::new(), 0);
    for text in texts.clone() {
        let text = text?.cast_into::<PyString>().map_err(|error| {
            let kind = error.into_inner().get_type();
            PyTypeError::new_err(format!("text {} is {kind}, not a string", seen + batch.len()))
        })?;
        let text = Text::new(text)?;
        size += text.as_ref().len();
        batch.push(text);
        if size >= BATCH_BYTES || batch.len() == BATCH_TEXTS {
            break;
        }
    }
    Ok(batch)
}

/// A text that other threads may read while Python goes on.
pub enum Text {
    Borrowed(PyBackedStr),
    Owned(String),
}

impl Text {
    fn new(text: Bound<'_, PyString>) -> PyResult<Text> {
        Ok(match utf8(&text)? {
            Cow::Owned(text) => Text::Owned(text),
            Cow::Borrowed(_) => Text::Borrowed(text.try_into()?),
        })
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Owned(text) => text,
        }
    }
}
