"""Batches prepared in a thread are the loader's own, state and faults included, and the thread ends with the stage."""

import threading

import pytest
import torch

from nanochat.data import Mixture, chat_loader
from nanochat.runtime import UserError
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import AHEAD, Feed

TASKS = [([{"text": f"Some plain text, number {i}. " * (i % 7 + 1)} for i in range(50)], 1.0)]


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("data")]


@pytest.fixture
def make():
    tokenizer = Tokenizer.train([item["text"] for item in TASKS[0][0]], 270)
    return lambda: chat_loader(Mixture(TASKS, 3), tokenizer, rows=4, sequence_len=40)


def test_batches_keys_and_state_are_those_of_the_batch_that_was_taken(make):
    plain, again, dice = make(), make(), torch.get_rng_state()
    with Feed(make(), torch.device("cpu")) as feed:
        assert feed.state() == plain.state()
        for _ in range(20):
            want = plain.next()
            assert all(torch.equal(ours, torch.from_numpy(theirs)) for ours, theirs in zip(feed.next(), want, strict=True))
            assert feed.keys == plain.keys and feed.state() == plain.state()
        again.load([feed.state()])
    assert torch.equal(torch.get_rng_state(), dice)
    assert all((ours == theirs).all() for ours, theirs in zip(again.next(), plain.next(), strict=True))


class Faulty:
    """Numbers its batches; the fourth cannot be read."""

    keys, count = [], 0

    def state(self):
        return {"count": self.count}

    def next(self):
        self.count += 1
        if self.count == 4:
            raise UserError("shard 7 is missing")
        return torch.full((2, 1, 3), self.count).numpy()


def test_it_runs_ahead_and_a_fault_comes_at_its_turn():
    loader = Faulty()
    with pytest.raises(UserError, match="shard 7 is missing"), Feed(loader, torch.device("cpu")) as feed:
        ready = threading.Event()
        feed._thread.submit(ready.set)
        assert ready.wait(10) and loader.count == AHEAD and feed.state() == {"count": 0}
        for number in (1, 2, 3):
            assert feed.next()[0][0, 0] == number and feed.state() == {"count": number}
        feed.next()
    assert not data_threads()


def test_the_thread_ends_when_the_stage_is_stopped(make):
    with pytest.raises(SystemExit), Feed(make(), torch.device("cpu")) as feed:
        feed.next()
        assert data_threads()
        raise SystemExit(0)
    assert not data_threads()
