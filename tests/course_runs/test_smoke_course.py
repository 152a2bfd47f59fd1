"""The whole course at smoke scale: every step of the pipeline, and what happens when it is stopped or misused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from nanochat.course import load
from nanochat.runtime import open_run
from nanochat.train.config import MachineConfig
from nanochat.train.launch import launch

NANOCHAT = [sys.executable, "-m", "nanochat.cli"]


def nanochat(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*NANOCHAT, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A complete run at smoke scale that was killed (−9) in the middle of lesson 05 and started again on two processes."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    command = [*NANOCHAT, "run", "--scale", "smoke", "--run", str(folder), "--seed", "7"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (folder / "base" / "metrics.jsonl").exists():
        assert process.poll() is None, "the run ended before lesson 05"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):                 # its kernel notices that its parent is gone
        done = nanochat("run", "--scale", "smoke", "--run", str(folder), "--seed", "7", "--nproc", "2")
        if "in use" not in done.stdout + done.stderr:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("up to date") == 4, "the first four lessons were complete and must not run again"
    return folder


def test_it_leaves_everything(smoke):
    results = json.loads((smoke / "report.json").read_text())
    for key in ("char_rnn.val_bpb", "base.val_bpb", "base.core", "base.cloze_acc", "base.addition_acc", "mid.val_bpb", "sft.chatcore",
                "sft.qa_seen_acc", "sft.qa_heldout_acc", "sft.tool_acc", "grpo.reward_first", "grpo.reward_last", "grpo.reward_zero_lr",
                "grpo.reward_more_sft", "grpo.heldout_before", "grpo.heldout_after", "time.total_s", "time.09_s"):
        assert key in results, key
    assert len(list((smoke / "notebooks").glob("0*.ipynb"))) == 9


def test_two_processes_made_what_one_does(smoke, tmp_path):
    """The notebooks' stages went through torchrun; one process makes the same of the same start."""
    for stage in ("mid", "sft", "rl"):
        newest = max((smoke / stage).glob("step_*"))
        assert len(list(newest.glob("optim_rank*"))) == 2, stage
    shutil.copytree(smoke, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "sft")
    one = launch("sft", load().scale("smoke").sft, open_run(tmp_path / "run"), MachineConfig(device="cpu", threads=1))
    two = json.loads((smoke / "sft" / "result.json").read_text())
    assert one["val_bpb"] == pytest.approx(two["val_bpb"], rel=2e-3) and one["tokens"] == two["tokens"]


def test_another_seed_in_the_same_folder_is_refused(smoke):
    done = nanochat("run", "--scale", "smoke", "--run", str(smoke), "--seed", "8")
    assert done.returncode == 2 and "seed 7, not 8" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("arguments", "told"), [
    (("run", "--scale", "galaxy"), "unknown scale 'galaxy'"),
    (("run", "--scale", "smoke", "--from", "12"), "no lesson '12'"),
    (("grade", "77"), "77"),
    (("chat", "--run", "nobody", "-p", "hi"), "no run at"),
    (("serve", "--run", "nobody"), "no run at"),
    (("report", "--run", "nobody"), "no run at"),
    (("export", "--run", "nobody", "--to", "hf", "x"), "no run at"),
])
def test_mistakes_get_one_clear_line(arguments, told):
    done = nanochat(*arguments)
    assert done.returncode == 2
    assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_corrupt_shard_is_named(smoke, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(smoke, folder)
    shutil.rmtree(folder / "base")
    shard = min((folder / "data" / "text").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    done = nanochat("run", "--scale", "smoke", "--run", str(folder), "--seed", "7", "--from", "05", "--until", "05")
    assert done.returncode == 1 and shard.name in done.stdout + done.stderr
    assert not list((folder / "base").glob("step_*"))


@pytest.mark.parametrize(("to", "files"), [("hf", ["config.json", "model.safetensors", "tokenizer.json"]), ("tiktoken", []), ("c", ["run.c", "model.bin"])])
def test_exports(smoke, tmp_path, to, files):
    done = nanochat("export", "--run", str(smoke), "--to", to, str(tmp_path / to))
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / to).iterdir()}
    assert made >= set(files) and made
