# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 Optimisation
#
# The gradient points in the wrong direction. It is right about an infinitely small step, and nobody takes one of those.
# For the steps we do take it is too long in some directions, too short in others, and says nothing about which is which.
# This lesson is about what to do to a gradient before you subtract it.
#
# It is also about arithmetic with few bits, batches larger than memory, and several machines that have to agree on one step:
# the rest of what happens between a loss and a better model. By the end you can read `nanochat/train/optim.py` and `loop.py`.
#
# *About two hours, five exercises.*

# %% tags=["parameters"]
SCALE = "toy"   # one of the scales in course.yml
RUN = ""        # a name under runs/, or a folder; empty means the scale's name
SEED = 0

# %% tags=["setup"]
from nanochat import course
from nanochat.course import check, use
S = course.scale(SCALE)
run = course.open_run(SCALE, RUN, SEED)
course.environment(S, run)

# %%
import contextlib
import copy
import io
import math
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display
from safetensors.torch import load_file

from nanochat.course import plots, prepare
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, open_run
from nanochat.train import char_rnn
from nanochat.train.config import MachineConfig, OptimConfig, PretrainConfig

plots.style()
torch.set_num_threads(S.machine.threads or torch.get_num_threads())

# %% [markdown]
# ## A ravine
#
# Before a model with a million weights, a valley with two. Along it the ground is nearly flat, across it 200 times as curved. (A
# real gradient will turn out to look like this further down.) The loss is ½ wᵀHw, and so the gradient is Hw.

# %%
def ravine(turn):
    """The matrix H of a ravine that is turned by an angle, and a place to start in it."""
    R = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return R @ torch.diag(torch.tensor([1.0, 200.0])) @ R.T, R @ torch.tensor([-4.0, 1.0])


def walk(turn, rule, steps=50):
    """Follow a rule; the places it visits and the loss at the end."""
    H, w = ravine(turn)
    state, path = {}, [w.clone()]
    for _ in range(steps):
        rule(w, H @ w, state)  # changes w in place
        path.append(w.clone())
    return torch.stack(path), float(w @ H @ w / 2)

# %% [markdown]
# The plainest rule subtracts a multiple of the gradient. **Predict before you run:** across the ravine the gradient is 200 times
# the distance to the bottom. Which learning rate takes us there in one step, and what happens at twice that?

# %%
def sgd(lr):
    def rule(w, grad, state):
        w -= lr * grad
    return rule


for lr in (0.001, 0.005, 0.0097, 0.0102):
    print(f"learning rate {lr:<6}  loss after 50 steps {walk(0.0, sgd(lr))[1]:10.4f}")

# %% [markdown]
# The steepest direction sets the limit, 2/200, for all of them. Along the valley, where most of the way lies, we crawl: each step
# closes less than a hundredth of the distance.
#
# **Momentum** averages gradients. Across the ravine they change their sign with every step and cancel; along it they agree and
# add up.

# %%
def momentum(lr, beta=0.9):
    def rule(w, grad, state):
        m = state.setdefault("m", torch.zeros_like(w))
        m.mul_(beta).add_(grad)  # the sum of past gradients, fading
        w -= lr * m
    return rule


print(f"momentum at 0.0097: {walk(0.0, momentum(0.0097))[1]:.4f}")

# %% [markdown]
# ## A learning rate for every weight
#
# The other idea: weights whose gradients are large should take shorter steps. Keep a second average, `v`, of the *squared*
# gradients, and divide by its root. What is left is about ±1 for each weight, whatever the scale of its gradients was.
#
# Two details make it AdamW. Both averages start from zero, and are too small at first: after t steps an average with factor β
# has seen only a share 1 − βᵗ of its weight, so we divide by that. And *weight decay*, which pulls weights towards zero, is
# applied to the weight itself, lest the division undo it.
#
# ---
# **Exercise 04.adamw_step** · 4 points · ●●○ · about 7 lines · 20 min
#
# Write `adamw_step(weight, grad, state, lr, betas, eps, decay)`. It changes `weight` in place. `state` is a dict that is empty
# before the first step; keep there what must be remembered.
#
# - m ← β₁ m + (1 − β₁) g and v ← β₂ v + (1 − β₂) g²
# - w ← w · (1 − lr · decay)
# - w ← w − lr · m̂ / (√v̂ + eps), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), and t = 1 in the first step
#
# ```
# >>> w = torch.zeros(2); adamw_step(w, torch.tensor([5., -0.01]), {}, lr=0.1); w
# tensor([-0.1000,  0.1000])
# ```
# <details><summary>Hint 1</summary><code>state.setdefault("m", torch.zeros_like(weight))</code> gives what is there, and puts zeros there the first time.</details>
# <details><summary>Hint 2</summary>In place: <code>m.lerp_(grad, 1 - betas[0])</code> is the first line; <code>weight -= …</code> changes the tensor, <code>weight = weight - …</code> makes another one.</details>

# %% tags=["exercise:04.adamw_step"]
def adamw_step(weight, grad, state, lr, betas=(0.9, 0.95), eps=1e-8, decay=0.0):
    """One step of AdamW on `weight`, in place; `state` is an empty dict before the first step."""
    raise NotImplementedError("04.adamw_step")

