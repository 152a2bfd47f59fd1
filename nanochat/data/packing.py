"""Packing: documents of many lengths into rows of one length.

A packer keeps a shelf of documents and fills one row at a time. Two policies share the shelf and the rule "take the
longest that still fits":

    BestFitCrop   pretraining: rows are always full; when nothing fits, the shortest document is cut, its tail dropped
    BestFitPad    chat: nothing is ever cut; when nothing fits, the rest of the row is padding

    packer = BestFitCrop(capacity=2049, buffer=1000)
    pieces = packer.row(draw)          # [(Document, how many of its tokens)]; draw() gives a Document, at the end None

A row has T + 1 tokens, so that inputs row[:-1] and targets row[1:] have T each. Every document begins with bos: a model
that reads packed rows sees where each one starts.
"""

from bisect import bisect_right, insort
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np


class Document(NamedTuple):
    """Token ids of one document or conversation, which of them are trained on, and the key that finds it again."""

    key: Any                 # JSON-able: what the source needs to fetch this document once more
    ids: np.ndarray          # (n,) token ids, bos first
    mask: np.ndarray         # (n,) 1 where the token is a target


Draw = Callable[[], "Document | None"]


class Shelf:
    """Documents sorted by length. Taking is a binary search; among equal lengths the one that came first goes first."""

    def __init__(self):
        self._keys: list[tuple[int, int]] = []     # (length, −arrival), ascending
        self._documents: dict[int, Document] = {}  # arrival → document
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, document: Document) -> None:
        self._documents[self._arrivals] = document
        insort(self._keys, (len(document.ids), -self._arrivals))
        self._arrivals += 1

    def take_longest(self, room: int) -> Document | None:
        """The longest document of at most `room` tokens, or None when none is that short."""
        at = bisect_right(self._keys, (room, 0)) - 1
        return self._take(at) if at >= 0 else None

    def take_shortest(self) -> Document:
        shortest = self._keys[0][0]
        return self._take(bisect_right(self._keys, (shortest, 0)) - 1)

    def documents(self) -> list[Document]:
        """All documents in the order of their arrival: adding them to an empty shelf gives an equal shelf."""
        return [self._documents[arrival] for arrival in sorted(self._documents)]

    def _take(self, at: int) -> Document:
        _, arrival = self._keys.pop(at)
        return self._documents.pop(-arrival)


class _BestFit:
    def __init__(self, capacity: int, buffer: int):
        self.capacity, self.buffer, self.shelf = capacity, buffer, Shelf()

    def fill_shelf(self, draw: Draw) -> None:
        while len(self.shelf) < self.buffer and (document := draw()) is not None:
            self.shelf.add(document)


class BestFitCrop(_BestFit):
    """Rows without a hole, for pretraining: 100 % of the row is text, at the price of cut documents.

    The documents that are cut are the shortest at hand, so what is thrown away is little where lengths vary. Only the
    last row of a finite source may be short.
    """

    def row(self, draw: Draw) -> list[tuple[Document, int]]:
        pieces, room = [], self.capacity
        while room:
            self.fill_shelf(draw)
            if not len(self.shelf):
                break
            document = self.shelf.take_longest(room) or self.shelf.take_shortest()
            take = min(room, len(document.ids))
            pieces.append((document, take))
            room -= take
        return pieces


class BestFitPad(_BestFit):
    """Rows of whole items, for chat: a conversation cut in the middle would teach half an answer."""

    def row(self, draw: Draw) -> list[tuple[Document, int]]:
        pieces, room = [], self.capacity
        while room:
            self.fill_shelf(draw)
            document = self.shelf.take_longest(room)
            if document is None:
                break
            pieces.append((document, len(document.ids)))
            room -= len(document.ids)
        if not pieces and len(self.shelf):
            length = len(self.shelf.take_shortest().ids)
            raise ValueError(f"an item of {length} tokens does not fit a row of {self.capacity}")
        return pieces


def write_rows(rows: list[list[tuple[Document, int]]], capacity: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay packed pieces out as inputs and targets, (rows, capacity − 1) each, int64.

    Best fit finds the longest piece first. Laid out like that no row would begin with a short document, and a model
    trained on such rows stumbles over every short prompt, which stands at the start of its row. So the order is drawn by
    lot: by the checksum of the pieces, which needs no state. A cut document stays last: its end is no end.

    Padding is `pad` (bos) in the inputs. A target is −1, which the loss ignores, where the next token is padding or its
    mask is 0.
    """
    ids = np.full((len(rows), capacity), pad, dtype=np.int64)
    mask = np.zeros((len(rows), capacity), dtype=bool)
    for r, pieces in enumerate(rows):
        at = 0
        for document, take in sorted(pieces, key=lot):
            ids[r, at:at + take] = document.ids[:take]
            mask[r, at:at + take] = document.mask[:take]
            at += take
    return ids[:, :-1], np.where(mask[:, 1:], ids[:, 1:], -1)


def lot(piece: tuple[Document, int]) -> tuple[bool, int]:
    """Where a piece comes in its row: whole documents in the order of their checksums, then the cut one."""
    document, take = piece
    return take < len(document.ids), crc32(np.asarray(document.ids, dtype=np.int32).tobytes())
