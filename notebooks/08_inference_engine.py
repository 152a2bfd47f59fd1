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
# # 08 The inference engine
#
# Training happens once; running the model happens for every word that anybody reads. And there the obvious program is the
# wrong one: it reads the whole conversation again for each token, throws nearly all of that work away, and keeps a machine
# that could serve sixty people busy with one.
#
# The engine is what stands between a trained network and an answer: a memory of what was read, a way to choose, room for
# many at once, a calculator, fewer bits. You build each part by hand, and each is a page of `nanochat/engine/`.
#
# *About two hours, five exercises. It needs the SFT model of lesson 07.*

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
import time
from collections import deque

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from nanochat.course import plots
from nanochat.data.toyworld import World
from nanochat.engine import Engine, KVCache, Reader, row_keys, uniforms
from nanochat.model import GPTConfig
from nanochat.model.attention import apply_rope
from nanochat.model.precision import rms_norm
from nanochat.runtime import pick_device
from nanochat.sandbox import calculate
from nanochat.train.checkpoint import load_model

plots.style()

# %%
if S.machine.threads:
    torch.set_num_threads(S.machine.threads)
device = pick_device(S.machine.device)
trained, tokenizer, _ = load_model(run, "sft")
model = trained.inference_copy(torch.float32).to(device)     # fp32 here, so that equal means equal
config = model.config
print(f"{model.num_params():,} parameters, {config.n_layer} layers, {config.n_head} heads of {config.head_dim}, "
      f"context {config.sequence_len}")

# %% [markdown]
# A question, in the chat format of lesson 02, up to the token that opens the assistant's turn.

# %%
TOY = S.pretrain.data.source == "toy"
world = World(run.seed)
name = world.people[0]
question = f"Where does {name} live?" if TOY else "Why is the sky blue?"

def ask(text):
    return tokenizer.render_for_completion({"messages": [{"role": "user", "content": text}]})

prompt = ask(question)
print(len(prompt), "ids:", "|".join(tokenizer.decode([i]) for i in prompt))

# %% [markdown]
# ## The obvious program
#
# A model maps ids to logits, one row for each position, and the last row says what comes next. So: read, take the best,
# append, read again.

# %%
@torch.inference_mode()
def decode_plain(model, ids, n):
    """`ids` and n more, each the likeliest; everything is read anew for every one."""
    ids = list(ids)
    for _ in range(n):
        logits = model(torch.tensor([ids], device=device))     # (1, T, V), of which we use the last row
        ids.append(int(logits[0, -1].argmax()))
    return ids

plain = decode_plain(model, prompt, 8)
print("|".join(tokenizer.decode([i]) for i in plain[len(prompt):]))

# %% [markdown]
# It works. What does it cost? Let us time one step behind texts of growing length.
#
# **Predict before you run.** The text gets twice as long. Does a step take the same time, twice the time, or four times?

