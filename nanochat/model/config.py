"""
The shape of a model, and the switches that tell nanochat's two architectures apart.

    GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048)                      # the seed: the first release
    GPTConfig.from_depth(24, vocab_size=32768, sequence_len=2048, arch="speedrun")     # what beats GPT-2 the soonest

The seed is the plain Transformer of `gpt.py`; every switch off is the seed. The speedrun turns on all those that paid
off in wall-clock time on the way to GPT-2's CORE score, with the constants they were tuned to.
"""

import math
from dataclasses import dataclass

from nanochat.runtime import UserError

GATE_CHANNELS = 12  # of a layer's input, read by the gate of its value embedding
SMEAR_CHANNELS = 24  # of a token's embedding, read by the gate of the smear

SPEEDRUN = {
    "rope_base": 100000.0, "window_pattern": "SSSL", "value_embeddings": True, "layer_scalars": True, "smear": True,
    "backout": True, "qk_scale": 1.2, "vocab_multiple": 64, "init": "uniform",
}  # fmt: skip
ARCHITECTURES = {"seed": {}, "speedrun": SPEEDRUN}


@dataclass(frozen=True)
class GPTConfig:
    """Everything that fixes the shape of a model and what it computes."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    softcap: float = 15.0
    rope_base: float = 10000.0
    window_pattern: str = "L"  # layers in turn: L sees the whole context, S `short_window` tokens back; the last is L
    short_window: int | None = None  # None: a quarter of sequence_len, rounded up to 128 (a kernel's tile)
    value_embeddings: bool = False  # every other layer, the last one too, adds an embedding of the token to its values
    layer_scalars: bool = False  # before each layer: x = r x + a x0, r and a learned, x0 what the first layer read
    smear: bool = False  # every token's embedding takes up some of the one before
    backout: bool = False  # a learned share of the middle of the network is taken out before the head
    qk_scale: float = 1.0  # on normalised queries and on keys: larger is more decided attention
    vocab_multiple: int = 1  # rows of embedding and head are rounded up to a multiple of this; no logits for the excess
    document_start: int | None = None  # the id that begins a document; tokens then never see an earlier document
    init: str = "normal"  # how matrices begin, see nanochat.model.init: normal or uniform

    def __post_init__(self):
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "vocab_multiple"):
            if getattr(self, name) < 1:
                raise UserError(f"GPTConfig: {name} is {getattr(self, name)}; it must be at least 1")
        if self.n_embd % self.n_head or self.head_dim % 2:
            raise UserError(
                f"GPTConfig: n_embd {self.n_embd} does not split into {self.n_head} heads of an even size; "
                "choose n_head so that n_embd / n_head is even"
            )
        if self.n_head % self.n_kv_head:
            raise UserError(f"GPTConfig: n_kv_head {self.n_kv_head} must divide n_head {self.n_head}")
        if not self.window_pattern or set(self.window_pattern) - set("SL"):
            raise UserError(f"GPTConfig: window_pattern is {self.window_pattern!r}; write S and L, such as SSSL")
        if self.short_window is not None and self.short_window < 1:
            raise UserError(f"GPTConfig: short_window is {self.short_window}; it must be at least 1, or None")
        if self.init not in ("normal", "uniform"):
            raise UserError(f"GPTConfig: init is {self.init!r}; choose normal or uniform")
        for name, least in (("value_embeddings", GATE_CHANNELS), ("smear", SMEAR_CHANNELS)):
            if getattr(self, name) and self.n_embd < least:
                raise UserError(f"GPTConfig: {name} needs n_embd of at least {least}, not {self.n_embd}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def vocab_rows(self) -> int:
        """Rows of embedding and head: the vocabulary and what rounds it up."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    def window(self, layer: int) -> int | None:
        """How many tokens before its own a layer sees; None: all."""
        if layer == self.n_layer - 1 or self.window_pattern[layer % len(self.window_pattern)] == "L":
            return None
        return self.short_window or math.ceil(self.sequence_len / 4 / 128) * 128

    def has_value_embedding(self, layer: int) -> bool:
        return self.value_embeddings and layer % 2 == (self.n_layer - 1) % 2

    @classmethod
    def from_depth(cls, depth, vocab_size, sequence_len, n_embd=None, head_dim=128, n_kv_head=None,
                   arch="seed") -> "GPTConfig":  # fmt: skip
        """
        The whole shape from one number: width 64 * depth, heads of about `head_dim`; `arch` seed or speedrun.

        Where head_dim does not divide the width (odd depths), the seed's heads become smaller, never larger; the
        speedrun's width is rounded up.
        """
        if arch not in ARCHITECTURES:
            raise UserError(f"GPTConfig: arch is {arch!r}; choose {' or '.join(ARCHITECTURES)}")
        n_embd = n_embd or (64 * depth if arch == "seed" else math.ceil(64 * depth / head_dim) * head_dim)
        n_head = max(1, math.ceil(n_embd / head_dim))
        while n_head < n_embd and (n_embd % n_head or (n_embd // n_head) % 2):
            n_head += 1
        return cls(sequence_len, vocab_size, depth, n_head, n_kv_head or n_head, n_embd, **ARCHITECTURES[arch])
