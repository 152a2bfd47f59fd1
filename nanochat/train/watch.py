"""What a training run is warned of: steps that are not finite, loss spikes, a rank slower than the others.

    watch = Watch(run, "base", world)
    for step in …:
        with watch.own_work: …                             # what this rank does without waiting for others
        watch(step, loss, grad_norm, loader.keys)          # raises UserError when the run must stop
"""

import math
import time
from collections import deque
from statistics import median

import torch

from nanochat.runtime import Run, UserError, World, say

IN_A_ROW = 3                 # steps without a finite loss and gradient that end a run
WINDOW, SPIKE_STEPS = 128, 5  # a spike: this many steps above the median + 6 MAD of the last WINDOW steps
PACE_STEPS, SLOW, SLOW_WINDOWS = 100, 1.15, 3     # a slow rank: 3 windows of 100 steps over 1.15 × the median rank


class Watch:
    """All three; every rank calls it, with the loss and norm of all ranks and the keys of its own documents."""

    def __init__(self, run: Run, name: str, world: World):
        self.run, self.name, self.world = run, name, world
        self.own_work = Stopwatch(world)
        self._skipped: list[int] = []
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._high = self._steps = 0
        self._slow: list[int] = []

    def __call__(self, step: int, loss: float, grad_norm: float, keys: list) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self._skipped.clear()
            self._spike(step, loss)
        else:
            self._skip(step, loss, keys)
        self._steps += 1
        if self._steps % PACE_STEPS == 0 and self.world.size > 1:
            self._pace(self.world.gather(self.own_work.take()))

    def _skip(self, step: int, loss: float, keys: list) -> None:
        """A step whose update was left out: its documents go to the metrics, so that they can be looked at."""
        self._skipped.append(step)
        keys = self.world.gather(keys)
        what = f"the {'gradient' if math.isfinite(loss) else 'loss'} is not finite"
        if self.world.main:
            self.run.log(self.name, {"kind": "skipped", "step": step, "why": what, "documents": keys})
        say(f"{self.name}: step {step} was skipped, {what}; its documents are listed in metrics.jsonl")
        if len(self._skipped) == IN_A_ROW:
            raise UserError(f"{self.name}: {what} at steps {', '.join(map(str, self._skipped))}; none of them changed a "
                            "weight and the last checkpoint is intact; lower the learning rate or look at the documents "
                            "in metrics.jsonl")

    def _spike(self, step: int, loss: float) -> None:
        if len(self._losses) == WINDOW:
            middle = median(self._losses)
            limit = middle + 6 * median(abs(x - middle) for x in self._losses)
            self._high = self._high + 1 if loss > limit else 0
            if self._high == SPIKE_STEPS:
                say(f"{self.name}: loss spike: {SPIKE_STEPS} steps up to {step} above {limit:.4g}, the median was "
                    f"{middle:.4g}; if it does not come down, go back to a checkpoint before and lower the learning rate")
        self._losses.append(loss)

    def _pace(self, seconds: list[float]) -> None:
        """seconds: what each rank worked in the last window."""
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        ratio = seconds[slowest] / max(median(seconds), 1e-9)
        self._slow = [*self._slow, slowest] if ratio > SLOW and set(self._slow) <= {slowest} else []
        if len(self._slow) == SLOW_WINDOWS:
            say(f"{self.name}: rank {slowest} is slow: {seconds[slowest] / PACE_STEPS:.3f} s of work a step, "
                f"{ratio:.2f} × the median rank; all others wait for it")
            self._slow = []


class Stopwatch:
    """Seconds spent inside its `with` blocks since they were taken last; on a GPU until the work is done.

    That is this rank's own: sums over ranks that are under way wait in a stream of theirs.
    """

    def __init__(self, world: World):
        gpus = world.device.type == "cuda" and world.size > 1
        self._wait = (lambda: torch.cuda.current_stream().synchronize()) if gpus else lambda: None
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_) -> None:
        self._wait()
        self._seconds += time.perf_counter() - self._start

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds
