"""Mixtures: shares of tokens, epochs, and mistakes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.data import Mixture
from nanochat.runtime import UserError

lengths = st.lists(st.integers(1, 200), min_size=1, max_size=40)  # a task, as the lengths of its items


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(lengths, st.floats(0.05, 1)), min_size=1, max_size=5), st.integers(0, 9))
def test_shares_of_tokens_are_kept(tasks, seed):
    walk = Mixture(tasks, seed).walk()
    while sum(walk.spent) < 50_000:
        part, _, length = walk.draw()
        walk.pay(part, length)
    total = sum(share for _, share in tasks)
    for (_, share), spent in zip(tasks, walk.spent):
        assert spent / sum(walk.spent) == pytest.approx(share / total, abs=0.02)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_all_streams_together_see_every_item_once_an_epoch(streams):
    mixture = Mixture([(range(24), 1.0)], seed=3)
    walks = [mixture.walk(s, streams) for s in range(streams)]
    epochs = []
    for _ in range(2):
        items = [walk.draw()[2] for _ in range(24 // streams) for walk in walks]
        assert sorted(items) == list(range(24))
        epochs.append(items)
    assert epochs[0] != epochs[1] and epochs[0] != list(range(24))


def test_the_seed_decides_the_order():
    def first(seed):
        items = Mixture([(range(100), 1.0), (range(100, 200), 2.0)], seed).items(length=lambda item: 5)
        return [next(items) for _ in range(20)]

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize(("parts", "message"), [
    ([], "at least one task"),
    ([(range(3), 0.0)], "must be above 0"),
    ([(range(0), 1.0)], "has no items"),
])
def test_a_mixture_that_cannot_be_is_refused(parts, message):
    with pytest.raises(UserError, match=message):
        Mixture(parts)
