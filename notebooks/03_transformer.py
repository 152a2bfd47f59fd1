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
# # 03 The Transformer
#
# Nothing in a Transformer is needed to model language. A network that reads one byte after the other, and keeps all it
# knows in a single vector, does it too, and we begin by training one. What the Transformer changes is how far a piece of
# information has to travel: from any token to any later one it is a single step.
#
# You build its parts by hand: the mask, attention, rotary positions, the norm, shared heads. At the end they stand side
# by side with `nanochat/model/gpt.py`, and the numbers agree.
#
# *About two hours, six exercises.*

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
import math
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display

from nanochat.course import plots, prepare
from nanochat.data import TextShards
from nanochat.model import GPT, GPTConfig
from nanochat.model.char_rnn import BOS, CharRNN
from nanochat.runtime import World, read_json
from nanochat.train import char_rnn
from nanochat.train.config import OptimConfig
from nanochat.train.optim import MuonAdamW
from nanochat.train.schedule import lr_scale

plots.style()

# %% [markdown]
# ## One memory for everything
#
# The text is the one your tokenizer was trained on. This first network does without a tokenizer: it reads bytes.

# %%
paths = prepare.first_text(S, run)  # parquet shards; the last one is for validation
tokenizer = prepare.train_tokenizer(S, run)  # lesson 02's, loaded
document = "\n".join(TextShards(paths[-1:]).read(0)[:8])  # a few documents of the validation text
print(document[:200], "…")
print(list(document.encode()[:16]), "…")

# %% [markdown]
# A recurrent network has a *state*. At each byte it mixes the state with what it reads, and that is the new state. The
# variety that works well is the LSTM. It keeps two vectors, a memory `c` and what it shows of it, `h`, and three *gates*
# with values between 0 and 1 decide what is forgotten, what is written and what is shown.

# %%
def lstm_step(x, h, c, W, U, b):
    """One byte later: x (B, E); h, c (B, H); W (4H, E), U (4H, H), b (4H,)."""
    write, forget, new, show = (x @ W.T + h @ U.T + b).chunk(4, dim=-1)  # four times (B, H)
    c = forget.sigmoid() * c + write.sigmoid() * new.tanh()
    h = show.sigmoid() * c.tanh()
    return h, c

# %% [markdown]
# That is all of it. PyTorch has the same cell; is ours the same?

# %%
small = CharRNN(n_embd=16, n_layer=1, kind="lstm").init_weights(SEED)
bytes_in = torch.tensor([[BOS, *document.encode()[:20]]])  # (1, 21)
W, U, b1, b2 = (p.detach() for p in small.rnn.parameters())  # PyTorch keeps two biases
x = small.embedding(bytes_in).detach()  # (1, 21, 16)
h = c = torch.zeros(1, 16)
for t in range(x.size(1)):
    h, c = lstm_step(x[:, t], h, c, W, U, b1 + b2)
print(f"largest difference to PyTorch's: {(h - small.rnn(x)[0][:, -1]).abs().max():.1e}")

# %% [markdown]
# Look at the `for`. The state after byte 20 needs the state after byte 19. However many cores there are, time goes by
# one step at a time, and whatever will be needed later must fit into `h` and `c`.
#
# Now the real one, on this run's text: the baseline that lesson 05 has to beat, at no less computing time than the
# Transformer will get.

# %%
with plots.LossPlot(run, "char_rnn", keys=("loss",)) as live:
    baseline = char_rnn.fit(run, S.char_rnn, S.machine, live=live, paths=paths)
print(f"{baseline['params']:,} parameters, {baseline['core_s']:.0f} core seconds: "
      f"{baseline['val_bpb']:.3f} bits for every byte of unseen text")

# %% [markdown]
# Lesson 05 explains the unit. For now: 8 bits a byte is knowing nothing, and lower is better.

# %% [markdown]
# ## The obvious way to make it write
#
# The network gives a score to each possible next byte. So take the best one, feed it back, repeat. What could be better
# than the best?

# %%
rnn = char_rnn.load(run, S.char_rnn)


@torch.no_grad()
def write(rnn, length, pick):
    """`length` bytes from the beginning of a document on; ¶ where the network begins a new one."""
    text, state, last = bytearray(), None, BOS
    for _ in range(length):
        logits, state = rnn(torch.tensor([[last]]), state)  # (1, 1, 257)
        last = pick(logits[0, -1])
        text += bytes([last]) if last < BOS else "¶\n".encode()
    return text.decode(errors="replace")


print(write(rnn, 300, pick=lambda z: int(z.argmax())))

# %% [markdown]
# This is the wrong turn of the lesson: always taking the best byte ends in a circle. Each step is the best one, and the
# whole is nothing anyone would write. Once the state is back where it was, nothing can break out.
#
# The cure is to *draw* the next byte with its probability. A temperature above 1 flattens the probabilities first, below 1
# it sharpens them.

# %%
chance = torch.Generator().manual_seed(SEED)


def draw(temperature):
    return lambda z: int(torch.multinomial((z / temperature).softmax(-1), 1, generator=chance))


for temperature in (0.5, 1.0, 2.0):
    print(f"--- temperature {temperature}\n{write(rnn, 120, draw(temperature))}\n")

# %% [markdown]
# How much did the circle cost? Count, in longer samples, how many stretches of 20 bytes are new.

