"""What `nanochat plan` foretells, beside what was logged and what is measured.

    python benchmarks/plan.py                  both tables, into benchmarks/results/plan.json
    python benchmarks/plan.py --only time      the logged runs: arithmetic, at once
    python benchmarks/plan.py --only memory    three small models, plain and compiled, each in a process of its own: two minutes of one core

Time: nanochat's logged runs. One efficiency for each GPU and precision is fitted on the runs marked so; the others test it.
Memory: what the allocator hands out during a training step (torch.profiler), and the growth of the process, on a CPU.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nanochat.course.hardware import GPUS

T = 2048


def seed(depth: int, vocab: int) -> float:
    """Training FLOPs a token of nanochat's first architecture."""
    d = 64 * depth
    return 6 * (vocab * d + 12 * depth * d**2) + 12 * depth * d * T


def windowed(depth: int, short: int, vocab: int = 32768) -> float:
    """Of its architecture of 2026: of four layers three look back `short` tokens, the last layer T. (Gates left out.)"""
    d = 64 * depth
    windows = [T if i % 4 == 3 or i == depth - 1 else short for i in range(depth)]
    return 6 * (vocab * d + 12 * depth * d**2) + 12 * d * sum(windows)


@dataclass(frozen=True)
class Logged:
    """A run as it was logged: training seconds without evaluation. `fitted`: its GPU's efficiency was chosen on it."""

    name: str
    gpu: str
    precision: str
    flops_per_token: float
    tokens: float
    seconds: float
    source: str
    fitted: bool = False

    @property
    def flops(self) -> float:
        return self.flops_per_token * self.tokens

    @property
    def predicted(self) -> float:
        """Seconds on eight of them."""
        gpu = GPUS[self.gpu]
        return self.flops / (8 * gpu.peak_tflops * 1e12 * gpu.efficiency[self.precision])


D34 = seed(34, 65536) * 169_150 * 2**19
LOGGED = [
    Logged("d20, launch", "H100", "bf16", seed(20, 65536), 21_400 * 2**19, 21_400 * 0.487, "487 ms a step", True),
    Logged("d20, December 2025", "H100", "bf16", seed(20, 65536), 21_400 * 2**19, 171.99 * 60, "171.99 min, another user's"),
    Logged("d32", "H100", "bf16", seed(32, 65536), 71_680 * 2**19, 71_680 * 1.574, "1.574 s a step"),
    Logged("d34", "H100", "bf16", seed(34, 65536), 169_150 * 2**19, D34 / (0.474 * 8 * 989e12), "MFU 47.4 %"),
    Logged("record 1, d24", "H100", "bf16", windowed(24, 1024), 16_704 * 2**19, 10_949, "10,949 s", True),
    Logged("d26, before fp8", "H100", "bf16", windowed(26, 1024), 630e3 * 3600, 3600, "630 thousand tokens a second"),
    Logged("record 2, d26", "H100", "fp8", windowed(26, 1024), 14_889 * 2**19, 10_493, "10,493 s"),
    Logged("record 3, d26", "H100", "fp8", windowed(26, 1024), 7_226 * 2**20, 9_922, "9,922 s"),
    Logged("record 3 again", "H100", "fp8", windowed(26, 1024), 4.69e19 / windowed(26, 1024), 163 * 60, "163 min, another user's"),
    Logged("record 4, d24", "H100", "fp8", windowed(24, 1024), 6_612 * 2**20, 2.02 * 3600, "2.02 h"),
    Logged("record 5, d24", "H100", "fp8", windowed(24, 768), 6_055 * 2**20, 1.80 * 3600, "1.80 h"),
    Logged("record 6, d24", "H100", "fp8", windowed(24, 512), 5_568 * 2**20, 99 * 60, "99 min", True),
    Logged("record 6 again", "H100", "fp8", windowed(24, 512), 970e3 * 3600, 3600, "970 thousand tokens a second, another user's"),
    Logged("d20 on A100", "A100", "bf16", seed(20, 65536), 21_400 * 2**19, 6.6 * 3600, "6.6 h, another user's", True),
]  # fmt: skip
# January 2026: depth, tokens (10⁹), minutes. Evaluation is in the minutes, how much was not logged; so no test of the margin.
MINISERIES = [(10, 0.73, 5.0), (11, 0.89, 6.6), (12, 1.08, 7.8), (13, 1.30, 11.2), (14, 1.55, 13.2), (15, 1.83, 17.4),
              (16, 2.15, 21.4), (17, 2.50, 33.9), (18, 2.90, 37.5), (19, 3.33, 53.0), (20, 3.82, 59.5)]  # fmt: skip