# %%
@torch.inference_mode()
def best_ms(work, *arguments, times=5, **more):
    """Milliseconds of the quickest of some runs of work(...): what it takes when nothing disturbs it."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work(*arguments, **more)
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent)

# %%
lengths = [config.sequence_len * n // 8 for n in (1, 2, 4, 8, 16, 32)]      # beyond the context: we watch the clock
texts = [torch.randint(0, 256, (1, T), device=device) for T in lengths]
plain_ms = [best_ms(model, idx) for idx in texts]
for T, ms in zip(lengths, plain_ms):
    print(f"{T:6} tokens read  {ms:8.2f} ms for the next one")

# %% [markdown]
# A step has a fixed price, which hides it at first; then time grows with length. The n-th token costs about n, and a whole
# answer 1 + 2 + … + n, which is n²/2: **twice the answer, four times the work**.

# %% [markdown]
# ## What is done twice
#
# Attention is causal: a token sees itself and what stands before it. So whatever the model computed for the first ten
# tokens cannot change when an eleventh arrives.

# %%
with torch.inference_mode():
    short = model.hidden(torch.tensor([plain[:-1]], device=device))         # (1, T, C)
    longer = model.hidden(torch.tensor([plain], device=device))             # (1, T + 1, C)
difference = (longer[:, :-1] - short).abs().max().item()
size = short.abs().mean().item()
print(f"one more token changes the states before it by {difference:.1e}; they are about {size:.1f}")

# %% [markdown]
# Nothing but rounding, if anything: it was all computed again for nothing.
#
# What does the eleventh token need of it? In each layer it brings a **query**, asks the **keys** of the tokens before it, and
# takes home a mixture of their **values**. Their own queries have been answered. So keep the keys and values of every
# layer, and a new token costs one token. That store is the KV cache.
#
# A key is rotated by its position (lesson 03) and kept *after* the rotation, so it is never touched again. The token at
# position p lives in slot p.

# %%
def turn(x, position):
    """Heads x (H, D) of the token at `position`: rotated, then normalised, as in the model."""
    return rms_norm(apply_rope(x, model.cos[position], model.sin[position]))

# %% [markdown]
# ---
# **Exercise 08.kv_step** · 4 points · ●●● · about 5 lines · 20 min
#
# Write `kv_step(q, k, v, keys, values, length, turn)`: the attention of one new token in one layer. `q`, `k`, `v` are (H, D),
# not yet turned. `keys` and `values` are (H, max_len, D); their slots 0 … length − 1 are filled. The new token stands at
# position `length`: turn what must be turned, fill its slot in place, and return what attention gives it, (H, D). Scores are
# divided by √D. What lies in later slots must not matter.
#
# ```
# >>> keys, values = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
# >>> kv_step(q, k, torch.tensor([[3., 4.]]), keys, values, 0, turn)      # the first token sees itself alone
# tensor([[3., 4.]])
# ```
# <details><summary>Hint 1</summary>A token also sees itself. So its own key goes in first, and then how many slots are in use?</details>
# <details><summary>Hint 2</summary>With S = length + 1: scores are <code>(keys[:, :S] @ q.unsqueeze(-1)).squeeze(-1)</code>, (H, S); the values are weighted by their softmax.</details>

# %% tags=["exercise:08.kv_step"]
def kv_step(q, k, v, keys, values, length, turn):
    """Attention of one new token over a cache: q, k, v (H, D), keys, values (H, max_len, D) -> (H, D)."""
    raise NotImplementedError("08.kv_step")

# %% tags=["grade:08.kv_step"]
check("08.kv_step")

# %% tags=["use:08.kv_step"]
kv_step = use("08.kv_step")

# %% [markdown]
# With that step the whole network, for one token, fits on a card. (With grouped-query attention several heads share a key;
# by hand we copy it for each of them.)

# %%
@torch.inference_mode()
def read_token(model, token, keys, values, length):
    """One token through all layers: logits (V,). keys, values (n_layer, H, max_len, D)."""
    heads, share = (-1, model.config.head_dim), model.config.n_head // model.config.n_kv_head
    x = rms_norm(model.wte(torch.tensor(token, device=device)))              # (C,)
    for layer, block in enumerate(model.blocks):
        a, h = block.attn, rms_norm(x)
        q, k, v = a.c_q(h).view(heads), a.c_k(h).view(heads), a.c_v(h).view(heads)
        k, v = k.repeat_interleave(share, 0), v.repeat_interleave(share, 0)  # (H, D)
        y = kv_step(q, k, v, keys[layer], values[layer], length, turn)       # (H, D)
        x = x + a.c_proj(y.flatten())
        x = x + block.mlp(rms_norm(x))
    return model.head(rms_norm(x))

# %%
def decode_cached(model, ids, n):
    """The same ids as decode_plain; each token is read once."""
    c = model.config
    keys, values = torch.zeros(2, c.n_layer, c.n_head, len(ids) + n, c.head_dim, device=device)
    for length, token in enumerate(ids):                                     # the prompt, token by token
        logits = read_token(model, token, keys, values, length)
    ids = list(ids)
    for _ in range(n):
        ids.append(int(logits.argmax()))
        logits = read_token(model, ids[-1], keys, values, len(ids) - 1)
    return ids

T, n = len(prompt), 8
if S.pretrain.model.arch == "seed":                              # the speedrun's layers hold more than this card
    print("the same ids:", decode_cached(model, prompt, n) == plain)
print(f"tokens read: {sum(range(T, T + n))} without the cache, {T + n} with it")

# %% [markdown]
# ## Is that what the library does?
#
# `nanochat/engine/cache.py` does this for a batch. The model asks the cache for positions, writes keys and values, and gets
# back everything so far with a mask; it never advances the cache, which is the engine's business. So one call can read one
# token or a thousand.

# %%
cache = KVCache(config, rows=1, max_len=len(plain), device=device)
with torch.inference_mode():
    first = model(torch.tensor([prompt], device=device), cache=cache)        # the prompt at once: (1, T, V)
    cache.advance(len(prompt))
    one = model(torch.tensor([[plain[len(prompt)]]], device=device), cache=cache)       # one more: (1, 1, V)
    whole = model(torch.tensor([plain[:len(prompt) + 1]], device=device))
print(f"prompt {tuple(first.shape)}, next token {tuple(one.shape)}, largest difference to reading it all: "
      f"{(one[0, -1] - whole[0, -1]).abs().max().item():.1e}")

# %%
cached_ms = []
for idx in texts:
    cache = KVCache(config, 1, idx.size(1) + 1, device)
    with torch.inference_mode():
        model.hidden(idx, cache)
    cache.advance(idx.size(1))
    cached_ms.append(best_ms(model, idx[:, -1:], cache=cache, times=20))

# %%
fig, axes = plt.subplots(1, 2, figsize=(5, 1.8))
grid = np.arange(1, lengths[-1])
for label, ms in (("read it all", plain_ms), ("KV cache", cached_ms)):
    axes[0].plot(lengths, ms, marker="o", markersize=3)
    axes[1].plot(grid, np.interp(grid, lengths, ms).cumsum() / 1000)
    axes[0].annotate(label, (lengths[-1], ms[-1]), xytext=(-12, 3), textcoords="offset points", ha="right", fontsize=8)
axes[0].set(xlabel="tokens so far", ylabel="ms", title="the next token")
axes[1].set(xlabel="tokens written", ylabel="s", title="all of them together")
plt.show()
print(f"at {lengths[-1]} tokens: {plain_ms[-1] / cached_ms[-1]:.0f} times as quick a step")

# %% [markdown]
# Left, a sloping line and a flat one; right, their sums, a parabola and a straight line. (Not quite flat: each step still
# looks at every key. But that is a small part of the work.)

# %% [markdown]
# ## Two kinds of work
#
# The prompt can be read in one call, as in training. The answer cannot: each token must be known before the next. These
# two, **prefill** and **decode**, meet different limits of the machine.

# %%
length = config.sequence_len - 1
idx = torch.randint(0, 256, (1, length), device=device)
cache = KVCache(config, 1, length + 1, device)
prefill_ms = best_ms(model.hidden, idx, KVCache(config, 1, length, device))
with torch.inference_mode():
    model.hidden(idx, cache)
cache.advance(length)
decode_ms = best_ms(model, idx[:, -1:], cache=cache, times=20)
print(f"prefill  {length} tokens in {prefill_ms:.1f} ms: {1000 * length / prefill_ms:,.0f} tokens a second")
print(f"decode   one token in {decode_ms:.2f} ms: {1000 / decode_ms:,.0f} tokens a second")

# %% [markdown]
# To multiply one vector by a matrix, the processor fetches every weight from memory and uses it once. For a hundred vectors it
# fetches the same weights and uses each a hundred times. Prefill is limited by arithmetic, decode by memory (and, for a
# model as small as the toy, by the price of starting each operation). Two cures follow: use a fetch for more than one
# row, and make what is fetched smaller.
#
# The cache takes memory too: in every layer a key and a value for each key head.

# %%
def cache_bytes(config, tokens, bytes_each=2):
    """Memory of keys and values for so many tokens, in bytes (2 bytes each for bf16)."""
    return 2 * config.n_layer * config.n_kv_head * config.head_dim * bytes_each * tokens

full = cache_bytes(config, config.sequence_len) / 1e6
print(f"this model: {cache_bytes(config, 1):,} bytes a token, {full:.2f} MB for a full context; "
      f"its weights in bf16 are {2 * model.num_params() / 1e6:.2f} MB")

# %% [markdown]
# That is what grouped-query attention is for: a quarter of the key heads, a quarter of the cache.

# %% [markdown]
# ## From scores to a token
#
# The network ends with a score for every token. The obvious thing to do with them is: take the best, always. That is *greedy*
# decoding, and for a question with one right answer it is what you want. Let us see what it makes of an empty page.

# %%
engine = Engine(model, tokenizer, dtype=torch.float32)

def write(beginning, **settings):
    """A document that begins like this, written by the engine; no chat, no tools."""
    ids = tokenizer.encode(beginning, bos=True)
    [[answer]] = engine.generate([ids], max_tokens=config.sequence_len - len(ids), tools=False, **settings)
    return beginning + answer.text

beginning = "The" if TOY else "Once upon a time"
print(write(beginning, temperature=0))

# %% [markdown]
# Round in circles, sooner or later: the classic failure of greedy decoding. With one sentence in view the likeliest next one is the same
# again, and the more often it stands there the likelier it becomes. Nothing breaks the circle, as only the first in rank is
# ever taken. Training asked for *probabilities*, and here we throw them away. So draw instead.

# %%
for seed in range(2):
    print(write(beginning, temperature=1.0, seed=seed)[:150], "\n")

# %% [markdown]
# The same network, the same scores. How does one draw? Lay the probabilities side by side on a line from 0 to 1: a
# staircase of running sums. Pick a number u on that line. The token on whose step it falls is the token.

# %%
logits = torch.tensor([1.0, 0.2, 2.0, -0.5, 1.2])
fig, axes = plt.subplots(1, 3, figsize=(4.6, 1.4), sharey=True)
for ax, temperature in zip(axes, (0.3, 1.0, 5.0)):
    sums = (logits / temperature).softmax(-1).cumsum(-1)
    below = torch.cat((torch.zeros(1), sums[:-1]))
    ax.bar(range(5), sums - below, bottom=below, color=plots.COLOURS[0])
    ax.axhline(0.35, color=plots.COLOURS[1], linestyle="--")
    ax.set(title=f"temperature {temperature}", xticks=[], ylim=(0, 1))
axes[0].annotate("u", (4.4, 0.37), color=plots.COLOURS[1])
plt.show()

# %% [markdown]
# The heights are the probabilities; the same u hits another token when they change. **Temperature** divides the scores before
# they become probabilities: below 1 the tall steps eat the short ones, above 1 all become alike. **Top-k** removes every
# step but the k tallest: ten thousand tokens, each nearly impossible, are together not impossible at all.
#
# ---
# **Exercise 08.sample** · 3 points · ●●○ · about 6 lines · 15 min
#
# Write `sample(logits, temperature, top_k, u)`: the id, an int, that the number `u` in [0, 1) stands for. Temperature 0 means
# the largest logit. Keep the `top_k` largest logits (all of them if it is `None`, or larger than the vocabulary) *before* you
# make probabilities.
#
# ```
# >>> logits = torch.tensor([0., 0., 0., 0.])
# >>> [sample(logits, 1.0, None, u) for u in (0.0, 0.3, 0.6, 0.9)]
# [0, 1, 2, 3]
# ```
# <details><summary>Hint 1</summary>Which logit makes softmax give exactly zero? The k-th largest value is the last of <code>logits.topk(k).values</code>.</details>
# <details><summary>Hint 2</summary><code>cumsum</code> makes the staircase. The step on which u falls is the number of sums that are ≤ u.</details>

# %% tags=["exercise:08.sample"]
def sample(logits, temperature, top_k, u):
    """The id that the number u in [0, 1) stands for, of logits (V,)."""
    raise NotImplementedError("08.sample")

# %% tags=["grade:08.sample"]
check("08.sample")

# %% tags=["use:08.sample"]
sample = use("08.sample")

# %%
print("the four, at temperature 1, 1,000 numbers:")
logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
draws = [sample(logits, 1.0, None, (i + 0.5) / 1000) for i in range(1000)]
print([draws.count(i) for i in range(4)], "for probabilities", [f"{p:.3f}" for p in logits.softmax(-1).tolist()])
print("top_k 2:", sorted({sample(logits, 1.0, 2, (i + 0.5) / 1000) for i in range(1000)}))

# %% [markdown]
# Evenly spread numbers give each token its exact share: no luck is involved until we choose u at random.
#
# The library adds **top-p**: of the tokens in order of probability, keep the smallest set that holds a share p. Top-k keeps as
# many where the model is sure as where it is lost; top-p adapts. Here it is at work on two steps of one sentence.

# %%
sentence = tokenizer.encode(f"{name} lives in" if TOY else "The capital of France is", bos=True)
with torch.inference_mode():
    steps = model(torch.tensor([sentence], device=device))[0].softmax(-1)       # (T, V)
for at in (0, len(sentence) - 1):
    ordered = steps[at].sort(descending=True).values.cumsum(0)
    held = [f"{int((ordered < p).sum()) + 1}" for p in (0.5, 0.9, 0.99)]
    print(f"after {tokenizer.decode(sentence[at:at + 1])!r:>10}: {' / '.join(held)} tokens hold 50 / 90 / 99 %")

# %% [markdown]
# ## Many at once
#
# Once the weights have come from memory, a second row costs next to nothing. Let us ask more and more questions together.
#
# **Predict before you run.** With 64 rows instead of one, how many times as many tokens a second?

# %%
questions = [q["question"] for q in world.questions()[:64]]
prompts = [ask(q if TOY else f"What is {n} plus {7 * n}?") for n, q in enumerate(questions)]
rows, speed = [1, 2, 4, 8, 16, 32, 64], []
for n in rows:
    start = time.perf_counter()
    answers = engine.generate(prompts[:n], max_tokens=16, temperature=0)
    speed.append(sum(len(answer.ids) for [answer] in answers) / (time.perf_counter() - start))

# %%
fig, ax = plt.subplots(figsize=(2.7, 1.6))
ax.plot(rows, speed, marker="o")
ax.plot(rows, [speed[0] * n for n in rows], color=plots.GREY)
ax.annotate("if rows were free", (rows[3], speed[0] * rows[3]), xytext=(-4, 4), textcoords="offset points",
            ha="right", fontsize=8)
ax.set(xscale="log", yscale="log", xlabel="rows in the batch", ylabel="tokens a second")
plt.show()
print(f"{speed[-1] / speed[0]:.1f} times as many tokens a second with {rows[-1]} rows")
run.record("engine", {"prefill_tok_per_s": 1000 * length / prefill_ms, "decode_tok_per_s": speed[0],
                      "batch_tok_per_s": speed[-1]})

# %% [markdown]
# The curve leaves the grey line where arithmetic becomes the limit. This is why a service wants your question to share a batch
# with strangers'.
#
# Sharing raises two problems. The first: prompts differ in length. Short ones are padded on the right, and every row keeps its own
# length. A new token at position p sees slots 0 … p and no other; that one rule also hides the padding.

# %%
three = sorted(prompts[:20], key=len)[::9]                                     # three prompts of different length
cache = KVCache(config, rows=3, max_len=len(three[-1]) + 4, device=device)
cache.lengths = torch.tensor([len(ids) for ids in three])
positions = cache.positions(1).cpu()                                          # (3, 1): where each row's next token goes
visible = torch.arange(cache.longest + 1) <= positions                        # (3, S)
fig, ax = plt.subplots(figsize=(4, 1.1))
plots.heatmap(ax, visible, rows=[f"row {i}" for i in range(3)], title="slots that each row's next token sees (dark)")
plt.show()
print("positions of the next token:", positions.flatten().tolist())

# %% [markdown]
# The second problem is luck. A random generator hands out numbers in the order in which it is asked. Put someone else in the
# batch and everybody's numbers change:

# %%
shared = torch.Generator().manual_seed(0)
print("row B, with A before it:", torch.rand(2, generator=shared)[1].item())
shared = torch.Generator().manual_seed(0)
print("row B, alone:           ", torch.rand(1, generator=shared)[0].item())

# %% [markdown]
# Then no answer could be repeated, no bug reproduced, no run of lesson 09 resumed. In `sampling.py` a row's number is instead
# *computed* from what the row is: seed, prompt, number of the sample, position. That is why our `sample` takes u and not a
# generator.

# %%
keys = row_keys(0, prompts[:3], [0, 0, 0])                                     # one 64-bit key a row
print("three rows:   ", uniforms(keys, position=5).round(4))
print("the last two: ", uniforms(keys[1:], position=5).round(4))
together = [answer.text for [answer] in engine.generate(prompts[:12], max_tokens=16, temperature=1.0)]
alone = [engine.generate([ids], max_tokens=16, temperature=1.0)[0][0].text for ids in prompts[:12]]
print("answers together are the answers alone:", together == alone)

# %% [markdown]
# ## Words in the model's mouth
#
# Our model cannot multiply. In lessons 06 and 07 it learned to ask: `<|python_start|>34*57<|python_end|>`. The engine watches
# the tokens go by, and when a call is complete it runs it and *forces* the next ones: output_start, the result, output_end.
# The model reads them as if it had written them.
#
# ---
# **Exercise 08.tool_step** · 3 points · ●●○ · about 9 lines · 15 min
#
# Write `tool_step(state, token, tokenizer, tool)`, called for every token that the model itself chose. `state["call"]` is the list
# of ids since python_start, `None` outside of a call; `state["forced"]` is a deque of ids that must come next.
#
# - python_start begins a call (also inside of one: it begins anew);
# - python_end of an open call closes it: hand its text to `tool`, a function from text to text. If it returns `None` force
#   nothing, else output_start, the ids of the result, output_end. Without an open call python_end means nothing;
# - any other token belongs to the open call, if there is one.
#
# `tokenizer.special` maps names such as `"<|python_start|>"` to ids; `tokenizer.encode(text)` and `.decode(ids)` do the rest.
# <details><summary>Hint 1</summary>Three branches in this order: start, end of an open call, inside of an open call.</details>
# <details><summary>Hint 2</summary><code>None</code> and the empty string are different: ask <code>is not None</code>.</details>

# %% tags=["exercise:08.tool_step"]
def tool_step(state, token, tokenizer, tool):
    """Tell a row's tool loop that the model chose `token`: changes `state` in place."""
    raise NotImplementedError("08.tool_step")

