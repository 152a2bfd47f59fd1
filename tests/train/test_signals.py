"""SIGTERM and Ctrl-C finish the step, save and leave; a second signal leaves at once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.runtime import open_run
from nanochat.train import checkpoint, signals
from nanochat.train.launch import launch
from nanochat.train.signals import Stop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tiny.make_run(tmp_path_factory.mktemp("runs") / "undisturbed")
    for stage, config in tiny.CONFIGS.items():
        launch(stage, config, run, tiny.machine())
    return run


def without(stage, undisturbed, folder):
    """A copy of the run in which the stage has yet to come."""
    shutil.copytree(undisturbed.path, folder)
    shutil.rmtree(folder / tiny.FOLDERS[stage])
    return open_run(folder)


def weights(run, stage: str) -> bytes:
    return checkpoint.latest(run / tiny.FOLDERS[stage]).joinpath("model.safetensors").read_bytes()


@pytest.mark.parametrize("stage", tiny.CONFIGS)
@pytest.mark.parametrize("number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_stopped_stage_saves_and_goes_on_to_the_same_weights(undisturbed, tmp_path, stage, number, error, capsys):
    run, steps = without(stage, undisturbed, tmp_path / "run"), []
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]

    def stop_at_5(row):
        steps.append(row["step"])
        if row["step"] == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(error) as left:
        launch(stage, tiny.CONFIGS[stage], run, tiny.machine(), live=stop_at_5)
    assert error is KeyboardInterrupt or left.value.code == 0
    assert steps[-1] == 6                              # the signal came when step 5 had already told its flags
    assert "stopped after step 6" in capsys.readouterr().out
    assert checkpoint.latest(run / tiny.FOLDERS[stage]).name == "step_000006"
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    launch(stage, tiny.CONFIGS[stage], run, tiny.machine(), live=lambda row: steps.append(row["step"]))
    assert steps[6] == 7 and weights(run, stage) == weights(undisturbed, stage)


def test_a_program_ends_with_exit_code_0_and_one_line(undisturbed, tmp_path):
    run = without("pretrain", undisturbed, tmp_path / "run")
    command = [sys.executable, tiny.__file__, str(run.path), "pretrain"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not run.history("base"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    told = process.communicate()[0].splitlines()
    assert process.returncode == 0 and told[-1].startswith("base: stopped after step ")
    assert not (run / "base" / "result.json").exists()


def test_a_second_signal_leaves_at_once():
    program = """
import sys, time
from nanochat.train import signals
signals.ECHO = 0.2
with signals.Stop() as stop:
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    print("asked", flush=True)
    while True:
        time.sleep(0.01)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)                # an echo: a launcher repeats what a cloud has sent to all
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


def test_a_second_interrupt_is_the_usual_one(monkeypatch):
    monkeypatch.setattr(signals, "ECHO", -1.0)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
