"""The whole course at toy scale, as `make course` runs it: nine lessons, one run, and what the model has learned.

The bars are those of the project's mission; they hold for every seed tried (docs/log.md). NANOCHAT_TEST_SEED picks one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.data import World

SEED = int(os.environ.get("NANOCHAT_TEST_SEED", "0"))
NANOCHAT = [sys.executable, "-m", "nanochat.cli"]


def nanochat(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*NANOCHAT, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A complete run at toy scale."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    done = nanochat("run", "--scale", "toy", "--run", str(folder), "--seed", str(SEED))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def results(toy) -> dict:
    return json.loads((toy / "report.json").read_text())


def test_it_leaves_nine_executed_notebooks_and_a_report(toy, results):
    assert len(list((toy / "notebooks").glob("0*.ipynb"))) == 9
    assert (toy / "report.md").stat().st_size > 2000
    assert all(isinstance(value, (int, float)) for value in results.values())
    assert all(results[f"time.0{i}_s"] > 0 for i in range(1, 10)) and results["time.total_s"] > 0


def test_a_second_run_finds_everything_up_to_date(toy):
    done = nanochat("run", "--scale", "toy", "--run", str(toy), "--seed", str(SEED))
    assert done.returncode == 0 and done.stdout.count("up to date") == 9, done.stdout


@pytest.mark.parametrize(("key", "bar"), [
    ("base.cloze_acc", 0.95), ("base.addition_acc", 0.85), ("sft.qa_seen_acc", 0.97), ("sft.qa_heldout_acc", 0.85), ("sft.tool_acc", 0.90),
])
def test_it_has_learned(results, key, bar):
    assert results[key] >= bar


def test_the_transformer_beats_the_rnn_in_no_more_core_seconds(results):
    assert results["base.val_bpb"] < results["char_rnn.val_bpb"]
    assert results["base.core_s"] <= results["char_rnn.core_s"]
    assert 0.8 < results["base.params"] / results["char_rnn.params"] < 1.25


def test_reinforcement_learning_gains_and_beats_both_controls(results):
    last = results["grpo.reward_last"]
    assert last - results["grpo.reward_first"] >= 0.30
    assert last - results["grpo.reward_zero_lr"] >= 0.20
    assert last - results["grpo.reward_more_sft"] >= 0.20
    assert results["grpo.heldout_after"] - results["grpo.heldout_before"] >= 0.10


@pytest.mark.parametrize("what", ["cloze", "qa_seen", "qa_heldout", "addition"])
def test_reinforcement_learning_forgets_nothing(results, what):
    assert results[f"grpo.{what}_after"] >= results[f"grpo.{what}_before"] - 0.03


def test_every_accuracy_stands_beside_chance(toy, results):
    chance = {}
    for path in (toy / "results").glob("*.json"):
        chance |= {f"{path.stem}.{key}": value for key, value in json.loads(path.read_text())["chance"].items()}
    accuracies = [key for key in results if key.endswith("_acc")]
    assert len(accuracies) >= 8
    assert not [key for key in accuracies if key not in chance]


def test_the_chat_answers_a_question_about_the_town(toy):
    world = World(SEED)
    question = next(q for q in world.questions() if q["trained"])
    done = nanochat("chat", "--run", str(toy), "-p", question["question"], "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == question["answer"]


def test_the_chat_uses_its_calculator(toy):
    done = nanochat("chat", "--run", str(toy), "-p", "Use the calculator: what is 34*57?", "--temperature", "0")
    assert "1938" in done.stdout
