"""check and use, without a notebook: the cases judge a namespace."""

import random
import signal

import numpy as np
import pytest
from toycourse import MERGE, MUTANTS_1

from nanochat.course import check, use
from nanochat.course.checks.guard import TimeUp, time_limit
from nanochat.course.checks.judge import ExerciseFailed, judge


def answer(source: str) -> dict:
    """The namespace a cell with this source leaves behind."""
    import toylib

    return cell(source, {"__name__": "__main__", "toylib": toylib, "check": check, "use": use})


def cell(source: str, namespace: dict) -> dict:
    exec(source, namespace)  # noqa: S102  as a kernel does
    return namespace


GRADE_AND_USE = 'check("01.merge"); merge = use("01.merge")'


def mutants() -> dict[str, str]:
    parts = [part.partition("\n") for part in MUTANTS_1.split("# %% ")[1:]]
    return {head.split("mutant: ")[1].split()[0]: (head, body) for head, _, body in parts}


def test_a_right_answer_gets_all_points_and_is_used(course_folder, capsys):
    namespace = answer(MERGE)
    mine = namespace["merge"]
    cell(GRADE_AND_USE, namespace)
    assert namespace["merge"] is mine
    assert "✓ 01.merge  3/3 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    "stub",
    [
        'def merge(ids, pair, new):\n    """."""\n    raise NotImplementedError("01.merge")',
        "def merge(ids, pair, new): ...",
        'def merge(ids, pair, new):\n    """."""\n    pass',
        "merge = ...",
    ],
)
def test_a_stub_is_unattempted_and_the_library_is_used(course_folder, capsys, stub):
    import toylib

    namespace = answer(stub)
    cell(GRADE_AND_USE, namespace)
    assert namespace["merge"] is toylib.merge
    assert "○ 01.merge  0/3" in capsys.readouterr().out


def test_running_the_grade_cell_again_after_use_does_not_credit_the_library(course_folder):
    import toylib

    verdict = judge("01.merge", {"merge": toylib.merge})
    assert (verdict.status, verdict.points) == ("unattempted", 0)


@pytest.mark.parametrize("name", list(mutants()))
def test_each_mutant_fails_in_the_case_it_names(course_folder, name):
    head, body = mutants()[name]
    exercise, killer = head.split()[1], head.split("killed_by: ")[1].strip()
    verdict = judge(exercise, answer(body))
    assert verdict.points < verdict.out_of
    assert killer in [case.name for case in verdict.cases if not case.passed]


def test_the_guard_leaves_no_trace(course_folder):
    import toylib

    original = toylib.merge
    namespace = answer(mutants()["imported_name"][1])
    judge("01.merge", namespace)
    assert toylib.merge is original and namespace["library_merge"] is original


def test_an_oracle_may_use_the_guarded_library(course_folder):
    (course_folder / "toychecks" / "lesson01.py").write_text(
        "import toylib\n\ndef equals_library(merge):\n"
        "    assert merge([1, 2], (1, 2), 3) == toylib.merge([1, 2], (1, 2), 3)\n"
        'CASES = {"01.merge": [equals_library]}\n'
    )
    assert judge("01.merge", answer(MERGE)).passed


def test_judging_leaves_the_random_generators_alone(course_folder):
    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1), np.random.seed(1)
    judge("01.merge", answer(MERGE))
    assert (random.random(), np.random.rand()) == expected


def test_grade_mode_raises_one_line_for_missing_points(course_folder, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_MODE", "grade")
    with pytest.raises(ExerciseFailed, match="0/1 points") as raised:
        cell('check("01.ratio")', answer("ratio = 2"))
    assert len(raised.value._render_traceback_()) == 1
    cell('check("01.ratio")', answer("ratio = 3 / 9"))


def test_a_missing_name_says_so_and_costs_nothing_else(course_folder, capsys):
    cell(GRADE_AND_USE, answer(""))
    assert "there is no `merge`" in capsys.readouterr().out


def test_the_card_shows_what_failed_and_what_was_printed(course_folder):
    card = judge("01.merge", answer('def merge(ids, pair, new):\n    print("here")\n    return ids.nothing')).card()
    assert (
        "✗ worked_example" in card
        and "AttributeError" in card
        and "line 3 of your cell" in card
        and "printed: here" in card
    )


def test_the_time_limit_leaves_no_bell_behind(course_folder):
    """Cut many loops short at odd moments: a late bell would end this test."""
    for i in range(200):
        with pytest.raises(TimeUp), time_limit(0.001 + i * 1e-5):
            while True:
                try:
                    sum(range(20))
                except Exception:  # noqa: BLE001, S110  a learner's loop
                    pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
