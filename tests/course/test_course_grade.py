"""Marking by nbval on the made-up course: stub, solutions, mutants, tampering."""

import nbformat
import pytest
from toycourse import MERGE

from nanochat.course import load, notebooks
from nanochat.course.grade import assembled, grade, grades, main, mark, with_solutions
from nanochat.runtime import UserError


def points(marks) -> dict[str, int]:
    return {m.exercise.id: m.points for m in marks.marks}


def released(number: str = "01"):
    return notebooks.from_text(load().lesson(number).text)


def cell(nb, tag: str):
    return next(c for c in nb.cells if tag in notebooks.tags(c))


def test_the_released_lessons_get_nothing_and_run_to_their_end(course_folder):
    first, second = grade(quick=True)
    assert points(first) == {"01.merge": 0, "01.ratio": 0} and first.failures == []
    assert {m.status for m in first.marks + second.marks} == {"unattempted"}


def test_the_solutions_get_full_marks_with_the_whole_notebook(course_folder, capsys):
    assert main("", solutions=True, quick=False) == 0
    out = capsys.readouterr().out
    assert "6 of 6 points" in out
    assert "! a cell failed: FileNotFoundError" in out, (
        "lesson 02 reads what lesson 01 leaves in a run, and there is none"
    )


def test_a_mutant_loses_marks_in_its_named_case_and_costs_no_neighbour(course_folder):
    lesson = load().lesson("01")
    head, source = next((f, s) for f, s in notebooks.chunks(lesson.mutants) if f["mutant"] == "endless")
    marks = mark(lesson, with_solutions(lesson, replace={head["exercise"]: source}), quick=True)
    mine = next(m for m in marks.marks if m.exercise.id == head["exercise"])
    assert mine.points < mine.exercise.points and head["killed_by"] in mine.why
    assert all(m.points == m.exercise.points for m in marks.marks if m is not mine)


def test_a_syntax_error_costs_only_its_own_exercise(course_folder):
    nb = with_solutions(load().lesson("01"), replace={"01.merge": "def merge(:"})
    assert points(mark(load().lesson("01"), nb, quick=True)) == {"01.merge": 0, "01.ratio": 1}


def test_an_endless_loop_outside_the_function_costs_only_its_own_exercise(course_folder, monkeypatch):
    monkeypatch.setattr("nanochat.course.grade.QUICK_CELL_TIMEOUT", 3)
    nb = with_solutions(load().lesson("01"), replace={"01.merge": "while True: pass"})
    assert points(mark(load().lesson("01"), nb, quick=True)) == {"01.merge": 0, "01.ratio": 1}


def test_a_tampered_copy_gets_nothing(course_folder):
    nb = released()
    cell(nb, "grade:01.merge").source = "print('3/3')"
    cell(nb, "grade:01.ratio").metadata["tags"] = ["grade:01.ratio", "nbval-skip"]
    cell(nb, "setup").source += "\ncheck = lambda exercise: None"
    nb.cells.append(nbformat.v4.new_code_cell("pass", metadata={"tags": ["grade:01.merge"]}))
    assert points(mark(load().lesson("01"), nb, quick=True)) == {"01.merge": 0, "01.ratio": 0}


def test_deleted_cells_come_back_and_helpers_survive(course_folder):
    nb = released()
    cell(nb, "exercise:01.merge").source = MERGE.replace("out = []", "out = empty()")
    nb.cells.insert(3, nbformat.v4.new_code_cell("def empty():\n    return []"))
    nb.cells = [c for c in nb.cells if not {"grade:01.merge", "exercise:01.ratio"} & set(notebooks.tags(c))]
    assert points(mark(load().lesson("01"), nb, quick=True)) == {"01.merge": 3, "01.ratio": 0}


def test_protected_cells_are_known_by_their_id_when_their_tags_are_lost(course_folder):
    nb = released()
    for c in nb.cells:
        c.metadata.pop("tags", None)
    again = assembled(released(), nb)
    assert [notebooks.tags(c) for c in again.cells] == [
        notebooks.tags(c) for c in released().cells if c.cell_type == "code"
    ]


def test_marking_touches_neither_notebook_nor_runs(course_folder):
    lesson = load().lesson("01")
    notebooks.write(with_solutions(lesson), lesson.notebook)
    before = lesson.notebook.read_bytes()
    assert main(str(lesson.notebook), solutions=False, quick=True) == 0
    assert lesson.notebook.read_bytes() == before
    assert [p.name for p in (course_folder / "runs").iterdir()] == ["grades.json"]
    assert grades() == {"01": {"points": 4, "out_of": 4}}


def test_what_cannot_be_marked_is_named_in_one_line(course_folder):
    with pytest.raises(UserError, match="no lesson '07'; choose one of 01, 02"):
        grade("07")
    with pytest.raises(UserError, match=r"nothing\.ipynb does not exist"):
        grade("nothing.ipynb")
    (course_folder / "torn.ipynb").write_text("{")
    with pytest.raises(UserError, match="not a readable notebook"):
        grade(str(course_folder / "torn.ipynb"))
