"""kill −9 in the middle of a stage, run it again: the final weights are those of a run nobody disturbed, bit for bit."""

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
from nanochat.train import checkpoint
from nanochat.train.launch import launch


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tiny.make_run(tmp_path_factory.mktemp("runs") / "undisturbed")
    for stage, config in tiny.CONFIGS.items():
        launch(stage, config, run, tiny.machine())
    return run


def weights(run, stage: str) -> str:
    return checkpoint.latest(run / tiny.FOLDERS[stage]).joinpath("model.safetensors").read_bytes()


@pytest.mark.parametrize("stage", tiny.CONFIGS)
def test_a_killed_stage_ends_with_the_same_weights(undisturbed, tmp_path, stage):
    folder = tmp_path / "killed"
    shutil.copytree(undisturbed.path, folder)
    shutil.rmtree(folder / tiny.FOLDERS[stage])
    run = open_run(folder)
    half = tiny.CONFIGS[stage].schedule.steps // 2
    command = [sys.executable, tiny.__file__, str(folder), stage]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while max((row.get("step", 0) for row in run.history(tiny.FOLDERS[stage])), default=0) < half:
        assert process.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / tiny.FOLDERS[stage] / "result.json").exists()

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert weights(run, stage) == weights(undisturbed, stage)


def test_a_finished_stage_is_not_trained_again(undisturbed):
    before = weights(undisturbed, "pretrain"), (undisturbed / "base" / "metrics.jsonl").read_bytes()
    result = launch("pretrain", tiny.CONFIGS["pretrain"], undisturbed, tiny.machine())
    assert result["tokens"] == tiny.STEPS * 8 * 64
    assert before == (weights(undisturbed, "pretrain"), (undisturbed / "base" / "metrics.jsonl").read_bytes())
