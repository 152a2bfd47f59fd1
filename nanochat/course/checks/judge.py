"""Judging one exercise: run its cases on the learner's object, show a card, hand on the object that works.

`check` never raises in a normal run, so that a notebook runs to its end with nothing attempted. With
COURSE_MODE=grade it raises ExerciseFailed for any missing point: that is what nbval counts.
"""

import contextlib
import importlib
import io
import os
import sys
import zlib
from dataclasses import asdict, dataclass, field
from types import FunctionType, ModuleType

from nanochat.course.checks.guard import TimeUp, WriteItYourself, guarded, own_randomness, resolve, time_limit
from nanochat.course.manifest import Exercise, load
from nanochat.runtime import UserError

GRADE_MIME = "application/vnd.course.grade+json"
MISSING = object()
_verdicts: dict[str, tuple[object, "Verdict"]] = {}    # exercise -> (object judged, verdict); for `use`


class ExerciseFailed(Exception):
    """Raised by check() in grade mode; IPython shows its one line and no traceback."""

    def _render_traceback_(self):
        return [str(self)]


@dataclass
class CaseResult:
    name: str
    demands: str               # the case's docstring
    passed: bool
    why: str = ""
    printed: str = ""          # the first lines the learner's code printed, if it failed


@dataclass
class Verdict:
    """What the judge found. status: "passed", "failed" or "unattempted"."""

    exercise: str
    status: str
    points: int
    out_of: int
    note: str = ""
    cases: list[CaseResult] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def card(self) -> str:
        """What the learner reads."""
        mark = {"passed": "✓", "failed": "✗", "unattempted": "○"}[self.status]
        lines = [
            f"{mark} {self.exercise}  {self.points}/{self.out_of} points" + (f"  {self.note}" if self.note else "")
        ]
        if self.status == "failed":
            width = max((len(case.name) for case in self.cases), default=0)
            for case in self.cases:
                lines.append(f"  {'✓' if case.passed else '✗'} {case.name:<{width}}  {case.demands}".rstrip())
                lines += [f"      {line}" for line in case.why.splitlines()]
                lines += [f"      printed: {line}" for line in case.printed.splitlines()]
        return "\n".join(lines)


def judge(exercise_id: str, namespace: dict) -> Verdict:
    """Run the cases of an exercise on the object of its name in `namespace`."""
    course = load()
    exercise = course.exercise(exercise_id)
    cases_module, cases = load_cases(exercise_id)
    answer = namespace.get(exercise.name, MISSING)
    reference, _, _ = resolve(exercise.reference)
    if answer is MISSING:
        return _verdict(exercise, "failed", f"there is no `{exercise.name}`: does the cell above run?")
    if answer is reference and callable(reference):
        return _verdict(exercise, "unattempted", "this is the library's: write yours, run its cell, then this one")
    if _is_blank(answer):
        return _verdict(exercise, "unattempted", "not attempted yet")
    limit = exercise.timeout_s or course.defaults.case_timeout_s
    results = []
    try:
        with guarded([exercise.reference, *exercise.guards], namespace, cases_module):
            for case in cases:
                results.append(_run_case(case, answer, limit))
    except NotImplementedError:
        return _verdict(exercise, "unattempted", "not attempted yet")
    passed = sum(result.passed for result in results)
    status = "passed" if passed == len(results) else "failed"
    return _verdict(exercise, status, cases=results, points=exercise.points * passed // len(results))


def load_cases(exercise_id: str) -> tuple[ModuleType, list[FunctionType]]:
    """The module that holds an exercise's cases, and the cases. Raises UserError where they are missing."""
    name = f"{load().checks}.lesson{exercise_id[:2]}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"exercise {exercise_id} has no cases: {name} does not exist") from None
    cases = module.CASES.get(exercise_id)
    if not cases:
        raise UserError(f"exercise {exercise_id} has no cases in {name}.CASES")
    return module, cases


def _verdict(exercise: Exercise, status: str, note: str = "", cases=(), points: int = 0) -> Verdict:
    return Verdict(exercise.id, status, points, exercise.points, note, list(cases))


def _is_blank(answer) -> bool:
    """`...` for a value, or a function whose body is `...` or `pass` after the docstring."""
    if answer is ...:
        return True
    code = getattr(answer, "__code__", None)

    def bare(): ...

    def documented():
        """."""

    return code is not None and code.co_code in (bare.__code__.co_code, documented.__code__.co_code) and (
        code.co_consts[-1:] == (None,))


def _run_case(case, answer, limit: float) -> CaseResult:
    demands = (case.__doc__ or "").strip().split("\n")[0]
    printed = _FirstLines()
    try:
        with own_randomness(zlib.crc32(case.__name__.encode())), contextlib.redirect_stdout(printed), time_limit(limit):
            case(answer)
        return CaseResult(case.__name__, demands, True)
    except NotImplementedError:
        raise
    except TimeUp:
        why = f"no answer after {limit:g} s"
    except WriteItYourself as error:
        why = str(error)
    except AssertionError as error:
        why = str(error) or "the assertion does not hold"
    except SystemExit:
        why = "your code called exit"
    except Exception as error:  # noqa: BLE001  whatever the learner's code raises is a finding
        why = _describe(error)
    return CaseResult(case.__name__, demands, False, _shorten(why), printed.text())


def _describe(error: Exception) -> str:
    """The exception in one line, with the learner's line it came from."""
    line, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module == "__main__":
            line = f" (line {trace.tb_lineno} of your cell)"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{line}"


def _shorten(text: str, lines: int = 6, width: int = 160) -> str:
    kept = text.strip().splitlines()
    kept = [line if len(line) <= width else line[: width - 1] + "…" for line in kept]
    return "\n".join(kept[:lines] + (["…"] if len(kept) > lines else []))


class _FirstLines(io.StringIO):
    """Keeps the first characters written and drops the rest: a loop that prints forever must not fill the memory."""

    def write(self, text: str) -> int:
        if self.tell() < 2000:
            super().write(text[:2000])
        return len(text)

    def text(self) -> str:
        return _shorten(self.getvalue(), lines=4)


def check(exercise_id: str) -> None:
    """Judge the learner's answer to `exercise_id` and show a card. In grade mode raise for any missing point."""
    namespace = sys._getframe(1).f_globals
    exercise = load().exercise(exercise_id)
    verdict = judge(exercise_id, namespace)
    _verdicts[exercise_id] = (namespace.get(exercise.name, MISSING), verdict)
    _show(verdict)
    if os.environ.get("COURSE_MODE") == "grade" and not verdict.passed:
        raise ExerciseFailed(verdict.card().splitlines()[0])


def use(exercise_id: str):
    """The learner's object if it passes its cases, else the library's."""
    namespace = sys._getframe(1).f_globals
    exercise = load().exercise(exercise_id)
    answer = namespace.get(exercise.name, MISSING)
    judged, verdict = _verdicts.get(exercise_id, (None, None))
    if verdict is None or judged is not answer:
        verdict = judge(exercise_id, namespace)
        _verdicts[exercise_id] = (answer, verdict)
    if verdict.passed:
        print(f"{exercise.name}: yours")
        return answer
    print(f"{exercise.name}: the library's, until yours passes")
    return resolve(exercise.reference)[0]


def _show(verdict: Verdict) -> None:
    """The card as text; in a notebook with the verdict as data beside it (front ends ignore unknown MIME types)."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(verdict.card())
    else:
        ipython.display.display({"text/plain": verdict.card(), GRADE_MIME: asdict(verdict)}, raw=True)
