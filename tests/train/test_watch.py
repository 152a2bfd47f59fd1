"""Steps that are not finite change nothing and are named; three end the run; spikes and slow ranks are told."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.data import pretrain_loader
from nanochat.data.source import text_shards
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError, World, open_run
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.config import OptimConfig
from nanochat.train.launch import launch
from nanochat.train.optim import MuonAdamW
from nanochat.train.watch import Watch


@pytest.fixture(scope="module")
def sft_run(tmp_path_factory):
    run = tiny.make_run(tmp_path_factory.mktemp("runs") / "sft")
    for stage in ("pretrain", "midtrain", "sft"):
        steps = tiny.CONFIGS[stage].schedule.model_copy(update={"steps": 4})
        launch(stage, tiny.CONFIGS[stage].model_copy(update={"schedule": steps}), run, tiny.machine())
    return run


def spoil(monkeypatch, calls: set[int]):
    """Let the gradient of the optimizer's n-th calls hold one NaN."""
    step, count = MuonAdamW.step, [0]

    def spoiled(self, **settings):
        count[0] += 1
        if count[0] in calls:
            self.params[-1].grad[0, 0] = torch.nan
        return step(self, **settings)

    monkeypatch.setattr(MuonAdamW, "step", spoiled)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_update_that_is_not_finite_changes_neither_weights_nor_state(bad):
    model = GPT(GPTConfig(8, 32, 1, 1, 1, 16)).init_weights(0)
    optimizer = MuonAdamW(model, OptimConfig(), World())

    def learn(value=0.0):
        model(torch.arange(8)[None], torch.arange(1, 9)[None]).backward()
        model.wte.weight.grad[3, 3] += value
        norm = optimizer.step()
        optimizer.zero_grad()
        return norm

    assert learn() > 0
    before = {name: t.clone() for name, t in (model.state_dict() | optimizer.state_tensors()).items()}
    assert learn(bad) == torch.inf
    assert all(torch.equal(t, before[name]) for name, t in (model.state_dict() | optimizer.state_tensors()).items())
    assert learn() > 0 and optimizer.count == 2


def test_the_norm_is_that_of_the_whole_gradient():
    model = GPT(GPTConfig(8, 32, 2, 1, 1, 16)).init_weights(0)
    model(torch.arange(8)[None], torch.arange(1, 9)[None]).backward()
    want = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert MuonAdamW(model, OptimConfig(), World()).step() == pytest.approx(want, rel=1e-5)


def test_a_skipped_step_still_counts_and_its_documents_are_named(tmp_path, monkeypatch, capsys):
    run, config = tiny.make_run(tmp_path / "run"), tiny.CONFIGS["pretrain"]
    spoil(monkeypatch, {5, 6, 9})
    result = launch("pretrain", config, run, tiny.machine())
    rows = run.history("base")
    assert [row["step"] for row in rows if row.get("kind") == "skipped"] == [5, 6, 9]
    assert [row["step"] for row in rows if "loss" in row] == [s for s in range(1, tiny.STEPS + 1) if s not in (5, 6, 9)]
    assert result["loss"] < 3 and all(row["grad_norm"] > 0 for row in rows if "loss" in row)
    paths = text_shards("toy", run / "data", world="smoke")[:-1]
    loader = pretrain_loader(paths, Tokenizer.from_dir(run / "tokenizer"), rows=8, sequence_len=64)
    for _ in range(9):
        loader.next()
    assert [row for row in rows if row.get("kind") == "skipped"][-1]["documents"] == [loader.keys]
    assert "base: step 9 was skipped, the gradient is not finite" in capsys.readouterr().out
    _, optim, _, _ = checkpoint.load(checkpoint.latest(run / "base"))
    assert optim["step"] == tiny.STEPS - 3


def test_three_in_a_row_end_the_run_and_leave_the_checkpoint(tmp_path, monkeypatch):
    run = tiny.make_run(tmp_path / "run")
    spoil(monkeypatch, {10, 11, 12})
    with pytest.raises(UserError, match="the gradient is not finite at steps 10, 11, 12"):
        launch("pretrain", tiny.CONFIGS["pretrain"], run, tiny.machine())
    assert checkpoint.latest(run / "base").name == "step_000007"
    monkeypatch.undo()
    assert launch("pretrain", tiny.CONFIGS["pretrain"], run, tiny.machine())["loss"] < 3


