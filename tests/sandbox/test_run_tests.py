"""A verdict on an answer is what the tests say, computed where the answer cannot reach."""

import math
from collections import Counter, OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.sandbox import run_tests
from nanochat.sandbox.helper import helper
from nanochat.sandbox.inside import values

# That forged answers fail is in attacks.py, which test_attacks.py runs.


def test_an_honest_answer_passes_and_a_wrong_one_fails():
    tests = "assert root(9) == 3\nassert root(16) == 4"
    assert run_tests("print('hi')\ndef root(x): return x ** 0.5", tests, ["root"]) == \
        run_tests("print('hi')\ndef root(x): return math.sqrt(x)\nimport math", tests, ["root"])
    verdict = run_tests("print('hi')\ndef root(x): return x ** 0.5", tests, ["root"])
    assert (verdict.ok, verdict.why, verdict.stdout) == (True, "", "hi\n")
    assert run_tests("def root(x): return x / 3", tests, ["root"]).why == "error: AssertionError"


@pytest.mark.parametrize("answer, why", [
    ("def f(:", "error: SyntaxError: invalid syntax (answer.py, line 1)"),
    ("1/0", "error: ZeroDivisionError: division by zero"),
    ("", "error: NameError: name 'f' is not defined"),
    ("f = 3", "error: TypeError: 'int' object is not callable"),
    ("def f(x): return undefined", "error: NameError: name 'undefined' is not defined"),
    ("def f(x): return f", "error: Unplain: an object of type function cannot cross"),
    ("def f(x): raise SystemExit(0)", "error: SystemExit: 0"),
    ("import os\ndef f(x): os._exit(0)", "error: EOFError: the program ended before it answered"),
    ("def f(x): return [0] * 10**12", "memory"),
    ("def f(x):\n  while True: pass", "timeout"),
    ("def f(x):\n  while True: print('x' * 1000)", "output"),
])  # fmt: skip
def test_why_it_failed_is_named(answer, why):
    assert run_tests(answer, "f(1)", ["f"], timeout=0.7 if why == "timeout" else 10).why == why


def test_only_the_end_of_the_tests_is_a_pass():
    answer = "def f(x): return x"
    assert run_tests(answer, "f(1)\nimport sys; sys.exit(0)", ["f"]).why == "exit 0 before the tests ended"
    assert run_tests(answer, "f(1)\nimport os; os._exit(0)", ["f"]).why == "exit 0 before the tests ended"
    assert run_tests(answer, "f(", ["f"]).why.startswith("error: SyntaxError")
    assert not run_tests(answer, "while True: f(1)", ["f"], timeout=0.5).ok
    ends = "def f(x): raise StopIteration"
    assert run_tests(ends, "assert all(map(lambda x: f(x) == x, range(5)))", ["f"]).why == "error: StopIteration"


def test_values_of_every_plain_type_cross_both_ways():
    tests = """
import math
for value in (None, True, 0, -1, 10**40, 1.5, -0.0, float('inf'), 1j, '', 'ü\\ud800\\n', b'\\0\\xff', [], [[1], (2,)], (), (1, 'a'),
              {1, 2}, frozenset('ab'), {}, {1: [2], (3, 4): {'x': None}}, [[[[[[]]]]]]):
    got = echo(value)
    assert got == value and type(got) is type(value) and repr(got) == repr(value), value
assert math.isnan(echo(float('nan'))) and echo(echo(1), more=2) == (1, 2)
"""
    answer = "def echo(value, more=None): return value if more is None else (value, more)"
    assert run_tests(answer, tests, ["echo"]).why == ""


def test_errors_that_tests_expect_and_helpers_they_need():
    tests = ("try: half(3)\nexcept ValueError as e: assert str(e) == 'odd'\nelse: assert False\n"
             "assert twice(half(8)) == 8 and name() == 'answer'\nl = [3]\nfirst(l)\nassert l == [3]")
    answer = ("def half(x):\n  if x % 2: raise ValueError('odd')\n  return x // 2\n"
              "def twice(x): return 0\ndef name(): return 'answer'\ndef first(l): return l.pop()")
    assert run_tests(answer, tests, ["half", "name", "first"], setup="def twice(x): return 2 * x").why == ""


def test_the_answer_keeps_its_state_between_calls():
    answer = "seen = []\ndef f(x):\n  seen.append(x)\n  return len(seen)"
    assert run_tests(answer, "assert [f(0), f(0), f(0)] == [1, 2, 3]", ["f"]).ok


def test_many_at_once_with_one_helper():
    pid = helper().process.pid
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda i: run_tests(f"def f(): return {i}", f"assert f() == {i}", ["f"], timeout=60), range(150)))
    assert {verdict.why for verdict in verdicts} == {""} and helper().process.pid == pid


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
              st.complex_numbers(allow_nan=False), st.frozensets(st.integers())),
    lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.text(), inner)), max_leaves=20)


@given(plain)
def test_what_is_encoded_is_decoded(value):
    data = values.json.loads(values.json.dumps(values.encode(value)))
    assert values.decode(data) == value and type(values.decode(data)) is type(value)


@given(st.recursive(st.one_of(st.none(), st.integers(), st.text(), st.sampled_from([*values.ROWS, "dict", "complex", "bytes"])),
                    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=10))
def test_whatever_arrives_is_a_plain_value_or_refused(data):
    try:
        value = values.decode(data)
    except values.Unplain:
        return
    assert type(value) in (*values.PLAIN, *values.ROWS.values(), dict, complex, bytes)


def test_what_cannot_cross():
    class Odd(int):
        pass

    loop: list = []
    loop.append(loop)
    for value in (object(), Odd(1), len, loop, (i for i in "a"), range(3), [Odd(1)], {Odd(1): 1}, type, math):
        with pytest.raises(values.Unplain):
            values.encode(value)
    for value in (Counter("aab"), defaultdict(int, a=2, b=1), OrderedDict(a=2, b=1)):
        assert type(values.decode(values.encode(value))) is dict and values.decode(values.encode(value)) == {"a": 2, "b": 1}
