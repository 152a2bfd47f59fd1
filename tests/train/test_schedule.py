"""The learning rate's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.train.schedule import lr_scale


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
