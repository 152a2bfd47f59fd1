"""What stands beside an accuracy."""

from itertools import pairwise
from math import comb

import pytest

from nanochat.evals import accuracy, centered, wilson


def test_wilson_solves_its_own_equation():
    """The bounds are the p at which the observed share lies exactly 1.96 standard deviations away."""
    for correct, n in [(0, 10), (3, 10), (37, 50), (150, 1000), (10, 10)]:
        for p in wilson(correct, n):
            assert (correct / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=1e-12)


def test_wilson_holds_the_truth_about_95_times_in_a_hundred():
    n, p = 40, 0.3
    held = sum(comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1) if wilson(c, n)[0] <= p <= wilson(c, n)[1])
    assert 0.92 < held < 0.98


def test_wilson_narrows_with_more_items_and_stays_inside():
    widths = [high - low for low, high in (wilson(n // 4, n) for n in (8, 80, 800))]
    assert all(b < a / 2 for a, b in pairwise(widths))
    assert wilson(0, 0) == (0.0, 1.0) and wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0


def test_centering_puts_guessing_at_zero():
    assert centered(0.25, 0.25) == 0 and centered(1.0, 0.25) == 1
    assert centered(0.552294, 0.62) == pytest.approx(-0.178175, abs=5e-6)      # GPT-2 on boolq, as published with the bundle


def test_the_card():
    card = accuracy(37, 50, 0.25)
    assert card["accuracy"] == 0.74 and card["n"] == 50 and card["chance"] == 0.25
    assert card["interval"][0] < 0.74 < card["interval"][1]
    assert accuracy(0, 0)["accuracy"] == 0.0
