"""A mixture of tasks: an endless stream of items in given shares of *tokens*.

    mixture = Mixture([(smoltalk, .7), (mmlu, .2), (gsm8k, .1)], seed=0)
    walk = mixture.walk()
    part, position, item = walk.draw()           # from the task furthest behind its share
    walk.pay(part, tokens)                       # tell it what the item cost

Shares are counted in tokens and not in items, because that is what the loss sees: a long chat weighs as much as twenty
short sums. Every task is walked in a seeded order that is shuffled anew each epoch; with `walk(stream, streams)` each
stream takes every streams-th place of that order, so all streams together see each item once an epoch.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from nanochat.runtime import UserError


class Mixture:
    """parts: (task, share) pairs; a task is anything with `len(task)` and `task[i]`. Shares need not sum to 1.

    Raises UserError for an empty mixture, a share that is not positive, or a task without items.
    """

    def __init__(self, parts: Sequence[tuple[Sequence, float]], seed: int = 0):
        if not parts:
            raise UserError("a mixture needs at least one task")
        for task, share in parts:
            if share <= 0:
                raise UserError(f"the share of {_name(task)} in a mixture is {share}; it must be above 0")
            if not len(task):
                raise UserError(f"the task {_name(task)} has no items; it cannot be part of a mixture")
        total = sum(share for _, share in parts)
        self.tasks = [task for task, _ in parts]
        self.shares = [share / total for _, share in parts]
        self.seed = seed
        self._orders: list[dict[int, np.ndarray]] = [{} for _ in parts]  # of each part: epoch → order

    def item(self, part: int, position: int):
        """The item at a place of a task's endless walk: place p is in epoch p // len(task)."""
        task = self.tasks[part]
        epoch, i = divmod(position, len(task))
        orders = self._orders[part]
        if epoch not in orders:
            if len(orders) == 2:  # neighbouring streams may stand on both sides of an epoch's end
                del orders[min(orders)]
            orders[epoch] = np.random.default_rng([self.seed, part, epoch]).permutation(len(task))
        return task[int(orders[epoch][i])]

    def walk(self, stream: int = 0, streams: int = 1) -> "Walk":
        return Walk(self, stream, streams)

    def items(self, length) -> Iterator:
        """The items in order, for looking at; `length(item)` says what each one costs."""
        walk = self.walk()
        while True:
            part, _, item = walk.draw()
            walk.pay(part, length(item))
            yield item

    @property
    def digest(self) -> str:
        """A fingerprint of tasks, sizes, shares and seed."""
        what = [[_name(task), len(task), share] for task, share in zip(self.tasks, self.shares)]
        return hashlib.sha256(json.dumps([what, self.seed]).encode()).hexdigest()[:16]


class Walk:
    """One stream's way through a mixture. `taken` and `spent` are all its state."""

    def __init__(self, mixture: Mixture, stream: int, streams: int):
        self.mixture, self.stream, self.streams = mixture, stream, streams
        self.taken = [0] * len(mixture.tasks)   # items drawn from each task
        self.spent = [0] * len(mixture.tasks)   # tokens they cost

    def draw(self) -> tuple[int, int, object]:
        """(part, position, item) of the task furthest behind its share; the first one where several are."""
        total = sum(self.spent)
        behind = [share * total - spent for share, spent in zip(self.mixture.shares, self.spent)]
        part = behind.index(max(behind))
        position = self.stream + self.taken[part] * self.streams
        self.taken[part] += 1
        return part, position, self.mixture.item(part, position)

    def pay(self, part: int, tokens: int) -> None:
        self.spent[part] += tokens


def _name(task) -> str:
    return getattr(task, "name", type(task).__name__)