# %% tags=["grade:04.adamw_step"]
check("04.adamw_step")

# %% tags=["use:04.adamw_step"]
adamw_step = use("04.adamw_step")

# %% [markdown]
# What if we had left the correction out? The first steps would be wrong by a factor that depends on the betas alone:

# %%
for b1, b2 in ((0.9, 0.999), (0.9, 0.95), (0.8, 0.95)):
    factors = [(1 - b1**t) / math.sqrt(1 - b2**t) for t in (1, 2, 5, 20, 100)]
    print(f"betas {b1}, {b2:<5}: steps 1, 2, 5, 20, 100 would be", *(f"{f:.2f}" for f in factors), "times as long")

# %% [markdown]
# **Predict before you run.** Below are two ravines. The left one lies along the axes, the right one is the same, turned by 45°. Which
# of the three rules will notice that it was turned?

# %%
def adamw(lr):
    return lambda w, grad, state: adamw_step(w, grad, state, lr)


rules = {"SGD": (sgd(0.0097), "."), "momentum": (momentum(0.0097), "+"), "AdamW": (adamw(0.2), "x")}

# %%
fig, axes = plt.subplots(1, 2, figsize=(5, 1.9))
for ax, turn in zip(axes, (0.0, math.pi / 4)):
    for rule, marker in rules.values():
        ax.plot(*walk(turn, rule, steps=24)[0].T, marker, markersize=4)
    ax.plot(0, 0, "k*")
    ax.set(xlim=(-4.6, 1), ylim=(-4.2, 1.4), xticks=[], yticks=[], title="turned by 45°" if turn else "along the axes")
plt.show()
print("after 50 steps         SGD (.)   momentum (+)   AdamW (x)")
for turn in (0.0, math.pi / 4):
    losses = [walk(turn, rule)[1] for rule, _ in rules.values()]
    print(f"{'turned by 45°' if turn else 'along the axes':<20} {losses[0]:9.3f} {losses[1]:14.3f} {losses[2]:11.3f}")

# %% [markdown]
# SGD and momentum do not notice. AdamW does: its strength was to give each *weight* a rate of its own, and in the turned ravine no
# single weight is steep or flat, only combinations of weights are. Remember that picture.

# %% [markdown]
# ## A matrix is not a bag of numbers
#
# Nearly all weights of a Transformer stand in matrices, and a matrix has directions of its own. Let us look at a real gradient.
# The model is the tiny one of lesson 03, on bytes of this run's text.

# %%
ROWS, LENGTH, STEPS = 16, 64, min(50, S.pretrain.schedule.steps)
paths = prepare.first_text(S, run)
train_lanes = char_rnn.read_lanes(paths[:-1], ROWS, ROWS * (STEPS * LENGTH + 1))
val_lanes = char_rnn.read_lanes(paths[-1:], ROWS, ROWS * (8 * LENGTH + 1))


def batch(step):
    return char_rnn.window(train_lanes, step, LENGTH, "cpu")  # inputs, targets (16, 64)


def new_model():
    return GPT(GPTConfig(LENGTH, 257, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)).init_weights(SEED)

# %%
model, states = new_model(), {}
for step in range(10):
    model.zero_grad()
    model(*batch(step)).backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            adamw_step(p, p.grad, states.setdefault(name, {}), lr=0.01)
gradient = model.blocks[0].mlp.c_fc.weight.grad  # (256, 64)
sizes = torch.linalg.svdvals(gradient)  # (64,) falling
print("largest ", [f"{s:.1e}" for s in sizes[:4]], " smallest", [f"{s:.1e}" for s in sizes[-4:]])
print(f"the first 4 of {len(sizes)} directions hold {sizes[:4].square().sum() / sizes.square().sum():.0%} of the gradient's square")

# %% [markdown]
# A singular value says how far the gradient moves the matrix in one of its own directions. A few directions get nearly everything.
# It is the ravine again, in 64 dimensions and turned in an unknown way, so no rate per weight can help. What would help is to make
# all singular values equal: if G = U S Vᵀ, then step along U Vᵀ.
#
# A singular value decomposition would do it, but it is slow, above all on a GPU. There is a way with products alone. Take an odd
# polynomial p(x) = a x + b x³ + c x⁵ and apply it to the matrix: a X + (b A + c A²) X with A = X Xᵀ. U and V stay as they are,
# and each singular value s becomes p(s). Repeat until all are near 1.
#
# ---
# **Exercise 04.newton_schulz** · 3 points · ●●○ · about 6 lines · 15 min
#
# Write `newton_schulz(g, steps)` for one matrix. First divide `g` by its Frobenius norm `g.norm()` (plus 1e-7), so that no singular
# value is above 1. Then apply the polynomial `steps` times, with (a, b, c) = (3.4445, −4.7750, 2.0315).
#
# ```
# >>> newton_schulz(torch.diag(torch.tensor([3., 1.]))).diag()     # instead of 1 and 1
# tensor([0.7229, 1.0896])
# ```
# <details><summary>Hint 1</summary><code>x @ x.T</code> holds the squares of the singular values; times <code>x</code> again, their cubes.</details>
# <details><summary>Hint 2</summary>Powers of a matrix are products with <code>@</code>; <code>x**3</code> would cube each entry.</details>

