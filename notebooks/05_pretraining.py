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
# # 05 Pretraining
#
# Nobody labels the data. Pretraining takes text as it lies around and asks one question of it, billions of times:
# what comes next? What a chat model knows it learned from that question; later stages teach it how to behave.
#
# Most of the money goes here, and most ways to fool yourself are here too: a loss that falls because the tokens got
# shorter, a benchmark that measures the length of an answer. You will build the honest version of each, say *before*
# the run how good it will be, run it, and find out what it knows.
#
# *About two hours, five exercises. You need the tokenizer of lesson 02.*

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
import bz2
import json
import lzma
import math
import re
from collections import Counter
from itertools import pairwise
from os.path import commonprefix

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from nanochat.course import plots, prepare
from nanochat.runtime import core_seconds, pick_device, pick_dtype, world

# %%
plots.style()
plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 80})        # a light notebook
torch.set_num_threads(S.machine.threads or torch.get_num_threads())
device = pick_device(S.machine.device)

# %% [markdown]
# ## Text arrives in shards
#
# A shard is a parquet file with one column, `text`, and one document in each row. Documents lie in *row groups*,
# which is what a loader reads at a time. By convention the last shard is never trained on: it is for validation.

# %%
from nanochat.data import TextShards

paths = prepare.text(S, run)                      # made (toy world) or fetched (hub) if they are not there
tokenizer = prepare.train_tokenizer(S, run)       # lesson 02's, loaded
for path in [*paths[:3], paths[-1]]:
    shard = TextShards([path])
    print(f"{path.name}  {shard.documents:>7,} documents in {len(shard)} row groups")
print(f"{len(paths)} shards, vocabulary {tokenizer.vocab_size:,}")

# %%
def read(paths, most):
    """The first documents of some shards, in order, up to `most` bytes together."""
    shards, size = TextShards(paths), 0
    for document in (text for group in range(len(shards)) for text in shards.read(group)):
        size += 1 + len(document.encode())         # and one for its end
        if size > most:
            return
        yield document


town = S.pretrain.data.source == "toy"            # the invented town of lesson 01, or real text
held_out = list(read(paths[-1:], 1 << 17))        # 128 KB that no model will be trained on
for document in held_out[:4]:
    print(repr(document[:150]))

# %%
T = S.pretrain.model.sequence_len                 # tokens of a row
ids = [[tokenizer.bos, *map(int, document)] for document in tokenizer.encode_batch(held_out)]
lengths = np.array([len(document) for document in ids])
print(f"{len(ids):,} held-out documents, {lengths.min()} to {lengths.max():,} tokens, median {int(np.median(lengths))}")
print(f"a row of this scale has {T} inputs; {(lengths > T + 1).mean():.1%} of the documents do not fit in one")

# %% [markdown]
# Each list begins with `<|bos|>`, the token that says "a document begins here".
#
# ## One row, T predictions
#
# A model reads a row and predicts, *at every position at once*, the token after it. So a row of T + 1 tokens gives T
# inputs and T targets: the same tokens, one step apart. Some we may not want to learn, padding today and the user's
# words in lesson 06. A target of −1 tells the loss to look away.
#
# ---
# **Exercise 05.shift_targets** · 1 point · ●○○ · about 3 lines · 5 min
#
# Write `shift_targets(rows, mask)`. `rows` (B, T + 1) holds token ids, `mask` (B, T + 1) is 1 for tokens to be
# learned. Return `inputs` and `targets`, (B, T) each; a target whose own mask is 0 is −1. The arguments stay as they
# are.
#
# ```
# >>> shift_targets(np.array([[7, 8, 9, 5]]), np.array([[1, 0, 1, 1]]))
# (array([[7, 8, 9]]), array([[-1, 9, 5]]))
# ```
# <details><summary>Hint 1</summary>The target at position t is token t + 1. Whose mask decides: that of token t or of token t + 1?</details>
# <details><summary>Hint 2</summary><code>np.where(condition, a, b)</code> takes from <code>a</code> where the condition holds, else from <code>b</code>, in a new array.</details>

# %% tags=["exercise:05.shift_targets"]
def shift_targets(rows, mask):
    """Inputs and targets, (B, T) each, of packed rows (B, T + 1); a target whose mask is 0 becomes -1."""
    raise NotImplementedError("05.shift_targets")

# %% tags=["grade:05.shift_targets"]
check("05.shift_targets")

# %% tags=["use:05.shift_targets"]
shift_targets = use("05.shift_targets")

# %%
first = np.array(ids[0][:8])[None]                                     # (1, 8)
inputs, targets = shift_targets(first, np.ones_like(first))            # (1, 7) each
for read_id, next_id in zip(inputs[0], targets[0]):
    print(f"{plots.piece(tokenizer, read_id):>10} → {plots.piece(tokenizer, next_id)}")

# %% [markdown]
# ## Packing
#
# Documents have all lengths and rows have one. There are three ways out, and each pays in its own coin:
#
# - **pad**: one document a row, the rest is filled with nothing. Nothing is lost but time;
# - **concatenate**: glue everything together and cut every T + 1 tokens. No hole, but a row may begin in
#   mid-sentence;
# - **best fit**: fill each row with whole documents, the longest that fits first. Where nothing fits any more, take
#   the shortest document at hand, cut it to the room that is left, and throw its tail away.
#
# ---
# **Exercise 05.pack** · 4 points · ●●● · about 11 lines · 25 min
#
# Write `pack(documents, capacity)`, best fit. `documents` is a list of lists of ids. Return the rows, lists of
# exactly `capacity` ids. While a row has room, append the longest document that fits in it whole; if none does, the
# shortest one, cut. Of equal lengths the earlier document goes first. Each document is used once; a last row that
# cannot be filled is left out; the list you were given stays as it was.
#
# ```
# >>> pack([[0, 1, 2], [0, 3], [0, 4, 5, 6, 7]], 5)
# [[0, 4, 5, 6, 7], [0, 1, 2, 0, 3]]
# >>> pack([[0, 1, 2], [0, 3, 4]], 5)
# [[0, 1, 2, 0, 3]]
# ```
# <details><summary>Hint 1</summary>Copy the list to a shelf. One loop while it is not empty: room, candidates, take one off, append; a full row is put away.</details>
# <details><summary>Hint 2</summary><code>max(fitting, key=len)</code> and <code>min(shelf, key=len)</code> return the first of equals. To take a document off by its place, find the index of that very object.</details>

