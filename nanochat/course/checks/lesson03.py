"""Lesson 03, the Transformer: the cases of its exercises, and the answers that `use` gives where the library has no function.

Oracles are of another make than the answers: loops over heads, queries and keys for attention, complex numbers for rotary
positions, a model that is built for the number of parameters.
"""

import math
import random

import torch
from torch import Tensor

from nanochat.model import GPT, GPTConfig

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_causal_mask(T: int) -> Tensor:
    """(T, T) bool: row t, column s is True where position t may look at position s."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def reference_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q (B, H, T, D), k and v (B, H, S, D), mask bool (T, S) -> (B, H, T, D)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v


def reference_rope(x: Tensor, base: float = 10000.0) -> Tensor:
    """x (B, T, H, D), position t in row t -> the same shape, every pair (i, i + D/2) turned clockwise."""
    T, D = x.size(1), x.size(3)
    angle = torch.outer(torch.arange(T), base ** (-torch.arange(0, D, 2) / D))[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()), dim=-1)


def reference_grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention where q has more heads than k and v: query head h reads key head h // (H / Hkv)."""
    group = q.size(1) // k.size(1)
    return reference_attention(q, k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1), mask)


def reference_count_params(config: GPTConfig) -> int:
    """All weights of GPT(config)."""
    C, kv = config.n_embd, config.n_kv_head * config.head_dim
    return 2 * config.vocab_size * C + config.n_layer * (2 * C * C + 2 * C * kv + 8 * C * C)


# ---------------------------------------------------------------------------------------------------------------------
# Oracles


