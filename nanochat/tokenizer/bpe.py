"""Byte-pair encoding, made to be read: three tokenizers, each the one before plus one idea.

    BasicTokenizer    bytes, and merges of the most frequent pair
    RegexTokenizer    + text is cut into chunks that never merge with each other, + special tokens
    GPT4Tokenizer     + GPT-4's own merges, recovered from the ranks that tiktoken publishes

    tokenizer = RegexTokenizer()
    tokenizer.train(text, vocab_size=512)
    tokenizer.decode(tokenizer.encode("hello")) == "hello"
    tokenizer.save("town")                      # town.model to load, town.vocab to read

Names and file format are minbpe's: code written against its classes runs on these with another import. `rustbpe` does
the same work a thousand times faster; the tests hold its merges and ids equal to these.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import regex

from nanochat.runtime import UserError, atomic_write
from nanochat.tokenizer.cl100k import cl100k

GPT2_SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
GPT4_SPECIAL_TOKENS = {
    "<|endoftext|>": 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}
VERSION = "minbpe v1"  # first line of a .model file

Pair = tuple[int, int]


# ---------------------------------------------------------------------------------------------------------------------
# The two helpers that do all the work


def pair_counts(ids: list[int], counts: dict[Pair, int] | None = None, weight: int = 1) -> dict[Pair, int]:
    """How often each two neighbours occur. Adds to `counts` if given; `weight` is how often `ids` itself occurs.

    >>> pair_counts([1, 2, 3, 1, 2])
    Counter({(1, 2): 2, (2, 3): 1, (3, 1): 1})
    """
    counts = Counter() if counts is None else counts
    if weight == 1:
        Counter.update(counts, pairwise(ids))  # the same in C: a long text has one weight, 1
    else:
        for pair in pairwise(ids):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def get_stats(ids: list[int], counts: dict[Pair, int] | None = None) -> dict[Pair, int]:
    """minbpe's name for `pair_counts`."""
    return pair_counts(ids, counts)


def merge(ids: list[int], pair: Pair, new: int) -> list[int]:
    """A copy of `ids` with each occurrence of `pair`, from left to right without overlap, replaced by `new`.

    >>> merge([1, 2, 3, 1, 2], (1, 2), 4)
    [4, 3, 4]
    >>> merge([1, 1, 1], (1, 1), 4)
    [4, 1]
    """
    first, second = pair
    if first not in ids:  # most words; the search runs in C
        return list(ids)
    merged = []
    i, last = 0, len(ids) - 1
    while i <= last:
        if ids[i] == first and i < last and ids[i + 1] == second:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def most_frequent(counts: Counter) -> Pair:
    """The pair with the highest count; among equals the smaller pair, so that training has one answer.

    >>> most_frequent(Counter({(2, 3): 5, (1, 9): 5, (0, 0): 4}))
    (1, 9)
    """
    return min(counts, key=lambda pair: (-counts[pair], pair))


def printable(token: bytes) -> str:
    r"""A token for people: undecodable bytes as U+FFFD, control characters escaped.

    >>> printable(b"a\nb")
    'a\\u000ab'
    """
    text = token.decode("utf-8", errors="replace")
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c)[0] == "C" else c for c in text)


# ---------------------------------------------------------------------------------------------------------------------


