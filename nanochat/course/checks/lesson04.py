"""Lesson 04, optimisation: the cases of its exercises, and the answers that `use` gives where the library has no function.

Oracles are of another make than the answers: plain floats and numpy for AdamW (making one of PyTorch's optimizers imports its
compiler, which takes longer than a case may), a singular value decomposition for Newton–Schulz, interpolation for the
schedule, one big batch and one process for what is cut into pieces.
"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_adamw_step(weight: Tensor, grad: Tensor, state: dict, lr: float, betas=(0.9, 0.95), eps: float = 1e-8,
                         decay: float = 0.0) -> None:
    """One step of AdamW on `weight`, in place; `state` is empty before the first step and belongs to this weight."""
    state["step"] = t = state.get("step", 0) + 1
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    weight *= 1 - lr * decay
    weight -= lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)


def reference_newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """g (m, n) = U S V^T -> about U V^T, by products of matrices alone."""
    a, b, c = COEFFICIENTS
    x = g / (g.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def reference_accumulate(model, inputs: Tensor, targets: Tensor, micro: int) -> float:
    """Leave the gradient of the mean loss over all counted targets (-1 is not counted), `micro` rows at a time."""
    model.zero_grad()
    counted, total = (targets >= 0).sum(), 0.0
    for i in range(0, len(inputs), micro):
        loss = model(inputs[i : i + micro], targets[i : i + micro], reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def reference_sharded_step(weight: Tensor, grads: list[Tensor], states: list[dict], update) -> None:
    """Each rank sums all ranks' gradients for its own rows of `weight` and updates these rows with its own state."""
    run = math.ceil(len(weight) / len(grads))
    for rank, state in enumerate(states):
        own = slice(rank * run, (rank + 1) * run)
        update(weight[own], sum(grad[own] for grad in grads), state)


