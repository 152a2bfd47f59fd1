"""Two Gloo processes are one: same global batch, same gradients, same losses, same optimizer state once gathered."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from nanochat.runtime import open_run
from nanochat.train import checkpoint
from nanochat.train.launch import launch

FIRST_GRADIENT = """
import sys; sys.path.insert(0, sys.argv[3])
import torch, tiny
from safetensors.torch import save_file
from nanochat.data import pretrain_loader
from nanochat.data.source import text_shards
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import open_run, world
from nanochat.tokenizer import Tokenizer
from nanochat.train.chat_stage import mixture_loader
run, stage, peers = open_run(sys.argv[1]), sys.argv[2], world("cpu")
config, tokenizer = tiny.CONFIGS[stage], Tokenizer.from_dir(run / "tokenizer")
model = GPT(GPTConfig.from_depth(2, tokenizer.vocab_size, 64, n_embd=32, head_dim=16))
model.init_weights(seed=0)
# zero-initialised output matrices would hide most gradients
g = torch.Generator().manual_seed(1)
for p in model.parameters():
    p.data += 0.02 * torch.randn(p.shape, generator=g)
if stage == "pretrain":
    paths = text_shards("toy", run / "data", world="smoke")[:-1]
    loader = pretrain_loader(paths, tokenizer, rows=8, sequence_len=64, rank=peers.rank, world=peers.size)
else:
    loader = mixture_loader(config, "train", run, tokenizer, model, peers)
inputs, targets = map(torch.from_numpy, loader.next())
counted = peers.sum((targets >= 0).sum())
(model(inputs, targets, reduction="sum") / counted).backward()
gradients = {n: peers.sum(p.grad) for n, p in model.named_parameters()}
if peers.main:
    save_file(gradients, sys.argv[4])
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same stages on one process and on two."""
    folder = tmp_path_factory.mktemp("runs")
    one = tiny.make_run(folder / "one")
    shutil.copytree(one.path, folder / "two")
    two = open_run(folder / "two")
    for stage in ("pretrain", "midtrain", "sft"):
        config = tiny.CONFIGS[stage].model_copy(update={"schedule": tiny.CONFIGS[stage].schedule.model_copy(update={"steps": 20})})
        launch(stage, config, one, tiny.machine(1))
        launch(stage, config, two, tiny.machine(2))
    return one, two


@pytest.mark.parametrize("folder", ["base", "mid", "sft"])
def test_losses_agree_over_twenty_steps(runs, folder):
    one, two = ([row["loss"] for row in run.history(folder) if "loss" in row] for run in runs)
    assert len(one) == len(two) == 20
    assert max(abs(a - b) for a, b in zip(one, two)) < 1e-4


@pytest.mark.parametrize("folder", ["base", "sft"])
def test_sharded_optimizer_state_gathered_equals_the_unsharded(runs, folder):
    (weights1, state1, _, _), (weights2, state2, _, _) = (checkpoint.load(checkpoint.latest(run / folder)) for run in runs)
    one, two = whole(state1), whole(state2)
    assert one.keys() == two.keys() and len(two) < len(state2), "with two ranks some state must be in pieces"
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-6)
    for name in weights1:
        torch.testing.assert_close(weights2[name], weights1[name], rtol=1e-3, atol=1e-4)


def whole(state: dict) -> dict:
    """Optimizer tensors with the row ranges of sharded ones (…@rows0:160) put together."""
    parts: dict = {}
    for name, tensor in state.items():
        base, _, rows = name.partition("@rows")
        parts.setdefault(base, []).append((int(rows.split(":")[0] or 0) if rows else 0, tensor))
    return {name: torch.cat([t for _, t in sorted(p, key=lambda x: x[0])]) if len(p) > 1 else p[0][1] for name, p in parts.items()}


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_first_gradients_agree(runs, tmp_path, stage):
    from safetensors.torch import load_file

    script = tmp_path / "gradient.py"
    script.write_text(FIRST_GRADIENT)
    here = str(Path(__file__).parent)
    gradients = []
    for n in (1, 2):
        out = str(tmp_path / f"{n}.safetensors")
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", str(script),
                        str(runs[0].path), stage, here, out], check=True, capture_output=True)
        gradients.append(load_file(out))
    for name, one in gradients[0].items():
        difference = (gradients[1][name] - one).norm() / one.norm()
        assert difference < 1e-6, f"{name}: {difference}"
