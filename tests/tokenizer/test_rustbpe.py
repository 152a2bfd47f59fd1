"""rustbpe's trainer equals the teaching one, its encoder equals tiktoken, and no text makes either slow or panic."""

import random
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_text import SCRIPTS, runs, texts

import rustbpe
from nanochat.tokenizer.bpe import GPT4_SPLIT_PATTERN, RegexTokenizer, recover_merges

pytestmark = pytest.mark.filterwarnings("ignore:this split pattern goes to a regex engine")
Rust = rustbpe.Tokenizer


def taught(texts: list[str], vocab_size: int, pattern: str) -> list[tuple[int, int]]:
    """The merges of the slow, obviously right trainer; as many as the texts yield."""
    teacher = RegexTokenizer(pattern)
    try:
        teacher._train([chunk.encode() for text in texts for chunk in teacher.split(text)], vocab_size, verbose=False)
    except ValueError:
        assert len(teacher.merges) < vocab_size - 256
    return list(teacher.merges)


# --- training


@settings(max_examples=300, deadline=None)
@given(st.lists(runs, max_size=4), st.integers(0, 40))
def test_merges_equal_the_teaching_tokenizers_on_runs_and_ties(texts, merges):
    expected = taught(texts, 256 + merges, rustbpe.PATTERN)
    assert Rust.train_from_iterator(texts, 256 + merges, threads=1).merges() == expected


@settings(max_examples=100, deadline=None)
@given(runs, st.integers(0, 60))
def test_merges_equal_the_teaching_tokenizers_without_a_split(text, merges):
    expected = taught([text], 256 + merges, r"(?s).+")
    assert Rust.train_from_iterator([text], 256 + merges, r"(?s).+", threads=1).merges() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=4))
def test_merges_equal_the_teaching_tokenizers_on_all_scripts(texts):
    expected = taught(texts, 276, rustbpe.PATTERN)
    assert Rust.train_from_iterator(texts, 276, threads=1).merges() == expected


def test_merges_equal_the_teaching_tokenizers_on_real_text(corpus):
    expected = taught([corpus], 400, GPT4_SPLIT_PATTERN)
    assert Rust.train_from_iterator([corpus], 400, GPT4_SPLIT_PATTERN, threads=1).merges() == expected


def test_any_number_of_threads_learns_the_same(corpus):
    lines = corpus.splitlines(keepends=True)
    one, two, four = (Rust.train_from_iterator(lines, 700, threads=n).merges() for n in (1, 2, 4))
    assert one == two == four


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(runs, texts), max_size=6), st.integers(2, 5))
def test_any_number_of_threads_learns_the_same_from_runs_and_ties(texts, threads):
    one, many = (Rust.train_from_iterator(texts, 300, threads=n).merges() for n in (1, threads))
    assert one == many


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 300))
def test_chunks_of_all_lengths_are_counted(lengths, times):
    # up to 15 bytes lie in the table itself, longer ones beside it
    texts = ["".join(chr(97 + i % 3) for i in range(length)) for length in lengths] * times
    expected = taught(texts[: len(lengths)], 280, r"(?s).+")
    assert Rust.train_from_iterator(texts, 280, r"(?s).+", threads=2).merges() == expected


def test_a_vocabulary_is_the_beginning_of_every_larger_one(corpus):
    # how many merges are wanted decides below which count pairs are not tracked; it must not decide the merges
    sizes = (256, 257, 260, 300, 700, 3000)
    merges = [Rust.train_from_iterator([corpus], size, threads=1).merges() for size in sizes]
    assert all(larger[: len(smaller)] == smaller for smaller, larger in pairwise(merges))
    assert [len(some) for some in merges[:5]] == [size - 256 for size in sizes[:5]]


def test_texts_do_not_merge_with_each_other():
    assert Rust.train_from_iterator(["a", "b"] * 50, 300).merges() == []


def test_training_ends_early_when_nothing_is_left_to_merge():
    assert Rust.train_from_iterator(["abc"], 300).vocab_size == 258


