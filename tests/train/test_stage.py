"""A stage folder is finished, interrupted, new, or refused."""

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


def test_a_second_process_in_the_same_folder_is_refused_by_name(run):
    code = ("import sys; from nanochat.runtime import open_run; from nanochat.train.config import CharRNNConfig;"
            "from nanochat.train.stage import stage_folder\n"
            f"with stage_folder(open_run({str(run.path)!r}), 'base', CharRNNConfig(steps=5), {{}}):\n"
            "    print('held', flush=True); sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {other.pid} on"):
            finish(run, CharRNNConfig(steps=5), {})
    finally:
        other.communicate("")
    assert finish(run, CharRNNConfig(steps=5), {}) == "trained"      # the lock died with its holder