class BasicTokenizer:
    """Byte-pair encoding of raw text: no split, no special tokens.

    >>> tokenizer = BasicTokenizer()
    >>> tokenizer.train("aaabdaaabac", 256 + 3)
    >>> tokenizer.encode("aaabdaaabac")
    [258, 100, 258, 97, 99]
    """

    def __init__(self):
        self.pattern = ""
        self.merges: dict[Pair, int] = {}  # pair -> the token it becomes, in the order of training
        self.special_tokens: dict[str, int] = {}
        self.vocab: dict[int, bytes] = self._build_vocab()

    def train(self, text: str, vocab_size: int, verbose: bool = False) -> None:
        """Learn `vocab_size - 256` merges. ValueError if the text runs out of pairs before."""
        self._train([text.encode("utf-8")], vocab_size, verbose)

    def _train(self, chunks: Iterable[bytes], vocab_size: int, verbose: bool) -> None:
        if vocab_size < 256:
            raise ValueError(f"vocab_size is {vocab_size}; the 256 bytes alone need 256")
        words = [(list(chunk), count) for chunk, count in Counter(chunks).items()]  # each distinct chunk once
        self.merges = {}
        self.vocab = self._build_vocab()
        for new in range(256, vocab_size):
            counts = Counter()
            for ids, count in words:
                pair_counts(ids, counts, count)
            if not counts:
                raise ValueError(f"the text yields no more than {new} tokens, {vocab_size} were asked for")
            pair = most_frequent(counts)
            words = [(merge(ids, pair, new), count) for ids, count in words if len(ids) > 1]
            self.merges[pair] = new
            self.vocab[new] = self.vocab[pair[0]] + self.vocab[pair[1]]
            if verbose:
                token = printable(self.vocab[new])
                print(f"{new - 255}/{vocab_size - 256}: {pair} -> {new} [{token}], seen {counts[pair]} times")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`."""
        return self._encode_chunk(text.encode("utf-8"))

    def _encode_chunk(self, chunk: bytes) -> list[int]:
        """Redo the training on one chunk: of all its pairs, merge the one that was learned first."""
        ids = list(chunk)
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: self.merges.get(pair, float("inf")))
            if pair not in self.merges:
                break
            ids = merge(ids, pair, self.merges[pair])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes are joined first, for a character may span tokens. ValueError for unknown ids."""
        special = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        parts = []
        for i in ids:
            token = self.vocab.get(i, special.get(i))
            if token is None:
                raise ValueError(f"id {i} is not in the vocabulary")
            parts.append(token)
        return b"".join(parts).decode("utf-8", errors="replace")

    def _build_vocab(self) -> dict[int, bytes]:
        vocab = {i: bytes([i]) for i in range(256)}
        for (a, b), new in self.merges.items():
            vocab[new] = vocab[a] + vocab[b]
        return vocab

    def save(self, file_prefix: str) -> None:
        """Write prefix.model, from which `load` restores the tokenizer, and prefix.vocab, for people to read.

        The model is text: a version line, the pattern, the number of special tokens and each with its id, then one
        merge a line as two ids; the token it makes is the next free one.
        """
        names = list(self.special_tokens)
        if any("\n" in line for line in [self.pattern, *names]):
            raise ValueError("a pattern or special token with a line break does not fit the .model format")
        lines = [VERSION, self.pattern, str(len(names))]
        lines += [f"{name} {i}" for name, i in self.special_tokens.items()]
        lines += [f"{a} {b}" for a, b in self.merges]
        atomic_write(f"{file_prefix}.model", "\n".join(lines) + "\n")
        self.save_vocab(f"{file_prefix}.vocab")

    def save_vocab(self, vocab_file: str) -> None:
        """Write one token a line: `[part][part] -> [token] id`, or `[token] id` if it is not a merge."""
        parts = {new: pair for pair, new in self.merges.items()}
        lines = []
        for i, token in self.vocab.items():
            made_of = "".join(f"[{printable(self.vocab[part])}]" for part in parts.get(i, ()))
            lines.append(f"{made_of}{' -> ' if made_of else ''}[{printable(token)}] {i}")
        lines += [f"[{name}] {i}" for name, i in self.special_tokens.items()]
        atomic_write(vocab_file, "\n".join(lines) + "\n")

    def load(self, model_file: str) -> None:
        """Restore what `save` wrote to a .model file. UserError if it is something else."""
        if not str(model_file).endswith(".model"):
            raise UserError(f"{model_file} is not a .model file (a .vocab file is for reading only)")
        try:
            with open(model_file, encoding="utf-8", newline="\n") as f:
                version, pattern, count, *lines = f.read().split("\n")
            if version != VERSION:
                raise ValueError(f"its first line is {version!r:.40}")
            special = [line.rsplit(" ", 1) for line in lines[: int(count)]]
            merges = [tuple(map(int, line.split())) for line in lines[int(count) :] if line]
            self.merges = {(a, b): 256 + i for i, (a, b) in enumerate(merges)}
            self.vocab = self._build_vocab()
            self._restore(pattern, {name: int(i) for name, i in special})
        except FileNotFoundError:
            raise UserError(f"{model_file} does not exist") from None
        except (ValueError, KeyError, regex.error) as error:
            raise UserError(f"{model_file} is not a {VERSION} model ({error}): save it again") from None

    def _restore(self, pattern: str, special_tokens: dict[str, int]) -> None:
        self.pattern, self.special_tokens = pattern, special_tokens


class RegexTokenizer(BasicTokenizer):
    """Adds the split, so that no token spans words or mixes letters with digits, and special tokens.

    >>> tokenizer = RegexTokenizer()
    >>> tokenizer.train("low lower lowest", 256 + 2)
    >>> tokenizer.register_special_tokens({"<|end|>": 258})
    >>> tokenizer.encode("low<|end|>", allowed_special="all")
    [257, 258]
    """

    def __init__(self, pattern: str | None = None):
        super().__init__()
        self._restore(GPT4_SPLIT_PATTERN if pattern is None else pattern, {})

    def _restore(self, pattern: str, special_tokens: dict[str, int]) -> None:
        self.pattern = pattern
        self.compiled_pattern = regex.compile(pattern)
        self.register_special_tokens(special_tokens)

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Name the special tokens and their ids, {text: id}. They replace those registered before."""
        self.special_tokens = dict(special_tokens)
        self.inverse_special_tokens = {i: name for name, i in special_tokens.items()}

    def split(self, text: str) -> list[str]:
        """The chunks of `text`.

        >>> RegexTokenizer().split("I'm 12345  years old")
        ['I', "'m", ' ', '123', '45', ' ', ' years', ' old']
        """
        return [match.group() for match in self.compiled_pattern.finditer(text)]

    def train(self, text: str, vocab_size: int, verbose: bool = False) -> None:
        """Learn `vocab_size - 256` merges inside the chunks of `text`. ValueError if they run out of pairs before."""
        self._train([chunk.encode("utf-8") for chunk in self.split(text)], vocab_size, verbose)

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of `text`, special tokens being text like any other."""
        return [i for chunk in self.split(text) for i in self._encode_chunk(chunk.encode("utf-8"))]

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of `text`; which special tokens in it count as such is the caller's choice.

        "all": every registered one. A set: those. "none": none, they are text. "none_raise" (the default): ValueError
        if the text holds any, for text from outside should not.
        """
        if allowed_special == "all":
            special = self.special_tokens
        elif allowed_special in ("none", "none_raise"):
            found = [name for name in self.special_tokens if name in text] if allowed_special == "none_raise" else []
            if found:
                raise ValueError(f"the text holds the special token {found[0]!r}: say by allowed_special what it means")
            special = {}
        elif isinstance(allowed_special, (set, frozenset)):
            special = {name: i for name, i in self.special_tokens.items() if name in allowed_special}
        else:
            raise ValueError(f"allowed_special is {allowed_special!r}, not 'all', 'none', 'none_raise' or a set")
        if not special:
            return self.encode_ordinary(text)
        longest_first = sorted(special, key=len, reverse=True)  # where one begins like another
        pieces = regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text)
        return [i for piece in pieces for i in ([special[piece]] if piece in special else self.encode_ordinary(piece))]


class GPT4Tokenizer(RegexTokenizer):
    """GPT-4's tokenizer (cl100k_base), rebuilt from published ranks: the same ids as tiktoken's.

    >>> GPT4Tokenizer().encode("hello123!!!? (안녕하세요!) 😉")
    [15339, 4513, 12340, 30, 320, 31495, 230, 75265, 243, 92245, 16715, 57037]

    Two things are missing from the ranks, {token bytes: id}. The merges: a token's two parts are what BPE makes of its
    bytes while it may use lower ranks only. And the order of the bytes: GPT-4's ids of single bytes are permuted, so
    bytes are renamed before merging and renamed back after decoding. Because of that permutation no training on one's
    own text can reproduce these ids, and `train` refuses.

    `mergeable_ranks` other than cl100k's may be given, with the special tokens that go with them.
    """

    def __init__(self, mergeable_ranks: dict[bytes, int] | None = None, special_tokens: dict[str, int] | None = None):
        super().__init__(GPT4_SPLIT_PATTERN)
        if mergeable_ranks is None:
            mergeable_ranks = cl100k()._mergeable_ranks
            special_tokens = GPT4_SPECIAL_TOKENS if special_tokens is None else special_tokens
        self.register_special_tokens(special_tokens or {})
        self.merges = recover_merges(mergeable_ranks)
        self.byte_shuffle = {byte: mergeable_ranks[bytes([byte])] for byte in range(256)}  # byte -> its id
        self.vocab = {i: token for token, i in sorted(mergeable_ranks.items(), key=lambda item: item[1])}

    def _encode_chunk(self, chunk: bytes) -> list[int]:
        return super()._encode_chunk(bytes(self.byte_shuffle[byte] for byte in chunk))

    def train(self, text: str, vocab_size: int, verbose: bool = False) -> None:
        """Refused: GPT-4's byte order cannot be learned."""
        raise NotImplementedError("GPT4Tokenizer is GPT-4's and is not trained; train a RegexTokenizer")

    def save(self, file_prefix: str) -> None:
        """Refused: a .model file has no place for the byte order. `save_vocab` works."""
        raise NotImplementedError("GPT4Tokenizer is rebuilt from tiktoken's ranks, not saved; save_vocab is there")

    def load(self, model_file: str) -> None:
        """Refused, as `save` is."""
        raise NotImplementedError("GPT4Tokenizer is rebuilt from tiktoken's ranks and is not loaded from a file")


def recover_merges(mergeable_ranks: dict[bytes, int]) -> dict[Pair, int]:
    """{(part, part): token}, in the order of ranks, of the tokens that are longer than a byte.

    >>> ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"abc": 257}
    >>> recover_merges(ranks)
    {(97, 98): 256, (256, 99): 257}
    """
    merges = {}
    for token, rank in sorted(mergeable_ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = merge_below(mergeable_ranks, token, rank)
            merges[mergeable_ranks[left], mergeable_ranks[right]] = rank
    return merges


def merge_below(mergeable_ranks: dict[bytes, int], token: bytes, rank: int) -> list[bytes]:
    """The parts that are left of `token` when its bytes are merged by the ranks below `rank`.

    >>> merge_below({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3}, b"abab", 3)
    [b'ab', b'ab']
    """
    parts = [bytes([byte]) for byte in token]
    while True:
        ranks = [mergeable_ranks.get(a + b, rank) for a, b in pairwise(parts)]
        lowest = min(ranks, default=rank)
        if lowest == rank:
            return parts
        i = ranks.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