# %% tags=["grade:08.tool_step"]
check("08.tool_step")

# %% tags=["use:08.tool_step"]
tool_step = use("08.tool_step")

# %% [markdown]
# Watch it with a model that is nothing but a script: it "chooses" these ids one after the other.

# %% tags=["nbval-check-output"]
script = [tokenizer.special["<|python_start|>"], *tokenizer.encode("34*57"), tokenizer.special["<|python_end|>"]]
state = {"call": None, "forced": deque()}
for token in script:
    tool_step(state, token, tokenizer, calculate)
    call_open, forced = state["call"] is not None, tokenizer.decode(state["forced"])
    print(f"{tokenizer.decode([token]):<16} call {call_open!s:<6} forced {forced!r}")

# %% [markdown]
# Now the real one. This is the engine's loop for one row, cache, choice and tool together:

# %%
@torch.inference_mode()
def answer(ids, max_tokens, temperature=0.0, seed=0):
    """-> (ids of an answer, mask): mask is 0 for the tokens that the tool forced."""
    state, out, mask, key = {"call": None, "forced": deque()}, [], [], row_keys(seed, [ids], [0])
    cache = KVCache(config, 1, len(ids) + max_tokens, device)
    new = ids                                                                  # first the whole prompt: prefill
    while len(out) < max_tokens and (not out or out[-1] != tokenizer.special["<|assistant_end|>"]):
        logits = model.head(model.hidden(torch.tensor([new], device=device), cache)[0, -1])       # (V,)
        cache.advance(len(new))
        forced, u = bool(state["forced"]), uniforms(key, len(out))[0]
        token = state["forced"].popleft() if forced else sample(logits.cpu(), temperature, None, u)
        if not forced:
            tool_step(state, token, tokenizer, calculate)
        out, mask, new = [*out, token], [*mask, int(not forced)], [token]      # then one token at a time: decode
    return out, mask

