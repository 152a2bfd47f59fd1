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
# # 01 Bytes and BPE
#
# A language model has never seen a letter. It reads whole numbers, and the piece of software that turns your text into
# those numbers is not part of the network at all: it is trained before it, on its own, by counting. When a chatbot
# cannot spell, stumbles over sums, or costs several times as much in Hindi, look here first.
#
# In this lesson you build it: byte-pair encoding by hand, then the split that keeps words apart, and at the end GPT-4's
# own tokenizer, number for number.
#
# *About 90 minutes, six exercises.*

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
import tempfile
import time
import unicodedata
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

# %%
import matplotlib.pyplot as plt
import numpy as np
import regex
import tiktoken
from IPython.display import Markdown, display

from nanochat.course import plots
from nanochat.data.toyworld import World
from nanochat.runtime import UserError

plots.style()

# %% [markdown]
# ## All text is bytes already
#
# A file knows no letters either. Unicode gives each character a number, its *code point*, and UTF-8 writes that number
# in one to four bytes. Here are four characters from four corners of the table.

# %% tags=["nbval-check-output"]
for character in "Añ안😉":
    data = character.encode("utf-8")
    bits = " ".join(f"{byte:08b}" for byte in data)
    print(f"U+{ord(character):04X}  {len(data)} byte(s)  {bits}  {character}")

# %% [markdown]
# There is a system in the first bits of each byte. A byte that begins with `0` is a character by itself: that is ASCII.
# A byte that begins with `110`, `1110` or `11110` opens a character of two, three or four bytes. A byte that begins
# with `10` continues one. What is left over in each byte carries the code point, from high bits to low.
#
# So we can write the Korean syllable ourselves. Its code point has 16 bits, and a three-byte character has room for
# four of them in its first byte and six in each of the others.

# %% tags=["nbval-check-output"]
code = ord("안")
by_hand = bytes([
    0b1110_0000 | code >> 12,               # 1110xxxx  the four highest bits
    0b1000_0000 | code >> 6 & 0b0011_1111,  # 10xxxxxx  the next six
    0b1000_0000 | code & 0b0011_1111,       # 10xxxxxx  the last six
])
print(code, by_hand, by_hand == "안".encode())

# %%
fig, ax = plt.subplots(figsize=(4.2, 1.35))
for row, character in enumerate("Añ안😉"):
    for k, byte in enumerate(character.encode("utf-8")):
        bits = f"{byte:08b}"
        header = bits.index("0") + 1                     # ones, then a zero: they announce what the byte is
        ax.barh(row, [header, 8 - header], left=[9 * k, 9 * k + header], color=[plots.COLOURS[1], "#dfe6f0"])
        for column, bit in enumerate(bits):
            ax.text(9 * k + column + 0.5, row, bit, ha="center", va="center", fontsize=6)
ax.set(xlim=(0, 36), ylim=(3.5, -0.5), title="dark: the kind of byte · light: the code point")
ax.set_yticks(range(4), ["A", "ñ", "Korean", "emoji"])
ax.set_xticks([])
ax.grid(visible=False)
plt.show()

# %% [markdown]
# Two things follow from the dark bits. You can cut into a stream of bytes anywhere and find the next character: skip
# what begins with `10`. And not every sequence of bytes is text, which will come back to haunt `decode`.

# %% [markdown]
# ## Why not one number per character?
#
# The obvious idea: every character has a number, so let the model read code points. How many are there?

