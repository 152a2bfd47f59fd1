"""The toy world: the same for the same seed, honest about what is held out, whole or not there."""

import hashlib
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest

from nanochat.data import TextShards, World, list_shards, pretrain_loader, toyextras, toyfiles, write_world
from nanochat.data.toyworld import RELATIONS
from nanochat.runtime import UserError

SEEDS = [0, 1]


def digests(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def strings(value):
    """Every string inside rows of any shape."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def rows(folder, pattern):
    return [row for path in sorted(folder.glob(pattern)) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module", params=SEEDS)
def world_and_training_text(request, tmp_path_factory):
    """A world, its folder, and every string that any training stage may read."""
    folder = write_world(tmp_path_factory.mktemp("world") / "data", seed=request.param, scale="smoke")
    patterns = ("text/*.parquet", "replay/*.parquet", "chat/*.train.parquet", "chat/chats.test.parquet")
    training = [text for pattern in patterns for text in strings(rows(folder, pattern))]
    return World(request.param), folder, training


def pairs(texts, sign):
    """All (a, b) written as a+b or a*b anywhere."""
    pattern = rf"(?<!\d)(\d+) ?{re.escape(sign)} ?(\d+)"
    found = {(int(a), int(b)) for text in texts for a, b in re.findall(pattern, text)}
    assert found, f"the pattern for {sign} finds nothing"
    return found


def test_no_held_out_sum_or_product_is_in_any_training_text(world_and_training_text):
    world, _, training = world_and_training_text
    assert len(world.heldout_sums) == 2_000 and len(world.train_sums) == 8_000
    assert len(world.heldout_products) == 1_620 and len(world.train_products) == 6_480
    assert pairs(training, "+") <= set(world.train_sums)
    assert pairs(training, "*") <= set(world.train_products)
    told = re.compile(r"has (\d+) \w+ and [a-z ]+ (\d+)\.")
    in_words = {(int(a), int(b)) for text in training for a, b in told.findall(text)}
    assert in_words and in_words <= set(world.train_sums)


def test_no_question_about_a_held_out_person_is_in_any_training_text(world_and_training_text):
    world, _, training = world_and_training_text
    assert len(world.heldout_people) == len(world.qa_people) == 30
    assert not set(world.heldout_people) & set(world.qa_people)
    asked = [text for text in training if "?" in text]
    held_out = re.compile("|".join(world.heldout_people))
    assert len(asked) > 1_000 and not [text for text in asked if held_out.search(text)]
    whole = "\n".join(training)
    for row in world.questions():
        assert (row["question"] in whole) == row["trained"]


def test_no_test_item_is_among_the_training_items(world_and_training_text):
    _, folder, _ = world_and_training_text
    for task in ("qa", "chat_sums", "tool", "free", "letters", "problems", "functions", "choices"):
        def asked(split, task=task):
            first = next(iter(rows(folder, f"chat/{task}.{split}.parquet")[0]))
            return {repr(row["messages"][0] if first == "messages" else row[first])
                    for row in rows(folder, f"chat/{task}.{split}.parquet")}

        assert asked("test") and not asked("test") & asked("train"), task


def test_test_sums_and_products_are_held_out_and_right(world_and_training_text):
    world, folder, _ = world_and_training_text
    for row in rows(folder, "eval/addition.parquet"):
        a, b = map(int, row["prompt"].removesuffix("=").split("+"))
        assert (a, b) in world.heldout_sums and row["answer"] == str(a + b)
    for task in ("tool", "free"):
        tests = rows(folder, f"chat/{task}.test.parquet")
        assert len(tests) == 300
        assert pairs(strings(tests), "*") <= set(world.heldout_products)
    for row in rows(folder, "chat/tool.*.parquet") + rows(folder, "chat/free.*.parquet"):
        question, answer = (message["content"] for message in row["messages"])
        a, b = map(int, re.findall(r"\d+", question))
        assert answer in (f"<<{a}*{b}={a * b}>>{a * b}.", f"{a * b}.")


def test_one_free_demonstration_in_three_calls_and_every_product_is_shown_both_ways(world_and_training_text):
    world, folder, _ = world_and_training_text
    ways = Counter()
    for row in rows(folder, "chat/free.train.parquet"):
        question, answer = (message["content"] for message in row["messages"])
        ways[question, answer.startswith("<<")] += 1
    assert len(ways) == 2 * len(world.train_products)
    assert all(count == (1 if call else 2) for (_, call), count in ways.items())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_guess_is_better_than_another(seed):
    world = World(seed)
    assert len(set(world.people)) == 60
    for relation, spec in RELATIONS.items():
        counts = Counter(world.facts[name][relation] for name in world.people)
        assert counts == Counter(dict.fromkeys(spec["values"], 5))


def test_a_cut_statement_has_one_right_ending():
    world = World(0)
    said = [(relation, form, *world.cloze("Juna", relation, form)) for relation in RELATIONS for form in range(5)]
    for relation, form, prompt, answer in said:
        assert prompt + answer == world.statement("Juna", relation, form)
        others = [whole + end for r, f, whole, end in said if (r, f) != (relation, form)]
        assert not [other for other in others if other.startswith(prompt + " ")]


def test_answers_do_not_contain_the_name():
    assert not [row for row in World(0).questions() if row["name"] in row["answer"]]


def test_the_same_seed_gives_the_same_bytes(world_folder, tmp_path):
    again, other = write_world(tmp_path / "a", 0, "smoke"), write_world(tmp_path / "b", 1, "smoke")
    assert digests(again) == digests(world_folder)
    assert not set(digests(other).values()) & set(digests(again).values())


def test_a_complete_world_is_used_as_it_is(tmp_path):
    folder = write_world(tmp_path / "w", 0, "smoke")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_world(folder, 0, "smoke") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UserError, match="holds a toy world of seed 0, not 1"):
        write_world(folder, 1, "smoke")
    (folder / "text" / "shard_00000.parquet").unlink()
    with pytest.raises(UserError, match="shard_00000.parquet is missing or was changed"):
        write_world(folder, 0, "smoke")


def test_an_empty_folder_is_filled_and_another_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (write_world(tmp_path / "empty", 0, "smoke") / "world.json").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a toy world"):
        write_world(tmp_path, 0, "smoke")
    with pytest.raises(UserError, match="no scale 'huge'; it comes as smoke or toy"):
        write_world(tmp_path / "x", 0, "huge")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def broken(world, split):
        raise KeyboardInterrupt

    monkeypatch.setattr(toyextras, "functions", broken)
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "w", 0, "smoke")
    assert list(tmp_path.iterdir()) == []


def kind(text):
    return "faq" if text.startswith("Q:") else "sums" if text[0].isdigit() else "facts"


def test_token_shares_are_those_of_the_recipe(world_folder, tokenizer):
    shards, spent = TextShards(list_shards(world_folder / "text")[:-1]), Counter()
    for group in range(len(shards)):
        for text in shards.read(group):
            spent[kind(text)] += len(tokenizer.encode(text)) + 1
    for name, share in {"facts": 0.30, "sums": 0.50, "faq": 0.20}.items():
        assert spent[name] / spent.total() == pytest.approx(share, abs=0.02)


def test_packing_the_toy_text_throws_little_away(tmp_path, tokenizer):
    texts = toyfiles.pretraining_text(World(0), "train", 2_000_000)
    toyfiles.write_shard(tmp_path / "text.parquet", texts, row_group=256)
    loader = pretrain_loader([tmp_path / "text.parquet"], tokenizer, rows=32, sequence_len=128)
    drawn = kept = 0
    for _ in range(250):
        for stream in loader.streams.values():
            for row in stream.rows(8):
                drawn += sum(len(document.ids) for document, _ in row)
                kept += sum(take for _, take in row)
    assert kept == 250 * 32 * 129
    assert 1 - kept / drawn < 0.05
