"""The tokenizer that everything else uses: rustbpe's merges, nine special tokens, the chat format.

    tokenizer = Tokenizer.train(texts, vocab_size=32_768)
    tokenizer.save(run / "tokenizer")                      # model.json: pattern, merges, special tokens
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    tokenizer.decode(tokenizer.encode("hello")) == "hello"

Ids 0..255 are the bytes, then come the merges, and the special tokens are the last nine. Ordinary text never encodes to
a special id. The same ids come from `to_tiktoken()` and from the folder that `to_hf()` writes.
"""

import hashlib
import html
import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

import rustbpe
from nanochat.runtime import UserError, atomic_write, read_json
from nanochat.tokenizer import chat
from nanochat.tokenizer.chat import SPECIAL_TOKENS

SCHEMA = 1
FILE = "model.json"


def SPLIT_PATTERN(digits: int) -> str:
    r"""nanochat's split pattern with numbers cut into at most `digits` digits: \p{N}{1,digits}.

    A small vocabulary cannot afford a token for each pair of digits, and sums are easier to learn digit by digit.
    """
    return rustbpe.PATTERN.replace(r"\p{N}{1,2}", rf"\p{{N}}{{1,{digits}}}")


class Tokenizer:
    """Text to ids and back. Holds numpy and plain Python only; make one by `train` or `from_dir`."""

    def __init__(self, bpe: rustbpe.Tokenizer, merges: list[tuple[int, int]]):
        first = bpe.vocab_size
        self.special: dict[str, int] = {name: first + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size = first + len(SPECIAL_TOKENS)
        self.bos = self.special["<|bos|>"]
        self.pattern = bpe.pattern
        self.merges = merges
        self.mergeable_ranks: dict[bytes, int] = bpe.mergeable_ranks()
        self._bpe = bpe
        self._bytes = {i: token for token, i in self.mergeable_ranks.items()}
        self._bytes |= {i: name.encode() for name, i in self.special.items()}
        # (V,) int32: the bytes each id stands for in text; 0 for special tokens, which stand for none
        lengths = [len(self._bytes[i]) for i in range(first)] + [0] * len(SPECIAL_TOKENS)
        self.token_bytes = np.array(lengths, dtype=np.int32)
        self.digest = hashlib.sha256(self._model().encode()).hexdigest()

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        digits: int = 2,
        progress: Callable[[str, int, int | None], object] | None = None,
        threads: int | None = None,
    ) -> "Tokenizer":
        """Learn `vocab_size` tokens, the 256 bytes and the special ones included.

        `progress(stage, done, total)` hears of stage "count" (texts; total None) and "merge". The result does not
        depend on `threads`. UserError when the texts are too few for so many tokens.
        """
        least = 256 + len(SPECIAL_TOKENS)
        if vocab_size < least:
            raise UserError(f"vocab_size is {vocab_size}: bytes and special tokens alone need {least}")
        if not 1 <= digits <= 9:
            raise UserError(f"digits is {digits}: a chunk of a number holds 1 to 9 digits")
        size = vocab_size - len(SPECIAL_TOKENS)
        bpe = rustbpe.Tokenizer.train_from_iterator(texts, size, SPLIT_PATTERN(digits), threads, progress)
        if bpe.vocab_size < size:
            most = bpe.vocab_size + len(SPECIAL_TOKENS)
            raise UserError(
                f"the texts yield no more than {most} tokens, {vocab_size} were asked for: "
                "give more text or ask for fewer"
            )
        return cls(bpe, bpe.merges())

    def save(self, folder: str | Path) -> None:
        """Write `folder`/model.json, atomically."""
        atomic_write(Path(folder) / FILE, self._model())

    @classmethod
    def from_dir(cls, folder: str | Path) -> "Tokenizer":
        """Read what `save` wrote. UserError if it is missing or not a tokenizer of ours."""
        path = Path(folder) / FILE
        if not path.exists():
            raise UserError(f"no tokenizer in {folder} ({FILE} is missing): lesson 02 trains one")
        model = read_json(path)
        try:
            if model["schema"] != SCHEMA or list(model["special_tokens"]) != list(SPECIAL_TOKENS):
                raise ValueError("it is of another version")
            merges = [(a, b) for a, b in model["merges"]]
            return cls(rustbpe.Tokenizer.from_merges(merges, model["pattern"]), merges)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path} is not a tokenizer that this version can read ({error}): train it again") from None

    def _model(self) -> str:
        model = {
            "schema": SCHEMA, "pattern": self.pattern, "special_tokens": SPECIAL_TOKENS, "merges": self.merges
        }  # fmt: skip
        return json.dumps(model, separators=(",", ":")) + "\n"

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """The ids of `text`, behind a bos if asked for. What looks like a special token in `text` is spelled out."""
        ids = self._bpe.encode(text)
        return [self.bos, *ids] if bos else ids

    def encode_numpy(self, text: str) -> np.ndarray:
        """The ids of `text` as uint32 (n,), for the data path."""
        return self._bpe.encode_to_numpy(text)

    def encode_batch(self, texts: list[str], threads: int = 1) -> list[np.ndarray]:
        """The ids of each text, uint32; `threads` share the texts."""
        ids, offsets = self._bpe.encode_batch(texts, threads)
        return [ids[start:end] for start, end in pairwise(offsets.tolist())]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, special tokens their names."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, exactly. ValueError for an id outside the vocabulary."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids  # arrays and tensors: plain ints are looked up faster
        try:
            return b"".join([self._bytes[i] for i in ids])
        except KeyError as error:
            raise ValueError(f"id {error} is not in the vocabulary of {self.vocab_size} tokens") from None

    def id_to_bytes(self, i: int) -> bytes:
        """The bytes of one token; of a special one, its name."""
        return self.decode_bytes([int(i)])

    def render(self, item: dict, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
        """(ids, mask) of a document {"text": ...} or of a conversation {"messages": [...]}, cut to `max_tokens`."""
        if "text" in item:
            return chat.render_document(self, item["text"], max_tokens)
        return chat.render_conversation(self, item, max_tokens)

    def render_conversation(self, conversation: dict, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
        """(ids, mask); the mask is 1 on what the model is trained to write. See chat.py for the format."""
        return chat.render_conversation(self, conversation, max_tokens)

    def render_for_completion(self, conversation: dict) -> list[int]:
        """The ids that ask for the next answer; a last assistant message is dropped first."""
        return chat.render_for_completion(self, conversation)

    def visualize(self, ids: list[int], mask: list[int], as_html: bool = False) -> str:
        """The tokens one by one, green where the model is trained and red where not: for a terminal, or as HTML."""
        pieces = []
        for i, trained in zip(ids, mask, strict=True):
            text = self.id_to_bytes(i).decode("utf-8", errors="replace").replace("\n", "⏎")
            if as_html:
                colour = "#c8f0c8" if trained else "#f6d0d0"
                style = f"background:{colour};color:#111;margin:1px;padding:0 2px;white-space:pre"
                pieces.append(f'<span style="{style}">{html.escape(text)}</span>')
            else:
                text = "".join(c if c.isprintable() else "·" for c in text)
                pieces.append(f"\033[{32 if trained else 31}m{text}\033[0m")
        return f"<div style='font-family:monospace'>{''.join(pieces)}</div>" if as_html else "|".join(pieces)

    def to_tiktoken(self):
        """This tokenizer as a `tiktoken.Encoding`: the same ids, special tokens included."""
        from nanochat.tokenizer import export

        return export.to_tiktoken(self)

    def to_hf(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` reads: the same ids."""
        from nanochat.tokenizer import export

        export.to_hf(self, folder)
