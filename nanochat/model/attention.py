"""
Attention as a function: rotary positions, and softmax(q k^T) v in two ways.

`attend` has two ways to the same numbers. On a CPU and for short contexts it writes attention out (two matrix products
around a softmax), because the fused kernel's backward is slow there; everywhere else it calls PyTorch's fused
`scaled_dot_product_attention`. With n_kv_head < n_head several query heads share a key/value head (grouped-query
attention; n_kv_head = 1 is multi-query attention): the cache shrinks by n_head / n_kv_head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MANUAL_MAX = 256  # on CPU, the longest context for which written-out attention beats the fused kernel


def rope_tables(length: int, head_dim: int, base: float, device=None) -> tuple[Tensor, Tensor]:
    """
    cos and sin of position * base^(-2i / head_dim), each (length, head_dim / 2), fp32. (Su et al. 2021, RoFormer)
    """
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequency)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """
    Turn every pair (x[i], x[i + D/2]) of a head by its position's angle, clockwise. A query at position t and a key at
    position s then meet in a dot product that depends on t - s alone.

    x (B, T, H, D); cos, sin broadcastable to (B, T, 1, D/2), fp32. Returns (B, T, H, D) in fp32.
    """
    pair = x.float().unflatten(-1, (2, -1))  # (B, T, H, 2, D/2)
    turn = torch.stack((sin, -sin), dim=-2)
    return (pair * cos.unsqueeze(-2) + pair.flip(-2) * turn).flatten(-2)


def attend_manual(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """
    Attention written out. Shapes and meaning as in `attend`.

    The query heads that share a key/value head are laid one after the other along time, so one matrix product serves
    the whole group and no key is copied.
    """
    B, H, T, D = q.shape
    Hkv, S = k.shape[1], k.shape[2]
    G = H // Hkv
    if mask is None:
        mask = torch.arange(S, device=q.device) <= torch.arange(T, device=q.device)[:, None]  # (T, S), S = T
    q = q.reshape(B, Hkv, G * T, D)
    scores = (q @ k.transpose(-2, -1)).view(B, H, T, S).float() * (scale or 1 / math.sqrt(D))
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1).to(v.dtype)
    return (weights.view(B, Hkv, G * T, S) @ v).view(B, H, T, D)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Attention by PyTorch's fused kernels. Shapes and meaning as in `attend`."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """
    softmax(scale q k^T) v for every head; the scale is 1 / sqrt(D) where none is given.

    q (B, H, T, D); k, v (B, Hkv, S, D), query head h reads key/value head h // (H / Hkv); mask bool, broadcastable to
    (B, H, T, S), True = visible; without a mask S = T and the attention is causal. Returns (B, H, T, D).
    """
    if q.device.type == "cpu" and k.shape[2] <= MANUAL_MAX:
        return attend_manual(q, k, v, mask, scale)
    return attend_fused(q, k, v, mask, scale)
