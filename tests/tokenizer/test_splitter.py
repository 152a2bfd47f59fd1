"""rustbpe's hand-written splitter cuts as the `regex` package does with the same pattern."""

import runpy
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken_ext.openai_public
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_text import texts

import rustbpe
from nanochat.tokenizer import SPLIT_PATTERN
from nanochat.tokenizer.bpe import GPT2_SPLIT_PATTERN, GPT4_SPLIT_PATTERN

pytestmark = pytest.mark.filterwarnings("ignore:this split pattern goes to a regex engine")

CL100K = (  # as tiktoken writes it
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
PATTERNS = {
    "nanochat": SPLIT_PATTERN(2),
    "digit by digit": SPLIT_PATTERN(1),
    "gpt4": GPT4_SPLIT_PATTERN,
    "cl100k": CL100K,
    "gpt2, by the regex engine": GPT2_SPLIT_PATTERN,
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_splits_as_the_regex_package_does(pattern, text):
    chunks = rustbpe.split(text, pattern)
    assert chunks == [match.group() for match in regex.finditer(pattern, text)]
    assert "".join(chunks) == text


ASCII = ["a", "Word", "don't", "'s", "'LL", "'", "12", "12345678", ".", "...", "<|", "é", "中"]
ASCII += [" ", "  ", "\t", "\n", "\r\n", " \n ", "\n    "]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.tuples(st.sampled_from(ASCII), st.integers(1, 70)), max_size=12))
def test_splits_as_the_regex_package_does_where_64_bytes_are_read_at_once(pattern, pieces):
    # long runs cross the borders of the windows at every offset
    text = "".join(piece * (times if times > 50 else times % 4) for piece, times in pieces)
    assert rustbpe.split(text, pattern) == [match.group() for match in regex.finditer(pattern, text)]


@pytest.mark.parametrize("pattern", [SPLIT_PATTERN(2), CL100K], ids=["nanochat", "cl100k"])
def test_a_run_of_any_length_is_cut_as_the_regex_package_cuts_it(pattern):
    for piece in (" ", "\n", "\t", " \n", "a", "1", ".", "'", "'s", "don't ", ".\n"):
        for length in range(1, 140):
            for end in ("", "x", " x", "7", "!", "\n", "é"):
                text = piece * length + end
                assert rustbpe.split(text, pattern) == regex.findall(pattern, text)


@pytest.mark.parametrize("pattern", [SPLIT_PATTERN(2), CL100K], ids=["nanochat", "cl100k"])
def test_every_character_of_unicode_is_of_the_class_that_regex_says(pattern):
    # those assigned long ago, for the two libraries follow Unicode at their own pace
    old = [c for c in map(chr, range(0x110000)) if unicodedata.ucd_3_2_0.category(c) not in ("Cn", "Cs")]
    assert len(old) > 90_000
    text = "".join(f"a{c}1{c} {c}" for c in old)
    assert rustbpe.split(text, pattern) == regex.findall(pattern, text)


def test_fuzz_finds_no_difference_and_would_tell(monkeypatch):
    fuzz = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fuzz_splitter.py"))
    assert fuzz["compare"]((0, 0)) == []
    assert fuzz["PATTERNS"]["cl100k"] == CL100K
    # were ours cl100k's for all of them, it would be seen
    monkeypatch.setattr(rustbpe, "split", lambda text, _: regex.findall(CL100K, text))
    assert {name for name, _ in fuzz["compare"]((0, 0))} == {"nanochat", "digit by digit"}


def test_cl100k_pattern_is_the_one_that_tiktoken_uses():
    constructor = tiktoken_ext.openai_public.cl100k_base
    assert CL100K in constructor.__code__.co_consts


def test_number_width_is_a_parameter():
    assert [rustbpe.split("1234567", SPLIT_PATTERN(n)) for n in (1, 2, 3)] == [
        ["1", "2", "3", "4", "5", "6", "7"],
        ["12", "34", "56", "7"],
        ["123", "456", "7"],
    ]


def test_default_pattern_is_nanochats():
    assert rustbpe.PATTERN == SPLIT_PATTERN(2)
    assert rustbpe.split("I'm 1234  ok") == ["I", "'m", " ", "12", "34", " ", " ok"]


def test_the_regex_engine_is_announced_once_and_only_where_it_is_used():
    program = "import rustbpe\n" + "".join(
        f"assert len(rustbpe.split('some text', {pattern!r})) == {chunks}\n"
        for pattern, chunks in [(rustbpe.PATTERN, 2), (CL100K, 2), (r"\S+", 2), (r"\S", 8)]
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("UserWarning: this split pattern goes to a regex engine") == 1
    assert ":4: UserWarning" in done.stderr


def test_a_bad_pattern_is_refused():
    with pytest.raises(ValueError, match="bad split pattern"):
        rustbpe.split("text", "(unclosed")


def test_a_pattern_whose_engine_gives_up_says_so():
    with pytest.raises(ValueError, match="split pattern failed"):
        rustbpe.split(" " * 3_000_000 + "x", r"(?:\s|\s\s)+(?!\S)x\b(?<=y)")
