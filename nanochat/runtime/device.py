"""Which device, how fast and how full it is, and which number format on it. Nothing is assumed of CPUs: bf16 there is several
times faster than fp32 or many times slower, depending on the chip, so a short race decides."""

import time

import psutil
import torch

from nanochat.runtime.console import UserError

# Dense TFLOP/s in bf16 of one device, by a part of the name that torch gives it; the first that fits counts.
PEAK_TFLOPS = {"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "A100": 312, "B200": 2250, "4090": 165}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The torch device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch sees no GPU; use device auto or cpu")
    return torch.device(name)


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The compute dtype called `name`; "auto" is bf16 where the hardware is fast at it, else fp32."""
    if name != "auto":
        if name not in DTYPES:
            raise UserError(f"unknown dtype {name!r}; choose auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if _bf16_wins() else torch.float32
    return torch.float32


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s in bf16 that the makers of this GPU state; None for a CPU and for one that is not in the table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def memory_gb(device: torch.device) -> float:
    """GB (10⁹ bytes): the most that tensors held on this GPU so far, elsewhere what the process has now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def _bf16_wins() -> bool:
    """Race one bf16 matrix product against one in fp32: the best of five each, about 20 ms in all."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        a @ b  # the first call sets up the kernel
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return best[torch.bfloat16] < 0.8 * best[torch.float32]
