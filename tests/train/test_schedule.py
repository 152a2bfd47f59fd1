"""The shapes of learning rate, momentum and weight decay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.train.config import OptimConfig, ScheduleConfig
from nanochat.train.schedule import decay_scale, lr_scale, momentum


def test_it_rises_stays_and_falls():
    got = [lr_scale(s, 100, warmup=10, flat=0.5, final=0.2) for s in range(100)]
    assert got[:3] == pytest.approx([0.1, 0.2, 0.3]) and got[9] == 1.0
    assert set(got[9:51]) == {1.0}
    assert got[75] == pytest.approx(0.6) and got[99] == pytest.approx(0.2 + 0.8 / 50)


def test_without_a_flat_part_it_falls_from_the_end_of_the_warmup():
    assert [lr_scale(s, 6, warmup=2) for s in range(6)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 1), st.floats(0, 1))
def test_it_is_a_share_at_every_step_and_has_one_peak(steps, warmup, flat, final):
    values = [lr_scale(s, steps, warmup, flat, final) for s in range(steps)]
    assert all(0 <= v <= 1 for v in values)
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1]) and values[top:] == sorted(values[top:], reverse=True)


def test_a_flat_schedule_never_falls():
    assert {lr_scale(s, 50, flat=1.0) for s in range(50)} == {1.0}


def test_momentum_rises_stays_and_falls_with_the_learning_rate():
    optim = OptimConfig(momentum_start=0.85, momentum=0.97, momentum_warmup=400, momentum_final=0.9)
    schedule = ScheduleConfig(steps=5568, warmup=40, flat=0.35, final=0.05)
    got = [momentum(s, 5568, optim, schedule) for s in range(5568)]
    assert got[0] == 0.85 and got[200] == pytest.approx(0.91) and set(got[400:1949]) == {0.97}  # 0.35 · 5568 = 1948.8
    assert got[3758] == pytest.approx(0.935, abs=1e-5) and got[-1] == pytest.approx(0.9, abs=2e-5)
    assert got[1948:] == sorted(got[1948:], reverse=True)
    stays = optim.model_copy(update={"momentum_final": None})
    assert momentum(5567, 5568, stays, schedule) == 0.97
    assert momentum(399, 400, optim, schedule) == pytest.approx(0.97, abs=4e-4)  # a short run: the rise comes first
    assert {momentum(s, 9, OptimConfig(), schedule) for s in range(9)} == {0.95}


def test_weight_decay_is_half_a_cosine():
    assert [decay_scale(s, 6) for s in range(6)] == pytest.approx([1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873])
