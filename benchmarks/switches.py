"""What each part of the model is worth: the toy model trained with one part changed at a time, for equal steps, several seeds.

    python benchmarks/switches.py                                 all of the list below; about 12 core minutes
    python benchmarks/switches.py --text tinyshakespeare.txt      on another text: blank lines part its documents
    python benchmarks/switches.py --steps 4 --seeds 1 --only smear --out try.json          does it run?

A seed fixes the weights at the start and the order of the text, so a change is compared with the unchanged model seed by
seed; what that one's own seeds differ by is the noise. Learning rates are the toy scale's, which were chosen for the
unchanged model. A run that is in the results already is not repeated. Writes benchmarks/results/switches.json.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.course import prepare, scale
from nanochat.data import pretrain_loader
from nanochat.data.shards import write_shard
from nanochat.evals import bits_per_byte
from nanochat.model import GPT, GPTConfig, block
from nanochat.model.block import MLP
from nanochat.model.precision import Linear, rms_norm
from nanochat.runtime import World, open_run, read_json, write_json
from nanochat.tokenizer import Tokenizer
from nanochat.train.optim import MuonAdamW
from nanochat.train.schedule import lr_scale

TOY = scale("toy")
HEADS, WINDOW, ROWS, VAL_ROWS = 4, 32, 8, 128

# --- changes that are no switch of GPTConfig --------------------------------------------------------------------------


def no_positions(model: GPT) -> None:
    model.cos.fill_(1.0)  # every angle is 0
    model.sin.zero_()


def tied(model: GPT) -> None:
    model.lm_head.weight = model.wte.weight
    with torch.no_grad():
        model.wte.weight.mul_(0.02)  # normalised after the look-up anyway; as a head it must begin small


class ReLU(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)))


class GELU(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class SwiGLU(nn.Module):
    """Three matrices, 8/3 as wide: as many weights as the MLP with two and a width of 4. (Shazeer 2020)"""

    def __init__(self, config: GPTConfig):
        super().__init__()
        inner = 8 * config.n_embd // 3
        self.c_fc, self.c_up = Linear(config.n_embd, inner), Linear(config.n_embd, inner)
        self.c_proj = Linear(inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.silu(self.c_fc(x)) * self.c_up(x))


def without_norm(dimensions: int):
    """No norm in the blocks of tensors with 3 dimensions, (B, T, C), or with 4, queries and keys."""
    return patch.object(block, "rms_norm", lambda x: x if x.dim() == dimensions else rms_norm(x))


# --- the list ---------------------------------------------------------------------------------------------------------

SPEEDRUN = {"value_embeddings": True, "layer_scalars": True, "window_pattern": "SSSL", "short_window": WINDOW, "smear": True,
            "backout": True, "qk_scale": 1.2, "rope_base": 1e5, "init": "uniform"}  # fmt: skip
# name: what is changed: `config` (GPTConfig), `mlp`, `model` (by a function), `norm` (left out), `rates` (a factor)
BASE, HOT = "the seed model", "five times the rate"
VARIANTS = {
    BASE: {},
    "no positions (RoPE)": {"model": no_positions},
    "no QK norm": {"norm": 4},
    "no norm before blocks": {"norm": 3},
    "no softcap": {"config": {"softcap": 1e6}},
    "ReLU, not squared": {"mlp": ReLU},
    "GELU": {"mlp": GELU},
    "SwiGLU": {"mlp": SwiGLU},
    "2 key heads of 4 (GQA)": {"config": {"n_kv_head": 2}},
    "1 key head of 4 (MQA)": {"config": {"n_kv_head": 1}},
    "embedding tied to head": {"model": tied},
    "+ value embeddings": {"config": {"value_embeddings": True}},
    "+ layer scalars": {"config": {"layer_scalars": True}},
    "+ windows (SSSL)": {"config": {"window_pattern": "SSSL", "short_window": WINDOW}},
    "+ smear": {"config": {"smear": True}},
    "+ backout": {"config": {"backout": True}},
    "+ QK scale 1.2": {"config": {"qk_scale": 1.2}},
    "+ uniform init": {"config": {"init": "uniform"}},
    "+ all of these, RoPE base 10⁵": {"config": SPEEDRUN},
    HOT: {"rates": 5},
    "no QK norm, 5 × rate": {"norm": 4, "rates": 5},
    "no softcap, 5 × rate": {"config": {"softcap": 1e6}, "rates": 5},
}


def compared_with(name: str) -> str:
    return HOT if name.endswith("5 × rate") else BASE


# --- one run ----------------------------------------------------------------------------------------------------------


def text(path: Path | None, folder: Path) -> tuple[list[Path], Tokenizer]:
    """Shards, the last for validation, and a tokenizer: the toy world's, or those of a file."""
    if path is None:
        run = open_run(str(folder / "toy"), scale="toy", seed=0, create=True)
        return prepare.text(TOY, run), prepare.train_tokenizer(TOY, run)
    documents = path.read_text(encoding="utf-8").split("\n\n")
    cut = len(documents) * 9 // 10
    paths = [folder / "train.parquet", folder / "val.parquet"]
    for shard, part in zip(paths, (documents[:cut], documents[cut:])):
        write_shard(shard, part)
    return paths, Tokenizer.train(documents[:cut], TOY.tokenizer.vocab_size, TOY.tokenizer.digits)


