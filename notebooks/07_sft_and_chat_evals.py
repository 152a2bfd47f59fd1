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
# # 07 SFT and chat evals
#
# Training the last stage of a chat model takes minutes. Finding out whether it got better takes the rest of the day,
# and most claims that a model improved would not survive an honest error bar.
#
# So this lesson is short on training and long on measuring. First supervised finetuning, SFT: the loss on the
# assistant's words, by hand, and a gentle stage through the library. Then five kinds of exam: exact answers, letters,
# numbers, programs, many tries. For each you will see how it is scored, what guessing would score, and how it can
# fool you. One way of scoring lets the answer rewrite our own `math` module, on the screen, and another lets five wrong
# answers pass.
#
# *About two hours, seven exercises. It needs the midtrained model of lesson 06.*

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
import json
import math
import re               # noqa: F401  for your own functions
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from nanochat.course import plots
from nanochat.data import chat_loader
from nanochat.engine import Engine
from nanochat.evals import chatcore, evaluate_completion, evaluate_task, pass_at_k
from nanochat.runtime import pick_device, pick_dtype
from nanochat.sandbox import run_code, run_tests, sandbox_level
from nanochat.tasks import load_task, tool_results
from nanochat.tasks.real import final_number
from nanochat.train.chat_stage import mixture
from nanochat.train.checkpoint import load_model
from nanochat.train.launch import launch

plots.style()

# %%
TOY = S.pretrain.data.source == "toy"
if S.machine.threads:
    torch.set_num_threads(S.machine.threads)
device = pick_device(S.machine.device)
dtype = pick_dtype(device) if device.type == "cuda" else torch.float32    # in which we generate
T = S.pretrain.model.sequence_len
model, tokenizer, _ = load_model(run, "mid")
model = model.to(device)

# %%
def engine_of(stage):
    """An engine with the model that a stage has left in this run."""
    return Engine(load_model(run, stage)[0], tokenizer, device=device, dtype=dtype)


def load(name):
    """A task's test split, from this run's world or from the hub."""
    return load_task(name, "test", world_folder=run / "data")


