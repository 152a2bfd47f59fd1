//! The module `rustbpe` as Python sees it. Text is borrowed from Python's strings, ids leave as numpy arrays or lists;
//! all real work happens in the other files, with the GIL released where that pays.

mod texts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyTypeError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString};

use crate::count::count;
use crate::decode;
use crate::encode::Encoder;
use crate::splitter::{Splitter, DEFAULT_PATTERN};
use crate::train;
use crate::vocab::{Pair, Vocab};
use texts::{next_batch, utf8};

const RELEASE_GIL_BYTES: usize = 4096; // for less text, releasing costs more than it gives

#[pyclass(frozen, module = "rustbpe")]
struct Tokenizer {
    encoder: Encoder,
    ints: PyOnceLock<Vec<Py<PyInt>>>, // every id as Python's int: lists share them, as making one costs more
}

impl Tokenizer {
    fn build(vocab: Result<Vocab, String>, splitter: Splitter) -> PyResult<Tokenizer> {
        let vocab = vocab.map_err(PyValueError::new_err)?;
        Ok(Tokenizer { encoder: Encoder::new(vocab, splitter), ints: PyOnceLock::new() })
    }

    fn tokens(&self) -> &[Box<[u8]>] {
        &self.encoder.vocab.tokens
    }

    fn ids(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
        let text = utf8(text)?;
        let work = || self.encoder.encode(&text);
        let ids = if text.len() > RELEASE_GIL_BYTES { py.detach(work) } else { work() };
        ids.map_err(PyValueError::new_err)
    }

    fn bytes_of(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let found = match ids.extract::<PyReadonlyArray1<u32>>() {
            Ok(array) => decode::decode(&self.encoder.vocab, &array.as_array().iter().copied().collect::<Vec<u32>>()),
            Err(_) => {
                let mut list = Vec::new();
                for id in ids.try_iter()? {
                    let id: i64 = id?.extract()?;
                    list.push(u32::try_from(id).map_err(|_| self.unknown(id))?);
                }
                decode::decode(&self.encoder.vocab, &list)
            }
        };
        found.map_err(|id| self.unknown(id.into()))
    }

    fn unknown(&self, id: i64) -> PyErr {
        PyValueError::new_err(format!("id {id} is not in the vocabulary of {} tokens", self.tokens().len()))
    }
}

#[pymethods]
impl Tokenizer {
    /// A tokenizer from tokens and their ranks, in the form that tiktoken publishes.
    #[new]
    #[pyo3(signature = (mergeable_ranks, pattern=None))]
    fn new(py: Python<'_>, mergeable_ranks: &Bound<'_, PyDict>, pattern: Option<&str>) -> PyResult<Tokenizer> {
        let ranks = mergeable_ranks.iter().map(|(bytes, rank)| Ok((bytes.extract()?, rank.extract()?)));
        let ranks = ranks.collect::<PyResult<Vec<(Vec<u8>, u32)>>>()?;
        let splitter = splitter(py, pattern)?;
        py.detach(|| Tokenizer::build(Vocab::from_ranks(ranks), splitter))
    }

    /// A tokenizer from its merges: the i-th joins two ids to the token 256 + i.
    #[staticmethod]
    #[pyo3(signature = (merges, pattern=None))]
    fn from_merges(py: Python<'_>, merges: Vec<Pair>, pattern: Option<&str>) -> PyResult<Tokenizer> {
        let splitter = splitter(py, pattern)?;
        py.detach(|| Tokenizer::build(Vocab::from_merges(&merges), splitter))
    }

    /// Train on an iterable of texts. See the type stub for the rules.
    #[staticmethod]
    #[pyo3(signature = (texts, vocab_size, pattern=None, threads=None, progress=None))]
    fn train_from_iterator(
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        vocab_size: usize,
        pattern: Option<&str>,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Tokenizer> {
        if vocab_size < 256 {
            return Err(PyValueError::new_err(format!("vocab_size is {vocab_size}; the 256 bytes alone need 256")));
        }
        if texts.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("texts is one string; give an iterable of strings, such as [text]"));
        }
        let splitter = splitter(py, pattern)?;
        let (texts, mut seen, wanted) = (texts.try_iter()?.unbind(), 0, vocab_size - 256);
        let mut report = Reporter::new(progress);

