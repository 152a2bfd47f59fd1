"""What temperature, top-k, top-p and the numbers do to the choice of a token."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine import row_keys, sample, uniforms

logits_of = st.lists(st.floats(-15, 15), min_size=2, max_size=30)


def spread(logits, **knobs):
    """The distribution that `sample` draws from, by walking u over a fine grid."""
    n = 20_000
    u = (np.arange(n) + 0.5) / n
    tokens = sample(torch.tensor(logits)[None].expand(n, -1), u=u, **knobs)
    return torch.bincount(tokens, minlength=len(logits)) / n


@settings(max_examples=30, deadline=None)
@given(logits_of, st.floats(0.1, 3))
def test_tokens_come_with_their_softmax_probability(logits, temperature):
    expected = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(-1)
    assert (spread(logits, temperature=temperature) - expected).abs().max() < 2e-4


@settings(max_examples=30, deadline=None)
@given(logits_of, st.integers(1, 30), st.floats(0.05, 1.0))
def test_top_k_then_top_p_keep_the_right_tokens_and_their_ratios(logits, k, p):
    probs = torch.tensor(logits, dtype=torch.float64).softmax(-1)
    kept = probs.topk(min(k, len(logits))).values
    kept = kept / kept.sum()
    n = int(((kept.cumsum(-1) - kept) < p).sum())                   # the smallest set that reaches p
    got = spread(logits, top_k=k, top_p=p).sort(descending=True).values[: n + 1].double()
    expected = torch.cat((kept[:n] / kept[:n].sum(), torch.zeros(1, dtype=torch.float64)))[: len(got)]
    assert (got - expected).abs().max() < 2e-4


@settings(max_examples=50, deadline=None)
@given(logits_of, st.floats(0, 1, exclude_max=True))
def test_no_luck_is_needed_for_temperature_0_top_k_1_or_a_tiny_top_p(logits, u):
    row = torch.tensor([logits])
    best = float(row.max())
    for knobs in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-300}):
        assert float(row[0, int(sample(row, u=[u], **knobs))]) == best


def test_the_extremes_of_u_pick_possible_tokens():
    logits = torch.tensor([[float("-inf"), 1.0, 2.0, float("-inf")]])
    assert int(sample(logits, u=[0.0])) == 1
    assert int(sample(logits, u=[1 - 2.0**-52])) == 2
    assert int(sample(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), top_p=0.5, u=[1 - 2.0**-52])) == 0


def test_each_row_has_its_own_number():
    logits = torch.zeros(4, 10)
    assert sample(logits, u=[0.05, 0.15, 0.95, 0.05]).tolist() == [0, 1, 9, 0]


def test_numbers_belong_to_seed_prompt_sample_and_position():
    prompts = [[1, 2], [1, 2], [3], [1, 2]]
    keys = row_keys(0, prompts, [0, 1, 0, 0])
    assert keys[0] == keys[3] and len(set(keys.tolist())) == 3
    assert row_keys(0, [[3]], [0])[0] == keys[2] != row_keys(1, [[3]], [0])[0]
    grid = np.array([uniforms(keys[:3], t) for t in range(50)])
    assert len(np.unique(grid)) == grid.size
    assert (uniforms(keys, np.arange(4)) == [uniforms(keys[i : i + 1], i)[0] for i in range(4)]).all()


def test_numbers_are_uniform():
    u = uniforms(row_keys(0, [[i] for i in range(300)], [0] * 300)[:, None], np.arange(100)[None]).ravel()
    assert 0 <= u.min() and u.max() < 1
    counts = np.histogram(u, bins=100, range=(0, 1))[0]
    assert ((counts - 300) ** 2 / 300).sum() < 150                  # chi-square, 99 degrees of freedom: p = .001 at 149
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.02
