"""What weights in banks save: the optimizer's step and the bytes it copies, beside the design that stacked weights at every step.

    python benchmarks/sharding.py                       toy size and depth 12, one and two Gloo ranks, one thread each
    python benchmarks/sharding.py --sizes toy --steps 5

The older design is read from this repository's history. Both update one model in turn; core seconds of rank 0, medians.
Writes benchmarks/results/sharding.json.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat.course import scale
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, write_json
from nanochat.train import optim

HERE = Path(__file__).parent
BEFORE = "45d4dc0"
SIZES = {"toy": {"depth": 4, "vocab_size": 512, "n_embd": 128, "head_dim": 32, "sequence_len": 128},
         "d12": {"depth": 12, "vocab_size": 32768, "n_embd": 768, "head_dim": 128, "sequence_len": 128}}  # fmt: skip
COPIES = {torch.ops.aten.stack.default, torch.ops.aten.cat.default, torch.ops.aten.copy_.default, torch.ops.aten.clone.default}


class Copied(TorchDispatchMode):
    """Counts the bytes that copying operations write."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in COPIES:
            self.count += out.nbytes
        elif function is torch.ops.aten._foreach_copy_.default:
            self.count += sum(t.nbytes for t in args[0])
        return out


def load(path: str):
    spec = importlib.util.spec_from_file_location("before", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(rank: int, ranks: int, folder: str, shape: dict, steps: int) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store{ranks}", rank=rank, world_size=ranks)
    shape = dict(shape)
    model = GPT(GPTConfig.from_depth(shape.pop("depth"), **shape)).init_weights(0)
    world, config = World(rank, rank, ranks), scale("gpt2").pretrain.optim
    designs = {"before": load(f"{folder}/before.py"), "banks": optim}
    optimizers = {name: module.MuonAdamW(model, config, world) for name, module in designs.items()}
    seconds, copied = {name: [] for name in designs}, {}
    for step in range(1 + steps):
        for name, optimizer in optimizers.items():
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            if step == 0:  # warm-up
                with Copied() as copies:
                    optimizer.step(lr_scale=1e-3)
                copied[name] = round(copies.count / 1e6, 1)
                continue
            begin = time.process_time()
            optimizer.step(lr_scale=1e-3)
            seconds[name].append(time.process_time() - begin)
    if rank == 0:
        result = {name: {"step_core_ms": round(1e3 * statistics.median(seconds[name]), 1), "copied_mb": copied[name]}
                  for name in designs}  # fmt: skip
        write_json(Path(folder) / f"{ranks}.json", result)
    if ranks > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", type=int, help="default: 20 at toy size, 3 at depth 12")
    parser.add_argument("--before", default=BEFORE, help="a commit with the older design")
    options = parser.parse_args()
    show = ["git", "-C", HERE, "show", f"{options.before}:nanochat/train/optim.py"]
    results = {"before": options.before, "load": os.getloadavg()[0], "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "before.py").write_bytes(subprocess.run(show, check=True, capture_output=True).stdout)
        for size in options.sizes:
            results["sizes"][size] = {}
            for ranks in (1, 2):
                Path(folder, f"store{ranks}").unlink(missing_ok=True)
                steps = options.steps or (20 if size == "toy" else 3)
                mp.spawn(measure, (ranks, folder, SIZES[size], steps), nprocs=ranks)
                results["sizes"][size][f"{ranks} ranks"] = json.loads(Path(folder, f"{ranks}.json").read_text())
    write_json(HERE / "results" / "sharding.json", results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
