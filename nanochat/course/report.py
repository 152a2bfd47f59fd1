"""The report card of a run: report.md for people, report.json for programs, pictures in plots/.

    nanochat report --run toy

report.json is one flat object, metric name to number: what the stages recorded, nothing parsed back from prose. Every
accuracy in report.md has the score of guessing beside it.
"""

import os
import platform
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from nanochat.course.grade import grades
from nanochat.course.manifest import Course, load, root
from nanochat.course.milestones import Milestone, reached
from nanochat.course.plan import Plan, duration
from nanochat.runtime import Run, UserError, atomic_write, read_json, write_json
from nanochat.train import scaling

STAGES = ("char_rnn", "base", "mid", "sft", "grpo")
TITLES = {"char_rnn": "RNN", "base": "base", "mid": "mid", "sft": "SFT", "grpo": "GRPO"}
FOLDERS = {"char_rnn": "char_rnn", "base": "base", "mid": "mid", "sft": "sft", "grpo": "rl"}  # where the metrics lie

COMPRESSION = "tokenizer.bytes_per_token_"          # + the kind of text; lesson 02 records them
CL100K = "tokenizer.cl100k_bytes_per_token_"

TOY_NOTE = """

This is the toy world: `core` has the format of CORE with nine easy tasks about the town, and `chatcore` the formula of ChatCORE
over the tasks that were trained. Neither stands beside a figure of another model. Bits per byte of base and RNN are on the same
text; those of mid and SFT count the assistant's words in mixtures of their own."""


def report(run: Run) -> Path:
    """Write report.md, report.json and plots/ into the run's folder; returns the path of report.md.

    Raises UserError when the run has recorded nothing yet.
    """
    results = run.results()
    if not results:
        raise UserError(f"run {run.name} has recorded no results yet; `nanochat run --scale {run.scale}` makes some")
    course = load()
    pictures = draw(run)
    sections = [
        f"# Report card: {run.name}",
        _headline(course, run, results),
        "## Milestones\n\n" + _milestones(reached(results, run.chance(), is_toy(course, run))),
        "## What each stage scores\n\n" + _stage_table(results, run.chance()) + (TOY_NOTE if is_toy(course, run) else ""),
        *([f"## Curves\n\n{pictures}"] if pictures else []),
        *([f"## The tokenizer\n\n{_tokenizer(run, results)}"] if COMPRESSION + "news" in results else []),
        *_contamination(run),
        "## What it took\n\n" + _costs(course, run, results),
        *_hyperparameters(course, run),
        "## The exam\n\n" + _exam(course),
        "## The code\n\n" + _bloat(),
        "## Where it ran\n\n" + _environment(),
        "## All numbers\n\n" + _all_numbers(results, run.chance()),
    ]
    path = run / "report.md"
    atomic_write(path, "\n\n".join(sections) + "\n")
    write_json(run / "report.json", dict(sorted(results.items())))
    return path


def _table(head: list[str], rows: list[list[str]]) -> str:
    align = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows])


