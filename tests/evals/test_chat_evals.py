"""Chat and completion evaluations with models that answer by rule, and the log they leave."""

import json
from functools import partial

import pytest
import torch
from scripted import ByteTokenizer, FakeWorld, Scripted, knows, pseudo_random

from nanochat.engine import Engine
from nanochat.evals import chatcore, evaluate_completion, evaluate_task, items
from nanochat.runtime import UserError
from nanochat.tasks import Task

TOKENIZER = ByteTokenizer()
END = TOKENIZER.special["<|assistant_end|>"]


class Quiz(Task):
    """Questions with one right answer each."""

    name, eval_type, max_tokens = "quiz", "generative", 12

    def __init__(self, pairs, eval_type="generative", baseline=0.0):
        self.pairs, self.eval_type, self.baseline = pairs, eval_type, baseline

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        question, answer = self.pairs[i]
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    def check(self, item, completion):
        return getattr(completion, "text", completion) == item["messages"][-1]["content"]

    def letters(self, item):
        return ["A", "B", "C", "D"]

    def submission(self, item, completion):
        return {"answer": f"def f(): return {completion.text}", "functions": ["f"], "setup": "",
                "tests": f"assert f() == {item['messages'][-1]['content']}"}


class Lines(Task):
    """Texts to be continued."""

    name, kind, eval_type, max_tokens = "lines", "text", "generative", 5

    def __getitem__(self, i):
        return {"text": f"{i}+{i}=", "answer": f"{2 * i}\n"}

    def __len__(self):
        return 20

    def check(self, item, completion):
        return completion.text.startswith(item["answer"])


def answers(quiz, words):
    """A model that answers question i with words[i] and then ends."""
    return Engine(Scripted(knows([[*TOKENIZER.render_for_completion(quiz.prompt(i)), *TOKENIZER.encode(word), END]
                                  for i, word in enumerate(words)])), TOKENIZER)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


SUMS = Quiz([(f"{i}+{i}?", str(2 * i)) for i in range(10)])


def test_generated_answers_are_judged_by_the_task(tmp_path):
    words = [str(2 * i) if i != 3 else "7" for i in range(10)]
    words[5] = "10 and so on for ever"                       # longer than the twelve tokens allowed
    card = evaluate_task(answers(SUMS, words), SUMS, log=tmp_path / "quiz.jsonl")
    assert (card["accuracy"], card["n"], card["chance"]) == (0.8, 10, 0.0)
    assert card["interval"][0] < 0.8 < card["interval"][1]
    log = read(tmp_path / "quiz.jsonl")
    assert [r["index"] for r in log] == list(range(10))
    assert [r["index"] for r in log if not r["correct"]] == [3, 5]
    assert (log[3]["prompt"], log[3]["expected"], log[3]["completion"]) == ("3+3?\n\n", "6", "7")
    assert log[3]["why"] == "not the expected answer" and log[5]["why"] == "no end within the tokens allowed"
    assert list(tmp_path.iterdir()) == [tmp_path / "quiz.jsonl"]


def test_a_kinder_rule_is_reported_beside_the_accuracy_and_in_the_log(tmp_path):
    class Kind(Quiz):
        def flexible(self, item, completion):
            return item["messages"][-1]["content"] in completion.text

    quiz = Kind([(f"{i}+{i}?", str(2 * i)) for i in range(5)])
    card = evaluate_task(answers(quiz, ["0", "is 2", "4", "x", "8!"]), quiz, log=tmp_path / "log.jsonl")
    assert (card["accuracy"], card["flexible"]) == (0.4, 0.8)
    log = read(tmp_path / "log.jsonl")
    assert [r["flexible"] for r in log] == [True, True, True, False, True]
    assert [r["why"] for r in log] == ["", "right but for the way it is written", "", "not the expected answer", "right but for the way it is written"]
    assert "flexible" not in evaluate_task(answers(SUMS, ["0"]), SUMS)


def test_max_items_takes_the_first():
    assert evaluate_task(answers(SUMS, ["0", "2", "x"]), SUMS, max_items=3)["accuracy"] == pytest.approx(2 / 3)


def test_a_prompt_without_room_for_an_answer_is_wrong_not_fatal(tmp_path):
    quiz = Quiz([("x" * 50, "1"), ("1?", "1")])
    engine = Engine(Scripted(knows([[*TOKENIZER.render_for_completion(quiz.prompt(1)), ord("1"), END]]), sequence_len=40), TOKENIZER)
    assert evaluate_task(engine, quiz, log=tmp_path / "log.jsonl")["accuracy"] == 0.5
    assert "54 tokens, the model's context 40" in read(tmp_path / "log.jsonl")[0]["why"]


def letters_quiz(n=24):
    return Quiz([(f"question {i}" * (1 + i % 3), "ABCD"[i % 4]) for i in range(n)], "categorical", 0.25)


def test_categorical_takes_the_likeliest_letter(tmp_path):
    quiz = letters_quiz()
    engine = Engine(Scripted(pseudo_random), TOKENIZER)
    evaluate_task(engine, quiz, log=tmp_path / "log.jsonl")
    for i, record in enumerate(read(tmp_path / "log.jsonl")):
        logits = pseudo_random(TOKENIZER.render_for_completion(quiz.prompt(i)))
        assert record["chosen"] == max("ABCD", key=lambda letter: logits[ord(letter)])
        assert record["correct"] == (record["chosen"] == "ABCD"[i % 4])
        assert sum(record["letters"].values()) == pytest.approx(1, abs=1e-3)


