"""What the data tests share: small toy worlds written once, and a tokenizer trained on one of them."""

import pytest

from nanochat.data import TextShards, list_shards, write_world
from nanochat.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """The smoke-sized toy world of seed 0. Read only."""
    return write_world(tmp_path_factory.mktemp("world") / "data", seed=0, scale="smoke")


@pytest.fixture(scope="session")
def tokenizer(world_folder) -> Tokenizer:
    shards = TextShards(list_shards(world_folder / "text"))
    return Tokenizer.train((text for group in range(20) for text in shards.read(group)), 512, digits=1, threads=1)
