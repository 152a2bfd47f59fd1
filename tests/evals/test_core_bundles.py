"""CORE on whole bundles: the toy world's, and the real 22 tasks of the mirror that NANOCHAT_HUB names when it is set."""

import os
from pathlib import Path

import pytest

from nanochat.data import TextShards, World, list_shards, write_world
from nanochat.evals import centered, core, write_toy_bundle
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


# What the reference runs: task, kind, examples shown, chance in percent.
REFERENCE = """hellaswag_zeroshot MC 0 25, jeopardy LM 10 0, bigbench_qa_wikidata LM 10 0, arc_easy MC 10 25, arc_challenge MC 10 25, copa MC 0 50,
    commonsense_qa MC 10 20, piqa MC 10 50, openbook_qa MC 0 25, lambada_openai LM 0 0, hellaswag MC 10 25, winograd schema 0 50,
    winogrande schema 0 50, bigbench_dyck_languages LM 10 0, agi_eval_lsat_ar MC 3 20, bigbench_cs_algorithms LM 10 0, bigbench_operators LM 10 0,
    bigbench_repeat_copy_logic LM 10 0, squad LM 10 0, coqa LM 0 0, boolq MC 10 62, bigbench_language_identification MC 10 9.1"""
SPOKEN = ("jeopardy", "arc_easy", "arc_challenge", "piqa", "boolq")         # their answers follow "\nAnswer: "


@pytest.mark.skipif(not os.environ.get("NANOCHAT_HUB"), reason="needs the mirror's bundle")
def test_the_real_bundle_is_read_as_the_reference_reads_it():
    kinds = {"MC": "multiple_choice", "LM": "language_modeling", "schema": "schema"}
    expected = []
    for line in REFERENCE.split(","):
        label, kind, shots, chance = line.split()
        expected.append((label, kinds[kind], int(shots), "\nAnswer: " if label in SPOKEN else " ", pytest.approx(float(chance) / 100)))
    tasks = core.read_bundle(Path(os.environ["NANOCHAT_HUB"]) / "eval_bundle")
    assert [(t.label, t.kind, t.shots, t.delimiter, t.chance) for t in tasks] == expected


@pytest.mark.skipif(not os.environ.get("NANOCHAT_HUB"), reason="needs the mirror's bundle")
@pytest.mark.parametrize(("size", "score"), [("", 0.1139), ("-medium", 0.1849), ("-large", 0.2146), ("-xl", 0.2565)])
def test_gpt2s_published_tables_follow_from_its_accuracies(size, score):
    """Centred by our chances, and averaged, its 22 accuracies give the CORE that was published beside them."""
    folder = Path(os.environ["NANOCHAT_HUB"]) / "eval_bundle"
    rows = [[cell.strip() for cell in line.split(",")] for line in (folder / f"openai-community-gpt2{size}.csv").read_text().splitlines()]
    shares = []
    for task, (label, accuracy, published) in zip(core.read_bundle(folder), rows[1:-1], strict=True):
        shares.append(centered(float(accuracy), task.chance))
        assert label == task.label and shares[-1] == pytest.approx(float(published), abs=3e-6)
    assert sum(shares) / len(shares) == pytest.approx(float(rows[-1][2]), abs=2e-6) == pytest.approx(score, abs=6e-5)