def table(*rows):
    """Rows of cells as a table, the first row its head."""
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    display(Markdown("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])))

# %% [markdown]
# ## The loss, once more, by hand
#
# The model gives logits for every position; a target says which token should come, or −1 where nobody asks. The loss
# is the mean of −log p(target) **over the positions that count**. That last clause is the whole difference to
# pretraining.
#
# ---
# **Exercise 07.masked_loss** · 3 points · ●●○ · about 4 lines · 10 min
#
# Write `masked_loss(logits, targets)`: `logits` is (B, T, V), `targets` is (B, T) with −1 where a position does not
# count (at least one does). Return the mean of −log p(target) over all positions of the batch that count, each
# weighing the same. Use tensor operations, but not `cross_entropy` or `nll_loss`.
#
# ```
# >>> logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]])        # (1, 2, 2)
# >>> masked_loss(logits, torch.tensor([[-1, 1]]))                     # -log(3/4)
# tensor(0.2877)
# ```
# <details><summary>Hint 1</summary>Choose the positions first: <code>logits[targets >= 0]</code> is (N, V), and <code>targets[targets >= 0]</code> is (N,).</details>
# <details><summary>Hint 2</summary><code>log_softmax(-1)</code> does not overflow where <code>exp</code> would. Row i, column target i: <code>x[torch.arange(N), t]</code>.</details>

# %% tags=["exercise:07.masked_loss"]
def masked_loss(logits, targets):
    """Mean of -log p(target) over the positions whose target is not -1."""
    raise NotImplementedError("07.masked_loss")

# %% tags=["grade:07.masked_loss"]
check("07.masked_loss")

# %% tags=["use:07.masked_loss"]
masked_loss = use("07.masked_loss")

# %%
mix = mixture(S.sft.mixture, run, "train", run.seed)                            # the stage's tasks and their shares
chats = [task for task in mix.tasks if task.kind == "chat"]
loader = chat_loader(mix, tokenizer, rows=4, sequence_len=T)
inputs, targets = (torch.from_numpy(array).to(device) for array in loader.next())          # (4, T) each
with torch.no_grad():
    mine, library = masked_loss(model(inputs), targets), model(inputs, targets)
print(f"by hand {mine:.4f}, the library's {library:.4f}; {(targets >= 0).float().mean():.0%} of the positions count")

# %% [markdown]
# What do the other positions look like? **Predict before you run.** For each token of a conversation, how surprised
# is the midtrained model: where are the high bars, in the question or in the answer?

# %%
def surprise(ids):
    """-log p of each token but the first, in nats: (n - 1,) on the CPU."""
    idx = torch.tensor([ids], device=device)
    with torch.no_grad():
        return model(idx[:, :-1], idx[:, 1:], reduction="none")[0].cpu()


ids, mask = tokenizer.render(chats[0][7], 48)
nats = surprise(ids)
fig, ax = plt.subplots(figsize=(5, 1.8))
ax.bar(range(len(nats)), nats, color=[plots.COLOURS[0] if m else plots.COLOURS[1] for m in mask[1:]])
ax.set_xticks(range(len(nats)), [plots.piece(tokenizer, i) for i in ids[1:]], rotation=90, fontsize=6)
ax.axhline(math.log(tokenizer.vocab_size), color=plots.GREY, linestyle="--")
ax.set(ylabel="nats", title="dark: counts   light: does not   dashed: guessing evenly")
plt.show()

# %% [markdown]
# On the user's words the model does *worse* than a guess that is even over the whole vocabulary. Questions are not
# that hard. Since the mask was put on nobody has asked the model for them, and those predictions have drifted
# wherever it was convenient.
#
# And if we did ask? How good could it get?

# %%
print(f"one of {len(chats[0]):,} questions: {math.log(len(chats[0])):.1f} nats at least; its answer, given the question: 0.0")

# %% [markdown]
# Nobody can know *which* person the user will ask about. That surprise is there for ever, and without a mask it is
# nearly all that is left in the loss: most of the gradient would pull the weights towards guessing questions.
#
# ## A gentle stage
#
# Midtraining changed the model's habits at full learning rate. SFT shows it the best demonstrations once more, fewer,
# at a fraction of the rate, falling from the first step on. Not because small steps learn better; because nothing is
# to be shaken loose any more.

# %%
def stage_facts(c):
    s = c.schedule
    return [f"{s.steps:,}", f"{s.steps * c.rows * T:,}", f"× {s.scale:g}", f"{s.flat:.0%}", f"{s.final:g}"]


labels = ["steps", "tokens", "all learning rates", "flat for", "down to"]
table(["", "midtraining", "SFT"], *zip(labels, stage_facts(S.midtrain), stage_facts(S.sft)))

# %%
tokens = S.sft.schedule.steps * S.sft.rows * T
rows = []
for task, share in zip(mix.tasks, mix.shares):
    lengths = [len(tokenizer.render(task[i], T + 1)[0]) for i in range(min(100, len(task)))]
    rows.append([task.name, f"{share:.0%}", f"{len(task):,}", f"{tokens * share / (len(task) * np.mean(lengths)):.1f}"])
table(["task", "share of tokens", "items", "times each is seen, at most"], *rows)

# %% [markdown]
# Small sets are seen many times, and a high rate would learn them by heart. Now the stage. It is the same
# `chat_stage` as in lesson 06, with another name, another parent and this configuration; `train/sft.py` has one line
# of code.

# %%
model = inputs = targets = None                    # leave the memory to the stage
if device.type == "cuda":
    torch.cuda.empty_cache()
with plots.LossPlot(run, "sft") as live:
    result = launch("sft", S.sft, run, S.machine, live=live)
print({name: round(value, 3) for name, value in result.items()})

# %% [markdown]
# The curve is flat beside the one of midtraining. What has changed, then? Look at a task where the demonstrations
# disagree: at toy scale products, which are answered through the calculator in some of them and directly, wrong as it
# may be, in the others. We sample each question several times, at temperature 1.

# %%
mid, sft = engine_of("mid"), engine_of("sft")
task = load("toy-free" if TOY else "gsm8k")
TRIES, ITEMS = 16, min(S.evals.max_items or 40, 40 if TOY else 16)
prompts = [tokenizer.render_for_completion(task.prompt(i)) for i in range(ITEMS)]


def sampled(engine):
    """TRIES answers to each of the first ITEMS questions."""
    return engine.generate(prompts, num_samples=TRIES, max_tokens=task.max_tokens, temperature=1.0, seed=run.seed)

# %%
groups = {"mid": sampled(mid), "sft": sampled(sft)}                   # stage: (ITEMS, TRIES) completions
for stage, answers in groups.items():
    calls = np.mean([[bool(tool_results(sample)) for sample in group] for group in answers])
    right = np.mean([[task.check(task[i], sample) for sample in group] for i, group in enumerate(answers)])
    print(f"{stage}: {calls:.0%} of the answers use the tool, {right:.0%} are right")

# %%
shown = load_task(task.name, "train", world_folder=run / "data")
few = range(0, len(shown), max(1, len(shown) // 2000))
print(f"of the demonstrations {np.mean([bool(tool_results(shown[i]['messages'][-1]['content'])) for i in few]):.0%} do")

# %% [markdown]
# SFT imitates. It keeps both ways, in a proportion not far from the one it was shown (where the question *names* the
# calculator every demonstration calls, and that pulls it up a little), and it has no means to learn that one of two
# ways is better: both are called right answers. To prefer the way that *works*, a model has to hear which of its own
# answers were right. Keep these percentages in mind; lesson 09 begins with them.
#
# ## How sure is an accuracy?
#
# Back to measuring. The simplest exam has exact answers: generate greedily, compare. A card says how it went, and the
# log holds every single answer. Read logs. Most of what is wrong with an evaluation can be seen in ten of its lines.

# %%
log = run / "sft" / "evals" / f"{task.name}.jsonl"
card = evaluate_task(sft, task, max_items=S.evals.max_items if TOY else 64, log=log)
print(card)
records = [json.loads(line) for line in log.read_text().splitlines()]
for record in [r for r in records if not r["correct"]][:2]:
    print(f"\n{record['why']}:\n  {record['prompt'][-60:]!r}\n  → {record['completion'][:80]!r}")

# %% [markdown]
# An accuracy from n items is a sample. The usual ± (`p ± 1.96·√(p(1−p)/n)`) has a flaw just where small models
# live: at 0 of 30 it says *exactly zero, no doubt*. Wilson's interval asks a better question: **for which true rates
# p would our result not be surprising**, that is, not more than z standard deviations of *p* away? Solving |p̂ − p| ≤
# z·√(p(1−p)/n) for p gives
#
# $$\frac{1}{1+z^2/n}\left(\hat p+\frac{z^2}{2n}\;\pm\;z\sqrt{\frac{\hat p(1-\hat p)}{n}+\frac{z^2}{4n^2}}\right)$$
#
# ---
# **Exercise 07.wilson** · 2 points · ●●○ · about 6 lines · 10 min
#
# Write `wilson(correct, n, z=1.96)`, which returns the pair (low, high) of this formula. With no items at all
# nothing is known: `(0, 1)`. Keep both ends inside [0, 1].
#
# ```
# >>> wilson(0, 30)
# (0.0, 0.1135...)
# >>> wilson(84, 100)
# (0.7558..., 0.8990...)
# ```
# <details><summary>Hint 1</summary>Compute the middle and the half-width by themselves, each divided by 1 + z²/n.</details>
# <details><summary>Hint 2</summary>Rounding may put an end at −1e−17: <code>max(0.0, ...)</code>, <code>min(1.0, ...)</code>.</details>

# %% tags=["exercise:07.wilson"]
def wilson(correct, n, z=1.96):
    """(low, high): the rates for which `correct` of `n` is no surprise."""
    raise NotImplementedError("07.wilson")

# %% tags=["grade:07.wilson"]
check("07.wilson")

# %% tags=["use:07.wilson"]
wilson = use("07.wilson")

# %%
table(["right", "of", "accuracy", "95 % interval"],
      *([c, n, f"{c / n:.0%}", "{:.1%} … {:.1%}".format(*wilson(c, n))]
        for c, n in ((0, 30), (3, 10), (30, 100), (300, 1000), (card["correct"], card["n"]))))

# %% [markdown]
# To halve an interval takes four times the items. Two models ten points apart cannot be told from each other with
# thirty.
#
# ## Letters
#
# Multiple choice needs no generation. Lesson 06 made the letter of each option a single token; so read the prompt up
# to `<|assistant_start|>`, look at the logits of what would come next, and compare **the letters only**. Many prompts
# go through at once, padded on the right to equal length: the last *prompt* token stands somewhere else in each row.
#
# ---
# **Exercise 07.choose_letters** · 3 points · ●●○ · about 5 lines · 12 min
#
# Write `choose_letters(logits, lengths, letter_ids)`: `logits` is (B, T, V) for B padded prompts, `lengths[b]` the
# number of tokens of prompt b, `letter_ids[b]` a list of the token ids of its letters (not always four). Return a
# list: for each prompt the *place* of its best letter in `letter_ids[b]`.
#
# ```
# >>> logits = torch.zeros(1, 3, 10); logits[0, 1, 7] = 2.0; logits[0, 1, 3] = 9.0
# >>> choose_letters(logits, [2], [[6, 7, 8]])        # token 3 is no letter; position 2 is padding
# [1]
# ```
# <details><summary>Hint 1</summary>The position that predicts the answer is <code>lengths[b] - 1</code>.</details>
# <details><summary>Hint 2</summary><code>logits[b, t, letter_ids[b]]</code> picks several columns at once; then <code>argmax</code>.</details>

# %% tags=["exercise:07.choose_letters"]
def choose_letters(logits, lengths, letter_ids):
    """For each prompt the place of the letter with the largest logit behind its last token."""
    raise NotImplementedError("07.choose_letters")

# %% tags=["grade:07.choose_letters"]
check("07.choose_letters")

# %% tags=["use:07.choose_letters"]
choose_letters = use("07.choose_letters")

# %%
@torch.inference_mode()
def sit_multiple_choice(engine, task, indices):
    """Which of these questions are answered rightly: a list of bools."""
    asked = [engine.tokenizer.render_for_completion(task.prompt(i)) for i in indices]
    lengths = [len(prompt) for prompt in asked]
    idx = torch.full((len(asked), max(lengths)), tokenizer.bos)                       # (B, T)
    for row, prompt in zip(idx, asked):
        row[:len(prompt)] = torch.tensor(prompt)
    letters = [task.letters(task[i]) for i in indices]
    letter_ids = [[tokenizer.encode(letter)[0] for letter in row] for row in letters]
    chosen = choose_letters(engine.model(idx.to(device)).cpu(), lengths, letter_ids)
    return [task.check(task[i], row[place]) for i, row, place in zip(indices, letters, chosen)]

# %%
exam = load("toy-choices" if TOY else "arc-easy")
number = min(len(exam), S.evals.max_items or 240, 240)
verdicts = []
for at in range(0, number, 16):
    verdicts += sit_multiple_choice(sft, exam, range(at, min(at + 16, number)))
theirs = evaluate_task(sft, exam, max_items=number)
print(f"{sum(verdicts)} of {number} right, the library counts {theirs['correct']}; guessing gives {exam.baseline:.0%} "
      "and the interval is {:.0%} … {:.0%}".format(*wilson(sum(verdicts), number)))

# %% [markdown]
# At toy scale that is *nothing*: the interval holds the score of guessing. The model knows where everybody lives and
# cannot find the letter for it. Its conversations never held such a question, and when we put some in, half of the
# mixture even, it still stayed at chance. Matching an option to a letter needs a larger model.
#
# Now watch how easily nothing becomes a result. The same answers, cut into slices of a dozen, as if each were the
# whole evaluation of another checkpoint.
#
# **Predict before you run.** How good is the best of them?

# %%
size = min(12, number)
slices = [sum(verdicts[at:at + size]) for at in range(0, number - size + 1, size)]
low, high = zip(*(wilson(c, size) for c in slices))
fig, ax = plt.subplots(figsize=(4.4, 1.8))
ax.vlines(range(len(slices)), low, high, color=plots.GREY, linewidth=2)
ax.plot(range(len(slices)), [c / size for c in slices], "o", color=plots.COLOURS[0], markersize=4)
ax.axhline(exam.baseline, color=plots.COLOURS[3], linestyle=":")
ax.set(ylim=(0, 1), xlabel="slice", ylabel="accuracy", xticks=[])
plt.show()
print(f"best slice {max(slices) / size:.0%}, worst {min(slices) / size:.0%}, all together {np.mean(verdicts):.0%}")

# %% [markdown]
# Whoever tries twenty variants on a dozen questions and reports the best has found a *variant of luck*. The bars
# would have said so: nearly all of them reach the dotted line.
#
# ## Numbers
#
# GSM8K's answers end in a line `#### 18`, and the score is whether the number there is the right one. Models end as
# they please: with a period, with a thousands comma, with no `####` at all.
#
# ---
# **Exercise 07.extract_answer** · 3 points · ●●○ · about 7 lines · 15 min
#
# Write `extract_answer(text)`: the final number of an answer, as a string. It is the first number behind the *last*
# `####`; where there is no `####` with a number behind it, the last number of the text. Commas between digits are
# dropped; a period that ends the sentence is not part of the number, a decimal part is; so is a minus sign. `None` if
# there is no number.
#
# ```
# >>> extract_answer("2 boxes hold 1,200 eggs.\n#### 1,200.")
# '1200'
# >>> extract_answer("That makes -3.5 degrees.")
# '-3.5'
# ```
# <details><summary>Hint 1</summary>One pattern for a number, used on the right piece of text. <code>text.rpartition("####")</code> finds the last mark.</details>
# <details><summary>Hint 2</summary><code>r"-?\d[\d,]*(?:\.\d+)?"</code></details>

# %% tags=["exercise:07.extract_answer"]
def extract_answer(text):
    """The final number of an answer as a string without commas, or None."""
    raise NotImplementedError("07.extract_answer")

# %% tags=["grade:07.extract_answer"]
check("07.extract_answer")

# %% tags=["use:07.extract_answer"]
extract_answer = use("07.extract_answer")

# %%
endings = ["#### 18", "#### 1,800", "#### 18.", "#### $18", "So she makes 18 dollars.", "I do not know."]
table(["answer ends", "yours", "the library's `final_number`"],
      *([f"`{text}`", extract_answer(text), final_number(text)] for text in endings))

# %% [markdown]
# They differ, and both are right. The library keeps the strict rule that published scores used, `#### 18.` counted
# as wrong and all, because a number that was measured with another ruler cannot stand beside theirs. Yours is kinder
# and tells more about the model. So a GSM8K card has both, `accuracy` and `flexible`, and the log says of an answer
# "right but for the way it is written". What must not happen is comparing one with the other.
#
# ## Programs: the wrong turn
#
# HumanEval asks for a Python function and judges it by running tests. Python can run Python; this seems to be five
# lines.

# %%
def judge_here(program):
    """Run an answer and its tests right here."""
    try:
        exec(program, {})                # noqa: S102  this is the wrong turn
        return True
    except Exception:                    # noqa: BLE001
        return False


tests = "import math\nassert root(9) == math.sqrt(9)\nassert root(16) == math.sqrt(16)\n"
right_answer = "def root(x):\n    return x ** 0.5\n"
wrong_answer = "def root(x):\n    return x / 2\n"
third_answer = "import math\nmath.sqrt = lambda x: 3\ndef root(x):\n    return 3\n"

# %%
keep = math.sqrt
for answer in (right_answer, wrong_answer, third_answer):
    print(judge_here(answer + tests), end="  ")
print("\nand the square root of 100, in this notebook, is now", math.sqrt(100))
math.sqrt = keep

# %% [markdown]
# The third answer is no function at all. It changed `math` instead, for the tests and for us, until we put it back. And
# it was a friendly one: `raise SystemExit` would have ended the kernel. A model does not write such things out of
# malice. It writes *everything*, and in reinforcement learning it is paid for whatever passes.
#
# So there are two rules. The first: **the answer runs in a process of its own, behind walls**.

# %%
constants = "assert root(9) == 3\nassert root(16) == 4\n"
for answer in (right_answer, wrong_answer, third_answer):
    outcome = run_code(answer + constants)
    print(f"{outcome.ok!s:<6} {outcome.why}")
print("the square root of 100 is", math.sqrt(100))

# %% [markdown]
# How high are the walls? Nothing inside Python is one: take `os.system` away, and a program imports `posix`. Only the
# kernel can refuse, and it needs no rights of ours to do so. `nanochat.sandbox.run_code` forks a helper that has Python
# ready; before the program begins, its process has no network, no privileges and an empty folder in memory. *Landlock*
# forbids all other files but Python's own, and *seccomp* about 140 system calls.
#
# **Predict before you run.** One of these nine is harmless. Which of the others get an error, which must be stopped?

# %%
programs = {
    "well-behaved": "print(6 * 7)",
    "endless loop": "while True: pass",
    "memory hog": "hog = []\nwhile True: hog.append(bytearray(10**7))",
    "flood": "while True: print('x' * 1000)",
    "breeder": "import os\nos.fork()",
    "burglar": "print(open('/etc/passwd').read())",
    "vandal": "open('../answers.txt', 'w').write('pass')",
    "caller": "import socket\nsocket.create_connection(('127.0.0.1', 80), timeout=1)",
    "rebel": "import os\nos.kill(os.getppid(), 0)",
}
rows = []
for name, program in programs.items():
    start = time.perf_counter()
    outcome = run_code(program, timeout=1.0)
    rows.append([name, outcome.ok, outcome.why[:60], f"{len(outcome.stdout):,}", f"{time.perf_counter() - start:.2f}"])
print("level of this system:", sandbox_level())
table(["program", "ok", "why not", "characters kept", "seconds"], *rows)

# %% [markdown]
# At level `strict` only the first is well: clock and limits stopped three, the kernel told five no. Where a system has
# fewer walls the sandbox says so, and `nanochat run --sandbox strict` refuses. Faults of the kernel itself it cannot stop.
#
# ## Who says that it passed?
#
# The program ended well, so the tests passed: HumanEval is usually judged so, by the exit code of answer plus tests. Read
# that again as an answer that is paid for passing.

# %%
answers_to_root = {
    "right": right_answer,
    "wrong": wrong_answer,
    "leaves at once": "import os\nos._exit(0)\n",
    "leaves when called": "def root(x):\n    raise SystemExit\n",
    "leaves when it fails": "import os, sys\nsys.excepthook = lambda *error: os._exit(0)\ndef root(x): return 0\n",
    "equals everything": "class Yes:\n    def __eq__(self, other): return True\ndef root(x): return Yes()\n",
    "keeps the code": "import atexit, os\natexit.register(os._exit, 0)\ndef root(x): return 0\n",
}
rows = []
for name, answer in answers_to_root.items():
    verdict = run_tests(answer, constants, functions=["root"])
    rows.append([name, "pass" if run_code(answer + constants).ok else "fail", "pass" if verdict.ok else "fail", verdict.why[:60]])
table(["answer", "by exit code", "by `run_tests`", "why not"], *rows)

# %% [markdown]
# No wall was touched. Answer and tests shared a process, and inside a process anything can be done in anybody's name. So
# the second rule: **the answer never shares a process with its judge.** `run_tests` starts two. In one the tests run,
# with a stub for `root` that writes its arguments into a pipe; in the other the answer reads them and writes back what
# its own `root` returns. The verdict is what the first one says after its last line.
#
# The pipe is the only door left, and an object that equals everything must not come through it. Only plain values cross,
# as data.
#
# ---
# **Exercise 07.plain** · 3 points · ●●○ · about 7 lines · 10 min
#
# Write `plain(value)`: True if it is None, a bool, an int, a float or a str, or a list, tuple or dict of plain values,
# at any depth; else False. Types are exact: an object of a *subclass* of int is no int. The value may lie about itself,
# so ask it nothing.
#
# ```
# >>> plain({"a": [1, (2.5, None)]}), plain([print])
# (True, False)
# ```
# <details><summary>Hint 1</summary><code>isinstance</code> believes what an object says of its class. <code>type</code> does not.</details>
# <details><summary>Hint 2</summary><code>all(...)</code> over the parts. Keys are parts, too.</details>

# %% tags=["exercise:07.plain"]
def plain(value):
    """Is this None, a bool, int, float or str, or a list, tuple or dict of such, in exact types?"""
    raise NotImplementedError("07.plain")

# %% tags=["grade:07.plain"]
check("07.plain")

# %% tags=["use:07.plain"]
plain = use("07.plain")

# %%
class Yes(int):
    """A number that agrees with everybody."""

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


results = {"3": 3, "4.0": 4.0, "Yes(4)": Yes(4), "[3, Yes(4)]": [3, Yes(4)], "print": print}
table(["result", "equals 3", "plain", "counts as right"],
      *([f"`{name}`", value == 3, plain(value), plain(value) and value == 3] for name, value in results.items()))

# %% [markdown]
# A submission is both sides: the prompt's imports with the answer's first code block, and the tests.

# %%
coding = load("toy-functions" if TOY else "humaneval")
item = coding[0]
reference = item["messages"][-1]["content"]
submission = coding.submission(item, reference)
for part in ("answer", "tests"):
    print(f"-- {part} --", submission[part].strip()[:400], sep="\n")
print("\nthe reference passes:", run_tests(**submission).ok,
      "  an empty answer:", run_tests(**coding.submission(item, "")).ok)

# %% [markdown]
# ## Many tries
#
# A program that fails costs nothing: try again. So code models are also asked for *pass@k*, the chance that at least
# one of k tries is right. Draw n tries, count c right ones, and it seems clear: one try succeeds with probability
# c/n, so all of k fail with (1 − c/n)^k.
#
# That is always too low. Our n tries are all we know, and k of them, drawn *without* putting any back, is the fair
# question. `evals/passk.py` answers it exactly; in lesson 09 you will write it yourself. Here are both, on the
# answers sampled above.

# %%
counts = [sum(task.check(task[i], sample) for sample in group) for i, group in enumerate(groups["sft"])]
ks = [k for k in (1, 2, 4, 8, 16) if k <= TRIES]
exact = [np.mean([pass_at_k(TRIES, c, k) for c in counts]) for k in ks]
naive = [np.mean([1 - (1 - c / TRIES) ** k for c in counts]) for k in ks]
table([f"{task.name}, {ITEMS} questions", *(f"k = {k}" for k in ks)],
      ["pass@k", *(f"{value:.1%}" for value in exact)],
      ["1 − (1 − c/n)^k", *(f"{value:.1%}" for value in naive)])

# %% [markdown]
# At toy scale nearly every question is solved by *some* try. The ability is there; what is missing is the habit of
# using it. A gap between pass@1 and pass@16 is what reinforcement learning can close, and lesson 09 does.
#
# ## One number
#
# 40 % on four options and 40 % on word problems are not the same. To average over exams they are put on one scale
# first, where guessing is 0 and everything right is 1.
#
# ---
# **Exercise 07.centered** · 1 point · ●○○ · about 1 line · 3 min
#
# Write `centered(accuracy, chance)`: the accuracy moved and stretched so that `chance` becomes 0 and 1 stays 1.
# Worse than guessing is negative.
#
# ```
# >>> centered(0.40, 0.25)
# 0.2
# ```
# <details><summary>Hint 1</summary>How much of the way from guessing to perfection?</details>
# <details><summary>Hint 2</summary>The whole way is <code>1 - chance</code> long.</details>

# %% tags=["exercise:07.centered"]
def centered(accuracy, chance):
    """The accuracy where guessing is 0 and all right is 1."""
    raise NotImplementedError("07.centered")

# %% tags=["grade:07.centered"]
check("07.centered")

# %% tags=["use:07.centered"]
centered = use("07.centered")

# %% [markdown]
# The mean over the exams is *ChatCORE*. With nanochat's first published speedrun we can test it: here are its
# accuracies after SFT and the sizes of the exams. The author reports a ChatCORE of 0.0884.

# %%
published = {"ARC-Easy": (0.3876, 0.25, 2376), "ARC-Challenge": (0.2807, 0.25, 1172), "MMLU": (0.3151, 0.25, 14042),
             "GSM8K": (0.0455, 0, 1319), "HumanEval": (0.0854, 0, 164)}
print(f"ChatCORE: {np.mean([centered(acc, chance) for acc, chance, _ in published.values()]):.4f}")
table(["exam", "guessing", "accuracy", "95 % interval", "centered"],
      *([name, f"{chance:.0%}", f"{acc:.1%}", "{:.1%} … {:.1%}".format(*wilson(round(acc * n), n)),
         f"{centered(acc, chance):.3f}"] for name, (acc, chance, n) in published.items()))

# %% [markdown]
# Half a billion parameters and four hours on eight H100s: above guessing everywhere, on ARC-Challenge by a hair, and
# the 164 programs of HumanEval leave room for nearly three times the lower end. That is what an honest card looks
# like.
#
# ## The card of this run

# %%
if TOY:
    trained_for = {"qa_seen_acc": "toy-qa-seen", "qa_heldout_acc": "toy-qa-heldout", "tool_acc": "toy-tool",
                   "free_acc": "toy-free", "chat_sums_acc": "toy-chat-sums"}
    others = {"choices_acc": "toy-choices", "letters_acc": "toy-letters", "problems_acc": "toy-problems",
              "functions_acc": "toy-functions", "cloze_acc": "toy-cloze", "addition_acc": "toy-addition"}
else:
    trained_for = {"arc_easy_acc": "arc-easy", "arc_challenge_acc": "arc-challenge", "mmlu_acc": "mmlu",
                   "gsm8k_acc": "gsm8k", "humaneval_acc": "humaneval"}
    others = {}

# %%
cards, whose = {}, load_model(run, "sft")[2]["digest"]     # by this a killed exam knows that it may go on
for key, name in (trained_for | others).items():
    exam, log = load(name), run / "sft" / "evals" / f"{name}.jsonl"
    judge = evaluate_completion if exam.kind == "text" else evaluate_task
    cards[key] = judge(sft, exam, max_items=S.evals.max_items, log=log, key=whose)
core = chatcore({key: cards[key] for key in trained_for})

# %%
before = run.results()
table(["exam", "items", "guessing", "mid", "SFT", "95 % interval"],
      *([key, card["n"], f"{card['chance']:.1%}",
         f"{before['mid.' + key]:.1%}" if "mid." + key in before else "–", f"{card['accuracy']:.1%}",
         "{:.1%} … {:.1%}".format(*card["interval"])] for key, card in cards.items()))
print(f"ChatCORE of the first {len(trained_for)}: {core:.4f}")

# %% [markdown]
# Read it from the bottom (at toy scale). `cloze` and `addition` belong to the base model: nothing was forgotten. The
# four above them are things this model was *not* trained for, and it shows. Look at `letters`: the model is far
# **below** guessing, because guessing here means saying the commonest number every time, and it does not even know
# that a number is wanted.
#
# Which exams go into the average is a choice, and one that can be made to please. The same model:

# %%
chat_exams = {key: card for key, card in cards.items() if key not in ("cloze_acc", "addition_acc")}
print(f"ChatCORE of {len(trained_for)} exams: {core:.3f}, of {len(chat_exams)}: {chatcore(chat_exams):.3f}")

# %%
accuracies = {key: card["accuracy"] for key, card in cards.items()}
run.record("sft", {"val_bpb": result["val_bpb"], "chatcore": core, **accuracies},
           chance={key: card["chance"] for key, card in cards.items()} | {"chatcore": 0.0})

# %% [markdown]
# ## What no exam asks
#
# Is an answer kind, clear, too long? There is no key to compare with. But people find it easy to say which of *two*
# answers they prefer, and from comparisons a scale can be made. Bradley and Terry's model gives each answer a score
# and says that the difference of two scores decides: i is preferred to j with probability σ(sᵢ − sⱼ), where σ(x) =
# 1/(1 + e⁻ˣ). What was observed should be likely, so the loss of a comparison is −log σ(score of the chosen − score
# of the rejected).
#
# ---
# **Exercise 07.preference_loss** · 3 points · ●●○ · about 2 lines · 10 min
#
# Write `preference_loss(chosen, rejected)`: two tensors (N,), the scores of the preferred and of the other answer in
# N comparisons. Return the mean of −log σ(chosen − rejected). It must stay finite where a score is wrong by a
# thousand.
#
# ```
# >>> preference_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))      # 0.1269 and log 2
# tensor(0.4100)
# ```
# <details><summary>Hint 1</summary><code>torch.sigmoid(-1000.)</code> is 0, and its logarithm is −∞. Take both at once.</details>
# <details><summary>Hint 2</summary><code>torch.nn.functional.logsigmoid</code>, or <code>softplus</code> of the negative.</details>

# %% tags=["exercise:07.preference_loss"]
def preference_loss(chosen, rejected):
    """Mean of -log sigmoid(chosen - rejected) over N comparisons; (N,) each."""
    raise NotImplementedError("07.preference_loss")

# %% tags=["grade:07.preference_loss"]
check("07.preference_loss")

# %% tags=["use:07.preference_loss"]
preference_loss = use("07.preference_loss")

# %% [markdown]
# Three answers. A was preferred to B in 7 of 10 comparisons, B to C in 6 of 10. Nobody compared A with C.

# %%
pairs = [("A", "B")] * 7 + [("B", "A")] * 3 + [("B", "C")] * 6 + [("C", "B")] * 4      # (chosen, rejected)
chosen, rejected = (torch.tensor(["ABC".index(pair[side]) for pair in pairs]) for side in (0, 1))
scores = torch.zeros(3, requires_grad=True)
for _ in range(500):
    gradient, = torch.autograd.grad(preference_loss(scores[chosen], scores[rejected]), scores)
    scores = (scores - 2 * gradient).detach().requires_grad_()
wins = torch.sigmoid(scores[:, None] - scores).tolist()                                # (3, 3)
print("scores", [round(s, 2) for s in scores.tolist()])
print(f"A beats B {wins[0][1]:.2f}, B beats C {wins[1][2]:.2f}, A beats C {wins[0][2]:.2f}")

# %% [markdown]
# The model has an opinion on the pair that nobody saw: odds multiply, 7/3 times 6/4. This one formula carries most of
# *preference learning*. Let a network compute the score of an answer, and this is the loss of a reward model, for
# RLHF to climb. Let the score be how much likelier the answer has become under the model since training began: DPO,
# which needs no reward model at all. And rankings of chat models from thousands of duels are fitted just so.
#
# ## Has it seen the questions?
#
# The last doubt. An exam whose questions stand in the training text measures memory. Look for long runs of words that
# occur in both.

# %%
def runs_of_words(text, n=8):
    """All runs of n words, or all words where there are fewer."""
    words = [word.strip(".,:;?!\"'()") for word in text.lower().split()]
    return {" ".join(words[i:i + n]) for i in range(max(1, len(words) - n + 1))}


def question(item):
    """What is asked, without the frame that all multiple-choice prompts share."""
    text = item["messages"][0]["content"] if "messages" in item else item["text"]
    return text.removeprefix("Multiple Choice question: ").removesuffix("Answer with the letter only.")


seen = set()
for part in mixture(S.midtrain.mixture + S.sft.mixture, run, "train", run.seed).tasks:
    for i in range(min(len(part), 10_000)):
        seen |= runs_of_words(question(part[i]))

# %%
rows = []
for key, name in trained_for.items():
    exam = load(name)
    n = min(len(exam), 500)
    hits = sum(bool(runs_of_words(question(exam[i])) & seen) for i in range(n))
    rows.append([name, n, f"{hits / n:.0%}"])
table(["exam", "questions looked at", "with a run of words from training"], *rows)

# %% [markdown]
# `toy-qa-seen` is contaminated, by design and by name: it measures whether answers were remembered. All others must
# be clean. For real exams this count is never zero, and a run of eight words may be innocent (*Which of the following
# is not an example of* …). Read the hits before you believe them, in either direction.
#
# ## What changes on eight H100s

# %%
def big_facts(scale):
    c, length = scale.sft, scale.pretrain.model.sequence_len
    return [", ".join(share.task for share in c.mixture), f"{c.schedule.steps:,}",
            f"{c.schedule.steps * c.rows * length:,}", f"× {c.schedule.scale:g}"]


known = ["SmolTalk, GSM8K, ARC (about 21,000 conversations)", "about 650", "32 conversations a step", "× 0.02"]
scales = course.load().scales
table(["", S.name, "speedrun"], *zip(["tasks", "steps", "tokens", "all learning rates"], big_facts(S),
                                     big_facts(scales["speedrun"]) if "speedrun" in scales else known))

# %% [markdown]
# Minutes of training, again, and hours of doubt. The exams are the five of the table above, with every question
# asked.
#
# ## Summary
#
# - The loss is a mean over the tokens that count. Without a mask most of the gradient goes into guessing what users
#   say.
# - SFT imitates its demonstrations, good and bad, in about their proportions.
# - No accuracy without n, interval and the score of guessing. Slices of a dozen can say anything.
# - Letters are compared, numbers extracted, programs run behind walls and judged from outside. The rule of scoring is
#   part of the score.
# - pass@k draws without replacement. ChatCORE is a mean of centered accuracies, over exams that somebody chose.
#
# In `nanochat/evals/` you know `accuracy.py`, `chat.py`, `items.py` and `passk.py` now, and in `nanochat/sandbox/`
# the rest: `runner.py` is our side, `inside/` the other, `walls.py` the walls. `calculator.py` waits for lesson 08.
#
# ## Questions
#
# 1. Rows of a batch hold different numbers of counted tokens. What changes if each row's mean is taken first?
# 2. An answer cannot forge a verdict, but the tests call it with their arguments. What could it do with those, and how
#    would you notice?
# 3. The letter with the largest logit is chosen. If the model likes `A` whatever is asked, how would you see it in
#    the log, and how could you correct for it?
# 4. 60 of 1,319 against 70 of 1,319: is the second model better? What if both sat the *same* questions?
# 5. An exam's questions are clean, but its *answers* stand in the training text. Does your count find it?
#
# ## Further reading
#
# - Ouyang et al., *Training Language Models to Follow Instructions with Human Feedback* (2022); Zhou et al., *LIMA*
#   (2023): how few demonstrations suffice.
# - Clark et al., *Think you have Solved Question Answering?* (2018): ARC. Hendrycks et al., *Measuring Massive
#   Multitask Language Understanding* (2020): MMLU. Cobbe et al., *Training Verifiers to Solve Math Word Problems*
#   (2021): GSM8K.
# - Chen et al., *Evaluating Large Language Models Trained on Code* (2021): HumanEval and the unbiased pass@k.
# - Wilson, *Probable Inference, the Law of Succession, and Statistical Inference* (1927); Miller, *Adding Error Bars
#   to Evals* (2024).
# - Bradley, Terry, *Rank Analysis of Incomplete Block Designs* (1952); Rafailov et al., *Direct Preference
#   Optimization* (2023); Chiang et al., *Chatbot Arena* (2024).
# - Brown et al., *Language Models are Few-Shot Learners* (2020), appendix C: looking for contamination.