# %% tags=["exercise:04.newton_schulz"]
def newton_schulz(g, steps=5):
    """g (m, n) = U S Vᵀ -> about U Vᵀ, by products of matrices alone."""
    raise NotImplementedError("04.newton_schulz")

# %% tags=["grade:04.newton_schulz"]
check("04.newton_schulz")

# %% tags=["use:04.newton_schulz"]
newton_schulz = use("04.newton_schulz")

# %% [markdown]
# Need all five steps be the same? **Polar Express** takes another polynomial each time, the best for what the one before can leave.
# It is the library's for the larger scales. **Predict before you run:** which of the two leaves the narrower band?

# %%
from nanochat.train import muon

schulz, polar = newton_schulz(gradient), muon.polar_express(gradient[None])[0]
x = torch.logspace(-3, 0, 22)
fig, (left, right) = plt.subplots(1, 2, figsize=(5.2, 1.8), sharey=True)
for coefficients, marker in (([muon.NEWTON_SCHULZ] * 5, "."), (muon.POLAR_EXPRESS, "+")):
    y = x
    for a, b, c in coefficients:
        y = a * y + b * y**3 + c * y**5
    left.semilogx(x, y, marker, markersize=4)
left.set(title="what becomes of a value", xlabel="singular value, Frobenius norm 1")
right.plot(sizes[::3] / sizes[0], "kx", markersize=3)
for direction, marker in ((schulz, "C0."), (polar, "C1+")):
    right.plot(torch.linalg.svdvals(direction)[::3], marker, markersize=4)
right.set(title="gradient (x), made even (., +)", xlabel="direction", xticks=[])
plt.show()

# %% [markdown]
# Dots are ours, plus signs Polar Express. Neither settles at 1: ours was chosen to be steep at zero, so that small values rise fast, and
# leaves a band around 1. The other's band is narrower. For a step both will do.

# %%
for name, matrix in {"gradient": gradient, "Newton-Schulz": schulz, "Polar Express": polar}.items():
    s = torch.linalg.svdvals(matrix)
    print(f"{name:<14} longer than half the longest: {(s > s[0] / 2).sum():2} of {len(s)} directions")

# %% [markdown]
# **Muon** is that, after momentum. With one refinement: it looks ahead a little, by mixing the current gradient in once more (that is
# what is called Nesterov momentum), and it scales the step for tall matrices.

# %%
def muon_step(weight, grad, state, lr, beta=0.95):
    m = state.setdefault("m", torch.zeros_like(weight))
    m.lerp_(grad, 1 - beta)
    direction = newton_schulz(torch.lerp(grad, m, beta))  # (m, n), all singular values near 1
    rows, columns = weight.shape
    weight -= lr * math.sqrt(max(1, rows / columns)) * direction

# %% [markdown]
# It needs one average per weight where AdamW needs two. And it makes sense only for a matrix that maps vectors to vectors. Embedding
# and head hold a row for each token, rare ones beside frequent ones; they stay with AdamW, which treats every weight alone.

# %% [markdown]
# ## How long a step, and when
#
# At the start the averages know nothing, so we begin with small steps: *warm-up*. At the end a long step only jumps from one wall of
# the ravine to the other, so the rate falls. In between it stays.
#
# ---
# **Exercise 04.lr_schedule** · 2 points · ●○○ · about 6 lines · 10 min
#
# Write `lr_scale(step, steps, warmup, flat, final)`: the factor on all learning rates at `step` = 0 … `steps` − 1. It rises in a
# straight line over `warmup` steps, of which the first is already worth 1/`warmup` and the last 1. It stays 1 until the share `flat`
# of *all* steps is done, then falls in a straight line that would reach `final` at step number `steps`.
#
# ```
# >>> [round(lr_scale(s, 10, warmup=2, flat=0.5, final=0.1), 2) for s in range(10)]
# [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28]
# ```
# <details><summary>Hint 1</summary>Three cases: in the warm-up, up to <code>start = max(warmup, flat * steps)</code>, after it.</details>
# <details><summary>Hint 2</summary>After it, the way done is <code>(step - start) / (steps - start)</code>.</details>

# %% tags=["exercise:04.lr_schedule"]
def lr_scale(step, steps, warmup, flat, final):
    """The factor on every learning rate at `step` of 0 … steps - 1."""
    raise NotImplementedError("04.lr_schedule")

# %% tags=["grade:04.lr_schedule"]
check("04.lr_schedule")

# %% tags=["use:04.lr_schedule"]
lr_scale = use("04.lr_schedule")

# %% [markdown]
# These are the schedules that this scale's stages will run under, as course.yml has them.

# %%
stages = {"pretrain": S.pretrain, "midtrain": S.midtrain, "sft": S.sft}
fig, ax = plt.subplots(figsize=(4, 1.6))
for (name, stage), marker in zip(stages.items(), (".", "+", "x")):
    c = stage.schedule
    marks = sorted({round(i * (c.steps - 1) / 30) for i in range(31)})
    ax.plot([i / c.steps for i in marks],
            [c.scale * lr_scale(i, c.steps, c.warmup, c.flat, c.final) for i in marks], marker, markersize=4, label=name)
