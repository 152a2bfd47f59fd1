"""The toy bundle: true, balanced, the same for the same world, and solved by a model that knows the town."""

import pytest
from scripted import ByteTokenizer, Scripted, knows, pseudo_random

from nanochat.data import World
from nanochat.evals import write_toy_bundle
from nanochat.evals.core import evaluate, few_shot, prompts, read_bundle, read_items

WORLD = World(seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("bundle"), WORLD, items=24)


def test_equal_worlds_get_equal_bundles(folder, tmp_path):
    again = write_toy_bundle(tmp_path, World(seed=3), items=24)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert [(again / f).read_bytes() for f in files] == [(folder / f).read_bytes() for f in files]
    other = write_toy_bundle(tmp_path / "other", World(seed=4), items=24)
    assert (other / "eval_data/sums.jsonl").read_bytes() != (folder / "eval_data/sums.jsonl").read_bytes()


def test_right_options_are_true_and_wrong_ones_false(folder):
    true = {WORLD.statement(name, relation, form) for name in WORLD.people for relation in WORLD.facts[name] for form in range(5)}
    true |= {f"Q: {row['question']} A: {row['answer']}" for row in WORLD.questions()}
    true |= {f"{a}+{b}={a + b}" for a, b in WORLD.heldout_sums}
    for task in read_bundle(folder):
        items = read_items(task)
        assert len(items) == 24
        for item in items:
            texts = prompts(task, item, [])
            gold = item.get("gold", 1)
            assert [text in true for text in texts] == [i == gold for i in range(len(texts))]


def test_sums_and_questions_are_held_out(folder):
    tasks = {task.label: task for task in read_bundle(folder)}
    train = {f"{a}+{b}=" for a, b in WORLD.train_sums}
    assert not train & {item["context"] for item in read_items(tasks["sums"])}
    names = {item["query"].split("?")[0].split()[-1] for item in read_items(tasks["town_questions"])}
    assert not names & set(WORLD.qa_people)


def test_right_options_stand_equally_often_in_each_place(folder):
    for task in read_bundle(folder):
        if task.kind != "language_modeling":
            golds = [item["gold"] for item in read_items(task)]
            places = 2 if task.kind == "schema" else 4
            assert [golds.count(p) for p in range(places)] == [24 // places] * places


def test_a_model_that_knows_the_town_scores_one_and_a_stranger_does_not(folder):
    texts = []
    for task in read_bundle(folder):
        items = read_items(task)
        for i, item in enumerate(items):
            options = prompts(task, item, few_shot(items, i, task.shots))
            texts.append(options[item.get("gold", 1)])
    assert evaluate(Scripted(knows(texts)), ByteTokenizer(), folder)["core"] == 1.0
    assert evaluate(Scripted(pseudo_random), ByteTokenizer(), folder)["core"] < 0.2
