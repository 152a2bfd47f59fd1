"""Wrong answers, tried on purpose: `nanochat grade 01 --mutants` proves that the checks see what they claim to see.

A mutant is a plausible mistake in tests/mutants/NN.py; its header names the case that must catch it. All of a
lesson's are judged in one process, in the namespace the lesson's definitions and the reference solutions make; a
mutant must lose marks in its case, and every other exercise must keep full marks.
"""

from types import ModuleType

import nbformat

from nanochat.course import notebooks
from nanochat.course.checks.judge import judge
from nanochat.course.grade import assembled, only_graded, with_solutions
from nanochat.course.manifest import Lesson, load
from nanochat.runtime import say


def survivors(lesson: Lesson) -> list[str]:
    """What is wrong with the lesson's solutions and mutants, one line each; empty when every mutant dies."""
    problems = []
    clean = _namespace(lesson)
    for exercise in lesson.exercises:
        verdict = judge(exercise.id, dict(clean))
        if not verdict.passed:
            problems.append(f"the solution of {exercise.id} gets {verdict.points}/{verdict.out_of}:\n{verdict.card()}")
    for fields, source in notebooks.chunks(lesson.mutants):
        id_, name, killer = fields["exercise"], fields.get("mutant"), fields.get("killed_by")
        namespace = dict(clean)
        _run(source, namespace)
        verdict = judge(id_, namespace)
        failing = [case.name for case in verdict.cases if not case.passed]
        if verdict.points >= verdict.out_of:
            problems.append(f"mutant {name} of {id_} gets full marks")
        elif killer not in failing:
            problems.append(
                f"mutant {name} of {id_} should fail in {killer}, but fails in {', '.join(failing) or verdict.note}"
            )
        namespace[load().exercise(id_).name] = clean[load().exercise(id_).name]        # what use() would give
        for other in lesson.exercises:
            if other.id != id_ and not judge(other.id, namespace).passed:
                problems.append(f"mutant {name} of {id_} costs its neighbour {other.id}")
    return problems


def _namespace(lesson: Lesson) -> dict:
    """What the kernel holds when the lesson's definitions and the solutions have run."""
    released = notebooks.from_text(lesson.text)
    nb = only_graded(released, assembled(released, with_solutions(lesson, nbformat.from_dict(released))))
    namespace = vars(ModuleType("__main__"))
    for cell in nb.cells:
        if not notebooks.protected_tag(cell):
            _run(cell.source, namespace)
    return namespace


def _run(source: str, namespace: dict) -> None:
    exec(compile(source, "<cell>", "exec"), namespace)  # noqa: S102  our own text, as a kernel would run it


def main(target: str = "") -> int:
    """The command: every problem on a line; exit code 1 when there is one."""
    course = load()
    problems = []
    for lesson in [course.lesson(target)] if target else course.lessons:
        found = survivors(lesson)
        count = len(notebooks.chunks(lesson.mutants))
        say(f"{'✗' if found else '✓'} {lesson.id} {lesson.title}: {len(lesson.exercises)} solutions, {count} mutants")
        problems += found
    for problem in problems:
        say(f"  {problem}")
    return int(bool(problems))