def batches(paths: list[Path], tokenizer: Tokenizer, rows: int, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """(rows, T) inputs and targets."""
    loader = pretrain_loader(paths, tokenizer, rows=rows, sequence_len=TOY.pretrain.model.sequence_len, seed=seed)
    return [tuple(torch.from_numpy(a) for a in loader.next()) for _ in range(count)]


def learn(change: dict, tokenizer: Tokenizer, train: list, val: list, seed: int, dtype: torch.dtype) -> dict:
    """Train one model on `train`; its size, its bits per byte on `val` and the core milliseconds of its median step."""
    shape = TOY.pretrain.model
    config = GPTConfig.from_depth(shape.depth, tokenizer.vocab_size, shape.sequence_len, n_embd=shape.n_embd,
                                  head_dim=shape.n_embd // HEADS)  # fmt: skip
    model = GPT(replace(config, **change.get("config", {})))
    for layer in model.blocks:
        layer.mlp = change["mlp"](model.config) if "mlp" in change else layer.mlp
    model.init_weights(seed)
    if "model" in change:
        change["model"](model)
    model.compute_dtype = dtype
    optimizer, times = MuonAdamW(model, TOY.pretrain.optim, World()), []
    with without_norm(change["norm"]) if "norm" in change else nullcontext():
        for step, (inputs, targets) in enumerate(train):
            begin = time.process_time()
            model(inputs, targets).backward()
            optimizer.step(change.get("rates", 1) * lr_scale(step, len(train), warmup=10, flat=0.4, final=0.02))
            optimizer.zero_grad()
            times.append(time.process_time() - begin)
        bpb = bits_per_byte(model, val, tokenizer.token_bytes)
    return {"params": model.num_params(), "val_bpb": bpb, "core_ms": 1000 * statistics.median(times)}


# --- the table --------------------------------------------------------------------------------------------------------


def show(found: dict) -> None:
    """Every variant's mean over the seeds, and its change seed by seed; a change within the seeds' spread is noise."""
    spread = max(found[BASE]["val_bpb"]) - min(found[BASE]["val_bpb"])
    print(f"\n{'':<28} {'bits/byte':>9} {'change':>8} {'from .. to':>18} {'core ms':>8} {'weights':>10}")
    for name, row in found.items():
        change = [a - b for a, b in zip(row["val_bpb"], found[compared_with(name)]["val_bpb"])]
        mean, low, high = statistics.mean(change), min(change), max(change)
        print(f"{name:<28} {statistics.mean(row['val_bpb']):>9.3f} {mean:>+8.3f} {low:>+8.3f} .. {high:>+.3f} "
              f"{statistics.median(row['core_ms']):>8.1f} {row['params']:>10,}"
              f"{'  noise' if abs(mean) <= spread or low < 0 < high else ''}")  # fmt: skip
    print(f"the seed model alone: {spread:.3f} from its best to its worst seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text file in place of the toy world")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="variants whose name contains this, and the two they are compared with")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "switches.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setup = {"text": options.text.name if options.text else "toy world", "steps": options.steps, "rows": ROWS,
             "dtype": options.dtype, "torch": torch.__version__}  # fmt: skip
    result = read_json(options.out) if options.out.exists() else {}
    if result.get("setup") != setup:
        result = {"setup": setup, "variants": {}}
    found = result["variants"]
    wanted = [name for name in VARIANTS if not options.only or options.only in name or name in (BASE, HOT)]
    with tempfile.TemporaryDirectory() as folder:
        paths, tokenizer = text(options.text, Path(folder))
        val = batches(paths[-1:], tokenizer, VAL_ROWS, 1, seed=0)
        for seed in range(options.seeds):
            train = batches(paths[:-1], tokenizer, ROWS, options.steps, seed)
            for name in wanted:
                row = found.setdefault(name, {"params": 0, "val_bpb": [], "core_ms": []})
                if len(row["val_bpb"]) > seed:
                    continue
                one = learn(VARIANTS[name], tokenizer, train, val, seed, getattr(torch, options.dtype))
                row["params"] = one["params"]
                row["val_bpb"].append(round(one["val_bpb"], 5))
                row["core_ms"].append(round(one["core_ms"], 1))
                print(
                    f"seed {seed}  {name:<28} {one['val_bpb']:.4f} bits per byte, {one['core_ms']:.0f} ms", flush=True
                )
                write_json(options.out, result)
    show(found)


if __name__ == "__main__":
    main()
