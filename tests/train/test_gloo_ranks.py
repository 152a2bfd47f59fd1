"""Two and four Gloo processes are one: the same gradients, losses and optimizer state, and any number goes on from any."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
import peers
import tiny

from nanochat.course import scale
from nanochat.data import pretrain_loader
from nanochat.data.source import text_shards
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, open_run
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.chat_stage import mixture_loader
from nanochat.train.launch import STAGES, _run
from nanochat.train.optim import MuonAdamW

STEPS, SIZES = 50, (2, 4)
# The speedrun's model begins with as many steps on one rank. At first no block adds anything: what backout subtracts is a
# multiple of what it leaves, its gradient is rounding alone, and AdamW makes a whole step of it, up or down.
START = 10


def config(stage: str):
    """The stage of a tiny run, 50 steps of it; "speedrun": pretraining of that architecture by its full recipe."""
    base = tiny.CONFIGS["pretrain" if stage == "speedrun" else stage]
    steps, changes = STEPS, {"save_every": 100, "eval_every": STEPS}
    if stage == "speedrun":
        rates = {**tiny.OPTIM, "scale_by_width": False}  # the recipe's own are for long runs of large models
        steps, changes["optim"] = START + STEPS, scale("gpt2").pretrain.optim.model_copy(update=rates)
        changes["model"] = base.model.model_copy(update={"arch": "speedrun", "depth": 3})
    return base.model_copy(update=changes | {"schedule": base.schedule.model_copy(update={"steps": steps})})


CONFIGS = {stage: config(stage) for stage in ("pretrain", "speedrun", "midtrain", "sft")}


def kind(stage: str) -> str:
    return "pretrain" if stage == "speedrun" else stage


def folder_of(stage: str) -> str:
    return STAGES[kind(stage)][2]


def train(world: World, folder: Path, stage: str, stop_at: int | None = None) -> None:
    """One stage as `launch` starts it on each rank; at a step rank 0 may be told to stop."""

    def live(row):
        if row["step"] == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    _run(kind(stage), CONFIGS[stage], open_run(folder), tiny.machine(world.size), live)


def everything(world: World, folder: Path) -> None:
    """What each of two or four ranks does: first gradients and the whole stage, each beside what one rank did."""
    for stage in CONFIGS:
        first_gradients(world, folder / f"{stage}-1", stage, folder / f"{stage}-{world.size}.gradients")
        train(world, folder / f"{stage}-{world.size}", stage)


def first_gradients(world: World, folder: Path, stage: str, out: Path) -> None:
    """The gradients of the first batch as the optimizer gets them, one file a rank: {weights of a bank: this rank's run}."""
    run, c = open_run(folder), CONFIGS[stage]
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    depth, arch = (c.model.depth, c.model.arch) if kind(stage) == "pretrain" else (2, "seed")
    model = GPT(GPTConfig.from_depth(depth, tokenizer.vocab_size, 64, n_embd=32, head_dim=16, arch=arch)).init_weights(
        0
    )
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # output matrices that begin as zeros would hide most gradients
        for p in model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=g)
    optimizer = MuonAdamW(model, c.optim, world)
    if kind(stage) == "pretrain":
        paths = text_shards("toy", run / "data", world="smoke")[:-1]
        loader = pretrain_loader(paths, tokenizer, rows=8, sequence_len=64, rank=world.rank, world=world.size)
    else:
        loader = mixture_loader(c, "train", run, tokenizer, model, world)
    inputs, targets = map(torch.from_numpy, loader.next())
    counted = world.sum((targets >= 0).sum())
    with optimizer.overlap():
        (model(inputs, targets, reduction="sum") / counted).backward()
    save_file(summed(optimizer), f"{out}{world.rank}")


