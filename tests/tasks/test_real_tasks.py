"""The public data sets' tasks on a mirror of a few rows made here: prompts, answers, and what counts as right."""

import json
import string
import subprocess
import sys
import zipfile
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.runtime import UserError
from nanochat.sandbox import calculate
from nanochat.tasks import load_task, parts_of, spelling, split_calls, task_names
from nanochat.tasks.real import final_number, first_code_block, last_number, plain_number

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
WORDS = ["".join(string.ascii_lowercase[i // 26 ** k % 26] for k in range(4)) for i in range(12_000)]
HEAD = 'from math import floor\n\ndef half(x):\n    """Half of x, rounded down."""\n'


@pytest.fixture(autouse=True)
def mirror(tmp_path, monkeypatch):
    import datasets

    def write(name, **columns):
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)

    for split in ("train", "test"):
        write(f"allenai/ai2_arc/ARC-Challenge/{'test' if split == 'test' else 'validation'}-0.parquet", id=["3"],
              question=["Which is cold?"], choices=[{"text": ["ice", "fire"], "label": ["A", "B"]}], answerKey=["A"])
        write(f"HuggingFaceTB/smol-smoltalk/data/{split}-0.parquet", messages=[
            [{"role": "system", "content": "Be brief."}, *CHAT], CHAT, CHAT + CHAT], source=["a", "b", "c"])
        write(f"allenai/ai2_arc/ARC-Easy/{split}-0.parquet", id=["1", "2"], question=["Which is wet?", "Which is hot?"],
              choices=[{"text": ["sand", "rain", "stone"], "label": ["A", "B", "C"]},
                       {"text": ["ice", "fire"], "label": ["1", "2"]}], answerKey=["B", "2"])
        write(f"openai/gsm8k/main/{split}-0.parquet", question=["How many?"] * 40,
              answer=[f"She has 3*{i}=<<3*{i}={3 * i}>>{3 * i}.\n#### {3000 * i:,}" for i in range(40)])
    for split in ("auxiliary_train", "test", "validation", "dev"):
        write(f"cais/mmlu/all/{split}-0.parquet", question=["Two and two?"], subject=["sums"],
              choices=[["1", "2", "3", "4"]], answer=[3])
    write("openai/openai_humaneval/openai_humaneval/test-0.parquet", task_id=["HumanEval/0"], prompt=[HEAD],
          canonical_solution=["    return floor(x / 2)\n"], entry_point=["half"],
          test=["def check(candidate):\n    assert candidate(5) == 2\n"])
    (tmp_path / "hub/openai/openai_humaneval/README.md").write_text(
        "---\nconfigs:\n- config_name: openai_humaneval\n  data_files:\n"
        "  - split: test\n    path: openai_humaneval/test-*\n---\n")
    (tmp_path / "hub/extras").mkdir()
    with zipfile.ZipFile(tmp_path / "hub/extras/words_alpha.zip", "w") as archive:
        archive.writestr("words_alpha.txt", "\r\n".join(WORDS))
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    spelling.words.cache_clear()
    yield tmp_path / "hub"
    spelling.words.cache_clear()


def test_every_real_task_loads_and_its_reference_is_right(mirror):
    for name in (name for name in task_names() if not name.startswith("toy-")):
        task = load_task(name, "test", **({"size": 20} if name.startswith("spelling") else {}))
        assert task.name == name and len(task) > 0
        for item in task:
            roles = [message["role"] for message in item["messages"]]
            assert roles[-1] == "assistant" and roles.count("user") == roles.count("assistant")
            if task.eval_type in ("generative", "categorical"):
                assert task.check(item, item["messages"][-1]["content"])
                assert not task.check(item, "no idea")
        assert task.prompt(0)["messages"] == task[0]["messages"][:-1]


def test_a_multiple_choice_question_has_the_letter_right_after_the_option():
    item = load_task("mmlu", "test")[0]
    assert item["messages"][0]["content"] == ("Multiple Choice question: Two and two?\n- 1=A\n- 2=B\n- 3=C\n- 4=D\n\n"
                                              "Answer with the letter only.")
    assert item["messages"][1]["content"] == "D" and item["letters"] == ["A", "B", "C", "D"]


def test_arc_keeps_the_labels_of_the_data():
    task = load_task("arc-easy", "test")
    found = {item["messages"][1]["content"]: task.letters(item) for item in task}
    assert found == {"B": ["A", "B", "C"], "2": ["1", "2"]}


@pytest.mark.parametrize("expression", ["10*2.00", "5*2.50", "30*.10", "1,000+36.50", "7/2", "100*10", "3-3", "2-5", ".5*.5"])
def test_gsm8k_notes_hold_what_the_calculator_writes(expression):
    wanted = calculate(expression)
    assert {plain_number(f"{float(wanted):.2f}"), plain_number(f"{float(wanted):,.3f}"), plain_number(wanted)} == {wanted}
    assert plain_number("nothing") == "nothing" and plain_number("inf") == "inf"


def test_gsm8k_notes_become_tool_calls_and_the_number_after_the_hashes_decides():
    task = load_task("gsm8k", "train")
    item = next(item for item in task if "3*3=" in str(item))
    assert item["messages"][1]["content"] == [
        {"type": "text", "text": "She has 3*3="},
        {"type": "python", "text": "3*3"},
        {"type": "python_output", "text": "9"},
        {"type": "text", "text": "9.\n#### 9,000"}]
    for completion, right in (("so #### 9000", True), ("#### 9,000", True), ("9000", False), ("#### 9000.0", False),
                              ("#### 9000.", False), ("#### 90001", False)):
        assert task.check(item, completion) is right
    parts = [{"type": "python_output", "text": "#### 1"}, {"type": "text", "text": "#### 9000"}]
    assert task.check(item, SimpleNamespace(parts=parts))


@pytest.mark.parametrize(("text", "strict", "number"), [
    ("#### 18", "18", 18), ("#### -12", "-12", -12), ("#### 1,234.5", "1234.5", 1234.5), ("#### 12,345,678", "12345678", 12345678),
    # what the published rule does not take, and a person would
    ("#### 18.", "18.", 18), ("#### 18.00", "18.00", 18), ("#### $18", None, 18), ("####18", None, 18), ("#### -$5", None, -5),
    ("####  18", None, 18), ("#### £1,200 a year", None, 1200), ("#### .5", ".5", 0.5), ("#### −4", None, -4),
    # units behind the number, other numbers before it
    ("3 and 4 make 7\n#### 7", "7", 7), ("#### 18 dollars for 3 days", "18", 18), ("#### 50%", "50", 50), ("#### 3kg", "3", 3),
    # no mark: the last number of the text
    ("She makes 18 dollars.", None, 18), ("It costs $1,250.", None, 1250), ("7-3=4", None, 4), ("so 7-3", None, 3), ("x = -3.5!", None, -3.5),
    ("boxes: 1, 2, 3", None, 3), ("see H2O", None, None),
    # several marks: the published rule takes the first, the kinder one the last, for a model may correct itself
    ("#### 3\nNo, wait.\n#### 4", "3", 4), ("It is 36. ####", None, 36), ("#### none", None, None), ("#### ?\n", None, None),
    ("", None, None), ("I do not know.", None, None), ("٣", None, None), ("-", None, None), ("#### ,", ",", None), ("#### .", ".", None),
])
def test_how_an_answer_is_read(text, strict, number):
    assert (final_number(text) or None) == (strict.replace(",", "") or None if strict else None)
    assert last_number(text) == (None if number is None else Decimal(str(number)))


@given(st.text(st.sampled_from("#0123456789.,-−$ \nx"), max_size=40))
def test_reading_an_answer_never_fails(text):
    assert last_number(text) is None or last_number(text).is_finite()


def test_gsm8k_has_a_kinder_rule_beside_the_published_one():
    task = load_task("gsm8k", "train")
    item = next(item for item in task if "3*3=" in str(item))                                       # 9,000
    for completion in ("so #### 9000", "9000", "#### 9000.0", "#### 9000.", "It is $9,000."):
        assert task.flexible(item, completion)
    for completion in ("#### 90001", "9000 or 9001", "", "#### 1\n"):
        assert not task.flexible(item, completion)
    parts = [{"type": "text", "text": "no"}, {"type": "python_output", "text": "9000"}]                # a result is not an answer
    assert not task.flexible(item, SimpleNamespace(parts=parts))


plain = st.text(st.characters(exclude_characters="<>"), max_size=8)
words = plain.filter(bool)


terms = words.filter(lambda s: "=" not in s)


@given(st.lists(st.tuples(plain, terms, terms), min_size=1), plain)
def test_split_calls_takes_the_notes_apart(calls, end):
    text = "".join(f"{before}<<{call}={result}>>" for before, call, result in calls) + end
    parts = split_calls(text)
    assert "".join(p["text"] for p in parts if p["type"] == "text") == "".join(before for before, _, _ in calls) + end
    assert [p["text"] for p in parts if p["type"] == "python"] == [call for _, call, _ in calls]
    assert [p["text"] for p in parts if p["type"] == "python_output"] == [result for _, _, result in calls]
    assert all(p["text"] for p in parts)


def test_split_calls_leaves_other_text_alone_and_splits_at_the_last_equals_sign():
    assert split_calls("1 < 2 and 3 > 2") == "1 < 2 and 3 > 2"
    assert split_calls("<<x=3=3>>") == [{"type": "python", "text": "x=3"}, {"type": "python_output", "text": "3"}]


def test_a_humaneval_program_runs_the_answer_against_the_tests():
    task = load_task("humaneval", "test")
    item = task[0]
    body = "def half(x):\n    return floor(x / 2)"  # without the import: it is taken from the prompt
    fenced = f"Sure:\n```python\n{body}\n```\nDone."
    for answer, exit_code in ((body, 0), (fenced, 0), (body.replace("2", "3"), 1), ("no", 1)):
        parts = task.submission(item, answer)
        assert parts["functions"] == ["half"]
        program = "\n".join(parts[part] for part in ("setup", "answer", "tests"))
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
        assert run.returncode == exit_code


@pytest.mark.parametrize(("text", "code"), [
    ("a = 1", "a = 1"), ("```python\na = 1\n```", "a = 1"), ("x\n```\na\nb\n```\n```\nc\n```", "a\nb"),
    ("```py\na", "a"), ("```python3\na\n```\nDone.", "a"), ("```Python\na\n```", "a"), ("Sure: ``` python \na\n``` That is it", "a"),
    ("```python\r\na\r\n```", "a\r"), ("1. so:\n   ```python\n   a\n   ```\n2. b", "   a"), ("```python\n\na\n\n```", "\na\n"),
    ('```\ndef f():\n    """Use ```x``` so."""\n    return 1\n```', 'def f():\n    """Use ```x``` so."""\n    return 1'),
    ("```python\n```", ""), ("```a = 1```", "```a = 1```"), ("no code, only `a = 1`", "no code, only `a = 1`"), ("", "")])
def test_first_code_block(text, code):
    assert first_code_block(text) == code


def test_the_order_is_fixed_and_can_be_cut():
    def asked(**cut):
        return [str(item) for item in load_task("gsm8k", "train", **cut)]

    assert asked() == asked() == asked(stop=10) + asked(start=10)
    assert asked() != sorted(asked())


def test_spelling_test_words_are_never_trained_on():
    train, test = spelling.words()
    assert len(test) == 5_000 and not set(train) & set(test) and sorted(train + test) == sorted(WORDS)
    seen = {item["messages"][1]["content"].split(":")[0] for item in load_task("spelling", "train", size=300)}
    assert seen <= set(train)


def test_spelling_bee_counts_as_python_does():
    for item in load_task("spelling-bee", "test", size=60):
        text, call, result, final = parts_of(item["messages"][1]["content"])
        assert call["type"] == "python" and str(eval(call["text"], {"__builtins__": {}})) == result["text"]
        assert final["text"].endswith(f"#### {result['text']}") and f"By hand I count {result['text']}." in text["text"]
    with pytest.raises(IndexError):
        load_task("spelling-bee", "test", size=5)[5]


def test_identity_knows_a_file_of_ones_own(tmp_path):
    path = tmp_path / "me.jsonl"
    path.write_text("\n".join(json.dumps(CHAT) for _ in range(20)))
    assert (len(load_task("identity", "train", path=path)), len(load_task("identity", "test", path=path))) == (18, 2)
    names = " ".join(str(item) for item in load_task("identity", "train"))
    assert "nanochat" in names and len(load_task("identity", "train")) > 100
    path.write_text(json.dumps(CHAT) + "\n" + json.dumps(CHAT[:1]))
    with pytest.raises(UserError, match=r"me.jsonl, line 2: roles must alternate"):
        load_task("identity", "train", path=path)
    path.write_text("not json")
    with pytest.raises(UserError, match=r"me.jsonl, line 1: not a JSON list"):
        load_task("identity", "train", path=path)
    with pytest.raises(UserError, match="no identity conversations at"):
        load_task("identity", "train", path=tmp_path / "absent.jsonl")


def test_a_conversation_out_of_turn_is_refused(mirror):
    path = mirror / "HuggingFaceTB/smol-smoltalk/data/train-0.parquet"
    pq.write_table(pa.table({"messages": [[CHAT[1], CHAT[0]]]}), path)
    with pytest.raises(UserError, match="smol-smoltalk: roles must alternate user, assistant; found assistant, user"):
        load_task("smoltalk", "train")[0]


@pytest.mark.parametrize(("name", "split", "options", "message"), [
    ("mmlu", "tset", {}, "mmlu has no split 'tset'; it has train, test, validation, dev"),
    ("humaneval", "train", {}, "humaneval has no split 'train'; it has test"),
    ("spelling", "dev", {}, "spelling has no split 'dev'"),
    ("identity", "dev", {}, "identity has no split 'dev'"),
    ("gsm8k", "train", {"sise": 1}, "the task gsm8k has no option sise"),
    ("arc-challenge", "train", {}, r"allenai/ai2_arc \(ARC-Challenge\), split train, is not in the mirror"),
])
def test_mistakes_are_one_line(name, split, options, message):
    with pytest.raises(UserError, match=message):
        load_task(name, split, **options)