def number(value: float | None) -> str:
    """A metric as it stands in a table."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def is_accuracy(name: str) -> bool:
    return name.endswith("_acc")


def is_toy(course: Course, run: Run) -> bool:
    """Whether the run read the toy world."""
    return course.scale(run.scale).pretrain.data.source == "toy"


def _headline(course: Course, run: Run, results: dict) -> str:
    done = reached(results, run.chance(), is_toy(course, run))
    scale = course.scale(run.scale)
    total = results.get("time.total_s")
    took = f", {duration(total)} of notebooks" if total else ""
    return (f"Scale **{run.scale}** ({scale.where}), seed {run.seed}{took}. "
            f"**{sum(m.reached for m in done)} of {len(done)} milestones.**")


def _milestones(done: list[Milestone]) -> str:
    if not done:
        return "None can be judged yet: the stages have not run."
    return "\n".join(f"- {'★' if m.reached else '☆'} **{m.title}**: {m.evidence}" for m in done)


def _stage_table(results: dict[str, float], chance: dict[str, float]) -> str:
    """Metrics down, stages across; what guessing scores in the last column."""
    stages = [stage for stage in STAGES if any(key.startswith(stage + ".") for key in results)]
    names = [name for key in results for stage, _, name in [key.partition(".")] if stage in STAGES]
    shown = [
        n
        for n in dict.fromkeys(names)
        if is_accuracy(n) or n in ("val_bpb", "core", "chatcore", "params", "tokens", "core_s")
    ]
    rows = []
    for name in sorted(shown, key=lambda n: (is_accuracy(n), n)):
        guesses = {chance[f"{stage}.{name}"] for stage in stages if f"{stage}.{name}" in chance}
        guess = " / ".join(number(g) for g in sorted(guesses)) or ("not recorded" if is_accuracy(name) else "")
        rows.append([f"`{name}`", *(number(results.get(f"{stage}.{name}")) for stage in stages), guess])
    if not rows:
        return "No stage has recorded anything yet."
    return _table(["metric", *(TITLES[s] for s in stages), "chance"], rows)


def _tokenizer(run: Run, results: dict[str, float]) -> str:
    """Bytes per token by kind of text, beside GPT-4's where its ranks were at hand: a table and plots/tokenizer.png."""
    kinds = [key.removeprefix(COMPRESSION) for key in results if key.startswith(COMPRESSION)]
    series = {"this run's": [results[COMPRESSION + kind] for kind in kinds]}
    if all(CL100K + kind in results for kind in kinds):
        series["cl100k (GPT-4's)"] = [results[CL100K + kind] for kind in kinds]
    draw_bars(run, kinds, series)
    columns = zip(kinds, *series.values())
    rows = [[kind.replace("_", " "), *(f"{value:.2f}" for value in values)] for kind, *values in columns]
    return _table(["bytes per token", *series], rows) + "\n\n![bytes per token](plots/tokenizer.png)"


def _contamination(run: Run) -> list[str]:
    """The section on exam questions in the training text, where `nanochat data contamination` has looked for them."""
    path = run / "contamination.json"
    return ["## Questions seen in training\n\n" + contamination_table(read_json(path))] if path.exists() else []


def contamination_table(table: dict) -> str:
    """How many questions of each exam stand in the training text, and where most of them do."""
    rows = []
    for name, found in table.items():
        n = found["questions"]
        most = max(found["sources"], key=lambda source: found["sources"][source][1], default="–")
        rows.append([name, f"{n:,}", *(f"{found[k]:,} ({found[k] / max(n, 1):.1%})" for k in ("exact", "overlap")), most])
    note = ("\n\nOf a question of fewer than 13 words, all in a row; one of fewer than 4 counts only where it is a whole document or "
            "message. `toy-qa-seen` and `toy-cloze` ask what was taught, by design.")
    return _table(["exam", "questions", "whole", "13 words in a row", "most in"], rows) + note


def _costs(course: Course, run: Run, results: dict) -> str:
    rows = []
    for lesson in course.lessons:
        seconds = results.get(f"time.{lesson.id}_s")
        budget = lesson.budget_s.get(run.scale)
        rows.append([f"{lesson.id} {lesson.title}", duration(seconds) if seconds is not None else "–",
                     duration(budget) if budget else "–"])
    total = results.get("time.total_s")
    rows.append(["all", duration(total) if total else "–", ""])
    plan = Plan(course.scale(run.scale))
    hardware = plan.scale.hardware
    text = _table(["lesson", "wall time", "budget"], rows)
    if total and hardware.dollars_per_hour:
        dollars = total / 3600 * hardware.dollars_per_hour
        text += f"\n\nAt ${hardware.dollars_per_hour:g} an hour for {hardware.name}: ${dollars:,.2f}."
    planned = ", ".join(f"{s.name} {s.tokens:,} tokens" for s in plan.everything)
    flops = sum(s.flops for s in plan.everything)
    return f"{text}\n\nThe scale's plan: {plan.params:,} parameters, {planned}, {flops:.3g} FLOPs."


def _hyperparameters(course: Course, run: Run) -> list[str]:
    """Where pretraining followed from its depth: each number with its reason."""
    scale = course.scale(run.scale)
    table = "\n".join(scaling.table(scale.pretrain, scale.tokenizer.vocab_size))
    return [f"## Hyperparameters from depth\n\n```\n{table}\n```"] if scale.pretrain.horizon else []


def _exam(course: Course) -> str:
    points = grades()
    if not points:
        return "Not taken yet: `nanochat grade` marks the exercises."
    rows = [[f"{lesson.id} {lesson.title}", str(points[lesson.id]["points"]), str(points[lesson.id]["out_of"])]
            for lesson in course.lessons if lesson.id in points]
    earned, out_of = (sum(p[k] for p in points.values()) for k in ("points", "out_of"))
    return _table(["lesson", "points", "of"], [*rows, ["all graded", str(earned), str(out_of)]])


