"""CORE on whole bundles: the toy world's, and the real 22 tasks of the mirror that NANOCHAT_HUB names when it is set."""

import os
from pathlib import Path

import pytest

from nanochat.data import TextShards, World, list_shards, write_world
from nanochat.evals import core, write_toy_bundle
from nanochat.model import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

BUNDLES = ["toy"] + (["hub"] if os.environ.get("NANOCHAT_HUB") else [])


@pytest.mark.parametrize("which", BUNDLES)
def test_an_untrained_model_guesses(which, tmp_path):
    texts = TextShards(list_shards(write_world(tmp_path / "data", seed=0, scale="smoke") / "text"))
    tokenizer = Tokenizer.train(texts.read(0), 320, digits=1)
    model = GPT(GPTConfig.from_depth(2, tokenizer.vocab_size, 128, n_embd=32, head_dim=16))
    model.init_weights(seed=0)
    bundle = write_toy_bundle(tmp_path / "bundle", World(0)) if which == "toy" else Path(os.environ["NANOCHAT_HUB"]) / "eval_bundle"
    cards = core.evaluate(model, tokenizer, bundle, max_per_task=20)
    tasks = [name for name in cards if name != "core"]
    assert len(tasks) == (22 if which == "hub" else 9)
    assert all(0 <= cards[name]["accuracy"] <= 1 for name in tasks)
    assert cards["core"] == pytest.approx(sum(cards[name]["centered"] for name in tasks) / len(tasks))
    assert abs(cards["core"]) < 0.15