# %% tags=["exercise:05.pack"]
def pack(documents, capacity):
    """Full rows of `capacity` ids: the longest document that fits, again and again; else the shortest, cut."""
    raise NotImplementedError("05.pack")

# %% tags=["grade:05.pack"]
check("05.pack")

# %% tags=["use:05.pack"]
pack = use("05.pack")

# %% [markdown]
# All three on the same documents (−2 marks a hole):

# %%
some, room = ids[:400], T + 1
padded_rows = [(document + [-2] * room)[:room] for document in some]
stream = [token for document in some for token in document]
joined_rows = [stream[at:at + room] for at in range(0, len(stream) - room + 1, room)]
packed_rows = pack(some, room)

policies = {"pad": padded_rows, "concatenate": joined_rows, "best fit": packed_rows}
print(f"{'':12} {'rows':>5} {'text':>7} {'begin at bos':>13} {'tokens lost':>12}")
for name, rows in policies.items():
    kept = sum(token != -2 for row in rows for token in row)
    starts = np.mean([row[0] == tokenizer.bos for row in rows])
    print(f"{name:12} {len(rows):5} {kept / (len(rows) * room):7.1%} {starts:13.1%} {1 - kept / len(stream):12.1%}")

# %% [markdown]
# **Predict before you look.** Each line is a row, each bar a document, orange if it begins outside its row. Under
# which policy will you find orange, and where?

# %%
def draw_rows(ax, rows, title):
    """Rows of ids as bars: one for each document, orange where its beginning is missing; holes stay white."""
    for r, row in enumerate(rows):
        text = row[:row.index(-2)] if -2 in row else row
        cuts = sorted({0, len(text), *(i for i, token in enumerate(text) if token == tokenizer.bos)})
        for n, (a, b) in enumerate(pairwise(cuts)):
            colour = (plots.COLOURS[0], "#b9c6dc")[n % 2] if text[a] == tokenizer.bos else plots.COLOURS[1]
            ax.barh(r, b - a, left=a, height=0.8, edgecolor="white", linewidth=0.5, color=colour)
    ax.set(title=title, xlim=(0, room), ylim=(9.5, -0.5), yticks=[], xlabel="token")


fig, axes = plt.subplots(1, 3, figsize=(6.6, 1.6))
for ax, (name, rows) in zip(axes, policies.items()):
    draw_rows(ax, rows[:10], name)
plt.show()

# %% [markdown]
# Padding wastes what we pay for. Concatenation has orange on the left: the model must predict the rest of something
# it never saw begin, which teaches it to guess. Best fit has neither, and pays with the tails it cut. On web text,
# with its long documents, that is a real price: nanochat's lab notebook reports 34.6 % of the tokens lost, of which a
# floor of 22.9 % no packer avoids. Text is cheaper than GPU hours.
#
# ## Is that what the library does?

# %% tags=["nbval-check-output"]
from nanochat.data.packing import BestFitCrop, Document

packer = BestFitCrop(capacity=room, buffer=len(some))
queue = iter([Document(i, np.array(document), np.ones(len(document))) for i, document in enumerate(some)])
theirs = []
while pieces := packer.row(lambda: next(queue, None)):                 # [(Document, how many of its tokens)]
    theirs.append([int(i) for document, take in pieces for i in document.ids[:take]])
print("same rows:", [row for row in theirs if len(row) == room] == packed_rows)

# %% [markdown]
# `nanochat/data/packing.py` keeps its shelf sorted, so that taking is a binary search, and holds a thousand
# documents, not all of them. Around it, `loader.py` makes two promises that will save a run one day: the global batch
# does not depend on how many processes share the work, and a loader continues *exactly* where it stood.

# %% tags=["nbval-check-output"]
from nanochat.data import pretrain_loader

settings = {"rows": S.pretrain.rows, "sequence_len": T, "seed": SEED, "streams": S.pretrain.streams}
one = pretrain_loader(paths[:-1], tokenizer, **settings)
two = [pretrain_loader(paths[:-1], tokenizer, **settings, rank=rank, world=2) for rank in range(2)]
inputs, targets = one.next()                                           # (rows, T) each
shared = np.concatenate([loader.next()[0] for loader in two])
print(inputs.shape, "one process = two:", np.array_equal(inputs, shared))

state, following = one.state(), one.next()[0]                          # state: JSON, the place and the shelf
again = pretrain_loader(paths[:-1], tokenizer, **settings)
again.load([state])
print("resumed to the token:", np.array_equal(again.next()[0], following))

# %% [markdown]
# How: the data is cut into a fixed number of *streams*, each with its own place and shelf, and processes share out
# streams.

# %% [markdown]
# ## A loss you can compare
#
# Training minimises the surprise of the next token, −ln p, averaged over tokens. The unit is the *nat*. It is the
# right thing to differentiate and the wrong thing to compare. To see it we need no network, only two models that
# count. The first knows how often each byte occurs, and nothing else; the second knows the same of our tokens. Both
# see the same training text and are judged on the same held-out text.

# %%
def counter_losses(train_ids, test_ids, size):
    """The surprise in nats of each id when all that is known is how often ids occur."""
    counts = np.bincount(train_ids, minlength=size) + 0.5              # (size,) nothing is impossible
    return -np.log(counts / counts.sum())[test_ids]                    # (N,)


sample = list(read(paths[:-1], 100_000))
in_bytes = [np.frombuffer("".join(texts).encode(), np.uint8).astype(int) for texts in (sample, held_out)]
in_tokens = [np.concatenate(tokenizer.encode_batch(texts)).astype(int) for texts in (sample, held_out)]
byte_losses = counter_losses(*in_bytes, 256)                           # (bytes,)
token_losses = counter_losses(*in_tokens, tokenizer.vocab_size)        # (tokens,)
print(f"bytes   {byte_losses.mean():.3f} nats a byte\ntokens  {token_losses.mean():.3f} nats a token")

# %% [markdown]
# The byte counter has the lower loss. If that were the judge, the best tokenizer would be none at all. It is a wrong
# turn: a byte is less surprising than a token because there is less *in* it. Give both the same job, this text from
# end to end, and count what the whole job costs:

# %%
print(f"bytes   {len(byte_losses):>7,} predictions, {byte_losses.sum() / math.log(2) / 8000:6.1f} kB of surprise")
print(f"tokens  {len(token_losses):>7,} predictions, {token_losses.sum() / math.log(2) / 8000:6.1f} kB of surprise")

# %% [markdown]
# Now it is the other way round: tokens know which bytes go together. The unit that no tokenizer can bend is **bits
# per byte**: all the surprise, in bits, over the bytes it explains. 8 is no model at all.
#
# ---
# **Exercise 05.bits_per_byte** · 3 points · ●●○ · about 4 lines · 10 min
#
# Write `bits_per_byte(losses, targets, token_bytes)`. `losses` (N,) are nats, `targets` (N,) the ids they belong to,
# `token_bytes` (V,) the length in bytes of every id, 0 for special tokens. A target that is −1 or special counts
# neither above nor below the line.
#
# ```
# >>> sizes = np.array([1, 4, 0])                       # id 2 is special
# >>> bits_per_byte(np.log([2., 8., 1e6]), np.array([0, 1, 2]), sizes)
# 0.8
# ```
# <details><summary>Hint 1</summary>A nat is 1 / ln 2 bits. Add first, divide last: one sum of bits, one sum of bytes.</details>
# <details><summary>Hint 2</summary><code>token_bytes[-1]</code> is no error in NumPy: it is the last entry. Put the −1 aside before you look up.</details>

# %% tags=["exercise:05.bits_per_byte"]
def bits_per_byte(losses, targets, token_bytes):
    """Bits a byte of text costs: losses in nats (N,), targets (N,), token_bytes (V,)."""
    raise NotImplementedError("05.bits_per_byte")

# %% tags=["grade:05.bits_per_byte"]
check("05.bits_per_byte")

# %% tags=["use:05.bits_per_byte"]
bits_per_byte = use("05.bits_per_byte")

# %%
print(f"bytes   {bits_per_byte(byte_losses, in_bytes[1], np.ones(256, int)):.3f} bits per byte")
print(f"tokens  {bits_per_byte(token_losses, in_tokens[1], tokenizer.token_bytes):.3f} bits per byte")

# %% [markdown]
# From here on your function is how models are compared. What it needs is the loss of every token. A document is read
# from its `<|bos|>` on, alone in its row; one that is longer than a row is read in windows.

# %%
from nanochat.evals.forward import evaluating, length_batches, padded


def losses_of(model, rows):
    """For each row of n ids the losses of its tokens 1 … n − 1, in nats."""
    found = [None] * len(rows)
    with evaluating(model):
        for batch in length_batches([len(row) for row in rows], rows=64, tokens=4096):
            x = padded([np.asarray(rows[i]) for i in batch], tokenizer.bos, device)      # (B, n)
            nats = model(x[:, :-1], x[:, 1:], reduction="none").float().cpu().numpy()    # (B, n − 1)
            for i, row in zip(batch, nats):
                found[i] = row[:len(rows[i]) - 1]
    return found

# %%
def windows(texts):
    """Rows of ids: bos, a document, and the bos that ends it; cut into windows of T + 1 that overlap by one."""
    rows = [[tokenizer.bos, *map(int, text), tokenizer.bos] for text in tokenizer.encode_batch(texts)]
    return [row[at:at + T + 1] for row in rows for at in range(0, len(row) - 1, T)]


def score(model, texts):
    """Bits per byte of a model on texts."""
    rows = windows(texts)
    losses, targets = np.concatenate(losses_of(model, rows)), np.concatenate([row[1:] for row in rows])
    return float(bits_per_byte(losses, targets, tokenizer.token_bytes))

# %% [markdown]
# A first use: a model that has learned nothing. Its head starts at zero, so every token has probability 1/V, and the
# answer can be worked out on paper: log₂ V bits for each token.

# %%
from nanochat.evals.bpb import bits_per_byte as library_bits_per_byte
from nanochat.model import GPT, GPTConfig

untrained = GPT(GPTConfig.from_depth(1, tokenizer.vocab_size, T, n_embd=32, head_dim=32)).init_weights(SEED).to(device)
few = held_out[:50]
tokens = sum(map(len, tokenizer.encode_batch(few)))
print(f"on paper  {math.log2(tokenizer.vocab_size) * tokens / sum(len(t.encode()) for t in few):.4f}")
print(f"yours     {score(untrained, few):.4f}")
batches = [(np.array([row[:-1]]), np.array([row[1:]])) for row in windows(few)]
print(f"library   {library_bits_per_byte(untrained, batches, tokenizer.token_bytes):.4f}")

# %% [markdown]
# ## The whole of pretraining in a dozen lines
#
# You have every part by now: rows, targets, a model (lesson 03), an optimizer and a schedule (lesson 04). The loop in
# `nanochat/train/loop.py` adds checkpoints, logs and several processes. The heart of it is this:

# %%
from nanochat.train.optim import MuonAdamW
from nanochat.train.pretrain import model_config
from nanochat.train.schedule import lr_scale


def train_by_hand(config):
    """A model trained from nothing, by the settings of a pretraining stage."""
    model, plan = GPT(model_config(config.model, tokenizer.vocab_size)).init_weights(SEED).to(device), config.schedule
    model.compute_dtype = pick_dtype(device, S.machine.dtype)
    optimizer = MuonAdamW(model, config.optim, world(S.machine.device))
    loader = pretrain_loader(paths[:-1], tokenizer, rows=config.rows, sequence_len=T, seed=SEED, streams=config.streams)
    for step in range(plan.steps):
        inputs, targets = (torch.from_numpy(a).to(device) for a in loader.next())        # (rows, T) each
        loss = model(inputs, targets)
        loss.backward()
        optimizer.step(lr_scale=lr_scale(step, plan.steps, plan.warmup, plan.flat, plan.final))
        optimizer.zero_grad()
    return model