# %%
def novelty(text, n=20):
    """The share of stretches of n characters that occur only once."""
    parts = [text[i:i + n] for i in range(len(text) - n)]
    return len(set(parts)) / len(parts)


print(f"argmax         {novelty(write(rnn, 800, lambda z: int(z.argmax()))):.2f}")
print(f"temperature 1  {novelty(write(rnn, 800, draw(1.0))):.2f}")

# %% [markdown]
# ## What does it remember?
#
# We can ask. Take the score of the byte that comes next, and differentiate it with respect to the vector of a byte that
# came d steps before. If the slope is zero, that byte has been forgotten: whatever stood there, the score would be the same.
#
# **Predict before you run.** What does the curve look like, and how far back is it down to a hundredth?

# %%
rows, span = 32, 96
lanes = char_rnn.read_lanes(paths[-1:], rows, rows * (span + 1))
inputs, targets = char_rnn.window(lanes, 0, lanes.shape[1] - 1, "cpu")  # (32, 96) each
x = rnn.embedding(inputs).detach().requires_grad_()  # (32, 96, E)
logits = rnn.head(rnn.rnn(x)[0][:, -1])  # (32, 257) at the last byte
logits.gather(1, targets[:, -1:]).sum().backward()
slope = x.grad.norm(dim=-1).mean(0).flip(0)  # (96,) by distance

# %%
share = slope / slope.sum()
fig, ax = plt.subplots(figsize=(3.4, 1.5))
ax.semilogy(range(0, span, 4), share.view(-1, 4).sum(1), "o", markersize=3)
ax.set(xlabel="bytes back", title="share of the influence on the next score")
plt.show()
print(f"the last 8 bytes have {share[:8].sum():.0%} of it, everything more than 48 bytes back has {share[48:].sum():.2%}")

# %% [markdown]
# The axis is logarithmic: a straight line downwards loses the same *factor* with every step. What is far has to pass
# through all steps between, and each rubs something off. It would be better to go back and look.

# %% [markdown]
# ## Let every position look for itself
#
# From here on we read tokens. Each id picks a row of a matrix, the *embedding*, and a row of such vectors is what a
# Transformer works on.

# %%
ids = tokenizer.encode(document)[:12]
print([tokenizer.decode([i]) for i in ids])
generator = torch.Generator().manual_seed(SEED)
wte = torch.randn(tokenizer.vocab_size, 32, generator=generator)  # (V, C): a row a token
x = wte[torch.tensor(ids)]  # (T, C)
print(tuple(wte.shape), "->", tuple(x.shape))

# %% [markdown]
# What could position t do to learn of the positions before it? The least one can think of: take their mean. Written as a
# loop it is slow, but it is also a matrix product, with a matrix whose row t holds equal weights up to t and zeros after.

# %%
T = len(ids)
loop = torch.stack([x[: t + 1].mean(dim=0) for t in range(T)])  # (T, C)
weights = torch.ones(T, T).tril()
weights = weights / weights.sum(dim=1, keepdim=True)  # (T, T), rows add up to 1
print(weights[:4, :4])
print("the same:", torch.allclose(loop, weights @ x, atol=1e-6))

# %% [markdown]
# No `for` over time is left: one product serves all positions, and position t reaches position 0 in one step. What remains
# is to choose better weights than equal ones. But first the zeros: they are no detail. The model is to predict token
# t + 1 from tokens 0 to t, and if position t could see t + 1 there would be nothing left to learn.
#
# ---
# **Exercise 03.causal_mask** · 2 points · ●○○ · about 1 line · 5 min
#
# Write `causal_mask(T)`: a (T, T) tensor of bools. Row t, column s is `True` where position t may look at position s: at
# itself and at everything before.
#
# ```
# >>> causal_mask(3)
# tensor([[ True, False, False],
#         [ True,  True, False],
#         [ True,  True,  True]])
# ```
# <details><summary>Hint 1</summary>The loop above used <code>x[: t + 1]</code>, not <code>x[:t]</code>.</details>
# <details><summary>Hint 2</summary><code>tril</code> keeps the lower triangle; <code>torch.ones</code> takes a <code>dtype</code>. Comparing <code>torch.arange(T)</code> with itself as a column works as well.</details>

# %% tags=["exercise:03.causal_mask"]
def causal_mask(T):
    """(T, T) bool: row t, column s is True where position t may look at position s."""
    raise NotImplementedError("03.causal_mask")

# %% tags=["grade:03.causal_mask"]
check("03.causal_mask")

# %% tags=["use:03.causal_mask"]
causal_mask = use("03.causal_mask")

# %% [markdown]
# ## Ask, offer, give
#
# Now the weights. Each position makes three vectors from its own, by three learned matrices:
#
# - a **query**: what am I looking for?
# - a **key**: what can be found here?
# - a **value**: what do I hand over to whoever looks?
#
# The dot product of a query and a key says how well they fit. A softmax over the keys turns these scores into weights that
# add up to 1, and the output is the mean of the values with these weights.
#
# One thing goes wrong if we stop here. A dot product is a sum of D terms, so it grows with D:

# %%
print("  D   spread of q·k   largest of 8 weights   the same, divided by √D")
for D in (4, 64, 1024):
    q, k = torch.randn(1000, 1, D, generator=generator), torch.randn(1000, 8, D, generator=generator)
    scores = (q * k).sum(-1)  # (1000, 8)
    plain, scaled = (z.softmax(-1).amax(-1).mean() for z in (scores, scores / math.sqrt(D)))
    print(f"{D:4}   {scores.std():13.1f}   {plain:20.2f}   {scaled:23.2f}")

