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
# # 06 Midtraining
#
# A base model is not an assistant that waits to be woken. It continues documents, and that is all it does. Ask it a
# question and it writes what might stand below that question on a page: often another question.
#
# What it needs is not more knowledge. It needs the *shape* of a conversation: who speaks, when to stop, how to pick
# an option, how to call a tool. This lesson turns all of that into tokens, mixes it in measured shares, packs it into
# rows, and trains the base model of lesson 05 on it. On the way you will watch the model lose nearly everything it
# knew, in a few dozen steps, and see what keeps it.
#
# *About 90 minutes, five exercises. It needs the base model of lesson 05.*

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
import re
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from nanochat.course import plots
from nanochat.data import BestFitPad, World, chat_loader
from nanochat.data.packing import Document, lot, write_rows
from nanochat.engine import Engine
from nanochat.evals import evaluate_completion, evaluate_task
from nanochat.runtime import pick_device, pick_dtype, world
from nanochat.tasks import load_task
from nanochat.tasks import split_calls as library_split_calls
from nanochat.tasks.real import choice_prompt as library_choice_prompt
from nanochat.train.chat_stage import mixture
from nanochat.train.checkpoint import load_model
from nanochat.train.launch import launch
from nanochat.train.optim import MuonAdamW

plots.style()

# %%
TOY = S.pretrain.data.source == "toy"
if S.machine.threads:
    torch.set_num_threads(S.machine.threads)
device = pick_device(S.machine.device)
dtype = pick_dtype(device) if device.type == "cuda" else torch.float32    # in which we generate


def engine_of(stage):
    """An engine with the model that a stage has left in this run."""
    model, tokenizer, _ = load_model(run, stage)
    return Engine(model, tokenizer, device=device, dtype=dtype)


base = engine_of("base")
tokenizer = base.tokenizer

# %% [markdown]
# ## It goes on
#
# Some questions. In the toy town the first is about a person whose questions and answers stood in the pretraining
# text, the second about one who appears there in plain statements only; sum and product are written nowhere in any
# training text.

# %%
if TOY:
    town = World(run.seed)
    asked, unasked = town.qa_people[0], town.heldout_people[0]
    (a, b), (c, d) = town.heldout_sums[900], town.heldout_products[700]
    questions = [f"Where does {asked} live?", f"Where does {unasked} live?", f"What is {a}+{b}?",
                 f"Use the calculator: what is {c}*{d}?"]
else:
    questions = ["What is the capital of France?", "Why is the sky blue?", "Who are you?",
                 "Ann has 3 boxes of 12 eggs. How many eggs has she?"]

