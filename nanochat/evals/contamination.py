"""Contamination: which questions of an evaluation stand in the training text?

    exams = Exams({"gsm8k": [question(item) for item in load_task("gsm8k", "test")]})
    found = exams.search(document for shard in shards for document in shard)      # found["gsm8k"].overlap.mean()

Two counts, as in the report on GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C): `exact`, a training document or
message is the question, but for case and punctuation; `overlap`, some 13 words in a row of it (all of a shorter question)
occur in training. The second finds quotes and near copies, and innocent phrases too: read the hits before believing them.

Only hashes of the questions are held, and a few megabytes of text at a time, so a shard of any size can be searched.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.evals.core import read_bundle, read_items
from nanochat.tasks.task import whole_text

N = 13                # words in a row that are no coincidence
SHORTEST = 4          # a question of fewer words is compared as a whole only
AT_ONCE = 1 << 18     # words searched at a time
WORD = re.compile(r"\w+|[-+*/%=<>]")
BASE = np.uint64(0x9E3779B97F4A7C15)                         # odd, hence invertible modulo 2^64
INVERSE = np.uint64(pow(int(BASE), -1, 1 << 64))


@dataclass(frozen=True)
class Found:
    """For each question of an exam whether it was found: whole, and by 13 words in a row. (questions,) bool each."""

    exact: np.ndarray
    overlap: np.ndarray

    def __or__(self, other: "Found") -> "Found":
        return Found(self.exact | other.exact, self.overlap | other.overlap)


class Exams:
    """Questions to be looked for: {exam: its questions}."""

    def __init__(self, questions: dict[str, list[str]]):
        self.sizes = {name: len(texts) for name, texts in questions.items()}
        whole, grams, lengths = [], [], []                   # grams: (their length, their hashes) by question
        for text in (text for texts in questions.values() for text in texts):
            words = hashes(text)
            whole.append(_windows(words, len(words))[0] if len(words) else 0)
            n = min(N, len(words))
            lengths.append(n)
            grams.append(_windows(words, n) if n >= SHORTEST else np.empty(0, np.uint64))
        self._whole = np.array(whole, dtype=np.uint64)       # (questions,)
        self._sets = [_Set(n, [g if n == length else g[:0] for g, length in zip(grams, lengths)])
                      for n in sorted(set(lengths)) if n >= SHORTEST]

    def search(self, texts: Iterable[str]) -> dict[str, Found]:
        """Which questions occur in these documents and messages: {exam: Found}."""
        exact = np.zeros(len(self._whole), dtype=bool)
        overlap = np.zeros(len(self._whole), dtype=bool)
        seen = [np.zeros(len(grams.hashes), dtype=bool) for grams in self._sets]
        for words, starts, ends in _batches(texts):
            exact |= np.isin(self._whole, _spans(words, starts, ends))
            for grams, hits in zip(self._sets, seen):
                hits[grams.find(_windows(words, grams.n))] = True
        for grams, hits in zip(self._sets, seen):
            overlap[grams.owners(hits)] = True
        found, at = {}, 0
        for name, size in self.sizes.items():
            found[name] = Found(exact[at:at + size], (overlap | exact)[at:at + size])
            at += size
        return found


class _Set:
    """The n-grams of all questions of one length, found by hash."""

    def __init__(self, n: int, grams: list[np.ndarray]):
        self.n = n
        self._owner = np.repeat(np.arange(len(grams)), [len(g) for g in grams])          # question of each gram
        self.hashes, self._which = np.unique(np.concatenate(grams), return_inverse=True)  # sorted
        bits = int(np.clip(np.log2(8 * len(self.hashes)), 16, 26))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, dtype=bool)        # a first look that spares most searches
        self._maybe[self.hashes >> self._shift] = True

    def find(self, windows: np.ndarray) -> np.ndarray:
        """Places in `hashes` of those that are among the windows."""
        windows = windows[self._maybe[windows >> self._shift]]
        at = np.searchsorted(self.hashes, windows)
        at[at == len(self.hashes)] = 0
        return at[self.hashes[at] == windows]

    def owners(self, hits: np.ndarray) -> np.ndarray:
        return self._owner[hits[self._which]]


def hashes(text: str) -> np.ndarray:
    """The words of a text as 64-bit hashes, (words,) uint64; alike only within this process."""
    words = WORD.findall(text.lower())
    return np.fromiter(map(hash, words), dtype=np.int64, count=len(words)).view(np.uint64)


def _batches(texts: Iterable[str]):
    """(words, starts, ends): the words of many texts, a random one between every two, and where each text is."""
    rng, parts, size = np.random.default_rng(), [], 0
    def batch():
        lengths = np.array([len(part) for part in parts])
        ends = np.cumsum(lengths + 1) - 1
        words = np.empty(size, dtype=np.uint64)
        words[ends] = rng.integers(0, 1 << 63, len(parts), dtype=np.uint64)
        words[np.delete(np.arange(size), ends)] = np.concatenate(parts)
        return words, ends - lengths, ends
    for text in texts:
        parts.append(hashes(text))
        size += len(parts[-1]) + 1
        if size >= AT_ONCE:
            yield batch()
            parts, size = [], 0
    if parts:
        yield batch()


def _spans(words: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of words[start:end] for every span: Σ word · BASE^place, all modulo 2^64."""
    with np.errstate(over="ignore"):
        powers = np.full(len(words), BASE)
        powers[:1] = 1
        sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(words * np.multiply.accumulate(powers))))
        back = np.full(len(words) + 1, INVERSE)
        back[0] = 1
        return (sums[ends] - sums[starts]) * np.multiply.accumulate(back)[starts]


def _windows(words: np.ndarray, n: int) -> np.ndarray:
    """The hashes of all n words in a row."""
    starts = np.arange(max(0, len(words) - n + 1))
    return _spans(words, starts, starts + n)


def question(item: dict) -> str:
    """What an item asks; of a multiple-choice item the question and its options, without the frame all prompts share."""
    if "text" in item:
        return item["text"]
    text = whole_text(next(m["content"] for m in item["messages"] if m["role"] == "user"))
    if "letters" not in item:
        return text
    stem, *options = text.removeprefix("Multiple Choice question: ").removesuffix("Answer with the letter only.").split("\n- ")
    return "\n".join([stem, *(option.rstrip().rpartition("=")[0] for option in options)])


def texts_of(item: dict) -> list[str]:
    """All that an item teaches: a document, or a question and the messages of its conversation."""
    if "text" in item:
        return [item["text"]]
    return [question(item), *(whole_text(message["content"]) for message in item["messages"] if "letters" not in item)]


def core_questions(bundle: str | Path) -> dict[str, list[str]]:
    """The questions of every task of a CORE bundle: the query, the contexts with their ending, or the context and its ending."""
    def asked(item: dict) -> list[str]:
        if "query" in item:
            return [item["query"]]
        if "context_options" in item:
            return [f"{context} {item['continuation']}" for context in item["context_options"]]
        return [f"{item['context']} {item['continuation']}"]

    return {f"core/{task.label}": [text for item in read_items(task) for text in asked(item)] for task in read_bundle(bundle)}