# %% [markdown]
# With wide heads a random query gives nearly all its weight to one random key, and where a softmax is that sure its slope is
# zero: nothing is learned. Divided by √D, the width stops to matter.
#
# ---
# **Exercise 03.attention** · 4 points · ●●○ · about 3 lines · 15 min
#
# Write `attention(q, k, v, mask)` for many heads at once. `q` is (B, H, T, D): batch, heads, queries, head size; `k` and `v`
# are (B, H, S, D). `mask` is (T, S), `True` where a query may see a key. The result is (B, H, T, D). What is hidden must
# have no influence at all.
#
# ```
# >>> q = torch.zeros(1, 1, 2, 1); v = torch.tensor([2., 4.]).view(1, 1, 2, 1)
# >>> attention(q, q, v, causal_mask(2)).flatten()         # no query prefers any key
# tensor([2., 3.])
# ```
# <details><summary>Hint 1</summary><code>q @ k.transpose(-2, -1)</code> is (B, H, T, S): over which dimension must the weights of one query add up to 1?</details>
# <details><summary>Hint 2</summary>A weight of exactly 0 comes out of the softmax where a score of −∞ went in: <code>masked_fill(~mask, float("-inf"))</code>.</details>

# %% tags=["exercise:03.attention"]
def attention(q, k, v, mask):
    """q (B, H, T, D), k and v (B, H, S, D), mask bool (T, S) -> (B, H, T, D)."""
    raise NotImplementedError("03.attention")

# %% tags=["grade:03.attention"]
check("03.attention")

# %% tags=["use:03.attention"]
attention = use("03.attention")

# %%
q, k, v = torch.randn(3, 2, 4, T, 8, generator=generator)  # three times (B, H, T, D)
fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # PyTorch's fast kernel
print(f"difference to PyTorch's: {(attention(q, k, v, causal_mask(T)) - fused).abs().max():.1e}")

# %% [markdown]
# Does the mask keep the future out? Look at the weights, then change the last token and see which outputs notice.

# %%
eye = torch.eye(T).expand(1, 1, T, T)  # values that show the weights
everyone = torch.ones(T, T, dtype=torch.bool)
fig, axes = plt.subplots(1, 2, figsize=(4.2, 2.0))
for ax, mask, title in zip(axes, (everyone, causal_mask(T)), ("no mask", "causal mask")):
    plots.heatmap(ax, attention(q[:1, :1], k[:1, :1], eye, mask)[0, 0], title=title)
    ax.set(xlabel="key (looked at)", ylabel="query (looking)")
plt.show()

# %%
other = v.clone()
other[:, :, -1] += 1.0  # another last token
for mask, title in ((everyone, "no mask"), (causal_mask(T), "causal mask")):
    moved = (attention(q, k, other, mask) - attention(q, k, v, mask)).abs().amax(dim=(0, 1, 3)) > 0
    print(f"{title:<12} outputs that changed:", moved.nonzero().flatten().tolist())

# %% [markdown]
# With the mask only the last output changed. This is why a Transformer can be trained on all positions of a row at once:
# each of them makes an honest prediction.

# %% [markdown]
# ## Where am I?
#
# The price of looking everywhere at once: attention does not know what *before* means. Shuffle the earlier tokens, and the
# last position gets the same answer.

# %%
order = torch.randperm(T, generator=generator)
last, seen = q[:, :, -1:], torch.ones(1, T, dtype=torch.bool)
as_written = attention(last, k, v, seen)
shuffled = attention(last, k[:, :, order], v[:, :, order], seen)
print(f"difference after shuffling: {(as_written - shuffled).abs().max():.1e}")

# %% [markdown]
# "Dog bites man" and "man bites dog" are the same to it. So the position must be put into the vectors. Take two entries of a
# query as a point in the plane and *turn* it by an angle that grows with its position; do the same to keys. A dot product of
# two turned vectors depends on the difference of the angles: on how far apart the two are, no matter where they stand.
#
# A head has D/2 such pairs. Each turns at its own speed, the first by one radian a position, the last hardly at all, like
# the hands of a clock.
#
# ---
# **Exercise 03.rope** · 3 points · ●●● · about 5 lines · 20 min
#
# Write `rope(x, base)`. `x` is (B, T, H, D), and row t of the second dimension stands at position t = 0, 1, 2, … Entry i is
# paired with entry i + D/2. Turn pair i **clockwise** by the angle t · base^(−2i/D): from (a, b) to
# (a cos + b sin, b cos − a sin).
#
# ```
# >>> rope(torch.tensor([1., 0.]).expand(1, 3, 1, 2))[0, :, 0]       # one pair, positions 0, 1, 2
# tensor([[ 1.0000,  0.0000],
#         [ 0.5403, -0.8415],
#         [-0.4161, -0.9093]])
# ```
# <details><summary>Hint 1</summary><code>torch.outer(positions, speeds)</code> holds all angles, (T, D/2). Where must a dimension be added to fit (B, T, H, D/2)?</details>
# <details><summary>Hint 2</summary><code>a, b = x.chunk(2, dim=-1)</code> gives the two halves; <code>torch.cat</code> puts them together again.</details>

# %% tags=["exercise:03.rope"]
def rope(x, base=10000.0):
    """x (B, T, H, D), position t in row t -> the same shape, every pair (i, i + D/2) turned clockwise."""
    raise NotImplementedError("03.rope")

# %% tags=["grade:03.rope"]
check("03.rope")

# %% tags=["use:03.rope"]
rope = use("03.rope")

# %% [markdown]
# **Predict before you run.** On the left, three pairs of a head of 16 at positions 0 to 7. On the right, the dot product of
# one fixed query with one fixed key, turned by their positions, for three places of the query. How many curves will you see?

# %%
D, steps = 16, 8
one = torch.cat((torch.ones(1, steps, 1, D // 2), torch.zeros(1, steps, 1, D // 2)), dim=-1)  # every pair is (1, 0)
turned = rope(one)[0, :, 0]  # (steps, D)
query, key = torch.randn(2, D, generator=generator)
q_at, k_at = (rope(z.expand(1, 64, 1, D))[0, :, 0] for z in (query, key))  # (64, D): the vector at each position
products = q_at @ k_at.T  # (64 query positions, 64 key positions)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(4.2, 1.6), width_ratios=(1, 1.5))
for n, pair in enumerate((0, 1, 3)):
    left.plot((1 - n / 4) * turned[:, pair], (1 - n / 4) * turned[:, pair + D // 2], "o", markersize=3)
    left.annotate(f"pair {pair}", (1.1, 0.25 * (1 - n)), fontsize=7, color=plots.COLOURS[n])
left.set(aspect="equal", xlim=(-1.2, 1.9), ylim=(-1.2, 1.2), xticks=[], yticks=[], title="8 positions")
for at, marker in ((20, "o"), (40, "+"), (60, "x")):
    right.plot(range(20), products[at, at - 19:at + 1].flip(0), marker, markersize=5)
right.set(xlabel="distance to the key", xticks=range(0, 20, 5), title="query at 20 (o), 40 (+), 60 (x)")
plt.show()

# %% [markdown]
# All marks lie on one another: only the distance counts. What a head has learned at the start of a text holds anywhere in
# it. Now shuffle again, with turned keys:

# %%
def placed(z):
    return rope(z.transpose(1, 2)).transpose(1, 2)  # rope wants (B, T, H, D)


as_written = attention(placed(q)[:, :, -1:], placed(k), v, seen)
shuffled = attention(placed(q)[:, :, -1:], placed(k[:, :, order]), v[:, :, order], seen)
print(f"difference after shuffling: {(as_written - shuffled).abs().max():.2f}")

# %% [markdown]
# ## Keep numbers in range
#
# Attention is the only part in which positions meet. The rest computes with one vector at a time, or keeps dozens of layers
# from blowing each other up. The norm divides a vector by its root mean square, so that whatever reads it gets entries of
# size about 1.
#
# ---
# **Exercise 03.rms_norm** · 2 points · ●○○ · about 2 lines · 10 min
#
# Write `rms_norm(x, eps)`: each vector along the last dimension divided by √(mean of its squares + `eps`). Compute in fp32,
# and give the result the dtype that came in. Nothing is subtracted, nothing is learned.
#
# ```
# >>> rms_norm(torch.tensor([[3., 4.], [0., 0.]]))
# tensor([[0.8485, 1.1314],
#         [0.0000, 0.0000]])
# ```
# <details><summary>Hint 1</summary><code>keepdim=True</code> keeps the dimension that a mean takes away, so that you can divide by it.</details>
# <details><summary>Hint 2</summary><code>x.float()</code> at the beginning, <code>.to(x.dtype)</code> at the end: the square of 300 is too large for fp16.</details>

# %% tags=["exercise:03.rms_norm"]
def rms_norm(x, eps=1e-6):
    """x divided by the root of its mean square over the last dimension; in fp32, dtype as the input's."""
    raise NotImplementedError("03.rms_norm")

# %% tags=["grade:03.rms_norm"]
check("03.rms_norm")

# %% tags=["use:03.rms_norm"]
rms_norm = use("03.rms_norm")

# %% [markdown]
# It is applied to whatever a block reads, to the embeddings and before the head. Another use is less obvious: on queries and
# keys, after they were turned (**QK norm**). Should matrices grow in training, scores grow too. See what that does to
# the weights of one query on 12 keys.

# %%
print("q and k times   largest weight   with QK norm")
for size in (1, 3, 10):
    largest = [attention(f(size * q), f(size * k), eye.expand(2, 4, T, T), everyone).amax(-1).mean()
               for f in (lambda z: z, rms_norm)]
    print(f"{size:13}   {largest[0]:14.2f}   {largest[1]:12.2f}")

# %% [markdown]
# Without it attention freezes: nearly all weight on one key, no slope. With it, only the direction of a query counts.
#
# Two small functions belong here as well. At the very end the scores of all tokens are bent so that none leaves ±15, the
# **softcap**: a model cannot become infinitely sure. And inside the **MLP**, the part of a block that treats each vector alone,
# stands a ReLU whose positive side is squared.

# %%
def softcap(z, cap=15.0):
    return cap * torch.tanh(z / cap)


z = torch.tensor([-100.0, -3.0, -1.0, 0.0, 0.5, 1.0, 3.0, 10.0, 100.0])
for name, y in (("z", z), ("softcap", softcap(z)), ("ReLU", F.relu(z)), ("squared", F.relu(z).square())):
    print(f"{name:<8}" + "".join(f"{value:9.2f}" for value in y))

# %% [markdown]
# ## Fewer keys than queries
#
# When a model writes, it keeps the keys and values of all tokens so far: the *cache*, the largest thing in memory when many
# people chat at once. It shrinks if several query heads share one key and value head. That is grouped-query attention
# (GQA); with a single key head for all it is multi-query attention (MQA).
#
# ---
# **Exercise 03.grouped_attention** · 2 points · ●●○ · about 3 lines · 10 min
#
# Write `grouped_attention(q, k, v, mask)`. `q` is (B, H, T, D), `k` and `v` are (B, Hkv, S, D), and Hkv divides H. Neighbours
# share: query head h reads key and value head h // (H / Hkv). Use your `attention`.
#
# ```
# H = 6, Hkv = 2:   query head            0 1 2 3 4 5
#                   reads key head        0 0 0 1 1 1
# ```
# <details><summary>Hint 1</summary>Make as many copies of each key and value head as it has readers, then it is plain attention.</details>
# <details><summary>Hint 2</summary><code>repeat</code> gives 0 1 0 1 0 1; <code>repeat_interleave</code> gives 0 0 0 1 1 1.</details>

# %% tags=["exercise:03.grouped_attention"]
def grouped_attention(q, k, v, mask):
    """q (B, H, T, D), k and v (B, Hkv, S, D): query head h reads key/value head h // (H / Hkv)."""
    raise NotImplementedError("03.grouped_attention")

# %% tags=["grade:03.grouped_attention"]
check("03.grouped_attention")

# %% tags=["use:03.grouped_attention"]
grouped_attention = use("03.grouped_attention")

# %% [markdown]
# What it saves, for the model of depth 20 that lesson 05 speaks of, at 2 bytes a number:

# %%
big = GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048)
for kv in (big.n_head, 2, 1):
    per_token = big.n_layer * 2 * kv * big.head_dim * 2  # layers, k and v, heads, size, bytes
    print(f"{big.n_head} query heads, {kv:2} key heads: {per_token / 1024:6.1f} KiB a token, "
          f"{per_token * big.sequence_len / 2**20:6.1f} MiB for a full context")

# %% [markdown]
# ## The whole model
#
# All parts are on the table. Each gets a switch, so that we can see what happens without it.

# %%
@dataclass(frozen=True)
class Switches:
    causal: bool = True
    rope: bool = True
    qk_norm: bool = True
    norm: bool = True       # the norm before each block
    residual: bool = True   # a block adds to its input, rather than replacing it
    attention: bool = True
    mlp: bool = True
    square: bool = True     # the ReLU squared
    cap: bool = True


ON = Switches()

# %% [markdown]
# `w` holds weights by name, as in the library's model. Attention in full: three matrices, positions, the norm, grouped
# attention, and a fourth matrix that mixes what the heads have brought.

# %%
def attend(x, w, config, on):
    """x (B, T, C) -> (B, T, C)"""
    B, T, C = x.shape
    q, k, v = (F.linear(x, w[f"c_{n}.weight"]).view(B, T, -1, config.head_dim) for n in "qkv")  # (B, T, heads, D)
    if on.rope:
        q, k = rope(q, config.rope_base), rope(k, config.rope_base)
    if on.qk_norm:
        q, k = rms_norm(q), rms_norm(k)
    mask = causal_mask(T) if on.causal else torch.ones(T, T, dtype=torch.bool)
    y = grouped_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)  # (B, H, T, D)
    return F.linear(y.transpose(1, 2).reshape(B, T, C), w["c_proj.weight"])

# %%
def mlp(x, w, on):
    """x (B, T, C) -> (B, T, C), four times as wide inside"""
    hidden = F.relu(F.linear(x, w["c_fc.weight"]))  # (B, T, 4C)
    return F.linear(hidden.square() if on.square else hidden, w["c_proj.weight"])

# %% [markdown]
# And the model. Between the blocks runs the *residual stream*: every block reads a normalised copy of it and adds what it has
# found. Nothing is overwritten.

# %%
def part(w, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def gpt(idx, w, config, on):
    """idx (B, T) -> logits (B, T, V)"""
    norm = rms_norm if on.norm else (lambda x: x)
    x = norm(F.embedding(idx, w["wte.weight"]))  # (B, T, C)
    for i in range(config.n_layer):
        found = attend(norm(x), part(w, f"blocks.{i}.attn."), config, on) * on.attention
        x = x * on.residual + found
        found = mlp(norm(x), part(w, f"blocks.{i}.mlp."), on) * on.mlp
        x = x * on.residual + found
    logits = F.linear(norm(x), w["lm_head.weight"])
    return softcap(logits, config.softcap) if on.cap else logits

# %% [markdown]
# ## Is that what the library does?
#
# `nanochat.model.GPT` is the model of all lessons to come. We fill one with random numbers (its own beginning has zeros in
# places, as we shall see) and give both the same tokens.

# %%
config = GPTConfig(sequence_len=64, vocab_size=tokenizer.vocab_size, n_layer=3, n_head=4, n_kv_head=2, n_embd=64)
model = GPT(config)
with torch.no_grad():
    for p in model.parameters():
        p.normal_(std=0.3, generator=generator)
    idx = torch.tensor([tokenizer.encode(document)[:12], tokenizer.encode(document)[1:13]])  # (2, 12)
    ours, theirs = gpt(idx, dict(model.named_parameters()), config, ON), model(idx)  # (2, 12, V)
print(f"logits {tuple(theirs.shape)} up to {theirs.abs().max():.1f}; largest difference {(ours - theirs).abs().max():.1e}")

# %% [markdown]
# The same function. In `nanochat/model/`, `attention.py`, `block.py` and `gpt.py` hold what you have just written, and besides
# what makes it fast: the fused kernel where it pays, one number format to keep and one to multiply, a cache for writing.
#
# **Predict before you run.** How high is the loss of a model that has learned nothing, in nats?

# %%
model.init_weights(SEED)
with torch.no_grad():
    print(f"loss {model(idx[:, :-1], idx[:, 1:]):.4f}, and the logarithm of {config.vocab_size} is {math.log(config.vocab_size):.4f}")
zeros = [name for name, p in model.named_parameters() if not p.any()]
print(len(zeros), "matrices begin at zero:", zeros[:2], "…", zeros[-1:])

# %% [markdown]
# Exactly even odds on every token. The head begins at zero, and so do the matrices by which blocks write into the stream: they
# are born silent.

# %% [markdown]
# ## Count
#
# The size of a model follows from its shape, and it should be known before gigabytes are spent on building one.
#
# ---
# **Exercise 03.count_params** · 2 points · ●●○ · about 3 lines · 10 min
#
# Write `count_params(config)`: the number of weights of `GPT(config)`. There are the embedding and the head, (V, C) each, and
# in every layer the four matrices of attention and the two of the MLP. Keys and values have `n_kv_head` heads. No biases, no
# gains, nothing for positions.
#
# ```
# >>> count_params(GPTConfig.from_depth(20, vocab_size=65536, sequence_len=2048))
# 560988160
# ```
# <details><summary>Hint 1</summary>The matrix of the keys maps <code>n_embd</code> to <code>n_kv_head * head_dim</code>.</details>
# <details><summary>Hint 2</summary>With as many key heads as query heads a layer has 12 C²: four times C² and twice 4 C².</details>

# %% tags=["exercise:03.count_params"]
def count_params(config):
    """All weights of GPT(config)."""
    raise NotImplementedError("03.count_params")

# %% tags=["grade:03.count_params"]
check("03.count_params")

# %% tags=["use:03.count_params"]
count_params = use("03.count_params")

# %% [markdown]
# The computing time follows too. In training every weight that multiplies costs 6 operations a token: 2 forward, a
# multiplication and an addition, and twice that backward. The embedding only looks up a row. Scores and the mean of values
# are two products of C numbers for each of T positions: 12 · C · T a layer, counted as if no position were masked.

# %%
def flops_per_token(c):
    multiplied = count_params(c) - c.vocab_size * c.n_embd
    return 6 * multiplied + 12 * c.n_layer * c.n_embd * c.sequence_len


m = S.pretrain.model
ours = GPTConfig.from_depth(m.depth, tokenizer.vocab_size, m.sequence_len, m.n_embd, m.head_dim, m.n_kv_head)
with torch.device("meta"):  # shapes without memory
    library = {c: GPT(c) for c in (ours, big)}
for c, built in library.items():
    print(f"depth {c.n_layer:2}: {count_params(c):11,} parameters, {flops_per_token(c):.4g} FLOPs a token; as the library:",
          (count_params(c), flops_per_token(c)) == (built.num_params(), built.flops_per_token()))

# %%
rows = [("", f"depth {ours.n_layer}", "depth 20"), ("---", "--:", "--:")]
parts = {"embedding and head": lambda c: 2 * c.vocab_size * c.n_embd,
         "attention": lambda c: c.n_layer * 2 * c.n_embd * (c.n_embd + c.n_kv_head * c.head_dim),
         "MLP": lambda c: c.n_layer * 8 * c.n_embd**2}
rows += [(name, *(f"{count(c) / count_params(c):.0%}" for c in (ours, big))) for name, count in parts.items()]
display(Markdown("\n".join("| " + " | ".join(row) + " |" for row in rows)))

# %% [markdown]
# ## What does each part do?
#
# Opinions on this are cheap, so take each one out and train: a tiny model, two layers of width 64, on the baseline's bytes
# for a few dozen steps, with the next lesson's optimizer. We measure bits per byte on unseen text. The whole model is trained
# three times, from other random numbers: what those differ by is noise.

# %%
ROWS, LENGTH, STEPS = 8, 64, min(60, S.char_rnn.steps)
train_lanes = char_rnn.read_lanes(paths[:-1], ROWS, ROWS * (STEPS * LENGTH + 1))
val_lanes = char_rnn.read_lanes(paths[-1:], ROWS, ROWS * (8 * LENGTH + 1))


def bits(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / math.log(2)


@torch.no_grad()
def validate(w, config, on):
    windows = [char_rnn.window(val_lanes, i, LENGTH, "cpu") for i in range(8)]
    return float(sum(bits(gpt(x, w, config, on), y) for x, y in windows) / 8)

# %%
def learn(on, seed):
    """Train for STEPS steps; bits per byte on unseen text, the weights and their shape."""
    config = GPTConfig(LENGTH, BOS + 1, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)
    model = GPT(config).init_weights(seed)
    w = dict(model.named_parameters())
    optimizer = MuonAdamW(model, OptimConfig(matrix_lr=0.1, embedding_lr=0.03, unembedding_lr=0.03), World())
    for step in range(STEPS):
        inputs, targets = char_rnn.window(train_lanes, step, LENGTH, "cpu")  # (8, 64) each
        bits(gpt(inputs, w, config, on), targets).backward()
        optimizer.step(lr_scale(step, STEPS, warmup=5, flat=0.4, final=0.02))
        optimizer.zero_grad()
    return validate(w, config, on), w, config

# %%
whole = [learn(ON, SEED + n) for n in range(3)]
parts = {"rope": "positions (RoPE)", "norm": "norm", "attention": "attention", "mlp": "MLP", "causal": "mask"}
without = {f"no {name}": learn(replace(ON, **{switch: False}), SEED)[0] for switch, name in parts.items()}

# %% [markdown]
# **Predict before you look.** Which row is worst, and which one cheats?

# %%
scores = [score for score, *_ in whole]
rows = [("", "bits per byte"), ("---", "--:"), ("everything on", f"{np.mean(scores):.2f}")]
rows += [(name, f"{score:.2f}") for name, score in without.items()]
display(Markdown("\n".join("| " + " | ".join(row) + " |" for row in rows)))
print(f"{STEPS} steps; another seed alone moves the first row: {min(scores):.2f} to {max(scores):.2f}")

# %% [markdown]
# Attention and positions are what the model *knows with*. A row inside the noise is no finding. And one deserves suspicion:
# *no mask*. It may well be the best of all, on unseen text. It reads the answer off its input, and as a writer it is useless,
# for the next byte is not there yet when it has to be chosen.
#
# (There is no row without the residual stream: see question 4.)

# %% [markdown]
# ## Where do heads look?
#
# The weights are there to be looked at. One trained model, one line of the validation text, the first layer's heads.

# %%
_, w, config = whole[0]
N, H = 22, config.n_head
line = val_lanes[0, :N].astype(np.int64)
with torch.no_grad():
    x = rms_norm(F.embedding(torch.tensor(line)[None], w["wte.weight"]))
    x = rms_norm(x)  # what the first block reads
    q, k = (F.linear(x, w[f"blocks.0.attn.c_{n}.weight"]).view(1, N, H, -1) for n in "qk")
    q, k = (rms_norm(rope(z)).transpose(1, 2) for z in (q, k))
    looks = attention(q, k, torch.eye(N).expand(1, H, N, N), causal_mask(N))[0]  # (H, N, N)

# %%
letters = [chr(i) if 32 < i < 127 else "·" for i in line]
fig, axes = plt.subplots(1, H, figsize=(4.2, 2.2))
for head, ax in enumerate(axes):
    plots.heatmap(ax, looks[head].sqrt(), rows=letters, columns=letters, title=f"head {head}")
    ax.tick_params(labelsize=5, length=0)
    ax.tick_params(axis="x", rotation=0)
plt.show()
back = (torch.arange(N)[:, None] - torch.arange(N)).clamp(min=0)  # (N, N) how far back each key lies
print("mean distance each head looks back:", [f"{(looks[h] * back).sum(-1).mean():.1f}" for h in range(H)],
      f"; equal weights would give {(N - 1) / 4:.1f}")

# %% [markdown]
# Dark columns are letters that many positions ask for; a dark diagonal looks a fixed distance back. Nobody told the heads to
# divide the work, and after so few steps they have hardly begun.

# %% [markdown]
# ## What nanochat added later
#
# Its next models, raced to GPT-2's score, keep all of the above and add, each a switch of `GPTConfig`:
#
# - **value embeddings**: every other layer has a table (V, Hkv · D) of its own; a token's row is added to its value, by a gate
# - **layer scalars**: before layer i the stream x becomes rᵢ x + aᵢ x₀, where x₀ is what the first layer read
# - **windows**: three layers of four see a quarter of the context, the last one all of it
# - **smear**: a token's embedding takes up some of the one before it
# - **backout**: a learned share of what half the layers had found is taken out at the end
# - **QK scale**: after QK norm, queries and keys times 1.2, for more decided attention
#
# What do they cost, at depth 24?

# %%
plain = GPTConfig.from_depth(24, vocab_size=32768, sequence_len=2048)
added = {"value embeddings": {"value_embeddings": True}, "layer scalars": {"layer_scalars": True},
         "windows": {"window_pattern": "SSSL"}, "smear": {"smear": True}, "backout": {"backout": True},
         "QK scale": {"qk_scale": 1.2}}
with torch.device("meta"):
    sizes = {name: GPT(replace(plain, **change)) for name, change in ({"none": {}} | added).items()}
base = sizes["none"]
for name, built in sizes.items():
    more = built.num_params() - base.num_params()
    print(f"{name:<18} {more:+12,} weights   {built.flops_per_token() / base.flops_per_token() - 1:+8.3%} operations a token")

# %% [markdown]
# What is gained? Sixty steps of a tiny model cannot tell. `benchmarks/switches.py` gave the toy model, with four heads, more
# time: one change at a time, the same text and first weights for all, at rates that suit the unchanged model. That takes many
# minutes, so we read what it wrote. (*Tied*: one matrix for embedding and head. *Uniform init*: how the later models begin.)
#
# **Predict before you run.** How many of these changes can be told from noise?

# %%
measured = read_json(course.root() / "benchmarks" / "results" / "switches.json")
setup, table = measured["setup"], measured["variants"]
found = {name: np.array(row["val_bpb"]) for name, row in table.items()}  # one number a seed
unchanged, hot = found["the seed model"], found["five times the rate"]
noise = np.ptp(unchanged)  # from its best seed to its worst
print(f"{setup['steps']} steps of {setup['rows']} rows; the unchanged model: {unchanged.mean():.3f} bits per byte, the best and "
      f"the worst of {len(unchanged)} seeds {noise:.3f} apart")

# %%
def line(change, low=-0.1, high=0.18, width=40):
    """A dot for each seed between low and high, a bar at zero, < and > for what lies outside."""
    cells = [" "] * (width + 1)
    for mark, value in [("|", 0.0), *(("●", value) for value in change)]:
        mark = "<" if value < low else ">" if value > high else mark
        cells[round((min(max(value, low), high) - low) / (high - low) * width)] = mark
    return "".join(cells)


def is_noise(change):
    return abs(change.mean()) <= noise or change.min() < 0 < change.max()

# %%
print(f"{'':<28}  weights  change  {'better':<10}worse →")
for name, scores in found.items():
    change = scores - (hot if name.endswith("5 × rate") else unchanged)[:len(scores)]  # the same seeds
    if name != "the seed model":
        weights = table[name]["params"] / table["the seed model"]["params"] - 1
        print(f"{name:<28} {weights:+8.1%} {change.mean():+7.3f}  {line(change)}  {'noise' if is_noise(change) else ''}")

# %% [markdown]
# A dot is a seed. *Noise* is a change smaller than the unchanged model's own from seed to seed, or one that its seeds do not
# agree on. One row stands apart: positions. Next to it all is small, and some of it points the other way: here GELU beats
# the squared ReLU that the large models have, and seeing less (*windows*) helps. What pays in two hundred steps of a tiny
# model need not pay in a long training of a large one, nor the reverse. The last rows, compared with *five times the
# rate*, show what **QK norm** is: *insurance*. It hardly matters when all is calm, and pays when steps are too large.
#
# This is no verdict on what was added later. nanochat's log of January 2026 credits layer scalars with 0.010 bits per byte at
# depth 8 and 0.004 at depth 20: worth having, and smaller than our noise. This table could not have found it.

# %% [markdown]
# ## What changes on eight H100s
#
# Not a line of the model. Depth is the one dial: width is 64 times depth, heads have 128 entries. `speedrun` has the model
# you built, `gpt2` the one with all that was added later.

# %%
from nanochat.course.plan import side_by_side

side_by_side(*dict.fromkeys((S.name, "speedrun", "gpt2")),
             rows=("vocabulary", "depth × width", "heads (of keys)", "context", "parameters", "FLOPs a token"))

# %% [markdown]
# ## Summary
#
# - A recurrent network carries everything in one state, step by step; what is far back fades. Always taking its best guess
#   leads into a circle; drawing does not.
# - Attention is a mean of values with weights from queries and keys: divided by √D, masked to the past, softmaxed over keys.
# - RoPE turns queries and keys by their positions; only distances remain.
# - RMS norm, QK norm, softcap and zeros at the start keep a deep model calm. Grouped heads shrink the cache.
# - 2VC + 12LC² parameters, and 6 operations a token for each that multiplies, plus attention.
# - What a part is worth is a number with a noise: measured on several seeds, or it is an opinion.
#
# ## Questions
#
# 1. What would go wrong in training, and what in writing, if the mask were strict, so that a position could not see itself?
# 2. Turn a query by its position and leave the key alone. What does their dot product depend on then?
# 3. Why is the norm taken of what a block reads, and not of the stream itself?
# 4. `Switches(residual=False)` with `init_weights` learns nothing. Which gradients are zero? Give the writing matrices random
#    values and measure what the residual stream is worth.
# 5. The context doubles. Which of the numbers in the last table grow, and which part of a step takes four times as long?
#
# ## Further reading
#
# - Hochreiter, Schmidhuber, *Long Short-Term Memory* (1997); Cho et al., *Learning Phrase Representations using RNN
#   Encoder–Decoder* (2014): the two recurrent cells.
# - Karpathy, *The Unreasonable Effectiveness of Recurrent Neural Networks* (2015): what such a network writes.
# - Vaswani et al., *Attention Is All You Need* (2017). Radford et al., *Language Models are Unsupervised Multitask Learners* (2019).
# - Su et al., *RoFormer* (2021): rotary positions. Zhang, Sennrich, *Root Mean Square Layer Normalization* (2019).
# - Henry et al., *Query-Key Normalization for Transformers* (2020). Shazeer, *Fast Transformer Decoding* (2019) and Ainslie
#   et al., *GQA* (2023): shared keys.
# - So et al., *Primer* (2021): squared ReLU. *Gemma 2* (2024): the softcap. Shazeer, *GLU Variants* (2020): SwiGLU.
#   Zhou et al., *Value Residual Learning* (2024): where value embeddings come from.
# - Holtzman et al., *The Curious Case of Neural Text Degeneration* (2020): the circle.
# - Chowdhery et al., *PaLM* (2022), appendix B: the count of operations.