# %%
sum_prompt = ask("Use the calculator: what is 34*57?")
out, mask = answer(sum_prompt, min(40, config.sequence_len - len(sum_prompt)))
plots.show_mask(tokenizer, out, mask)
[[theirs]] = engine.generate([sum_prompt], max_tokens=len(out), temperature=0)
print("as the engine:", (theirs.ids, theirs.mask) == (out, mask))

# %% [markdown]
# Dark tokens were chosen by the model, light ones put in by the tool. The mask matters beyond the picture: in lesson 09 the model
# is rewarded for its own choices, and must not take credit for the calculator's.
#
# What a model writes is untrusted input. Python's `eval` would run a calculation, and anything else as well. `calculate` parses
# the text and walks the tree itself; it knows numbers and a few operations, and refuses what would take for ever *before*
# it starts.

# %% tags=["nbval-check-output"]
for call in ("34*57", "1,000 + 2.50", "'strawberry'.count('r')", "9**9**9", "__import__('os').listdir()", "two + two"):
    print(f"{call:<28} {calculate(call)}")

# %% [markdown]
# ## Letters, as they come
#
# Nobody waits for a whole answer; it is shown as it grows. The obvious way is to decode each token when it arrives.

# %% tags=["nbval-check-output"]
ids = tokenizer.encode("안 😉")
print("token by token:", "".join(tokenizer.decode([i]) for i in ids))
reader = Reader(tokenizer)
print("with a reader: ", [reader.feed(i) for i in ids])