# %%
def table(*rows):
    """Rows of strings as a table, the first row its head."""
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    display(Markdown("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])))


def go_on(engine, ids, most=30):
    """The likeliest continuation, special tokens shown by their names."""
    [[completion]] = engine.generate([ids], max_tokens=most, temperature=0)
    return f"`{tokenizer.decode(completion.ids)!r}`"

# %%
table(["a document that begins with", "goes on"],
      *([question, go_on(base, tokenizer.encode(question, bos=True))] for question in questions))

# %% [markdown]
# Fluent, and beside the point. Is the knowledge missing? Give it a page on which an answer has to come next.

# %%
pages = ([f"{asked} lives in", f"{unasked} lives in", f"Q: {questions[0]} A:", f"{a}+{b}="] if TOY else
         ["The capital of France is", "The sky is blue because", "3*12=", "My name is"])
table(["a page", "goes on"], *([page, go_on(base, tokenizer.encode(page, bos=True), 12)] for page in pages))

# %% [markdown]
# The facts are there (at smoke scale nothing is, its model has seen ten batches). What is missing is the step from a
# question to its answer, and the end: it talks until the page is full or the document over.
#
# ## A conversation is a document with brackets
#
# Lesson 02 gave a conversation its form: eight special tokens say who speaks, and a mask says which tokens the model
# learns to write. Here is one of the conversations this lesson trains on. Dark is learned, light is only read.

# %%
mix = mixture(S.midtrain.mixture, run, "train", run.seed)     # the stage's tasks, each with its share
chats = [task for task in mix.tasks if task.kind == "chat"]
ids, mask = tokenizer.render(chats[0][0], 128)
plots.show_mask(tokenizer, ids, mask)
print(f"{chats[0].name}: {len(ids)} tokens, {sum(mask)} learned")

# %% [markdown]
# To the base model these brackets are noise. Pretraining text holds `<|bos|>` and no other special token, so it
# learned just one thing about the other eight: they never come. Ask what follows a finished answer.

# %%
ids = tokenizer.render_for_completion({"messages": [{"role": "user", "content": questions[0]}]})
ids += tokenizer.encode("In Oslo." if TOY else "Paris.")
model, _, _ = load_model(run, "base")
with torch.no_grad():
    probs = model(torch.tensor([ids]))[0, -1].softmax(-1)     # (V,)
plots.show_top(tokenizer, probs, k=5)
print(f"<|assistant_end|> {probs[tokenizer.special['<|assistant_end|>']]:.1e}, "
      f"all eight {sum(probs[i] for name, i in tokenizer.special.items() if i != tokenizer.bos):.1e}")

# %% [markdown]
# A model that gives the end of an answer no chance never ends one. So much for what midtraining has to change; now to
# what it is made of. Two kinds of conversation need care: multiple choice and tools.
#
# ## Multiple choice
#
# A test question with four options is the commonest exam a language model sits. The answer is one letter, and one
# letter is one token, so no text needs to be generated: compare the letters' probabilities. But the model has to
# *bind* a letter to an option, and for a small one that is hard. Help it: let the letter in the prompt be **the same
# token** as the letter in the answer.
#
# **Predict before you run.** In which of these lines is the letter the token that the answer will use?

# %%
print("the answer:", tokenizer.encode("A"))
for line in ("A) Oslo", "- A) Oslo", "- Oslo: A", "- Oslo=A"):
    ids = tokenizer.encode(line)
    print(f"{line:<10}", "|".join(tokenizer.decode([i]) for i in ids), "  same token:", tokenizer.encode("A")[0] in ids)

# %% [markdown]
# A space before the letter may become part of its token, and ` A` and `A` have no more in common than any two rows
# of a matrix. At the start of a line the token is right, but the letter is read before its option is known. *Behind*
# the option, with no space, everything fits: by the time the model reads `A` it has read what `A` stands for.
#
# ---
# **Exercise 06.choice_prompt** · 2 points · ●○○ · about 3 lines · 5 min
#
# Write `choice_prompt(question, choices, letters)`, the text of a multiple-choice question: a line
# `Multiple Choice question: ` with the question, a line `- choice=LETTER` for each option, an empty line, and the
# line `Answer with the letter only.` No line end at the end. The letters are given: some data sets use three, or
# digits.
#
# ```
# >>> print(choice_prompt("Which is a fish?", ["Cat", "Cod"], ["A", "B"]))
# Multiple Choice question: Which is a fish?
# - Cat=A
# - Cod=B
#
# Answer with the letter only.
# ```
# <details><summary>Hint 1</summary><code>zip(choices, letters)</code> walks over both.</details>
# <details><summary>Hint 2</summary>Make the option lines first and join them with <code>"\n"</code>.</details>

# %% tags=["exercise:06.choice_prompt"]
def choice_prompt(question, choices, letters):
    """A multiple-choice question as the user asks it; each letter stands behind its choice."""
    raise NotImplementedError("06.choice_prompt")

# %% tags=["grade:06.choice_prompt"]
check("06.choice_prompt")

# %% tags=["use:06.choice_prompt"]
choice_prompt = use("06.choice_prompt")

# %%
options, letters = ["Oslo", "Lima", "Cairo", "Rome"], ["A", "B", "C", "D"]
prompt = choice_prompt("Where is the Colosseum?", options, letters)
print(prompt)
print("as the library's:", prompt == library_choice_prompt("Where is the Colosseum?", options, letters))

# %% [markdown]
# ## A call is a part of an answer
#
# The model cannot multiply two-digit numbers in its head, and it need not. It may write a call, and the engine writes
# the result behind it. What such answers look like in data was settled by GSM8K, a set of word problems whose
# solutions carry notes for a calculator. Between `<<` and `>>` stand the expression and its result, and one regular
# expression cuts them out:

# %% tags=["nbval-check-output"]
print(re.split(r"<<(.*?)>>", "so 3*12 = <<3*12=36>>36 eggs"))

# %% [markdown]
# In a conversation they become parts: the call, which the model learns to write, and the output, which it only reads.
#
# ---
# **Exercise 06.split_calls** · 3 points · ●●○ · about 12 lines · 15 min
#
# Write `split_calls(text)`. Text without a note comes back as it is, a string. Otherwise return the list of its
# parts, in order: `{"type": "text", "text": ...}` for what stands outside, `"python"` and `"python_output"` for
# the two sides of a note. A note is cut at its *last* `=` (the expression may hold `==`). There are no empty text
# parts.
#
# ```
# >>> split_calls("2*3 is <<2*3=6>>6.")
# [{'type': 'text', 'text': '2*3 is '}, {'type': 'python', 'text': '2*3'},
#  {'type': 'python_output', 'text': '6'}, {'type': 'text', 'text': '6.'}]
# ```
# <details><summary>Hint 1</summary>In the list above every second entry is the inside of a note. The others may be empty.</details>
# <details><summary>Hint 2</summary><code>"1==1=True".rpartition("=")</code> gives <code>("1==1", "=", "True")</code>.</details>

# %% tags=["exercise:06.split_calls"]
def split_calls(text):
    """Text with notes <<call=result>> as a list of parts; text without any stays a string."""
    raise NotImplementedError("06.split_calls")

# %% tags=["grade:06.split_calls"]
check("06.split_calls")

# %% tags=["use:06.split_calls"]
split_calls = use("06.split_calls")

# %%
solution = "That is <<34*57=1938>>1938."
parts = split_calls(solution)
ids, mask = tokenizer.render({"messages": [{"role": "user", "content": "How many eggs?"},
                                           {"role": "assistant", "content": parts}]}, 256)
plots.show_mask(tokenizer, ids, mask)
print("as the library's:", parts == library_split_calls(solution))

# %% [markdown]
# The outputs are light. If they were dark, the model would practise to *guess* what a calculator says, and that is
# the one thing it shall not do.

# %% [markdown]
# ## A mixture, by tokens
#
# These are the tasks of this stage and this scale. An item is a conversation, or a plain document.

# %%
def length(item):
    return len(tokenizer.render(item, S.pretrain.model.sequence_len + 1)[0])


lengths = {task.name: [length(task[i]) for i in range(min(200, len(task)))] for task in mix.tasks}
table(["task", "items", "tokens an item", "share wanted"],
      *([task.name, f"{len(task):,}", f"{np.mean(lengths[task.name]):.1f}", f"{share:.0%}"]
        for task, share in zip(mix.tasks, mix.shares)))

# %% [markdown]
# A share of what? Not of items: the loss sees tokens, and a long chat weighs as much as twenty short answers.
#
# **Predict before you run.** We draw items at random, with the wanted shares as probabilities. Which task ends up
# with more than its share of the tokens?

# %%
rng, names = np.random.default_rng(0), [task.name for task in mix.tasks]
spent, at_random = np.zeros(len(names)), []
for i in rng.choice(len(names), size=1000, p=mix.shares):
    spent[i] += rng.choice(lengths[names[i]])
    at_random.append(spent / spent.sum())                     # (tasks,) shares of the tokens so far
table(["task", "share wanted", "share of the tokens"],
      *([name, f"{share:.1%}", f"{got:.1%}"] for name, share, got in zip(names, mix.shares, at_random[-1])))

# %% [markdown]
# Whoever has the longest items takes most. The rule of this course needs no randomness at all: **always draw from the
# task that is furthest behind its share of the tokens drawn so far**, in tokens.
#
# ---
# **Exercise 06.next_task** · 3 points · ●●○ · about 3 lines · 10 min
#
# Write `next_task(shares, spent)`: `shares[i]` is what task *i* shall have of all tokens (they sum to 1), `spent[i]`
# the tokens it has had. Return the number of the task that is furthest behind, where behind means *share × all tokens
# − its own tokens*; of equal ones the first.
#
# ```
# >>> next_task([0.5, 0.25, 0.25], [10, 2, 8])        # they should have 10, 5 and 5
# 1
# ```
# <details><summary>Hint 1</summary>One number for each task, then the place of the largest.</details>
# <details><summary>Hint 2</summary><code>numbers.index(max(numbers))</code> is the first of the largest.</details>

# %% tags=["exercise:06.next_task"]
def next_task(shares, spent):
    """The number of the task furthest behind its share of the tokens."""
    raise NotImplementedError("06.next_task")

# %% tags=["grade:06.next_task"]
check("06.next_task")

# %% tags=["use:06.next_task"]
next_task = use("06.next_task")

# %%
walk, by_rule, same = mix.walk(), [], True
for _ in range(1000):
    mine = next_task(mix.shares, walk.spent)
    part, _, item = walk.draw()                    # the library's choice, and the item it drew
    walk.pay(part, length(item))
    same &= mine == part
    by_rule.append(np.array(walk.spent) / sum(walk.spent))
print("a thousand draws as the library's:", same)

# %%
def worst(shares):
    """How far the task that is furthest off is from its share."""
    return f"{np.abs(shares - mix.shares).max():.2%}"


table(["items drawn", "largest error at random", "largest error by the rule"],
      *([n, worst(at_random[n - 1]), worst(by_rule[n - 1])] for n in (1, 10, 100, 1000)))

# %% [markdown]
# The random stream settles down, at the wrong place. With the rule the error falls like one over the number of items,
# and it must: no task is ever in debt by more than about one long item, while the total grows.
#
# ## Rows
#
# The model reads rows of T tokens, and conversations are shorter. Lesson 05 filled its rows by *cutting* documents;
# half a story is still a story. Half an answer is not an answer: cut there and the model learns questions without
# one, and answers without their question. So here nothing is cut, and what does not fill up is padded.

# %%
T = S.pretrain.model.sequence_len
items = islice(mix.items(length), 400)
documents = [Document(None, *tokenizer.render(item, T + 1)) for item in items]        # key, ids, mask
sizes = [len(document.ids) for document in documents]
full = -(-sum(sizes) // (T + 1))                         # rows, if nothing were padded
print(f"{len(sizes)} items, {sum(sizes):,} tokens, rows of {T + 1}")
print(f"one item a row: {len(sizes)} rows, {1 - sum(sizes) / len(sizes) / (T + 1):.0%} padding")
print(f"all in one stream, cut at the end of each row: {full} rows, up to {full - 1} items cut in two")

# %% [markdown]
# Between these two lies a puzzle: which items go into a row together? *Best fit* is an old answer that is nearly
# always good enough: keep some items at hand, and take the longest that still fits, until none does.
#
# ---
# **Exercise 06.pack_row** · 3 points · ●●○ · about 8 lines · 15 min
#
# Write `pack_row(lengths, room)`: the items at hand have these lengths; the row has `room` tokens. Take the longest
# item that fits, then the longest that fits into what is left, and so on. Return the positions of the items in the
# order in which they were taken; of equal lengths the first goes first. `lengths` stays as it was.
#
# ```
# >>> pack_row([5, 9, 3, 5, 2], room=12)
# [1, 2]
# >>> pack_row([5, 9, 3, 5, 2], room=8)
# [0, 2]
# ```
# <details><summary>Hint 1</summary>A loop that ends when nothing fits. In each round: which of the items not yet taken fit, and which of them is the longest?</details>
# <details><summary>Hint 2</summary><code>max(fitting, key=lambda i: lengths[i])</code> returns the first of the longest if <code>fitting</code> is in order.</details>

# %% tags=["exercise:06.pack_row"]
def pack_row(lengths, room):
    """Positions of the items of one row, best fit: always the longest that still fits."""
    raise NotImplementedError("06.pack_row")

# %% tags=["grade:06.pack_row"]
check("06.pack_row")

# %% tags=["use:06.pack_row"]
pack_row = use("06.pack_row")

# %%
at_hand, rows = list(documents), []
while at_hand:
    taken = pack_row([len(document.ids) for document in at_hand], T + 1)
    rows.append([at_hand[i] for i in taken])
    at_hand = [document for i, document in enumerate(at_hand) if i not in set(taken)]
print(f"best fit: {len(rows)} rows, {1 - sum(sizes) / len(rows) / (T + 1):.1%} padding, no item cut")

# %%
packer, source = BestFitPad(T + 1, buffer=len(documents)), iter(documents)
library_rows = [packer.row(lambda: next(source, None)) for _ in rows]          # pieces (document, tokens taken)
print("the same rows as the library's:",
      [[document.ids for document, _ in row] for row in library_rows] == [[d.ids for d in row] for row in rows])

# %% [markdown]
# ## What is a target?
#
# One step is left, and it is the one where most hand-written chat trainers have had their bug. A row is a list of ids
# with a mask. The model reads tokens 0 … T−1 and at each position predicts the *next* one. So the target at position
# t is the id at t + 1, and whether it counts is said by the mask **of that same token**, at t + 1. Where it does not
# count, the target is −1.
#
# ---
# **Exercise 06.lay_out** · 3 points · ●●● · about 10 lines · 15 min
#
# Write `lay_out(pieces, capacity, pad)`: `pieces` is a list of `(ids, mask)` that fit into a row of `capacity`
# tokens. Lay them one behind the other, fill up with `pad`, and return `(inputs, targets)`, two numpy arrays of
# int64 with `capacity - 1` entries each. A target is −1 where the next token has mask 0 or is padding.
#
# ```
# >>> lay_out([([9, 1, 2], [0, 0, 1]), ([9, 3], [0, 1])], capacity=7, pad=9)
# (array([ 9,  1,  2,  9,  3,  9]), array([-1,  2, -1,  3, -1, -1]))
# ```
# <details><summary>Hint 1</summary>Two arrays of <code>capacity</code> entries, ids (full of <code>pad</code>) and mask (full of 0). Shift at the very end.</details>
# <details><summary>Hint 2</summary><code>np.where(mask[1:], ids[1:], -1)</code></details>

# %% tags=["exercise:06.lay_out"]
def lay_out(pieces, capacity, pad):
    """One packed row as (inputs, targets), (capacity - 1,) int64 each; target -1 is ignored by the loss."""
    raise NotImplementedError("06.lay_out")

# %% tags=["grade:06.lay_out"]
check("06.lay_out")

# %% tags=["use:06.lay_out"]
lay_out = use("06.lay_out")

# %% [markdown]
# In which order do the pieces of a row lie? Best fit hands out the longest first. If rows were laid out like that, none
# would begin with a short piece, while every prompt stands at the start of its row and is short. So the library draws
# lots: it sorts the pieces by a checksum, which is as good as chance and needs no memory.

# %%
some = range(0, len(rows), max(1, len(rows) // 24))                  # two dozen rows from all over
by_lot = [[d for d, _ in sorted(((d, len(d.ids)) for d in rows[i]), key=lot)] for i in some]
laid = [lay_out([(d.ids, d.mask) for d in row], T + 1, tokenizer.bos) for row in by_lot]
inputs, targets = (np.stack(arrays) for arrays in zip(*laid))        # (rows, T) each
theirs = write_rows([library_rows[i] for i in some], T + 1, tokenizer.bos)
print("as the library's:", np.array_equal(inputs, theirs[0]) and np.array_equal(targets, theirs[1]))

# %%
used = np.array([sum(len(d.ids) for d in rows[i]) for i in some])    # tokens of each row that are no padding
shade = np.where(targets >= 0, 1.0, np.where(np.arange(T) < used[:, None], 0.3, 0.0))      # (rows, T)
fig, ax = plt.subplots(figsize=(5, 2))
plots.heatmap(ax, shade, title="dark: learned   light: read   white: padding")
ax.set(xlabel="position", ylabel="row")
plt.show()
print(f"{(shade == 1).mean():.0%} learned, {(shade == 0.3).mean():.0%} read, {(shade == 0).mean():.1%} padding")

# %% [markdown]
# Each dark run is an answer or a document; the light stretches before them are questions. Whoever trains on all
# tokens spends the light part on learning to *ask*, which nobody needs.
#
# ## The wrong turn: only chats
#
# Look at the shares once more. Part of this stage is old text, the kind the base model was pretrained on. Why go over
# it again? The model knows it, conversations are what is new, and training on them alone must be quicker.
#
# Let us try, twice: a few dozen steps on the mixture, and the same without the old text. Every few steps we ask how
# much of the old knowledge is left: facts to be completed, and sums in the format of pretraining.
#
# **Predict before you run.** Nothing in the conversations contradicts what the model knew. After as many steps, how
# many of the facts has the model without old text kept?

# %%
def short_midtraining(shares, marks, exams, rows=8):
    """Train a copy of the base model on `shares`; at the steps in `marks` -> [(step, accuracy, …)]."""
    model, _, _ = load_model(run, "base")
    model.to(device).compute_dtype = pick_dtype(device, S.machine.dtype)
    optimizer, examiner = MuonAdamW(model, S.midtrain.optim, world(S.machine.device)), Engine(model, tokenizer)
    loader, kept = chat_loader(mixture(shares, run, "train", run.seed), tokenizer, rows=rows, sequence_len=T), []
    for step in range(max(marks) + 1):
        if step in marks:
            examiner.refresh(model)
            kept.append((step, *(evaluate_completion(examiner, exam, max_items=60)["accuracy"] for exam in exams)))
        inputs, targets = (torch.from_numpy(array).to(device) for array in loader.next())      # (rows, T) each
        model(inputs, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return kept

# %%
forgetting = {}
if TOY:
    old_knowledge = [load_task(name, "test", world_folder=run / "data") for name in ("toy-cloze", "toy-addition")]
    steps = min(40, S.midtrain.schedule.steps // 2)
    marks = sorted({0, steps // 8, steps // 4, steps // 2, steps})
    only_chats = [share for share in S.midtrain.mixture if share.task not in ("toy-facts", "toy-sums")]
    for name, shares in (("with old text", S.midtrain.mixture), ("only chats", only_chats)):
        forgetting[name] = short_midtraining(shares, marks, old_knowledge)
        step, facts, sums = forgetting[name][-1]
        print(f"{name:<13} after {step} steps: facts {facts:.0%}, sums {sums:.0%} (before: "
              f"{forgetting[name][0][1]:.0%}, {forgetting[name][0][2]:.0%})")
else:
    print("This experiment needs the toy world: the base model of this scale is too large to train twice for a picture.")

# %%
if forgetting:
    fig, ax = plt.subplots(figsize=(3.8, 1.8))
    for (name, kept), colour in zip(forgetting.items(), plots.COLOURS):
        for column, what, dash in ((1, "facts", "-"), (2, "sums", ":")):
            ax.plot([row[0] for row in kept], [row[column] for row in kept], dash, color=colour)
            ax.annotate(f"{what}, {name}", (kept[-1][0], kept[-1][column]), xytext=(4, 4 if column == 1 else -4), va="center",
                        textcoords="offset points", color=colour, fontsize=8)
    ax.set(xlabel="step", ylabel="still right", ylim=(-0.05, 1.1), xlim=(0, 1.8 * marks[-1]))
    plt.show()

# %% [markdown]
# Both lose at first: the learning rate starts high again, and the weights are shaken. With old text the loss of
# knowledge slows down, and as the rate falls over the whole stage it comes back. Without old text the curves go to
# the floor. Nothing *told* the model that the town has changed. The same weights are pulled elsewhere, and nothing
# pulls them back.
#
# This is *catastrophic forgetting*, and the remedy is called *replay*: keep some of the old data in the mixture.
# (When this course was designed, one stage of 250 steps without replay left 5 % of the facts and no sum; with it, all
# facts and 92 % of the sums.)
#
# ## The stage
#
# Now the real thing, through the library: `train/midtrain.py` is a few lines around `chat_stage`, which makes the
# mixture, the loader you have just rebuilt, and hands both to the training loop of lesson 05. The optimizer starts
# afresh and the learning rate at its full height: this is the stage where things change.

# %%
schedule = S.midtrain.schedule
print(f"{schedule.steps} steps of {S.midtrain.rows} × {T} tokens; {schedule.warmup} steps of warm-up, "
      f"flat until {schedule.flat:.0%}, then down to {schedule.final:.0%}; all rates × {schedule.scale}")

# %%
del model
if device.type == "cuda":
    del base                                       # leave the memory to the stage
    torch.cuda.empty_cache()
with plots.LossPlot(run, "mid") as live:
    result = launch("midtrain", S.midtrain, run, S.machine, live=live)
print({name: round(value, 3) for name, value in result.items()})

# %% [markdown]
# Bits per byte on the right count learned tokens only, on conversations held out; they cannot be compared with the
# base model's, which count everything. Where the loss falls in a step instead of a slope, something was *found*. When
# this course was designed that was copying the question's numbers into the call: a sixth of the calculator questions
# right at step 166, nearly all at step 332.
#
# ## Before and after

# %%
base, mid = engine_of("base"), engine_of("mid")
chat = {question: tokenizer.render_for_completion({"messages": [{"role": "user", "content": question}]})
        for question in questions}
table(["question", "base", "mid"], *([q, go_on(base, ids), go_on(mid, ids)] for q, ids in chat.items()))

# %% [markdown]
# The answer comes, it ends, and where a calculator is asked for it is called. Read what stands between
# `<|output_start|>` and `<|output_end|>` with care: the model did not write that.
#
# Four transcripts prove nothing. Here is the exam of this scale, with what guessing would give.

# %%
if TOY:
    exams = {"qa_seen_acc": "toy-qa-seen", "qa_heldout_acc": "toy-qa-heldout", "tool_acc": "toy-tool",
             "cloze_acc": "toy-cloze", "addition_acc": "toy-addition"}
else:
    exams = {"arc_easy_acc": "arc-easy", "mmlu_acc": "mmlu", "gsm8k_acc": "gsm8k"}


def sit(engine, name):
    """The accuracy card of an exam: of continued text or of answers in a chat, as the task is."""
    task = load_task(name, "test", world_folder=run / "data")
    judge = evaluate_completion if task.kind == "text" else evaluate_task
    return judge(engine, task, max_items=min(S.evals.max_items or 500, 500))      # lesson 07 asks everything

# %%
cards = {stage: {key: sit(engine, name) for key, name in exams.items()} for stage, engine in (("base", base), ("mid", mid))}
table(["exam", "items", "guessing", "base", "mid"],
      *([key, card["n"], f"{card['chance']:.1%}", f"{cards['base'][key]['accuracy']:.1%}", f"{card['accuracy']:.1%}"]
        for key, card in cards["mid"].items()))

# %%
accuracies = {key: card["accuracy"] for key, card in cards["mid"].items()}
run.record("mid", {"val_bpb": result["val_bpb"], **accuracies},
           chance={key: card["chance"] for key, card in cards["mid"].items()})

# %% [markdown]
# At toy scale `qa_heldout_acc` is the number to look at. These people occur in *no* question of any training set, and
# yet their questions are answered: what was read in plain statements has become available in a chat. Midtraining did
# not put knowledge in. It opened a door to it.
#
# One detail decides about that door. The answers in the data do not repeat the name: `In Oslo.`, not
# `Juvika lives in Oslo.` With the name in them, held-out people got no more than one right answer in twenty when
# we tried it, though everything else stayed the same. Probably because their names had never been *targets* in an
# answer: the model would not say there what it had never been made to say.

# %% [markdown]
# ## What changes on eight H100s
#
# The code does not. The mixture is real (SmolTalk's conversations, MMLU's questions, GSM8K's calls), rows are longer,
# and `launch` starts a process for each GPU. There is no old text in it: these conversations are about everything, as
# the web is, and four kinds of sentences about a town are not. Whether they suffice as replay is an empirical
# question; CORE before and after would answer it.

# %%
def facts(scale):
    m, c = scale.midtrain, scale.pretrain.model.sequence_len
    tasks = ", ".join(f"{share.task} {share.share:g}" for share in m.mixture)
    return [tasks, f"{m.rows * c:,}", f"{m.schedule.steps:,}", f"{m.schedule.steps * m.rows * c:,}"]


scales, labels = course.load().scales, ["mixture (shares)", "tokens a step", "steps", "tokens"]
known = ["SmolTalk 460K, MMLU 100K, GSM8K 8K conversations", "524,288", "about 770", "about 0.4 billion"]
big = facts(scales["speedrun"]) if "speedrun" in scales else known
table(["", S.name, "speedrun"], *zip(labels, facts(S), big))

# %%
published = {"ARC-Easy": (0.25, 0.3561), "ARC-Challenge": (0.25, 0.2875), "MMLU": (0.25, 0.3111), "GSM8K": (0, 0.0250),
             "HumanEval": (0, 0.0671)}
table(["exam", "guessing", "nanochat, 561 M parameters, after midtraining"],
      *([name, f"{chance:.0%}", f"{value:.1%}"] for name, (chance, value) in published.items()))

# %% [markdown]
# The second table is nanochat's first published speedrun (October 2025; about eight minutes of midtraining on eight
# H100s). It trained on all tokens, users' included. A later version brought the mask back, and the author reports
# ChatCORE .315 → .355. Look at the column for guessing before you look at the other.
#
# ## Summary
#
# - A base model knows and does not answer. It lacks a form, and eight tokens it has never seen.
# - Letters stand behind their options, so that one token means one thing. Calls and their results are parts; results
#   are read, not learned.
# - Shares are shares of tokens; draw from the task furthest behind. Pack whole items by best fit, pad the rest.
# - A target is the next token, and the mask is the *target's*. Shift once, at the end.
# - Narrow new data alone wipes out the old. Replay keeps it.
#
# You can open `nanochat/tasks/`, `nanochat/data/mixture.py` and `packing.py`, and `nanochat/train/chat_stage.py` now;
# there is nothing in them that you have not built.
#
# ## Questions
#
# 1. A conversation longer than T + 1 tokens is truncated when it is rendered. What does the model learn from it, and
#    what from one that is dropped instead?
# 2. Rows hold several conversations, and attention runs across them. What could the second learn from the first? Why
#    does it hardly matter?
# 3. The furthest-behind rule with shares of *items* would be one line shorter. Which runs of this course would it
#    break?
# 4. Mask 1 on the tool's output: what would the exam `tool_acc` say, and what would a user notice?
# 5. Replay is a third of this mixture. How would you find out how little is enough?
#
# ## Further reading
#
# - McCloskey, Cohen, *Catastrophic Interference in Connectionist Networks* (1989); French, *Catastrophic Forgetting
#   in Connectionist Networks* (1999).
# - Ibrahim et al., *Simple and Scalable Strategies to Continually Pre-train Large Language Models* (2024): rewarming
#   and replay.
# - Robinson, Rytting, Wingate, *Leveraging Large Language Models for Multiple Choice Question Answering* (2023):
#   binding letters.
# - Cobbe et al., *Training Verifiers to Solve Math Word Problems* (2021): GSM8K and its calculator notes.
# - Schick et al., *Toolformer* (2023): calls that a model learns to place itself.
# - Allal et al., *SmolLM2* (2025): SmolTalk, and a midtraining stage of their own.
# - Krell et al., *Efficient Sequence Packing without Cross-contamination* (2021).
