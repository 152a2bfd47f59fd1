"""`nanochat grade --mutants` on the made-up course."""

from toycourse import MERGE

from nanochat.course import load
from nanochat.course.mutants import main, survivors


def test_every_mutant_of_the_made_up_course_dies_where_it_should(course_folder, capsys):
    assert main() == 0
    assert "✓ 01 Merging: 2 solutions, 8 mutants" in capsys.readouterr().out


def test_a_mutant_that_survives_dies_elsewhere_or_costs_a_neighbour_is_reported(course_folder):
    lesson = load().lesson("01")
    lesson.mutants.write_text(
        f"# %% exercise: 01.merge  mutant: right  killed_by: worked_example\n{MERGE}\n"
        "# %% exercise: 01.merge  mutant: elsewhere  killed_by: leaves_input_alone\n"
        "def merge(ids, pair, new):\n    return []\n"
        "# %% exercise: 01.merge  mutant: spilling  killed_by: worked_example\n"
        f"{MERGE.replace('return out', 'return []')}\nratio = 7\n"
    )
    others = ("worked_example", "equals_slow_merge")
    assert survivors(lesson) == [
        "mutant right of 01.merge gets full marks",
        f"mutant elsewhere of 01.merge should fail in leaves_input_alone, but fails in {', '.join(others)}",
        "mutant spilling of 01.merge costs its neighbour 01.ratio",
    ]


def test_a_wrong_solution_is_reported(course_folder):
    lesson = load().lesson("01")
    lesson.solutions.write_text(lesson.solutions.read_text().replace("3 / 9", "3 / 8"))
    assert any("the solution of 01.ratio gets 0/1" in problem for problem in survivors(lesson))
