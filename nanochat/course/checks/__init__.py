"""Exercises in a notebook: `check("01.merge")` judges, `merge = use("01.merge")` takes the learner's or the library's.

One file a lesson, `lessonNN.py`, holds the cases. A case is a plain function that takes the learner's object, tells
in its docstring what it demands, and asserts it:

    def leaves_input_alone(merge):
        "the list you were given stays as it was"
        ids = random.choices(range(4), k=50)
        before = list(ids)
        merge(ids, (1, 2), 9)
        assert ids == before, f"merge changed its input: {ids[:8]}… was {before[:8]}…"

    CASES = {"01.merge": [worked_example, leaves_input_alone, equals_slow_merge]}

`random`, numpy and torch are seeded by the case's name before it runs, and put back afterwards. The oracle must be
independent of the library function the exercise is about.
"""

from nanochat.course.checks.judge import ExerciseFailed, Verdict, check, judge, use

__all__ = ["ExerciseFailed", "Verdict", "check", "judge", "use"]