def summed(optimizer: MuonAdamW) -> dict[str, torch.Tensor]:
    """This rank's part of the summed gradient, by the names that its state has: "<weight>" or "<weight>@rows<a>:<b>"."""
    optimizer._send_all()
    gradients = {}
    for group in optimizer.groups:
        group.receive()
        names = [name for name in group.state() if name.rpartition("/")[2].startswith(("momentum", "exp_avg@"))]
        pieces = torch.cat(group.grads)[: len(group.own)]
        if names:
            gradients |= dict(zip(names, pieces.unbind() if len(names) == len(pieces) > 1 else [pieces], strict=True))
    return {name: g.clone() for name, g in gradients.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The stages on one rank; each again on two and on four, from where the one rank's began."""
    folder = tmp_path_factory.mktemp("runs")
    begun = {
        "pretrain": tiny.make_run(folder / "text").path,
        "midtrain": folder / "pretrain-1",
        "sft": folder / "midtrain-1",
    }
    begun["speedrun"] = shutil.copytree(begun["pretrain"], folder / "speedrun")
    with pytest.raises(SystemExit):
        train(World(), begun["speedrun"], "speedrun", stop_at=START)
    for stage in CONFIGS:
        for size in (1, *SIZES):
            shutil.copytree(begun[stage], folder / f"{stage}-{size}")
        train(World(), folder / f"{stage}-1", stage)
    for stage in CONFIGS:
        first_gradients(World(), folder / f"{stage}-1", stage, folder / f"{stage}-1.gradients")
    for size in SIZES:
        peers.run(size, everything, folder)
    return folder


def losses(folder: Path, stage: str) -> list[float]:
    return [row["loss"] for row in open_run(folder).history(folder_of(stage)) if "loss" in row]


def whole(pieces: dict) -> dict:
    """Tensors with the row ranges of sharded ones (…@rows0:160) put together."""
    parts: dict = {}
    for name, tensor in pieces.items():
        base, _, rows = name.partition("@rows")
        parts.setdefault(base, []).append((int(rows.split(":")[0] or 0) if rows else 0, tensor))
    return {
        name: torch.cat([t for _, t in sorted(p, key=lambda x: x[0])]) if len(p) > 1 else p[0][1]
        for name, p in parts.items()
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", CONFIGS)
def test_first_gradients_agree(runs, stage, size):
    one, many = (
        whole({name: g for rank in range(n) for name, g in load_file(f"{runs}/{stage}-{n}.gradients{rank}").items()})
        for n in (1, size)
    )
    assert one.keys() == many.keys()
    for name in one:
        difference = (many[name] - one[name]).norm() / one[name].norm()
        limit = 1e-6 if one[name].numel() > 3 else 5e-5  # a scalar's is a sum in which most cancels
        assert difference < limit, f"{name}: {difference}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", CONFIGS)
def test_losses_agree_over_fifty_steps(runs, stage, size):
    one, many = (losses(runs / f"{stage}-{n}", stage) for n in (1, size))
    assert len(one) == len(many) == CONFIGS[stage].schedule.steps
    assert max(abs(a - b) for a, b in zip(one, many, strict=True)) < 1e-4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", CONFIGS)
def test_the_gathered_optimizer_state_equals_the_whole(runs, stage, size):
    folders = (runs / f"{stage}-{n}" / folder_of(stage) for n in (1, size))
    (weights1, state1, _, _), (weights, state, _, _) = (
        checkpoint.load(checkpoint.latest(folder)) for folder in folders
    )
    one, many = whole(state1), whole(state)
    assert one.keys() == many.keys() and len(many) < len(state), "with several ranks some state must be in pieces"
    for name in one:
        torch.testing.assert_close(many[name], one[name], rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    for name in weights1:  # as wholes: AdamW makes whole steps of single gradients that are rounding alone
        assert (weights[name] - weights1[name]).norm() < 1e-3 * weights1[name].norm(), name


@pytest.mark.parametrize("stage", ["pretrain", "speedrun"])
def test_one_then_four_then_two_then_one_rank_have_the_losses_of_one(runs, stage):
    folder = runs / f"{stage}-resumed"
    shutil.copytree(runs / {"pretrain": "text", "speedrun": "speedrun"}[stage], folder)
    for size, stop_at in ((1, 12), (4, 25), (2, 38), (1, None)):
        peers.run(size, train, folder, stage, stop_at)
    one, many = losses(runs / f"{stage}-1", stage), losses(folder, stage)
    assert len(one) == len(many) == CONFIGS[stage].schedule.steps
    assert max(abs(a - b) for a, b in zip(one, many, strict=True)) < 1e-4
