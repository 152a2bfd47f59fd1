"""The headless course: papermill chains the lessons of one scale into one run directory.

    nanochat run --scale toy                      all nine; what is up to date is skipped
    nanochat run --scale toy --from 05 --until 07
    nanochat run --scale speedrun --nproc 4       on four GPUs
    nanochat run --scale speedrun --dry-run       every cell, on a stand-in: see nanochat.course.rehearsal

A lesson is up to date when its stamp (its code, its scale, the seed, and what it reads from earlier lessons) is the
one of its last complete execution and everything it makes is still there. Executed copies and stamps lie in
runs/<name>/notebooks/. papermill's own verdict is not enough: a kernel that exits early counts as success there, so
every code cell must have run.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nanochat.course import doctor, notebooks, prepare, rehearsal
from nanochat.course.manifest import Course, Lesson, Scale, load, root
from nanochat.runtime import Run, UserError, open_run, read_json, say, write_json
from nanochat.runtime.lock import locked
from nanochat.runtime.run import run_path, runs_folder
from nanochat.train.signals import Stop

SMALL = 1 << 20        # files up to this size are hashed by content, larger ones by size


class LessonFailed(Exception):
    """A lesson did not run to its end; the message is the whole block to print."""


@dataclass
class Failure:
    """Where and why a lesson stopped."""

    cell: str
    error: str

    def block(self, lesson: Lesson, copy: Path, resume: str) -> str:
        return "\n".join(
            (
                f"✗ lesson {lesson.id} {lesson.title} failed",
                f"  cell    {self.cell}",
                f"  error   {self.error}",
                f"  copy    {relative(copy)}",
                f"  resume  {resume}",
            )
        )


def run_course(
    scale: str, *, first: str = "", last: str = "", force: bool = False, name: str = "", seed: int = 0,
    machine: dict | None = None, dry: bool = False,
) -> Run:  # fmt: skip
    """Execute the lessons `first` … `last` of a scale in the run `name`; what is up to date is skipped unless `force`.

    `machine` replaces settings of the scale's machine, e.g. {"nproc": 2}: where it runs does not change what is made.
    `dry` makes it a dry run in a new folder `name`.
    Raises UserError for a wrong scale, lesson or run, or a machine that cannot run it, and LessonFailed when a lesson
    stops.
    """
    course = load()
    settings = course.scale(scale).settings()
    lessons = _between(course, first, last)
    chosen = course.scale(scale).changed({"machine": machine or {}})
    environment = {"NANOCHAT_SETTINGS": json.dumps({"machine": machine or {}})}
    run = open_run(name or scale, scale=scale, seed=seed, create=True)
    dry = dry or (run / rehearsal.MARK).exists()
    if dry:
        environment = rehearsal.begin(chosen, run)
    begin = time.perf_counter()
    with locked(run.path), ExitStack() as finally_:
        if chosen.machine.nodes > 1:
            finally_.callback(_dismiss, run, chosen)
        ready = dry
        for lesson in lessons:
            _require(course, lesson, run)
            stamp = make_stamp(course, lesson, settings, run)
            if not force and _up_to_date(course, lesson, run, stamp):
                say(f"· {lesson.id} {lesson.title}: up to date")
                continue
            if not ready:
                _get_ready(chosen, run, finally_)
                ready = True
            seconds = _run_lesson(course, lesson, run, environment)
            write_json(_stamp_file(lesson, run), stamp)
            run.record("time", {f"{lesson.id}_s": round(seconds, 1)})
            _total_time(run)
            if dry:
                rehearsal.tell(chosen, lesson)
    say(f"{len(lessons)} lesson(s) in {_clock(time.perf_counter() - begin)}")
    return run


def _get_ready(scale: Scale, run: Run, finally_: ExitStack) -> None:
    """Look at the machine and begin to fetch what is not here; what must end with the lessons goes to `finally_`."""
    m = scale.machine
    if m.nproc * m.nodes > 1 or m.device == "cuda":
        doctor.require(scale)
    finally_.enter_context(prepare.fetching(scale, run))


def _dismiss(run: Run, scale: Scale) -> None:
    """Tell the other nodes that the run has ended."""
    from nanochat.train.launch import announce

    announce(run.path, "", {}, scale.machine)


def join_course(scale: str, name: str, node: int, machine: dict) -> None:
    """Be another node of a run whose folder node 0 made, or will make, until that run has ended."""
    from nanochat.train.launch import join

    folder = run_path(name)
    chosen = load().scale(scale).changed({"machine": machine})
    doctor.require(chosen)
    say(f"node {node} waits for what node 0 starts in {relative(folder)}")
    join(folder, node, lambda: prepare.text(chosen, open_run(folder)))


def _between(course: Course, first: str, last: str) -> list[Lesson]:
    low = course.lesson(first).id if first else course.lessons[0].id
    high = course.lesson(last).id if last else course.lessons[-1].id
    if low > high:
        raise UserError(f"--from {low} comes after --until {high}")
    return [lesson for lesson in course.lessons if low <= lesson.id <= high]


def _require(course: Course, lesson: Lesson, run: Run) -> None:
    for name in lesson.needs:
        artifact = course.artifacts[name]
        if not (run / artifact.proof).exists():
            raise UserError(
                f"lesson {lesson.id} needs {name}, which lesson {artifact.made_by} makes and {relative(run.path)} "
                f"does not hold; run `{_command(run, artifact.made_by)}`"
            )


def _run_lesson(course: Course, lesson: Lesson, run: Run, environment: dict[str, str]) -> float:
    """Execute one lesson, its kernel's environment changed; returns its wall seconds. Raises LessonFailed."""
    source = lesson.notebook
    copy = run / "notebooks" / f"{lesson.stem}.ipynb"
    copy.parent.mkdir(exist_ok=True)
    _stamp_file(lesson, run).unlink(missing_ok=True)
    if not source.exists():                    # not built yet: the text says the same
        source = run / "notebooks" / f".{lesson.stem}.plain.ipynb"
        notebooks.write(notebooks.from_text(lesson.text), source)
    begin = time.perf_counter()
    progress = Progress(lesson)
    with Stop(_to_kernel) as stop:
        failure = _execute(source, copy, run, progress, lesson.text.parent, environment)
    seconds = time.perf_counter() - begin
    if stop.asked:
        progress.end("·", seconds, " until it was stopped")
        stop.leave(f"stopped in lesson {lesson.id}; {_command(run, lesson.id)} goes on from what is saved")
    failure = failure or _incomplete(course, lesson, run, copy)
    if failure:
        progress.end("✗", seconds)
        raise LessonFailed(failure.block(lesson, copy, _command(run, lesson.id)))
    budget = lesson.budget_s.get(run.scale)
    progress.end("✓", seconds, f" (its budget is {budget:g} s)" if budget and seconds > budget else "")
    return seconds


