"""Ranks come and go: another number of them, one killed, one with a NaN, all told to stop. The run is the same run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.data import pretrain_loader
from nanochat.data.source import text_shards
from nanochat.runtime import UserError
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.launch import launch

STEPS = 400
CONFIG = tiny.CONFIGS["pretrain"]
SCHEDULE = CONFIG.schedule.model_copy(update={"steps": STEPS})
CONFIG = CONFIG.model_copy(update={"eval_every": STEPS, "schedule": SCHEDULE})


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    run = tiny.make_run(tmp_path_factory.mktemp("runs") / "calm")
    launch("pretrain", CONFIG, run, tiny.machine())
    return run


def losses(run) -> dict:
    return {row["step"]: row["loss"] for row in run.history("base") if "loss" in row}


def test_a_run_through_all_weather_has_the_losses_of_a_calm_one(calm, tmp_path, capsys):
    run = tiny.make_run(tmp_path / "stormy")

    def stop_at(step):
        return lambda row: os.kill(os.getpid(), signal.SIGTERM) if row.get("step") == step else None

    with pytest.raises(SystemExit):                                    # one rank, told to stop
        launch("pretrain", CONFIG, run, tiny.machine(1), live=stop_at(9))
    assert checkpoint.latest(run / "base").name == "step_000010"

    reached = []                                                       # where the ranks were when one was killed

    def kill_then_stop(row):
        if row["step"] >= 16 and not reached:
            tiny.rank_process(os.getpid(), 1).kill()
            reached.append(max(losses(run)))
        elif reached and row["step"] > reached[0] + 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as left:                            # two ranks; one dies, all restart; told to stop
        launch("pretrain", CONFIG, run, tiny.machine(2), live=kill_then_stop)
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "rank 1 was killed by signal 9; all start again from the newest checkpoint (1 of 3 times)" in told
    assert "pretrain: base: stopped after step" in told
    assert not (run / "base" / "result.json").exists()

    launch("pretrain", CONFIG, run, tiny.machine(1))                   # one rank again
    one, other = losses(calm), losses(run)
    assert one.keys() == other.keys() and len(one) == STEPS
    assert max(abs(one[step] - other[step]) for step in one) < 1e-3


# Both ranks run this; rank 1 gets a NaN into its gradient at four steps, and is slow to read.
SPOILED = """
import hashlib, sys; sys.path.insert(0, sys.argv[2])
import time, tiny, torch
from nanochat.train.feed import Feed
from nanochat.runtime import open_run, world
from nanochat.train import watch
from nanochat.train.optim import MuonAdamW
from nanochat.train.pretrain import pretrain
peers, made, begin = world("cpu"), [], MuonAdamW.__init__
def spoiled(self, *args):
    begin(self, *args)
    made.append(self)
    passes = []
    def spoil(gradient):
        passes.append(1)
        return gradient * (torch.nan if peers.rank == 1 and len(passes) in (5, 16, 17, 18) else 1)
    self.params[0].register_hook(spoil)
MuonAdamW.__init__ = spoiled
read = Feed.next
def slow(self):
    time.sleep(0.1)
    return read(self)
if peers.rank == 1:
    Feed.next = slow
watch.PACE_STEPS = 4
try:
    pretrain(open_run(sys.argv[1]), tiny.CONFIGS["pretrain"], tiny.machine(2), peers)
finally:
    weights = b"".join(p.detach().numpy().tobytes() for p in made[-1].params)
    digests = peers.gather([hashlib.sha256(weights).hexdigest(), made[-1].count])
    if peers.main:
        print("DIGESTS", digests[0] == digests[1], digests[0][1], flush=True)
"""


def test_a_nan_on_one_rank_is_skipped_on_all_the_third_in_a_row_ends_all_and_a_slow_rank_is_named(tmp_path):
    run = tiny.make_run(tmp_path / "run")
    (tmp_path / "spoiled.py").write_text(SPOILED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               tmp_path / "spoiled.py", run.path, Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DIGESTS True 14" in done.stdout, done.stdout + done.stderr   # of 18 steps 4 were left out, on both
    skipped = [row for row in run.history("base") if row.get("kind") == "skipped"]
    assert [row["step"] for row in skipped] == [5, 16, 17, 18]
    assert [len(rows) for rows in skipped[0]["documents"]] == [4, 4]     # the rows of either rank
    assert "base: rank 1 is slow: 0." in done.stdout
    assert "the gradient is not finite at steps 16, 17, 18" in done.stderr
    assert checkpoint.latest(run / "base").name == "step_000014"


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2), (1, 4), (4, 2)])
def test_another_number_of_ranks_reads_the_same_documents(calm, before, after):
    paths, tokenizer = text_shards("toy", calm / "data", world="smoke")[:-1], Tokenizer.from_dir(calm / "tokenizer")

    def loaders(world):
        same = {"rows": 8, "sequence_len": 64, "world": world}
        return [pretrain_loader(paths, tokenizer, rank=rank, **same) for rank in range(world)]

    def read(loaders, batches):
        inputs, keys = [], []
        for _ in range(batches):
            inputs += [loader.next()[0] for loader in loaders]
            keys += [key for loader in loaders for row in loader.keys for key in row]
        return np.concatenate(inputs), keys

    whole_rows, whole_keys = read(loaders(1), 24)
    first = loaders(before)
    rows, keys = read(first, 11)
    second, states = loaders(after), json.loads(json.dumps([loader.state() for loader in first]))
    for loader in second:
        loader.load(states)
    more_rows, more_keys = read(second, 13)
    assert sorted(keys + more_keys) == sorted(whole_keys)
    assert np.array_equal(np.concatenate([rows, more_rows]), whole_rows)



def test_a_refusal_on_two_ranks_is_one_line_and_no_reason_to_start_again(calm, capsys):
    other = CONFIG.model_copy(update={"rows": 16})
    with pytest.raises(UserError, match="another configuration .rows 8 → 16"):
        launch("pretrain", other, calm, tiny.machine(2))
    assert "start again" not in capsys.readouterr().out
