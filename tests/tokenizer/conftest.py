"""What the tokenizer's tests share: a text with many scripts, and a tokenizer trained on it."""

import inspect

import pytest
from odd_text import SCRIPTS

from nanochat.tokenizer import Tokenizer, bpe


@pytest.fixture(scope="session")
def corpus() -> str:
    """English, Python, and a dozen scripts: about 40 kB."""
    return inspect.getsource(bpe) + 20 * SCRIPTS + inspect.getsource(inspect)[:20_000]


@pytest.fixture(scope="session")
def tokenizer(corpus) -> Tokenizer:
    return Tokenizer.train([corpus], 1024, threads=1)
