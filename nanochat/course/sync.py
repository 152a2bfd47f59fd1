"""Text and notebook in step: `nanochat sync` builds notebooks/NN_x.ipynb from NN_x.py, `--check` proves they agree.

Building executes the text at toy scale and writes it with its outputs, normalised, so that building twice gives the
same file (but for lines that print a time). Checking executes nothing and looks at no clock: it compares the cells,
the hash of the code that was executed, and the rules a released notebook keeps.
"""

import ast
import os
import re
import sys
import time
from pathlib import Path

from nbformat import NotebookNode

from nanochat.course import notebooks
from nanochat.course.checks.guard import resolve
from nanochat.course.checks.judge import load_cases
from nanochat.course.manifest import Lesson, load, root
from nanochat.runtime import UserError, say

SCALE = "toy"
MAX_BYTES, MAX_CELLS, MAX_FIGURES = 150_000, 150, 6
WIDGET = "application/vnd.jupyter.widget-view+json"


def sync(lesson_ids: list[str] | None = None, *, execute: bool = True, run: str = "") -> list[str]:
    """Build the notebooks of the given lessons (all by default); returns the problems left, one line each.

    With execute=False the cells are written without outputs: quick while writing, refused by check().
    """
    problems = []
    for lesson in _lessons(lesson_ids):
        nb = notebooks.from_text(lesson.text)
        faults = text_problems(lesson, nb)
        if faults:
            problems += [f"{lesson.stem}: {fault}" for fault in faults]
            say(f"✗ {lesson.stem}: not built, {len(faults)} problem(s) in its text")
            continue
        start = time.perf_counter()
        if execute:
            say(f"  {lesson.stem}: executing at {SCALE} scale …")
            failure = _execute(nb, lesson, run)
            if failure:
                problems.append(f"{lesson.stem}: {failure}")
                say(f"✗ {lesson.stem}: {failure}; the notebook is as it was")
                continue
        notebooks.write(nb, lesson.notebook)
        faults = output_problems(lesson, nb) if execute else []
        problems += [f"{lesson.stem}: {fault}" for fault in faults]
        say(f"{'✗' if faults else '✓'} {lesson.stem}: {_summary(nb, lesson)}, {time.perf_counter() - start:.0f} s"
            + ("" if execute else " (no outputs)"))
    return problems


def check(lesson_ids: list[str] | None = None) -> list[str]:
    """What keeps the built notebooks from being released, one line each. Executes no notebook."""
    problems = []
    for lesson in _lessons(lesson_ids):
        faults = _check(lesson)
        problems += [f"{lesson.stem}: {fault}" for fault in faults]
    return problems


def _lessons(ids: list[str] | None) -> list[Lesson]:
    course = load()
    return [course.lesson(i) for i in ids] if ids else course.lessons


def _check(lesson: Lesson) -> list[str]:
    if not lesson.text.exists():
        return [f"no text: {lesson.text.name} is missing"]
    if not lesson.notebook.exists():
        return ["not built: run `nanochat sync " + lesson.id + "`"]
    text, built = notebooks.from_text(lesson.text), notebooks.read(lesson.notebook)
    problems = text_problems(lesson, text) + exercise_problems(lesson)
    ours, theirs = [[_plain(cell) for cell in nb.cells] for nb in (text, built)]
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        problems.append(f"differs from its text from cell {at} on: run `nanochat sync {lesson.id}`")
    elif [cell.id for cell in built.cells] != [cell.id for cell in text.cells]:
        problems.append(f"has foreign cell ids: run `nanochat sync {lesson.id}`")
    stamp = built.metadata.get("course", {}).get("executed")
    if notebooks.unrun(built) is not None or not stamp:
        problems.append("was not executed, or its outputs were stripped")
    elif stamp != notebooks.code_hash(built):
        problems.append("its outputs belong to another version of its code")
    return problems + output_problems(lesson, built)


def _plain(cell: NotebookNode) -> tuple:
    return cell.cell_type, cell.source, tuple(notebooks.tags(cell))


def text_problems(lesson: Lesson, nb: NotebookNode) -> list[str]:
    """What is wrong with a lesson's cells as written."""
    problems = []
    first = nb.cells[0] if nb.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith(f"# {lesson.id} "):
        problems.append(f"the first cell must be markdown and begin with `# {lesson.id} Title`")
    problems += _parameter_problems(nb)
    if not any("setup" in notebooks.tags(cell) for cell in nb.cells):
        problems.append("no cell is tagged setup")
    problems += _exercise_cell_problems(lesson, nb)
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            problems += [f"cell {i}: {fault}" for fault in _code_faults(cell)]
    return problems