# %%
assigned = sum(unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs") for c in range(0x110000))
print(f"{assigned:,} characters in this Python's Unicode {unicodedata.unidata_version}")

# %% [markdown]
# Each would need a row in the model's first and last matrix and most would hardly ever be trained. Next year's emoji
# would have none. Words are worse: there is no list of all of them.
#
# Bytes are the other extreme: 256 of them, complete for ever, no text is out of reach. But a sentence becomes long, and
# length is what a Transformer pays for. See how long, in a text that stays with us through the course: an invented town
# of sixty people.

# %%
world = World(SEED)
text = "\n".join(islice(world.facts_documents("lesson 01"), 400))
print(text[:170])
print(f"\n{len(text.encode()):,} bytes, {len(set(text))} distinct characters, {len(set(text.split()))} distinct words, "
      f"{len(text.split()):,} words in all")

# %% [markdown]
# Many bytes for every word, and yet few different words, which come again and again. That is the opening for a third
# way: **start from bytes, and give a new number to whatever occurs often.** The text itself decides what deserves one.

# %% [markdown]
# ## Count pairs
#
# Byte-pair encoding repeats one step: find the two neighbours that stand side by side most often, and join them into
# one new token. So the first thing we need is a count of neighbours.
#
# ---
# **Exercise 01.pair_counts** · 2 points · ●○○ · about 4 lines · 5 min
#
# Write `pair_counts(ids)`: a `Counter` that says how often each two neighbours occur, in their order. Pairs may
# overlap.
#
# ```
# >>> pair_counts([1, 2, 3, 1, 2])
# Counter({(1, 2): 2, (2, 3): 1, (3, 1): 1})
# >>> pair_counts([7, 7, 7])
# Counter({(7, 7): 2})
# ```
# <details><summary>Hint 1</summary>A list of n ids has n − 1 pairs of neighbours. What about a list of one?</details>
# <details><summary>Hint 2</summary><code>itertools.pairwise</code>, or <code>zip(ids, ids[1:])</code>, walks over
# them.</details>

# %% tags=["exercise:01.pair_counts"]
def pair_counts(ids):
    """How often each two neighbours of `ids` occur: a Counter {(a, b): count}."""
    raise NotImplementedError("01.pair_counts")

# %% tags=["grade:01.pair_counts"]
check("01.pair_counts")

# %% tags=["use:01.pair_counts"]
pair_counts = use("01.pair_counts")

# %% [markdown]
# **Predict before you run.** Which two bytes stand side by side most often in the town's text? Look at the sample above
# once more, and do not forget that a blank is a byte too.

# %%
counts = pair_counts(list(text.encode("utf-8")))
for (a, b), n in sorted(counts.items(), key=lambda item: -item[1])[:6]:
    print(f"{bytes([a, b])!r:>7}  {n:5}")
print(f"{len(counts)} different pairs, of 65,536 that could be")

# %%
letters = " .abcdefghijklmnopqrstuvwxyz"
matrix = np.array([[counts.get((ord(a), ord(b)), 0) for b in letters] for a in letters])    # (28, 28)
shown = ["␣", "", *(letter if letter in "aeiou" else "" for letter in letters[2:])]
fig, ax = plt.subplots(figsize=(2.7, 2.3))
plots.heatmap(ax, np.sqrt(matrix), rows=shown, columns=shown, title="a byte (row) and the next (column)")
plt.show()

# %% [markdown]
# Most of the square is white. Language uses few of the pairs it could, and a few of those all the time: the dark column
# on the left is the end of words. A pattern like that can be compressed.

# %% [markdown]
# ## Merge
#
# ---
# **Exercise 01.merge** · 3 points · ●●○ · about 9 lines · 10 min
#
# Write `merge(ids, pair, new)`: a new list in which each occurrence of `pair` is replaced by `new`, from left to right,
# without overlap. The list you are given stays as it was.
#
# ```
# >>> merge([1, 2, 3, 1, 2], (1, 2), 4)
# [4, 3, 4]
# >>> merge([1, 1, 1], (1, 1), 4)
# [4, 1]
# ```
# <details><summary>Hint 1</summary>After a replacement the next place to look at is two further on, not one: a
# <code>while</code> loop can do that.</details>
# <details><summary>Hint 2</summary>At the last id there is no neighbour to compare with.</details>

# %% tags=["exercise:01.merge"]
def merge(ids, pair, new):
    """A copy of `ids` with each `pair`, from left to right without overlap, replaced by `new`."""
    raise NotImplementedError("01.merge")

# %% tags=["grade:01.merge"]
check("01.merge")

# %% tags=["use:01.merge"]
merge = use("01.merge")

# %% [markdown]
# ## Train
#
# Training is those two in a loop. One more decision is needed: which pair wins when two are equally frequent? It does
# not matter, so long as there is one answer. Ours is the pair with the smaller ids.

# %%
def most_frequent(counts):
    """The pair with the highest count; among equals the smaller pair."""
    return min(counts, key=lambda pair: (-counts[pair], pair))


def train(ids, vocab_size):
    """Learn merges {pair: new id}; also the ids that are left, and how many there were after each merge."""
    merges, lengths = {}, [len(ids)]
    for new in range(256, vocab_size):
        pair = most_frequent(pair_counts(ids))
        ids = merge(ids, pair, new)
        merges[pair] = new
        lengths.append(len(ids))
    return merges, ids, lengths

# %% [markdown]
# Follow it on eleven letters. `aa` occurs most often and becomes 256. Then `256 a` and `a b` stand there twice each,
# and the smaller pair wins.

# %% tags=["nbval-check-output"]
tiny, left, lengths = train(list(b"aaabdaaabac"), 256 + 3)
for (a, b), new in tiny.items():
    print(f"{a} {b} -> {new}")
print(left, lengths)

# %% [markdown]
# Three merges took eleven ids to five. Note what the third one joined: two tokens that were themselves made before.
# That is how bytes grow to syllables, words and phrases without anyone saying what a word is. Now the town.

# %%
vocab_size = min(S.tokenizer.vocab_size, 512)               # this small text has no more to give
start = time.perf_counter()
merges, left, lengths = train(list(text.encode("utf-8")), vocab_size)
seconds_by_hand = time.perf_counter() - start
print(f"{len(merges)} merges: {lengths[0]:,} ids became {lengths[-1]:,}, in {seconds_by_hand:.1f} s")

# %% [markdown]
# What a token stands for follows from the merges: the bytes of its left part, then those of its right part. Parts are
# always older than what they make, so one pass is enough.

# %%
def vocabulary(merges):
    """{id: bytes} of the 256 bytes and of every merge."""
    vocab = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        vocab[new] = vocab[a] + vocab[b]
    return vocab


vocab = vocabulary(merges)
print("first", [vocab[i] for i in range(256, 266)])
print("longest", sorted(vocab.values(), key=len)[-6:])

# %% [markdown]
# **Predict before you run.** We plot bytes per token after each merge. Will every merge gain the same, will the curve
# bend up, or will it bend down?

# %%
gain = lengths[0] / np.array(lengths)                     # (merges + 1,) bytes per token
fig, ax = plt.subplots(figsize=(4, 1.8))
ax.plot(gain)
ax.set(xlabel="merges", ylabel="bytes per token", ylim=(0, None), title=f"the town's text, up to {gain[-1]:.2f}")
plt.show()

# %% [markdown]
# The first merges gain most. After that the curve goes on almost straight, and that is the town: it has few phrases,
# and merge after merge swallows them whole. In real language each doubling of the vocabulary gains less than the one
# before; lesson 02 measures how much.

# %% [markdown]
# ## Encode
#
# Training has cut up its own text. A new text must be cut *in the same way*, for the model will only know ids in the
# company in which it has seen them.
#
# The first thing that comes to mind is to take, from left to right, the longest token that fits. Let us build it and
# see.

# %%
def encode_longest(data, vocab):
    """The wrong turn: always the longest token that fits."""
    known = {token: i for i, token in vocab.items()}
    longest, ids, at = max(map(len, known)), [], 0
    while at < len(data):
        piece = next(data[at:at + n] for n in range(longest, 0, -1) if data[at:at + n] in known)
        ids.append(known[piece])
        at += len(piece)
    return ids

# %% [markdown]
# There is a test that cannot be argued with. Training ended with `left`; an encoder that does what training did must
# return exactly that for the training text.

# %%
wrong = encode_longest(text.encode("utf-8"), vocab)
at = next((i for i, (a, b) in enumerate(zip(wrong, left)) if a != b), 0)
print(f"{len(wrong):,} ids instead of {len(left):,}; the first that differs is number {at}")
print("training:", [vocab[i].decode() for i in left[at:at + 5]])
print("longest: ", [vocab[i].decode() for i in wrong[at:at + 5]])

# %% [markdown]
# Both rows spell the same text, so nothing crashes and nobody notices. But the model is trained on the upper row and
# asked about the lower one. What went wrong is the order: in training a frequent pair was merged *before* the longer
# token was thought of, and it took a letter away that the longer token would have needed.
#
# So encoding has to replay training. Of all the pairs in the text, merge the one that was learned **first**, and repeat
# until no pair is left that was ever learned.
#
# ---
# **Exercise 01.encode** · 3 points · ●●○ · about 7 lines · 15 min
#
# Write `encode(text, merges)`: the ids of a string. `merges` is what `train` returned, `{pair: new id}`; ids were given
# out in the order of training, so a lower one was learned earlier. You may call your `merge`.
#
# ```
# >>> encode("aaabdaaabac", {(97, 97): 256, (97, 98): 257, (256, 257): 258})
# [258, 100, 258, 97, 99]
# >>> encode("é", {})
# [195, 169]
# ```
# <details><summary>Hint 1</summary>Start from the bytes. While there is more than one id: which of the neighbouring
# pairs has the lowest new id?</details>
# <details><summary>Hint 2</summary><code>min(pairwise(ids), key=lambda pair: merges.get(pair, float("inf")))</code>
# finds it; stop if it is not in <code>merges</code>.</details>

# %% tags=["exercise:01.encode"]
def encode(text, merges):
    """The ids of `text`: its bytes, merged in the order in which the merges were learned."""
    raise NotImplementedError("01.encode")

# %% tags=["grade:01.encode"]
check("01.encode")

# %% tags=["use:01.encode"]
encode = use("01.encode")

# %%
lines = text[:1500].rpartition("\n")[0]                     # some whole lines: their ids are the first of `left`
ids = encode(lines, merges)
print(len(ids), "ids, as training left them:", ids[:-1] == left[:len(ids) - 1])

# %% [markdown]
# (All but the last: in the whole text it may have joined what followed.)

# %% [markdown]
# ## Decode
#
# The way back looks like one line: look up every id, join. There is a trap in it, and it is the bytes again. A token is
# a piece of *bytes*, and nothing forces it to end where a character ends.

# %% tags=["nbval-check-output"]
ids = encode("안녕 😉", merges)
print(ids)
print([bytes([i]).decode("utf-8", errors="replace") for i in ids])

# %% [markdown]
# Each � is U+FFFD, the *replacement character*: Python's way to say "these bytes are not text". Alone, none of these
# tokens is; together they are. So first join, then decode. And as a model may emit any sequence of ids, decoding must
# never raise for bytes that are not UTF-8.
#
# ---
# **Exercise 01.decode** · 2 points · ●○○ · about 2 lines · 5 min
#
# Write `decode(ids, vocab)`: the text of the ids. `vocab` is `{id: bytes}`. Bytes that are not UTF-8 become U+FFFD.
#
# ```
# >>> decode([236, 149, 136], {236: b"\xec", 149: b"\x95", 136: b"\x88"})
# '안'
# >>> decode([104, 236], {104: b"h", 236: b"\xec"})
# 'h�'
# ```
# <details><summary>Hint 1</summary><code>b"".join(...)</code> joins bytes.</details>
# <details><summary>Hint 2</summary><code>bytes.decode</code> has a parameter <code>errors</code>.</details>

# %% tags=["exercise:01.decode"]
def decode(ids, vocab):
    """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
    raise NotImplementedError("01.decode")

# %% tags=["grade:01.decode"]
check("01.decode")

# %% tags=["use:01.decode"]
decode = use("01.decode")

# %% [markdown]
# With the pair complete, any text comes back, also what training never saw. The other way round does not hold: bytes
# that are no text become �, and encoding a � gives something else.

# %% tags=["nbval-check-output"]
for sample in ("안녕 😉", "x = [y**2 for y in z]", "\t\r\n", ""):
    print(decode(encode(sample, merges), vocab) == sample, end=" ")
print(encode(decode([0x80], vocab), merges))

# %% [markdown]
# ## Why words are kept apart
#
# Look again at the longest tokens above. Whole phrases of the town got a number each, and many tokens hold the *end* of
# one word and the beginning of the next. It compresses well. It is bad for a model, and here is how to see it: in how
# many different ways is one and the same name written?

# %%
def spellings(name, ids, vocab):
    """Every sequence of tokens in which `name` occurs in the text of `ids`, with how often."""
    found, ends = Counter(), np.cumsum([len(vocab[i]) for i in ids])
    data = b"".join(vocab[i] for i in ids)
    for match in regex.finditer(name.encode(), data):
        first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right")
        found["|".join(vocab[i].decode() for i in ids[first:last + 1])] += 1
    return found


plain = {person: spellings(person, left, vocab) for person in world.people}
worst = max(plain, key=lambda person: len(plain[person]))
average = np.mean([len(found) for found in plain.values()])
print(f"{average:.1f} spellings a name; {worst} has {len(plain[worst])}, among them:")
print(list(plain[worst])[:5])

# %% [markdown]
# What the model learns about a person from one spelling it does not know of the others. Every verb that follows a name,
# every full stop, makes new ones.
#
# The cure is to cut the text into *chunks* first, and to let merges happen only inside a chunk. A regular expression
# does the cutting. In the pattern language, `\p{L}` is any letter of any script, `\p{N}` any digit, `\s` white space
# and `\S` anything else.
#
# ---
# **Exercise 01.split** · 3 points · ●●● · about 1 line · 20 min
#
# Write `split_pattern`, a string, so that `regex.findall(split_pattern, text)` cuts any text into chunks. Four kinds,
# tried in this order:
#
# 1. a run of letters, with the blank before it if there is one (one blank, `" "`; no other white space);
# 2. one to three digits, *without* a blank;
# 3. a run of anything that is neither letter, digit nor white space, with the blank before it if there is one;
# 4. white space: a run at the end of the text as a whole; elsewhere a run of several gives its last one away, and a
#    single one stands alone.
#
# ```
# >>> regex.findall(split_pattern, "I'm 12345  years old!!\n")
# ['I', "'", 'm', ' ', '123', '45', ' ', ' years', ' old', '!!', '\n']
# ```
# <details><summary>Hint 1</summary>Alternatives are separated by <code>|</code>; <code> ?</code> is "a blank or
# nothing"; <code>[^\s\p{L}]</code> is "neither of these".</details>
# <details><summary>Hint 2</summary><code>\s+(?!\S)</code> matches white space that is <em>not followed</em> by
# something visible: a longer run gives back one blank to fulfil that. After it, <code>\s+</code> catches the single
# ones.</details>

# %% tags=["exercise:01.split"]
split_pattern = ...

# %% tags=["grade:01.split"]
check("01.split")

# %% tags=["use:01.split"]
split_pattern = use("01.split")

# %% tags=["nbval-check-output"]
for sample in ("She's 42, he's 1938.", "    return  x+1\n\n", "¿Dónde? 서울에  1.5월"):
    print("|".join(regex.findall(split_pattern, sample)).replace("\n", "⏎"))

# %% [markdown]
# The blank travels with the word *after* it. So ` old` and `old` are two tokens, which wastes some, but no blank ever
# needs a token of its own between two words.
#
# GPT-4's pattern has the same bones and a few refinements: contractions such as `'s` are chunks of their own, any one
# character may lead a word, and a line end closes a chunk. The library has it, and a class that uses it.

# %%
from nanochat.tokenizer.bpe import GPT4_SPLIT_PATTERN, BasicTokenizer, RegexTokenizer

town = RegexTokenizer(GPT4_SPLIT_PATTERN)
town.train(text, vocab_size)
for part in GPT4_SPLIT_PATTERN.split("|")[-6:]:
    print(f"{part:<28}", regex.findall(part, "Isn't it 12345?!\n  ok")[:4])
print("|".join(town.split("She's 42, he's 1938.")))

# %%
ids = town.encode(text)
apart = {person: spellings(person, ids, town.vocab) for person in world.people}
average = np.mean([len(found) for found in apart.values()])
print(f"{average:.1f} spellings a name; {worst} has {len(apart[worst])}:", list(apart[worst]))
print(f"bytes per token: {len(text) / len(left):.2f} without, {len(text) / len(ids):.2f} with")
print("longest tokens now:", sorted(town.vocab.values(), key=len)[-6:])

# %% [markdown]
# The split costs compression and buys order: a word is written in one way, or two, with its blank and at the start of a
# line. Every tokenizer of a large model makes this trade.

# %% [markdown]
# ## Is that what the library does?
#
# `nanochat/tokenizer/bpe.py` holds three classes, each the one before plus one idea. The first is what you have built.

# %%
basic = BasicTokenizer()
basic.train(text, vocab_size)
print("same merges:", basic.merges == merges, " same ids:", basic.encode(lines) == encode(lines, merges))

# %% [markdown]
# The second adds the split and the special tokens below. A tokenizer is saved as two small files: `.model` to load,
# `.vocab` to read. There is no pickle in them; you can check a tokenizer by eye.

# %%
with tempfile.TemporaryDirectory() as folder:
    town.save(f"{folder}/town")
    model, vocab_lines = (Path(f"{folder}/town.{kind}").read_text().splitlines() for kind in ("model", "vocab"))
print("\n".join(line[:70] for line in model[:6]))
print("\n".join(vocab_lines[-4:]))

# %% [markdown]
# ## Special tokens
#
# Some ids stand for no text at all: "a document begins here", "now the assistant speaks". They are added after
# training, above all merges, and they must never come out of ordinary text. Otherwise a user could type one.

# %%
end = len(town.vocab)
town.register_special_tokens({"<|endoftext|>": end})
mail = "Bye.<|endoftext|>Hi"
print(town.encode(mail, allowed_special="all"))                # we wrote this text: the token is meant
print(town.encode_ordinary(mail))                              # it is text like any other, spelled out
try:
    town.encode(mail)                                          # we did not say: refused
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# The default is the cautious one: if a text holds special tokens, the caller has to say what they mean. Lesson 02 puts
# conversations together from such tokens, and what users write goes the ordinary way only.

# %% [markdown]
# ## GPT-4's tokenizer, from what is published
#
# The vocabulary of GPT-4, `cl100k_base`, is public in one form: a list of tokens, each with its *rank*. The lower the
# rank, the earlier it was made. The library fetches it through `tiktoken`. Where that is impossible, the next cell says
# so in a line, and we go on with the town's own tokens as if they had been published.

# %%
from nanochat.tokenizer.cl100k import cl100k

try:
    published = cl100k()
except UserError as error:
    print(error)
    own_ranks = {token: i for i, token in town.vocab.items()}
    published = tiktoken.Encoding("town", pat_str=town.pattern, mergeable_ranks=own_ranks, special_tokens={})
ranks = published._mergeable_ranks                           # {bytes: rank}
first = sorted((token for token in ranks if len(token) > 1), key=ranks.get)
print(f"{published.name}: {len(ranks):,} ranks; the first merges were {first[:8]}")

# %% [markdown]
# Two things are missing. The first is small: GPT-4 numbers the 256 single bytes in an order of its own.

# %%
shuffle = {byte: ranks[bytes([byte])] for byte in range(256)}       # byte -> id
print({chr(byte): shuffle[byte] for byte in b"Az! "})

# %% [markdown]
# The second is the heart of the matter: *merges are not there*. `encode` needs to know which two ids make a third, and
# the list only says what the third looks like. ` the` might be ` t` + `he` or ` th` + `e`.
#
# But there is only one way in which it can have come about. When that token was made, everything of lower rank existed
# and nothing else. So take its bytes and let BPE run on them with the lower ranks alone: two parts will be left.
#
# ---
# **Exercise 01.merge_below** · 3 points · ●●● · about 9 lines · 20 min
#
# Write `merge_below(ranks, token, rank)`: the list of parts that remain of the bytes `token` when neighbours are
# merged, lowest rank first, as long as their joined bytes have a rank **below** `rank`. Of two places with the same
# rank take the left one.
#
# ```
# >>> merge_below({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3}, b"abab", 3)
# [b'ab', b'ab']
# ```
# <details><summary>Hint 1</summary>Begin with a list of single bytes: <code>[bytes([byte]) for byte in
# token]</code>.</details>
# <details><summary>Hint 2</summary>For each two neighbours, <code>ranks.get(a + b, rank)</code>. If the lowest of these
# is <code>rank</code> itself, you are done; else join at its first place: <code>parts[i:i + 2] = [parts[i] + parts[i +
# 1]]</code>.</details>

# %% tags=["exercise:01.merge_below"]
def merge_below(ranks, token, rank):
    """The parts of `token` when only ranks below `rank` may merge: a list of bytes."""
    raise NotImplementedError("01.merge_below")

# %% tags=["grade:01.merge_below"]
check("01.merge_below")

# %% tags=["use:01.merge_below"]
merge_below = use("01.merge_below")

# %%
start = time.perf_counter()
recovered = {}
for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
    if len(token) > 1:
        left_part, right_part = merge_below(ranks, token, rank)
        recovered[ranks[left_part], ranks[right_part]] = rank
print(f"{len(recovered):,} merges recovered in {time.perf_counter() - start:.1f} s")

# %% [markdown]
# Every token fell into exactly two parts, or the cell would have raised. That is all that was missing. Split with
# GPT-4's pattern, rename the bytes, merge by rank:

# %%
def encode_gpt4(text):
    """Ids of `text` as GPT-4 reads it, made from our own parts."""
    ids = []
    for chunk in regex.findall(GPT4_SPLIT_PATTERN, text):
        part = [shuffle[byte] for byte in chunk.encode("utf-8")]
        while len(part) > 1:
            pair = min(pairwise(part), key=lambda pair: recovered.get(pair, float("inf")))
            if pair not in recovered:
                break
            part = merge(part, pair, recovered[pair])
        ids += part
    return ids

# %%
sample = "hello123!!!? (안녕하세요!) 😉"
print(encode_gpt4(sample))
print("as tiktoken:", encode_gpt4(sample) == published.encode_ordinary(sample),
      encode_gpt4(text) == published.encode_ordinary(text))

# %% [markdown]
# Number for number. The library's `GPT4Tokenizer` is these cells as a class, the last in `bpe.py`; you now know every
# line of that file.

# %%
from nanochat.tokenizer.bpe import GPT4Tokenizer

gpt4 = GPT4Tokenizer(ranks)
print("same merges:", gpt4.merges == recovered, " same ids:", gpt4.encode(sample) == encode_gpt4(sample))


def pieces(text):
    """The tokens of `text`, with bars between them; � where a token is a part of a character."""
    return "|".join(gpt4.vocab[i].decode(errors="replace") for i in gpt4.encode(text)).replace("\n", "⏎")

# %% [markdown]
# ## Odd things
#
# Now use it, and watch the habits of chatbots turn up one after the other. **Spelling.** How many r has strawberry? The
# model is handed this:

# %%
for word in ("strawberry", " strawberry", "s-t-r-a-w-b-e-r-r-y"):
    print(f"{pieces(word):<24}", gpt4.encode(word))

# %% [markdown]
# Where a word is one number there are no letters in it to be counted; that ten letters stand behind this id is a fact
# to be learned by heart. Written with hyphens it falls apart into letters, and then a model can count. Case and blanks
# make strangers as well:

# %%
for word in ("hello", " hello", "Hello", "HELLO"):
    print(f"{pieces(word):<8}", gpt4.encode(word))

# %% [markdown]
# **Arithmetic.** GPT-4 takes digits in threes, *from the left*. In which column stands the 4 of 1234, and the 8 of
# 45678?

# %%
for sum_ in ("12+34=46", "1234+5678=6912", "12345+678=13023", "1234567+1=1234568"):
    print(pieces(sum_))

# %% [markdown]
# We write numbers so that units stand below units. Here the first token means hundreds in one number and millions in
# the next, and the last digits are alone or in pairs as it happens. The toy scale of this course gives every digit a
# token of its own, and its small model learns to add.
#
# **Trailing blanks.** End a prompt with a blank, and the answer gets worse. Compare what the model saw in training with
# what you ask:

# %%
place = world.facts[worst]["city"]
for prompt in (f"Mira lives in {place}.", "Mira lives in", "Mira lives in "):
    print(f"{pieces(prompt):<24}", gpt4.encode(prompt))

# %% [markdown]
# In training the blank belongs to the town's name. With the blank already spent, that token cannot follow any more, and
# the model has to go on from a lone blank, which it has hardly ever seen before a word.
#
# **Other languages.** The same sentence, eight times. The bars show how many tokens each costs.

# %%
sentences = {
    "English": "Mira lives in Oslo with a goat and two cats.",
    "German": "Mira lebt in Oslo mit einer Ziege und zwei Katzen.",
    "Spanish": "Mira vive en Oslo con una cabra y dos gatos.",
    "Russian": "Мира живёт в Осло с козой и двумя кошками.",
    "Greek": "Η Μίρα ζει στο Όσλο με μια κατσίκα και δύο γάτες.",
    "Japanese": "ミラはオスロでヤギ一匹と猫二匹と暮らしている。",
    "Korean": "미라는 오슬로에서 염소 한 마리와 고양이 두 마리와 함께 산다.",
    "Hindi": "मीरा ओस्लो में एक बकरी और दो बिल्लियों के साथ रहती है।",
}
costs = {language: len(gpt4.encode(sentence)) for language, sentence in sentences.items()}
fig, ax = plt.subplots(figsize=(4.4, 2))
plots.bars(ax, list(costs), list(costs.values()), title=f"tokens for one sentence ({published.name})")
plt.show()

# %%
print("bytes:     ", {language: len(sentence.encode()) for language, sentence in sentences.items()})
print("characters:", {language: len(sentence) for language, sentence in sentences.items()})
dearest = max(costs, key=costs.get)
print(f"{dearest} costs {costs[dearest] / costs['English']:.1f} times what English costs")
print(pieces(sentences[dearest]))

# %% [markdown]
# Two causes add up. UTF-8 spends two or three bytes on a character of these scripts; and merges go to whatever the
# training text held most of. Whoever pays by the token, or has a context of limited length, pays for that.

# %% [markdown]
# ## What changes on eight H100s
#
# Nothing in the algorithm. The vocabulary grows and so does the text. What would happen to our loop?

# %%
scales = course.load().scales
if "speedrun" in scales:
    big_vocab, big_chars = scales["speedrun"].tokenizer.vocab_size, scales["speedrun"].tokenizer.chars
else:
    big_vocab, big_chars = 65_536, 2_000_000_000     # nanochat's first speedrun, by its repository
visits = sum(lengths[:-1])                             # ids we walked over in training
days = seconds_by_hand / visits * big_chars * (big_vocab - 256) / 3600 / 24
rows = [("", "this lesson", "speedrun"), ("---", "--:", "--:"), ("characters", f"{len(text):,}", f"{big_chars:,}"),
        ("vocabulary", f"{len(vocab):,}", f"{big_vocab:,}"),
        ("our loop, at most", f"{seconds_by_hand:.1f} s", f"{days:,.0f} days")]
display(Markdown("\n".join("| " + " | ".join(row) + " |" for row in rows)))

# %% [markdown]
# ("At most": the text gets shorter while it is merged. It would not save us.) The whole text is counted anew for every
# single merge. The next lesson gets the same merges without that.

# %% [markdown]
# ## Summary
#
# - Text is bytes; UTF-8 says which bytes belong together. 256 bytes reach every text, so nothing is ever "unknown".
# - BPE: count neighbours, merge the most frequent pair, repeat. Encoding replays the merges in the order they were
#   learned; taking the longest token that fits gives other ids than training did.
# - Decoding joins bytes first. What is not UTF-8 becomes U+FFFD.
# - A split pattern keeps words, numbers and punctuation apart. Special tokens come from the program, never from text.
# - Ranks alone determine the merges, and so GPT-4's tokenizer can be rebuilt from its list of tokens.
#
# ## Questions
#
# 1. `merge([1, 1, 1], (1, 1), 4)` counts two pairs and replaces one. Can a pair be the most frequent one and save
#    nothing?
# 2. Two texts are equal for the eye, "é" as one code point and as "e" with a combining accent. Are their ids equal?
#    Should they be?
# 3. What would the pattern have to be for digits to be grouped in threes from the *right*?
#
# ## Further reading
#
# - Gage, *A New Algorithm for Data Compression* (1994): the pair merging, for files.
# - Sennrich, Haddow, Birch, *Neural Machine Translation of Rare Words with Subword Units* (2016): it enters language
#   models.
# - Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), section 2.2: bytes, and the split
#   pattern.
# - Petrov et al., *Language Model Tokenizers Introduce Unfairness Between Languages* (2023): the last figure, for many
#   languages.
# - Singh, Strouse, *Tokenization counts: the impact of tokenization on arithmetic in frontier LLMs* (2024): digits from
#   left or right.
# - Karpathy's *minbpe* and OpenAI's *tiktoken* are the two programs to compare `bpe.py` with.
