"""What a stage tells while it runs: rows in metrics.jsonl, to a live plot and a tracker; lines at every tenth of the way; on
a terminal a line that changes every second."""

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

from nanochat.model import GPT
from nanochat.runtime import Run, World, core_seconds, say
from nanochat.runtime.console import status
from nanochat.runtime.device import memory_gb, peak_flops
from nanochat.train.tracker import tracker

Live = Callable[[dict], None]      # called with every logged row, e.g. a live plot


class Progress:
    """
    The news of one stage; every rank calls it, rank 0 tells.

        with Progress(run, "base", steps, world, machine.tracker, live) as progress:
            progress(row)                                  # after every step; `logged` says if the row is kept
    """

    def __init__(self, run: Run, stage: str, steps: int, world: World, kind: str | None = None, live: Live | None = None):
        self.run, self.stage, self.steps, self.world, self.kind, self.live = run, stage, steps, world, kind, live
        self._open, self._told = ExitStack(), 0.0
        self._pace: tuple[int, float] | None = None        # first step told of, and when

    def __enter__(self):
        if self.world.main:
            self._track = self._open.enter_context(tracker(self.kind, self.run, self.stage))
        return self

    def __exit__(self, *error) -> None:
        self._open.__exit__(*error)

    def __call__(self, row: dict, logged: bool = True) -> None:
        if not self.world.main:
            if os.getppid() == 1:                          # the launcher is gone: do not train on as an orphan
                raise SystemExit(1)
            return
        step, now = row["step"], time.monotonic()
        if logged:
            self.run.log(self.stage, row)
            self._track(step, {k: v for k, v in row.items() if k not in ("step", "kind")})
            if self.live is not None:
                self.live(row)
        shown = {k: v for k, v in row.items() if k not in ("step", "kind", "grad_norm")}
        line = "  ".join(f"{k} {readable(v)}" for k, v in shown.items())
        at = f"{self.stage} {step:>5}/{self.steps}  "
        if "loss" in row and step * 10 // self.steps != (step - 1) * 10 // self.steps or step == self.steps:
            say(at + line)
        elif now - self._told >= 1:
            status(at + self._left(step, now) + line)
            self._told = now

    def _left(self, step: int, now: float) -> str:
        """Time to go, evaluations and saves included, at the pace since the first step of this process."""
        first, since = self._pace = self._pace or (step, now)
        if step == first:
            return ""
        minutes = (now - since) / (step - first) * (self.steps - step) / 60
        return f"{minutes // 60:.0f} h {minutes % 60:.0f} min left  " if minutes >= 60 else f"{math.ceil(minutes)} min left  "


def readable(value: float) -> str:
    """Four digits that count, or whole thousands: 0.4807, 1,076,213."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


class Speed:
    """
    Tokens a second, and the share of all GPUs' peak in bf16 that the training is (MFU), in two counts: `mfu` as nanochat
    counts FLOPs, `mfu_exact` without what the causal mask hides. No MFU where the peak is not known.
    """

    def __init__(self, model: GPT, world: World):
        peak = peak_flops(world.device)
        flops = {"mfu": model.flops_per_token(), "mfu_exact": model.flops_per_token(exact=True)}
        self.share = {name: count / (peak * world.size) for name, count in flops.items()} if peak else {}
        self.device = world.device

    def __call__(self, tokens: int, seconds: float) -> dict[str, float]:
        """For `tokens` of the global batch in `seconds`; nothing where the seconds are 0, not known."""
        if not seconds:
            return {}
        rate = tokens / seconds
        return {"tok_per_s": rate, **{name: rate * s for name, s in self.share.items()}, "memory_gb": memory_gb(self.device)}


class Clock:
    """Core seconds and wall seconds of the steps. The first step of a process (compilation) counts as an average one."""

    def __init__(self, core_s: float, wall_s: float):
        self._core, self._wall, self._steps, self._last = core_s, wall_s, 0, 0.0
        self._own_core = self._own_wall = 0.0

    def __enter__(self):
        self._t = core_seconds(), time.perf_counter()

    def __exit__(self, *_):
        core, wall = core_seconds() - self._t[0], time.perf_counter() - self._t[1]
        self._steps += 1
        self._last = wall
        if self._steps > 1:
            self._own_core += core
            self._own_wall += wall

    def _with_first(self, seconds: float) -> float:
        return seconds * self._steps / (self._steps - 1) if self._steps > 1 else 0.0

    @property
    def core_s(self) -> float:
        return self._core + self._with_first(self._own_core)

    @property
    def wall_s(self) -> float:
        return self._wall + self._with_first(self._own_wall)

    @property
    def step_s(self) -> float:
        """Wall seconds of a step of this process, the first left out once there are more."""
        return self._own_wall / (self._steps - 1) if self._steps > 1 else self._last