        // All without the GIL, which is taken only to get text and to tell how far this is.
        let merges = py.detach(|| -> Result<Vec<Pair>, Stop> {
            let next = || {
                Python::attach(|py| {
                    report.tell(py, "count", seen, None)?;
                    let batch = next_batch(texts.bind(py), seen)?;
                    seen += batch.len();
                    Ok::<_, Stop>(batch)
                })
            };
            let chunks = count(&splitter, threads.unwrap_or_else(cores), next)?;
            train::train(&chunks, wanted, |done| report.tick("merge", done, wanted).map_err(Stop::Python))
        });
        match merges {
            Ok(merges) => {
                report.finish(py, merges.len(), wanted)?;
                py.detach(|| Tokenizer::build(Vocab::from_merges(&merges), splitter))
            }
            Err(Stop::Python(error)) => Err(error),
            Err(Stop::Size(message)) => Err(PyValueError::new_err(message)),
        }
    }

    /// The ids of `text` as a list.
    fn encode<'py>(&self, py: Python<'py>, text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyList>> {
        let ids = self.ids(py, text)?;
        let all = 0..self.tokens().len() as u32;
        let ints = self.ints.get_or_init(py, || all.map(|id| PyInt::new(py, id).unbind()).collect());
        PyList::new(py, ids.iter().map(|&id| ints[id as usize].bind(py)))
    }

    /// The ids of `text` as a numpy array, uint32.
    fn encode_to_numpy<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(self.ids(py, text)?.into_pyarray(py))
    }

    /// The ids of many texts in one array, and where each begins.
    #[pyo3(signature = (texts, threads=1))]
    #[allow(clippy::type_complexity)]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        threads: usize,
    ) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>)> {
        let texts = texts.iter().map(utf8).collect::<PyResult<Vec<_>>>()?;
        let (ids, offsets) = py.detach(|| self.encoder.encode_batch(&texts, threads)).map_err(PyValueError::new_err)?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD.
    fn decode(&self, ids: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(String::from_utf8_lossy(&self.bytes_of(ids)?).into_owned())
    }

    /// The bytes of `ids`.
    fn decode_bytes<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.bytes_of(ids)?))
    }

    /// Every token's bytes with its id, as `tiktoken.Encoding` takes them.
    fn mergeable_ranks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ranks = PyDict::new(py);
        for (id, bytes) in self.tokens().iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            ranks.set_item(PyBytes::new(py, bytes), id)?;
        }
        Ok(ranks)
    }

    /// For each token past the bytes, in the order of ids, the two tokens it joins.
    fn merges(&self, py: Python<'_>) -> PyResult<Vec<Pair>> {
        py.detach(|| self.encoder.merges()).map_err(PyValueError::new_err)
    }

    /// The split pattern.
    #[getter]
    fn pattern(&self) -> &str {
        self.encoder.splitter.pattern()
    }

    /// The number of ids.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.tokens().len()
    }

    fn __repr__(&self) -> String {
        format!("rustbpe.Tokenizer({} tokens)", self.tokens().len())
    }
}

/// The chunks that `pattern` (nanochat's by default) cuts `text` into.
#[pyfunction]
#[pyo3(signature = (text, pattern=None))]
fn split(text: &Bound<'_, PyString>, pattern: Option<&str>) -> PyResult<Vec<String>> {
    let splitter = splitter(text.py(), pattern)?;
    let mut chunks = Vec::new();
    splitter.split(&utf8(text)?, |chunk| chunks.push(chunk.to_string())).map_err(PyValueError::new_err)?;
    Ok(chunks)
}

/// Byte-pair encoding in Rust: train, encode, decode.
#[pymodule]
fn rustbpe(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Tokenizer>()?;
    m.add_function(wrap_pyfunction!(split, m)?)?;
    m.add("PATTERN", DEFAULT_PATTERN)
}

/// Warns, once in a process, of a pattern for which there is only the regex engine.
fn splitter(py: Python<'_>, pattern: Option<&str>) -> PyResult<Splitter> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let splitter = Splitter::new(pattern.unwrap_or(DEFAULT_PATTERN)).map_err(PyValueError::new_err)?;
    if !splitter.by_hand() && !WARNED.swap(true, Ordering::Relaxed) {
        let message =
            c"this split pattern goes to a regex engine, which is many times slower; nanochat's and cl100k's do not";
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), message, 1)?;
    }
    Ok(splitter)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Why training ended early.
enum Stop {
    Python(PyErr),
    Size(String),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Stop {
        Stop::Python(error)
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Size(message)
    }
}

/// Tells Python how far training is, ten times a second at most, and lets Ctrl-C through.
struct Reporter {
    callback: Option<Py<PyAny>>,
    last: Instant,
}

impl Reporter {
    fn new(callback: Option<Py<PyAny>>) -> Reporter {
        Reporter { callback, last: Instant::now() }
    }

    /// For the merge loop, which runs without the GIL: takes it only when it is time.
    fn tick(&mut self, stage: &str, done: usize, total: usize) -> PyResult<()> {
        if self.last.elapsed() < Duration::from_millis(100) {
            return Ok(());
        }
        Python::attach(|py| self.tell(py, stage, done, Some(total)))
    }

    fn tell(&mut self, py: Python<'_>, stage: &str, done: usize, total: Option<usize>) -> PyResult<()> {
        py.check_signals()?;
        if self.last.elapsed() < Duration::from_millis(100) {
            return Ok(());
        }
        self.last = Instant::now();
        match &self.callback {
            Some(callback) => callback.call1(py, (stage, done, total)).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The last word is always said, however short the training was.
    fn finish(&self, py: Python<'_>, done: usize, total: usize) -> PyResult<()> {
        match &self.callback {
            Some(callback) => callback.call1(py, ("merge", done, Some(total))).map(|_| ()),
            None => Ok(()),
        }
    }
}
