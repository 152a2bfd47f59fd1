"""The runner on the made-up course: up to date, resume, early exit, missing artifacts, one run a folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nanochat.course import doctor, load, notebooks, rehearsal
from nanochat.course.run import LessonFailed, locked, run_course, tree_hash
from nanochat.runtime import UserError


def replace_in(course_folder, name: str, old: str, new: str) -> None:
    path = course_folder / "notebooks" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_lessons_run_in_order_and_the_second_run_has_nothing_to_do(course_folder, capsys):
    run = run_course("toy", seed=3)
    assert (run.scale, run.seed, run.name) == ("toy", 3, "toy")
    results = run.results()
    assert results["counts.words"] == 1 and results["time.01_s"] > 0
    assert results["time.total_s"] == pytest.approx(results["time.01_s"] + results["time.02_s"], abs=0.2)
    copy = notebooks.read(run / "notebooks" / "01_merging.ipynb")
    injected = next(c for c in copy.cells if "injected-parameters" in notebooks.tags(c))
    assert 'SCALE = "toy"' in injected.source and "SEED = 3" in injected.source

    capsys.readouterr()
    run_course("toy", seed=3)
    assert capsys.readouterr().out.count("up to date") == 2

    replace_in(course_folder, "02_counting.py", 'write_text("{}")', 'write_text("{} ")')
    run_course("toy", seed=3)
    out = capsys.readouterr().out
    assert "01 Merging: up to date" in out and "✓ 02 Counting" in out

    with pytest.raises(UserError, match="made with seed 3, not 4"):
        run_course("toy", seed=4)


def test_a_failure_is_told_in_one_block_and_the_next_run_resumes_there(course_folder, capsys):
    replace_in(course_folder, "02_counting.py", "words = (run", "print(1 / 0)\nwords = (run")
    with pytest.raises(LessonFailed) as failed:
        run_course("smoke", name="trial")
    block = str(failed.value).splitlines()
    assert block[0] == "✗ lesson 02 Counting failed"
    assert "In [7]: print(1 / 0)" in block[1] and "ZeroDivisionError: division by zero" in block[2]
    assert block[3].endswith("runs/trial/notebooks/02_counting.ipynb")
    assert block[4].endswith("nanochat run --scale smoke --from 02 --run trial")

    replace_in(course_folder, "02_counting.py", "print(1 / 0)\n", "")
    capsys.readouterr()
    run = run_course("smoke", name="trial")
    assert "01 Merging: up to date" in capsys.readouterr().out
    assert (run / "counts" / "done.json").exists()


@pytest.mark.parametrize("line, message", [
    ("import sys; sys.exit(0)\n\n# %%\nprint('never')\n", "stopped early"),
    ("import sys; sys.exit(0)", "stopped early"),
    ("import os; os._exit(0)", "DeadKernelError"),
    ("course = None", "words/words.txt was not made"),
])
def test_a_lesson_that_stops_early_or_makes_nothing_is_refused(course_folder, line, message):
    replace_in(course_folder, "01_merging.py", '(run / "words").mkdir(exist_ok=True)\n', "")
    replace_in(course_folder, "01_merging.py", '_ = (run / "words" / "words.txt").write_text(', f"{line}\n_ = str(")
    with pytest.raises(LessonFailed, match=message):
        run_course("smoke", last="01")


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_reaches_the_stage_in_the_kernel_which_saves(course_folder, number, error, capsys):
    stage = """from nanochat.train.signals import Stop
