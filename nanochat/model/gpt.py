"""
The Transformer: token ids in, logits or a loss out.

    config = GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048)     # depth is the one dial
    model = GPT(config)
    model.init_weights(seed=0)
    logits = model(idx)                  # idx (B, T) -> (B, T, V), fp32
    loss = model(idx, targets)           # targets (B, T), -1 = not counted -> mean cross-entropy in nats

A decoder-only, pre-norm Transformer without biases and learned gains: rotary positions and no learned ones, QK norm,
RMS norm after the token embedding too, untied embedding and head, squared-ReLU MLP, grouped-query attention, softcapped
logits. Weights are fp32; activations have `model.compute_dtype` (set it to torch.bfloat16 where that is faster).
"""

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.attention import Attention, rope_tables
from nanochat.model.precision import Linear, rms_norm, softcap
from nanochat.runtime import UserError


@dataclass(frozen=True)
class GPTConfig:
    """Everything that fixes the shape of a model."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    softcap: float = 15.0
    rope_base: float = 10000.0

    def __post_init__(self):
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"):
            if getattr(self, name) < 1:
                raise UserError(f"GPTConfig: {name} is {getattr(self, name)}; it must be at least 1")
        if self.n_embd % self.n_head or self.head_dim % 2:
            raise UserError(
                f"GPTConfig: n_embd {self.n_embd} does not split into {self.n_head} heads of an even size; "
                "choose n_head so that n_embd / n_head is even"
            )
        if self.n_head % self.n_kv_head:
            raise UserError(f"GPTConfig: n_kv_head {self.n_kv_head} must divide n_head {self.n_head}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def from_depth(cls, depth, vocab_size, sequence_len, n_embd=None, head_dim=128, n_kv_head=None) -> "GPTConfig":
        """
        The whole shape from one number: width 64 * depth, heads of about `head_dim`.

        Where head_dim does not divide the width (odd depths), the heads become smaller, never larger.
        """
        n_embd = n_embd or 64 * depth
        n_head = max(1, math.ceil(n_embd / head_dim))
        while n_head < n_embd and (n_embd % n_head or (n_embd // n_head) % 2):
            n_head += 1
        return cls(sequence_len, vocab_size, depth, n_head, n_kv_head or n_head, n_embd)


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

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache=None) -> Tensor:
        x = x + self.attn(rms_norm(x), rope, cache)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """The model. `GPT(config)` has undefined weights until `init_weights` or `load_state_dict`."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.wte = nn.Embedding(config.vocab_size, config.n_embd, _weight=torch.empty(config.vocab_size, config.n_embd))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self._set_rope()

    def _set_rope(self, device=None):
        # 10x the training length: generation may go on beyond it. Not saved: a function of the config.
        c = self.config
        cos, sin = rope_tables(10 * c.sequence_len, c.head_dim, c.rope_base, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def to_empty(self, *, device, recurse=True):
        """As in nn.Module, for a model built on the meta device; the rotary tables keep their values."""
        super().to_empty(device=device, recurse=recurse)
        self._set_rope(device)
        return self

    @torch.no_grad()
    def init_weights(self, seed: int = 0) -> "GPT":
        """
        Fill the weights: embedding N(0, 1); matrices N(0, s), s = min(1, sqrt(n_out / n_in)) / sqrt(n_in); head and the
        two projections that write into the residual stream zero, so that every block begins as the identity.

        The values depend on (seed, name of the weight, shape) alone: not on the device, nor on other random draws.
        """
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight") or name == "lm_head.weight":
                weight.zero_()
                continue
            n_out, n_in = weight.shape
            std = 1.0 if name == "wte.weight" else min(1.0, math.sqrt(n_out / n_in)) / math.sqrt(n_in)
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            weight.copy_(torch.empty(n_out, n_in).normal_(0.0, std, generator=generator))
        return self

    def hidden(self, idx: Tensor, cache=None) -> Tensor:
        """
        The normalised output of the last block: idx (B, T) -> (B, T, C) in `compute_dtype`.

        `cache` knows the tokens before idx; it has positions(T) -> (B, T) and write(layer, k, v) -> (k, v, mask), see
        `nanochat.engine.cache`. The model never advances it.
        """
        T = idx.size(1)
        if T > self.cos.size(0):
            raise UserError(f"model: {T} tokens are more than the {self.cos.size(0)} positions this model knows")
        positions = slice(0, T) if cache is None else cache.positions(T)
        rope = self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)  # (T or B, T, 1, D/2)
        x = rms_norm(self.wte(idx).to(self.compute_dtype))
        for block in self.blocks:
            x = block(x, rope, cache)
        return rms_norm(x)

    def head(self, x: Tensor) -> Tensor:
        """Softcapped logits of hidden states: (..., C) -> (..., V), fp32."""
        return softcap(self.lm_head(x), self.config.softcap)

    def forward(self, idx: Tensor, targets: Tensor | None = None, reduction: str = "mean", cache=None) -> Tensor:
        """
        idx (B, T) -> logits (B, T, V), fp32; with targets (B, T), -1 = not counted, the cross-entropy in nats: its
        mean over the counted targets, their sum, or with reduction "none" each position's, (B, T), 0 where not counted.
        """
        logits = self.head(self.hidden(idx, cache))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)
        return loss.view(targets.shape) if reduction == "none" else loss

    def num_params(self) -> int:
        """All weights: 2 V C + 12 L C^2 with as many key/value heads as heads."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """
        Training FLOPs (forward and backward) per token: 6 for every weight that is multiplied (the embedding is looked
        up), and 12 L H D T for attention over a full, unmasked context. (PaLM, appendix B)
        """
        c = self.config
        return 6 * (self.num_params() - self.wte.weight.numel()) + 12 * c.n_layer * c.n_embd * c.sequence_len

    def inference_copy(self, dtype: torch.dtype | None = None) -> "GPT":
        """The same model with weights stored, not only used, in `dtype` (default: `compute_dtype`); no gradients."""
        dtype = dtype or self.compute_dtype
        copy = GPT(self.config)  # its own memory is never touched, so never taken
        weights = {name: w.detach().to(dtype, copy=True) for name, w in self.state_dict().items()}
        copy.load_state_dict(weights, assign=True)
        copy.cos, copy.sin, copy.compute_dtype = self.cos, self.sin, dtype
        return copy.requires_grad_(False).eval()