# ---------------------------------------------------------------------------------------------------------------------
# Oracles

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _polynomial(s: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def _by_svd(g: Tensor, steps: int) -> Tensor:
    """Newton–Schulz with the singular values laid open, in double precision."""
    U, S, Vh = torch.linalg.svd(g.double(), full_matrices=False)
    return U * _polynomial(S / S.square().sum().sqrt(), steps) @ Vh


def _matrix(m: int, n: int, values: list[float]) -> Tensor:
    """A random (m, n) matrix with these singular values."""
    U, V = (torch.linalg.qr(torch.randn(k, len(values)))[0] for k in (m, n))
    return U * torch.tensor(values) @ V.T


def _same(got, wanted, what: str, tolerance: float = 1e-5):
    """Tensors of one shape with nearly the same entries; says where they are not."""
    assert isinstance(got, Tensor), f"{what}: a tensor is wanted, not {type(got).__name__}"
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, should be {tuple(wanted.shape)}"
    bad = ~((got.detach().double() - wanted).abs() <= tolerance * (1 + wanted.abs()))       # nan is bad as well
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        assert False, f"{what}: at {list(at)} {got[at].item():.6g}, should be {wanted[at].item():.6g}"


# ---------------------------------------------------------------------------------------------------------------------
# 04.adamw_step


def first_step_is_lr_long(adamw_step):
    "whatever the size of the gradient, the first step is lr, against its sign"
    weight, grad = torch.zeros(4), torch.tensor([1e-3, -0.5, 20.0, -3e4])
    adamw_step(weight, grad, {}, lr=0.1)
    _same(weight, [-0.1, 0.1, -0.1, 0.1], f"zeros, after one step of 0.1 along {grad.tolist()}", 1e-4)


def follows_plain_floats(adamw_step):
    "five steps of one number, computed with Python's floats"
    weight, state = torch.tensor([0.7]), {}
    w, m, v, lr, b1, b2, eps, decay = 0.7, 0.0, 0.0, 0.05, 0.8, 0.9, 0.1, 0.2
    for t, g in enumerate((0.3, -1.0, 0.5, 0.5, 2.0), start=1):
        adamw_step(weight, torch.tensor([g]), state, lr=lr, betas=(b1, b2), eps=eps, decay=decay)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w * (1 - lr * decay) - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
        _same(weight, [w], f"step {t}")


def shrinks_the_weight_itself(adamw_step):
    "decay multiplies the weight by 1 - lr · decay; it does not pass through the gradient's averages"
    weight, state = torch.tensor([2.0, -4.0]), {}
    adamw_step(weight, torch.zeros(2), state, lr=0.1, decay=0.5)
    _same(weight, [1.9, -3.8], "gradient 0, lr 0.1, decay 0.5")


def keeps_a_state_for_each_weight(adamw_step):
    "everything that is remembered lies in `state`: two weights do not disturb each other"
    grads, alone, both = torch.randn(6, 3), torch.zeros(3), [torch.zeros(3), torch.zeros(3)]
    state, states = {}, [{}, {}]
    for grad in grads:
        adamw_step(alone, grad, state, lr=0.01)
    for grad in grads:
        for weight, own, sign in zip(both, states, (1, -5)):
            adamw_step(weight, sign * grad, own, lr=0.01)
    _same(both[0], alone.double(), "a weight beside another one, after 6 steps")


def changes_only_the_weight(adamw_step):
    "the weight is changed in place, the gradient is left alone"
    weight, grad = torch.ones(3), torch.tensor([1.0, 2.0, 3.0])
    adamw_step(weight, grad, {}, lr=0.1)
    assert (weight != 1).all(), "the tensor that was handed over has not changed: use -= or sub_"
    _same(grad, [1.0, 2.0, 3.0], "the gradient after the step")


def equals_double_precision(adamw_step):
    "random gradients, 30 steps: the same as the formulas in numpy's double precision"
    weight, state = torch.randn(5, 4), {}
    w, (lr, b1, b2, eps, decay) = weight.double().numpy().copy(), (0.02, 0.8, 0.98, 1e-6, 0.1)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 31):
        grad = torch.randn(5, 4)
        adamw_step(weight, grad.clone(), state, lr=lr, betas=(b1, b2), eps=eps, decay=decay)
        g = grad.double().numpy()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - lr * (decay * w + m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
    _same(weight, w, "after 30 steps", 1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# 04.newton_schulz


def brings_singular_values_near_one(newton_schulz):
    "singular values from 0.05 to 1 end between 0.6 and 1.3"
    for m, n in ((8, 8), (6, 20), (20, 6)):
        got = torch.linalg.svdvals(newton_schulz(_matrix(m, n, [1.0, 0.8, 0.5, 0.2, 0.1, 0.05])))[:6]
        assert 0.6 < got.min() and got.max() < 1.3, f"({m}, {n}): {[round(s, 3) for s in got.tolist()]}"


def keeps_the_directions(newton_schulz):
    "only the singular values change: the same as a singular value decomposition with the polynomial on S"
    for m, n in ((6, 6), (5, 12), (12, 5)):
        g = torch.randn(m, n)
        _same(newton_schulz(g), _by_svd(g, 5), f"random ({m}, {n})", 1e-3)


def forgets_the_size(newton_schulz):
    "a gradient a thousand times as large gives the same direction, and so does a tiny one"
    g = torch.randn(6, 9)
    for factor in (1000.0, 1e-3):
        _same(newton_schulz(factor * g), _by_svd(g, 5), f"{factor:g} times a random matrix", 2e-3)


def takes_the_steps_asked_for(newton_schulz):
    "no step: g divided by its norm; one step: the polynomial once; three: three times"
    g = torch.randn(4, 7)
    for steps in (0, 1, 3):
        _same(newton_schulz(g, steps=steps), _by_svd(g, steps), f"steps={steps}", 1e-4)


def leaves_the_gradient_alone(newton_schulz):
    "the gradient you were given stays as it was"
    g = torch.randn(3, 5)
    before = g.clone()
    newton_schulz(g)
    assert torch.equal(g, before), "newton_schulz changed its input"


# ---------------------------------------------------------------------------------------------------------------------
# 04.lr_schedule


def gives_the_example(lr_scale):
    "10 steps, 2 of warm-up, flat for half, then down towards 0.1"
    got = [round(lr_scale(s, 10, 2, 0.5, 0.1), 2) for s in range(10)]
    wanted = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28]
    assert got == wanted, f"got {got}"


def never_wastes_the_first_step(lr_scale):
    "warm-up over n steps begins at 1/n, not at 0, and is complete at step n - 1"
    for n in (1, 4, 10):
        got = lr_scale(0, 100, n, 0.5, 0.0), lr_scale(n - 1, 100, n, 0.5, 0.0)
        assert abs(got[0] - 1 / n) < 1e-9 and abs(got[1] - 1) < 1e-9, f"warmup={n}: {got[0]:.3f} at step 0, {got[1]:.3f} at {n - 1}"


def works_without_warm_up(lr_scale):
    "with warmup=0 the first step is a whole one"
    got = lr_scale(0, 10, 0, 0.5, 0.0)
    assert abs(got - 1) < 1e-9, f"got {got}"


def counts_flat_from_the_start(lr_scale):
    "`flat` is a share of all steps, warm-up included"
    got = [lr_scale(s, 100, 20, 0.5, 0.0) for s in (50, 60, 75)]
    assert np.allclose(got, [1.0, 0.8, 0.5]), f"steps 50, 60, 75 of 100: {[round(x, 3) for x in got]}, should be [1.0, 0.8, 0.5]"


def interpolates(lr_scale):
    "random schedules: the same as drawing straight lines from point to point"
    for _ in range(30):
        steps, final = random.randint(5, 200), random.random()
        warmup, flat = random.randint(1, steps // 2), random.random()
        start = max(warmup, flat * steps)
        wanted = np.interp(range(steps), [-1, warmup - 1, start, steps], [0, 1, 1, final])
        for step in range(steps):
            got = lr_scale(step, steps, warmup, flat, final)
            assert abs(got - wanted[step]) < 1e-6, (f"lr_scale({step}, {steps}, warmup={warmup}, flat={flat:.3f}, "
                                                    f"final={final:.3f}) is {got:.5f}, should be {wanted[step]:.5f}")


# ---------------------------------------------------------------------------------------------------------------------
# 04.accumulate


class _Model(nn.Module):
    """Called like GPT: ids and targets to a loss; remembers how many rows it saw at once."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(11, 11))
        self.rows = []

    def forward(self, inputs, targets, reduction="mean"):
        self.rows.append(len(inputs))
        return F.cross_entropy(self.table[inputs].flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)


def _batch(rows: int, masked: float) -> tuple[Tensor, Tensor]:
    targets = torch.randint(11, (rows, 5))
    targets[torch.rand(rows, 5) < masked] = -1
    targets[0, 0] = 3
    return torch.randint(11, (rows, 5)), targets


def _big_batch(model, inputs, targets) -> tuple[float, Tensor]:
    table = model.table.detach().clone().requires_grad_()
    kept = targets.flatten() >= 0
    loss = F.cross_entropy(table[inputs].flatten(0, 1)[kept], targets.flatten()[kept])
    return loss.item(), torch.autograd.grad(loss, table)[0]


def equals_one_big_batch(accumulate):
    "8 rows, 2 at a time: the gradient of all 8 at once"
    model, (inputs, targets) = _Model(), _batch(8, masked=0.0)
    accumulate(model, inputs, targets, micro=2)
    assert model.table.grad is not None, "no gradient was left: call backward"
    _same(model.table.grad, _big_batch(model, inputs, targets)[1].double(), "the gradient")


def weighs_targets_not_pieces(accumulate):
    "a piece with few counted targets weighs little: the mean is over all targets of the batch"
    model, (inputs, targets) = _Model(), _batch(6, masked=0.3)
    targets[4:] = -1
    targets[5, 0] = 1
    accumulate(model, inputs, targets, micro=2)
    _same(model.table.grad, _big_batch(model, inputs, targets)[1].double(), "the gradient, one target in the last piece")


def forgets_old_gradients(accumulate):
    "gradients from before do not count: called twice, it leaves the same as called once"
    model, (inputs, targets) = _Model(), _batch(4, masked=0.2)
    for _ in range(2):
        accumulate(model, inputs, targets, micro=2)
    _same(model.table.grad, _big_batch(model, inputs, targets)[1].double(), "the gradient after the second call")


def takes_the_last_rows_too(accumulate):
    "7 rows, 3 at a time: the last piece has one row"
    model, (inputs, targets) = _Model(), _batch(7, masked=0.2)
    accumulate(model, inputs, targets, micro=3)
    _same(model.table.grad, _big_batch(model, inputs, targets)[1].double(), "the gradient")


def never_sees_more_than_micro(accumulate):
    "never more than `micro` rows go through the model at once"
    model, (inputs, targets) = _Model(), _batch(9, masked=0.0)
    accumulate(model, inputs, targets, micro=4)
    assert model.rows and max(model.rows) <= 4, f"micro=4, but the model was called with {model.rows} rows"


def returns_the_mean_loss(accumulate):
    "the result is the mean loss over the counted targets, a float"
    model, (inputs, targets) = _Model(), _batch(6, masked=0.4)
    got, wanted = accumulate(model, inputs, targets, micro=4), _big_batch(model, inputs, targets)[0]
    assert isinstance(got, float) and abs(got - wanted) < 1e-4, f"got {got!r}, should be {wanted:.6f}"


# ---------------------------------------------------------------------------------------------------------------------
# 04.sharded_step


def _momentum(rows: Tensor, grad: Tensor, state: dict) -> None:
    """An update with a memory: one number per weight."""
    state["m"] = 0.5 * state.get("m", torch.zeros_like(rows)) + grad
    rows -= 0.1 * state["m"]


def equals_one_process(sharded_step):
    "three steps on 4 ranks: the weight that one process gets from the summed gradient"
    weight, states, alone = torch.randn(8, 3), [{} for _ in range(4)], {}
    expected = weight.clone()
    for _ in range(3):
        grads = [torch.randn(8, 3) for _ in range(4)]
        sharded_step(weight, grads, states, _momentum)
        _momentum(expected, sum(grads), alone)
        _same(weight, expected.double(), "the weight")


def leaves_no_row_out(sharded_step):
    "10 rows on 4 ranks: 3, 3, 3 and 1"
    for rows, ranks, wanted in ((10, 4, [3, 3, 3, 1]), (6, 4, [2, 2, 2]), (5, 1, [5])):
        seen, weight = [], torch.zeros(rows, 2)

        def update(own, grad, state, seen=seen):
            assert own.shape == grad.shape, f"{len(own)} rows, but a gradient of {len(grad)}"
            seen.extend([len(own)] if len(own) else [])
            own += 1

        sharded_step(weight, [torch.ones(rows, 2)] * ranks, [{} for _ in range(ranks)], update)
        assert weight.eq(1).all(), f"{rows} rows on {ranks} ranks: rows were updated {weight[:, 0].int().tolist()} times"
        assert seen == wanted, f"{rows} rows on {ranks} ranks: cut into {seen}, should be {wanted}"


def sums_over_ranks(sharded_step):
    "the gradients of all ranks are added: each loss was divided by the count of the whole batch already"
    got = []
    sharded_step(torch.zeros(4, 1), [torch.full((4, 1), 2.0), torch.full((4, 1), 5.0)], [{}, {}],
                 lambda rows, grad, state: got.extend(grad.flatten().tolist()))
    assert got == [7.0] * 4, f"gradients 2 and 5 arrived as {got}"


def splits_the_state(sharded_step):
    "no rank remembers anything about the rows of another"
    states = [{} for _ in range(3)]
    sharded_step(torch.zeros(9, 4), [torch.ones(9, 4)] * 3, states, _momentum)
    sizes = [state["m"].numel() if "m" in state else 0 for state in states]
    assert sizes == [12, 12, 12], f"36 weights on 3 ranks: the states hold {sizes} numbers"


CASES = {
    "04.adamw_step": [first_step_is_lr_long, follows_plain_floats, shrinks_the_weight_itself, keeps_a_state_for_each_weight,
                      changes_only_the_weight, equals_double_precision],
    "04.newton_schulz": [brings_singular_values_near_one, keeps_the_directions, forgets_the_size, takes_the_steps_asked_for,
                         leaves_the_gradient_alone],
    "04.lr_schedule": [gives_the_example, never_wastes_the_first_step, works_without_warm_up, counts_flat_from_the_start,
                       interpolates],
    "04.accumulate": [equals_one_big_batch, weighs_targets_not_pieces, forgets_old_gradients, takes_the_last_rows_too,
                      never_sees_more_than_micro, returns_the_mean_loss],
    "04.sharded_step": [equals_one_process, leaves_no_row_out, sums_over_ranks, splits_the_state],
}
