"""Training steps on the CPU beside nanochat's own: the same model function, the same tokens, whole steps.

    python benchmarks/train_cpu.py --peer PATH_OF_A_NANOCHAT_CLONE     nanochat's default and its best settings, and ours
    python benchmarks/train_cpu.py                                     a plain re-build of its configuration in its place

A step is forward, backward and the whole optimizer (Polar Express, MuonEq, Muon+, NorMuon, cautious decay; AdamW) on random tokens. nanochat's
default on a CPU is fp32, its best NANOCHAT_DTYPE=bfloat16; both compiled, attention by SDPA, all windows full as its runs/runcpu.sh has it. Ours
takes the dtype by its probe. The re-build is our model in fp32 and bf16 with SDPA and with gradients and weights stacked anew in every step.

Every variant lives in a process of its own (both packages are called nanochat) and they take turns, `--steps` at a time, for `--rounds` rounds. With
one thread the median of the CPU time counts, which a busy machine disturbs least; with more, that of the wall clock. First the weights of the peer,
made random, are read by `nanochat.serve.convert`: both losses must agree in fp32. Writes benchmarks/results/train_cpu.json.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

SIZES = {
    "1M": {"n_layer": 4, "n_embd": 128, "n_head": 2, "vocab_size": 256, "sequence_len": 128, "rows": 64},
    "10M": {"n_layer": 6, "n_embd": 256, "n_head": 4, "vocab_size": 4096, "sequence_len": 256, "rows": 16},
}
BARS = {"1M": (2.2, 1.3), "10M": (2.0, 1.05)}  # of ours over the peer's default and over its best


def tokens(size: dict) -> torch.Tensor:
    """(rows, T + 1): inputs and, one later, targets."""
    shape = size["rows"], size["sequence_len"] + 1
    return torch.randint(size["vocab_size"], shape, generator=torch.Generator().manual_seed(1))


def nanochat_step(size: dict, folder: str):
    """nanochat's own classes, as its base_train puts them together; its random weights and their loss are left in `folder`."""
    from nanochat.gpt import GPT, GPTConfig

    c = {name: n for name, n in size.items() if name != "rows"} | {"n_kv_head": size["n_head"], "window_pattern": "L"}
    model = GPT(GPTConfig(**c))
    model.init_weights()
    idx = tokens(size)
    x, y = idx[:, :-1].contiguous(), idx[:, 1:].contiguous()
    if os.environ.get("NANOCHAT_DTYPE") != "bfloat16":
        torch.manual_seed(2)
        for p in model.parameters():
            p.data.add_(torch.randn_like(p), alpha=0.05)  # zeros would hide what they multiply
        torch.save(model.state_dict(), Path(folder) / "model_000000.pt")
        loss = model(x, y).item()
        (Path(folder) / "meta_000000.json").write_text(json.dumps({"model_config": c, "loss": loss}))
        model.init_weights()
    forward = torch.compile(model, dynamic=False)
    optimizer = model.setup_optimizer(unembedding_lr=0.008, embedding_lr=0.3, weight_decay=0.28)

    def step() -> float:
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step, sum(p.numel() for p in model.parameters())


def our_step(size: dict, arch: str, dtype: str, rebuild: bool, threads: int):
    """Our model and optimizer as the training loop puts them together."""
    from nanochat.course import scale
    from nanochat.model import GPT, GPTConfig, attention
    from nanochat.model.config import ARCHITECTURES
    from nanochat.runtime import World
    from nanochat.train.config import MachineConfig
    from nanochat.train.loop import compiled, prepare
    from nanochat.train.optim import MuonAdamW

    shape = {name: n for name, n in size.items() if name != "rows"}
    model = GPT(GPTConfig(**{**ARCHITECTURES[arch], **shape, "n_kv_head": size["n_head"], "window_pattern": "L"}))
    model.init_weights(seed=0)
    prepare(model, MachineConfig(device="cpu", dtype=dtype, threads=threads), World())
    if rebuild:
        attention.MANUAL_MAX = 0
    forward = compiled(model)
    optimizer = MuonAdamW(model, scale("gpt2").pretrain.optim, World())
    idx = tokens(size)
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    shapes = {s: [p for p in matrices if p.shape == s] for s in {p.shape for p in matrices}}

    def step() -> float:
        loss = forward(idx[:, :-1], idx[:, 1:], reduction="sum") / idx[:, 1:].numel()
        loss.backward()
        if rebuild:
            for same in shapes.values():
                torch.stack([p.grad for p in same])
                torch._foreach_copy_([p.data for p in same], list(torch.stack([p.data for p in same]).unbind(0)))
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, model.num_params(), str(model.compute_dtype).removeprefix("torch.")