def _to_kernel(number: int) -> None:
    """Pass a signal on to the notebook's kernel, which has left our process group: a stage in it saves."""
    import psutil

    for child in psutil.Process().children():
        child.send_signal(number)


def _execute(source: Path, copy: Path, run: Run, progress: "Progress", cwd: Path, environment: dict) -> Failure | None:
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    class Engine(NBClientEngine):
        """papermill's engine, telling us which cell it is at."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            start = nb_man.cell_start

            def cell_start(cell, cell_index=None, **settings):
                progress.at(cell_index, len(nb_man.nb.cells))
                return start(cell, cell_index, **settings)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("nanochat", Engine)
    inside = run.path.parent == runs_folder().resolve()
    parameters = {"SCALE": run.scale, "RUN": run.name if inside else str(run.path), "SEED": run.seed}
    before = dict(os.environ)                  # papermill's kernels inherit ours
    os.environ |= notebooks.HEADLESS | environment
    for name in ("COURSE_MODE", "COURSE_RUN"):
        os.environ.pop(name, None)
    try:
        papermill.execute_notebook(
            _plain(source),
            _plain(copy),
            parameters=parameters,
            engine_name="nanochat",
            kernel_name="python3",
            cwd=str(cwd),
            progress_bar=False,
            autosave_cell_every=15,
            extra_arguments=notebooks.QUIET_KERNEL,
        )
    except PapermillExecutionError as error:
        return Failure(
            f"In [{error.exec_count}]: {_first_line(error.source)}", _one_line(f"{error.ename}: {error.evalue}")
        )
    except (CellTimeoutError, DeadKernelError, RuntimeError, OSError) as error:  # OSError: a full disk
        return Failure(_where(copy), _one_line(f"{type(error).__name__}: {error}"))
    finally:
        os.environ.clear()
        os.environ |= before
    return None


def _plain(path: Path) -> str:
    """papermill formats its paths with the parameters: braces in a folder's name must be doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _incomplete(course: Course, lesson: Lesson, run: Run, copy: Path) -> Failure | None:
    """What a lesson that raised nothing still owes: every cell run, every artifact there."""
    nb = notebooks.read(copy)
    if notebooks.unrun(nb) is not None or notebooks.errors(nb):
        return Failure(_where(copy), "the notebook stopped early (an exit() in it?)")
    missing = [
        course.artifacts[name].proof for name in lesson.makes if not (run / course.artifacts[name].proof).exists()
    ]
    if missing:
        return Failure("all cells ran", f"{', '.join(missing)} was not made")
    return None