def _parameter_problems(nb: NotebookNode) -> list[str]:
    cells = [cell for cell in nb.cells if "parameters" in notebooks.tags(cell)]
    if len(cells) != 1:
        return [f"{len(cells)} cells are tagged parameters, not 1"]
    try:
        values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cells[0].source).body}
    except (SyntaxError, ValueError, AttributeError):
        return ["the parameters cell must hold literals only: papermill overrides them in a cell of its own"]
    wanted = {"SCALE": SCALE, "RUN": "", "SEED": 0}
    return [] if values == wanted else [f"the parameters cell must set {wanted}, not {values}"]


def _exercise_cell_problems(lesson: Lesson, nb: NotebookNode) -> list[str]:
    """Tags and course.yml must name the same exercises, each with its three cells in order."""
    problems = []
    found = [(prefix, id_) for cell in nb.cells for prefix in ("exercise", "grade", "use")
             if (id_ := notebooks.tag(cell, prefix))]
    known = {exercise.id: exercise for exercise in lesson.exercises}
    for id_ in dict.fromkeys(id_ for _, id_ in found):
        if id_ not in known:
            problems.append(f"exercise {id_} is not in course.yml; add {_entry(id_, nb)}")
    for id_, exercise in known.items():
        if [prefix for prefix, i in found if i == id_] != ["exercise", "grade", "use"]:
            problems.append(
                f"exercise {id_} of course.yml needs one cell each tagged exercise:, grade: and use:, in this order"
            )
            continue
        cells = {prefix: cell for cell in nb.cells for prefix in ("grade", "use") if notebooks.tag(cell, prefix) == id_}
        for prefix, source in (("grade", f'check("{id_}")'), ("use", f'{exercise.name} = use("{id_}")')):
            if cells[prefix].source.strip() != source:
                problems.append(f"cell {prefix}:{id_} must read {source}")
    return problems


