"""
What a machine can do and what it costs, as `nanochat plan` assumes it.

Efficiency is the share of the peak in bf16 that a whole training step reaches, by nanochat's count of FLOPs ("bf16
MFU"; in fp8 too, so that the two compare). One number for each GPU and precision. Where the reference logged runs, it
is fitted on the runs named beside it and tested on the others (benchmarks/plan.py); elsewhere it is a guess, and says so.
"""

from dataclasses import dataclass

from nanochat.course.manifest import Hardware
from nanochat.runtime import UserError
from nanochat.runtime.device import PEAK_TFLOPS


@dataclass(frozen=True)
class GPU:
    """One device. Peak: dense TFLOP/s in bf16. Dollars: for one device and hour, on demand, autumn 2026, rounded."""

    peak_tflops: float
    memory_gb: float
    dollars_per_hour: float
    efficiency: dict[str, float]  # by precision: bf16, fp8
    source: str


GPUS = {
    "H100": GPU(PEAK_TFLOPS["H100"], 80, 3.0, {"bf16": 0.49, "fp8": 0.593},
                "fitted on nanochat's d20 launch and two d24 records; holds from d20 up, a d12 was logged at 0.41"),
    "H200": GPU(PEAK_TFLOPS["H200"], 141, 3.5, {"bf16": 0.57, "fp8": 0.68}, "a cost model's estimate, no logged run"),
    "A100": GPU(PEAK_TFLOPS["A100"], 80, 1.8, {"bf16": 0.66}, "fitted on the one logged run, d20 on 8×A100: not tested"),
    "B200": GPU(PEAK_TFLOPS["B200"], 180, 5.5, {"bf16": 0.4, "fp8": 0.5}, "a guess, no logged run"),
    "4090": GPU(PEAK_TFLOPS["4090"], 24, 0.4, {"bf16": 0.4}, "a guess, no logged run"),
    "cpu": GPU(0.25, 4, 0.0, {"bf16": 0.3}, "one core: the toy scale's assumption"),
}  # fmt: skip
NETWORK = 50e9  # bytes a second and GPU between nodes (400 Gbit/s), not overlapped with computing


def machine(gpu: str, count: int, precision: str = "bf16") -> Hardware:
    """`count` devices as a scale's `hardware`. UserError for one that is not in the table, or has no such precision."""
    known = {name.lower(): name for name in GPUS}
    if gpu.lower() not in known:
        raise UserError(f"unknown GPU {gpu!r}; choose one of {', '.join(GPUS)}")
    name = known[gpu.lower()]
    device = GPUS[name]
    if precision not in device.efficiency:
        raise UserError(f"no efficiency in {precision} is known for {name}; it has {', '.join(device.efficiency)}")
    return Hardware(
        name=f"{count} CPU core{'s' * (count > 1)}" if name == "cpu" else f"{count}×{name}, {precision}",
        peak_tflops=device.peak_tflops, memory_gb=device.memory_gb, mfu=device.efficiency[precision],
        dollars_per_hour=count * device.dollars_per_hour)  # fmt: skip
