"""CORE: prompts, spans and scores against what the rules say when worked out by hand."""

import json
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from scripted import ByteTokenizer, FakeWorld, Scripted, knows, pseudo_random

from nanochat.evals import core, forward
from nanochat.evals.core import CoreTask, as_csv, evaluate, few_shot, judge, prompts, read_bundle, read_items, spans
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError

TOKENIZER = ByteTokenizer()


def task(kind, shots=0, delimiter=" ", chance=0.0, label="t", path=None):
    return CoreTask(label, kind, shots, delimiter, chance, path)


def ids(text):
    return np.array(TOKENIZER.encode(text, bos=True))


# -- prompts, by hand -------------------------------------------------------------------------------------------------

def test_multiple_choice_prompt():
    shown = {"query": "Question: 1+1?", "choices": ["2", "3"], "gold": 0}
    asked = {"query": "Question: 2+2?", "choices": ["5", "4"], "gold": 1}
    assert prompts(task("multiple_choice", 1, "\nAnswer: "), asked, [shown]) == [
        "Question: 1+1?\nAnswer: 2\n\nQuestion: 2+2?\nAnswer: 5",
        "Question: 1+1?\nAnswer: 2\n\nQuestion: 2+2?\nAnswer: 4",
    ]


def test_schema_prompt():
    shown = {"context_options": ["The ant saw the dog; the ant", "The ant saw the dog; the dog"], "continuation": "barked.", "gold": 1}
    asked = {"context_options": ["Ann thanked Eve; Ann", "Ann thanked Eve; Eve"], "continuation": "was glad.", "gold": 0}
    assert prompts(task("schema", 1), asked, [shown]) == [
        "The ant saw the dog; the dog barked.\n\nAnn thanked Eve; Ann was glad.",
        "The ant saw the dog; the dog barked.\n\nAnn thanked Eve; Eve was glad.",
    ]


def test_language_modelling_prompt_is_stripped_where_the_rules_say():
    shown = {"context": "  Capital of France?\n", "continuation": " Paris "}
    asked = {"context": " Capital of Peru? ", "continuation": "Lima"}
    assert prompts(task("language_modeling", 1, "\nAnswer: "), asked, [shown]) == [
        "Capital of France?\nAnswer:  Paris \n\nCapital of Peru?\nAnswer:",          # the blank of the delimiter is gone here
        "Capital of France?\nAnswer:  Paris \n\nCapital of Peru?\nAnswer: Lima",     # and belongs to the ending there
    ]


# -- spans, by hand ---------------------------------------------------------------------------------------------------

def spans_of(kind, texts, max_len=None):
    return [(TOKENIZER.decode(s.ids), s.start) for s in spans(task(kind), [ids(t) for t in texts], max_len)]


def test_multiple_choice_judges_what_follows_the_common_prefix():
    # bos a b c │ x y   and   bos a b c │ z: the options differ from token 4 on
    assert spans_of("multiple_choice", ["abcxy", "abcz"]) == [("abcxy", 4), ("abcz", 4)]


def test_schema_judges_the_common_suffix():
    # "ann left." and "eve left.": the last six tokens " left." are shared; "n" and "e" before them are not
    assert spans_of("schema", ["ann left.", "you left."]) == [("ann left.", 4), ("you left.", 4)]
    assert spans_of("schema", ["a left.", "you left."]) == [("a left.", 2), ("you left.", 4)]


def test_language_modelling_judges_what_the_ending_adds():
    assert spans_of("language_modeling", ["2+2=", "2+2= 4"]) == [("2+2= 4", 5)]


def test_language_modelling_needs_a_tokenizer_that_keeps_the_boundary():
    with pytest.raises(UserError, match="joins a context and its ending"):
        spans(task("language_modeling", label="lambada"), [np.array([256, 1, 2]), np.array([256, 1, 9, 3])])
    with pytest.raises(UserError):
        spans(task("language_modeling"), [np.array([256, 1, 2]), np.array([256, 1, 2])])


def test_truncation_keeps_the_end_and_moves_the_span_with_it():
    # 6 and 5 tokens with bos; each keeps its own last four
    assert spans_of("multiple_choice", ["abcxy", "abcz"], max_len=4) == [("bcxy", 2), ("abcz", 3)]
    assert spans_of("multiple_choice", ["abcxy", "abcz"], max_len=6) == [("abcxy", 4), ("abcz", 4)]
    # the ending alone is longer than the model: its first token has no predecessor left and is not judged
    assert spans_of("language_modeling", ["a", "abcdefgh"], max_len=3) == [("fgh", 1)]


