"""
The language model as a compressor: text to a file from which the same model makes the same bytes again.

    blob = compress(model, tokenizer, data)          # bytes to bytes
    decompress(model, tokenizer, blob) == data
    rival_sizes(data)                                # {"gzip": …, "xz": …, "zstd": …}

The model says how likely each next token is, an arithmetic coder spends -log2 of that in bits: the file is as long as
the model's cross-entropy, and a header of 24 bytes. Any bytes will do; what is not UTF-8 goes byte by byte. A zero byte
ends a document, as bos did in training, so many texts joined by zeros are predicted as the model knows them: one by one.

Unpacking must see the very numbers that packing saw, for the last bit of one of them can decide between two tokens.
So both walk through the text in the same way: rows of at most `sequence_len` tokens, each begun anew with bos, the same
ROWS rows at a time, one token a step through the KV cache. The fp32 probabilities of a step become whole numbers by
one rule, `shares`. That holds for one machine, device, dtype, thread count and version of torch; elsewhere the sum at
the end tells, and nothing wrong is ever returned.
"""

import gzip
import hashlib
import lzma
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from nanochat.engine.cache import KVCache
from nanochat.evals.coder import Decoder, Encoder
from nanochat.evals.forward import device_of, evaluating
from nanochat.runtime import UserError

MAGIC = b"ncz1"
HEADER = struct.Struct(">4s8sIII")  # magic, digest of the model, rows, sum of the text, sum of all the rest
ROWS = 32  # rows read at once: part of the format, since another batch may round differently
TOTAL = 1 << 24  # the shares of a step add up to about this


def compress(model, tokenizer, data: bytes) -> bytes:
    """`data` as `decompress` takes it, packed with the model's predictions. UserError for more than 2³² - 1 rows."""
    rows = token_rows(tokenizer, data, model.config.sequence_len)
    if len(rows) >= 1 << 32:
        raise UserError(f"compress: {len(rows):,} rows are too many for one file; pack it in parts")
    encoder = Encoder()

    def write(ends: np.ndarray, row: int, t: int) -> int:
        token = rows[row][t]
        encoder.encode(int(ends[token]), int(ends[token + 1]), int(ends[-1]))
        return token

    walk(model, tokenizer.bos, len(rows), write)
    body = encoder.finish()
    parts = MAGIC, digest(model, tokenizer), len(rows), zlib.crc32(data)
    return HEADER.pack(*parts, zlib.crc32(HEADER.pack(*parts, 0) + body)) + body


def decompress(model, tokenizer, blob: bytes) -> bytes:
    """The bytes that `compress` packed. UserError for a damaged file, another model, or a machine that counts otherwise."""
    if len(blob) < HEADER.size or not blob.startswith(MAGIC):
        raise UserError("decompress: this is not a file of nanochat's compressor")
    magic, theirs, count, text_sum, file_sum = HEADER.unpack_from(blob)
    body = blob[HEADER.size :]
    if file_sum != zlib.crc32(HEADER.pack(magic, theirs, count, text_sum, 0) + body):
        raise UserError("decompress: the file is damaged (its checksum differs); fetch it again")
    ours = digest(model, tokenizer)
    if theirs != ours:
        raise UserError(f"decompress: packed with model {theirs.hex()}, this one is {ours.hex()}; load the one it was "
                        "packed with, in the same dtype")  # fmt: skip
    decoder, rows = Decoder(body), [[] for _ in range(count)]

    def read(ends: np.ndarray, row: int, t: int) -> int:
        number = decoder.number(int(ends[-1]))
        token = int(np.searchsorted(ends, number, side="right")) - 1
        decoder.decode(int(ends[token]), int(ends[token + 1]), int(ends[-1]))
        rows[row].append(token)
        return token

    try:
        walk(model, tokenizer.bos, count, read)
        data = b"".join(b"\0" if i == tokenizer.bos else tokenizer.id_to_bytes(i) for row in rows for i in row)[:-1]
    except (ValueError, IndexError):  # an impossible share or id: the numbers have long been others
        data = None
    if data is None or zlib.crc32(data) != text_sum:
        raise UserError("decompress: the model predicts other numbers here than where the file was packed; unpack it "
                        "on the same kind of machine with the same device, threads and torch")  # fmt: skip
    return data


def walk(model, bos: int, rows: int, pick: Callable[[np.ndarray, int, int], int]) -> None:
    """
    Pass over all tokens in the order in which they are coded: pick(ends, row, t) -> id of token t of that row, which
    the model then reads. A row is over at bos or when it is full. ends (V + 1,): token v owns ends[v] .. ends[v + 1] - 1.
    """
    T, device = model.config.sequence_len, device_of(model)
    with evaluating(model):
        for first in range(0, rows, ROWS):
            B = min(ROWS, rows - first)
            cache = KVCache(model.config, B, T, device, model.compute_dtype)
            column, unfinished = [bos] * B, set(range(B))
            for t in range(T):
                hidden = model.hidden(torch.tensor(column, device=device)[:, None], cache)  # (B, 1, C)
                cache.advance(1)
                ends = shares(model.head(hidden[:, -1]))  # (B, V + 1)
                column = [pick(ends[b], first + b, t) if b in unfinished else bos for b in range(B)]
                unfinished = {b for b in unfinished if column[b] != bos}
                if not unfinished:
                    break


def shares(logits: Tensor) -> np.ndarray:
    """
    What each token owns of the coder's interval: logits (B, V) -> ends (B, V + 1), rising whole numbers from 0.

    The share of a token is 1 + the whole part of p · (2²⁴ - V): proportional to its probability, and never nothing, for
    what cannot be coded could not be unpacked.
    """
    p = logits.float().softmax(dim=-1).cpu().numpy().astype(np.float64)
    ends = np.zeros((p.shape[0], p.shape[1] + 1), dtype=np.int64)
    np.cumsum(1 + (p * (TOTAL - p.shape[1])).astype(np.int64), axis=1, out=ends[:, 1:])
    return ends


def token_rows(tokenizer, data: bytes, length: int) -> list[list[int]]:
    """The documents of `data`, cut at its zero bytes, each as ids and a final bos, in rows of at most `length`."""
    documents = [[*token_ids(tokenizer, text), tokenizer.bos] for text in data.split(b"\0")]
    return [ids[at : at + length] for ids in documents for at in range(0, len(ids), length)]


def token_ids(tokenizer, data: bytes) -> list[int]:
    """Ids whose bytes are exactly `data`. Bytes that are not UTF-8 are their own ids, 0 to 255."""
    ids: list[int] = []
    for piece in re.split("([\udc80-\udcff]+)", data.decode("utf-8", "surrogateescape")):
        odd = piece and "\udc80" <= piece[0] <= "\udcff"
        ids += piece.encode("utf-8", "surrogateescape") if odd else tokenizer.encode(piece)
    return ids


def digest(model, tokenizer) -> bytes:
    """Eight bytes that differ wherever config, dtype, a weight or the tokenizer does."""
    seen = hashlib.sha256(f"{tokenizer.digest} {model.config} {model.compute_dtype}".encode())
    for name, weight in sorted(model.state_dict().items()):
        seen.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        seen.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return seen.digest()[:8]


def rival_sizes(data: bytes) -> dict[str, int]:
    """Bytes that other programs need, each at its strongest usual setting."""
    return {
        "gzip": len(gzip.compress(data, 9, mtime=0)),
        "xz": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "zstd": len(pa.Codec("zstd", compression_level=22).compress(data, asbytes=True)),
    }
