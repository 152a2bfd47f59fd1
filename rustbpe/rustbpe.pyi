"""Byte-pair encoding in Rust: train, encode, decode.

The same algorithm in readable Python is `nanochat.tokenizer.bpe`. Special tokens are not known here: ordinary text
never encodes to one, and `nanochat.tokenizer.Tokenizer` adds them on top.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

PATTERN: str
"""nanochat's split pattern: GPT-4's, with numbers cut into at most two digits.

This one, the same with one to nine digits, and cl100k's as tiktoken writes it are cut by hand-written code. Any other goes
to a regex engine, many times slower; the first one in a process makes a UserWarning say so.
"""

def split(text: str, pattern: str | None = None) -> list[str]:
    """The chunks that `pattern` (PATTERN by default) cuts `text` into.

    >>> split("I'm 1234  ok")
    ['I', "'m", ' ', '12', '34', ' ', ' ok']
    """

class Tokenizer:
    """A trained byte-pair encoding. Immutable, and safe to use from several threads at once."""

    pattern: str
    vocab_size: int

    def __init__(self, mergeable_ranks: dict[bytes, int], pattern: str | None = None) -> None:
        """From tokens and their ranks, as tiktoken publishes them. ValueError if a byte is missing or a rank comes twice."""

    @staticmethod
    def from_merges(merges: Sequence[tuple[int, int]], pattern: str | None = None) -> Tokenizer:
        """From merges: the i-th joins two ids to the token 256 + i. ValueError if one names a later token."""

    @staticmethod
    def train_from_iterator(
        texts: Iterable[str],
        vocab_size: int,
        pattern: str | None = None,
        threads: int | None = None,
        progress: Callable[[str, int, int | None], object] | None = None,
    ) -> Tokenizer:
        """Learn `vocab_size - 256` merges.

        Each step merges the pair with the highest count, among equals the smaller pair. Chunks of `pattern` never
        merge with each other, nor do texts. The result is the same for any number of `threads` (default: all cores,
        for the counting; the merges run on one). Texts are asked for while earlier ones are counted, and none is kept.
        Has fewer tokens than asked for when nothing is left to merge.

        `progress(stage, done, total)` is called at most ten times a second and once at the end: stage "count" (texts
        read, total None), then "merge". What it raises, Ctrl-C included, ends the training.

        >>> Tokenizer.train_from_iterator(["aaabdaaabac"], 259).encode("aaabdaaabac")
        [258, 100, 258, 97, 99]

        Raises ValueError for a vocab_size below 256 or a bad pattern, TypeError for what is not a string.
        """

    def encode(self, text: str) -> list[int]:
        """The ids of `text`."""

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of `text` as uint32 (n,): faster than a list, and half its memory.

        The GIL is released while a text of more than 4 kB is encoded, here and in `encode`.
        """

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(ids, offsets): all ids in a row, uint32, and int64 (len(texts) + 1,).

        Text i is ids[offsets[i]:offsets[i + 1]]. The result is the same for any number of `threads`, which take the
        texts in blocks of 128 kB: less text than that is encoded by one. Each thread in use keeps a cache of 9 MB.
        With the 256 bytes as the only tokens, ["hi", "", "!"] gives ids [104, 105, 33] and offsets [0, 2, 2, 3].
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD. ValueError for an id outside the vocabulary."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, exactly. ValueError for an id outside the vocabulary."""

    def mergeable_ranks(self) -> dict[bytes, int]:
        """Every token's bytes with its id: what `tiktoken.Encoding(mergeable_ranks=...)` takes."""

    def merges(self) -> list[tuple[int, int]]:
        """For each token past the bytes, in the order of ids, the two tokens it joins.

        Recovered from the ranks alone. ValueError if they are not those of a byte-pair encoding.
        """