ax.legend(fontsize=7, loc="upper right")
ax.set(xlabel="share of the steps", title="factor on the learning rates")
plt.show()

# %% [markdown]
# ## What a larger model gets
#
# Nobody tunes a model that costs a day. One is tuned at depth 12, and the others' numbers follow from how far they are from it:
#
# - *Batch.* More weights, more tokens; the longer the run, the smaller what is left to learn beside the noise of a batch. Averaging
#   more tokens helps: the best batch grows like the 0.38th power of the tokens.
# - *Rates.* The noise of a mean falls with the root of the batch, so steps may be as much longer. AdamW's shrink with the root of the
#   width besides, for a sum over more inputs moves further; Muon's steps already have one size.
# - *Decay.* Weights forget over batch ÷ (rate · decay) tokens. That stays the same share of the run.

# %%
from nanochat.train import scaling

depths = range(8, 33, 4)
weights = {d: 12 * d * scaling.width(d)**2 + 32768 * scaling.width(d) for d in (*depths, 12)}  # those that are multiplied
batches = [scaling.batch_tokens(weights[d], weights[12]) for d in depths]
rates = {"Muon": [0.02 * scaling.batch_factor(b) for b in batches],
         "head": [0.008 * scaling.batch_factor(b) * scaling.width_factor(scaling.width(d)) for d, b in zip(depths, batches)]}
decays = [scaling.weight_decay(b, weights[d], weights[12]) for d, b in zip(depths, batches)]
fig, axes = plt.subplots(1, 3, figsize=(5.4, 1.5))
axes[0].plot(depths, [b / 2**20 for b in batches], ".")
axes[1].plot(depths, rates["Muon"], ".", depths, rates["head"], "+")
axes[2].plot(depths, decays, ".")
for ax, title in zip(axes, ("batch, 2²⁰ tokens", "rate: Muon (.), head (+)", "Muon's decay")):
    ax.set(title=title, xticks=(12, 24), xlabel="depth", ylim=(0, None))
plt.show()

# %% [markdown]
# The batch climbs in steps, being a power of two, and the rates with it. The gpt2 scale of course.yml, depth 24, has these numbers.

# %% [markdown]
# ## A race
#
# Four rules, one model, the same bytes in the same order. To be fair, each rule gets three learning rates and is judged by its best.
#
# **Predict before you run.** In which order will they come in?

