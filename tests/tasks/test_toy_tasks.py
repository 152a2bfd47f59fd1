"""The toy world's tasks: what is read, what counts as right, and what guessing would get."""

from types import SimpleNamespace

import pytest

from nanochat.data import write_world
from nanochat.runtime import UserError
from nanochat.sandbox import run_tests
from nanochat.tasks import load_task, parts_of, toy


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = write_world(tmp_path_factory.mktemp("world") / "data", seed=0, scale="smoke")
    return lambda name, split="test": load_task(name, split, world_folder=folder)


def said(content, finish_reason="stop"):
    """A completion object."""
    return SimpleNamespace(parts=parts_of(content), finish_reason=finish_reason)


def call(text, result, words):
    types = ("python", "python_output", "text")
    return [{"type": kind, "text": part} for kind, part in zip(types, (text, result, words))]


CHECKED = [name for name in toy.NAMES if name not in ("toy-facts", "toy-sums", "toy-chats", "toy-functions")]


@pytest.mark.parametrize("name", CHECKED)
def test_the_reference_is_right_and_another_answer_is_wrong(load, name):
    task = load(name)
    for i in range(0, len(task), 37):
        item = task[i]
        right = item["messages"][-1]["content"] if task.kind == "chat" else item["answer"]
        assert task.check(item, said(right))
        assert task.reward(item, said(right)) == 1.0
        for wrong in ("", "nothing.", "In Atlantis.", "-1."):
            assert not task.check(item, said(wrong))


@pytest.mark.parametrize(("name", "items"), [
    ("toy-cloze", 240), ("toy-addition", 300), ("toy-qa-seen", 240), ("toy-qa-heldout", 240), ("toy-tool", 300),
    ("toy-free", 300), ("toy-chat-sums", 300)])
def test_the_tests_have_the_sizes_of_the_recipe(load, name, items):
    assert len(load(name)) == items


def test_a_cloze_is_right_up_to_its_period_and_a_sum_up_to_its_line(load):
    cloze, addition = load("toy-cloze"), load("toy-addition")
    item = {"text": "Juna lives in", "answer": " Oslo."}
    assert cloze.check(item, " Oslo. Juna is a miner.") and cloze.check(item, " Oslo.")
    assert not cloze.check(item, " Oslo") and not cloze.check(item, " Oslos.") and not cloze.check(item, " Rome. Oslo.")
    item = {"text": "17+25=", "answer": "42"}
    assert addition.check(item, "42\n3+4=7") and addition.check(item, "42")
    assert not addition.check(item, "420\n") and not addition.check(item, "4") and not addition.check(item, "\n42")


def test_a_tool_answer_counts_only_through_a_right_call(load):
    tool, free = load("toy-tool"), load("toy-free")
    reference = {"role": "assistant", "content": call("34*57", "1938", "1938.")}
    item = {"messages": [{"role": "user", "content": "What is 34*57?"}, reference]}
    through, direct = said(call("57*34", "1938", "1938.")), said("1938.")
    assert tool.check(item, through) and free.check(item, through)
    assert not tool.check(item, direct) and free.check(item, direct)
    assert not tool.check(item, "1938.") and free.check(item, "1938.")
    for broken in (said(call("34*56", "1904", "1904.")), said(call("34*57", "1938", "1939.")),
                   said(call("34*57", "1938", "")), said(call("34*57", "1938", "1938."), finish_reason="length")):
        assert not tool.check(item, broken) and not free.check(item, broken)
    assert not tool.check(item, said(call("34*56", "1904", "1938.")))


def test_baselines_are_what_a_constant_answer_gets(load):
    for name in ("toy-chat-sums", "toy-addition", "toy-free"):
        task = load(name)
        answers = [item.get("answer") or parts_of(item["messages"][-1]["content"])[-1]["text"] for item in task]
        best = max(sum(task.check(item, answer) for item in task) for answer in set(answers))
        assert task.baseline == pytest.approx(best / len(task))
    assert load("toy-cloze").baseline == pytest.approx(1 / 12)
    assert 1 / 12 <= load("toy-qa-heldout").baseline < 0.25 and load("toy-choices").baseline == 0.25
    assert load("toy-tool").baseline == 0


def test_documents_are_texts_and_prompts_end_with_the_question(load):
    assert all(set(item) == {"text"} for item in load("toy-facts", "train"))
    task = load("toy-qa-heldout")
    assert [message["role"] for message in task.prompt(3)["messages"]] == ["user"]
    assert load("toy-addition").prompt(0) == {"text": load("toy-addition")[0]["text"]}


def test_functions_carry_tests_that_their_solutions_pass(load):
    task = load("toy-functions")
    solutions = [(item, item["messages"][-1]["content"]) for item in task]
    assert all(run_tests(**task.submission(item, solution)).ok for item, solution in solutions)
    item, solution = solutions[0]
    assert run_tests(**task.submission(item, solution.replace("return", "return 1000 +"))).why == "error: AssertionError"


def test_mistakes_are_one_line(load, tmp_path):
    for call, message in (
        (lambda: load("toy-qa", "dev"), "toy-qa has no split 'dev'; it has train and test"),
        (lambda: load_task("toy-qa"), "say where it is with world_folder"),
        (lambda: load_task("toy-qa", world_folder=tmp_path), "no toy world at"),
        (lambda: load_task("toy-qa", world_folder=tmp_path, size=3), "the task toy-qa has no option size"),
        (lambda: load_task("toyqa"), "unknown task 'toyqa'; there are smoltalk, mmlu"),
    ):
        with pytest.raises(UserError, match=message):
            call()
