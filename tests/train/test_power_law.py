"""Power laws with a floor: found again where they are true, with intervals that hold what they promise."""

import numpy as np
import pytest

from nanochat.train import power_law

SIZES = np.geomspace(2e4, 4e5, 6)
NEXT = 1e6


def truth(x, floor=0.7):
    return floor + 3000.0 * x**-0.75


@pytest.mark.parametrize("floor", [0.7, None])
def test_a_true_law_is_recovered(floor):
    law = power_law.fit(SIZES, truth(SIZES), floor)
    assert law.floor == pytest.approx(0.7, abs=2e-3) and law.b == pytest.approx(0.75, rel=0.02)
    assert law(NEXT) == pytest.approx(truth(NEXT), rel=1e-3)
    low, high = law.interval(NEXT)
    assert low <= law(NEXT) <= high and high / low < 1.01


def test_a_law_without_a_floor_promises_too_much_where_there_is_one():
    straight, bent = (power_law.fit(SIZES, truth(SIZES), floor) for floor in (0.0, None))
    assert straight(NEXT) < 0.95 * truth(NEXT) < bent(NEXT)


@pytest.mark.parametrize("count, floor", [(4, 0.7), (6, 0.7), (5, None), (7, None)])
def test_nine_of_ten_further_models_fall_into_the_interval(count, floor):
    random = np.random.default_rng(count)
    sizes, inside, draws = np.geomspace(2e4, 4e5, count), 0, 200
    for _ in range(draws):
        *losses, new = truth(np.array([*sizes, NEXT])) * np.exp(0.004 * random.normal(size=count + 1))
        low, high = power_law.fit(sizes, losses, floor).interval(NEXT)
        inside += low <= new <= high
    assert 0.84 <= inside / draws <= 0.97


def test_the_interval_widens_with_the_distance_and_stops_at_a_known_floor():
    noisy = truth(SIZES) * [1.02, 0.97, 1.03, 0.98, 1.01, 0.99]
    straight = power_law.fit(SIZES, noisy, 0.0)
    widths = [np.log(high / low) for low, high in map(straight.interval, (1e6, 1e7, 1e8))]
    assert widths == sorted(widths) and widths[0] < widths[2]
    assert power_law.fit(SIZES, noisy, 0.7).interval(1e9)[0] == 0.7 > power_law.fit(SIZES, noisy).interval(1e9)[0]


def test_too_few_models_and_losses_below_the_floor_are_refused():
    with pytest.raises(ValueError, match="3 models for a law with 3 numbers"):
        power_law.fit(SIZES[:3], truth(SIZES[:3]))
    with pytest.raises(ValueError, match="does not lie above the floor"):
        power_law.fit(SIZES, truth(SIZES), floor=0.9)