def test_progress_is_told_and_may_stop_the_training(corpus):
    heard = []
    Rust.train_from_iterator([corpus], 300, progress=lambda *news: heard.append(news))
    assert heard[-1] == ("merge", 44, 44)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Rust.train_from_iterator([corpus], 300, progress=interrupt)


def test_progress_is_told_ten_times_a_second_at_most():
    begin, heard = time.monotonic(), []

    def texts():  # each is a batch of its own, and training asks for the next as soon as it can
        while time.monotonic() < begin + 0.45:
            yield "some words " * 100_000

    Rust.train_from_iterator(texts(), 260, progress=lambda *news: heard.append(news))
    *rest, last = heard
    assert last == ("merge", 4, 4)
    assert 1 <= len(rest) <= (time.monotonic() - begin) * 10
    assert {stage for stage, *_ in rest} == {"count"}


INTERRUPTED = """
import os, random, signal, sys, threading
import rustbpe

stage, threads = sys.argv[1], int(sys.argv[2])
soon = lambda: threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
dice = random.Random(0)
words = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz      ", k=3_000_000)).split()

def texts():
    if stage == "merge":
        yield " ".join(words)
    while stage == "count":                     # there is no end to these
        yield "a few words"

started = []
def progress(now, done, total):
    assert done != total, "training came to its end"
    if now == stage and not started:
        started.append(soon())

try:
    rustbpe.Tokenizer.train_from_iterator(texts(), 400_000, threads=threads, progress=progress)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stage", ["count", "merge"])
def test_ctrl_c_ends_the_training(stage, threads):
    command = [sys.executable, "-c", INTERRUPTED, stage, str(threads)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_what_is_not_a_list_of_strings_is_refused():
    with pytest.raises(TypeError, match="text 1 is .*int"):
        Rust.train_from_iterator(["a", 1], 300)
    with pytest.raises(TypeError, match="one string"):
        Rust.train_from_iterator("text", 300)
    with pytest.raises(ValueError, match="vocab_size"):
        Rust.train_from_iterator(["a"], 255)


# --- encoding and decoding


@pytest.fixture(scope="module")
def rust(corpus) -> rustbpe.Tokenizer:
    return Rust.train_from_iterator([corpus], 1000, threads=1)


@pytest.fixture(scope="module")
def oracle(rust) -> tiktoken.Encoding:
    return tiktoken.Encoding("oracle", pat_str=rust.pattern, mergeable_ranks=rust.mergeable_ranks(), special_tokens={})


@settings(max_examples=500, deadline=None)
@given(text=texts)
def test_ids_equal_tiktokens_and_decode_back(rust, oracle, text):
    ids = rust.encode(text)
    assert ids == oracle.encode_ordinary(text)
    assert rust.decode(ids) == text


def test_ids_of_real_text_equal_tiktokens_and_the_teaching_tokenizers(rust, oracle, corpus):
    teacher = RegexTokenizer(rust.pattern)
    teacher.merges = {pair: 256 + i for i, pair in enumerate(rust.merges())}
    ids = rust.encode(corpus)
    assert ids == oracle.encode_ordinary(corpus)
    assert ids == teacher.encode_ordinary(corpus)


@settings(max_examples=100, deadline=None)
@given(st.text("ab", min_size=65, max_size=300), st.lists(st.text("ab", min_size=2, max_size=6), max_size=12))
def test_long_chunks_equal_tiktokens_for_any_ranks(text, tokens):
    # made-up ranks, not learned: pairs may join in more than one way, in an order that no training would give
    ranks = {bytes([i]): i for i in range(256)}
    for token in tokens:
        ranks.setdefault(token.encode(), len(ranks))
    oracle = tiktoken.Encoding("oracle", pat_str=rustbpe.PATTERN, mergeable_ranks=ranks, special_tokens={})
    for chunk in (text, text[:50]):  # the heap, and the plain scan
        assert Rust(ranks).encode(chunk) == oracle.encode_ordinary(chunk)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_batch_is_its_texts_one_by_one(rust, corpus, threads):
    lines = ["", *corpus.splitlines(), ""]
    ids, offsets = rust.encode_batch(lines, threads)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == [rust.encode(line) for line in lines]


def test_an_empty_batch_has_no_ids(rust):
    ids, offsets = rust.encode_batch([])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


def test_numpy_ids_are_the_list_of_ids(rust):
    array = rust.encode_to_numpy(SCRIPTS)
    assert array.dtype == np.uint32
    assert array.tolist() == rust.encode(SCRIPTS)
    assert rust.decode(array) == rust.decode(array.astype(np.int64)) == rust.decode(array[::1].tolist()) == SCRIPTS


def test_half_a_character_decodes_to_a_replacement(rust):
    assert rust.decode([0x80]) == "\ufffd"
    assert rust.decode_bytes([0x80]) == b"\x80"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=12))
def test_broken_utf8_decodes_as_python_replaces_it(rust, data):
    assert rust.decode(list(data)) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("unknown", [1000, -1, 2**32, 2**40])
def test_an_unknown_id_is_refused(rust, unknown):
    with pytest.raises(ValueError, match=f"id {unknown} is not in the vocabulary"):
        rust.decode([65, unknown])


def test_half_a_surrogate_pair_is_a_replacement_as_in_tiktoken(rust, oracle):
    for text in ("a\ud83db", "\udc00\ud800", "\ud83d\ude09"):
        assert rust.encode(text) == oracle.encode_ordinary(text)


# --- vocabularies


def test_a_tokenizer_is_rebuilt_from_its_ranks_and_from_its_merges(rust):
    for twin in (Rust(rust.mergeable_ranks()), Rust.from_merges(rust.merges())):
        assert twin.mergeable_ranks() == rust.mergeable_ranks()
        assert twin.merges() == rust.merges()
        assert twin.encode(SCRIPTS) == rust.encode(SCRIPTS)


def test_merges_recovered_from_ranks_equal_the_teaching_ones(rust):
    assert rust.merges() == list(recover_merges(rust.mergeable_ranks()))


def test_ranks_that_are_no_vocabulary_are_refused():
    bytes_only = {bytes([i]): i for i in range(256)}
    with pytest.raises(ValueError, match="byte 7 is not a token"):
        Rust({token: i for token, i in bytes_only.items() if i != 7})
    with pytest.raises(ValueError, match="given twice"):
        Rust(bytes_only | {b"ab": 9})
    with pytest.raises(ValueError, match="names a later token"):
        Rust.from_merges([(97, 256)])
    with pytest.raises(ValueError, match="the same bytes"):
        Rust.from_merges([(97, 97), (256, 97), (97, 256)])
    with pytest.raises(ValueError, match="bytes"):
        Rust.from_merges([(97, 97), *[(i, i) for i in range(256, 320)]])  # 2^65 letters
    with pytest.raises(ValueError, match="not a BPE"):
        Rust(bytes_only | {b"abc": 256}).merges()


# --- hostile text: quadratic work on any of these would take minutes


def hostile() -> dict[str, str]:
    dice = random.Random(0)
    return {
        "one letter": "a" * 1_000_000,
        "blanks": " " * 1_000_000,
        "newlines": "\n" * 1_000_000,
        "blanks and newlines": " \n" * 500_000 + "x",
        "marks": "=" * 1_000_000,
        "digits": "1" * 1_000_000,
        "random letters": "".join(dice.choices("abcdefgh", k=300_000)),
        "random Chinese": "".join(map(chr, dice.choices(range(0x4E00, 0x9FFF), k=100_000))),
        "apostrophes": "'" * 1_000_000,
    }


@pytest.mark.parametrize("text", hostile().values(), ids=hostile())
def test_hostile_text_is_learned_encoded_and_decoded(rust, text):
    assert rust.decode(rust.encode_to_numpy(text)) == text
    own = Rust.train_from_iterator([text], 320, threads=1)
    assert own.decode(own.encode_to_numpy(text)) == text


def test_a_run_of_a_million_is_merged_by_doubling():
    rust = Rust.train_from_iterator(["a" * 2**20], 256 + 20, threads=1)
    assert rust.merges() == [(97, 97), *[(i, i) for i in range(256, 275)]]
    assert rust.encode("a" * 2**20) == [275]
    assert rust.encode("a" * (2**20 - 1)) == [*range(274, 255, -1), 97]
