"""Training on one GPU: is it right, what can the device do, and how fast do d12 and d24 train.

    python benchmarks/training.py --gpu                                     all of it, about 15 minutes
    python benchmarks/training.py --gpu --depth 12                          a part of it; the file keeps the others
    python benchmarks/training.py --device cpu --depth 2 --seconds 1        the same code anywhere, at once and small

First correctness: every path to attention with windows and documents, forward and backward, against attention written out in fp32; the three
products of an fp8 layer against the same rounded numbers multiplied in fp32, and against numbers not rounded; gradients in bf16 and fp8 against
fp32 at depth 4. Then ceilings: copying, matrix products at the model's shapes, attention. Then whole steps (forward, backward, optimizer) of the
gpt2 scale's model and Muon on one random batch, again and again, 2^19 tokens a step, until `--seconds` have been timed after the warm-up. All random
data is normal or uniform: zeros would draw less power and flatter the rates. Token ids are random, so the loss must begin at ln(vocabulary).

Every number is written to benchmarks/results/training_<device>.json as soon as it is there. The exit code is 1 where there is no GPU, or where
something that runs is wrong.
"""

import argparse
import gc
import math
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nanochat.course import scale
from nanochat.course.hardware import GPUS
from nanochat.model import GPT, GPTConfig
from nanochat.model.attention import attend_fused, attend_manual
from nanochat.model.fp8 import E4M3, E5M2, fp8_linear, product, scaled
from nanochat.model.sight import UNAVAILABLE, attend_flex, attend_varlen, choose_path, tried, use_flash3, visible
from nanochat.runtime import World, read_json, say, write_json
from nanochat.train.loop import compiled
from nanochat.train.optim import MuonAdamW

# Tokens a second and bf16-MFU (by nanochat's formula) on one GPU. H200: a cost model of bytes and FLOPs, November 2026, which is within 2-6 % of nanochat's
# logged runs; nothing timed. H100: an eighth of what eight together logged (983 and 800 thousand) or should do. `expected` is nanochat's code, `pass` and
# `stretch` are ours.
TARGETS = {
    ("H200", 12, "bf16"): {"expected": (640e3, 0.49), "pass": (672e3, 0.51), "stretch": (700e3, 0.54)},
    ("H200", 24, "bf16"): {"expected": (120e3, 0.58), "pass": (124e3, 0.60), "stretch": (126e3, 0.61)},
    ("H200", 24, "fp8"): {"expected": (143e3, 0.69), "pass": (157e3, 0.76), "stretch": (165e3, 0.80)},
    ("H100", 24, "bf16"): {"expected": (100e3, 0.50)},
    ("H100", 24, "fp8"): {"expected": (123e3, 0.59), "pass": (135e3, 0.65), "stretch": (149e3, 0.72)},
}
ROWS = {12: 32, 24: 16}        # that an 80 GB GPU takes at once; halved until they fit
WARMUP = 3                     # steps that compile, allocate and settle


class Results:
    """The file, written at every number. What other calls measured on this device with this torch stays in it."""

    def __init__(self, path: Path, machine: dict):
        old = read_json(path) if path.exists() else {}
        self.path, self.data, self.wrong = path, old if old.get("machine") == machine else {"machine": machine}, []

    def put(self, part: str, name: str, value) -> None:
        self.data.setdefault(part, {})[name] = value
        write_json(self.path, self.data)
        say(f"{part}: {name}: {value}")

    def check(self, part: str, name: str, error: float, most: float) -> None:
        """A relative error, which must not be above `most`."""
        self.put(part, name, float(f"{error:.3g}"))
        if not error <= most:
            self.wrong.append(f"{part}: {name} is off by {error:.2g}, more than {most:.2g}")


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


# ---------------------------------------------------------------------------------------------------------------------
# Is it right?


def fused(q: Tensor, k: Tensor, v: Tensor, window: int | None, documents: Tensor | None, scale: float) -> Tensor:
    """SDPA: the causal kernel where nothing else is hidden, a mask elsewhere."""
    T = q.size(2)
    mask = None if window is None and documents is None else visible(torch.arange(T, device=q.device)[None], T, window, documents)
    return attend_fused(q, k, v, mask, scale)


def check_attention(results: Results, device: torch.device, dtype: torch.dtype, T: int) -> None:
    """Output and gradients (B, H, T, D) of each path, with 6 and with 3 key/value heads, against written-out attention in fp32."""
    B, H, D = 2, 6, 128
    numbers = torch.arange(T, device=device).expand(B, T) // (T // 3)       # three documents and a bit
    most = max(3 * torch.finfo(dtype).eps, 2e-3)

    def try_all(ways: dict, prefix: str = "") -> None:
        for name, way in ways.items():
            for window, documents, heads in ((None, None, H), (T // 4, None, H), (None, numbers, H), (T // 4, numbers, H // 2)):
                generator = torch.Generator().manual_seed(0)
                given = [torch.randn(B, n, T, D, generator=generator).to(device, dtype) for n in (H, heads, heads, H)]
                mask = visible(torch.arange(T, device=device)[None], T, window, documents)
                what = prefix + name + " window" * (window is not None) + " documents" * (documents is not None) + " shared" * (heads < H)
                try:
                    found = tried(partial(way, window=window, documents=documents, scale=D**-0.5), *given)
                except UNAVAILABLE as error:
                    results.put("attention", what, f"not here: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
                    continue
                wanted = tried(partial(attend_manual, mask=mask, scale=D**-0.5), *(x.float() for x in given))
                results.check("attention", what, max(map(relative, found, wanted)), most)

    try_all({"SDPA": fused, "varlen": attend_varlen, "flex": attend_flex})
    if device.type == "cuda" and use_flash3(device, lambda *a, **k: True):
        from torch.nn.attention import restore_flash_attention_impl

        try_all({"SDPA": fused, "varlen": attend_varlen}, "FlashAttention-3 ")
        restore_flash_attention_impl()


def check_fp8(results: Results, device: torch.device, dtype: torch.dtype, n: int, k: int, m: int) -> None:
    """A layer (m, k) on n rows. The kernel may differ by what bf16 and sums in less than fp32 round; the formats cost more."""
    generator = torch.Generator().manual_seed(0)
    x, w, grad = (torch.randn(s, generator=generator).to(device) for s in ((n, k), (m, k), (n, m)))
    x, grad = x.to(dtype).requires_grad_(), grad.to(dtype)
    w.requires_grad_()
    try:
        y = fp8_linear(x, w)
        dx, dw = torch.autograd.grad(y, (x, w), grad)
    except UNAVAILABLE as error:
        results.put("fp8", "products", f"not here: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
        return
    exact = x.detach().float(), w.detach(), grad.float()
    rounded = [(t8.float() * factor) for t8, factor in (scaled(t, f) for t, f in zip((x.detach(), w.detach(), grad), (E4M3, E4M3, E5M2), strict=True))]
    for name, found, right in (("x w", y, lambda x, w, g: x @ w.T), ("grad w", dx, lambda x, w, g: g @ w), ("grad x", dw, lambda x, w, g: g.T @ x)):
        results.check("fp8", f"{name}, kernel alone", relative(found, right(*rounded)), 0.01)
        results.check("fp8", f"{name}, with rounding", relative(found, right(*exact)), 0.08)


def check_gradients(results: Results, device: torch.device, dtype: torch.dtype, T: int, vocab: int) -> None:
    """Of every weight at depth 4, its own path to attention; the reference is fp32, masked. Weights are random, none zero."""
    config = GPTConfig.from_depth(4, vocab, T, arch="speedrun")
    idx = torch.randint(vocab, (2, T + 1), generator=torch.Generator().manual_seed(0)).to(device)

    def gradients(dtype: torch.dtype, path: str, use_fp8: bool = False) -> dict[str, Tensor]:
        model, generator = GPT(config).init_weights(0), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.02 * torch.randn(p.shape, generator=generator)
        model.to(device)
        model.compute_dtype, model.attention_path = dtype, path
        if use_fp8:
            model.use_fp8(least=0)
        model(idx[:, :-1], idx[:, 1:]).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.dim() > 1}

    wanted, path = gradients(torch.float32, "mask"), choose_path(device, dtype, config)
    for name, use_fp8, most in ((str(dtype)[6:], False, 0.03), ("fp8", True, 0.25)):
        try:
            found = gradients(dtype, path, use_fp8)
        except UNAVAILABLE as error:
            results.put("gradients", name, f"not here: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        errors = {weight: relative(found[weight], wanted[weight]) for weight in wanted}
        worst = max(errors, key=errors.get)
        results.check("gradients", f"{name}, median weight", statistics.median(errors.values()), most)
        results.check("gradients", f"{name}, worst weight ({worst})", errors[worst], 2 * most)


# ---------------------------------------------------------------------------------------------------------------------
# What can the device do?


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(function, device: torch.device, least: float) -> float:
    """Of one call: the median of five rounds that together take about `least` seconds."""
    function()
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    calls, rounds = max(1, int(least / 5 / (time.perf_counter() - start))), []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        wait(device)
        rounds.append((time.perf_counter() - start) / calls)
    return statistics.median(rounds)


def ceilings(results: Results, device: torch.device, dtype: torch.dtype, config: GPTConfig, rows: int, least: float) -> None:
    """Copying in GB/s (read and written); products (n, k) @ (k, m) and attention, forward and backward, in TFLOP/s."""
    C, V, T, name = config.n_embd, config.vocab_rows, config.sequence_len, f"d{config.n_layer}"
    a = torch.randn(1 << (29 if device.type == "cuda" else 22), device=device)
    copy = partial(torch.empty_like(a).copy_, a)
    results.put("ceilings", "copy, GB/s", round(2 * a.nbytes / seconds_of(copy, device, least) / 1e9, 1))
    a = copy = None
    for n, k, m in ((rows * T, C, C), (rows * T, C, 4 * C), (rows * T, 4 * C, C), (min(rows * T, 4096), C, V)):
        a, b = torch.randn(n, k, device=device, dtype=dtype), torch.randn(m, k, device=device, dtype=dtype)
        (a8, a_factor), (b8, b_factor) = scaled(a, E4M3), scaled(b, E4M3)
        for kind, call in ((str(dtype)[6:], lambda a=a, b=b: a @ b.T),
                           ("fp8", lambda a8=a8, b8=b8, fa=a_factor, fb=b_factor: product(a8, b8.t(), fa, fb, dtype, fast=True))):
            try:
                rate = round(2 * n * k * m / seconds_of(call, device, least) / 1e12, 3)
            except UNAVAILABLE as error:
                rate = f"not here: {str(error).splitlines()[0][:100]}"
            results.put("ceilings", f"{name} ({n}, {k}) @ ({k}, {m}) {kind}, TFLOP/s", rate)
    path = choose_path(device, dtype, config)
    ways = {"varlen": attend_varlen, "flex": attend_flex, "mask": fused}
    q, k, v, up = (torch.randn(rows, config.n_head, T, config.head_dim, device=device, dtype=dtype) for _ in range(4))
    for window in {config.window(i): None for i in range(config.n_layer)}:
        way = partial(fused if window is None else ways[path], window=window, documents=None, scale=config.head_dim**-0.5)
        pairs = sum(min(t, window or T) + 1 for t in range(T)) * rows * config.n_head
        rate = 14 * pairs * config.head_dim / seconds_of(lambda way=way: tried(way, q, k, v, up), device, least)
        results.put("ceilings", f"{name} attention, window {window}, {'SDPA' if window is None else path}, TFLOP/s", round(rate / 1e12, 3))


# ---------------------------------------------------------------------------------------------------------------------
# How fast does it train?


def clocks() -> str | None:
    """SM clock, power and temperature now, where nvidia-smi tells them."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw,temperature.gpu", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def train(config: GPTConfig, optim, device: torch.device, dtype: torch.dtype, fp8: bool, rows: int, tokens: int, seconds: float, compile: bool) -> dict:
    """Whole steps of a fresh model on one batch, `rows` at a time until `tokens` are through."""
    torch.manual_seed(0)
    with torch.device(device):
        model = GPT(config)
    model.init_weights(seed=0)
    model.compute_dtype, model.attention_path = dtype, choose_path(device, dtype, config)
    if fp8:
        model.use_fp8(least=0)             # all matrices that the kernel takes: which of them gain is to be found out
    optimizer = MuonAdamW(model, optim, World(device=device))
    forward, parts = compiled(model) if compile else model, max(1, tokens // (rows * config.sequence_len))
    idx = torch.randint(config.vocab_size, (parts, rows, config.sequence_len + 1), device=device)
    inputs, targets = idx[..., :-1].contiguous(), idx[..., 1:].contiguous()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times, losses, before = [], [], clocks()
    while len(times) < WARMUP + 3 or sum(times[WARMUP:]) < seconds:
        begin, total = time.perf_counter(), torch.zeros((), device=device)
        for x, y in zip(inputs, targets, strict=True):
            loss = forward(x, y, reduction="sum") / targets.numel()
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())                        # waits for the device
        times.append(time.perf_counter() - begin)
    deciles = statistics.quantiles(times[WARMUP:], n=10)
    done = parts * rows * config.sequence_len
    step = statistics.median(times[WARMUP:])
    result = {"tok_per_s": round(done / step), "step_ms": {"p10": round(1000 * deciles[0], 2), "median": round(1000 * step, 2), "p90": round(1000 * deciles[-1], 2)}, "steps": len(times) - WARMUP,
              "first_step_s": round(times[0], 1), "compile_s": round(times[0] - step, 1) if compile else None, "rows": rows, "tokens_a_step": done,
              "attention": model.attention_path, "loss": {n: round(losses[n - 1], 4) for n in (1, 10, 50) if n <= len(losses)},
              "flops_a_token": {"nanochat": model.flops_per_token(), "exact": model.flops_per_token(exact=True)}, "params": model.num_params(), "clocks": [before, clocks()]}      # a first look, and one just after the last step
    if device.type == "cuda":
        result["peak_memory_gb"] = {"allocated": torch.cuda.max_memory_allocated() / 1e9, "reserved": torch.cuda.max_memory_reserved() / 1e9}
        peak = next((gpu.peak_tflops for name, gpu in GPUS.items() if name in torch.cuda.get_device_name()), None)
        if peak:
            result["bf16_mfu"] = {name: round(done / step * flops / (1e12 * peak), 4) for name, flops in result["flops_a_token"].items()}
    return result


def measure(results: Results, config: GPTConfig, device: torch.device, precision: str, rows: int, **settings) -> None:
    """One variant with as many rows at once as fit, and what was hoped for beside it."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    while True:
        try:
            result = train(config, device=device, dtype=dtype, fp8=precision == "fp8", rows=rows, **settings)
            break
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows //= 2                                         # only now is the traceback gone that held the memory
        forget(device)
        say(f"out of memory; again with {rows} rows at once")
    if abs(result["loss"][1] - math.log(config.vocab_size)) > 0.05:
        results.wrong.append(f"d{config.n_layer} {precision}: the first loss is {result['loss'][1]}, not {math.log(config.vocab_size):.3f}")
    gpu = next((name for name in GPUS if device.type == "cuda" and name in torch.cuda.get_device_name()), "cpu")
    result["targets (tok/s, bf16-MFU)"] = TARGETS.get((gpu, config.n_layer, precision))
    results.put("training", f"d{config.n_layer} {precision}", result)
    forget(device)


def forget(device: torch.device) -> None:
    """Give back what the last variant held: compiled code keeps its model."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", dest="device", action="store_const", const="cuda", default="cuda", help="as --device cuda, which is the default")
    parser.add_argument("--device", choices=["cuda", "cpu"])
    parser.add_argument("--depth", type=int, nargs="+", default=[12, 24])
    parser.add_argument("--precision", nargs="+", choices=["bf16", "fp8", "fp32"], default=["bf16", "fp8"])
    parser.add_argument("--seconds", type=float, default=130, help="of training that are timed for each variant")
    parser.add_argument("--rows", type=int, help="rows at once; default: by depth")
    parser.add_argument("--tokens", type=int, help="tokens a step; default 2^19, on a CPU one piece")
    parser.add_argument("--plain", action="store_true", help="without torch.compile")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/training_<device>.json")
    options = parser.parse_args()
    small = options.device == "cpu"
    if not small and not torch.cuda.is_available():
        sys.exit("benchmarks/training.py needs a CUDA GPU and torch sees none here; --device cpu --depth 2 --seconds 1 tries its code")
    device, dtype = torch.device(options.device), torch.float32 if small else torch.bfloat16
    label = platform.machine() if small else torch.cuda.get_device_name()
    path = options.out or Path(__file__).parent / "results" / f"training_{label.replace(' ', '_')}.json"
    results = Results(path, {"device": label, "torch": torch.__version__, "python": platform.python_version()})
    settings = scale("gpt2").pretrain
    length, vocab = (128, 512) if small else (settings.model.sequence_len, 32768)

    torch.set_float32_matmul_precision("highest")          # the references are fp32 in earnest
    check_attention(results, device, dtype, length // 2)
    check_fp8(results, device, dtype, 64 if small else 4096, *((64, 128) if small else (1536, 6144)))
    check_gradients(results, device, torch.bfloat16, length, vocab)
    torch.set_float32_matmul_precision("high")             # as in training
    for depth in options.depth:
        config = GPTConfig.from_depth(depth, vocab, length, arch="speedrun")
        rows = options.rows or (2 if small else ROWS.get(depth, 16))
        ceilings(results, device, dtype, config, rows, min(1.0, options.seconds / 10))
        for precision in options.precision:
            measure(results, config, device, precision, rows, optim=settings.optim, tokens=options.tokens or (1 if small else 1 << 19),
                    seconds=options.seconds, compile=not options.plain)
    say(f"written to {results.path}")
    if results.wrong:
        sys.exit("wrong here:\n" + "\n".join(results.wrong))


if __name__ == "__main__":
    main()
