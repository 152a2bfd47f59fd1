"""Tokens a second of a training step: the model and batch of a scale, on the machine at hand.

    python benchmarks/training.py                                  the toy model, fp32 and bf16, plain and compiled
    python benchmarks/training.py --scale speedrun --depth 12 --seconds 120 --dtype bfloat16      one GPU

Random tokens: data loading is not measured. Every variant runs for `--seconds` after its first steps; the median step counts.
Writes benchmarks/results/training_<scale>_d<depth>_<device>.json.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from nanochat.course import scale
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import World, pick_device, write_json
from nanochat.train.loop import compiled
from nanochat.train.optim import MuonAdamW

WARMUP = 3       # steps that compile, allocate and settle


def measure(config: GPTConfig, stage, rows: int, device: torch.device, dtype: torch.dtype, compile: bool, seconds: float) -> dict:
    """One variant: a fresh model, whole steps (forward, backward, optimizer) on random tokens."""
    torch.manual_seed(0)
    model = GPT(config)
    model.init_weights(seed=0)
    model.to(device)
    model.compute_dtype = dtype
    optimizer = MuonAdamW(model, stage.optim, World(device=device))
    forward = compiled(model) if compile else model
    idx = torch.randint(config.vocab_size, (rows, config.sequence_len + 1), device=device)
    times: list[float] = []
    while len(times) < WARMUP + 3 or sum(times[WARMUP:]) < seconds:
        begin = time.perf_counter()
        loss = forward(idx[:, :-1], idx[:, 1:], reduction="mean")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())                         # waits for the device
        times.append(time.perf_counter() - begin)
    step = statistics.median(times[WARMUP:])
    tokens = rows * config.sequence_len
    result = {"dtype": str(dtype).removeprefix("torch."), "compiled": compile, "tok_per_s": round(tokens / step),
              "step_ms": round(1000 * step, 2), "first_step_s": round(times[0], 1), "steps": len(times) - WARMUP}
    if device.type == "cuda":
        result["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        result["mfu_of_989_tflops"] = round(tokens / step * model.flops_per_token() / 989e12, 4)
        torch.cuda.reset_peak_memory_stats()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="toy")
    parser.add_argument("--depth", type=int, help="another depth than the scale's")
    parser.add_argument("--rows", type=int, help="rows a step; default: what one device of the scale takes at once")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: both")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    settings = scale(options.scale)
    stage, shape = settings.pretrain, settings.pretrain.model
    depth = options.depth or shape.depth
    config = GPTConfig.from_depth(depth, settings.tokenizer.vocab_size, shape.sequence_len, head_dim=shape.head_dim,
                                  n_embd=shape.n_embd if depth == shape.depth else None, arch=shape.arch)
    rows = options.rows or stage.device_rows or stage.rows
    device = pick_device(options.device)
    dtypes = [getattr(torch, options.dtype)] if options.dtype else [torch.float32, torch.bfloat16]
    variants = [measure(config, stage, rows, device, dtype, compile, options.seconds) for dtype in dtypes for compile in (False, True)]
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    result = {"model": vars(config) | {"params": sum(p.numel() for p in GPT(config).parameters())}, "rows": rows,
              "machine": {"device": gpu or platform.processor() or platform.machine(), "threads": options.threads, "torch": torch.__version__,
                          "python": platform.python_version()}, "variants": variants}
    path = Path(__file__).parent / "results" / f"training_{options.scale}_d{depth}_{device.type}.json"
    write_json(path, result)
    print(json.dumps(result["variants"], indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