def _loops(q, k, v, mask) -> Tensor:
    """Attention one query at a time, in double precision; a query head reads key head h // (H / Hkv)."""
    B, H, T, D = q.shape
    group, out = H // k.size(1), torch.zeros(B, H, T, v.size(-1), dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = [s for s in range(k.size(2)) if mask[t, s]]
                scores = [sum(x * y for x, y in zip(q[b, h, t].tolist(), k[b, h // group, s].tolist())) for s in seen]
                weights = [math.exp(score / math.sqrt(D)) for score in scores]
                for weight, s in zip(weights, seen):
                    out[b, h, t] += weight / sum(weights) * v[b, h // group, s].double()
    return out


def _turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions by complex numbers: the pair (a, b) is a + bi, and clockwise is a factor exp(-i angle)."""
    half = x.size(-1) // 2
    z = torch.complex(x[..., :half].double(), x[..., half:].double())
    for t in range(x.size(1)):
        for i in range(half):
            angle = t * base ** (-2 * i / x.size(-1))
            z[:, t, :, i] *= complex(math.cos(angle), -math.sin(angle))
    return torch.cat((z.real, z.imag), dim=-1)


def _same(got, wanted, what: str, tolerance: float = 1e-4):
    """Tensors of one shape with nearly the same entries; says where they are not."""
    assert isinstance(got, Tensor), f"{what}: a tensor is wanted, not {type(got).__name__}"
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, should be {tuple(wanted.shape)}"
    off = (got.detach().double() - wanted).abs()
    bad = ~(off <= tolerance * (1 + wanted.abs()))                # nan is bad as well
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        assert False, f"{what}: at {list(at)} {got[at].item():.5g}, should be {wanted[at].item():.5g}"


# ---------------------------------------------------------------------------------------------------------------------
# 03.causal_mask


def shows_the_example(causal_mask):
    "three positions: the first sees itself, the second two, the third all three"
    got = causal_mask(3)
    assert got.tolist() == [[True, False, False], [True, True, False], [True, True, True]], f"got {got.tolist()}"


def sees_itself(causal_mask):
    "every position sees at least itself: the diagonal is True"
    got = causal_mask(7)
    blind = [t for t in range(7) if not got[t, t]]
    assert not blind, f"position {blind[0]} does not see itself"


def hides_the_future(causal_mask):
    "row t, column s: False for every s after t, True for the rest"
    for T in (1, 2, random.randint(3, 40)):
        got = causal_mask(T)
        assert got.shape == (T, T), f"causal_mask({T}) has shape {tuple(got.shape)}"
        for t in range(T):
            for s in range(T):
                assert bool(got[t, s]) == (s <= t), f"causal_mask({T})[{t}, {s}] is {bool(got[t, s])}"


def is_boolean(causal_mask):
    "a tensor of bools: ~mask must mean 'hidden'"
    got = causal_mask(4)
    assert isinstance(got, Tensor) and got.dtype == torch.bool, f"dtype {getattr(got, 'dtype', type(got).__name__)}"


# ---------------------------------------------------------------------------------------------------------------------
# 03.attention

ALL = torch.ones(9, 9, dtype=torch.bool)


def averages_where_nothing_differs(attention):
    "equal scores: the mean of the values that may be seen"
    q, k, v = torch.zeros(1, 1, 3, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    got = attention(q, k, v, ALL[:3, :3].tril())
    _same(got, torch.stack([v[0, 0, : t + 1].double().mean(0) for t in range(3)])[None, None], "queries of zeros")


def divides_by_root_d(attention):
    "scores are divided by the square root of D, not by D, not by nothing"
    for D in (4, 16, 64):
        q, k = torch.zeros(1, 1, 1, D), torch.zeros(1, 1, 2, D)
        q[..., 0], k[0, 0, 0, 0] = 3.0, 2.0                        # dot products 6 and 0
        v = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1).expand(1, 1, 2, D)
        weight = 1 / (1 + math.exp(-6 / math.sqrt(D)))
        _same(attention(q, k, v, ALL[:1, :2])[0, 0, 0, 0], weight, f"D = {D}, dot products 6 and 0: the first weight")


def spreads_one_over_the_keys(attention):
    "the weights of one query add up to one: values of 1 give 1"
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.ones(2, 3, 6, 8)
    _same(attention(q, k, v, ALL[:4, :6]), torch.ones(2, 3, 4, 8), "4 queries, 6 keys, values of 1")


def ignores_what_is_hidden(attention):
    "hidden keys and values change nothing, however large"
    q, k, v, mask = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), ALL[:5, :5].tril()
    before = attention(q, k, v, mask)
    k2, v2 = k.clone(), v.clone()
    k2[:, :, 3:] *= 7
    v2[:, :, 3:] += 100
    _same(attention(q, k2, v2, mask)[:, :, :3], before[:, :, :3].double(), "positions 0 to 2, after 3 and 4 changed")


def equals_loops(attention):
    "random input: the same as a loop over heads, queries and keys"
    q, k, v = torch.randn(2, 2, 4, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 6)
    mask = torch.rand(4, 5) < 0.6
    mask[:, 0] = True
    _same(attention(q, k, v, mask), _loops(q, k, v, mask), "random queries, keys, values and mask")


# ---------------------------------------------------------------------------------------------------------------------
# 03.rope


def leaves_the_first_position(rope):
    "positions count from 0, and an angle of 0 turns nothing"
    x = torch.randn(2, 3, 2, 8)
    _same(rope(x)[:, 0], x[:, 0].double(), "position 0")


def turns_clockwise(rope):
    "the pair (1, 0) at position 1 becomes (cos 1, -sin 1)"
    x = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2)
    _same(rope(x)[0, 1, 0], [math.cos(1), -math.sin(1)], "the pair (1, 0) at position 1")


def pairs_the_halves(rope):
    "entry i is turned together with entry i + D/2"
    x = torch.zeros(1, 2, 1, 6)
    x[..., 1] = 1.0
    moved = rope(x)[0, 1, 0].nonzero().flatten().tolist()
    assert moved == [1, 4], f"D = 6, only entry 1 was set; at position 1 the entries {moved} are not zero, should be [1, 4]"


def slows_from_pair_to_pair(rope):
    "pair i turns by base^(-2i/D) a position: with base 16 and D = 8 by 1, 1/2, 1/4, 1/8"
    x = torch.cat((torch.ones(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)), dim=-1)
    y = rope(x, base=16.0)[0, 1, 0]
    _same(torch.atan2(-y[4:], y[:4]), [1.0, 0.5, 0.25, 0.125], "angles of the four pairs at position 1")


def feels_distance_alone(rope):
    "a query and a key, moved together, keep their dot product"
    q, k = torch.randn(8), torch.randn(8)
    x = rope(torch.stack((q, k)).view(1, 1, 2, 8).expand(1, 12, 2, 8).contiguous(), base=100.0)
    near, far = x[0, 5, 0] @ x[0, 2, 1], x[0, 11, 0] @ x[0, 8, 1]
    _same(far, near.item(), "query at 11, key at 8, against query at 5, key at 2")


def equals_complex_numbers(rope):
    "random input: the same as multiplying complex numbers"
    x = torch.randn(2, 7, 3, 10)
    _same(rope(x, base=500.0), _turned(x, 500.0), "random vectors, base 500")
    _same(rope(x), _turned(x, 10000.0), "random vectors, base 10000")


# ---------------------------------------------------------------------------------------------------------------------
# 03.rms_norm


def divides_by_the_root_of_the_mean_square(rms_norm):
    "[3, 4] has the root mean square sqrt(12.5)"
    _same(rms_norm(torch.tensor([3.0, 4.0])), [3 / math.sqrt(12.5), 4 / math.sqrt(12.5)], "rms_norm([3, 4])")


def treats_every_vector_alone(rms_norm):
    "the mean is taken over the last dimension only"
    x = torch.randn(3, 4, 8) * torch.tensor([0.1, 1.0, 10.0, 100.0]).view(1, 4, 1)
    _same(rms_norm(x).double().square().mean(-1), torch.ones(3, 4), "mean square of each vector", 1e-3)


def keeps_the_mean(rms_norm):
    "nothing is subtracted: a vector of fives becomes a vector of ones"
    _same(rms_norm(torch.full((2, 6), 5.0)), torch.ones(2, 6), "a vector of fives")


def survives_zeros(rms_norm):
    "a vector of zeros stays zero"
    _same(rms_norm(torch.zeros(2, 6)), torch.zeros(2, 6), "a vector of zeros")


def adds_eps_to_the_mean_square(rms_norm):
    "eps goes under the root, beside the mean square"
    x = torch.full((1, 4), 1e-3)
    _same(rms_norm(x), torch.full((1, 4), 1 / math.sqrt(2)), "a vector of 0.001, eps 1e-6")
    _same(rms_norm(torch.ones(3), eps=3.0), torch.full((3,), 0.5), "a vector of ones, eps 3")


def computes_in_fp32(rms_norm):
    "fp16 cannot hold the square of 300; the result has the input's dtype again"
    got = rms_norm(torch.full((2, 4), 300.0, dtype=torch.float16))
    assert got.dtype == torch.float16, f"fp16 came in, {got.dtype} came out"
    _same(got, torch.ones(2, 4), "a vector of 300 in fp16", 1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# 03.grouped_attention


def is_attention_for_equal_heads(grouped_attention):
    "as many key heads as query heads: nothing changes"
    q, k, v, mask = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4), ALL[:3, :3].tril()
    _same(grouped_attention(q, k, v, mask), _loops(q, k, v, mask), "2 heads of each")


def neighbours_share(grouped_attention):
    "6 query heads, 2 key heads: query heads 0, 1, 2 read the first and 3, 4, 5 the second"
    q, k = torch.randn(1, 6, 2, 4), torch.randn(1, 2, 2, 4)
    v = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 4)
    got = grouped_attention(q, k, v, ALL[:2, :2])
    assert got.shape == (1, 6, 2, 4), f"shape {tuple(got.shape)}, should be (1, 6, 2, 4)"
    read = got[0, :, 0, 0].round().int().tolist()
    assert read == [0, 0, 0, 1, 1, 1], f"the query heads read the key/value heads {read}, should be [0, 0, 0, 1, 1, 1]"


def one_key_head_serves_all(grouped_attention):
    "multi-query attention: every query head reads the only key head with its own queries"
    q, k, v, mask = torch.randn(2, 4, 3, 6), torch.randn(2, 1, 3, 6), torch.randn(2, 1, 3, 6), ALL[:3, :3].tril()
    _same(grouped_attention(q, k, v, mask), _loops(q, k, v, mask), "4 query heads, 1 key head")


def groups_like_loops(grouped_attention):
    "random input: the same as a loop over heads, queries and keys"
    q, k, v, mask = torch.randn(2, 4, 3, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 6), ALL[:3, :5]
    _same(grouped_attention(q, k, v, mask), _loops(q, k, v, mask), "4 query heads, 2 key heads")


# ---------------------------------------------------------------------------------------------------------------------
# 03.count_params


def _built(config: GPTConfig) -> int:
    return sum(weight.numel() for weight in GPT(config).parameters())


def counts_depth_20(count_params):
    "depth 20, a vocabulary of 65,536: 560,988,160"
    got = count_params(GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048))
    assert got == 560_988_160, f"got {got:,}; {560_988_160 - got:,} are missing"


def counts_both_ends(count_params):
    "one more token costs two rows, in the embedding and in the head"
    small, large = (count_params(GPTConfig(8, v, n_layer=1, n_head=2, n_kv_head=2, n_embd=32)) for v in (100, 101))
    assert large - small == 64, f"one more token at width 32 costs {large - small} weights, should be 64"


def counts_fewer_key_heads(count_params):
    "with one key head instead of four, the matrices of keys and values are a quarter"
    many, one = (GPTConfig(8, 50, n_layer=3, n_head=4, n_kv_head=n, n_embd=32) for n in (4, 1))
    saved = count_params(many) - count_params(one)
    assert saved == 3 * 2 * 32 * 24, f"3 layers of width 32 save {saved} weights, should be {3 * 2 * 32 * 24}"


def counts_like_the_model(count_params):
    "random shapes: as many as the model has when it is built"
    for _ in range(8):
        kv, group, size = random.choice([1, 2, 3]), random.choice([1, 2, 4]), random.choice([2, 4, 8])
        config = GPTConfig(8, random.randint(10, 99), random.randint(1, 4), kv * group, kv, kv * group * size)
        got, wanted = count_params(config), _built(config)
        assert got == wanted, f"{config} has {wanted:,} parameters, not {got:,}"


CASES = {
    "03.causal_mask": [shows_the_example, sees_itself, hides_the_future, is_boolean],
    "03.attention": [averages_where_nothing_differs, divides_by_root_d, spreads_one_over_the_keys, ignores_what_is_hidden,
                     equals_loops],
    "03.rope": [leaves_the_first_position, turns_clockwise, pairs_the_halves, slows_from_pair_to_pair, feels_distance_alone,
                equals_complex_numbers],
    "03.rms_norm": [divides_by_the_root_of_the_mean_square, treats_every_vector_alone, keeps_the_mean, survives_zeros,
                    adds_eps_to_the_mean_square, computes_in_fp32],
    "03.grouped_attention": [is_attention_for_equal_heads, neighbours_share, one_key_head_serves_all, groups_like_loops],
    "03.count_params": [counts_depth_20, counts_both_ends, counts_fewer_key_heads, counts_like_the_model],
}