# %% [markdown]
# A token is a piece of *bytes* (lesson 01), and a character may be spread over several. `Reader` holds bytes back until they
# are a character; it also hides special tokens and keeps calls apart from words. `engine.stream` is a cache, a sampler, a
# tool loop and a reader: nothing you have not seen.

# %%
stream = engine.stream(prompt, max_tokens=12, temperature=0)
print([piece for piece in stream])

# %% [markdown]
# `engine.py` adds two economies: equal prompts are read once and their cache is copied for every sample, and rows that have
# ended leave the batch. Open the folder: you know every line.

# %% [markdown]
# ## Fewer bits
#
# Decode waits for weights. With one byte a weight instead of four it would wait a quarter of the time. So take the largest weight
# of a row, call it 127, and round the others on that scale.
#
# ---
# **Exercise 08.quantize** · 3 points · ●●○ · about 5 lines · 15 min
#
# Write `quantize(weight, bits=8)`: two tensors, whole numbers of dtype `torch.int8` in the shape of `weight` (n_out, n_in), and a
# `scale` (n_out, 1), so that `whole * scale` is as close to `weight` as possible. In each row the largest weight (by size) becomes
# ±(2^(bits − 1) − 1), which is ±127 for 8 bits. A row of zeros stays zero, and its scale must not be zero.
#
# ```
# >>> quantize(torch.tensor([[0.5, -2.0, 1.0]]))
# (tensor([[  32, -127,   64]], dtype=torch.int8), tensor([[0.0157]]))
# ```
# <details><summary>Hint 1</summary><code>weight.abs().amax(dim=1, keepdim=True)</code> is the largest of each row. For a row of zeros, any scale but zero will do.</details>
# <details><summary>Hint 2</summary><code>.to(torch.int8)</code> cuts off what is behind the point; <code>.round()</code> goes first.</details>

