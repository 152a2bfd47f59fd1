"""
One layer of the Transformer: attention, then the MLP, each added to the residual stream.

`Pass` is what the layers of one forward pass share. A layer with a value embedding looks the tokens up a second time.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.attention import apply_rope
from nanochat.model.config import GATE_CHANNELS, GPTConfig
from nanochat.model.precision import Linear, rms_norm
from nanochat.model.sight import Sight


@dataclass
class Pass:
    """idx (B, T); rope: cos, sin (T or B, T, 1, D/2); sight: who sees whom; the KV cache, if there is one."""

    idx: Tensor
    rope: tuple[Tensor, Tensor]
    sight: Sight
    cache: object = None


class ValueEmbedding(nn.Module):
    """
    What a token means, whatever stands around it: a table of values, let in by a gate for each key/value head.

    After "value residual learning" (Zhou et al. 2024); the tables are many parameters and almost no arithmetic.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        shape = config.vocab_rows, config.n_kv_head * config.head_dim
        self.table = nn.Embedding(*shape, _weight=torch.empty(shape))
        self.gate = Linear(GATE_CHANNELS, config.n_kv_head)

    def forward(self, x: Tensor, idx: Tensor) -> Tensor:
        """The layer's input x (B, T, C) and idx (B, T) -> (B, T, Hkv, D), to be added to the values."""
        gate = 3 * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS])).unsqueeze(-1)  # (B, T, Hkv, 1), in (0, 3)
        return gate * self.table(idx).to(x.dtype).unflatten(-1, (gate.size(-2), -1))


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys (QK norm)."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.layer, self.window = layer, config.window(layer)
        self.scale = config.qk_scale**2 / math.sqrt(config.head_dim)  # both sides of the product are scaled
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.c_q = Linear(config.n_embd, config.n_head * config.head_dim)
        self.c_k = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_v = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_proj = Linear(config.n_head * config.head_dim, config.n_embd)
        self.value = ValueEmbedding(config) if config.has_value_embedding(layer) else None

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        """x (B, T, C) -> (B, T, C). With a cache, the keys and values of earlier tokens come from it."""
        B, T, _ = x.shape
        q = self.c_q(x).view(B, T, self.n_head, self.head_dim)
        k = self.c_k(x).view(B, T, self.n_kv_head, self.head_dim)
        v = self.c_v(x).view(B, T, self.n_kv_head, self.head_dim)
        if self.value is not None:
            v = v + self.value(x, p.idx)
        q = rms_norm(apply_rope(q, *p.rope)).to(x.dtype)
        k = rms_norm(apply_rope(k, *p.rope)).to(x.dtype)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, D)
        mask = None
        if p.cache is not None:
            k, v, mask = p.cache.write(self.layer, k, v)  # now (B, Hkv, S, D) and (B, 1, T, S)
        y = p.sight.attend(q, k, v, mask, self.window, self.scale)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """n_embd -> 4 n_embd -> n_embd around a squared ReLU (So et al. 2021, Primer)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    """Attention, then the MLP, each added to the residual stream: what they read is normalised, the stream is not."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        x = x + self.attn(rms_norm(x), p)
        return x + self.mlp(rms_norm(x))
