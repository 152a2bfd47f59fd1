"""kill −9 in the middle of a stage or a save, run it again: nobody can tell. (`make soak`: many more.)"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.train.launch import launch

CYCLES, SAVES = 2, 5


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    out = tmp_path_factory.mktemp("soak") / "soak.json"
    script = Path(__file__).parents[1] / "soak" / "kills.py"
    done = subprocess.run([sys.executable, script, "--cycles", str(CYCLES), "--saves", str(SAVES), "--out", out],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize("stage", tiny.CONFIGS)
def test_a_killed_stage_ends_with_the_same_weights_and_losses(killed, stage):
    assert killed[stage]["kills"] == killed[stage]["ended_bit_equal"] == CYCLES


def test_a_kill_inside_a_save_leaves_the_checkpoint_before_or_the_new_one(killed):
    assert killed["saves"]["kills"] == killed["saves"]["loadable_and_not_older"] == SAVES


def test_a_finished_stage_is_not_trained_again(tmp_path):
    run = tiny.make_run(tmp_path / "run")
    first = launch("pretrain", tiny.CONFIGS["pretrain"], run, tiny.machine())
    left = {path: path.read_bytes() for path in (run / "base").rglob("*") if path.is_file()}
    assert launch("pretrain", tiny.CONFIGS["pretrain"], run, tiny.machine()) == first
    assert first["tokens"] == tiny.STEPS * 8 * 64
    assert left == {path: path.read_bytes() for path in (run / "base").rglob("*") if path.is_file()}
