"""Batches for training and validation, the same on one rank or eight, and resumable to the bit.

    loader = pretrain_loader(train_shards, tokenizer, rows=32, sequence_len=128)
    inputs, targets = loader.next()              # (rows / world, T) int64 each; target −1 is ignored by the loss
    state = loader.state()                       # JSON-able; one per rank goes into the checkpoint
    loader.load([state])                         # all ranks' states; each loader picks what is its own

How. The data is cut into `streams` independent logical streams, each with its own place in the data and its own packer;
stream s always makes rows s·R … (s+1)·R − 1 of the global batch, R = rows / streams. A rank owns a run of neighbouring
streams. So the global batch does not depend on how many ranks there are, and a checkpoint of 8 ranks continues on 2.

A row group of text that cannot be read has no documents, on any rank (see `shards`); the state holds which were met.

The state of a stream is its place and the *keys* of the documents on its packer's shelf; loading fetches these
documents again. That is exact, and a few kilobytes where the tokens would be megabytes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nanochat.data.mixture import Mixture
from nanochat.data.packing import BestFitCrop, BestFitPad, Document, Shelf, write_rows
from nanochat.data.shards import TextShards
from nanochat.runtime import UserError

ENCODE_AT_ONCE = 128  # documents per call of the tokenizer


class TextSource:
    """The documents of one stream of text shards: row groups s, s + S, s + 2S, … of an order shuffled each epoch.

    With loop=False the row groups come in file order, once.
    """

    def __init__(self, shards: TextShards, tokenizer, stream: int, streams: int, seed: int, loop: bool):
        self.shards, self.tokenizer = shards, tokenizer
        self.stream, self.streams, self.seed, self.loop = stream, streams, seed, loop
        self.seek([0, 0])

    def draw(self) -> Document | None:
        while self._texts is None or self.index >= len(self._texts):
            if self._texts is not None:
                self.seek([self.turn + 1, 0])
            self._group = self._group_of(self.turn)
            if self._group is None:
                return None
            self._texts, self._encoded = self.shards.read(self._group), (0, [])
        first, encoded = self._encoded
        if not first <= self.index < first + len(encoded):
            first = self.index - self.index % ENCODE_AT_ONCE
            encoded = self.tokenizer.encode_batch(self._texts[first:first + ENCODE_AT_ONCE])
            self._encoded = (first, encoded)
        document = self._document([self._group, self.index], encoded[self.index - first])
        self.index += 1
        return document

    def fetch(self, keys: list) -> list[Document]:
        """The documents with these keys [row group, index], in this order."""
        found = {}
        for group in sorted({group for group, _ in keys}):
            texts = self.shards.read(group)
            wanted = [index for g, index in keys if g == group]
            if max(wanted) >= len(texts):
                raise UserError(f"cannot resume: row group {group} of the text can no longer be read; restore the file")
            for index, ids in zip(wanted, self.tokenizer.encode_batch([texts[index] for index in wanted])):
                found[group, index] = self._document([group, index], ids)
        return [found[group, index] for group, index in keys]

    def place(self) -> list[int]:
        return [self.turn, self.index]

    def seek(self, place: list[int]) -> None:
        self.turn, self.index = place
        self._texts = self._encoded = self._group = None

    def _group_of(self, turn: int) -> int | None:
        epoch, i = divmod(self.stream + turn * self.streams, len(self.shards))
        if not self.loop:
            return i if epoch == 0 else None
        return int(np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))[i])

    def _document(self, key: list, ids) -> Document:
        # bos is a target too: it is how a base model learns that a text is over.
        ids = np.concatenate(([self.tokenizer.bos], ids)).astype(np.int32)
        return Document(key, ids, np.ones(len(ids), dtype=np.uint8))


class MixtureSource:
    """The items of one stream of a mixture, rendered to tokens and a loss mask, cut at `max_tokens`."""

    def __init__(self, mixture: Mixture, tokenizer, stream: int, streams: int, max_tokens: int):
        self.walk = mixture.walk(stream, streams)
        self.mixture, self.tokenizer, self.max_tokens = mixture, tokenizer, max_tokens

    def draw(self) -> Document:
        part, position, item = self.walk.draw()
        document = self._document([part, position], item)
        self.walk.pay(part, len(document.ids))
        return document

    def fetch(self, keys: list) -> list[Document]:
        return [self._document([part, position], self.mixture.item(part, position)) for part, position in keys]

    def place(self) -> list[list[int]]:
        return [list(self.walk.taken), list(self.walk.spent)]

    def seek(self, place: list[list[int]]) -> None:
        self.walk.taken, self.walk.spent = list(place[0]), list(place[1])

    def _document(self, key: list, item: dict) -> Document:
        ids, mask = self.tokenizer.render(item, self.max_tokens)
        return Document(key, np.asarray(ids, dtype=np.int32), np.asarray(mask, dtype=np.uint8))


class Stream:
    """A source and the packer it feeds."""

    def __init__(self, source, packer):
        self.source, self.packer = source, packer

    def rows(self, n: int) -> list[list[tuple[Document, int]]]:
        return [self.packer.row(self.source.draw) for _ in range(n)]

    def state(self) -> dict:
        return {"place": self.source.place(), "shelf": [document.key for document in self.packer.shelf.documents()]}

    def load(self, state: dict) -> None:
        self.source.seek(state["place"])
        self.packer.shelf = Shelf()
        for document in self.source.fetch(state["shelf"]):
            self.packer.shelf.add(document)


class Loader:
    """Batches of this rank. An iterator too: a finite loader ends with StopIteration when its own streams are dry.

    streams: {number: Stream} of this rank, in order. same: whatever must be equal for a saved state to fit.
    shards: the text behind it (None for conversations); `shards.bad` are the row groups that were skipped.
    """

    def __init__(self, streams: dict[int, Stream], rows: int, sequence_len: int, pad: int, same: dict,
                 shards: TextShards | None = None):
        self.streams, self.same, self.shards, self._pad = streams, same, shards, pad
        self.rows, self.sequence_len = rows, sequence_len   # rows of this rank's batch, tokens of a row
        self.keys: list[list] = []                          # the documents of the last batch, row by row

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, targets), each (rows, T) int64. Raises StopIteration when a finite source has ended."""
        packed = [row for stream in self.streams.values() for row in stream.rows(self.rows // len(self.streams))]
        if not any(packed):
            raise StopIteration
        self.keys = [[document.key for document, _ in row] for row in packed]
        return write_rows(packed, self.sequence_len + 1, self._pad)

    __next__ = next

    def __iter__(self) -> "Loader":
        return self

    def state(self) -> dict:
        """Where this rank's streams are. JSON-able."""
        return {"same": self.same, "streams": {str(s): stream.state() for s, stream in self.streams.items()},
                "skipped": {str(group): why for group, why in self.shards.bad.items()} if self.shards else {}}

    def load(self, states: list[dict]) -> None:
        """Continue where the loaders that gave `states` (one per rank, any number of ranks) stood.

        Raises UserError when they read other data, or packed it in another way.
        """
        saved: dict[str, dict] = {}
        for state in states:
            for what, mine in self.same.items():
                if state["same"].get(what) != mine:
                    raise UserError(f"cannot resume: the checkpoint's data had {what} {state['same'].get(what)!r}, "
                                    f"this run has {mine!r}; restore that setting or start the stage again")
            saved.update(state["streams"])
            if self.shards:  # counted together: each rank has met its own
                self.shards.skip({int(group): why for group, why in state.get("skipped", {}).items()})
        missing = [s for s in self.streams if str(s) not in saved]
        if missing:
            raise UserError(f"cannot resume: the checkpoint lacks the data streams {missing}; a rank's file is missing")
        for s, stream in self.streams.items():
            stream.load(saved[str(s)])


def pretrain_loader(paths: Iterable[str | Path], tokenizer, *, rows: int, sequence_len: int, seed: int = 0,
                    streams: int = 4, rank: int = 0, world: int = 1, loop: bool = True, buffer: int = 1000) -> Loader:
    """Packed text for pretraining (BestFitCrop); loop=False reads everything once, for validation.

    rows: rows of the global batch. buffer: documents on the shelves of all streams together. A finite loader fills the
    last rows up with padding; its ranks may end a few batches apart, so sum over ranks at the end and not in between.
    """
    mine = _streams_of(rows, streams, rank, world)
    shards = TextShards(paths)
    same = {"kind": "text", "data": shards.digest, "tokenizer": tokenizer.digest, "rows": rows,
            "sequence_len": sequence_len, "streams": streams, "seed": seed}
    return Loader({s: Stream(TextSource(shards, tokenizer, s, streams, seed, loop),
                             BestFitCrop(sequence_len + 1, max(1, buffer // streams))) for s in mine},
                  rows // world, sequence_len, tokenizer.bos, same, shards)


def chat_loader(mixture: Mixture, tokenizer, *, rows: int, sequence_len: int, streams: int = 4, rank: int = 0,
                world: int = 1, buffer: int = 400) -> Loader:
    """Packed conversations for midtraining and SFT (BestFitPad). The seed is the mixture's; items are cut at T + 1."""
    mine = _streams_of(rows, streams, rank, world)
    same = {"kind": "chat", "data": mixture.digest, "tokenizer": tokenizer.digest, "rows": rows,
            "sequence_len": sequence_len, "streams": streams}
    return Loader({s: Stream(MixtureSource(mixture, tokenizer, s, streams, sequence_len + 1),
                             BestFitPad(sequence_len + 1, max(1, buffer // streams))) for s in mine},
                  rows // world, sequence_len, tokenizer.bos, same)


def _streams_of(rows: int, streams: int, rank: int, world: int) -> range:
    """The streams of a rank."""
    if rows < 1 or streams < 1 or rows % streams:
        raise UserError(f"a batch of {rows} rows does not divide into {streams} data streams; change rows or streams")
    if streams % world:
        raise UserError(f"{streams} data streams do not divide over {world} processes; use a divisor of {streams}")
    return range(rank * streams // world, (rank + 1) * streams // world)
