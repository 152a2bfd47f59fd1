"""The console command: exit codes and one-line mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nanochat.cli import app

COMMAND = [sys.executable, "-m", "nanochat.cli"]


def nanochat(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments, line", [
    (("run", "--scale", "huge"), "unknown scale 'huge'; choose one of smoke, toy"),
    (("chat", "--run", "nowhere", "-p", "hi"), "no run at"),
    (("report", "--run", "nowhere"), "no run at"),
    (("plan", "--scale", "huge"), "unknown scale 'huge'"),
    (("grade", "77"), "no lesson '77'"),
    (("sync", "77", "--check"), "no lesson '77'"),
    (("data", "burn"), "nanochat data does not know 'burn'; it knows fetch, verify, contamination"),
])
def test_a_mistake_is_one_line_and_exit_code_2(course_folder, arguments, line):
    done = nanochat(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("nanochat: ") and line in done.stderr and done.stderr.count("\n") == 1


def test_a_run_ends_with_report_and_chat_and_a_failing_lesson_with_exit_code_1(course_folder):
    done = nanochat("run", "--scale", "smoke", "--until", "01")
    assert done.returncode == 0, done.stderr
    assert "report  runs/smoke/report.md" in done.stdout and "nanochat chat --run smoke" in done.stdout
    assert done.stderr == ""
    assert Path(course_folder / "runs" / "smoke" / "report.json").exists()

    text = course_folder / "notebooks" / "01_merging.py"
    text.write_text(text.read_text().replace("print(merge", "print(1 / 0, merge"))
    done = nanochat("run", "--scale", "smoke")
    assert done.returncode == 1
    assert done.stderr.startswith("✗ lesson 01 Merging failed\n") and "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_says_that_the_run_resumes(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nanochat.course.run.run_course", interrupted)
    monkeypatch.setattr("nanochat.course.plan.plan", interrupted)
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 130 and "the same command goes on" in done.output
    assert CliRunner().invoke(app, ["plan"]).exit_code == 130


def test_every_command_explains_itself_without_importing_torch():
    code = ("import sys; from typer.testing import CliRunner; from nanochat.cli import app\n"
            "names = [c.name or c.callback.__name__ for c in app.registered_commands]\n"
            "assert all(CliRunner().invoke(app, [n, '--help']).exit_code == 0 for n in names)\n"
            "assert 'torch' not in sys.modules; print(*sorted(names))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [
        "chat",
        "data",
        "doctor",
        "export",
        "grade",
        "import",
        "join",
        "plan",
        "report",
        "run",
        "serve",
        "sync",
    ], done.stderr