def work(task: dict) -> None:
    """One variant: a line when it is warm; then, for each number read, the CPU and wall seconds of so many steps."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed goes to stderr
    torch.set_num_threads(task["threads"])
    torch.manual_seed(42)
    begin = time.perf_counter()
    if task["peer"]:
        (step, params), dtype = nanochat_step(task["size"], task["folder"]), os.environ.get("NANOCHAT_DTYPE", "float32")
    else:
        step, params, dtype = our_step(task["size"], task["arch"], task["dtype"], task["rebuild"], task["threads"])
    first = step()
    seconds = time.perf_counter() - begin
    for _ in range(3):
        step()
    gc.collect()
    gc.freeze()
    gc.disable()
    print(
        json.dumps({"params": params, "dtype": dtype, "first_step_s": round(seconds, 1), "first_loss": first}), file=out
    )
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            times.append((time.process_time() - cpu, time.perf_counter() - wall))
        print(json.dumps(times), file=out)


class Worker:
    """A variant's process."""

    def __init__(self, name: str, task: dict, environment: dict):
        arguments = [sys.executable, __file__, "--worker", json.dumps(task)]
        self.name, self.times = name, []
        self.process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} stopped; its message is above")
        return json.loads(line)

    def run(self, steps: int) -> None:
        print(steps, file=self.process.stdin, flush=True)
        self.times += self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def loss_difference(size: dict, folder: Path) -> float:
    """Our loss less the peer's, of the peer's weights in fp32 without a compiler."""
    from nanochat.serve.convert import import_checkpoint

    idx = tokens(size)
    with torch.no_grad():
        ours = import_checkpoint(folder)(idx[:, :-1], idx[:, 1:]).item()
    return ours - json.loads((folder / "meta_000000.json").read_text())["loss"]


def compare(name: str, options) -> dict:
    """All variants of a size, in turns."""
    size, threads = SIZES[name], options.threads
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("NANOCHAT_DTYPE", None)
    peer = {**environment, "PYTHONPATH": str(options.peer)}
    plain = {"size": size, "threads": threads, "peer": False, "arch": "speedrun", "dtype": "auto", "rebuild": False}
    with tempfile.TemporaryDirectory() as folder:
        variants = [
            ("default", {**plain, "peer": True, "folder": folder}, peer),
            ("best", {**plain, "peer": True, "folder": folder}, {**peer, "NANOCHAT_DTYPE": "bfloat16"}),
        ]
        if options.peer is None:
            variants = [
                ("default", {**plain, "rebuild": True, "dtype": "float32"}, environment),
                ("best", {**plain, "rebuild": True, "dtype": "bfloat16"}, environment),
            ]
        variants += [("ours", plain, environment), ("ours, seed", {**plain, "arch": "seed"}, environment)]
        workers, about = [], {}
        for variant in variants:  # one after the other: compiling is not measured
            workers.append(Worker(*variant))
            about[variant[0]] = workers[-1].read()
            print(f"{name} {variant[0]}: {about[variant[0]]}", flush=True)
        difference = None if options.peer is None else loss_difference(size, Path(folder))
        load = [os.getloadavg()[0]]
        for _ in range(options.rounds):
            for worker in workers:
                worker.run(options.steps)
            load.append(os.getloadavg()[0])
        for worker in workers:
            worker.close()
    clock = 0 if threads == 1 else 1
    rows = {}
    for worker in workers:
        cpu, wall = (statistics.median(t[i] for t in worker.times) for i in (0, 1))
        rate = size["rows"] * size["sequence_len"] / (cpu, wall)[clock]
        rows[worker.name] = {
            **about[worker.name],
            "step_cpu_ms": round(1000 * cpu, 1),
            "step_wall_ms": round(1000 * wall, 1),
            "tok_per_s": round(rate),
        }
    ratios = [rows["ours"]["tok_per_s"] / rows[base]["tok_per_s"] for base in ("default", "best")]
    if options.peer is not None:
        assert rows["ours"]["params"] == rows["default"]["params"], "the two models are not of one size"
        assert abs(difference) < 1e-5, f"the same weights give losses that differ by {difference:.1e}"
    return {
        "shape": size,
        "loss_difference": difference,
        "load": [round(n, 2) for n in load],
        "variants": rows,
        "ours_over_default": round(ratios[0], 3),
        "ours_over_best": round(ratios[1], 3),
        "wanted": BARS[name],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a clone of karpathy/nanochat (2026)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", choices=(*SIZES, "both"), default="both")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of a variant in one round")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    if options.peer is None:
        print("no --peer: nanochat is stood in for by a plain re-build of its configuration")
    elif not (options.peer / "nanochat" / "gpt.py").exists():
        raise SystemExit(f"{options.peer} holds no nanochat/gpt.py; give the folder of a nanochat clone")
    result = {
        "peer": "nanochat" if options.peer else "re-build",
        "threads": options.threads,
        "clock": "cpu" if options.threads == 1 else "wall",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "sizes": {},
    }
    for name in SIZES if options.size == "both" else [options.size]:
        result["sizes"][name] = compare(name, options)
        for variant, row in result["sizes"][name]["variants"].items():
            print(
                f"{name:>4} {variant:12} {row['tok_per_s']:>8,} tokens/s  step {row['step_cpu_ms']} ms cpu, {row['step_wall_ms']} ms wall"
            )
        got = result["sizes"][name]
        print(
            f"{name:>4} ours / default {got['ours_over_default']}, ours / best {got['ours_over_best']}; wanted {BARS[name]}; load {got['load']}"
        )
    results = Path(__file__).parent / "results" / "train_cpu.json"
    results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
