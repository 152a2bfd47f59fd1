"""
The shapes of learning rate, momentum and weight decay over a run, as plain functions of the step; no torch, so that
they can be plotted anywhere.

    for step in range(steps):
        ...
        optimizer.step(lr_scale(step, steps, warmup=20, flat=0.4, final=0.02),
                       momentum(step, steps, config.optim, config.schedule), decay_scale(step, steps))
"""

import math

from nanochat.train.config import OptimConfig, ScheduleConfig


def lr_scale(step: int, steps: int, warmup: int = 0, flat: float = 0.0, final: float = 0.0) -> float:
    """
    The factor on every learning rate at `step` of 0 .. steps - 1: it rises linearly to 1 over `warmup` steps, stays 1
    until the share `flat` of all steps is done, then falls linearly towards `final`.

    >>> [round(lr_scale(s, 10, warmup=2, flat=0.5, final=0.1), 2) for s in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 + (final - 1.0) * fallen(step, steps, warmup, flat)


def fallen(step: int, steps: int, warmup: int, flat: float) -> float:
    """How much of the learning rate's fall is done: 0 until its start, then linearly towards 1 at `steps`."""
    start = max(warmup, flat * steps)
    return 0.0 if step <= start else min(1.0, (step - start) / (steps - start))


def momentum(step: int, steps: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """
    Muon's momentum: a linear ramp from `momentum_start` over the first `momentum_warmup` steps; then `momentum`, which
    goes to `momentum_final` (if given) as the learning rate goes to its own.
    """
    if step < optim.momentum_warmup:
        return optim.momentum_start + (optim.momentum - optim.momentum_start) * (step / optim.momentum_warmup)
    if optim.momentum_final is None:
        return optim.momentum
    done = fallen(step, steps, schedule.warmup, schedule.flat)
    return optim.momentum + (optim.momentum_final - optim.momentum) * done


def decay_scale(step: int, steps: int) -> float:
    """The factor on the matrices' weight decay: half a cosine from 1 at step 0 to 0 at `steps`."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))