def _bloat() -> str:
    """How much there is to read: our code, not its dependencies."""
    kinds = {
        "library (`nanochat/`)": root().glob("nanochat/**/*.py"),
        "Rust (`rustbpe/src/`)": root().glob("rustbpe/src/**/*.rs"),
        "lessons (`notebooks/*.py`)": root().glob("notebooks/*.py"),
    }
    rows, sums = [], [0, 0, 0]
    for kind, found in kinds.items():
        texts = [path.read_text(errors="replace") for path in found]
        counts = [len(texts), sum(text.count("\n") for text in texts), sum(len(text) for text in texts)]
        rows.append([kind, *(f"{n:,}" for n in counts), f"{counts[2] // 4:,}"])
        sums = [a + b for a, b in zip(sums, counts)]
    rows.append(["all", *(f"{n:,}" for n in sums), f"{sums[2] // 4:,}"])
    table = _table(["part", "files", "lines", "characters", "tokens (≈ characters / 4)"], rows)
    project = root() / "pyproject.toml"
    text = project.read_text() if project.exists() else ""
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    return table + (f"\n\n{listed[1].count(',')} direct dependencies." if listed else "")


def _environment() -> str:
    import psutil

    rows = [
        ["commit", _commit()],
        ["date", date.today().isoformat()],
        ["python", platform.python_version()],
        ["torch", version("torch")],
        ["system", f"{platform.system()} {platform.machine()}"],
        ["processor", f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"],
        ["GPU", _gpus()],
    ]
    return _table(["", ""], rows)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root(), capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short", "HEAD")
        changes = ", with changes" if git("status", "--porcelain") else ""
        return f"{commit} on {git('branch', '--show-current')}{changes}" if commit else "none"
    except FileNotFoundError:
        return "git is not installed"


def _gpus() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{len(names)} × {names[0]}, {memory:.0f} GiB each"


def _all_numbers(results: dict[str, float], chance: dict[str, float]) -> str:
    rows = [
        [f"`{key}`", number(value), number(chance[key]) if key in chance else ""]
        for key, value in sorted(results.items())
    ]
    return _table(["key", "value", "chance"], rows)


# --- pictures ---------------------------------------------------------------------------------------------------------


def draw(run: Run) -> str:
    """Draw what the run's histories hold into plots/; returns the markdown that shows it."""
    from matplotlib.figure import Figure

    from nanochat.course.plots import COLOURS, DASHES, DPI, curve

    histories = {stage: run.history(FOLDERS[stage]) for stage in STAGES}
    shown = []
    for name, key, axis, stages in (("loss", "loss", "training loss (nats a token)", ("base", "mid", "sft")),
                                    ("bpb", "val_bpb", "validation bits per byte", ("char_rnn", "base")),
                                    ("reward", "reward", "mean reward of sampled answers", ("grpo",))):
        drawn = [s for s in stages if any(key in row for row in histories[s])]
        if not drawn:
            continue
        figure = Figure(figsize=(6, 3), dpi=DPI, layout="constrained")
        ax = figure.subplots()
        timed = all(any("core_s" in row and key in row for row in histories[s]) for s in drawn)
        x = "core_s" if name == "bpb" and timed else "step"
        for stage, colour, dash in zip(drawn, COLOURS, DASHES):
            marker = "o" if sum(key in row for row in histories[stage]) < 3 else None
            look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4}
            curve(ax, histories[stage], key, label=TITLES[stage], x=x, **look)
        ax.set(xlabel="core seconds" if x == "core_s" else "step", ylabel=axis)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.1)
        (run / "plots").mkdir(exist_ok=True)
        figure.savefig(run / "plots" / f"{name}.png")
        shown.append(f"![{axis}](plots/{name}.png)")
    return "\n".join(shown)


def draw_bars(run: Run, kinds: list[str], series: dict[str, list[float]]) -> None:
    """plots/tokenizer.png: bytes per token, a group of bars for each kind of text."""
    from matplotlib.figure import Figure

    from nanochat.course.plots import DPI, grouped_bars

    figure = Figure(figsize=(6, 3), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    grouped_bars(ax, [kind.replace("_", " ") for kind in kinds], series)
    ax.set(xlabel="bytes per token")
    ax.spines[["top", "right"]].set_visible(False)
    (run / "plots").mkdir(exist_ok=True)
    figure.savefig(run / "plots" / "tokenizer.png")