# %% [markdown]
# ## How good will it be?
#
# A large run is paid for once, so one wants to know what will come out. The way to know is to train smaller models
# first, a *miniseries*. Over many orders of magnitude the loss of language models falls as a *power law* of size, data
# and compute: with two logarithmic axes, a straight line. A line can be continued.
#
# ---
# **Exercise 05.fit_power_law** · 2 points · ●●○ · about 3 lines · 10 min
#
# Write `fit_power_law(x, y)`: `(a, b)` such that y ≈ a · x^(−b), by least squares on the logarithms of both.
#
# ```
# >>> fit_power_law(np.array([1., 4., 16.]), np.array([8., 4., 2.]))
# (8.0, 0.5)
# ```
# <details><summary>Hint 1</summary>Take logarithms: ln y = ln a − b · ln x. That is a straight line in ln x.</details>
# <details><summary>Hint 2</summary><code>np.polyfit(u, v, 1)</code> gives slope and intercept. One of them wants a sign, the other an exponential.</details>

# %% tags=["exercise:05.fit_power_law"]
def fit_power_law(x, y):
    """(a, b) of the law y = a * x ** -b that fits best in logarithms."""
    raise NotImplementedError("05.fit_power_law")

# %% tags=["grade:05.fit_power_law"]
check("05.fit_power_law")

# %% tags=["use:05.fit_power_law"]
fit_power_law = use("05.fit_power_law")

# %% [markdown]
# First on a series that others paid for. These are nanochat's eleven models of depth 10 to 20, each trained on eight
# tokens a parameter on eight H100s (its miniseries of 7 January 2026). We cover the last four, fit the rest, and
# predict. `nanochat/train/power_law.py` puts an interval around your line: nine of ten further models should fall
# inside, *if the law holds there*.

# %%
from nanochat.train import power_law

params = 1e6 * np.array([91, 112, 135, 163, 194, 229, 268, 313, 362, 417, 477])
bpb = np.array([1.0312, 1.0096, .9825, .9644, .9437, .9257, .9101, .8952, .8817, .8687, .8572])


def compare(law):
    for n, truth in zip(params[7:], bpb[7:]):                          # depth 17 … 20
        low, high = law.interval(n)
        print(f"{n / 1e6:4.0f} M  predicted {law(n):.4f} ({low:.4f} to {high:.4f})  measured {truth:.4f}, off by "
              f"{law(n) / truth - 1:+.2%}, {'inside' if low <= truth <= high else 'OUTSIDE'}")


compare(power_law.fit(params[:7], bpb[:7], floor=0.0, line=fit_power_law))

# %% [markdown]
# Within a percent, from models of about half the size. But all errors lie on one side and grow, until they leave the
# interval: it knows how far points scatter around a line, not that the line is wrong. Some of the surprise in a text is
# chance, however large the model. A better law has a **floor**: loss = E + a · x^(−b), and only what lies above E can
# be trained away. Where nobody knows E, take the one that fits best:

# %%
bent = power_law.fit(params[:7], bpb[:7], line=fit_power_law)          # a third number to fit
print(f"floor {bent.floor:.3f}, exponent {bent.b:.3f}")
compare(bent)

# %% [markdown]
# Nearer, and all four inside, in wider intervals: a number more was fitted to the same seven points.
#
# For our town E can be computed, since we hold the generator in our hands. Whoever knows every fact still cannot know
# *which* person comes next: one of 60, in one of 4 relations and 5 forms. Nor which of the training sums.

# %%
from nanochat.data.toyworld import World

people = World(SEED)


def kind(document):
    """sums, faq or facts: what sort of town document this is."""
    return "sums" if "=" in document else "faq" if document.startswith("Q:") else "facts"

# %%
def unknowable(document, share):
    """Bits of surprise left in a document for someone who knows the town; `share` of documents are of its kind."""
    lines, sentences, bits = document.count("\n") + 1, document.count("."), -math.log2(share)
    if kind(document) == "sums":
        return bits + lines * math.log2(len(people.train_sums))
    if kind(document) == "faq":
        return bits + lines * math.log2(30 * 4 * 2) + (lines - 1)      # a second line comes half of the time
    return bits + sentences * math.log2(60 * 4 * 5) + (0, math.log2(3 / 2), math.log2(3))[sentences - 1]

# %%
def floor_of(documents):
    """The lowest bits per byte that knowledge of the town can reach."""
    shares = Counter(map(kind, documents))
    bits = sum(unknowable(document, shares[kind(document)] / len(documents)) for document in documents)
    return bits / sum(len(document.encode()) for document in documents)


floor = floor_of(held_out) if town else 0.0
print(f"floor of the held-out text: {floor:.4f} bits per byte" if town else "real text: nobody knows its floor")

# %% [markdown]
# So "how much is left to learn" is a number here. It belongs to a text: more sums, more dice. The series will be judged
# on the packed rows that the stage is validated on, so we need the floor of *those*:

# %%
validation = pretrain_loader(paths[-1:], tokenizer, rows=S.pretrain.rows, sequence_len=T, streams=S.pretrain.streams)
val_rows = [validation.next() for _ in range(max(1, S.pretrain.eval_rows // S.pretrain.rows))]     # those of the stage


def score_rows(model):
    """Bits per byte on the packed validation rows."""
    losses = []
    with evaluating(model):
        for batch in val_rows:
            inputs, targets = (torch.from_numpy(a).to(device) for a in batch)                      # (rows, T) each
            losses.append(model(inputs, targets, reduction="none").flatten().double().cpu())
    targets = np.concatenate([targets.ravel() for _, targets in val_rows])
    return float(bits_per_byte(torch.cat(losses).numpy(), targets, tokenizer.token_bytes))

# %%
E = None                                                               # real text: it has to be fitted
if town:
    whole = set(read(paths[-1:], 1 << 30))
    texts = [tokenizer.decode([*map(int, row), int(last)])
             for inputs, targets in val_rows for row, last in zip(inputs, targets[:, -1])]
    uncut = [document for text in texts for document in text.split("<|bos|>") if document in whole]
    E = floor_of(uncut)
    print(f"{len(uncut)} whole documents in the validation rows, floor {E:.4f}")

# %% [markdown]
# ## The miniseries
#
# One dial: depth. Width follows from it, and every model gets as many tokens *per parameter* as the big run. Its other
# settings are the big run's, moved by rule: fewer tokens want a smaller batch, by a power of 0.383; a batch k times as
# large wants √k times the rate; AdamW's rates fall with the root of the width besides. Sizes tuned one by one would
# lie on no law but luck's.

# %%
from nanochat.train import miniseries

members = miniseries.series(S.pretrain, S.miniseries, tokenizer.vocab_size)
big = miniseries.sized(S.pretrain, tokenizer.vocab_size)
print(" depth width    parameters         tokens  steps rows   Muon  AdamW    FLOPs")
for m in [*members, big]:
    c, width = m.config, m.config.model.n_embd or 64 * m.config.model.depth
    print(f"{c.model.depth:5} {width:5} {m.params:13,} {m.tokens:14,} {c.schedule.steps:6} {c.rows:4} "
          f"{c.optim.matrix_lr:6.3f} {c.optim.embedding_lr:6.3f} {m.flops:8.1e}")
print(f"the series: {sum(m.flops for m in members) / big.flops:.0%} of the big run's FLOPs")

# %% [markdown]
# The last line is the big run. Now all members but the largest, with the library's stage. A member that is trained
# already is read from the run.

# %%
began = core_seconds()
losses = [miniseries.train(m, run, S.machine) for m in members[:-1]]
if town:
    mine = score_rows(train_by_hand(members[0].config))
    print(f"the smallest: {losses[0]:.4f} bits per byte, {mine:.4f} by the dozen lines on the same settings")

# %% [markdown]
# A dozen lines and the library agree. **Predict before you run.** The law goes through four points, once over
# parameters and once over compute. Write down your own guess for the fifth: by how much will it be wrong?

# %%
def law_over(what, count):
    """The law of bits per byte over "params" or "flops", through the first `count` members."""
    return power_law.fit([getattr(m, what) for m in members[:count]], losses[:count], E, line=fit_power_law)


def bet_on(member, count, truth=None):
    """Print what the first `count` members say of a model, by parameters and by compute, and how it came out."""
    for what in ("params", "flops"):
        law, x = law_over(what, count), getattr(member, what)
        low, high = law.interval(x)
        came = "" if truth is None else (f"; measured {truth:.4f}, off by {law(x) / truth - 1:+.1%}, "
                                         f"{'inside' if low <= truth <= high else 'OUTSIDE'}")
        print(f"by {what:6}  {law.floor:.3f} + a·x^−{law.b:.2f} = {law(x):.4f} ({low:.4f} to {high:.4f}){came}")


bet_on(members[-1], 4)

# %% [markdown]
# It stands written. Now train the fifth.

# %%
losses.append(miniseries.train(members[-1], run, S.machine))
bet_on(members[-1], 4, losses[-1])
print(f"the series took {core_seconds() - began:.0f} core-s now")

# %% [markdown]
# Four points are few: two numbers were taken from them (three on real text), and with the two degrees of freedom left
# (one) the interval is 1.8 times (3.8 times) as wide as with many points.
#
# Now the bet that counts: from all five, the run itself, several times as large as any of them.

# %%
bet_on(big, 5)

# %% [markdown]
# ## The run
#
# The real stage, through the library: in this process or, with several GPUs, in one process each. It saves
# checkpoints, and if you interrupt it, the same cell goes on from the last. A finished stage is loaded.

# %%
from nanochat.train.launch import launch

with plots.LossPlot(run, "base", keys=("loss",)) as live:
    result = launch("pretrain", S.pretrain, run, S.machine, live=live)

# %% [markdown]
# A cliff, if the run was long enough, while the model learns which tokens follow each other; then a slope while it
# learns who is who and how to carry.
#
# What lies on disk is a folder that is whole or not there. The manifest is written last and holds the size and digest
# of every other file; a folder without it does not count.

# %%
from nanochat.train import checkpoint

path = checkpoint.latest(run / "base")
for file in sorted(path.iterdir()):
    print(f"{path.name}/{file.name:26} {file.stat().st_size:>13,} bytes")

# %%
model, tokenizer, meta = checkpoint.load_model(run, "base")
model.to(device).compute_dtype = pick_dtype(device, meta["dtype"])     # computes as it was trained
base_bpb = score(model, held_out)
print(f"packed rows      {result['val_bpb']:.4f} bits per byte, by your function {score_rows(model):.4f}")
print(f"documents alone  {base_bpb:.4f}")
if town:
    print(f"their floors     {E:.4f} and {floor:.4f}")
bet_on(big, 5, result["val_bpb"])

# %% [markdown]
# (Packed rows and our 128 KB of documents are not the same text, so their numbers and their floors differ.)

# %%
def draw_law(ax, what):
    """What lies above the floor: the law through the first four, its interval, and what came out."""
    law, sizes = law_over(what, 4), np.array([getattr(m, what) for m in [*members, big]])
    above = np.array([*losses, result["val_bpb"]]) - law.floor
    line = np.geomspace(sizes[0], sizes[-1])
    low, high = np.transpose([law.interval(x) for x in line]) - law.floor
    ax.fill_between(line, low.clip(1e-9), high, color=plots.COLOURS[0], alpha=0.15, linewidth=0)
    ax.plot(line, law(line) - law.floor, color=plots.COLOURS[0], linestyle="-")
    for at, marker, colour in ((slice(4), "o", 0), (slice(4, -1), "D", 1), (slice(-1, None), "s", 3)):
        ax.plot(sizes[at], above[at], marker, color=plots.COLOURS[colour])
    ax.set(xscale="log", yscale="log", xlabel=what, ylim=(max(1e-3, above.min() / 2), 2 * above[0]))


fig, axes = plt.subplots(1, 2, figsize=(5.4, 1.8), sharey=True)
for ax, what in zip(axes, ("params", "flops")):
    draw_law(ax, what)
axes[0].set(ylabel="bits above the floor")
plt.show()

# %% [markdown]
# The dots were fitted; the diamond and the square, which is the run, were not. A power law is a bet that there is always
# a rarer thing left to learn, as on the web. Our town has no such tail: 240 facts and one rule. A model large enough
# for all of it leaves the law and drops to the floor, and an ability that comes all at once, as carrying in a sum may,
# is in no law fitted before. An interval speaks of the scatter around a law, never of the place where the law ends.
#
# ## What it learned, and what nobody can
#
# The distance to the floor is what is missing. Where does it hide?

# %%
if town:
    print(f"{'':8}{'documents':>10}{'bits/byte':>11}{'floor':>8}{'missing':>9}")
    shares = Counter(map(kind, held_out))
    for name in shares:
        texts = [document for document in held_out if kind(document) == name]
        least = sum(unknowable(d, shares[name] / len(held_out)) for d in texts) / sum(len(d.encode()) for d in texts)
        mine = score(model, texts)
        print(f"{name:8}{len(texts):>10,}{mine:>11.3f}{least:>8.3f}{mine - least:>9.3f}")

# %% [markdown]
# Sums cost the most by far, and yet the model may well add: most of the cost is the choice of the two numbers, which
# is dice.
#
# **Predict before you look.** In `17+25=42`, which tokens will be tall? And in a sentence about a person?

# %%
shown = [next(d for d in held_out if kind(d) == name) for name in ("facts", "sums")] if town else held_out[:2]
fig, axes = plt.subplots(2, 1, figsize=(6.6, 2.6))
for ax, document in zip(axes, shown):
    row = windows([document])[0][:26]
    bits = losses_of(model, [row])[0] / math.log(2)                    # (n,) one for each token after bos
    ax.bar(range(len(bits)), bits, color=plots.COLOURS[0])
    ax.set_xticks(range(len(bits)), [plots.piece(tokenizer, i) for i in row[1:]], fontsize=7, rotation=45)
    ax.set(ylabel="bits", xlim=(-0.6, 24.6))
plt.show()

# %% [markdown]
# A trained model is tall where the generator threw its dice, at a name and at the digits left of `=`, and flat where
# the world leaves no choice: the last word about a person, the digits after `=`. That flatness is knowledge. (If the
# bar at the closing `<|bos|>` is tall, the model did not expect so short a document there: that is question 1.)
#
# ## Ask it
#
# What shows as a small loss should also show as an answer. Two tests of the town: facts cut before their last word,
# and sums none of which was ever written down in training.

# %%
from nanochat.engine import Engine
from nanochat.evals import evaluate_completion
from nanochat.tasks import load_task

engine = Engine(model, tokenizer)
cards = {}
for name in ("cloze", "addition") if town else ():
    task, log = load_task(f"toy-{name}", "test", world_folder=run / "data"), run / "base" / "evals" / f"{name}.jsonl"
    cards[name] = card = evaluate_completion(engine, task, S.evals.max_items, log=log)
    low, high = card["interval"]
    print(f"{name:9} {card['accuracy']:.1%} of {card['n']} (95 %: {low:.1%} to {high:.1%}), guessing {card['chance']:.1%}")

# %% [markdown]
# The log holds every prompt with its answer. Read a few mistakes before you believe a number.

# %%
for name in cards:
    records = [json.loads(line) for line in (run / "base" / "evals" / f"{name}.jsonl").read_text().splitlines()]
    wrong = [record for record in records if not record["correct"]]
    print(f"{name}: {len(wrong)} wrong of {len(records)}")
    for record in wrong[:3]:
        prompt = record["prompt"].removeprefix("<|bos|>")
        print(f"   {prompt!r} → {record['completion'][:24]!r}, expected {record['expected']!r}")

# %% [markdown]
# ## CORE: asking without a chat
#
# A base model does not answer questions; it continues text. CORE, by which nanochat compares base models, turns 22
# benchmarks into continuations of three kinds. We take one item of each kind by hand. At toy scale the bundle is
# about our town, with the same files and rules.

# %%
from nanochat.data import hub
from nanochat.evals import core, write_toy_bundle

real_bundle = S.evals.core and not town
bundle = hub.eval_bundle() if real_bundle else write_toy_bundle(run / "core_bundle", people)
tasks = core.read_bundle(bundle)
one_of = {kind_: next(task for task in tasks if task.kind == kind_) for kind_ in core.FIELDS}


def open_item(kind_):
    """The first task of a kind, its items, and the texts and token rows that item 0 becomes."""
    task = one_of[kind_]
    items = core.read_items(task, 50)
    texts = core.prompts(task, items[0], core.few_shot(items, 0, task.shots))
    return task, items, texts, [[tokenizer.bos, *map(int, row)] for row in tokenizer.encode_batch(texts)]


def marked(row, start):
    """The end of a row's text, each judged token, those from `start` on, in brackets."""
    return (tokenizer.decode(row[1:start]) + "".join(f"[{tokenizer.decode([i])}]" for i in row[start:]))[-72:]

# %% [markdown]
# **Multiple choice.** One context, several endings. Which ending does the model find likeliest?

# %%
task, items, texts, choice_rows = open_item("multiple_choice")
choice_losses = [loss.tolist() for loss in losses_of(model, choice_rows)]
for text, loss in zip(texts, choice_losses):
    print(f"{text[-60:]!r:64} {len(loss):4} predicted tokens, {sum(loss):8.3f} nats in all")
print("right:", items[0]["gold"])

# %% [markdown]
# "Likeliest" needs a definition. The sum of nats punishes an ending for being long: a wrong short answer beats a
# right long one. So take the mean over tokens. But over *which*? If the shared context is in the mean, it waters the
# difference down, and more for short endings than for long ones.
#
# ---
# **Exercise 05.choose** · 3 points · ●●○ · about 5 lines · 15 min
#
# Write `choose(rows, losses)`. `rows[k]` are the ids of option k, context included; `losses[k][i]` is the loss of
# token i + 1 of that row (nothing predicts the first). Judge only the tokens after the longest prefix that *all* rows
# share. Return the k with the lowest mean loss; the first of equals. No row is the beginning of another.
#
# ```
# >>> choose([[9, 1], [9, 2, 3, 4]], [[1.4], [1.0, 1.0, 1.0]])
# 1
# ```
# <details><summary>Hint 1</summary>If the rows share n tokens, which index in <code>losses[k]</code> belongs to token n?</details>
# <details><summary>Hint 2</summary>Count upwards while every row has the same token at that place as row 0. <code>means.index(min(means))</code> is the first of the lowest.</details>

# %% tags=["exercise:05.choose"]
def choose(rows, losses):
    """Which row's own tokens, after the prefix shared by all rows, have the lowest mean loss."""
    raise NotImplementedError("05.choose")

# %% tags=["grade:05.choose"]
check("05.choose")

# %% tags=["use:05.choose"]
choose = use("05.choose")

# %%
own = len(commonprefix(choice_rows))                                   # the tokens before are in every row
for row, loss in zip(choice_rows, choice_losses):
    print(f"{marked(row, own)!r:76} {np.mean(loss[own - 1:]):7.3f} nats a token")
print("chosen", choose(choice_rows, choice_losses), "right", items[0]["gold"])

# %% [markdown]
# In brackets is what was judged. Where options begin alike, the shared beginning belongs to the context. Now a dozen
# items, beside the library:

# %%
mine = []
for i, item in enumerate(items[:12]):
    texts = core.prompts(task, item, core.few_shot(items, i, task.shots))
    rows = [[tokenizer.bos, *map(int, row)] for row in tokenizer.encode_batch(texts)]
    mine.append(choose(rows, [loss.tolist() for loss in losses_of(model, rows)]) == item["gold"])
library = [judged.correct for judged in core.judge(model, tokenizer, task, items, range(len(mine)))]
print(f"{task.label}: {sum(mine)} of {len(mine)} right; item for item as the library: {mine == library}")

# %% [markdown]
# **Schema.** The other way round: several contexts, one ending. After which context is it least surprising? Judged is
# the common *suffix*, the same tokens in every row.

# %%
task, items, texts, rows = open_item("schema")
suffix = next(n for n in range(1, min(map(len, rows)) + 1) if len({tuple(row[-n - 1:]) for row in rows}) > 1)
means = [float(loss[-suffix:].mean()) for loss in losses_of(model, rows)]
for row, mean in zip(rows, means):
    print(f"{marked(row, len(row) - suffix)!r:76} {mean:7.3f} nats a token")
[judged] = core.judge(model, tokenizer, task, items, [0])
print("chosen", means.index(min(means)), "right", items[0]["gold"], "library:", judged.correct)

# %% [markdown]
# **Language modelling.** No options: would greedy decoding write exactly this ending? One wrong token and the item is
# lost, so guessing scores nothing here.

# %%
task, items, texts, (without, whole) = open_item("language_modeling")
with evaluating(model):
    likeliest = model(torch.tensor([whole[:-1]], device=device)).argmax(-1)[0].tolist()       # (n − 1,)
wanted, got = whole[len(without):], likeliest[len(without) - 1:]
print(f"{marked(whole, len(without))!r}: greedy decoding writes {tokenizer.decode(got)!r}")
print("right:", got == wanted, "library:", core.judge(model, tokenizer, task, items, [0])[0].correct)

# %% [markdown]
# To add up tasks with different odds, each accuracy is put on a scale where guessing is 0 and all right is 1:
# (accuracy − chance) / (1 − chance). CORE is the mean of that.

# %%
per_task = S.evals.core_per_task if real_bundle else S.evals.max_items
scores = core.evaluate(model, tokenizer, bundle, per_task)

# %% [markdown]
# The town is a small world, and a small model can come near the end of its scale. With its 22 real tasks the same
# ruler reads 0.257 for GPT-2. Note `town_questions`: in the form of the FAQ it asks about people who never were in
# one.
#
# ## Dreams
#
# Hand a base model nothing but `<|bos|>` and it writes what it takes for a document. Temperature 1 means: its own
# distribution. In these dreams one can read what was memorised.

# %%
count = 8 * S.pretrain.rows if town else 16
[dreams] = engine.generate([[tokenizer.bos]], num_samples=count, max_tokens=min(T - 1, 200), temperature=1.0, seed=SEED,
                           tools=False)
for dream in dreams[:5]:
    print(repr(dream.text[:110]))

# %% [markdown]
# **Predict before you run.** Of all 10,000 sums of two numbers below 100, one in five was never shown in training.
# How many of the sums it dreams come from that fifth if it learned the shown ones by heart? And if it learned to add?

# %%
if town:
    lines = [re.fullmatch(r"(\d+)\+(\d+)=(\d+)", line) for dream in dreams for line in dream.text.split("\n")]
    sums = [tuple(map(int, line.groups())) for line in lines if line]
    never = set(people.heldout_sums)
    print(f"{len(sums)} sums dreamt, {sum(a + b == c for a, b, c in sums)} right, "
          f"{sum((a, b) in never for a, b, _ in sums)} of them never shown (one fifth would be {len(sums) / 5:.0f})")
    true = {people.statement(who, what, n) for who in people.people for what in people.facts[who] for n in range(5)}
    said = [s for dream in dreams if kind(dream.text) == "facts" for s in re.findall(r"[A-Z][^.]*\.", dream.text)]
    print(f"{len(said)} statements dreamt, {sum(s in true for s in said)} of them true")

# %%
if town:
    training = set(read(paths[:-1], 1 << 30))
    for name in ("facts", "faq", "sums"):
        whole = [dream.text for dream in dreams if dream.finish_reason == "stop" and kind(dream.text) == name]
        copies = sum(text in training for text in whole)
        print(f"{name:6} {len(whole):4} documents dreamt, {copies} of them word for word in the training text")

# %% [markdown]
# What recurs word for word is short: of such documents there are few. A page of eight sums never recurs. So "is it
# memorised?" has two answers. The facts must be, there is no rule behind them; the pages they stood on need not. And
# a model that can add has no reason to remember which sums it was shown.

# %% [markdown]
# ## The model as a compressor
#
# A surprise in bits is also a *length*: give each token a code word of −log₂ p bits, and the total is the size to
# which the model shrinks the text. An arithmetic coder reaches that sum to within a few bits for a whole file. Here is
# the ideal length beside real files. It includes the `<|bos|>` that ends each document; the other programs get a
# separator byte.

# %%
from nanochat.evals.compress import compress, decompress, rival_sizes

blob, primer = ("\0".join(texts).encode() for texts in (held_out, read(paths[:-1], 1_000_000)))
size_of = rival_sizes(blob) | {                                        # gzip, xz and zstd, each at its best
    "bzip2": len(bz2.compress(blob, 9)),
    "xz, having read 1 MB": len(lzma.compress(primer + blob, preset=9)) - len(lzma.compress(primer, preset=9)),
    "our model (ideal)": sum(float(loss.sum()) for loss in losses_of(model, windows(held_out))) / math.log(2) / 8,
}
rates = {name: 8 * size / len(blob) for name, size in size_of.items()}
print(f"bits per byte on {len(blob):,} held-out bytes (plain: 8)")
for name, rate in rates.items():
    print(f"{name:>20}  {rate:5.3f}  {'█' * round(16 * rate)}")

# %% [markdown]
# xz that has read a megabyte of the town is the fair opponent: it too has seen training text. It finds *strings* that
# repeat. A new sum repeats no string; to make it shorter you have to add.
#
# `nanochat/evals/coder.py` has the arithmetic coder. Packing one token at a time takes a while, so a part has to do; on
# so short a text the others have little to go on:

# %%
sample = "\0".join(held_out[:100])[:10_000].encode()
packed = compress(model, tokenizer, sample)
for name, size in {"plain": len(sample), **rival_sizes(sample), "our model": len(packed)}.items():
    print(f"{name:>10} {size:6,} bytes, {len(sample) / size:5.1f} to 1")
print("the same bytes again:", decompress(model, tokenizer, packed) == sample)

# %% [markdown]
# Now the catch. To unpack the file you need the model.

# %%
weights = (path / "model.safetensors").stat().st_size
gain = min(rate for name, rate in rates.items() if "model" not in name) - rates["our model (ideal)"]
if gain > 0:
    print(f"the weights are {weights:,} bytes: they pay after {weights * 8 / gain / 1e6:.1f} MB of such text")
else:
    print(f"the weights are {weights:,} bytes, and this model saves nothing yet")

# %% [markdown]
# ## The duel
#
# In lesson 03 a recurrent network over bytes read the same text. Bits per byte lets us compare it with a Transformer
# over tokens, and one more thing has to be fair: the cost. If the network had fewer core seconds, it is trained again
# here with as many more steps as it takes.

# %%
from nanochat.runtime import Run
from nanochat.train import char_rnn

rnn = char_rnn.fit(run, S.char_rnn, S.machine, paths=paths)
while town and rnn["core_s"] < result["core_s"]:
    more = math.ceil(1.1 * rnn["steps"] * result["core_s"] / max(rnn["core_s"], 1e-3))
    rematch = Run(run / "char_rnn" / f"rematch_{more}", run.scale, run.seed)
    rnn = char_rnn.fit(rematch, S.char_rnn.model_copy(update={"steps": more}), S.machine, paths=paths)

# %%
run.record("char_rnn", {key: rnn[key] for key in ("val_bpb", "params", "core_s", "steps")})
print(f"{'':12} {'parameters':>12} {'core-s':>8} {'bits per byte':>14}")
for name, r, value in (("char-RNN", rnn, rnn["val_bpb"]), ("Transformer", result, base_bpb)):
    print(f"{name:12} {r['params']:>12,} {r['core_s']:>8.0f} {value:>14.4f}")
if town:
    print(f"{'floor':12} {'':>12} {'':>8} {floor:>14.4f}")
print("fewer bits:", "Transformer" if base_bpb < rnn["val_bpb"] else "char-RNN")

# %% [markdown]
# Both numbers are about the same 128 KB, but for a last cut document. The recurrent network reads on from document to
# document; the Transformer reads each alone, which is the harder way. This is what the run's report card will show:

# %%
metrics = {"val_bpb": base_bpb, "packed_bpb": result["val_bpb"]}       # val_bpb: the text the RNN was judged by
metrics |= {key: result[key] for key in ("core_s", "params", "tokens")}
metrics |= {f"{name}_acc": card["accuracy"] for name, card in cards.items()}
if town or real_bundle:
    metrics["core"] = scores["core"]
run.record("base", metrics, chance={f"{name}_acc": card["chance"] for name, card in cards.items()})
print({key: round(value, 4) for key, value in metrics.items()})

# %% [markdown]
# ## What changes on eight H100s
#
# The call is the same cell: one process a GPU, each with its share of the streams, text that no one generated, and 22
# real benchmarks. What grows is everything around the dozen lines.

# %%
from nanochat.course.plan import side_by_side

if "speedrun" in course.load().scales and SCALE != "speedrun":
    shown = "data", "vocabulary", "depth × width", "context", "parameters", "pretraining tokens", "tokens per parameter"
    side_by_side(SCALE, "speedrun", rows=(*shown, "FLOPs a token", "time", "cost"))
core_here = f"{scores['core']:.3f} ({'real tasks' if real_bundle else 'the town'})"
rows = [("", "this run", "nanochat's launch run, d20"), ("---", "--:", "--:"),
        ("parameters", f"{result['params']:,}", "560,988,160"), ("tokens", f"{result['tokens']:,}", "11.22 billion"),
        ("bits per byte (own text)", f"{result['val_bpb']:.3f}", "about 0.81"),
        ("CORE", core_here, "0.222 (real tasks)"),
        ("pretraining", f"{result['core_s']:.0f} core-s", "about 3 h on 8×H100")]
display(Markdown("\n".join("| " + " | ".join(row) + " |" for row in rows)))

# %% [markdown]
# The right column is what nanochat's author published for the first speedrun (October 2025). The bits per byte are
# about different texts: the smaller number is not the better model.

# %% [markdown]
# ## Summary
#
# - A row of T + 1 tokens is T predictions. Rows are packed so that each begins where a document begins.
# - Loss per token depends on the tokenizer. Bits per byte does not: all the bits over all the bytes, specials left
#   out.
# - Small models predict large ones, if the law knows that some surprise is chance.
# - A base model is tested by continuation: the mean loss of what differs, and accuracy measured from chance.
# - To predict is to compress.
#
# ## Questions
#
# 1. Best fit finds long documents first, yet every prompt stands at the start of a row and is short. `packing.py` lays
#    the pieces of a row out by lot. What would the bars of surprise look like if it did not?
# 2. The untrained model's bits per byte are below 8. Why is that no knowledge?
# 3. `choose` favours endings with many predictable tokens. Invent an item that it gets wrong for that reason.
# 4. On *training* text a model can get below the floor. How, and would you notice?
# 5. What would change in the fit if all sizes got the same number of tokens?
#
# ## Further reading
#
# - Shannon, *Prediction and Entropy of Printed English* (1951): the floor of English, estimated with people.
# - Kaplan et al., *Scaling Laws for Neural Language Models* (2020); Hoffmann et al., *Training Compute-Optimal Large
#   Language Models* (2022): the laws, and the one with a floor.
# - Ding et al., *Fewer Truncations Improve Language Modeling* (2024): best-fit packing.
# - Li et al., *DataComp-LM* (2024): CORE and its tasks.
# - Delétang et al., *Language Modeling Is Compression* (2024): the same comparison for large models, coder included.
# - Carlini et al., *Quantifying Memorization Across Neural Language Models* (2023): what large models remember word
#   for word.
# - Karpathy's *nanochat*: the run and the miniseries quoted here.