def test_categorical_needs_no_other_token_to_be_unlikely():
    """The model would rather say something else; among the letters it is right."""
    quiz = letters_quiz(8)

    def rule(ids):
        logits = pseudo_random(ids) * 0
        logits[ord("!")] = 9.0
        if ids[-1] == TOKENIZER.special["<|assistant_start|>"]:
            logits[ord("ABCD"[int(chr(ids[-4])) % 4])] = 5.0          # … "question 3", two newlines, assistant_start
        return logits

    assert evaluate_task(Engine(Scripted(rule), TOKENIZER), quiz)["centered"] == 1.0


@pytest.mark.parametrize("batch_size", [1, 5])
def test_categorical_does_not_depend_on_the_batch(batch_size):
    engine, quiz = Engine(Scripted(pseudo_random), TOKENIZER), letters_quiz()
    assert evaluate_task(engine, quiz, batch_size=batch_size) == evaluate_task(engine, quiz, batch_size=32)


def test_a_letter_of_two_tokens_is_refused():
    class Kana(Quiz):
        def letters(self, item):
            return ["ア", "イ"]

    with pytest.raises(UserError, match="must be one"):
        evaluate_task(Engine(Scripted(pseudo_random), TOKENIZER), Kana([("?", "ア")], "categorical"))


def test_code_runs_in_the_sandbox(tmp_path):
    quiz = Quiz([("six?", "6"), ("seven?", "7"), ("eight?", "8")], "code")
    card = evaluate_task(answers(quiz, ["2*3", "3+3", "8 8"]), quiz, log=tmp_path / "log.jsonl")
    assert card["accuracy"] == pytest.approx(1 / 3)
    right, wrong, broken = read(tmp_path / "log.jsonl")
    assert right["correct"] and right["why"] == ""
    assert "AssertionError" in wrong["why"] and wrong["program"] == "def f(): return 3+3"
    assert "SyntaxError" in broken["why"]


def test_a_training_task_is_refused():
    with pytest.raises(UserError, match="for training only"):
        evaluate_task(answers(SUMS, []), Quiz([], eval_type=None))


def test_completion_continues_the_bare_text():
    texts = [f"{i}+{i}={2 * i}\n" for i in range(20) if i != 4]
    card = evaluate_completion(Engine(Scripted(knows(texts)), TOKENIZER), Lines())
    assert (card["accuracy"], card["n"]) == (0.95, 20)


def test_chatcore_is_the_mean_of_centered_accuracies():
    assert chatcore({"a": {"centered": 0.5}, "b": {"centered": -0.1}}) == pytest.approx(0.2)
    with pytest.raises(ValueError):
        chatcore({})


# -- the log, killed and shared ---------------------------------------------------------------------------------------

class Counting:
    """A judge that finds even items right, keeps count, and can be killed."""

    def __init__(self, dies_at=None):
        self.judged, self.dies_at = [], dies_at

    def __call__(self, indices):
        if self.dies_at in indices:
            raise KeyboardInterrupt
        self.judged += indices
        return [{"correct": i % 2 == 0, "why": ""} for i in indices]


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "CHUNK", 3)
    task, log = Quiz([("", "")] * 20), tmp_path / "log.jsonl"
    first, second = Counting(dies_at=10), Counting()
    with pytest.raises(KeyboardInterrupt):
        items.judge_items(task, first, log=log, key="model 1")
    assert not log.exists() and first.judged == list(range(9))
    with open(next(tmp_path.glob(".*partial")), "a") as f:
        f.write('{"index": 9, "corr')                                  # the kill came in the middle of a line
    card = items.judge_items(task, second, log=log, key="model 1")
    assert second.judged == list(range(9, 20)) and card["correct"] == 10
    assert [r["index"] for r in read(log)] == list(range(20)) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("keys", [("model 1", "model 2"), (None, None)])
def test_another_models_records_are_never_taken_over(tmp_path, monkeypatch, keys):
    monkeypatch.setattr(items, "CHUNK", 3)
    task, log, second = Quiz([("", "")] * 8), tmp_path / "log.jsonl", Counting()
    with pytest.raises(KeyboardInterrupt):
        items.judge_items(task, Counting(dies_at=5), log=log, key=keys[0])
    items.judge_items(task, second, log=log, key=keys[1])
    assert second.judged == list(range(8))


def test_ranks_judge_every_item_once(monkeypatch):
    task, shares = Quiz([("", "")] * 11), [Counting() for _ in range(3)]
    correct = 0
    for rank, judge in enumerate(shares):
        monkeypatch.setattr(items, "world", partial(FakeWorld, rank, 3))
        correct += items.judge_items(task, judge)["correct"]
    assert sorted(i for judge in shares for i in judge.judged) == list(range(11)) and correct == 6
    assert [judge.judged[:2] for judge in shares] == [[0, 3], [1, 4], [2, 5]]


def test_evaluation_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    evaluate_task(answers(SUMS, ["0"]), SUMS)
    assert torch.equal(state, torch.random.get_rng_state())