# %% tags=["exercise:08.quantize"]
def quantize(weight, bits=8):
    """Whole numbers int8 (n_out, n_in) and a scale (n_out, 1) a row; their product is close to `weight`."""
    raise NotImplementedError("08.quantize")

# %% tags=["grade:08.quantize"]
check("08.quantize")

# %% tags=["use:08.quantize"]
quantize = use("08.quantize")

# %% [markdown]
# First one matrix: the queries of the first layer.

# %%
weight = model.blocks[0].attn.c_q.weight.detach()                              # (C, C)
whole, scale = quantize(weight)
back = whole * scale
print(f"{weight.numel() * 4:,} bytes become {whole.numel() + scale.numel() * 4:,}")
print(f"the weights are off by {((back - weight).norm() / weight.norm()).item():.2%}, "
      f"the queries of a random input by ", end="")
x = torch.randn(64, weight.size(1), device=device)
print(f"{((x @ (back - weight).T).norm() / (x @ weight.T).norm()).item():.2%}")

# %% [markdown]
# Now every matrix, and not only with 8 bits. What counts is what the model says, so we let it read answers and compare its
# predictions with those of the fp32 model: how often is its first choice another?
#
# **Predict before you run.** At how many bits does it stop being the same model?

# %%
@torch.inference_mode()
def rounded(model, bits):
    """A copy whose matrices went through `bits` bits (the embedding is only looked up: it stays)."""
    copy = model.inference_copy(torch.float32)
    for name, weight in copy.named_parameters():
        if name != "wte.weight" and weight.ndim == 2:
            whole, scale = quantize(weight, bits)
            weight.copy_(whole * scale)
    return copy