# %%
def step_all(model, rule, lr, states):
    """One step of a rule on every weight of the model."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            rule(name, p, p.grad, states.setdefault(name, {}), lr)

# %%
def race(rule, lr):
    """Bits per byte of each batch, before the model has learned from it."""
    model, states, scores = new_model(), {}, []
    for step in range(STEPS):
        model.zero_grad()
        loss = model(*batch(step))
        loss.backward()
        step_all(model, rule, lr * lr_scale(step, STEPS, warmup=5, flat=0.4, final=0.02), states)
        scores.append(loss.item() / math.log(2))
    return scores

# %%
def by_muon(name, p, grad, state, lr):
    if name.startswith("blocks."):
        muon_step(p, grad, state, lr)
    else:
        adamw_step(p, grad, state, lr / 3, betas=(0.8, 0.95), eps=1e-10)


runners = {
    "SGD": (lambda name, p, g, state, lr: sgd(lr)(p, g, state), (0.3, 1.0, 3.0)),
    "momentum": (lambda name, p, g, state, lr: momentum(lr)(p, g, state), (0.1, 0.3, 1.0)),
    "AdamW": (lambda name, p, g, state, lr: adamw_step(p, g, state, lr), (0.01, 0.03, 0.1)),
    "Muon": (by_muon, (0.03, 0.1, 0.3)),
}
curves = {name: {lr: race(rule, lr) for lr in rates} for name, (rule, rates) in runners.items()}

# %%
def finish(scores):
    """The mean over the last tenth."""
    tail = scores[-max(1, STEPS // 10):]
    return sum(tail) / len(tail)


best = {name: min(found, key=lambda lr: finish(found[lr])) for name, found in curves.items()}
fig, ax = plt.subplots(figsize=(4.2, 2))
for (name, lr), marker in zip(best.items(), (".", "+", "x", "o")):
    ax.plot(range(0, STEPS, 2), curves[name][lr][::2], marker, markersize=3, label=f"{name} {finish(curves[name][lr]):.2f}")
ax.legend(fontsize=7)
ax.set(xlabel="step", title="bits per byte, each at its best rate")
plt.show()
for name, found in curves.items():
    print(f"{name:<9}", "   ".join(f"{lr:g}: {finish(scores):.2f}" for lr, scores in found.items()))

# %% [markdown]
# The numbers below the picture show how much hangs on the rate: a good rule at a bad one can lose to a lesser rule. One
# reservation: AdamW had a single rate for all weights here; with one for each group it should come closer.

# %% [markdown]
# ## Is that what the library does?
#
# `MuonAdamW` holds both rules, chosen by the name of a weight. Three steps with ours and three with the library's:

# %%
from nanochat.train.optim import MuonAdamW

mine, theirs, states = new_model(), new_model(), {}
optimizer = MuonAdamW(theirs, OptimConfig(matrix_lr=0.1, embedding_lr=0.1 / 3, unembedding_lr=0.1 / 3), World())
for step in range(3):
    for model in (mine, theirs):
        model.zero_grad()
        model(*batch(step)).backward()
    step_all(mine, by_muon, 0.1, states)
    optimizer.step()
apart = max((a - b).abs().max() for a, b in zip(mine.parameters(), theirs.parameters()))
print(f"largest difference of any weight after 3 steps: {apart:.1e}")

# %% [markdown]
# The library's does more at once, not something else: matrices of one shape are stacked and orthogonalised together, and the work
# is shared between processes, which comes below.

# %% [markdown]
# ## Fewer bits
#
# A number of 32 bits is more than a gradient deserves. Half as many bits are half the memory to move, and matrix units are faster
# with them: an H100 does 989 TFLOP/s in bf16 and 1,979 in float8, by its data sheet. There are several ways to spend the bits.

# %%
formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
print("       bits    largest   smallest   next after 1")
for name, dtype in formats.items():
    f = torch.finfo(dtype)
    print(f"{name:<8}{f.bits:3} {f.max:10.1e} {f.smallest_normal * f.eps:10.1e}   1 + {f.eps:.1e}")

# %% [markdown]
# bfloat16 has fp32's range with less precision, so nothing overflows that did not before. The two float8 formats, named after their
# bits of exponent and mantissa, have neither. What does that do to real numbers? We let AdamW train a model for a moment, and catch
# what meets in the products of one layer: its weight, its input, and the gradient that comes back to it.

# %%
by_adamw = runners["AdamW"][0]
grown, grown_states = new_model(), {}
for step in range(STEPS):
    grown.zero_grad()
    grown(*batch(step)).backward()
    step_all(grown, by_adamw, 0.02, grown_states)

# %%
caught = {}


def catch(layer, args, out):
    caught["x"] = args[0].detach().flatten(0, 1)  # (1024, 64)
    out.register_hook(lambda gradient: caught.update(g=gradient.flatten(0, 1)))  # (1024, 256)


layer = grown.blocks[0].mlp.c_fc
hook = layer.register_forward_hook(catch)
grown(*batch(0)).backward()
hook.remove()
w, x, g = layer.weight.detach(), caught["x"], caught["g"]

# %% [markdown]
# **Predict before you run.** Below is how often each power of two occurs in the three, zeros left out. Which of them lies outside of
# what float8 can hold?

# %%
fig, ax = plt.subplots(figsize=(4.6, 1.9))
for (name, t), marker in zip({"weight": w, "input": x, "gradient": g}.items(), (".", "x", "+")):
    powers, counts = (torch.frexp(t[t != 0]).exponent - 1).unique(return_counts=True)
    ax.plot(powers, counts / counts.sum(), marker, markersize=4, label=name)
for y, name in ((-0.05, "e4m3"), (-0.11, "e5m2"), (-0.17, "bf16")):
    f = torch.finfo(formats[name])
    ax.plot([math.log2(f.smallest_normal * f.eps), math.log2(f.max)], [y, y], "k-")
    ax.annotate(name, (8.7, y + 0.01), fontsize=7)
ax.legend(fontsize=7)
ax.set(xlim=(-34, 17), xlabel="power of two", title="shares, and the formats' ranges")
plt.show()

# %% [markdown]
# The gradient lies to the left of e4m3, and half of it to the left of e5m2. So a tensor is *scaled* first. Tensorwise means one factor for all of it,
# which takes its largest entry to the largest number there is: in the picture it slides to the right until it touches the edge. Sums are
# kept in fp32, and the factors are taken out at the end. Does it help? All three products of the layer, against fp64:

# %%
from nanochat.model.fp8 import E4M3, E5M2, product, scaled


def in_fp8(a, b, dtype=E4M3):
    """a @ b, a rounded to dtype, b to e4m3: where there is no such hardware, the same rounding, multiplied in fp32."""
    (a8, a_factor), (b8, b_factor) = scaled(a, dtype), scaled(b, E4M3)
    return product(a8, b8, a_factor, b_factor, torch.float32)


def error(a, b):
    return f"{((a.double() - b.double()).norm() / b.double().norm()).item():11.1e}"

# %%
ways = {"fp32": torch.matmul, "bf16": lambda a, b: a.bfloat16() @ b.bfloat16(),
        "e4m3, unscaled": lambda a, b: a.to(E4M3).float() @ b.to(E4M3).float(),
        "e4m3, scaled": in_fp8, "e5m2 by e4m3": lambda a, b: in_fp8(a, b, E5M2)}
products = {"output x wᵀ": (x, w.T), "to x: g w": (g, w), "to w: gᵀ x": (g.T, x)}
print("relative error ", *(f"{name:>11}" for name in products))
for way, multiply in ways.items():
    print(f"{way:<15}", *(error(multiply(a, b), a.double() @ b.double()) for a, b in products.values()))

# %% [markdown]
# bf16 is off by a few thousandths. Unscaled, float8 keeps the output and loses the gradient altogether; scaled, it costs a few
# hundredths. And e5m2, with a bit less of mantissa, is the worse of the two. Why would anyone take it for gradients? Let one entry be
# a thousand times the largest, as happens once in a long run:

# %%
wild = g.clone()
wild[0, 0] = 1000 * g.abs().max()
for name, dtype in (("e4m3", E4M3), ("e5m2", E5M2)):
    lost = (scaled(wild, dtype)[0].float() == 0) & (wild != 0)
    print(f"{name}: one wild entry, and {lost.sum() / (g != 0).sum():.0%} of the others are zero")

# %% [markdown]
# That is what its range is for. The last matrix is another matter: the head's errors go straight into the logits. Here are bf16, float8
# in the twelve matrices of the blocks, and float8 in the head alone:

# %%
def with_bits(blocks=False, head=False, dtype=torch.bfloat16, step=1):
    """The loss of a batch and all gradients in one vector."""
    model = copy.deepcopy(grown).use_fp8(least=0 if blocks else math.inf)  # least: how small a matrix may be
    model.compute_dtype, model.lm_head.fp8 = dtype, head
    model.zero_grad()
    loss = model(*batch(step))
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])

# %%
loss, whole = with_bits(dtype=torch.float32)
for name, bits in {"bf16": {}, "12 matrices in float8": {"blocks": True}, "the head in float8": {"head": True}}.items():
    here, gradient = with_bits(**bits)
    print(f"{name:<22} loss {here - loss:+.5f}   gradient off by {error(gradient, whole)}")
print(f"{'another batch':<36}   gradient off by {error(with_bits(step=2)[1], whole)}")

# %% [markdown]
# One matrix does more than half the damage of twelve, for a small share of a large model's arithmetic. So the head stays in bf16, and so
# do matrices too small to gain. For the rest there is comfort in the last line: the noise of a batch is larger than that of rounding.
#
# So here is the obvious idea. Products may be rounded; then why not store the weights in bf16 as well and save half the memory?
# We go on with small steps, as at the end of a schedule.

# %%
@torch.no_grad()
def score(model):
    return sum(model(*char_rnn.window(val_lanes, i, LENGTH, "cpu")).item() for i in range(8)) / 8 / math.log(2)

# %%
def settle(dtype, lr=3e-4):
    """Go on from `grown` with weights stored in dtype; the share of them that the last step moved, and the score."""
    model, states = copy.deepcopy(grown), copy.deepcopy(grown_states)
    for step in range(min(40, STEPS)):
        model.zero_grad()
        model(*batch(step)).backward()
        before = [p.detach().clone() for p in model.parameters()]
        step_all(model, by_adamw, lr, states)
        for p in model.parameters():
            p.data = p.data.to(dtype).float()  # what storing it in dtype leaves of it
    moved = sum((a != b).sum() for a, b in zip(before, model.parameters())) / model.num_params()
    return moved.item(), score(model)

# %%
print(f"before                                          bits per byte {score(grown):.3f}")
for dtype in (torch.float32, torch.bfloat16):
    moved, bits = settle(dtype)
    print(f"weights kept in {str(dtype)[6:]:<9} last step moved {moved:4.0%}   bits per byte {bits:.3f}")

# %% [markdown]
# That is the wrong turn. Next to a weight of 0.5 the nearest bf16 number is two thousandths away; a late step is a fraction of that,
# and the sum rounds back to where it was. Nothing fails; most weights just stand still, and the later in training, the
# more of them. Addition needs precision where multiplication does not.

# %%
w = torch.tensor(0.5, dtype=torch.bfloat16)
for _ in range(1000):
    w += 5e-4
print(f"0.5 plus a thousand times 0.0005 is {w.item()} in bf16")

# %% [markdown]
# Hence *mixed* precision: fp32 where numbers are kept, bf16 where they are multiplied. In the library that is one line, in `Linear`:
# the weight is cast at the moment of use. The gradient flows back through the cast and arrives in fp32.

# %% [markdown]
# ## A batch larger than memory
#
# A gradient of a sum is the sum of gradients, and `backward` adds to what is there. So a batch can go through in pieces, and memory need
# hold one piece only. The trap is the word *mean*. Targets of −1 are not counted, pieces differ in how many they count, and a mean of
# means is not the mean.
#
# ---
# **Exercise 04.accumulate** · 3 points · ●●○ · about 7 lines · 15 min
#
# Write `accumulate(model, inputs, targets, micro)`. It leaves in the weights the gradient of the mean loss over **all** counted targets
# of the batch (those that are not −1), and returns this loss as a float; at most `micro` rows go through the model at once. Gradients
# from before must not count. `model(inputs, targets, reduction="sum")` gives the sum of the losses.
#
# ```
# 5 rows, micro 2:     rows 0–1, rows 2–3, row 4     each divided by the number of counted targets in all 5
# ```
# <details><summary>Hint 1</summary><code>(targets >= 0).sum()</code> counts; divide each piece's sum by it <em>before</em> <code>backward</code>.</details>
# <details><summary>Hint 2</summary><code>model.zero_grad()</code> first; then <code>for i in range(0, len(inputs), micro)</code>.</details>

# %% tags=["exercise:04.accumulate"]
def accumulate(model, inputs, targets, micro):
    """Leave the gradient of the mean loss over all counted targets, `micro` rows at a time; returns that loss."""
    raise NotImplementedError("04.accumulate")

# %% tags=["grade:04.accumulate"]
check("04.accumulate")

# %% tags=["use:04.accumulate"]
accumulate = use("04.accumulate")

# %%
inputs, targets = batch(0)
dice = torch.rand(targets.shape, generator=torch.Generator().manual_seed(SEED))
targets = targets.masked_fill(dice < torch.linspace(0, 0.9, ROWS)[:, None], -1)  # fewer and fewer counted
wanted = {}
for micro in (16, 4, 1):
    loss = accumulate(mine, inputs, targets, micro)
    wanted = wanted or {name: p.grad.clone() for name, p in mine.named_parameters()}
    apart = max((p.grad - wanted[name]).abs().max() for name, p in mine.named_parameters())
    print(f"{micro:2} rows at a time: loss {loss:.6f}, gradients differ from the whole batch's by {apart:.0e}")

# %% [markdown]
# The same gradient from a sixteenth of the memory. The batch of a big run is a choice for the sake of learning, and what a device can hold
# is a matter of patience.

# %% [markdown]
# ## Several devices
#
# Accumulation cuts the batch in time. Data parallelism cuts it in space: each of W *ranks* has a copy of the model, takes its share of
# the rows, and divides its summed loss by the count of the **whole** batch. Then the gradients of all ranks are summed, and every
# rank takes the same step.
#
# Done like that, every rank keeps the same optimizer state, W times over. That is waste: let each rank look after a part of the weights.
# It receives the summed gradient of its part, updates it with a state for that part alone, and sends the new weights to the others.
# This is a *sharded* optimizer (ZeRO).
#
# ---
# **Exercise 04.sharded_step** · 3 points · ●●● · about 4 lines · 20 min
#
# Play all ranks yourself: write `sharded_step(weight, grads, states, update)`. `weight` is (V, C); `grads` has one (V, C) gradient for each of
# W ranks, `states` one dict for each. Cut the rows into runs of ⌈V / W⌉: rank 0 owns the first, and the last ranks may own fewer. For each
# rank call `update(rows, grad, state)` with its rows of the weight, which it changes in place, the **sum** over all ranks of the
# gradients of these rows, and its own state.
#
# ```
# 10 rows, 4 ranks:    0 1 2 | 3 4 5 | 6 7 8 | 9
# ```
# <details><summary>Hint 1</summary>A slice of a tensor is a view: what changes it changes the tensor. A slice may reach beyond the end.</details>
# <details><summary>Hint 2</summary><code>sum(grad[own] for grad in grads)</code> with <code>own = slice(rank * run, (rank + 1) * run)</code>.</details>

# %% tags=["exercise:04.sharded_step"]
def sharded_step(weight, grads, states, update):
    """Each rank sums all gradients for its own rows of `weight` and updates these, with its own state."""
    raise NotImplementedError("04.sharded_step")

# %% tags=["grade:04.sharded_step"]
check("04.sharded_step")

# %% tags=["use:04.sharded_step"]
sharded_step = use("04.sharded_step")

# %% [markdown]
# Four ranks, four rows of the batch each, and the embedding of our model. Does it move as it would on one?

# %%
counted = (targets >= 0).sum()
grads = []
for rank in range(4):
    part = slice(4 * rank, 4 * rank + 4)
    mine.zero_grad()
    (mine(inputs[part], targets[part], reduction="sum") / counted).backward()
    grads.append(mine.wte.weight.grad.clone())  # (257, 64): this rank's
alone, sharded = mine.wte.weight.detach().clone(), mine.wte.weight.detach().clone()
adamw_step(alone, wanted["wte.weight"], {}, lr=0.01)
states = [{} for _ in range(4)]
sharded_step(sharded, grads, states, lambda rows, grad, state: adamw_step(rows, grad, state, lr=0.01))
print(f"largest difference {(alone - sharded).abs().max():.0e};",
      "numbers kept by each rank:", [sum(t.numel() for t in state.values() if torch.is_tensor(t)) for state in states])

# %% [markdown]
# What is it worth? Memory of one device for the model of depth 20, without the activations: weights and gradients in fp32, two averages for
# embedding and head, one for the matrices.

# %%
big = GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048)
tables = 2 * big.vocab_size * big.n_embd
matrices = 12 * big.n_layer * big.n_embd**2
for ranks in (1, 2, 8):
    state = (2 * tables + matrices) / ranks
    print(f"{ranks} device(s): weights and gradients {8 * (tables + matrices) / 1e9:.1f} GB, "
          f"optimizer {4 * state / 1e9:.1f} GB")

# %% [markdown]
# ## Two real processes
#
# Enough play. We pretrain a tiny model twice, on a small town of its own: once in this process, once through `torchrun` on two that talk
# over Gloo, PyTorch's way to join CPUs. It is the code that runs on eight GPUs, started the same way.

# %%
tiny = PretrainConfig(
    data={"source": "toy", "world": "smoke"}, model={"depth": 2, "n_embd": 64, "head_dim": 32, "sequence_len": 64},
    optim={"matrix_lr": 0.05, "embedding_lr": 0.02, "unembedding_lr": 0.02}, schedule={"steps": 8, "warmup": 2},
    rows=8, eval_rows=8, eval_every=8, save_every=8, log_every=1, compile=False)
can_split = torch.distributed.is_gloo_available() and (os.cpu_count() or 1) > 1
counts = [1, 2] if can_split and S.machine.device in ("auto", "cpu") else [1]
print("processes:", counts)

# %%
from nanochat.course.manifest import TokenizerConfig
from nanochat.train.launch import launch

scratch = tempfile.TemporaryDirectory()
small = S.model_copy(update={"pretrain": tiny, "tokenizer": TokenizerConfig(vocab_size=320, digits=1, chars=100_000)})
one = open_run(Path(scratch.name) / "1", scale=S.name, seed=SEED, create=True)
prepare.train_tokenizer(small, one)  # writes the small town, too
if 2 in counts:
    shutil.copytree(one.path, Path(scratch.name) / "2")
results = {}
for n in counts:
    part = open_run(Path(scratch.name) / str(n))
    with contextlib.redirect_stdout(io.StringIO()):  # eight lines of progress
        launch("pretrain", tiny, part, MachineConfig(device="cpu", dtype="float32", nproc=n, threads=1))
    results[n] = part

# %%
losses = {n: [row["loss"] for row in part.history("base") if "loss" in row] for n, part in results.items()}
for n, values in losses.items():
    print(f"{n} process(es):", *(f"{loss:.4f}" for loss in values))
apart = max(abs(a - b) for values in losses.values() for a, b in zip(losses[1], values))
print(f"largest difference {apart:.0e}")

# %% [markdown]
# The losses agree to the last digits, and those differ only because sums were taken in another order. This comparison, in the
# library's tests, is how eight GPUs are trusted. Now look at what each process has saved of the optimizer's state.

# %%
for n, part in results.items():
    for file in sorted((part / "base" / "step_000008").glob("optim_rank*.safetensors")):
        held = load_file(file)  # {name: tensor}
        size = sum(tensor.numel() for tensor in held.values())
        rows = [key.split("/")[1] for key in held if key.startswith("wte.weight/exp_avg@")]
        print(f"{n} process(es), {file.stem}: {size:6,} numbers; of the embedding {rows[0]}; "
              f"{sum('momentum' in key for key in held)} matrices")
scratch.cleanup()

# %% [markdown]
# Each holds half: rows of the embedding and the head, as in your exercise, and *whole* matrices, for Newton–Schulz mixes all entries
# of one and cannot be cut. The names say which part is which, so a run can go on with another number of processes.

# %% [markdown]
# ## What changes on eight H100s
#
# The batch grows until all devices are busy, the state is cut in eight, the products are bf16, and gradients travel over NVLink. The
# lines of code are these.

# %%
if "speedrun" in course.load().scales:
    from nanochat.course.plan import side_by_side
    side_by_side(*dict.fromkeys((S.name, "speedrun")),
                 rows=("machine", "tokens a step", "pretraining tokens", "memory a device", "FLOPs of all stages", "time", "cost"))
else:
    print("the reference's depth-20 run (nanochat, October 2025): 524,288 tokens a step, 21,400 steps")

# %%
rows = [("", S.name, "speedrun"), ("---", "--:", "--:")]
both = [S, course.load().scales.get("speedrun", S)]
rows += [(name, *(f"{getattr(scale.pretrain.optim, name)}" for scale in both))
         for name in ("matrix_lr", "embedding_lr", "unembedding_lr", "betas", "momentum")]
rows += [("processes", *(str(scale.machine.nproc) for scale in both))]
display(Markdown("\n".join("| " + " | ".join(row) + " |" for row in rows)))

# %% [markdown]
# ## Summary
#
# - The steepest direction limits the learning rate of SGD; momentum lets opposite gradients cancel.
# - AdamW gives each weight a rate of its own, corrected for averages that start from zero. It depends on the axes.
# - Muon makes all singular values of a matrix's step about equal, by products alone.
# - Warm-up, flat, down: a step is as long as what the averages know allows. Batch, rates and decay follow from the depth.
# - Multiply in bf16, or scaled and in float8 where matrices are large; add in fp32. Weights kept in bf16 stand still when steps
#   become small.
# - Pieces in time or on other devices add up to the same gradient if each is divided by the count of the whole batch. The
#   optimizer's state need exist only once.
#
# ## Questions
#
# 1. AdamW's step for a weight whose gradient is always +0.001 and one whose gradient is ±1 at random: which is longer?
# 2. Scale the loss by 1,000. Which of the four rules notices?
# 3. `newton_schulz` multiplies (m, n) by (n, m). The library transposes tall matrices first. What does that save?
# 4. The batch doubles. Should the learning rate? What would you measure to find out?
# 5. Rank 1 has a slower disk and comes late to every step. Who waits, and where in `optim.py`?
#
# ## Further reading
#
# - Kingma, Ba, *Adam* (2015); Loshchilov, Hutter, *Decoupled Weight Decay Regularization* (2019).
# - Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024); Bernstein, Newhouse, *Old Optimizer, New Norm* (2024).
# - Amsel et al., *The Polar Express* (2025).
# - Goh, *Why Momentum Really Works* (2017): the ravine, with sliders.
# - Hägele et al., *Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations* (2024): flat, then down.
# - Micikevicius et al., *Mixed Precision Training* (2018) and *FP8 Formats for Deep Learning* (2022).
# - Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models* (2020).
