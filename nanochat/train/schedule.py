"""
The learning rate's shape over a run, as a plain function of the step; no torch, so that it can be plotted anywhere.

    for step in range(steps):
        ...
        optimizer.step(lr_scale=lr_scale(step, steps, warmup=20, flat=0.4, final=0.02))
"""


def lr_scale(step: int, steps: int, warmup: int = 0, flat: float = 0.0, final: float = 0.0) -> float:
    """
    The factor on every learning rate at `step` of 0 .. steps - 1: it rises linearly to 1 over `warmup` steps, stays 1
    until the share `flat` of all steps is done, then falls linearly towards `final`.

    >>> [round(lr_scale(s, 10, warmup=2, flat=0.5, final=0.1), 2) for s in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28]
    """
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, flat * steps)
    if step <= start:
        return 1.0
    return 1.0 + (final - 1.0) * min(1.0, (step - start) / (steps - start))
