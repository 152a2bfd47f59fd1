"""A call closed by the model is answered by the tool, in tokens the model did not choose."""

import pytest

from nanochat.engine import Engine, calculator, python
from nanochat.engine.tools import MAX_CALLS


@pytest.fixture
def call(tokenizer):
    s = tokenizer.special

    def ids(text):
        return [s["<|python_start|>"], *text.encode(), s["<|python_end|>"]]

    return ids


def output(tokenizer, text):
    s = tokenizer.special
    return [s["<|output_start|>"], *text.encode(), s["<|output_end|>"]]


def test_the_result_is_forced_and_masked_out(scripted, tokenizer, call):
    end = tokenizer.special["<|assistant_end|>"]
    model = scripted([*call("34*57"), *b"ok", end])
    ((answer,),) = Engine(model, tokenizer).generate([[256, 259]], temperature=0)
    forced = output(tokenizer, "1938")
    assert answer.ids == [*call("34*57"), *forced, *b"ok", end]
    assert answer.mask == [1] * 7 + [0] * len(forced) + [1] * 3
    assert answer.text == "ok" and answer.finish_reason == "stop"
    assert [p["text"] for p in answer.parts] == ["34*57", "1938", "ok"]


def test_rows_of_a_batch_have_their_own_calls(scripted, tokenizer, call):
    end = tokenizer.special["<|assistant_end|>"]
    engine = Engine(scripted([*call("2+2"), *b"x", end]), tokenizer)
    prompts = [[259], [256, 1, 2, 259], [256, 259]]
    answers = engine.generate(prompts, num_samples=2, temperature=0)
    assert all(c.parts[1]["text"] == "4" and c.text == "x" for group in answers for c in group)
    assert answers[1][0] == engine.generate([prompts[1]], temperature=0)[0][0]


def test_without_a_result_or_without_tools_nothing_is_forced(scripted, tokenizer, call):
    end = tokenizer.special["<|assistant_end|>"]
    ids = [*call("import os"), *b"ok", end]
    for tools in (True, False, lambda text: None):
        ((answer,),) = Engine(scripted(ids), tokenizer).generate([[259]], temperature=0, tools=tools)
        assert answer.ids == ids and set(answer.mask) == {1}


def test_a_function_can_be_the_tool(scripted, tokenizer, call):
    model = scripted([*call("Paris"), tokenizer.bos])
    ((answer,),) = Engine(model, tokenizer).generate([[259]], temperature=0, tools=str.upper)
    assert answer.parts[1] == {"type": "python_output", "text": "PARIS"}


def test_a_result_is_cut_where_the_answer_must_end(scripted, tokenizer, call):
    model = scripted([*call("10**9"), tokenizer.bos])
    ((answer,),) = Engine(model, tokenizer).generate([[259]], temperature=0, max_tokens=10)
    assert len(answer.ids) == 10 and answer.finish_reason == "length" and answer.mask == [1] * 7 + [0] * 3


def test_an_answer_gets_a_limited_number_of_calls(scripted, tokenizer, call):
    calls = []
    model = scripted(call("1"), sequence_len=1000)
    engine = Engine(model, tokenizer)
    engine.generate([[259]], temperature=0, max_tokens=500, tools=lambda text: calls.append(text) or "")
    assert len(calls) == MAX_CALLS


def test_text_after_a_second_opening_is_the_call(scripted, tokenizer, call):
    model = scripted([*call("9")[:2], *call("5*5"), tokenizer.bos])
    ((answer,),) = Engine(model, tokenizer).generate([[259]], temperature=0)
    assert answer.parts[-1]["text"] == "25"


def test_calculator_computes_and_nothing_else():
    assert calculator("'strawberry'.count('r')") == "3"
    assert calculator("print(1)") is None


def test_python_shows_what_was_printed_or_the_value_or_the_error():
    assert python("3 * 4") == "12"
    assert python("sum(i * i for i in range(5))") == "30"
    assert python("'a', 'b'") == "('a', 'b')"
    assert python("x = 5\nprint(x + 1)") == "6"
    assert python("print('hi')") == "hi"
    assert python("x = 5") is None
    assert python("[][1]") == "error: IndexError: list index out of range"
    assert python("((") .startswith("error: SyntaxError")
