"""
A power law with a floor, loss = floor + a · x ** -b: fitted to a few models, and how far it can be trusted for the next.

    law = fit(params, losses, floor=0.71)      # a known floor; None: the one that fits best is looked for
    law(1e9), law.interval(1e9)

Kaplan et al. 2020 have the law, Hoffmann et al. 2022 the floor: the surprise that no amount of training takes away.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Student's t: nine draws of ten lie within ± these, for 1, 2, … 10 degrees of freedom
STUDENT = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)


@dataclass(frozen=True)
class PowerLaw:
    """loss = floor + a · x ** -b."""

    floor: float
    a: float
    b: float
    scatter: float  # of the losses around the law, relative
    uncertainty: np.ndarray  # covariance of (ln a, b), and of the floor where it was fitted, at a scatter of 1
    freedom: int  # models less numbers fitted

    def __call__(self, x):
        return self.floor + self.a * x**-self.b

    def interval(self, x: float) -> tuple[float, float]:
        """
        Where nine of ten further models of size x should come out, if the law holds there; never below a floor that is
        known.

        Two parts: the scatter of that one model, and how little the fitted ones pin the law down, carried to x by the
        law's derivatives (the delta method). With few models in hand the first is a guess too, hence Student's t.
        """
        slopes = _slopes(self, np.array([x]), len(self.uncertainty))[0]
        factor = STUDENT[min(self.freedom, len(STUDENT)) - 1]
        error = factor * self.scatter * np.sqrt(1 + slopes @ self.uncertainty @ slopes)
        low = self(x) * np.exp(-error)
        return float(max(low, self.floor) if len(self.uncertainty) == 2 else low), float(self(x) * np.exp(error))


def fit_line(x, y) -> tuple[float, float]:
    """(a, b) of the power law y = a · x ** -b that fits best: least squares on the logarithms."""
    u, v = np.log(x), np.log(y)
    b = -float(np.mean((u - u.mean()) * v) / np.var(u))
    return float(np.exp(v.mean() + b * u.mean())), b


def fit(x, losses, floor: float | None = None, line: Callable = fit_line) -> PowerLaw:
    """
    The law through models of sizes x, (n,), and their losses, (n,); `line` fits what lies above the floor.

    Without a floor the one is taken that leaves the smallest relative errors. Raises ValueError where there are not more
    models than numbers to fit, two, or three without a floor, and where a loss does not lie above the floor.
    """
    x, losses = np.asarray(x, float), np.asarray(losses, float)
    count = 2 if floor is not None else 3
    if len(x) <= count:
        raise ValueError(f"{len(x)} models for a law with {count} numbers to fit; it needs {count + 1} or more")
    if floor is not None and not floor < losses.min():
        raise ValueError(f"a loss of {losses.min():.4f} does not lie above the floor, {floor:.4f}")

    def law(floor: float) -> PowerLaw:
        return PowerLaw(floor, *line(x, losses - floor), 0.0, np.eye(count), len(x) - count)

    def errors(law: PowerLaw) -> np.ndarray:
        return np.log(losses) - np.log(law(x))  # (n,)

    best, step = law(floor or 0.0), losses.min() / 20
    while floor is None and step > 1e-5 * losses.min():  # around the best of twenty, ten times finer
        floors = best.floor + step * np.arange(-19, 20)
        best = min((law(E) for E in floors if 0 <= E < losses.min()), key=lambda law: np.square(errors(law)).sum())
        step /= 10
    slopes = _slopes(best, x, count)
    scatter = float(np.sqrt(np.square(errors(best)).sum() / best.freedom))
    return PowerLaw(best.floor, best.a, best.b, scatter, np.linalg.pinv(slopes.T @ slopes), best.freedom)


def _slopes(law: PowerLaw, x: np.ndarray, count: int) -> np.ndarray:
    """(n, count): how ln law(x) moves with ln a, b and the floor."""
    above = law.a * x**-law.b
    return np.stack((above, -above * np.log(x), np.ones_like(x))[:count], axis=1) / law(x)[:, None]
