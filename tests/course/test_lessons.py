"""The nine lessons themselves: text and notebook agree, stubs get nothing, solutions all, mutants die in their case."""

import pytest

from nanochat.course import load, notebooks
from nanochat.course.grade import mark, with_solutions
from nanochat.course.mutants import survivors
from nanochat.course.sync import check

LESSONS = [lesson.id for lesson in load().lessons]


@pytest.mark.parametrize("number", LESSONS)
def test_the_built_notebook_agrees_with_its_text_and_keeps_the_rules(number):
    assert check([number]) == []


@pytest.mark.parametrize("number", LESSONS)
def test_every_mutant_fails_in_its_case_and_costs_no_neighbour(number):
    lesson = load().lesson(number)
    assert len(lesson.exercises) >= 3
    assert survivors(lesson) == []


@pytest.mark.parametrize("number", LESSONS)
def test_the_released_notebook_gets_nothing_and_the_solutions_full_marks(number):
    lesson = load().lesson(number)
    stub = mark(lesson, notebooks.read(lesson.notebook), quick=True)
    assert {m.exercise.id: m.status for m in stub.marks} == {e.id: "unattempted" for e in lesson.exercises}
    assert stub.points == 0 and stub.failures == []
    solved = mark(lesson, with_solutions(lesson), quick=True)
    assert solved.full and solved.failures == [], solved.table()
