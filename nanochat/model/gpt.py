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
What the speedrun's architecture adds are switches of `GPTConfig`, all of them off in the seed's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model import fp8
from nanochat.model.attention import rope_tables
from nanochat.model.block import Block, Pass
from nanochat.model.config import GPTConfig
from nanochat.model.init import initial
from nanochat.model.loss import fits, head_loss
from nanochat.model.precision import Linear, rms_norm, softcap
from nanochat.model.sight import Sight
from nanochat.model.smear import Smear
from nanochat.runtime import UserError


class GPT(nn.Module):
    """The model. `GPT(config)` has undefined weights until `init_weights` or `load_state_dict`."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = c = config
        self.compute_dtype = torch.float32
        self.attention_path = "mask"  # right everywhere; training takes a faster one, see nanochat.model.sight
        self.wte = nn.Embedding(c.vocab_rows, c.n_embd, _weight=torch.empty(c.vocab_rows, c.n_embd))
        self.smear = Smear() if c.smear else None
        self.resid_lambdas = nn.Parameter(torch.empty(c.n_layer)) if c.layer_scalars else None
        self.x0_lambdas = nn.Parameter(torch.empty(c.n_layer)) if c.layer_scalars else None
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.n_layer))
        self.backout_lambda = nn.Parameter(torch.empty(1)) if c.backout else None
        self.lm_head = Linear(c.n_embd, c.vocab_rows)
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
        """Fill the weights as nanochat.model.init says: the values depend on the config and the seed alone."""
        for name, weight in self.named_parameters():
            weight.copy_(initial(name, weight.shape, self.config, seed))
        return self

    def use_fp8(self, least: float = fp8.PAYS) -> "GPT":
        """
        Train the blocks' larger matrices in fp8 (`fp8.pays`). Embeddings are not multiplied; the head stays as it is,
        for its errors go straight into the logits and nothing was gained by it where it was tried.
        """
        for module in self.blocks.modules():
            if isinstance(module, Linear):
                module.fp8 = fp8.pays(*module.weight.shape, least)
        return self

    def hidden(self, idx: Tensor, cache=None) -> Tensor:
        """
        The normalised output of the last block: idx (B, T) -> (B, T, C) in `compute_dtype`.

        `cache` knows the tokens before idx; it has positions(T) -> (B, T), tokens(idx) -> (B, S) and write(layer, k, v)
        -> (k, v, mask), see `nanochat.engine.cache`. The model never advances it.
        """
        x, step = self._begin(idx, cache)  # (B, T, C)
        first = middle = x
        for i, block in enumerate(self.blocks):
            if self.resid_lambdas is not None:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * first
            x = block(x, step)
            if i == self.config.n_layer // 2:
                middle = x
        if self.backout_lambda is not None:
            x = x - self.backout_lambda[0] * middle
        return rms_norm(x)

    def _begin(self, idx: Tensor, cache) -> tuple[Tensor, Pass]:
        """What the first block reads, (B, T, C), and what all blocks share."""
        T, config = idx.size(1), self.config
        if T > self.cos.size(0):
            raise UserError(f"model: {T} tokens are more than the {self.cos.size(0)} positions this model knows")
        at = slice(0, T) if cache is None else cache.positions(T)
        rope = self.cos[at].unsqueeze(-2), self.sin[at].unsqueeze(-2)  # (T or B, T, 1, D/2)
        positions = torch.arange(T, device=idx.device)[None] if cache is None else at  # (1 or B, T)
        ids, documents, starts = idx, None, None  # ids (B, S): all tokens so far
        if cache is not None and (config.smear or config.document_start is not None):
            ids = cache.tokens(idx)
        if config.document_start is not None:
            documents, starts = (ids == config.document_start).cumsum(1), idx == config.document_start  # (B, S), (B, T)
        x = rms_norm(self.wte(idx).to(self.compute_dtype))
        if self.smear is not None:
            x = self.smear(x, None if cache is None else self._before(ids, positions[:, :1]), starts)
        return x, Pass(idx, rope, Sight(positions, documents, self.attention_path), cache)

    def _before(self, ids: Tensor, position: Tensor) -> Tensor:
        """The embedding of the token before `position` (B, 1) in ids (B, S), normalised: (B, 1, C), zeros at 0."""
        x = rms_norm(self.wte(ids.gather(1, (position - 1).clamp(min=0))).to(self.compute_dtype))
        return x.masked_fill((position == 0).unsqueeze(-1), 0.0)

    def head(self, x: Tensor) -> Tensor:
        """Softcapped logits of hidden states: (..., C) -> (..., V), fp32."""
        return softcap(self.lm_head(x)[..., : self.config.vocab_size], self.config.softcap)

    def forward(self, idx: Tensor, targets: Tensor | None = None, reduction: str = "mean", cache=None) -> Tensor:
        """
        idx (B, T) -> logits (B, T, V), fp32; with targets (B, T), -1 = not counted, the cross-entropy in nats: its
        mean over the counted targets, their sum, or with reduction "none" each position's, (B, T), 0 where not counted.
        """
        x = self.hidden(idx, cache)
        return self.head(x) if targets is None else self.loss(x, targets, reduction)

    def loss(self, x: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The cross-entropy of hidden states (B, T, C), see `forward`."""
        c = self.config
        if fits(targets.numel(), c.vocab_size):
            loss = F.cross_entropy(self.head(x).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)
        else:
            weight = self.lm_head.weight[: c.vocab_size]  # (V, C)
            loss = head_loss(x.flatten(0, 1), weight, targets.flatten(), c.softcap, reduction)
        return loss.view(targets.shape) if reduction == "none" else loss

    def num_params(self) -> int:
        """All weights. Of the seed architecture with as many key/value heads as heads: 2 V C + 12 L C^2."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self, exact: bool = False) -> int:
        """
        Training FLOPs (forward and backward) per token: 6 for every weight that is multiplied (embeddings are looked
        up), and 12 H D for each token a layer sees: a full context or window as nanochat and PaLM (appendix B) count, or
        with `exact` what is left under the causal mask, on average over the positions.
        """
        c, T = self.config, self.config.sequence_len
        multiplied = sum(m.weight.numel() for m in self.modules() if isinstance(m, Linear))
        seen = [min(c.window(i) or T, T) for i in range(c.n_layer)]
        if exact:  # position t sees itself and min(t, w) before it
            seen = [w + 1 - w * (w + 1) / (2 * T) for w in (min(w, T - 1) for w in seen)]
        return round(6 * multiplied + 12 * c.n_embd * sum(seen))

    def inference_copy(self, dtype: torch.dtype | None = None) -> "GPT":
        """The same model with matrices stored, not only used, in `dtype` (default: `compute_dtype`); no gradients."""
        dtype = dtype or self.compute_dtype
        copy = GPT(self.config)  # its own memory is never touched, so never taken
        weights = {
            name: w.detach().to(dtype if w.dim() > 1 else w.dtype, copy=True) for name, w in self.state_dict().items()
        }
        copy.load_state_dict(weights, assign=True)
        copy.cos, copy.sin, copy.compute_dtype = self.cos, self.sin, dtype
        return copy.requires_grad_(False).eval()
