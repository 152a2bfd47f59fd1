"""An independent judge: transformers loads an exported model and scores multiple choice by itself.

From the item files to the verdict nothing of `nanochat.evals` is used here: prompts, tokens, spans and means are done anew, and rows are
padded on the *left*, with a mask and positions, where ours are padded on the right.
"""

import json
import os
import random
from pathlib import Path

import pytest
import torch

from nanochat.data import World
from nanochat.evals import core, write_toy_bundle
from nanochat.model import GPT, GPTConfig
from nanochat.serve.export.hf import to_hf
from nanochat.tokenizer import Tokenizer

BUNDLES = [("toy", "town_choice", 0, " ", 24), ("toy", "town_choice_3shot", 3, " ", 24)]
BUNDLES += [("hub", "arc_easy", 10, "\nAnswer: ", 16)] if os.environ.get("NANOCHAT_HUB") else []


@pytest.fixture(scope="module")
def made():
    """A tokenizer and a model with an opinion: weights by lot, none left at zero."""
    world = World(0)
    texts = [world.statement(name, relation, form) for name in world.people for relation in world.facts[name] for form in range(5)]
    tokenizer = Tokenizer.train(texts, 320)
    model = GPT(GPTConfig(256, tokenizer.vocab_size, n_layer=2, n_head=4, n_kv_head=2, n_embd=64)).init_weights(seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.3, generator=generator)
    return model, tokenizer


def theirs(folder, path, shots, delimiter, count):
    """(losses of every option, right or not) of each item, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(1337).shuffle(items)
    items = items[:count]
    for i, item in enumerate(items):
        shown = random.Random(1234 + i).sample([other for j, other in enumerate(items) if j != i], shots)
        head = "".join(example["query"] + delimiter + example["choices"][example["gold"]] + "\n\n" for example in shown)
        rows = [[tokenizer.bos_token_id, *tokenizer(head + item["query"] + delimiter + choice, add_special_tokens=False)["input_ids"]]
                for choice in item["choices"]]
        width, start = max(map(len, rows)), len(os.path.commonprefix(rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])                           # (options, width)
        real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            logits = model(ids, attention_mask=real, position_ids=(real.cumsum(-1) - 1).clamp(min=0)).logits
        nats = -logits.double().log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]           # (options, width − 1)
        losses = [float(nats[k, start - len(row):].mean()) for k, row in enumerate(rows)]
        yield losses, min(range(len(losses)), key=losses.__getitem__) == item["gold"]


@pytest.mark.parametrize(("bundle", "label", "shots", "delimiter", "count"), BUNDLES)
def test_transformers_judges_the_exported_model_alike(tmp_path, made, bundle, label, shots, delimiter, count):
    model, tokenizer = made
    folder = write_toy_bundle(tmp_path / "bundle", World(0), items=40) if bundle == "toy" else Path(os.environ["NANOCHAT_HUB"]) / "eval_bundle"
    task = next(task for task in core.read_bundle(folder) if task.label == label)
    ours = core.judge(model, tokenizer, task, core.read_items(task, count), range(count))
    independent = list(theirs(to_hf(model, tokenizer, tmp_path / "hf"), task.path, shots, delimiter, count))
    assert len(independent) == count
    for judged, (losses, correct) in zip(ours, independent):
        assert judged.losses == pytest.approx(losses, abs=1e-4)
        assert judged.correct == correct
    assert 0 < sum(judged.correct for judged in ours) < count