def test_a_loss_that_is_not_finite_is_no_update_either(tmp_path, monkeypatch):
    run, forward, calls = tiny.make_run(tmp_path / "run"), GPT.forward, [0]

    def spoiled(self, *args, **settings):
        loss = forward(self, *args, **settings)
        calls[0] += self.training and torch.is_grad_enabled()
        if calls[0] in (10, 11, 12) and torch.is_grad_enabled():
            return loss + torch.inf                    # its gradient is finite
        return loss

    monkeypatch.setattr(GPT, "forward", spoiled)
    with pytest.raises(UserError, match="the loss is not finite at steps 10, 11, 12"):
        launch("pretrain", tiny.CONFIGS["pretrain"], run, tiny.machine())


def test_grpo_skips_and_stops_too(sft_run, monkeypatch):
    spoil(monkeypatch, {2, 5, 6, 7})
    with pytest.raises(UserError, match="the gradient is not finite at steps 5, 6, 7"):
        launch("grpo", tiny.CONFIGS["grpo"], sft_run, tiny.machine())
    rows = sft_run.history("rl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 3, 4]
    skipped = [row for row in rows if row.get("kind") == "skipped"]
    assert [row["step"] for row in skipped] == [2, 5, 6, 7] and len(skipped[0]["documents"][0][0]) == 4
    assert checkpoint.latest(sft_run / "rl").name in ("step_000004", "step_000006")


@pytest.fixture
def watch(tmp_path):
    run = open_run(tmp_path / "run", scale="smoke", seed=0, create=True)
    return lambda world=None: Watch(run, "base", world or World())


def test_a_spike_is_told_once_and_noise_is_not(watch, capsys):
    watch, noise = watch(), torch.Generator().manual_seed(0)
    for step in range(400):
        watch(step, 3 - step / 400 + 0.05 * float(torch.randn((), generator=noise)), 1.0, [])
    watch(400, 9.0, 1.0, [])
    watch(401, 2.0, 1.0, [])
    assert capsys.readouterr().out == ""
    for step in range(402, 412):
        watch(step, 4.0, 1.0, [])
    told = capsys.readouterr().out
    assert told.count("loss spike") == 1 and "5 steps up to 406" in told


class Ranks(World):
    """Rank 0 of four, of which `times` says how long each works; `gather` knows."""

    times = (1.0, 1.0, 1.3, 1.0)

    def gather(self, value):
        return list(self.times)


def test_a_rank_that_is_slow_for_three_windows_is_named(watch, capsys):
    watch = watch(Ranks(size=4))
    for step in range(299):
        watch(step, 3.0, 1.0, [])
    assert capsys.readouterr().out == ""
    watch(299, 3.0, 1.0, [])
    assert "rank 2 is slow" in capsys.readouterr().out


def test_another_rank_each_time_or_a_small_difference_is_noise(watch, capsys):
    for times in ((1.3, 1.0, 1.0, 1.0), (1.0, 1.3, 1.0, 1.0)), ((1.1, 1.0, 1.0, 1.0),) * 2:
        ranks = Ranks(size=4)
        watching = watch(ranks)
        for step in range(800):
            Ranks.times = times[step // 100 % 2]
            watching(step, 3.0, 1.0, [])
    assert capsys.readouterr().out == ""


def test_the_stopwatch_counts_what_is_inside_its_blocks(watch, monkeypatch):
    ticks = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    own_work = watch().own_work
    for _ in range(2):
        with own_work:
            pass
    assert own_work.take() == 2.5 and own_work.take() == 0.0


def test_ranks_that_do_not_agree_are_refused_with_the_first_difference():
    class Two(World):
        def gather(self, value):
            return [value, {**value, "data": "cafe", "first step": 7}]

    with pytest.raises(UserError, match="rank 1 has data 'cafe', rank 0 has 'beef'"):
        Two(size=2).agree({"config": "c", "data": "beef", "first step": 14})
    World().agree({"config": "c"})
