"""Text and notebook in step, on the made-up course."""

import base64
import re

import pytest
from toycourse import MERGE

from nanochat.course import load, notebooks
from nanochat.course.sync import check, sync, text_problems

_executed: dict[str, bytes] = {}


@pytest.fixture
def built(course_folder):
    """Lesson 01 with its notebook built; executed once, copied afterwards."""
    lesson = load().lesson("01")
    if not _executed:
        assert sync(["01"]) == []
        _executed["01"] = lesson.notebook.read_bytes()
    lesson.notebook.write_bytes(_executed["01"])
    return lesson


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_built_notebook_agrees_and_a_second_build_is_the_same_file(built):
    first = built.notebook.read_bytes()
    assert check(["01"]) == []
    assert sync(["01"]) == []
    assert built.notebook.read_bytes() == first
    nb = notebooks.read(built.notebook)
    assert [c.execution_count for c in nb.cells if c.cell_type == "code"] == list(range(1, 12))
    assert next(c.id for c in nb.cells if "grade:01.merge" in notebooks.tags(c)) == "grade-01-merge"


def test_what_is_unbuilt_edited_or_stripped_is_caught(built):
    assert check(["02"]) == ["02_counting: not built: run `nanochat sync 02`"]

    text, notebook = built.text.read_text(), built.notebook.read_text()
    edit(built.text, "The merged list.", "The list.")
    assert check(["01"]) == ["01_merging: differs from its text from cell 7 on: run `nanochat sync 01`"]
    built.text.write_text(text)

    edit(built.text, "(1, 2), 9))\n", "(1, 2), 8))\n")
    assert sync(["01"], execute=False) == []
    assert check(["01"]) == ["01_merging: was not executed, or its outputs were stripped"]
    built.text.write_text(text)

    built.notebook.write_text(notebook)
    nb = notebooks.read(built.notebook)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebooks.write(nb, built.notebook)
    assert check(["01"]) == ["01_merging: was not executed, or its outputs were stripped"]


def test_outputs_of_other_code_are_caught(built):
    edit(built.text, "(1, 2), 9))\n", "(1, 2), 8))\n")
    edit(built.notebook, "(1, 2), 9))\\n", "(1, 2), 8))\\n") if "9))\\n" in built.notebook.read_text() else edit(
        built.notebook, "(1, 2), 9))\"", "(1, 2), 8))\"")
    problems = check(["01"])
    assert "01_merging: its outputs belong to another version of its code" in problems


def test_a_failing_cell_leaves_the_old_notebook(built, capsys):
    before = built.notebook.read_bytes()
    edit(built.text, "print(merge", "print(1 / 0, merge")
    assert len(sync(["01"])) == 1
    assert "ZeroDivisionError: division by zero in the cell that begins `print(1 / 0" in capsys.readouterr().out
    assert built.notebook.read_bytes() == before


@pytest.mark.parametrize("old, new, problem", [
    ("# # 01 Merging", "# # Merging", "must be markdown and begin with"),
    ('SCALE = "toy"', 'SCALE = "to" + "y"', "literals only"),
    ("SEED = 0", "SEED = 1", "must set"),
    ('# %% tags=["setup"]', "# %%", "no cell is tagged setup"),
    ('check("01.merge")', 'check("01.merge"); 1', 'must read check("01.merge")'),
    ('use:01.merge', 'done:01.merge', "needs one cell each tagged"),
    ("01.ratio", "01.share", "exercise 01.share is not in course.yml; add {id: \"01.share\", name: ratio"),
    ("print(merge", "!ls\nprint(merge", "shell escapes"),
    ("print(merge", "input()\nprint(merge", "no sys.exit and no input()"),
    ("print(merge", "plt.subplots()\nprint(merge", "calls plt.show()"),
])
def test_a_wrong_text_is_named(course_folder, old, new, problem):
    lesson = load().lesson("01")
    edit(lesson.text, old, new)
    assert any(problem in p for p in text_problems(lesson, notebooks.from_text(lesson.text)))


@pytest.mark.parametrize("old, new, problem", [
    ("killed_by: is_a_third", "killed_by: is_a_half", "is_a_half', which is none of its cases"),
    ("01.ratio  mutant: rounded", "01.merge  mutant: rounded", "exercise 01.ratio has 1 mutant(s)"),
])
def test_mutants_must_name_their_case(built, old, new, problem):
    edit(built.mutants, old, new)
    assert any(problem in p for p in check(["01"]))


def test_every_exercise_needs_cases_and_a_solution(built, course_folder):
    built.solutions.write_text(f"# %% exercise: 01.merge\n{MERGE}")
    assert check(["01"]) == ["01_merging: exercise 01.ratio has no solution in 01.py"]
    edit(course_folder / "course.yml", "toylib.RATIO", "toylib.PART")
    assert any("toylib.PART, which cannot be imported" in p for p in check(["01"]))


@pytest.mark.parametrize("line, problem", [
    ("import sys; print('careful', file=sys.stderr)", "writes to stderr: 'careful'"),
    ("print('/tmp/x')", "prints a path of this machine"),
    ("print('x' * 200_000)", "KB; 150 KB at most"),
])
def test_outputs_that_do_not_belong_in_a_release_are_named(course_folder, line, problem):
    lesson = load().lesson("01")
    edit(lesson.text, "print(merge", f"{line}\nprint(merge")
    assert re.search(re.escape(problem), "\n".join(sync(["01"])))


def test_pictures_lose_bytes_and_keep_what_is_seen():
    import io

    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    figure, raw = plt.figure(figsize=(4, 2)), io.BytesIO()
    figure.gca().plot(range(20), "o-", color="#e07a2d")
    figure.savefig(raw)
    plt.close(figure)
    small = base64.b64decode(notebooks.few_colours(base64.b64encode(raw.getvalue()).decode()))
    before, after = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int) for png in (raw.getvalue(), small)
    )
    assert len(small) < len(raw.getvalue()) / 2 and before.shape == after.shape
    assert abs(before - after).max() < 40 and abs(before - after).mean() < 1
