"""Marking: the learner's notebook with its protected cells put back, executed by nbval, turned into points.

    nanochat grade 01                      notebooks/01_bytes_and_bpe.ipynb
    nanochat grade my/copy.ipynb --quick   only what is graded, no training
    nanochat grade --solutions             the released lessons with the reference solutions in them: full marks

Marking happens in a temporary folder with a run of its own; neither the notebook nor a run is touched. What the lesson
needs from earlier ones is linked in from the run of the notebook's scale, where that is there.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nanochat.course import notebooks
from nanochat.course.manifest import Exercise, Lesson, load
from nanochat.course.sync import SCALE
from nanochat.runtime import UserError, open_run, read_json, say, write_json
from nanochat.runtime.run import runs_folder

QUICK_CELL_TIMEOUT = 60


@dataclass
class Mark:
    """Points of one exercise, and why some are missing."""

    exercise: Exercise
    points: int
    status: str                 # passed, failed, unattempted, no result
    why: str = ""


@dataclass
class Marks:
    lesson: Lesson
    marks: list[Mark]
    failures: list[list[str]] = field(default_factory=list)    # cells beside the exercises that raised

    @property
    def points(self) -> int:
        return sum(mark.points for mark in self.marks)

    @property
    def full(self) -> bool:
        return self.points == self.lesson.points

    def table(self) -> str:
        sign = {"passed": "✓", "failed": "✗", "unattempted": "○", "no result": "✗"}
        lines = [f"{self.lesson.id} {self.lesson.title}: {self.points} of {self.lesson.points} points"]
        for mark in self.marks:
            score = f"{mark.points}/{mark.exercise.points}"
            lines.append(f"  {sign[mark.status]} {mark.exercise.id:<24} {score:>5}  {mark.why}".rstrip())
        lines += [f"  ! a cell{f' ({tags})' if tags else ''} failed: {error}" for tags, error in self.failures]
        return "\n".join(lines)


def grade(target: str = "", *, solutions: bool = False, quick: bool = False) -> list[Marks]:
    """Mark one notebook (a lesson's number or a path), or every lesson's when `target` is empty."""
    if target.endswith(".ipynb") or os.sep in target:
        path = Path(target)
        nb = notebooks.read(path)
        found = [(_lesson_of(path, nb), nb)]
    else:
        course = load()
        lessons = [course.lesson(target)] if target else course.lessons
        found = [(lesson, None if solutions else _own_notebook(lesson)) for lesson in lessons]
    results = []
    for lesson, nb in found:
        say(f"  marking {lesson.stem} …")
        results.append(mark(lesson, with_solutions(lesson, nb) if solutions else nb, quick=quick))
    return results


def _own_notebook(lesson: Lesson) -> NotebookNode:
    """The notebook as it lies in notebooks/; before it is built, the text says the same."""
    return notebooks.read(lesson.notebook) if lesson.notebook.exists() else notebooks.from_text(lesson.text)


def _lesson_of(path: Path, nb: NotebookNode) -> Lesson:
    ids = [id_ for cell in nb.cells for prefix in ("grade", "exercise") if (id_ := notebooks.tag(cell, prefix))]
    if not ids and not path.name[:2].isdigit():
        raise UserError(f"{path} is no lesson of the course: it has no exercise cells and its name has no number")
    return load().lesson(ids[0][:2] if ids else path.name[:2])


def with_solutions(
    lesson: Lesson, nb: NotebookNode | None = None, replace: dict[str, str] | None = None
) -> NotebookNode:
    """The notebook with the reference solutions in its exercise cells; `replace` puts other answers over them."""
    nb = nb or notebooks.from_text(lesson.text)
    answers = notebooks.solutions(lesson) | (replace or {})
    for cell in nb.cells:
        if (id_ := notebooks.tag(cell, "exercise")) in answers:
            cell.source = answers[id_]
    return nb


def mark(lesson: Lesson, nb: NotebookNode, *, quick: bool = False) -> Marks:
    """Mark one notebook of `lesson`."""
    released = notebooks.from_text(lesson.text)
    nb = assembled(released, nb)
    if quick:
        nb = only_graded(released, nb)
    with tempfile.TemporaryDirectory(prefix="nanochat-grade-") as work:
        outcome = _run_nbval(lesson, nb, Path(work), quick)
    return Marks(lesson, [_mark(exercise, outcome["grades"].get(exercise.id)) for exercise in lesson.exercises],
                 outcome["failures"])


def _mark(exercise: Exercise, verdict: dict | None) -> Mark:
    if verdict is None:
        return Mark(exercise, 0, "no result", "no result: its cell did not run")
    points = max(0, min(exercise.points, int(verdict["points"])))
    failing = [case["name"] for case in verdict["cases"] if not case["passed"]]
    return Mark(exercise, points, verdict["status"], ", ".join(failing) or verdict["note"])


def assembled(released: NotebookNode, learner: NotebookNode) -> NotebookNode:
    """The learner's notebook with every protected cell as released, in its place.

    The learner's answers and own cells are kept; second copies of protected cells and tags that steer nbval are
    dropped; cells that were deleted come back after the released cell they followed.
    """
    fixed = {_key(cell): cell for cell in released.cells if _key(cell)}
    by_id = {cell.id: key for key, cell in fixed.items()}
    cells, done = [], set()
    for cell in learner.cells:
        key = _key(cell) or by_id.get(cell.get("id", ""))
        if key in fixed and key not in done:
            done.add(key)
            new = nbformat.v4.new_code_cell(fixed[key].source, metadata={"tags": list(notebooks.tags(fixed[key]))})
            if key.startswith("exercise:"):
                new.source = cell.source
            new.id = fixed[key].id
            cells.append(new)
        elif cell.cell_type == "code" and not notebooks.protected_tag(cell):
            new = nbformat.v4.new_code_cell(cell.source)
            new.id = cell.get("id", new.id)
            cells.append(new)
    before = None
    for key, cell in fixed.items():
        if key not in done:
            at = next((i + 1 for i, c in enumerate(cells) if _key(c) == before), 0) if before else 0
            cells.insert(at, nbformat.v4.new_code_cell(cell.source, metadata={"tags": list(notebooks.tags(cell))}))
        before = key
    nb = nbformat.v4.new_notebook(cells=cells, metadata=released.metadata)
    return notebooks.tidy(nb)


def _key(cell: NotebookNode) -> str | None:
    return notebooks.protected_tag(cell) or next((t for t in notebooks.tags(cell) if t.startswith("exercise:")), None)


def only_graded(released: NotebookNode, nb: NotebookNode) -> NotebookNode:
    """What grading needs: protected and exercise cells, the learner's own cells, and from the lesson's other cells the
    imports, functions, classes and constants. No training, no plots."""
    lesson_cells = {cell.source for cell in released.cells}
    lesson_ids = {cell.id for cell in released.cells}
    cells = []
    for cell in nb.cells:
        if not _key(cell) and (cell.source in lesson_cells or cell.id in lesson_ids):
            cell.source = _definitions(cell.source)
        if cell.source.strip():
            cells.append(cell)
    nb.cells = cells
    return nb


def _definitions(source: str) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    kept = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
            or (isinstance(node, ast.Assign) and _is_literal(node.value))]
    return ast.unparse(ast.Module(kept, []))


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _run_nbval(lesson: Lesson, nb: NotebookNode, work: Path, quick: bool) -> dict:
    notebook, out = work / f"{lesson.stem}.ipynb", work / "grades.json"
    notebooks.write(nb, notebook)
    (work / "pytest.ini").write_text("[pytest]\n")
    run = open_run(work / "run", scale=SCALE, seed=0, create=True)
    _link_needs(lesson, run.path)
    env = {**os.environ, **notebooks.HEADLESS, "COURSE_MODE": "grade", "COURSE_RUN": str(run.path),
           "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    timeout = QUICK_CELL_TIMEOUT if quick else load().defaults.cell_timeout_s
    command = [sys.executable, "-m", "pytest", "-p", "nbval.plugin", "-p", "nanochat.course.pytest_plugin",
               "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={timeout:g}",
               f"--course-grade={out}", "-q", "-c", str(work / "pytest.ini"), "--rootdir", str(work), str(notebook)]
    done = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True, check=False)
    if not out.exists():
        raise UserError(
            f"marking {lesson.stem} did not finish: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        )
    return json.loads(out.read_text())


def _link_needs(lesson: Lesson, run: Path) -> None:
    """Links to what the lesson needs, from the learner's run; loading a model writes nothing."""
    course, source = load(), runs_folder() / SCALE
    for path in ["data", *(course.artifacts[name].path for name in lesson.needs)]:
        if (source / path).exists():
            (run / path).symlink_to(source / path)


def main(target: str, solutions: bool, quick: bool) -> int:
    """The command: print the tables, remember the points, exit code 0 only for full marks."""
    results = grade(target, solutions=solutions, quick=quick)
    for marks in results:
        say(marks.table())
    points, out_of = sum(m.points for m in results), sum(m.lesson.points for m in results)
    if len(results) > 1:
        say(f"{points} of {out_of} points")
    if not solutions:
        _remember(results)
    return 0 if all(marks.full for marks in results) else 1


def _remember(results: list[Marks]) -> None:
    write_json(
        grades_file(), grades() | {m.lesson.id: {"points": m.points, "out_of": m.lesson.points} for m in results}
    )


def grades_file() -> Path:
    return runs_folder() / "grades.json"


def grades() -> dict[str, dict]:
    """The points of the notebooks graded last: {"01": {"points": 8, "out_of": 10}}."""
    return read_json(grades_file()) if grades_file().exists() else {}