def first_choices(model, texts):
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([ids], device=device))[0].argmax(-1) for ids in texts])

# %%
answered = engine.generate(prompts[:24], max_tokens=16, temperature=0)
texts_read = [ids + answer.ids for ids, [answer] in zip(prompts, answered)]
exact, widths = first_choices(model, texts_read), [8, 6, 5, 4, 3, 2]
changed = [(first_choices(rounded(model, bits), texts_read) != exact).float().mean().item() for bits in widths]
print("first choices that changed:")
for bits, share in zip(widths, changed):
    print(f"{bits} bits  {share:6.1%}  {'█' * round(40 * share)}")

# %% [markdown]
# Eight bits are as good as free; at the other end nothing is left of the model. Large models are served with 8 or 4 bits a
# weight as a matter of course. The scale *per row* helps: with one scale for a matrix, a single large weight decides how
# coarse all others become.

# %%
single = weight.abs().max() / 127
coarse = (weight / single).round() * single
for label, approx in (("a scale for each row", back), ("one for the matrix", coarse)):
    print(f"{label:<22} off by {((approx - weight).norm() / weight.norm()).item():.2%}")

# %% [markdown]
# The opposite waste is easily built by accident: weights kept in fp32 and *cast* to bf16 at each use. In training that is right,
# for the optimizer needs the precision. At inference it means fetching four bytes, writing two and fetching them again, for
# every token. `inference_copy` stores them once in the type they are used in.

# %%
kept, stored = (trained.inference_copy(kind).to(device) for kind in (torch.float32, torch.bfloat16))
kept.compute_dtype = torch.bfloat16                                            # fp32 weights, cast at every use
for label, variant in (("cast at every token", kept), ("stored in bf16", stored)):
    cache = KVCache(config, 1, 8, device, torch.bfloat16)
    print(f"{label:<20} {best_ms(variant.hidden, idx[:, -1:], cache, times=20):.2f} ms a token")

# %% [markdown]
# ## Guess and check
#
# Reading five tokens takes hardly longer than reading one. So let something cheap *guess* the next four, and let the model read
# them in one call: it says at each place what it would have chosen, and guesses are kept as long as they agree. This is
# **speculative decoding**: the same text, fewer calls.
#
# ---
# **Exercise 08.accept** · 2 points · ●●○ · about 4 lines · 10 min
#
# Write `accept(draft, best)`: the list of ids to keep. `draft` holds k guesses, `best` k + 1 ids: `best[i]` is the model's own
# choice after the first i guesses. Even if all guesses were wrong, one new id is gained.
#
# ```
# >>> accept([7, 8, 9], [7, 8, 5, 1])
# [7, 8, 5]
# ```
# <details><summary>Hint 1</summary>After the first wrong guess the model has read a text that will not be: what it says there is worthless.</details>
# <details><summary>Hint 2</summary>Count the guesses that are right from the beginning. The answer is a beginning of <code>best</code>.</details>

# %% tags=["exercise:08.accept"]
def accept(draft, best):
    """The ids to keep: right guesses up to the first wrong one, and the model's own choice after them."""
    raise NotImplementedError("08.accept")

# %% tags=["grade:08.accept"]
check("08.accept")

# %% tags=["use:08.accept"]
accept = use("08.accept")

# %% [markdown]
# Who guesses? Usually a small model of the same family. Here something cheaper: look for the last time these two ids stood
# side by side, and guess that history repeats itself. (No cache in this cell, for brevity; count the calls.)

# %%
def look_up(ids, k=4):
    """At most k ids that followed the last two ids when they stood side by side before."""
    for at in range(len(ids) - 3, -1, -1):
        if ids[at:at + 2] == ids[-2:]:
            return ids[at + 2:at + 2 + k]
    return []

@torch.inference_mode()
def decode_guessing(model, ids, n):
    """As decode_plain, and how often the model was called."""
    end, ids, calls = len(ids) + n, list(ids), 0
    while len(ids) < end:
        draft = look_up(ids)
        logits = model(torch.tensor([ids + draft], device=device))[0, len(ids) - 1:]      # (k + 1, V)
        ids, calls = ids + accept(draft, logits.argmax(-1).tolist()), calls + 1
    return ids[:end], calls

