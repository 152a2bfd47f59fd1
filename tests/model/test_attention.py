"""Attention against itself written differently: head by head, by the fused kernel, with turned positions."""

import math

import pytest
import torch

from nanochat.model.attention import apply_rope, attend, attend_fused, attend_manual, rope_tables


def heads(B=2, H=4, Hkv=2, T=9, S=9, D=8, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    shapes = (B, H, T, D), (B, Hkv, S, D), (B, Hkv, S, D)
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def oracle(q, k, v, visible):
    """One query at a time, in Python; visible(b, t, s) says what may be seen."""
    B, H, T, D = q.shape
    y = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            kv = h // (H // k.shape[1])
            for t in range(T):
                seen = [s for s in range(k.shape[2]) if visible(b, t, s)]
                weights = torch.stack([q[b, h, t] @ k[b, kv, s] for s in seen]).div(math.sqrt(D)).softmax(0)
                y[b, h, t] = sum(w * v[b, kv, s] for w, s in zip(weights, seen, strict=True))
    return y


@pytest.mark.parametrize("way", [attend_manual, attend_fused, attend])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_every_query_averages_the_values_it_may_see(way, n_kv_head):
    q, k, v = heads(Hkv=n_kv_head)
    torch.testing.assert_close(way(q, k, v).double(), oracle(q, k, v, lambda b, t, s: s <= t), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("way", [attend_manual, attend_fused])
def test_a_mask_says_what_each_row_sees(way):
    q, k, v = heads(T=3, S=7)
    lengths = [4, 2]  # rows with 4 and 2 earlier tokens
    mask = torch.tensor([[[[s <= n + t for s in range(7)] for t in range(3)]] for n in lengths])  # (B, 1, T, S)
    want = oracle(q, k, v, lambda b, t, s: s <= lengths[b] + t)
    torch.testing.assert_close(way(q, k, v, mask).double(), want, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_kv_head", [1, 2])
def test_shared_heads_equal_the_same_heads_repeated(n_kv_head):
    q, k, v = heads(Hkv=n_kv_head, dtype=torch.float32)
    repeated = [x.repeat_interleave(4 // n_kv_head, dim=1) for x in (k, v)]
    torch.testing.assert_close(attend(q, k, v), attend(q, *repeated), atol=1e-6, rtol=1e-6)


def test_written_out_and_fused_attention_have_the_same_gradients():
    grads = []
    for way in (attend_manual, attend_fused):
        qkv = [x.requires_grad_() for x in heads(T=130, S=130, dtype=torch.float32)]
        way(*qkv).square().sum().backward()
        grads.append([x.grad for x in qkv])
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)


def test_a_rotated_dot_product_depends_on_the_distance_alone():
    cos, sin = rope_tables(64, 16, 10000.0)
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(16, generator=g), torch.randn(16, generator=g)

    def dot(t, s):
        turn = lambda x, at: apply_rope(x.view(1, 1, 1, 16), cos[at], sin[at]).flatten()
        return (turn(q, t) @ turn(k, s)).item()

    assert dot(5, 2) == pytest.approx(dot(60, 57), abs=1e-4)
    assert dot(0, 0) == pytest.approx((q @ k).item(), abs=1e-5)
    assert abs(dot(5, 2) - dot(5, 3)) > 1e-2


def test_rotation_pairs_the_halves_of_a_head_clockwise_and_keeps_lengths():
    cos, sin = rope_tables(10, 4, 100.0)
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4)  # pairs (1, 0) and (0, 2); angles 3 and 0.3 at position 3
    want = [math.cos(3.0), 2 * math.sin(0.3), -math.sin(3.0), 2 * math.cos(0.3)]
    got = apply_rope(x, cos[3], sin[3]).flatten()
    torch.testing.assert_close(got, torch.tensor(want))
    assert got.norm().item() == pytest.approx(x.norm().item(), rel=1e-6)