def times() -> list[dict]:
    rows = [{"run": r.name, "gpu": f"8×{r.gpu}, {r.precision}", "flops": r.flops, "logged_min": r.seconds / 60,
             "predicted_min": r.predicted / 60, "off": r.predicted / r.seconds - 1, "fitted": r.fitted, "logged_as": r.source}
            for r in LOGGED]  # fmt: skip
    for depth, tokens, minutes in MINISERIES:
        run = Logged(
            f"miniseries d{depth}", "H100", "bf16", seed(depth, 32768), tokens * 1e9, minutes * 60, "with evaluation"
        )
        rows.append({"run": run.name, "gpu": "8×H100, bf16", "flops": run.flops, "logged_min": minutes,
                     "predicted_min": run.predicted / 60, "off": run.predicted / run.seconds - 1, "fitted": None,
                     "logged_as": run.source})  # fmt: skip
    return rows


# --- memory -----------------------------------------------------------------------------------------------------------

SIZES = {
    "1 M, written-out attention": {"depth": 4, "n_embd": 128, "head_dim": 64, "vocab": 512, "length": 128, "rows": 32,
                                   "micro_batches": 1, "dtype": "float32"},
    "7 M, fused attention": {"depth": 6, "n_embd": 256, "head_dim": 64, "vocab": 4096, "length": 512, "rows": 4,
                             "micro_batches": 1, "dtype": "bfloat16"},
    "20 M, two micro-batches": {"depth": 8, "n_embd": 384, "head_dim": 64, "vocab": 8192, "length": 256, "rows": 4,
                                "micro_batches": 2, "dtype": "float32"},
}  # fmt: skip


def measure(size: dict, compiled: bool) -> dict:
    """In a fresh process: predicted and measured peak of one training step, in bytes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from nanochat.course.memory import memory
    from nanochat.model import GPT, GPTConfig
    from nanochat.runtime import World
    from nanochat.train.config import OptimConfig
    from nanochat.train.optim import MuonAdamW

    torch.set_num_threads(1)
    config = GPTConfig.from_depth(
        size["depth"], size["vocab"], size["length"], n_embd=size["n_embd"], head_dim=size["head_dim"]
    )
    dtype = getattr(torch, size["dtype"])
    predicted = memory(
        config, OptimConfig(), rows=size["rows"], micro_batches=size["micro_batches"], dtype=dtype, compiled=compiled
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = GPT(config)
    model.init_weights(seed=0)
    model.compute_dtype = dtype
    optimizer = MuonAdamW(model, OptimConfig(), World())
    forward = torch.compile(model, dynamic=False) if compiled else model
    idx = torch.randint(config.vocab_size, (size["rows"], config.sequence_len + 1))

    def step():
        for _ in range(size["micro_batches"]):
            forward(idx[:, :-1], idx[:, 1:], reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # compiles, sets up kernels
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = sorted(
        (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    alive = peak = 0
    for event in events:
        alive += event.nbytes()
        peak = max(peak, alive)
    unit = 1 if sys.platform == "darwin" else 1024
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    measured = predicted.weights + predicted.optimizer + peak  # those two were there before the step
    return {"compiled": compiled, "params": model.num_params(), "predicted": predicted.peak, "measured": measured,
            "off": predicted.peak / measured - 1, "process_grew": grown}  # fmt: skip


def measured_apart(size: dict, compiled: bool) -> dict:
    code = f"import json, runpy; print(json.dumps(runpy.run_path({__file__!r})['measure']({size!r}, {compiled})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    from nanochat.runtime import read_json, write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["time", "memory"])
    only = parser.parse_args().only
    path = Path(__file__).parent / "results" / "plan.json"
    result = read_json(path) if path.exists() else {}
    if only != "memory":
        result["time"] = times()
        print(f"{'run':<20} {'on':<12} {'logged':>8} {'predicted':>10} {'off':>7}  logged as")
        for r in result["time"]:
            mark = "  (fitted)" if r["fitted"] else ""
            print(
                f"{r['run']:<20} {r['gpu']:<12} {r['logged_min']:>7.1f}m {r['predicted_min']:>9.1f}m {r['off']:>+7.1%}  {r['logged_as']}{mark}"
            )
    if only != "time":
        import torch

        result["memory"] = {
            "machine": {"system": platform.system(), "architecture": platform.machine(), "torch": torch.__version__},
            "rows": [],
        }
        print(f"\n{'model':<28} {'predicted':>10} {'measured':>10} {'off':>7} {'process grew':>13}")
        for name, size in SIZES.items():
            for compiled in (False, True):
                r = {"model": name, **measured_apart(size, compiled)}
                result["memory"]["rows"].append(r)
                mb = [f"{r[key] / 1e6:.1f} MB" for key in ("predicted", "measured", "process_grew")]
                label = f"{name.partition(',')[0]}{', compiled' if compiled else ''}"
                print(f"{label:<28} {mb[0]:>10} {mb[1]:>10} {r['off']:>+7.1%} {mb[2]:>13}", flush=True)
    write_json(path, result)
    print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