# %%
circles = tokenizer.encode(beginning, bos=True)
for label, ids, n in (("a question", prompt, 8), ("going in circles", circles, config.sequence_len // 2)):
    guessed, calls = decode_guessing(model, ids, n)
    print(f"{label:<18} {n:3} ids in {calls:3} calls; the same ids: {guessed == decode_plain(model, ids, n)}")

# %% [markdown]
# The text is the same by construction, whoever guesses; how much is gained depends on how predictable it is. With sampling the
# rule is a little longer (keep a guess with probability min(1, p/q)), and the distribution is again exactly the model's.

# %% [markdown]
# ## The model as an operating system
#
# Step back. A processor that takes one step at a time. A fast, small memory for what matters now: the context, with the KV cache
# as its contents. A disk that it sees only where something is copied into the context: files, the web. Devices it drives by
# writing: a calculator, Python. A scheduler that shares it between users.
#
# The problems are those of operating systems too. What to evict when memory is full (we drop the oldest turns). How not to
# waste memory on rows of different length: cut the cache into *pages* that rows take as they grow, and share those of equal
# beginnings. Ours is one block a batch, and `take` copies it when rows leave; a large server pages. Guessing ahead is this
# machine's branch prediction.

# %% [markdown]
# ## What changes on eight H100s
#
# The code stays; the proportions change. A step can be no quicker than memory bandwidth allows: weights once, and every row's
# cache.

# %%
scales = course.load().scales
big = GPTConfig.from_depth(20, 65_536, 2_048)     # nanochat's first speedrun, by its repository
if "speedrun" in scales:
    m, vocab = scales["speedrun"].pretrain.model, scales["speedrun"].tokenizer.vocab_size
    big = GPTConfig.from_depth(m.depth, vocab, m.sequence_len, m.n_embd, m.head_dim, m.n_kv_head)
H100 = 3.35e12                                    # bytes a second, NVIDIA's data sheet (SXM)

def column(c):
    """One model's column: its matrices (all but the embedding) and full caches, in bf16."""
    layer = 10 * c.n_embd**2 + 2 * c.n_embd * c.n_kv_head * c.head_dim        # q and projection 2, MLP 8; keys, values
    weights, full = 2 * (c.n_layer * layer + c.vocab_size * c.n_embd), cache_bytes(c, c.sequence_len)
    return [f"{weights / 1e6:,.1f} MB", f"{cache_bytes(c, 1) / 1e3:,.1f} kB", f"{full / 1e6:,.2f} MB",
            *(f"{n * H100 / (weights + n * full):,.0f}" for n in (1, 64))]

# %%
rows_shown = ["weights read at each step, bf16", "KV cache a token", "KV cache of a full context",
              "tokens a second at most, one H100, 1 row", "the same, 64 rows"]
table = [f"| | this model | {'speedrun' if 'speedrun' in scales else 'depth 20'} |", "|---|--:|--:|"]
table += [f"| {what} | {a} | {b} |" for what, a, b in zip(rows_shown, column(config), column(big))]
display(Markdown("\n".join(table)))

# %% [markdown]
# Ceilings are bandwidth divided by bytes, nothing else. For the toy they are fiction: the price of starting each operation is the
# limit long before. For the large model they are what an engine is measured against; with 64 full rows, most of what is
# fetched is no longer weights.

# %% [markdown]
# ## Summary
#
# - Without a cache the n-th token costs n; with keys and values kept, it costs one.
# - Decode waits for memory. Batching reuses each fetch, quantisation makes it smaller, speculation reads several tokens in one.
# - The network scores, the engine chooses. Temperature and top-k act before the probabilities are made.
# - A row's luck belongs to the row: computed from (seed, prompt, sample, position), not handed out in turn.
# - A tool is a state machine that forces tokens. What the model writes is untrusted: parse, never `eval`.
#
# ## Questions
#
# 1. In `kv_step`, turn every key and query by one position too many. Which case fails, and why do the answers stay the same?
# 2. Why may padding stand on the right in prefill, although attention then computes rubbish there?
# 3. Temperature 0.01 and temperature 0 differ in one situation. Which?
# 4. What would `accept` have to return if guesses were checked against *sampled* choices with the same u?
#
# ## Further reading
#
# - Pope et al., *Efficiently Scaling Transformer Inference* (2022): prefill, decode, and where the time goes.
# - Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need* (2019); Ainslie et al., *GQA* (2023): smaller caches.
# - Holtzman et al., *The Curious Case of Neural Text Degeneration* (2020): why greedy text loops, and top-p.
# - Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3* (2011): numbers that are computed and not handed out.
# - Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention* (2023): the cache in pages.
# - Dettmers et al., *LLM.int8()* (2022); Frantar et al., *GPTQ* (2023): eight bits and four.
# - Leviathan, Kalman, Matias, *Fast Inference from Transformers via Speculative Decoding* (2023): the rule with p and q.