def _where(copy: Path) -> str:
    """The last cell of an executed copy that was started, for errors that name none."""
    if not copy.exists():
        return "before the first cell"
    code = [cell for cell in notebooks.read(copy).cells if cell.cell_type == "code"]
    ran = [cell for cell in code if cell.execution_count]
    if ran:
        return f"In [{ran[-1].execution_count}]: {_first_line(ran[-1].source)}"
    return "the first cell"


def _first_line(source: str) -> str:
    return source.strip().split("\n")[0][:80]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


# --- stamps ---------------------------------------------------------------------------------------------------------


def make_stamp(course: Course, lesson: Lesson, settings: dict, run: Run) -> dict:
    """What the result of a lesson depends on, as hashes."""
    nb = notebooks.read(lesson.notebook) if lesson.notebook.exists() else notebooks.from_text(lesson.text)
    return {
        "code": notebooks.code_hash(nb),
        "scale": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
        "seed": run.seed,
        "needs": {name: tree_hash(run / course.artifacts[name].path) for name in lesson.needs},
    }


def tree_hash(folder: Path) -> str:
    """A hash of what a folder holds: names, sizes, and the bytes of small files. Logs and locks do not count; big files
    are weights, and the manifest beside them carries their SHA-256."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".jsonl", ".log") and not path.name.startswith("."):
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            if path.stat().st_size <= SMALL:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _stamp_file(lesson: Lesson, run: Run) -> Path:
    return run / "notebooks" / f"{lesson.id}.stamp.json"


def _up_to_date(course: Course, lesson: Lesson, run: Run, stamp: dict) -> bool:
    path = _stamp_file(lesson, run)
    made = all((run / course.artifacts[name].proof).exists() for name in lesson.makes)
    return made and path.exists() and read_json(path) == stamp


def _total_time(run: Run) -> None:
    times = {k: v for k, v in run.results().items() if k.startswith("time.") and k != "time.total_s"}
    run.record("time", {"total_s": round(sum(times.values()), 1)})


# --- what the operator sees ------------------------------------------------------------------------------------------


class Progress:
    """One line a lesson. On a terminal it is rewritten at every cell; in a log it is written at the start, at the end,
    and once a minute in between."""

    def __init__(self, lesson: Lesson):
        self.title = f"{lesson.id} {lesson.title}"
        self.start = self.shown = time.perf_counter()
        self.live = sys.stdout.isatty()
        if not self.live:
            say(f"  {self.title} …")

    def at(self, cell: int, cells: int) -> None:
        now = time.perf_counter()
        if self.live:
            print(f"\r\x1b[K  {self.title}: cell {cell + 1} of {cells}, {_clock(now - self.start)}", end="", flush=True)
        elif now - self.shown > 60:
            say(f"  {self.title}: cell {cell + 1} of {cells}, {_clock(now - self.start)}")
            self.shown = now

    def end(self, sign: str, seconds: float, note: str = "") -> None:
        print("\r\x1b[K" if self.live else "", end="")
        say(f"{sign} {self.title}: {_clock(seconds)}{note}")


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def relative(path: Path) -> str:
    """A path as the operator would type it: relative to the course where it lies inside."""
    return str(path.relative_to(root().resolve())) if path.is_relative_to(root().resolve()) else str(path)


def _command(run: Run, lesson_id: str) -> str:
    inside = run.path.parent == runs_folder().resolve()
    name = "" if inside and run.name == run.scale else f" --run {run.name if inside else run.path}"
    return f"nanochat run --scale {run.scale} --from {lesson_id}{name}" + (f" --seed {run.seed}" if run.seed else "")