# -- few-shot draws and order -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("n,index,shots", [(2, 0, 1), (12, 11, 10), (50, 7, 10), (500, 0, 3), (3000, 2999, 10)])
def test_few_shot_draws_are_the_references(n, index, shots):
    items = [{"number": i} for i in range(n)]
    others = [i for i in range(n) if i != index]
    expected = random.Random(1234 + index).sample(others, shots)
    assert [e["number"] for e in few_shot(items, index, shots)] == expected


def test_too_few_items_for_the_examples_is_said():
    with pytest.raises(UserError, match="raise max_per_task"):
        few_shot([{}] * 10, 0, 10)


def test_items_are_shuffled_then_capped(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"context": str(i), "continuation": "!"}) + "\n" for i in range(30)))
    expected = [str(i) for i in range(30)]
    random.Random(1337).shuffle(expected)
    t = task("language_modeling", path=path)
    assert [item["context"] for item in read_items(t, 7)] == expected[:7]
    assert [item["context"] for item in read_items(t)] == [item["context"] for item in read_items(t, -1)] == expected


# -- scores against an independent calculation ------------------------------------------------------------------------

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay"]


def make_items(kind, n, seed=0):
    """Items whose right option is equally often in each place."""
    rng = random.Random(seed)
    items = []
    for i in range(n):
        four = rng.sample(WORDS, 4)
        if kind == "multiple_choice":
            items.append({"query": f"In house {i} lives the", "choices": [f"{w}." for w in four], "gold": i % 4})
        elif kind == "schema":
            items.append({"context_options": [f"{w} {i}" for w in four[:2]], "continuation": "went home.", "gold": i % 2})
        else:
            items.append({"context": f"House {i} has the", "continuation": four[0]})
    return items


def log_softmax(z):
    z = np.asarray(z, dtype=np.float64)
    return z - z.max() - math.log(np.exp(z - z.max()).sum())


def by_hand(rule, kind, texts, max_len=None):
    """The mean losses of an item's texts and whether the last is decoded greedily, one token at a time, from the rules."""
    rows = [TOKENIZER.encode(t, bos=True) for t in texts]
    if kind == "multiple_choice":
        first = next(i for i in range(99) if len({row[i] for row in rows}) > 1)
        judged = [range(first, len(row)) for row in rows]
    elif kind == "schema":
        last = next(i for i in range(1, 99) if len({row[-i] for row in rows}) > 1)
        judged = [range(len(row) - last + 1, len(row)) for row in rows]
    else:
        judged = [range(len(rows[0]), len(rows[1]))]
        rows = rows[1:]
    losses, greedy = [], True
    for row, span in zip(rows, judged):
        cut = max(0, len(row) - max_len) if max_len else 0
        row, span = row[cut:], [i - cut for i in span if i - cut >= 1]
        predicted = [log_softmax(rule(row[:i])) for i in span]
        losses.append(-sum(p[row[i]] for p, i in zip(predicted, span)) / len(span))
        greedy = all(int(p.argmax()) == row[i] for p, i in zip(predicted, span))
    return losses, greedy


@pytest.mark.parametrize("max_len", [None, 12])
@pytest.mark.parametrize("kind", ["multiple_choice", "schema", "language_modeling"])
def test_losses_are_those_of_the_model(kind, max_len):
    items = make_items(kind, 6)
    t = task(kind, shots=1)
    judged = judge(Scripted(pseudo_random), TOKENIZER, t, items, range(6), batch_size=5, max_len=max_len)
    for i, item in enumerate(items):
        losses, greedy = by_hand(pseudo_random, kind, prompts(t, item, few_shot(items, i, 1)), max_len)
        assert judged[i].losses == pytest.approx(losses, abs=1e-5)
        right = greedy if kind == "language_modeling" else losses.index(min(losses)) == item["gold"]
        assert judged[i].correct == right


def test_an_option_with_nothing_of_its_own_wins_only_when_first():
    items = [{"query": "q", "choices": ["no", "no one"], "gold": 0}, {"query": "q", "choices": ["no one", "no"], "gold": 1}]
    first, second = judge(Scripted(pseudo_random), TOKENIZER, task("multiple_choice"), items, range(2))
    assert math.isnan(first.losses[0]) and first.correct
    assert math.isnan(second.losses[1]) and not second.correct