def _entry(id_: str, nb: NotebookNode) -> str:
    """A line for course.yml, read off the exercise box: `· 3 points · ●●○ · about 6 lines · 10 min`."""
    box = next((c.source for c in nb.cells if c.cell_type == "markdown" and f"**Exercise {id_}**" in c.source), "")
    number = {k: (re.search(p, box) or [None, "?"])[1] for k, p in
              {"points": r"(\d+) point", "lines": r"about (\d+) line", "minutes": r"(\d+) min"}.items()}
    stub = next((c.source for c in nb.cells if notebooks.tag(c, "exercise") == id_), "")
    name = (re.search(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=", stub, re.MULTILINE) or ["", "?", None])
    return (f'{{id: "{id_}", name: {name[1] or name[2]}, points: {number["points"]}, level: {box.count("●") or "?"}, '
            f'lines: {number["lines"]}, minutes: {number["minutes"]}, reference: ?, guards: []}}')


def _code_faults(cell: NotebookNode) -> list[str]:
    faults = []
    source = cell.source
    if re.search(r"^\s*!|^%", source, re.MULTILINE):
        faults.append("shell escapes and magics pass even when they fail: use Python")
    if "# %%" in source:
        faults.append("a literal `# %%` breaks the text format")
    if re.search(r"\b(sys\.exit|exit|quit|input)\(", source) and not notebooks.protected_tag(cell):
        faults.append("no sys.exit and no input() in a notebook that runs headless")
    if re.search(r"\bplt\.(subplots|figure)\(", source) and "plt.show()" not in source:
        faults.append("a plot cell calls plt.show()")
    return faults


def exercise_problems(lesson: Lesson) -> list[str]:
    """Every exercise has a reference, cases, a solution and at least two mutants that name the case that kills them."""
    problems = []
    try:
        solved = notebooks.solutions(lesson) if lesson.exercises else {}
        mutants = [fields for fields, _ in notebooks.chunks(lesson.mutants)] if lesson.exercises else []
    except UserError as error:
        return [str(error)]
    for exercise in lesson.exercises:
        try:
            for path in (exercise.reference, *exercise.guards):
                resolve(path)
            names = [case.__name__ for case in load_cases(exercise.id)[1]]
        except UserError as error:
            problems.append(str(error))
            continue
        if exercise.id not in solved:
            problems.append(f"exercise {exercise.id} has no solution in {lesson.solutions.name}")
        mine = [m for m in mutants if m["exercise"] == exercise.id]
        if len(mine) < 2:
            problems.append(f"exercise {exercise.id} has {len(mine)} mutant(s); two at least")
        problems += [
            f"mutant {m.get('mutant')} of {exercise.id} is killed_by {m.get('killed_by')!r}, which is none of its cases"
            for m in mine
            if m.get("killed_by") not in names
        ]
    return problems


def output_problems(lesson: Lesson, nb: NotebookNode) -> list[str]:
    """What is wrong with the outputs of a built notebook."""
    problems = []
    size = len(notebooks.nbformat.writes(nb, version=4).encode())
    if size > MAX_BYTES:
        problems.append(f"is {size // 1000} KB; {MAX_BYTES // 1000} KB at most")
    if len(nb.cells) > MAX_CELLS:
        problems.append(f"has {len(nb.cells)} cells; {MAX_CELLS} at most")
    if (figures := _figures(nb)) > MAX_FIGURES:
        problems.append(f"has {figures} figures; {MAX_FIGURES} at most")
    private = re.compile(
        "|".join(re.escape(p) for p in {str(Path.home()), str(root().resolve())} if p != "/") + r"|/tmp/"
    )
    for i, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                problems.append(f"cell {i} stores an error ({output.ename}): show errors by try/except and print")
            if output.output_type == "stream" and output.name == "stderr":
                problems.append(f"cell {i} writes to stderr: {output.text.strip()[:80]!r}")
            text = output.get("text", "") + "".join(
                str(v) for k, v in output.get("data", {}).items() if k.startswith("text/")
            )
            if found := private.search(text):
                problems.append(f"cell {i} prints a path of this machine ({found[0]}…)")
    return problems


def _figures(nb: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for cell in nb.cells for output in cell.get("outputs", []))


def _summary(nb: NotebookNode, lesson: Lesson) -> str:
    words = sum(len(cell.source.split()) for cell in nb.cells if cell.cell_type == "markdown")
    return f"{len(nb.cells)} cells, {words} words, {_figures(nb)} figures, {lesson.notebook.stat().st_size // 1000} KB"


def _execute(nb: NotebookNode, lesson: Lesson, run: str) -> str:
    """Execute in place and normalise; returns one line when a cell fails, else ""."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(nb, timeout=int(load().defaults.cell_timeout_s), kernel_name="python3", record_timing=False,
                            store_widget_state=False, extra_arguments=notebooks.QUIET_KERNEL,
                            resources={"metadata": {"path": str(lesson.text.parent)}})
    env = os.environ | notebooks.HEADLESS | ({"COURSE_RUN": run} if run else {})
    env.pop("COURSE_MODE", None)
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue} in the cell that begins `{_failed_source(nb)}`"
    except (CellTimeoutError, DeadKernelError) as error:
        return f"{type(error).__name__} in the cell that begins `{_failed_source(nb)}`"
    if (at := notebooks.unrun(nb)) is not None:
        return f"code cell {at + 1} was not run: something ended the kernel"
    normalise(nb)
    return ""


def _failed_source(nb: NotebookNode) -> str:
    cells = [c for c in nb.cells if c.cell_type == "code"]
    failed = next((c for c in cells if any(o.output_type == "error" for o in c.outputs)), None)
    failed = failed or next((c for c in cells if not c.execution_count), cells[-1])
    return failed.source.strip().split("\n")[0][:80]


def normalise(nb: NotebookNode) -> None:
    """Drop everything that two executions of the same code would write differently; make pictures small."""
    count = 0
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        outputs = []
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "data" in output:
                output.data.pop(WIDGET, None)
                output.metadata = {}
                if not output.data:
                    continue
                if "image/png" in output.data:
                    output.data["image/png"] = notebooks.few_colours(output.data["image/png"])
            last = outputs[-1] if outputs else None
            if (
                output.output_type == "stream"
                and last is not None
                and last.output_type == "stream"
                and last.name == output.name
            ):
                last.text += output.text             # how prints are cut into messages depends on the clock
                continue
            outputs.append(output)
        cell.outputs = outputs
    nb.metadata["course"] = {"executed": notebooks.code_hash(nb), "scale": SCALE}
    notebooks.tidy(nb)


def main(lesson_ids: list[str], check_only: bool, execute: bool, run: str = "") -> int:
    """The command: print what is wrong and return the exit code."""
    problems = check(lesson_ids) if check_only else sync(lesson_ids, execute=execute, run=run)
    for problem in problems:
        print(problem, file=sys.stderr)
    if check_only and not problems:
        say(f"{len(_lessons(lesson_ids))} notebook(s) agree with their text")
    return 1 if problems else 0
