"""Running a model over many texts of different lengths: what all evaluations share.

Here a text is a `Span`: token ids, of which those from `start` on are judged. `score_spans` gives, for each span, the mean
loss of the judged tokens and whether greedy decoding would have produced them. Three things make it fast and none of them
changes a result:

- texts of about equal length share a batch, so that little padding is computed;
- logits are computed for judged tokens alone: the head is the dearest part of a model with a large vocabulary;
- the texts of one item usually begin alike (one question, four options). That trunk is read once into a KV cache, and
  only the branches are read once each.

A model is anything with `hidden(idx, cache) -> (B, T, C)` and `head(x) -> logits`, as `nanochat.model.GPT`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine.cache import KVCache

MIN_TRUNK = 16        # shared tokens below which a second forward pass costs more than it saves
HEAD_ROWS = 1024      # positions whose logits are held at once


@dataclass(frozen=True)
class Span:
    """Token ids, (T,) int64, and the first judged one; 1 ≤ start, since nothing predicts the first token."""

    ids: np.ndarray
    start: int


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy of the judged tokens in nats (NaN when there is none), and whether each is the argmax."""

    loss: float
    greedy: bool


@contextmanager
def evaluating(model):
    """The model in eval mode, without gradients; training mode comes back afterwards."""
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        if was_training:
            model.train()


def device_of(model) -> torch.device:
    """Where the model's weights are; a model without weights counts as on the CPU."""
    weight = next(model.parameters(), None) if hasattr(model, "parameters") else None
    return torch.device("cpu") if weight is None else weight.device


def max_length(model) -> int | None:
    """How many positions the model can tell apart: the length of its rotary table, ten times the length it is trained at.
    None for a model without such a limit."""
    return len(model.cos) if hasattr(model, "cos") else None


def length_batches(lengths: Sequence[int], rows: int, tokens: int) -> Iterator[list[int]]:
    """Cut the indices of `lengths` into batches of similar length, longest first: at most `rows` indices and, padding
    counted, `tokens` tokens in each (one index at least).

    list(length_batches([3, 9, 4, 8], rows=2, tokens=100)) == [[1, 3], [2, 0]]
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[batch[0]] > tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[np.ndarray], pad: int, device: torch.device) -> Tensor:
    """Rows of ids as one (B, T) tensor, padded on the right. In a causal model no real token sees what is right of it."""
    out = np.full((len(rows), max(len(r) for r in rows)), pad, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out).to(device)


def common_prefix(rows: Sequence[np.ndarray]) -> int:
    """How many leading tokens all rows share."""
    shortest = min(len(r) for r in rows)
    same = np.ones(shortest, dtype=bool)
    for row in rows[1:]:
        same &= row[:shortest] == rows[0][:shortest]
    return shortest if same.all() else int(same.argmin())


def score_spans(model, items: Sequence[Sequence[Span]], pad: int, batch_size: int = 32) -> list[list[Score]]:
    """The scores of every item's spans, in the same order; `batch_size` bounds the texts in one forward pass.

    The spans of one item are expected to begin alike (that is what makes it fast), but need not.
    """
    device = device_of(model)
    tokens = 2048 if device.type == "cpu" else 65536       # what one forward pass may hold; on a CPU more only leaves its cache
    scores = [[Score(nan, True)] * len(item) for item in items]
    # where[j] says whose score the j-th text is; what is empty has nothing to judge and keeps NaN
    alone: list[tuple[int, int]] = []
    forked: list[tuple[int, list[int], int]] = []                       # (item, its spans, length of their trunk)
    for i, item in enumerate(items):
        judged = [s for s, span in enumerate(item) if span.start < len(span.ids)]
        trunk = 0
        if len(judged) > 1:
            trunk = min(common_prefix([item[s].ids for s in judged]), *(item[s].start - 1 for s in judged))
        if trunk >= MIN_TRUNK:
            forked.append((i, judged, trunk))
        else:
            alone += [(i, s) for s in judged]

    with evaluating(model):
        for batch in length_batches([len(items[i][s].ids) for i, s in alone], batch_size, tokens):
            chosen = [alone[j] for j in batch]
            spans = [items[i][s] for i, s in chosen]
            x = model.hidden(padded([span.ids[:-1] for span in spans], pad, device))             # (B, T, C)
            for (i, s), score in zip(chosen, _read(model, x, spans, [0] * len(spans))):
                scores[i][s] = score
        widths = [max(len(items[i][s].ids) for s in judged) * len(judged) for i, judged, _ in forked]
        fork = max((len(judged) for _, judged, _ in forked), default=1)
        for batch in length_batches(widths, max(1, batch_size // fork), tokens):
            chosen = [forked[j] for j in batch]
            texts = [(i, s) for i, judged, _ in chosen for s in judged]
            spans, trunks = [items[i][s] for i, s in texts], [t for _, judged, t in chosen for _ in judged]
            x = _forked_hidden(model, [[items[i][s] for s in judged] for i, judged, _ in chosen],
                               [t for _, _, t in chosen], pad, device)
            for (i, s), score in zip(texts, _read(model, x, spans, trunks)):
                scores[i][s] = score
    return scores


def _forked_hidden(model, groups: list[list[Span]], trunks: list[int], pad: int, device: torch.device) -> Tensor:
    """Read each group's trunk once, then all branches: hidden states of the branches, (texts, longest branch, C)."""
    branches = [span.ids[t:-1] for group, t in zip(groups, trunks) for span in group]
    room = max(trunks) + max(len(b) for b in branches)
    cache = KVCache(model.config, len(groups), room, device, model.compute_dtype)
    model.hidden(padded([group[0].ids[:t] for group, t in zip(groups, trunks)], pad, device), cache)
    cache.advance(torch.tensor(trunks))
    cache = cache.take([g for g, group in enumerate(groups) for _ in group], room)
    return model.hidden(padded(branches, pad, device), cache)


def _read(model, x: Tensor, spans: list[Span], skipped: list[int]) -> list[Score]:
    """Judge spans by the hidden states x (B, T, C), whose row b begins at token `skipped[b]` of spans[b].

    The state at token t predicts token t + 1. Sums are in double precision, so that equal losses have equal means.
    """
    counts = [len(span.ids) - span.start for span in spans]
    row = np.repeat(np.arange(len(spans)), counts)                                                # (N,)
    column = np.concatenate([np.arange(s.start - 1, len(s.ids) - 1) - k for s, k in zip(spans, skipped)])
    target = np.concatenate([span.ids[span.start:] for span in spans])
    row, column, target = (torch.from_numpy(a).to(x.device) for a in (row, column, target))
    losses, hits = [], []
    for chunk in torch.arange(len(target), device=x.device).split(HEAD_ROWS):
        logits = model.head(x[row[chunk], column[chunk]])                                         # (chunk, V) fp32
        losses.append(F.cross_entropy(logits, target[chunk], reduction="none"))
        hits.append(logits.argmax(-1) == target[chunk])
    losses, hits = torch.cat(losses).cpu().numpy().astype(np.float64), torch.cat(hits).cpu().numpy()
    ends = np.cumsum(counts)
    return [Score(float(losses[e - n : e].mean()), bool(hits[e - n : e].all())) for e, n in zip(ends, counts)]
