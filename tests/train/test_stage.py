"""A stage folder is finished, interrupted, new, or refused."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from nanochat.runtime import UserError, open_run, read_json, write_json
from nanochat.train.config import CharRNNConfig
from nanochat.train.stage import stage_folder


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "r", scale="toy", create=True)


def finish(run, config, inputs=None):
    with stage_folder(run, "base", config, inputs or {"tokenizer": "abc"}) as stage:
        if stage.result is None:
            stage.finish({"val_bpb": 1.0})
            return "trained"
        return "loaded"


def test_a_finished_stage_loads(run):
    assert finish(run, CharRNNConfig(steps=5)) == "trained"
    assert finish(run, CharRNNConfig(steps=5)) == "loaded"


def test_another_configuration_is_refused_and_the_difference_listed(run):
    finish(run, CharRNNConfig(steps=5))
    with pytest.raises(UserError, match=r"steps 5 → 6"):
        finish(run, CharRNNConfig(steps=6))
    with pytest.raises(UserError, match=r"inputs.tokenizer abc → xyz"):
        finish(run, CharRNNConfig(steps=5), {"tokenizer": "xyz"})


def test_a_setting_that_did_not_exist_yet_had_its_default(run):
    finish(run, CharRNNConfig(steps=5))
    path = run / "base" / "config.json"
    older = read_json(path)
    del older["config"]["clip"]
    write_json(path, older)
    assert finish(run, CharRNNConfig(steps=5)) == "loaded"
    with pytest.raises(UserError, match=r"clip 1.0 → 2.0"):
        finish(run, CharRNNConfig(steps=5, clip=2.0))


def test_a_stage_that_never_saved_anything_may_change_its_mind(run):
    with pytest.raises(RuntimeError), stage_folder(run, "base", CharRNNConfig(steps=5), {}):
        raise RuntimeError("stopped before the first checkpoint")
    assert finish(run, CharRNNConfig(steps=6), {}) == "trained"


HOLDER = """
import os, sys, time
from nanochat.runtime import open_run
from nanochat.train.config import CharRNNConfig
from nanochat.train.stage import stage_folder
with stage_folder(open_run(sys.argv[1]), 'base', CharRNNConfig(steps=5), {}):
    if sys.argv[2:] and os.fork() == 0:
        time.sleep(60)                         # a child that outlives the kill of its parent
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(run):
    """Start a process that holds the stage; it lets go when its input ends."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-c", HOLDER, str(run.path), *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        start_new_session=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_second_process_in_the_same_folder_is_refused_by_name(run, hold, capsys):
    other = hold()
    with pytest.raises(UserError, match=f"in use by process {other.pid} on .*; wait for it"):
        finish(run, CharRNNConfig(steps=5), {})
    other.communicate("")
    assert finish(run, CharRNNConfig(steps=5), {}) == "trained" and capsys.readouterr().out == ""


def test_the_lock_of_a_killed_process_is_taken_over_and_told(run, hold, capsys):
    other = hold()
    other.kill()
    other.wait()
    assert finish(run, CharRNNConfig(steps=5), {}) == "trained"
    assert f"process {other.pid} on" in capsys.readouterr().out


def test_a_lock_held_by_the_child_of_a_killed_process_is_told_apart(run, hold):
    other = hold("with a child")
    other.kill()
    other.wait()
    with pytest.raises(UserError, match=f"in use by process {other.pid} on .*; it has ended, but a child of it"):
        finish(run, CharRNNConfig(steps=5), {})
