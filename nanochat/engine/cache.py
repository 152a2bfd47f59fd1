"""The KV cache: keys and values of every token already read, so that a new token costs one step and not the whole text.

    cache = KVCache(model.config, rows=2, max_len=64)
    model.hidden(idx, cache)                 # idx (2, T): rows of different lengths are padded on the right
    cache.advance(torch.tensor([5, 3]))      # how many of the T tokens of each row are real
    model.hidden(new, cache)                 # new (2, 1): one more token a row, each at its own position
    cache.advance(1)

Rows keep their own lengths. What padding left behind a row's end is never seen: a token at position p sees the slots
0 … p alone, and slot p is written before it is read.
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values (n_layer, rows, n_kv_head, max_len, head_dim), and how many of its slots each row has filled."""

    def __init__(self, config, rows: int, max_len: int, device=None, dtype: torch.dtype = torch.float32):
        self.config, self.max_len = config, max_len
        shape = (config.n_layer, rows, config.n_kv_head, max_len, config.head_dim)
        self.k = torch.zeros(shape, device=device, dtype=dtype)     # zeros, not empty: an unseen slot has weight 0, and
        self.v = torch.zeros(shape, device=device, dtype=dtype)     # 0 · NaN, should memory hold one, would be NaN
        self.ids = torch.zeros(rows, max_len, dtype=torch.long, device=device)      # for models that look at them again
        self.lengths = torch.zeros(rows, dtype=torch.long)      # (B,), on the host: no waiting for the device

    @property
    def rows(self) -> int:
        return self.lengths.numel()

    @property
    def longest(self) -> int:
        return int(self.lengths.max()) if self.rows else 0

    def positions(self, T: int) -> Tensor:
        """Positions of the next T tokens of each row, (B, T). The model asks once at the start of a forward pass; the
        writes of all its layers then go to these positions."""
        slots = self.longest + T
        self._positions = (self.lengths[:, None] + torch.arange(T)).to(self.k.device)      # (B, T)
        self._fresh, self._slots = slots == T, slots
        self._mask = torch.arange(slots, device=self.k.device) <= self._positions[:, None, :, None]      # (B, 1, T, S)
        return self._positions

    def tokens(self, idx: Tensor) -> Tensor:
        """Store the ids (B, T) of the next tokens, after `positions` was asked for. Returns all so far, (B, S)."""
        return self.ids[:, : self._slots].scatter_(1, self._positions, idx)

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store keys and values (B, Hkv, T, D) of the next T tokens. Returns all of the layer's so far, (B, Hkv, S, D),
        and the mask (B, 1, T, S) of what each of them may see; None, which means causal, if these are the first."""
        keys, values = self.k[layer, :, :, : self._slots], self.v[layer, :, :, : self._slots]
        if self._fresh:
            keys.copy_(k), values.copy_(v)
            return keys, values, None
        row = torch.arange(self.rows, device=k.device)[:, None]
        keys[row, :, self._positions] = k.transpose(1, 2)
        values[row, :, self._positions] = v.transpose(1, 2)
        return keys, values, self._mask

    def advance(self, n: int | Tensor) -> None:
        """Count the tokens just written: n for every row, or n (B,) where some of them were padding."""
        self.lengths = self.lengths + n

    def take(self, rows: list[int], max_len: int | None = None) -> "KVCache":
        """A new cache of these rows: repeat a row to sample it several times, leave one out to drop it."""
        index = torch.tensor(rows, dtype=torch.long)
        taken = KVCache(self.config, len(rows), max_len or self.max_len, self.k.device, self.k.dtype)
        taken.lengths = self.lengths[index]
        S, index = taken.longest, index.to(self.k.device)
        taken.k[:, :, :, :S] = self.k[:, :, :, :S].index_select(1, index)
        taken.v[:, :, :, :S] = self.v[:, :, :, :S].index_select(1, index)
        taken.ids[:, :S] = self.ids[:, :S].index_select(0, index)
        return taken
