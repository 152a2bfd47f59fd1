"""Muon's rule, each part and all together, against numpy in fp64, one matrix and one row after the other."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import peers

from nanochat.runtime import World
from nanochat.train.config import OptimConfig
from nanochat.train.muon import equal_rows, newton_schulz, polar_express
from nanochat.train.optim import MuonAdamW

ALL = {"orthogonal": "polar_express", "muoneq": True, "muon_plus": True, "normuon_beta": 0.9, "matrix_decay": 0.06}
SHAPES = {"wide": (3, 8, 20), "tall": (2, 20, 8), "square": (2, 12, 12)}  # K, m, n
FIRST_MUON = [(3.4445, -4.7750, 2.0315)] * 5
POLAR_EXPRESS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


class Matrices(nn.Module):
    """Nothing but matrices, all of them Muon's."""

    def __init__(self, shapes):
        super().__init__()
        self.compute_dtype, self.config = torch.float32, SimpleNamespace(n_embd=768)
        dice = np.random.default_rng(0)
        for name, (count, *shape) in shapes.items():
            for k in range(count):
                setattr(self, f"{name}{k}", nn.Parameter(torch.tensor(0.1 * dice.standard_normal(shape)).float()))


def gradient(shape, seed):
    """Singular values between 0.5 and 1, so that rounding is not what is measured; rows of very unequal size."""
    dice = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(dice.standard_normal(shape), full_matrices=False)
    g = (u * dice.uniform(0.5, 1, min(shape))) @ vt
    return torch.tensor(g * np.geomspace(1, 2, shape[0])[:, None]).float()


def slow_step(weight, grad, state, config, lr, momentum, decay):
    """One update of one matrix, entry by entry where it can be; float64 arrays, `state` is kept between calls."""
    rows, columns = weight.shape
    mean = state["mean"] = momentum * state.get("mean", 0.0) + (1 - momentum) * grad
    x = momentum * mean + (1 - momentum) * grad
    if config.muoneq:
        target = np.sqrt((x**2).sum() / rows)
        x = np.array([row * target / max(np.sqrt((row**2).sum()), 1e-6) for row in x])
    size = np.sqrt((x**2).sum())
    polar = config.orthogonal == "polar_express"
    u, s, vt = np.linalg.svd(x / (1.01 * size + 1e-6 if polar else size + 1e-7), full_matrices=False)
    for a, b, c in POLAR_EXPRESS if polar else FIRST_MUON:
        s = a * s + b * s**3 + c * s**5
    x = u @ np.diag(s) @ vt
    if config.muon_plus:
        x = x / np.sqrt((x**2).sum()) * np.sqrt(min(rows, columns))
    if config.normuon_beta is not None:
        lines = x if rows >= columns else x.T  # each gets its own variance
        kept = state.setdefault("variance", np.zeros(len(lines)))
        scaled = np.empty_like(lines)
        for i, line in enumerate(lines):
            kept[i] = config.normuon_beta * kept[i] + (1 - config.normuon_beta) * np.mean(line**2)
            scaled[i] = line / np.sqrt(max(kept[i], 1e-10))
        scaled *= np.sqrt((lines**2).sum() / (scaled**2).sum())
        x = scaled if rows >= columns else scaled.T
    new = weight.copy()
    for i in range(rows):
        for j in range(columns):
            towards_zero = x[i, j] * weight[i, j] >= 0
            new[i, j] -= lr * max(1, rows / columns) ** 0.5 * (x[i, j] + decay * weight[i, j] * towards_zero)
    return new


def four_steps(world, changes):
    """The optimizer beside the slow rule; each rank has the gradient's rows r, r + size, ... of every matrix."""
    config, model, first = OptimConfig(matrix_lr=0.02, **changes), Matrices(SHAPES), OptimConfig(matrix_lr=0.02)
    optimizer = MuonAdamW(model, config, world)
    want = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    states, others = {name: {} for name in want}, {name: {} for name in want}
    for step in range(4):
        settings = {"momentum": 0.85 + 0.03 * step, "decay": config.matrix_decay * (1 - step / 8)}
        for seed, (name, p) in enumerate(model.named_parameters()):
            grad, before = gradient(p.shape, 10 * step + seed), want[name]
            p.grad = torch.zeros_like(p)
            p.grad[world.rank :: world.size] = grad[world.rank :: world.size]
            arguments = before, grad.double().numpy()
            want[name] = slow_step(*arguments, states[name], config, 0.02 * (1 - step / 5), **settings)
            plain = slow_step(*arguments, others[name], first, 0.02 * (1 - step / 5), settings["momentum"], 0.0)
            if changes:  # a part that did nothing would be equal too
                assert np.abs(want[name] - plain).max() > 1e-5
        optimizer.step(lr_scale=1 - step / 5, momentum=settings["momentum"], decay_scale=1 - step / 8)
        for name, p in model.named_parameters():
            error = np.linalg.norm(p.detach().double().numpy() - want[name]) / np.linalg.norm(want[name])
            assert error < 1e-6, (name, step, error)


@pytest.mark.parametrize("changes", [{}, *({name: value} for name, value in ALL.items()), ALL],
                         ids=["first Muon", *ALL, "all"])  # fmt: skip
def test_four_steps_equal_the_slow_rule(changes):
    four_steps(World(), changes)


@pytest.mark.parametrize("size", [2, 4])
def test_four_steps_on_several_ranks_equal_the_slow_rule(size):
    peers.run(size, four_steps, ALL)


def test_equal_rows_keep_the_matrixs_norm():
    g = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(equal_rows(g) / (26 / 3) ** 0.5, torch.tensor([[[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]]]))


def test_weights_in_the_directions_way_decay_and_no_others():
    weights = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    moved = {}
    for decay in (0.0, 0.5):
        model = Matrices({"square": (1, 2, 2)})
        model.square0.data.copy_(weights)
        model.square0.grad = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
        MuonAdamW(model, OptimConfig(matrix_lr=0.1, matrix_decay=decay), World()).step()
        moved[decay] = model.square0.detach()
    lost = torch.tensor([[0.05, 0.0], [-0.05, 0.05]])  # 0.1 · 0.5 of all but the one that grows
    torch.testing.assert_close(moved[0.0] - moved[0.5], lost, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5)])
@pytest.mark.parametrize("orthogonal, quintics, room",
                         [(newton_schulz, FIRST_MUON, 1), (polar_express, POLAR_EXPRESS, 1.01)])  # fmt: skip
def test_singular_vectors_stay_and_values_are_mapped_by_the_polynomials(orthogonal, quintics, room, shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e4  # 1e-6 does not count
    u, s, vt = torch.linalg.svd(g / room / g.norm(dim=(-2, -1), keepdim=True), full_matrices=False)
    for a, b, c in quintics:
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonal(g, dtype=torch.float64), u @ torch.diag_embed(s) @ vt, atol=1e-8, rtol=0)


@pytest.mark.parametrize("orthogonal, low, high", [(newton_schulz, 0.6, 1.3), (polar_express, 0.84, 1.16)])
def test_singular_values_come_near_one_in_bf16_too(orthogonal, low, high):
    g = torch.randn(4, 64, 256, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.linalg.svdvals(orthogonal(g, dtype=dtype).float())
        assert values.min() > low and values.max() < high


def test_a_zero_gradient_only_lets_weights_decay():
    model = Matrices(SHAPES)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    MuonAdamW(model, OptimConfig(matrix_lr=0.02, **ALL), World()).step()
    for name, p in model.named_parameters():
        rate = 0.02 * max(1, p.size(0) / p.size(1)) ** 0.5
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.06 * rate), atol=1e-7, rtol=0)
