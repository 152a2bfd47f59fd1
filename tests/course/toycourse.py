"""A made-up course of two lessons in a temporary folder: its own course.yml, texts, cases, solutions and mutants."""

import os
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

LESSON_1 = '''\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 Merging
#
# Two exercises and one file.

# %% tags=["parameters"]
SCALE = "toy"   # a scale
RUN = ""        # a run
SEED = 0

# %% tags=["setup"]
from nanochat import course
from nanochat.course import check, use
S = course.scale(SCALE)
run = course.open_run(SCALE, RUN, SEED)

# %%
from collections import Counter
import toylib

# %% tags=["exercise:01.merge"]
def merge(ids, pair, new):
    """Replace each occurrence of pair by new."""
    raise NotImplementedError("01.merge")

# %% tags=["grade:01.merge"]
check("01.merge")

# %% tags=["use:01.merge"]
merge = use("01.merge")

# %% [markdown]
# The merged list.

# %%
print(merge([1, 2, 3, 1, 2], (1, 2), 9))

# %% tags=["exercise:01.ratio"]
ratio = ...

# %% tags=["grade:01.ratio"]
check("01.ratio")

# %% tags=["use:01.ratio"]
ratio = use("01.ratio")

# %%
(run / "words").mkdir(exist_ok=True)
_ = (run / "words" / "words.txt").write_text(" ".join(map(str, merge([1, 2], (1, 2), 9))))
'''

LESSON_2 = '''\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 Counting

# %% tags=["parameters"]
SCALE = "toy"
RUN = ""
SEED = 0

# %% tags=["setup"]
from nanochat import course
from nanochat.course import check, use
S = course.scale(SCALE)
run = course.open_run(SCALE, RUN, SEED)

# %% tags=["exercise:02.pair_counts"]
def pair_counts(ids):
    """How often each pair of neighbours occurs."""
    raise NotImplementedError("02.pair_counts")

# %% tags=["grade:02.pair_counts"]
check("02.pair_counts")

# %% tags=["use:02.pair_counts"]
pair_counts = use("02.pair_counts")

# %%
words = (run / "words" / "words.txt").read_text()
(run / "counts").mkdir(exist_ok=True)
_ = (run / "counts" / "done.json").write_text("{}")
run.record("counts", {"words": len(words)}, chance={"words": 0.5})
'''

CASES_1 = '''\
import random

def slow_merge(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out

def worked_example(merge):
    "the example of the box"
    assert merge([1, 2, 3, 1, 2], (1, 2), 4) == [4, 3, 4]

def leaves_input_alone(merge):
    "the list you were given stays as it was"
    ids = [1, 2, 3]
    merge(ids, (1, 2), 4)
    assert ids == [1, 2, 3], f"your input is now {ids}"

def equals_slow_merge(merge):
    "equals a slow merge on random lists"
    for _ in range(20):
        ids = random.choices(range(3), k=30)
        assert merge(list(ids), (1, 2), 9) == slow_merge(ids, (1, 2), 9)

def is_a_third(ratio):
    "3 of 9 bytes"
    assert abs(ratio - 1 / 3) < 1e-9

CASES = {"01.merge": [worked_example, leaves_input_alone, equals_slow_merge], "01.ratio": [is_a_third]}
'''

CASES_2 = '''\
def counts_pairs(pair_counts):
    "pairs of neighbours"
    assert dict(pair_counts([1, 2, 1, 2])) == {(1, 2): 2, (2, 1): 1}

def empty_list(pair_counts):
    "no pairs in no list"
    assert dict(pair_counts([])) == {}

CASES = {"02.pair_counts": [counts_pairs, empty_list]}
'''

LIBRARY = '''\
from collections import Counter

def merge(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i:i + 2]) == pair
        out.append(new if hit else ids[i])
        i += 2 if hit else 1
    return out

def merge_many(ids, pairs):
    for new, pair in enumerate(pairs, 256):
        ids = merge(ids, pair, new)
    return ids

RATIO = 1 / 3

def pair_counts(ids):
    return Counter(zip(ids, ids[1:]))
'''

MERGE = '''\
def merge(ids, pair, new):
    out = []
    for i in ids:
        out.append(i)
        if tuple(out[-2:]) == pair and len(out) > 1:
            out[-2:] = [new]
    return out
'''

SOLUTIONS_1 = f"# %% exercise: 01.merge\n{MERGE}\n# %% exercise: 01.ratio\nratio = 3 / 9\n"
SOLUTIONS_2 = """\
# %% exercise: 02.pair_counts
from collections import Counter

def pair_counts(ids):
    return Counter(zip(ids, ids[1:]))
"""

MUTANTS_1 = '''\
# %% exercise: 01.merge  mutant: in_place  killed_by: leaves_input_alone
def merge(ids, pair, new):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i:i + 2] = [new]
        i += 1
    return ids

# %% exercise: 01.merge  mutant: hard_coded  killed_by: equals_slow_merge
def merge(ids, pair, new):
    return [4, 3, 4]

# %% exercise: 01.merge  mutant: delegating  killed_by: worked_example
def merge(ids, pair, new):
    return toylib.merge(ids, pair, new)

# %% exercise: 01.merge  mutant: imported_name  killed_by: worked_example
from toylib import merge as library_merge
def merge(ids, pair, new):
    return library_merge(ids, pair, new)

# %% exercise: 01.merge  mutant: through_another_function  killed_by: worked_example
def merge(ids, pair, new):
    return [new if i == 256 else i for i in toylib.merge_many(ids, [pair])]

# %% exercise: 01.merge  mutant: endless  killed_by: worked_example
def merge(ids, pair, new):
    while True:
        try:
            len(ids)
        except:
            pass

# %% exercise: 01.ratio  mutant: inverted  killed_by: is_a_third
ratio = 3.0

# %% exercise: 01.ratio  mutant: rounded  killed_by: is_a_third
ratio = 0.33
'''
MUTANTS_2 = '''\
# %% exercise: 02.pair_counts  mutant: every_other  killed_by: counts_pairs
def pair_counts(ids):
    return {p: 2 for p in zip(ids[::2], ids[1::2])}

# %% exercise: 02.pair_counts  mutant: fails_on_nothing  killed_by: empty_list
def pair_counts(ids):
    counts = {}
    for i in range(max(1, len(ids) - 1)):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
    return counts
'''

COURSE = {
    "version": 1,
    "checks": "toychecks",
    "defaults": {"case_timeout_s": 1, "cell_timeout_s": 60},
    "artifacts": {"words": {"path": "words", "proof": "words/words.txt", "made_by": "01"},
                  "counts": {"path": "counts", "proof": "counts/done.json", "made_by": "02"}},
    "lessons": [
        {"id": "01", "slug": "merging", "title": "Merging", "needs": [], "makes": ["words"], "exercises": [
            {"id": "01.merge", "name": "merge", "points": 3, "level": 2, "lines": 6, "minutes": 10,
             "reference": "toylib.merge", "guards": ["toylib.merge"]},
            {"id": "01.ratio", "name": "ratio", "points": 1, "level": 1, "lines": 1, "minutes": 2,
             "reference": "toylib.RATIO"}]},
        {"id": "02", "slug": "counting", "title": "Counting", "needs": ["words"], "makes": ["counts"], "exercises": [
            {"id": "02.pair_counts", "name": "pair_counts", "points": 2, "level": 1, "lines": 3, "minutes": 5,
             "reference": "toylib.pair_counts"}]},
    ],
}


@pytest.fixture
def course_folder(tmp_path, monkeypatch):
    """The root of the made-up course, with runs/ inside; kernels started from here see it too."""
    scales = yaml.safe_load((REPOSITORY / "course.yml").read_text())["scales"]
    files = {
        "course.yml": yaml.safe_dump(COURSE | {"scales": {name: scales[name] for name in ("toy", "smoke")}}),
        "toylib.py": LIBRARY,
        "toychecks/__init__.py": "",
        "toychecks/lesson01.py": CASES_1,
        "toychecks/lesson02.py": CASES_2,
        "notebooks/01_merging.py": LESSON_1,
        "notebooks/02_counting.py": LESSON_2,
        "notebooks/solutions/01.py": SOLUTIONS_1,
        "notebooks/solutions/02.py": SOLUTIONS_2,
        "tests/mutants/01.py": MUTANTS_1,
        "tests/mutants/02.py": MUTANTS_2,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("NANOCHAT_COURSE", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    monkeypatch.delenv("COURSE_MODE", raising=False)
    monkeypatch.delenv("COURSE_RUN", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("toylib", "toychecks"):
            del sys.modules[name]