def test_identical_options_go_to_the_first():
    items = [{"context_options": ["a", "a"], "continuation": "b", "gold": 0}]
    assert judge(Scripted(pseudo_random), TOKENIZER, task("schema"), items, [0])[0].correct


# -- the same result however it is computed ---------------------------------------------------------------------------

def tiny_gpt(sequence_len=64):
    model = GPT(GPTConfig(sequence_len, TOKENIZER.vocab_size, 2, 2, 1, 32)).init_weights(seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("c_proj.weight") or name == "lm_head.weight":
                weight.normal_(0, 0.5, generator=generator)
    return model


@pytest.mark.parametrize("kind", ["multiple_choice", "schema", "language_modeling"])
@pytest.mark.parametrize("max_len", [None, 48])
def test_batch_size_and_trunk_sharing_change_nothing(kind, max_len, monkeypatch):
    model, items, t = tiny_gpt(), make_items(kind, 20), task(kind, shots=2)
    results = []
    for batch_size, min_trunk in [(1, 10**9), (1, 1), (3, 1), (32, 1), (32, 16), (32, 10**9)]:
        monkeypatch.setattr(forward, "MIN_TRUNK", min_trunk)
        results.append(judge(model, TOKENIZER, t, items, range(20), batch_size=batch_size, max_len=max_len))
    for other in results[1:]:
        assert [j.correct for j in other] == [j.correct for j in results[0]]
        assert np.allclose([j.losses for j in other], [j.losses for j in results[0]], atol=1e-5)


@pytest.mark.parametrize("kind", ["multiple_choice", "schema", "language_modeling"])
def test_padding_and_room_to_spare_change_nothing(kind):
    """Any id may pad; a limit that no text reaches is no limit; a text is judged the same alone and beside longer ones."""
    model, items, t = tiny_gpt(), make_items(kind, 12), task(kind, shots=1)
    rows = [[ids(text) for text in prompts(t, item, few_shot(items, i, 1))] for i, item in enumerate(items)]
    longest = max(len(row) for group in rows for row in group)
    alone = [forward.score_spans(model, [spans(t, group)], pad=0)[0] for group in rows]
    for max_len in (None, longest, longest + 1, 10 * longest):
        for pad in (0, 97, TOKENIZER.bos):
            together = forward.score_spans(model, [spans(t, group, max_len) for group in rows], pad, batch_size=7)
            for a, b in zip(alone, together):
                assert [s.loss for s in b] == pytest.approx([s.loss for s in a], abs=1e-5)
                assert [s.greedy for s in b] == [s.greedy for s in a]


def test_the_trunk_of_an_item_is_read_once():
    items = [{"query": "x" * 300, "choices": ["a1", "b1", "c1", "d1"], "gold": 0}]
    model = Scripted(pseudo_random)
    judge(model, TOKENIZER, task("multiple_choice"), items, [0])
    assert model.tokens_read < 1.1 * 303            # and not four times


def test_length_batches_cover_everything_once_and_keep_their_bounds():
    rng = random.Random(3)
    lengths = [rng.randint(1, 60) for _ in range(200)]
    batches = list(forward.length_batches(lengths, rows=7, tokens=150))
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    assert all(len(b) <= 7 and (len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 150) for b in batches)
    assert list(forward.length_batches([3, 9, 4, 8], rows=2, tokens=100)) == [[1, 3], [2, 0]]


# -- whole bundles ----------------------------------------------------------------------------------------------------

@pytest.fixture
def bundle(tmp_path):
    """Three tasks of forty items each, one of each kind."""
    (tmp_path / "eval_data").mkdir()
    entries, table = [], ["Eval Task,Random baseline"]
    for kind, chance in (("multiple_choice", 25), ("schema", 50), ("language_modeling", 0)):
        entries.append({"label": kind, "dataset_uri": f"{kind}.jsonl", "num_fewshot": [0], "icl_task_type": kind})
        table.append(f"{kind},{chance}")
        with open(tmp_path / "eval_data" / f"{kind}.jsonl", "w") as f:
            f.writelines(json.dumps(item) + "\n" for item in make_items(kind, 40))
    (tmp_path / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": entries}))
    (tmp_path / "eval_meta_data.csv").write_text("\n".join(table) + "\n")
    return tmp_path


def right_texts(folder):
    for t in read_bundle(folder):
        for item in read_items(t):
            texts = prompts(t, item, [])
            yield texts[item.get("gold", 1)]


def test_a_model_that_knows_every_answer_scores_one(bundle):
    results = evaluate(Scripted(knows(right_texts(bundle))), TOKENIZER, bundle)
    assert results["core"] == 1.0
    assert all(results[kind]["accuracy"] == results[kind]["centered"] == 1.0 for kind in core.FIELDS)


def test_a_uniform_model_scores_chance(bundle):
    """It ties all options, the first wins, and that is the right one in exactly its share of items; it decodes nothing rightly."""
    results = evaluate(Scripted(lambda ids: np.zeros(TOKENIZER.vocab_size)), TOKENIZER, bundle)
    for kind in core.FIELDS:
        assert results[kind]["accuracy"] == results[kind]["chance"] and results[kind]["centered"] == 0
        assert results[kind]["n"] == 40
    assert results["core"] == 0


def test_a_model_of_noise_scores_zero_within_its_error(bundle):
    """A dozen models without knowledge: their mean CORE is zero to within three standard errors, and each interval is as wide as it says."""
    def noise(seed):
        def rule(ids):
            return np.random.default_rng([seed, *ids]).normal(size=TOKENIZER.vocab_size)
        return rule

    cards = [evaluate(Scripted(noise(seed)), TOKENIZER, bundle, 20, max_len=24) for seed in range(12)]
    found = np.array([card["core"] for card in cards])
    assert abs(found.mean()) < 3 * found.std(ddof=1) / len(found) ** 0.5
    held = [low <= card[kind]["chance"] <= high for card in cards for kind in ("multiple_choice", "schema")
            for low, high in [card[kind]["interval"]]]
    assert np.mean(held) > 0.8


def test_core_is_the_mean_of_centered_accuracies(bundle):
    results = evaluate(Scripted(pseudo_random), TOKENIZER, bundle)
    expected = [(results[k]["accuracy"] - b) / (1 - b) for k, b in zip(core.FIELDS, (0.25, 0.5, 0.0))]
    assert [results[k]["centered"] for k in core.FIELDS] == pytest.approx(expected)
    assert results["core"] == pytest.approx(sum(expected) / 3)


def test_ranks_share_the_items(bundle, monkeypatch):
    model = Scripted(pseudo_random)
    alone = evaluate(model, TOKENIZER, bundle, max_per_task=15)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(core, "world", partial(FakeWorld, rank, 3))
        shares.append(evaluate(model, TOKENIZER, bundle, max_per_task=15))
    for kind in core.FIELDS:
        assert sum(share[kind]["correct"] for share in shares) == alone[kind]["correct"]


def test_truncation_default_is_what_the_model_can_tell_apart(bundle):
    model = tiny_gpt(sequence_len=2)                # a rotary table of 20 positions; texts are longer
    assert evaluate(model, TOKENIZER, bundle, 4) == evaluate(model, TOKENIZER, bundle, 4, max_len=20)


def test_training_mode_comes_back(bundle):
    model = tiny_gpt().train()
    evaluate(model, TOKENIZER, bundle, 2)
    assert model.training


def test_csv_has_the_bundles_own_layout():
    results = {"copa": {"accuracy": 0.6, "centered": 0.2}, "core": 0.2}
    assert as_csv(results).splitlines() == [
        "Task                               , Accuracy  , Centered  ",
        "copa                               , 0.600000  , 0.200000  ",
        "CORE                               ,           , 0.200000  ",
    ]


# -- bad bundles ------------------------------------------------------------------------------------------------------

def test_bad_bundles_are_named_in_one_line(bundle):
    with pytest.raises(UserError, match="core.yaml is missing"):
        read_bundle(bundle / "eval_data")
    data = bundle / "eval_data" / "schema.jsonl"
    data.write_text('{"context_options": ["a", "b"], "gold": 0}\n')
    with pytest.raises(UserError, match="schema.jsonl, line 1: no continuation"):
        read_items(read_bundle(bundle)[1])
    data.write_text("{broken\n")
    with pytest.raises(UserError, match="line 1: no JSON object"):
        read_items(read_bundle(bundle)[1])
    data.unlink()
    with pytest.raises(UserError, match="schema.jsonl is missing"):
        read_bundle(bundle)
    (bundle / "core.yaml").write_text("icl_tasks: [{label: x}]")
    with pytest.raises(UserError, match="cannot read its tasks"):
        read_bundle(bundle)