with Stop() as stop:
    (run / "started").touch()
    while not stop.asked:
        pass
    (run / "saved").touch()
    stop.leave("saved")"""
    replace_in(course_folder, "01_merging.py", '(run / "words").mkdir(exist_ok=True)\n', f"{stage}\n")
    folder = course_folder / "runs" / "smoke"

    def stop():
        while not (folder / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(error) as left:
        run_course("smoke", last="01")
    assert error is KeyboardInterrupt or left.value.code == 0
    assert (folder / "saved").exists()
    assert "stopped in lesson 01; nanochat run --scale smoke --from 01 goes on" in capsys.readouterr().out


def test_a_lesson_without_what_it_needs_does_not_start(course_folder):
    with pytest.raises(
        UserError, match="lesson 02 needs words, which lesson 01 makes.*run `nanochat run --scale smoke --from 01`"
    ):
        run_course("smoke", first="02")


def test_wrong_choices_are_named_in_one_line(course_folder):
    with pytest.raises(UserError, match="unknown scale 'huge'; choose one of smoke, toy"):
        run_course("huge")
    with pytest.raises(UserError, match="no lesson '12'; choose one of 01, 02"):
        run_course("smoke", first="12")
    with pytest.raises(UserError, match="--from 02 comes after --until 01"):
        run_course("smoke", first="02", last="01")
    assert not (course_folder / "runs").exists()


def test_one_process_works_in_a_run_folder(course_folder):
    (course_folder / "runs" / "smoke").mkdir(parents=True)
    hold = ("import sys; from pathlib import Path; from nanochat.course.run import locked\n"
            "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", hold, str(course_folder / "runs" / "smoke")],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"runs/smoke is in use by process {other.pid} on"):
        run_course("smoke")
    other.kill()
    other.communicate()
    with locked(course_folder / "runs" / "smoke"):
        pass


def test_the_hash_of_an_artifact_sees_changes_and_ignores_logs(tmp_path):
    (tmp_path / "result.json").write_text("1")
    before = tree_hash(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert tree_hash(tmp_path) == before
    (tmp_path / "result.json").write_text("2")
    assert tree_hash(tmp_path) != before


def test_a_folder_with_braces_is_just_a_folder(course_folder):
    run = run_course("smoke", last="01", name=str(course_folder / "a{b}"))
    assert json.loads((run.path / "run.json").read_text())["scale"] == "smoke"
    assert load().lesson("01").stem + ".ipynb" in os.listdir(run.path / "notebooks")


def test_the_machine_reaches_the_notebooks_and_is_no_reason_to_run_again(course_folder, monkeypatch, capsys):
    looked = []
    monkeypatch.setattr(doctor, "require", lambda scale: looked.append(scale.machine.nproc))
    replace_in(course_folder, "01_merging.py", "import toylib", "import toylib\nprint(S.machine.nproc, 'processes')")
    run = run_course("smoke", last="01", machine={"nproc": 4})
    assert "4 processes" in (run / "notebooks" / "01_merging.ipynb").read_text() and looked == [4]
    run_course("smoke", last="01")
    assert "01 Merging: up to date" in capsys.readouterr().out
    with pytest.raises(UserError, match="machine.nproc: Input should be greater than 0"):
        run_course("smoke", machine={"nproc": 0})


def test_a_machine_that_cannot_run_the_scale_runs_no_lesson(course_folder, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda scale: [doctor.Finding("devices", "none", "rent some")])
    with pytest.raises(UserError, match="scale smoke cannot run here for the 1 reason"):
        run_course("smoke", machine={"nproc": 2})
    assert not (course_folder / "runs" / "smoke" / "notebooks").exists()


def test_a_dry_run_has_a_folder_of_its_own(course_folder, monkeypatch):
    monkeypatch.setattr(rehearsal, "mirror", lambda root, shards: root.mkdir())
    monkeypatch.setattr(rehearsal, "tell", lambda scale, lesson: None)
    replace_in(course_folder, "01_merging.py", "import toylib", "import toylib\nprint(S.pretrain.model.depth, S.pretrain.rows)")
    run = run_course("smoke", name="dry", last="01", dry=True)
    assert "2 2" in (run / "notebooks" / "01_merging.ipynb").read_text()
    assert "nothing here was really trained" in (run / "dry_run.json").read_text()
    run_course("smoke", name="real", last="01")
    with pytest.raises(UserError, match="runs/real holds a run; a dry run needs a new folder"):
        run_course("smoke", name="real", dry=True)


def test_the_small_settings_of_a_dry_run_fit_every_scale():
    for name, scale in load().scales.items():
        small = scale.changed(rehearsal.SMALL)
        assert small.pretrain.model.depth == 2 and small.machine.nproc == 1, name
        assert (small.tokenizer, small.pretrain.optim, small.sft.mixture) == (scale.tokenizer, scale.pretrain.optim, scale.sft.mixture)
