"""
Head, softcap and cross-entropy in chunks of rows, so that the logits of all rows never exist at once.

    loss = head_loss(x, weight, targets, cap=15.0, reduction="sum")      # x (N, C), weight (V, C), targets (N,)

Logits are the largest tensor of a step: 16 rows of 2,048 tokens and 65,536 words are 8.6 GB in fp32, and autograd wants
them twice. But their gradient is known as soon as they are, so a sum's gradients are taken while a chunk is at hand
and the logits are thrown away; nothing is computed twice. Where every row keeps its own loss, what multiplies each
one is known only later, and a chunk is computed again then.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nanochat.model.precision import softcap

# Logits at once: 512 MiB in fp32. At 32,768 words a chunk then has 4,096 rows, enough to keep a GPU's matrix product
# busy; a model that has fewer logits in all gains nothing from chunks.
LOGITS = 1 << 27


def fits(rows: int, vocab_size: int) -> bool:
    """Whether the logits of so many rows may exist at once."""
    return rows * vocab_size <= LOGITS


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, cap: float, reduction: str = "mean") -> Tensor:
    """
    Cross-entropy of cap * tanh(x weight^T / cap) in nats, as `F.cross_entropy` with ignore_index -1.

    x (N, C) in the compute dtype, weight (V, C) in fp32, targets (N,) -> a scalar, or (N,) with reduction "none"; fp32.
    The weight's gradient is summed over the chunks in fp32.
    """
    if reduction == "none" or not torch.is_grad_enabled():
        parts = zip(*_chunks(x, targets, weight), strict=True)
        losses = torch.cat([_again(a, weight, t, cap) for a, t in parts])  # (N,)
        if reduction == "none":
            return losses
        total = losses.sum()
    else:
        total = SummedLoss.apply(x, weight, targets, cap)
    return total / (targets >= 0).sum() if reduction == "mean" else total


def _chunks(x: Tensor, targets: Tensor, weight: Tensor) -> tuple:
    size = max(1, LOGITS // weight.size(0))
    return x.split(size), targets.split(size)


def _again(*arguments) -> Tensor:
    """`_losses`, computed a second time for its gradient instead of kept."""
    return checkpoint(_losses, *arguments, use_reentrant=False, preserve_rng_state=False)


def _losses(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Each row's loss, 0 where not counted: x (n, C), weight (V, C), targets (n,) -> (n,)."""
    logits = softcap(x @ weight.to(x.dtype).T, cap)  # (n, V)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")


class SummedLoss(torch.autograd.Function):
    """The sum of the losses. Its gradients are computed with it, for a sum's gradient is its terms', each times one."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
        w = weight.to(x.dtype)  # (V, C)
        total = torch.zeros((), device=x.device)
        dx, dw = [], torch.zeros_like(weight)
        for a, t in zip(*_chunks(x, targets, weight), strict=True):  # (n, C), (n,)
            counted, at = (t >= 0).unsqueeze(1), t.clamp(min=0).unsqueeze(1)  # (n, 1)
            logits = softcap(a @ w.T, cap)  # (n, V)
            norm = logits.logsumexp(1, keepdim=True)  # (n, 1)
            total = total + ((norm - logits.gather(1, at)) * counted).sum()
            # d loss / d logit is softmax, less 1 at the target; d logit / d product is 1 - tanh^2, tanh = logit / cap
            slope = (logits - norm).exp().scatter_add(1, at, -torch.ones_like(norm))
            slope = (slope * (1 - (logits / cap).square()) * counted).to(x.dtype)  # (n, V)
            dx.append(slope @ w)
            dw += slope.T @ a
        ctx.save_for_backward(torch.cat(dx), dw)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        dx, dw = ctx.saved_tensors
        return dx * grad.to(dx.dtype), dw * grad, None, None
